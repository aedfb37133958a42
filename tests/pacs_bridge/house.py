"""A desk over a real database, with detectors that see what tests put there, for tests of jobs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from pacs_bridge.app import desk_of
from pacs_bridge.deliveries import DELIVER, REJECT, DeliverHandler
from pacs_bridge.desk import Desk
from pacs_bridge.handlers import DERIVE, TRIAGE, DeriveHandler, TriageHandler
from pacs_bridge.instance import read_facts
from pacs_bridge.ledger import CommittedReport, KeptObject
from pacs_bridge.rejections import RejectHandler
from pacs_bridge.settings import Destination, Detectors, Outputs, Settings
from scheduler.admission import Machine
from scheduler.database import Database
from scheduler.executors import inline
from scheduler.job import Job, JobRequest, Status
from scheduler.worker import Handler, Lane, Worker

EXPLICIT = "1.2.840.10008.1.2.1"
STUDY = "1.2.3"
BRIGHT_HU = 1000
PLUGIN = """
import numpy as np
from pipeline.model import HEMORRHAGE, Finding
from reconstruction.volume import Mask

class Bright:
    name, version, looks_for = "bright", "1", ("hemorrhage",)

    def declines(self, acquisition):
        return None

    def __call__(self, volume, acquisition):
        bits = volume.hu >= {bright_hu}
        if not bits.any():
            return ()
        region = Mask.cropped_from(bits, volume.geometry)
        place = tuple(float(mm) for mm in volume.geometry.to_mm(np.argwhere(bits).mean(axis=0)))
        return (Finding(kind="hemorrhage", subtype="bright", code=HEMORRHAGE, probability=0.9, region=region,
                        volume_ml=1.0, centroid_lps_mm=place, detector=self.name),)

class Blind(Bright):
    name, version = "blind", "1"

    def __call__(self, volume, acquisition):
        return ()
"""
ENTRY_POINTS = "[ctriage.detectors]\nbright = ctriage_test_plugin:Bright\nblind = ctriage_test_plugin:Blind\n"


@pytest.fixture
def installed_detectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package with two detectors: one sees what is bright, the other sees nothing."""
    site = tmp_path / "site"
    package = site / "ctriage_test_plugin-1.dist-info"
    package.mkdir(parents=True)
    (site / "ctriage_test_plugin.py").write_text(PLUGIN.format(bright_hu=BRIGHT_HU))
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: ctriage-test-plugin\nVersion: 1\n")
    (package / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(site))


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@dataclass(kw_only=True)
class House:
    """A desk over a real database, and its worker, which runs everything on this thread."""

    desk: Desk
    database: Database
    clock: Clock
    encode: Callable[[Dataset], bytes]
    make_slice: Callable[..., Dataset]

    def receive(self, number: int, count: int = 4, *, first: int = 1, hot: bool = False, **overrides: Any) -> None:
        """Take in slices of series ``number``; it stays open until ``complete``."""
        for n in range(first, first + count):
            self.take_in(house_slice(self.make_slice, number, n, hot=hot, **overrides))
        self.desk.archive.set_series_state(STUDY, f"{STUDY}.{number}", "open")

    def take_in(self, dataset: Dataset, *, is_ours: bool = False) -> None:
        """Take in one instance."""
        content = self.encode(dataset)
        facts = read_facts(content, EXPLICIT)
        stored = self.desk.archive.store(facts, content, EXPLICIT, "CT01")
        self.desk.archive.add(facts, stored, "CT01", self.clock.now, is_ours=is_ours)

    def complete(self, *numbers: int) -> None:
        """Hold series to be complete."""
        for number in numbers:
            self.desk.archive.set_series_state(STUDY, f"{STUDY}.{number}", "complete", "contiguous")

    def submit_triage(self, *, final: bool = False) -> str:
        """Queue a triage of the study as it stands; returns the job's key."""
        key = f"{TRIAGE}:{len(self.desk.queue.jobs())}"
        payload = {"study_instance_uid": STUDY, "final": final}
        self.desk.queue.submit(JobRequest(key=key, kind=TRIAGE, payload=payload, group="study"), now=self.clock.now)
        return key

    def triage(self, *, final: bool = False) -> CommittedReport | None:
        """Triage the study, without pictures and deliveries; returns the current version."""
        key = self.submit_triage(final=final)
        self.run(TRIAGE)
        assert Status.DONE is self.desk.queue.job(key).status
        return self.desk.ledger.latest(STUDY)

    def run(self, *kinds: str) -> None:
        """Do all jobs of these kinds that are due (of every kind where none is named)."""
        worker = self.worker(*kinds)
        while worker.step():
            pass

    def worker(self, *kinds: str) -> Worker:
        handlers: dict[str, Handler[Any]] = {
            TRIAGE: TriageHandler(desk=self.desk),
            DERIVE: DeriveHandler(desk=self.desk),
            REJECT: RejectHandler(desk=self.desk),
            **{DELIVER + name: DeliverHandler(desk=self.desk) for name in self.desk.destinations},
        }
        chosen = {kind: handler for kind, handler in handlers.items() if not kinds or kind in kinds}
        lane = Lane(name="all", executor=inline(), machine=Machine(memory_mb=1, slots=8), handlers=chosen, give_up_at=3)
        queue = self.desk.queue
        return Worker(database=self.database, queue=queue, lanes=(lane,), now=self.clock, random=Random(0))

    def jobs(self, kind: str) -> list[Job]:
        return [job for job in self.desk.queue.jobs() if job.kind.startswith(kind)]

    def kept(self, version: int) -> list[KeptObject]:
        return self.desk.ledger.objects(STUDY, version)

    def job(self, kind: str, **payload: object) -> Job:
        """Return a job as a handler gets it, claimed from nowhere."""
        key = f"{kind}/{payload}"
        request = JobRequest(key=key, kind="by hand", payload={"study_instance_uid": STUDY, **payload})
        self.desk.queue.submit(request, now=self.clock.now)
        return self.desk.queue.job(key)


