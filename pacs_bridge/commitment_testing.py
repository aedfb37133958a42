"""Storage commitment in a house for tests: its parts over a real database, and peers on sockets that note all."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import BytesIO
from random import Random
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom.dsutils import decode
from pynetdicom.dsutils import encode as encode_dataset

from pacs_bridge.archive import Archive
from pacs_bridge.arrival import ExpectedInstances
from pacs_bridge.commitment import (
    NO_SUCH_INSTANCE,
    PUSH_MODEL,
    PUSH_MODEL_INSTANCE,
    CommitmentReport,
    CommitmentRequest,
    Reference,
    read_report,
    read_request,
    written_report,
    written_request,
)
from pacs_bridge.deliveries import DELIVER, DeliverHandler, submit_deliveries
from pacs_bridge.desk import Desk
from pacs_bridge.destinations import destinations_of
from pacs_bridge.files import keep_by_content
from pacs_bridge.forward_ledger import ForwardLedger
from pacs_bridge.forward_rules import rules_of
from pacs_bridge.ledger import KeptObject, Ledger
from pacs_bridge.part10 import file_header
from pacs_bridge.services import EventReport, ServiceKind, ServiceRequest
from pacs_bridge.settings import Caller, Destination, Settings
from pacs_bridge.storage_commitment import StorageCommitment
from pipeline.model import Priority, Provenance, Report, StudyStatus
from scheduler.admission import Machine
from scheduler.database import Database
from scheduler.executors import inline
from scheduler.job import Job
from scheduler.sqlite_queue import SqliteQueue
from scheduler.worker import Lane, Worker

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
CT, SR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.88.67"
STUDY = "1.2.3"


@dataclass(kw_only=True)
class Clock:
    """A clock that a test moves."""

    now: datetime = datetime(2026, 1, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@dataclass(kw_only=True)
class House:
    """The parts over a real database, a worker on this thread, and a listener that notes what it is to send.

    ``open``: the associations that take a report; ``told``: (association, report) in order.
    """

    desk: Desk
    database: Database
    clock: Clock
    parts: StorageCommitment
    take_in: Callable[[int], None]
    open: set[str] = field(default_factory=lambda: {"A"})
    told: list[tuple[str, CommitmentReport]] = field(default_factory=list)
    declared: list[ExpectedInstances] = field(default_factory=list)

    def receive(self, *numbers: int) -> list[Reference]:
        """Keep slices, and name them as a caller does."""
        for number in numbers:
            self.take_in(number)
        return [ct(number) for number in numbers]

    def ask(self, *references: Reference, transaction: str = "1.9.1", **overrides: Any) -> int:
        """Ask as a caller; returns the status it hears."""
        asked = CommitmentRequest(transaction_uid=transaction, references=references)
        return self.serve("n_action", 1, written_request(asked), **overrides)

    def report(self, report: CommitmentReport, **overrides: Any) -> int:
        """Report as a PACS over an association of its own; returns the status it hears."""
        event = written_report(report)
        return self.serve("n_event_report", event.event_type_id, event.dataset, **{"calling_ae": "PACS", **overrides})

    def serve(self, kind: ServiceKind, type_id: int, dataset: bytes, **overrides: Any) -> int:
        """Send any request to the service; returns the status that its sender hears."""
        named: dict[str, Any] = {
            "calling_ae": "CT01",
            "address": "127.0.0.1",
            "association": "A",
            "sop_instance_uid": PUSH_MODEL_INSTANCE,
            **overrides,
        }
        request = ServiceRequest(
            kind=kind,
            sop_class_uid=PUSH_MODEL,
            type_id=type_id,
            dataset=dataset,
            transfer_syntax=IMPLICIT,
            **named,
        )
        return self.parts.service(request).status

    def run(self) -> None:
        """Do all that is due now."""
        worker = self.worker()
        while worker.step():
            pass

    def run_until(self, seconds: float) -> None:
        """Let so many seconds pass, working all the while."""
        until = self.clock.now + timedelta(seconds=seconds)
        while self.clock.now < until:
            self.run()
            self.clock.now += timedelta(seconds=min(600.0, max(1.0, seconds / 20)))
        self.run()

    def worker(self) -> Worker:
        """Make a worker whose lanes all run on this thread."""
        handlers = {DELIVER + name: DeliverHandler(desk=self.desk) for name in self.desk.destinations}
        machine, queue = Machine(memory_mb=1, slots=8), self.desk.queue
        deliveries = Lane(name="deliveries", executor=inline(), machine=machine, handlers=handlers)
        lanes = (deliveries, *self.parts.lanes(lambda _: inline()))
        return Worker(database=self.database, queue=queue, lanes=lanes, now=self.clock, random=Random(0))

    def job(self, kind: str) -> Job:
        """Return the one job whose kind begins so."""
        (job,) = [job for job in self.desk.queue.jobs() if job.kind.startswith(kind)]
        return job

    def event_report(self, association: str, event: EventReport) -> bool:
        """Take a report as an open association does."""
        if association in self.open:
            self.told.append((association, read_report(event.dataset, IMPLICIT, event.event_type_id)))
        return association in self.open

    @property
    def outcomes(self) -> list[int]:
        """The outcomes of the last report."""
        return list(self.told[-1][1].outcomes.values())


MakeHouse = Callable[..., House]


def desk_with(settings: Settings, database: Database, clock: Clock) -> Desk:
    """Open what handlers work with, without detectors."""
    return Desk(
        settings=settings,
        archive=Archive(settings.state_dir, database, free_space_floor_bytes=0),
        ledger=Ledger(database),
        forwards=ForwardLedger(database, rules_of(settings), settings.state_dir / "archive"),
        queue=SqliteQueue(database),
        provenance=Provenance(code_version="1", detector_versions={}, settings_hash="-"),
        destinations=destinations_of(settings),
        now=clock,
    )


def ct(number: int) -> Reference:
    """Name a slice as a caller does."""
    return Reference(sop_class_uid=CT, sop_instance_uid=f"1.2.3.4.{number}")


def caller(mode: Any, **more: Any) -> Caller:
    """Return the settings of the one who asks."""
    return Caller(ae_title="CT01", address="127.0.0.1", commitment=mode, **more)


def rows(house: House, table: str) -> int:
    """Count what a table holds."""
    with house.database.read() as connection:
        return int(connection.execute(f"select count(*) from {table}").fetchone()[0])


@dataclass(kw_only=True)
class Peer:
    """A PACS or a scanner on a socket: it notes what it is asked and told.

    ``keeps``: what it commits to; ``reports``: whether it does so on the association of the request, at once.
    ``status``: its answer to N-ACTION.
    """

    port: int = 0
    keeps: set[str] = field(default_factory=set)
    reports: bool = True
    status: int = 0
    requests: list[CommitmentRequest] = field(default_factory=list)
    told: list[CommitmentReport] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)
    unreported: list[CommitmentReport] = field(default_factory=list)
    answered: threading.Event = field(default_factory=threading.Event)

    def verdict(self, request: CommitmentRequest, failure: int = NO_SUCH_INSTANCE) -> CommitmentReport:
        """Return what it reports: ``failure`` for all that it does not keep."""
        outcomes = {each: 0 if each.sop_instance_uid in self.keeps else failure for each in request.references}
        return CommitmentReport(transaction_uid=request.transaction_uid, outcomes=outcomes)

    def n_action(self, event: Any) -> tuple[int, None]:
        """Note a request and answer it; the report follows the answer."""
        raw = encode_dataset(event.action_information, True, True)  # noqa: FBT003 - pynetdicom's own
        request = read_request(
            ServiceRequest(
                kind="n_action",
                sop_class_uid=PUSH_MODEL,
                sop_instance_uid=str(event.request.RequestedSOPInstanceUID),
                type_id=event.action_type,
                dataset=raw or b"",
                transfer_syntax=IMPLICIT,
                calling_ae="",
                address="127.0.0.1",
                association="",
            )
        )
        self.requests.append(request)
        if self.reports and self.status == 0:
            self.unreported.append(self.verdict(request))
        return self.status, None

    def pdu_sent(self, event: Any) -> None:
        """Report as soon as the answer to the request has left."""
        if self.unreported:
            report = self.unreported.pop()
            threading.Thread(target=self._report, args=(event.assoc, report), daemon=True).start()

    def _report(self, association: Any, report: CommitmentReport) -> None:
        event = written_report(report)
        content = read_information(event.dataset)
        status, _ = association.send_n_event_report(content, event.event_type_id, PUSH_MODEL, PUSH_MODEL_INSTANCE)
        if status.get("Status") == 0:
            self.answered.set()

    def n_event_report(self, event: Any) -> tuple[int, None]:
        """Note a report."""
        raw = encode_dataset(event.event_information, True, True)  # noqa: FBT003 - pynetdicom's own
        self.told.append(read_report(raw or b"", IMPLICIT, event.event_type))
        return 0, None

    def c_store(self, event: Any) -> int:
        """Note an instance, and keep no byte of it."""
        self.stored.append(str(event.request.AffectedSOPInstanceUID))
        return 0


def read_information(dataset: bytes) -> Dataset:
    """Decode what we have written, for pynetdicom to send."""
    content: Dataset = decode(BytesIO(dataset), True, True)  # noqa: FBT003 - pynetdicom's own
    return content


MakePeer = Callable[..., Peer]


def pacs(peer: Peer, **more: Any) -> Destination:
    """Return the settings of a destination that commits."""
    return Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=peer.port, commitment=True, **more)


def replace_name(destination: Destination, name: str) -> Destination:
    """Return a destination under another name."""
    return destination.model_copy(update={"name": name})


def publish(house: House) -> Report:
    """Commit a Report with one document and queue its delivery."""
    house.receive(1)
    path, sha256 = keep_by_content(house.desk.objects_dir, document())
    kept = KeptObject(
        kind="sr", index=1, sop_instance_uid="2.25.7", sop_class_uid=SR, series_instance_uid="2.25.8",
        path=path, sha256=sha256,
    )  # fmt: skip
    report = Report(
        study_instance_uid=STUDY, study_digest="d", status=StudyStatus.ANALYSED, priority=Priority.ROUTINE,
        examined=(), findings=(), provenance=house.desk.provenance, version=1, committed_at=house.clock.now,
    )  # fmt: skip
    house.desk.ledger.commit(report, provenance_key="-", timings_s={}, objects=(kept,))
    submit_deliveries(house.desk, report, (kept,), group="flags")
    return report


def document() -> bytes:
    """Return a file that claims to be a structured report."""
    content = Dataset()
    content.SOPClassUID, content.SOPInstanceUID = SR, "2.25.7"
    return file_header(SR, "2.25.7", EXPLICIT, "CTRIAGE") + bytes(encode_dataset(content, False, True) or b"")  # noqa: FBT003
