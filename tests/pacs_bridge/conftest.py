"""The bridge in a temporary folder: archive, intake and a listener on a free port of this machine."""

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pynetdicom import _config

from pacs_bridge.archive import Archive
from pacs_bridge.arrival import Instruction, Limits
from pacs_bridge.audit import AuditEvent
from pacs_bridge.front_desk import Admission, ReceptionDesk
from pacs_bridge.intake import Consequences, Intake
from pacs_bridge.listener import Listener, ListenerOptions
from pacs_bridge.receiving.command import C_STORE_RQ, Command
from pacs_bridge.receiving.receiver import ReceiverOptions
from pacs_bridge.receiving.sink import InstanceSink, Reception
from pacs_bridge.receiving.storing_socket import Bounds
from pacs_bridge.services import Service
from pacs_bridge.store_status import StoreStatus
from scheduler.database import Database
from tests.pacs_bridge.house import house, installed_detectors, make_house

__all__ = ["house", "installed_detectors", "make_house"]
"""Fixtures that live in house.py."""

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"


@dataclass(kw_only=True)
class Clock:
    """A clock that a test moves."""

    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)


@dataclass(kw_only=True)
class Bridge:
    """What a test works with; ``instructions`` are those the intake gave, in order."""

    state_dir: Path
    database: Database
    archive: Archive
    intake: Intake
    clock: Clock
    instructions: list[Instruction] = field(default_factory=list)
    audited: list[AuditEvent] = field(default_factory=list)

    def desk(self, services: Mapping[str, Service] | None = None, **admission: Any) -> ReceptionDesk:
        """Return a front desk that lets in whom ``admission`` says."""
        return ReceptionDesk(
            Admission(**{"ae_title": "CTRIAGE", **admission}),
            self.intake,
            services=services or {},
            audit=self.audited.append,
            now=self.clock,
        )

    def store(self, received: Any) -> StoreStatus:
        """Keep one instance as a receiver does; return what its sender hears."""
        reception = Reception(
            files=self.archive.files,
            desk=self.desk(),
            calling_ae=received.calling_ae,
            association=received.association,
            maximum_instance_bytes=2**30,
        )
        command = Command(
            field=C_STORE_RQ,
            has_dataset=True,
            sop_class_uid=received.sop_class_uid,
            sop_instance_uid=received.sop_instance_uid,
        )
        sink = InstanceSink(reception, command, received.transfer_syntax)
        sink.write(memoryview(received.dataset))
        return sink.finish().status


MakeBridge = Callable[..., Bridge]
Listen = Callable[..., Listener]


@pytest.fixture(autouse=True)
def pynetdicom_as_it_comes() -> None:
    """Undo what a listener of an earlier test has set for the whole process: peers of tests choose what they take."""
    _config.UNRESTRICTED_STORAGE_SERVICE = False


@pytest.fixture
def make_bridge(tmp_path: Path) -> Iterator[MakeBridge]:
    """Return a maker of bridges over one folder: making one twice is a restart."""
    databases: list[Database] = []

    def make(state_dir: Path = tmp_path, **archive_options: Any) -> Bridge:
        database = Database(state_dir / "ctriage.db")
        databases.append(database)
        clock, told = Clock(), list[Instruction]()
        archive = Archive(state_dir, database, **{"free_space_floor_bytes": 0, **archive_options})
        intake = Intake(
            archive,
            database,
            consequences=Consequences(on_instruction=told.append),
            is_ours=lambda facts: facts.manufacturer == "ctriage",
            limits=Limits(),
            clock=clock,
        )
        return Bridge(
            state_dir=state_dir, database=database, archive=archive, intake=intake, clock=clock, instructions=told
        )

    yield make
    for database in databases:
        database.close()


@pytest.fixture
def bridge(make_bridge: MakeBridge) -> Bridge:
    """Return a bridge over an empty folder."""
    return make_bridge()


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Return a function that listens for a bridge until the test ends."""
    listeners: list[Listener] = []

    def start(
        bridge: Bridge,
        *,
        services: Mapping[str, Service] | None = None,
        options: Mapping[str, Any] | None = None,
        receiver: Mapping[str, Any] | None = None,
        **admission: Any,
    ) -> Listener:
        bounds = Bounds(maximum_pdu_bytes=256 * 1024, idle_s=120.0, slowest_bytes_per_s=0.0)
        receiving = {
            "ae_title": admission.get("ae_title", "CTRIAGE"),
            "bounds": bounds,
            "maximum_instance_bytes": 2**30,
            "services": tuple(services or ()),
        }
        where = ListenerOptions(
            **{"port": 0, "receiver": ReceiverOptions(**{**receiving, **(receiver or {})}), **(options or {})}
        )
        listener = Listener(where, bridge.desk(services, **admission), bridge.archive.files)
        listener.start()
        listeners.append(listener)
        return listener

    yield start
    for listener in listeners:
        listener.stop()


@pytest.fixture(scope="session")
def dcmtk() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a runner of DCMTK's programs; a test that names one which is absent is skipped."""

    def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [program, *map(str, arguments)],
                env={**os.environ, "TCP_NODELAY": "1"},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        except FileNotFoundError:
            pytest.skip(f"{program} is not installed (Debian's package dcmtk)")

    return run


MakeSlice = Callable[..., Dataset]


@pytest.fixture(scope="session")
def make_slice() -> MakeSlice:
    """Return a maker of small CT slices: number ``n`` of a series, any attribute overridden by keyword."""
    return _slice


@pytest.fixture(scope="session")
def encode() -> Callable[[Dataset], bytes]:
    """Return an encoder of data sets as explicit VR little endian, without file meta information."""
    return _encoded


def _slice(n: int = 1, **overrides: Any) -> Dataset:
    header = Dataset()
    header.SOPClassUID = CT_IMAGE
    header.SOPInstanceUID = f"1.2.3.4.{n}"
    header.Modality = "CT"
    header.StudyInstanceUID = "1.2.3"
    header.SeriesInstanceUID = "1.2.3.4"
    header.PatientID = "P1"
    header.PatientName = "Doe^Jane"
    header.InstanceNumber = n
    header.ImagePositionPatient = [0, 0, 5 * n]
    header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    header.Rows = header.Columns = 4
    header.BitsAllocated = header.BitsStored = 16
    header.SamplesPerPixel = 1
    header.PixelRepresentation = 0
    header.PixelData = bytes(32)
    header["PixelData"].VR = "OW"
    for name, value in overrides.items():
        setattr(header, name, value)
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = EXPLICIT  # type: ignore[assignment]
    return header


def _encoded(dataset: Dataset) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, dataset)
    return buffer.getvalue()
