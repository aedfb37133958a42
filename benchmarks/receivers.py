"""Who receives? ctriage, Orthanc, storescp and pynetdicom: each started afresh, on an empty folder of one disk."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.orthanc import NoOrthanc, running_orthanc
from benchmarks.service import Service, family, free_port, running, wait_until
from benchmarks.wire import VERIFICATION, Broken, associate

NODELAY = {**os.environ, "TCP_NODELAY": "1"}
CALM_S, CALM_PERCENT = 0.3, 3.0
"""A receiver that has just started is left alone until it has used so little of a processor for so long."""

NO_STUDY_ENDS = {"quiet_s": 86400, "settle_s": 3600}
"""Arrival is not concluded on while images come: what is measured is receiving, not what follows."""


class Missing(Exception):
    """A program that should receive is not installed here; the message names the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """A program that listens. Senders are started with ``inside`` before their name, and find it on 127.0.0.1.

    ``held`` counts the instances that it has kept.
    """

    ae_title: str
    port: int
    held: Callable[[], int]
    pid: int | None = None
    inside: tuple[str, ...] = ()


@contextmanager
def ctriage(folder: Path) -> Iterator[Receiver]:
    """Run a real `ctriage serve`; it ends by being killed, so that no triage begins behind the last image."""
    service = Service(folder / "state", {"arrival": NO_STUDY_ENDS, "workers": {"processes": 1}})
    with running(service):
        receiver = Receiver(
            ae_title="CTRIAGE",
            port=service.port,
            held=lambda: instances_in(service.state_dir / "ctriage.sqlite"),
            pid=service.pid,
        )
        wait_until_calm(service.pid)
        yield receiver


@contextmanager
def orthanc(folder: Path) -> Iterator[Receiver]:
    """Run Debian's Orthanc; its senders run inside its network namespace, so that they too speak over loopback."""
    try:
        with running_orthanc(folder / "orthanc") as peer:
            yield Receiver(
                ae_title=peer.ae_title,
                port=peer.dicom_port,
                held=lambda: int(peer.get("/statistics")["CountInstances"]),
                inside=peer.inside,
            )
    except NoOrthanc as missing:
        raise Missing(str(missing)) from missing


@contextmanager
def storescp(folder: Path) -> Iterator[Receiver]:
    """Run DCMTK's storescp as it comes."""
    if shutil.which("storescp") is None:
        raise Missing("storescp is not installed (Debian's package dcmtk)")
    port, kept = free_port(), folder / "storescp"
    kept.mkdir()
    command = ["storescp", "-aet", "STORESCP", "-od", str(kept), str(port)]
    with _running_program(command, "STORESCP", port, kept) as receiver:
        yield receiver


@contextmanager
def pynetdicom_storescp(folder: Path) -> Iterator[Receiver]:
    """Run pynetdicom's own storescp application."""
    port, kept = free_port(), folder / "pynetdicom"
    kept.mkdir()
    command = [sys.executable, "-m", "pynetdicom", "storescp", "-q", "-ba", "127.0.0.1", "-od", str(kept), str(port)]
    with _running_program(command, "STORESCP", port, kept) as receiver:
        yield receiver


RECEIVERS = {
    "ctriage": ctriage,
    "orthanc": orthanc,
    "storescp": storescp,
    "pynetdicom_storescp": pynetdicom_storescp,
}


def instances_in(database: Path) -> int:
    """Count the rows of the index, read-only."""
    connection = sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=10)
    try:
        return int(connection.execute("select count(*) from instances").fetchone()[0])
    finally:
        connection.close()


def wait_until_calm(pid: int) -> None:
    """Wait until a program and its children have started up: they use hardly any processor."""
    wait_until(lambda: _percent(pid) < CALM_PERCENT, within_s=60, what="a started program to become calm")


def _percent(pid: int) -> float:
    """Return how much of one processor a program and its children use during CALM_S."""
    before = _processor_s(pid)
    psutil.cpu_percent(interval=CALM_S)
    return (_processor_s(pid) - before) / CALM_S * 100


def _processor_s(pid: int) -> float:
    total = 0.0
    for process in family(pid):
        try:
            total += sum(process.cpu_times()[:2])
        except psutil.NoSuchProcess:
            continue
    return total


@contextmanager
def _running_program(command: list[str], ae_title: str, port: int, kept: Path) -> Iterator[Receiver]:
    with subprocess.Popen(command, env=NODELAY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: _answers(port, ae_title), within_s=30, what=f"{command[0]} to listen")
            yield Receiver(ae_title=ae_title, port=port, held=lambda: sum(1 for _ in kept.iterdir()), pid=process.pid)
        finally:
            process.kill()


def _answers(port: int, ae_title: str) -> bool:
    try:
        with associate(("127.0.0.1", port), called=ae_title, contexts=[(VERIFICATION, "1.2.840.10008.1.2")]) as peer:
            peer.echo()
            peer.release()
    except Broken:
        return False
    return True
