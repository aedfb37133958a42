"""Does one and the same process go on when its disk was full and has room again?"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from benchmarks.service import ReceivingPacs, Service, wait_until

SMALL_DISK_MB = 128
"""Filling a tmpfs takes that much memory."""
FREE_MB = 48
DISK = {"free_mb": FREE_MB}


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


def fill(ballast: Path, *, but: int = 0) -> None:
    """Take all the room that is left but so many bytes; a tmpfs keeps unwritten blocks as taken."""
    with ballast.open("wb") as file:
        while (free := shutil.disk_usage(ballast.parent).free - but) > 0:
            with contextlib.suppress(OSError):  # others write meanwhile
                os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), free)


def test_a_service_outlasts_a_full_disk_and_processes_what_is_sent_again(
    make_service: Any, pacs: ReceivingPacs, to_pacs: Any, send: Any, small_study: list[Path], small_disk: Path
) -> None:
    service: Service = make_service(destination=[to_pacs(pacs, send=["sr"])], disk=DISK)
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


def test_images_are_refused_before_the_disk_is_full_and_taken_again_when_there_is_room(
    make_service: Any, send: Any, small_study: list[Path], small_disk: Path
) -> None:
    service: Service = make_service(disk=DISK)
    ballast = small_disk / "ballast"
    fill(ballast, but=FREE_MB * 2**20 + 3 * small_study[0].stat().st_size // 2)
    sent = send(service, small_study)
    assert 1 <= len(sent.failures) < len(small_study)
    assert all("0xA700" in failure.problem.reason for failure in sent.failures)
    assert shutil.disk_usage(small_disk).free > 0.9 * FREE_MB * 2**20
    fill(small_disk / "more", but=(FREE_MB - 1) * 2**20)
    told = ctriage("status", service)
    assert (0, True) == (told.returncode, "images are refused (0xA700)" in told.stderr)
    assert json.loads(ctriage("status", service, "--json").stdout)["disk"]["refuses_images"]
    checked = ctriage("check", service)
    assert (1, True) == (checked.returncode, "disk.free_mb" in checked.stdout)
    ballast.unlink()
    (small_disk / "more").unlink()
    send(service, small_study).raise_failure()
    assert not json.loads(ctriage("status", service, "--json").stdout)["disk"]["refuses_images"]


def test_a_start_on_a_full_disk_says_so_and_loses_nothing(
    make_service: Any, send: Any, small_study: list[Path], small_disk: Path
) -> None:
    service: Service = make_service(disk=DISK)
    send(service, small_study).raise_failure()
    wait_until(service.is_idle, within_s=120, what="the report")
    service.stop()
    ballast = small_disk / "ballast"
    fill(ballast)
    said = ctriage("serve", service)
    assert (1, "", False) == (said.returncode, said.stdout, "Traceback" in said.stderr)
    assert "make room" in said.stderr
    ballast.unlink()
    service.start()
    assert 0 == ctriage("verify", service).returncode
    assert "quiet" == service.status()["studies"][0]["state"]


def ctriage(command: str, service: Service, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a command of an administrator over a service's state."""
    settings = (f"state_dir={service.state_dir}", f"disk.free_mb={FREE_MB}", f"listener.port={service.port}")
    named = [word for each in settings for word in ("--set", each)]
    line = [sys.executable, "-m", "pacs_bridge", command, *named, *options]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)


def _named(service: Service) -> set[str]:
    from pacs_bridge.status import read_report

    (study,) = service.status()["studies"]
    found = read_report(service.state_dir / "ctriage.sqlite", study["study_instance_uid"])
    assert found is not None
    return {uid for row in found[0].examined for uid in row.instances}