MakeHouse = Callable[..., House]


@pytest.fixture
def make_house(tmp_path: Path, encode: Any, make_slice: Any, installed_detectors: None) -> Iterator[MakeHouse]:
    """Return a maker of houses over one folder: making one twice is a restart, with other settings."""
    databases: list[Database] = []

    def make(*detectors: str, **more: Any) -> House:
        settings = Settings(
            **{
                "state_dir": tmp_path / "state",
                "detectors": Detectors(enabled=detectors or ("bright",)),
                "outputs": Outputs(mpr=False, mip=False, render=False),
                **more,
            }
        )
        settings.state_dir.mkdir(exist_ok=True)
        database, clock = Database(settings.database), Clock()
        databases.append(database)
        desk = replace(desk_of(settings, database), now=clock)
        return House(desk=desk, database=database, clock=clock, encode=encode, make_slice=make_slice)

    yield make
    for database in databases:
        database.close()


@pytest.fixture
def house(make_house: MakeHouse) -> House:
    return make_house(destination=(PACS,))


PACS = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=1)


def house_slice(make_slice: Callable[..., Dataset], number: int, n: int, *, hot: bool, **overrides: Any) -> Dataset:
    pixels = np.full((16, 16), 30, dtype=np.int16)
    pixels[4:8, 4:8] = BRIGHT_HU if hot else 30
    return make_slice(
        n,
        **{
            "SeriesInstanceUID": f"{STUDY}.{number}",
            "SOPInstanceUID": f"{STUDY}.{number}.{n}",
            "SeriesNumber": number,
            "FrameOfReferenceUID": f"{STUDY}.{number}.999",
            "Rows": 16,
            "Columns": 16,
            "PixelSpacing": [2, 2],
            "SliceThickness": 5,
            "HighBit": 15,
            "PixelRepresentation": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "RescaleSlope": 1,
            "RescaleIntercept": 0,
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
            "PixelData": pixels.tobytes(),
            **overrides,
        },
    )
