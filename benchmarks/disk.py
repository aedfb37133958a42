"""How is one program kept from paying for what another one wrote? And on which file system is measured?"""

import os
import shutil
from pathlib import Path

import psutil

from benchmarks.service import wait_until

SETTLED_BYTES = 16 * 2**20


def settle(*leftovers: Path) -> None:
    """Remove what a run has left, then write back all that waits in memory, and wait until the disk has taken it."""
    for folder in leftovers:
        shutil.rmtree(folder, ignore_errors=True)
    os.sync()
    wait_until(lambda: unwritten_bytes() < SETTLED_BYTES, within_s=120, what="the disk to take what was written")


def unwritten_bytes() -> int:
    """Return how much of the page cache waits for the disk, or is on its way."""
    waiting = 0
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, amount = line.partition(":")
        if name in ("Dirty", "Writeback"):
            waiting += int(amount.split()[0]) * 1024
    return waiting


def file_system(folder: Path) -> str:
    """Return the type of the file system that a folder lies on."""
    mounted = {each.mountpoint: each.fstype for each in psutil.disk_partitions(all=True)}
    place = folder.resolve()
    return next((mounted[str(each)] for each in (place, *place.parents) if str(each) in mounted), "unknown")
