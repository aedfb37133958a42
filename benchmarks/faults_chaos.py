"""What breaks around the scanners: the service, its processes, its disk, and the PACS it delivers to."""

import os
import random
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.faults_load import Fault, Journal
from benchmarks.service import ReceivingPacs, Service

AROUND = (Fault.SERVICE_KILLED, Fault.RECEIVER_KILLED, Fault.WORKER_KILLED, Fault.PACS_STOPPED, Fault.DISK_FILLED)


class NoSmallDisk(Exception):
    """No file system of its own can be mounted here; the message says why."""


@dataclass(kw_only=True)
class Chaos:
    """Breaks things, one after the other; each is whole again when `inflict` returns."""

    service: Service
    pacs: ReceivingPacs
    journal: Journal
    rng: random.Random
    ballast: Path | None
    """The file that fills the service's disk; None where that is not a disk of its own."""
    _pause: threading.Event = field(default_factory=threading.Event)

    def after(self, at_most_s: float, fault: Fault) -> None:
        """Inflict a fault after a random while."""
        self._pause.wait(self.rng.uniform(0, at_most_s))
        self.inflict(fault)

    def inflict(self, fault: Fault) -> None:
        """Break something, and make it whole again; it counts only where there was something to break."""
        ways: Mapping[Fault, Callable[[], None]] = {
            Fault.SERVICE_KILLED: self._kill_service,
            Fault.RECEIVER_KILLED: self._kill_receiver,
            Fault.WORKER_KILLED: self._kill_worker,
            Fault.PACS_STOPPED: self._stop_pacs,
            Fault.DISK_FILLED: self._fill_disk,
        }
        ways[fault]()

    def _kill_service(self) -> None:
        self.journal.fault(Fault.SERVICE_KILLED)
        self.service.kill()
        self._pause.wait(self.rng.uniform(0, 0.5))
        self.service.start()
        self.journal.note("service ready again")

    def _kill_receiver(self) -> None:
        self._kill_one(Fault.RECEIVER_KILLED, receivers_of(self.service))

    def _kill_worker(self) -> None:
        self._kill_one(Fault.WORKER_KILLED, workers_of(self.service))

    def _kill_one(self, fault: Fault, processes: list[psutil.Process]) -> None:
        if not processes:
            self.journal.note(f"no process for: {fault}")
            return
        self.journal.fault(fault)
        try:
            self.rng.choice(processes).kill()
        except psutil.NoSuchProcess:
            self.journal.note("that process had just ended")

    def _stop_pacs(self) -> None:
        self.journal.fault(Fault.PACS_STOPPED)
        self.pacs.stop()
        self._pause.wait(self.rng.uniform(0.2, 2.0))
        self.pacs.start()
        self.journal.note("PACS is back")

    def _fill_disk(self) -> None:
        if self.ballast is None:
            return
        self.journal.fault(Fault.DISK_FILLED)
        fill(self.ballast)
        self._pause.wait(self.rng.uniform(0.3, 2.0))
        self.ballast.unlink()
        self.journal.note("disk has room again")


def receivers_of(service: Service) -> list[psutil.Process]:
    """Return the processes beside the driver that listen on the service's port, or speak on it."""
    return [each for each in service.processes() if each.pid != service.pid and _uses(each, service.port)]


def workers_of(service: Service) -> list[psutil.Process]:
    """Return the processes that a fork server made for triage and pictures."""
    return [each for each in service.processes() if _is_forked(each, service.pid) and not _uses(each, service.port)]


def _is_forked(process: psutil.Process, driver: int) -> bool:
    try:
        return "forkserver" in " ".join(process.cmdline()) and process.ppid() != driver
    except psutil.Error:
        return False


def _uses(process: psutil.Process, port: int) -> bool:
    try:
        return any(each.laddr and each.laddr.port == port for each in process.net_connections("inet"))
    except psutil.Error:
        return False


def fill(ballast: Path) -> None:
    """Take all the room that is left on the disk of a file."""
    with ballast.open("wb") as file:
        while free := shutil.disk_usage(ballast.parent).free:
            try:
                os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), free)
            except OSError:
                return  # somebody else took some of it meanwhile: it is full


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """Mount a file system of its own in memory on a folder, and take it away. Raises NoSmallDisk."""
    folder.mkdir()
    if os.geteuid() != 0 or not shutil.which("mount"):
        raise NoSmallDisk("only root can mount a small file system to fill")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        raise NoSmallDisk(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
