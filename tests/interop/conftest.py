"""A whole service that listens in clear and over TLS, nodes of its hospital and of others, and peers' programs."""

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from benchmarks.service import Service, free_port, running
from pacs_bridge.settings import Tls
from pacs_bridge.tls_testing import Hospital


@dataclass(frozen=True, slots=True, kw_only=True)
class Reception:
    """A running service, and how it is reached."""

    service: Service
    tls_port: int
    hospital: Hospital

    def port(self, *, tls: bool) -> int:
        """Return the port for TLS or the one in clear."""
        return self.tls_port if tls else self.service.port

    def instances_of(self, study: str) -> int:
        """Count what is indexed of a study."""
        with closing(sqlite3.connect(f"file:{self.service.state_dir}/ctriage.sqlite?mode=ro", uri=True)) as index:
            row = index.execute("select count(*) from instances where study_instance_uid = ?", (study,)).fetchone()
        return int(row[0])

    def log(self) -> str:
        """Return what the service has said so far."""
        return self.service.log.read_text()


@pytest.fixture(scope="session")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    """Return the hospital that the service belongs to."""
    return Hospital(folder=tmp_path_factory.mktemp("nodes"))


def as_settings(tls: Tls) -> dict[str, str]:
    """Return the [tls] table that names these files."""
    return {name: str(path) for name, path in tls if isinstance(path, Path)}


@pytest.fixture(scope="session")
def tls_table() -> Callable[[Tls], dict[str, str]]:
    """Return what turns a node into its [tls] table."""
    return as_settings


@pytest.fixture(scope="session")
def reception(hospital: Hospital, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reception]:
    """Run a service with a port in clear and one for TLS, for all tests of this folder."""
    tls_port = free_port()
    settings: dict[str, Any] = {
        "listener__tls_port": str(tls_port),
        "tls": as_settings(hospital.node()),
        "workers": {"processes": 1},
        "outputs": {"mpr": False, "mip": False, "render": False},
        "arrival": {"quiet_s": 600},
    }
    service = Service(tmp_path_factory.mktemp("service") / "state", settings)
    with running(service):
        yield Reception(service=service, tls_port=tls_port, hospital=hospital)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """A small study in files."""

    study: str
    files: tuple[Path, ...]


@pytest.fixture
def scan(tmp_path: Path) -> Scan:
    """Return a study of three slices that nobody has seen."""
    study, series, folder = generate_uid(), generate_uid(), tmp_path / "scan"
    folder.mkdir()
    files = []
    for n in range(3):
        slice_of = _slice(study, series, n)
        files.append(folder / f"{n}.dcm")
        slice_of.save_as(files[-1], enforce_file_format=True)
    return Scan(study=study, files=tuple(files))


def _slice(study: str, series: str, n: int) -> Dataset:
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, generate_uid()
    header.StudyInstanceUID, header.SeriesInstanceUID = study, series
    header.PatientID, header.PatientName, header.Modality = "INTEROP", "Doe^Jane", "CT"
    header.InstanceNumber, header.ImagePositionPatient = n + 1, [0, 0, 5 * n]
    header.ImageOrientationPatient, header.PixelSpacing = [1, 0, 0, 0, 1, 0], [1, 1]
    header.Rows = header.Columns = 64
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit, header.SamplesPerPixel, header.PixelRepresentation = 15, 1, 0
    header.PhotometricInterpretation = "MONOCHROME2"
    header.PixelData = bytes(2 * 64 * 64)
    header["PixelData"].VR = "OW"
    return header


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def run() -> Run:
    """Return a runner of peers' programs and of our own; a test that names one which is absent is skipped."""

    def done(program: str, *arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", program] if program in ("pynetdicom", "pacs_bridge") else [program]
        if command == [program] and not shutil.which(program):
            pytest.skip(f"{program} is not installed (Debian's package dcmtk)")
        return subprocess.run(
            [*command, *map(str, arguments)],
            env={**os.environ, "TCP_NODELAY": "1", **more},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    return done


@dataclass(frozen=True, slots=True, kw_only=True)
class Taker:
    """A program that receives on a port of this machine, into a folder."""

    port: int
    folder: Path

    def taken(self) -> int:
        """Count the files it has."""
        return len(list(self.folder.iterdir()))


@pytest.fixture
def taker(tmp_path: Path, wait_until: Any) -> Iterator[Callable[..., Taker]]:
    """Return a starter of receiving programs: their command, to which port and folder are given."""
    started: list[subprocess.Popen[bytes]] = []
    folder = tmp_path / "taken"

    def start(*command: object) -> Taker:
        if not shutil.which(str(command[0])):
            pytest.skip(f"{command[0]} is not installed (Debian's package dcmtk)")
        folder.mkdir(exist_ok=True)
        port = free_port()
        named = [str(each).format(port=port, folder=folder) for each in command]
        with (tmp_path / "taker.log").open("ab") as log:
            started.append(subprocess.Popen(named, stdout=log, stderr=log, env={**os.environ, "TCP_NODELAY": "1"}))
        wait_until(lambda: _listens(port))
        return Taker(port=port, folder=folder)

    yield start
    for each in started:
        each.kill()
        each.wait()


def _listens(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0
