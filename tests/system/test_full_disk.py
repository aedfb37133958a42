"""Does one and the same process go on when its disk was full and has room again?"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from benchmarks.service import ReceivingPacs, Service, wait_until

SMALL_DISK_MB = 640
"""Just more than the room that the archive keeps free: filling a tmpfs takes that much memory."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder that is a small file system of its own."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("only root can mount a small file system to fill")
    folder = tmp_path / "state"  # the service puts its log beside its state
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_MB}m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(ballast: Path) -> None:
    """Take all the room that is left; a tmpfs keeps unwritten blocks as taken."""
    with ballast.open("wb") as file:
        free = shutil.disk_usage(ballast.parent).free
        while free:
            os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), free)
            free = shutil.disk_usage(ballast.parent).free


def test_a_service_outlasts_a_full_disk_and_processes_what_is_sent_again(
    make_service: Any, pacs: ReceivingPacs, to_pacs: Any, send: Any, small_study: list[Path], small_disk: Path
) -> None:
    service: Service = make_service(destination=[to_pacs(pacs, send=["sr"])])
    pid, ballast = service.pid, small_disk / "ballast"
    send(service, small_study[:1]).raise_failure()
    fill(ballast)
    refused = send(service, small_study[1:])
    assert len(small_study) - 1 == len(refused.failures)
    assert all("0xA700" in failure.problem.reason for failure in refused.failures)
    # The study of the first slice goes quiet meanwhile, which cannot be written either.
    wait_until(lambda: "cannot be noted" in service.log.read_text(), within_s=30, what="the full disk to be told")
    ballast.unlink()
    send(service, small_study).raise_failure()
    wait_until(lambda: service.is_idle() and bool(pacs.arrived), within_s=120, what="the report")
    assert (pid, True) == (service.pid, service.processes()[0].is_running())
    assert {str(pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID) for p in small_study} == _named(service)


def _named(service: Service) -> set[str]:
    from pacs_bridge.status import read_report

    (study,) = service.status()["studies"]
    found = read_report(service.state_dir / "ctriage.sqlite", study["study_instance_uid"])
    assert found is not None
    return {uid for row in found[0].examined for uid in row.instances}
