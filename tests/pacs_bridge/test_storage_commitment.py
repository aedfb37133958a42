"""Is what a caller was promised kept, told and never forgotten, and is a result delivered only when a PACS keeps it?"""

import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.dsutils import encode as encode_dataset

from pacs_bridge.archive import Archive
from pacs_bridge.arrival import ExpectedInstances
from pacs_bridge.commitment import (
    CLASS_INSTANCE_CONFLICT,
    COMMITTED,
    DUPLICATE_TRANSACTION,
    INVALID_ARGUMENT,
    NO_SUCH_INSTANCE,
    NOT_AUTHORISED,
    PROCESSING_FAILURE,
    PUSH_MODEL,
    PUSH_MODEL_INSTANCE,
    CommitmentLimits,
    CommitmentReport,
    CommitmentRequest,
    Reference,
    read_report,
    read_request,
    written_report,
    written_request,
)
from pacs_bridge.commitment_jobs import DECIDE, REPORT
from pacs_bridge.commitment_peers import tell
from pacs_bridge.deliveries import DELIVER, DeliverHandler, submit_deliveries
from pacs_bridge.desk import Desk
from pacs_bridge.destinations import destinations_of
from pacs_bridge.files import keep_by_content
from pacs_bridge.forward_ledger import ForwardLedger
from pacs_bridge.forward_rules import rules_of
from pacs_bridge.instance import read_facts
from pacs_bridge.ledger import KeptObject, Ledger
from pacs_bridge.sending.peer import Peer as SendingPeer
from pacs_bridge.services import EventReport, ServiceKind, ServiceRequest
from pacs_bridge.settings import Caller, Destination, Settings, Tls
from pacs_bridge.status import read_status
from pacs_bridge.storage_commitment import StorageCommitment, storage_commitment
from pacs_bridge.tls import server_context
from pacs_bridge.tls_testing import Hospital
from pacs_bridge.transport import SOCKET_HANDLERS
from pipeline.model import Priority, Provenance, Report, StudyStatus
from scheduler.admission import Machine
from scheduler.database import Database
from scheduler.errors import Permanent
from scheduler.executors import inline
from scheduler.job import Job, Status
from scheduler.sqlite_queue import SqliteQueue
from scheduler.worker import Lane, Task, Worker

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
        named: dict[str, Any] = {"calling_ae": "CT01", "address": "127.0.0.1", "association": "A", **overrides}
        request = ServiceRequest(
            kind=kind,
            sop_class_uid=PUSH_MODEL,
            sop_instance_uid=PUSH_MODEL_INSTANCE,
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
        handlers = {DELIVER + name: DeliverHandler(desk=self.desk) for name in self.desk.destinations}
        machine, queue = Machine(memory_mb=1, slots=8), self.desk.queue
        deliveries = Lane(name="deliveries", executor=inline(), machine=machine, handlers=handlers)
        lanes = (deliveries, *self.parts.lanes(lambda _: inline()))
        return Worker(database=self.database, queue=queue, lanes=lanes, now=self.clock, random=Random(0))

    def job(self, kind: str) -> Job:
        (job,) = [job for job in self.desk.queue.jobs() if job.kind.startswith(kind)]
        return job

    def event_report(self, association: str, event: EventReport) -> bool:
        if association in self.open:
            self.told.append((association, read_report(event.dataset, IMPLICIT, event.event_type_id)))
        return association in self.open

    @property
    def outcomes(self) -> list[int]:
        """The outcomes of the last report."""
        return list(self.told[-1][1].outcomes.values())


MakeHouse = Callable[..., House]


@pytest.fixture
def make_house(tmp_path: Path, encode: Any, make_slice: Any) -> Iterator[MakeHouse]:
    """Return a maker of houses over one folder: making one twice is a restart."""
    databases: list[Database] = []

    def make(
        *callers: Caller, destination: tuple[Destination, ...] = (), tls: Tls | None = None, **limits: Any
    ) -> House:
        settings = Settings(state_dir=tmp_path / "state", caller=callers, destination=destination, tls=tls or Tls())
        settings.state_dir.mkdir(exist_ok=True)
        database, clock = Database(settings.database), Clock()
        databases.append(database)
        desk = desk_with(settings, database, clock)

        def take_in(number: int) -> None:
            content = encode(make_slice(number))
            facts = read_facts(content, EXPLICIT)
            desk.archive.add(facts, desk.archive.store(facts, content, EXPLICIT, "CT01"), "CT01", clock.now)
            desk.archive.set_series_state(STUDY, "1.2.3.4", "open")

        parts = storage_commitment(desk, database, limits=replace(CommitmentLimits(linger_s=0.0), **limits))
        house = House(desk=desk, database=database, clock=clock, parts=parts, take_in=take_in)
        parts.surroundings.event_report = house.event_report
        parts.surroundings.declare = house.declared.append
        return house

    yield make
    for database in databases:
        database.close()


def desk_with(settings: Settings, database: Database, clock: Clock) -> Desk:
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
    return Reference(sop_class_uid=CT, sop_instance_uid=f"1.2.3.4.{number}")


def caller(mode: Any, **more: Any) -> Caller:
    return Caller(ae_title="CT01", address="127.0.0.1", commitment=mode, **more)


@pytest.fixture
def own(make_house: MakeHouse) -> House:
    return make_house(caller("own"))


# ---- who may ask ----------------------------------------------------------------------------------------------------


def test_a_caller_whose_commitment_is_off_is_refused_at_once(make_house: MakeHouse) -> None:
    house = make_house(caller("off"))
    assert NOT_AUTHORISED == house.ask(*house.receive(1))
    house.run()
    assert ([], []) == (house.told, house.desk.queue.jobs())


def test_without_callers_or_a_destination_that_commits_nothing_is_promised(make_house: MakeHouse) -> None:
    assert NOT_AUTHORISED == make_house().ask(ct(1))


def test_the_narrowest_network_that_names_a_caller_decides(make_house: MakeHouse) -> None:
    wide = Caller(ae_title="CT01", address="10.0.0.0/8", commitment="off")
    house = make_house(wide, Caller(ae_title="CT01", address="10.1.2.3", commitment="own"))
    assert [0, NOT_AUTHORISED] == [house.ask(ct(1), address=each) for each in ("10.1.2.3", "10.1.2.4")]


def test_a_request_that_cannot_be_understood_leaves_nothing(own: House) -> None:
    assert INVALID_ARGUMENT == own.serve("n_action", 1, b"")
    assert [] == own.desk.queue.jobs()


# ---- own ------------------------------------------------------------------------------------------------------------


def test_what_the_archive_holds_is_committed_told_once_and_never_removed(own: House) -> None:
    assert (0, False) == (own.ask(*own.receive(1, 2)), own.told != [])
    assert own.parts.commitments.is_promised(STUDY)  # already while it is decided
    own.run()
    assert [("A", "1.9.1")] == [(way, report.transaction_uid) for way, report in own.told]
    assert [COMMITTED, COMMITTED] == own.outcomes
    assert own.parts.commitments.is_promised(STUDY)
    assert not own.parts.commitments.is_promised("1.2.4")
    own.run_until(3600)
    assert 1 == len(own.told)


def test_each_instance_that_cannot_be_kept_has_its_reason(own: House) -> None:
    kept, gone = own.receive(1, 2)
    (held,) = [each for each in own.desk.archive.instances_of(STUDY, "1.2.3.4") if each.facts.instance_number == 2]
    held.path.unlink()
    other = Reference(sop_class_uid=SR, sop_instance_uid=own.receive(3)[0].sop_instance_uid)
    own.ask(kept, gone, other, ct(4))
    own.run_until(90)
    assert [COMMITTED, PROCESSING_FAILURE, CLASS_INSTANCE_CONFLICT, NO_SUCH_INSTANCE] == own.outcomes


def test_images_may_follow_their_own_request(own: House) -> None:
    own.ask(*own.receive(1), ct(2))
    own.run_until(20)
    assert (True, "1 of 2 instances are not here yet") == (own.told == [], own.job(DECIDE).reason)
    own.receive(2)
    own.run_until(60)
    assert [COMMITTED, COMMITTED] == own.outcomes


def test_what_is_removed_while_it_is_looked_at_is_not_promised(own: House) -> None:
    own.ask(*own.receive(1, 2))
    handler, job = own.parts.handlers[DECIDE], own.job(DECIDE)
    task = handler.prepare(job)
    assert isinstance(task, Task)
    with own.database.transaction() as connection:
        connection.execute("delete from instances where sop_instance_uid = ?", (ct(1).sop_instance_uid,))
        handler.commit(job, task.function(*task.args), connection)
    assert [NO_SUCH_INSTANCE, COMMITTED] == list(own.parts.commitments.request(1).outcomes.values())


def test_the_same_request_again_is_told_again_and_another_under_its_uid_fails(own: House) -> None:
    references = own.receive(1, 2)
    own.ask(*references)
    own.run()
    assert 0 == own.ask(*reversed(references), association="B")
    own.open = {"B"}
    own.run()
    assert ["A", "B"] == [way for way, _ in own.told]
    assert [COMMITTED, COMMITTED] == own.outcomes
    assert 0 == own.ask(references[0], association="B")
    own.run()
    assert [DUPLICATE_TRANSACTION] == own.outcomes
    assert 0 == own.ask(references[0], association="B", calling_ae="CT01", transaction="1.9.2")
    own.run()
    assert [COMMITTED] == own.outcomes


def test_what_failed_may_be_asked_for_again_under_the_same_uid(own: House) -> None:
    references = (ct(1), ct(2))
    own.ask(*references)
    own.run_until(90)
    own.receive(1, 2)
    own.ask(*references)
    own.run()
    assert [[NO_SUCH_INSTANCE] * 2, [COMMITTED] * 2] == [list(report.outcomes.values()) for _, report in own.told]


def rows(house: House, table: str) -> int:
    with house.database.read() as connection:
        return int(connection.execute(f"select count(*) from {table}").fetchone()[0])


def test_of_a_request_that_was_told_the_promise_is_kept_and_no_list(own: House) -> None:
    own.ask(*own.receive(1, 2))
    assert 2 == rows(own, "commitment_references")
    own.run()
    assert [0, 2] == [rows(own, each) for each in ("commitment_references", "committed_instances")]


def test_status_says_who_waits_for_what(own: House) -> None:
    own.open = set()
    own.ask(*own.receive(1))
    own.run()
    (waiting,) = [job for job in read_status(own.desk.settings.database)["jobs"] if job["kind"] == REPORT]
    assert ("ready", True) == (waiting["state"], "give its [[caller]] port" in waiting["reason"])


def test_a_request_is_kept_over_a_restart_and_told_on_the_callers_next_association(make_house: MakeHouse) -> None:
    before = make_house(caller("own"))
    before.ask(*before.receive(1), association="gone with the process")
    after = make_house(caller("own"))
    after.run()
    waiting = after.job(REPORT)
    assert (Status.READY, True) == (waiting.status, "give its [[caller]] port" in str(waiting.reason))
    after.ask(*after.receive(2), transaction="1.9.2", association="A")
    after.run()
    assert {"1.9.1", "1.9.2"} == {report.transaction_uid for _, report in after.told}


def test_a_job_that_can_never_be_done_is_told_as_a_failure(own: House) -> None:
    own.ask(*own.receive(1))
    job = own.job(DECIDE)
    with own.database.transaction() as connection:
        own.parts.handlers[DECIDE].failed(job, "broken", connection)
    own.run()
    assert [PROCESSING_FAILURE] == own.outcomes


def test_a_request_declares_what_its_series_has(own: House) -> None:
    own.ask(*own.receive(1, 2), ct(3))
    (expected,) = own.declared
    assert (STUDY, "1.2.3.4") == (expected.study, expected.series)
    assert {ct(n).sop_instance_uid for n in (1, 2, 3)} == expected.sop_instance_uids


def test_a_request_about_a_series_that_is_complete_declares_nothing(own: House) -> None:
    references = own.receive(1)
    own.desk.archive.set_series_state(STUDY, "1.2.3.4", "complete", "contiguous")
    own.ask(*references)
    assert [] == own.declared


# ---- peers ----------------------------------------------------------------------------------------------------------


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
        outcomes = {each: 0 if each.sop_instance_uid in self.keeps else failure for each in request.references}
        return CommitmentReport(transaction_uid=request.transaction_uid, outcomes=outcomes)

    def n_action(self, event: Any) -> tuple[int, None]:
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
        raw = encode_dataset(event.event_information, True, True)  # noqa: FBT003 - pynetdicom's own
        self.told.append(read_report(raw or b"", IMPLICIT, event.event_type))
        return 0, None

    def c_store(self, event: Any) -> int:
        self.stored.append(str(event.request.AffectedSOPInstanceUID))
        return 0


def read_information(dataset: bytes) -> Dataset:
    from io import BytesIO

    from pynetdicom.dsutils import decode

    content: Dataset = decode(BytesIO(dataset), True, True)  # noqa: FBT003 - pynetdicom's own
    return content


MakePeer = Callable[..., Peer]


@pytest.fixture
def make_peer() -> Iterator[MakePeer]:
    """Return a maker of peers that listen until the test ends."""
    servers: list[Any] = []

    def make(
        *,
        roles: tuple[bool, bool] | None = None,
        classes: tuple[str, ...] = (PUSH_MODEL, SR),
        tls: ssl.SSLContext | None = None,
        **of: Any,
    ) -> Peer:
        peer, entity = Peer(**of), AE(ae_title="PACS")
        for each in classes:
            scu, scp = roles or (None, None)
            entity.add_supported_context(each, scu_role=scu, scp_role=scp)
        handlers = [
            *SOCKET_HANDLERS,
            (evt.EVT_N_ACTION, peer.n_action),
            (evt.EVT_PDU_SENT, peer.pdu_sent),
            (evt.EVT_N_EVENT_REPORT, peer.n_event_report),
            (evt.EVT_C_STORE, peer.c_store),
        ]
        server = entity.start_server(("127.0.0.1", peer.port), block=False, evt_handlers=handlers, ssl_context=tls)
        servers.append(server)
        peer.port = server.server_address[1]
        return peer

    yield make
    for server in servers:
        server.shutdown()


def pacs(peer: Peer, **more: Any) -> Destination:
    return Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=peer.port, commitment=True, **more)


# ---- reports on an association of our own ---------------------------------------------------------------------------


@pytest.mark.parametrize("roles", [(False, True), None], ids=["role selection", "roles ignored"])
def test_who_has_hung_up_is_called_with_the_report(
    make_house: MakeHouse, make_peer: MakePeer, roles: tuple[bool, bool] | None
) -> None:
    scanner = make_peer(roles=roles)
    house = make_house(caller("own", port=scanner.port))
    house.open = set()
    house.ask(*house.receive(1), ct(2))
    house.run_until(90)
    (report,) = scanner.told
    assert ("1.9.1", [COMMITTED, NO_SUCH_INSTANCE]) == (report.transaction_uid, list(report.outcomes.values()))


def test_a_caller_that_is_away_is_called_again_until_it_listens(make_house: MakeHouse, make_peer: MakePeer) -> None:
    scanner = make_peer()
    away = make_house(caller("own", port=1))
    away.open = set()
    away.ask(*away.receive(1))
    away.run()
    assert "nobody listens there" in str(away.job(REPORT).reason)
    back = make_house(caller("own", port=scanner.port))
    back.open = set()
    back.run_until(60)
    assert ["1.9.1"] == [report.transaction_uid for report in scanner.told]


def test_a_caller_that_takes_no_reports_is_named_with_the_remedy(make_house: MakeHouse, make_peer: MakePeer) -> None:
    scanner = make_peer(classes=(SR,))
    house = make_house(caller("own", port=scanner.port))
    house.open = set()
    house.ask(*house.receive(1))
    house.run()
    assert (Status.READY, True) == (house.job(REPORT).status, "does not take" in str(house.job(REPORT).reason))


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(folder=tmp_path / "nodes")


def test_a_report_and_a_request_go_over_tls_where_the_settings_say_so(
    make_house: MakeHouse, make_peer: MakePeer, hospital: Hospital
) -> None:
    secure = server_context(hospital.node(), now=datetime.now(UTC))
    scanner, keeper = make_peer(tls=secure), make_peer(tls=secure, keeps={ct(1).sop_instance_uid})
    kept_by = pacs(keeper).model_copy(update={"tls": True})
    asking = caller("relay", port=scanner.port, tls=True)
    house = make_house(asking, destination=(kept_by,), tls=hospital.node(), linger_s=10.0)
    house.open = set()
    house.ask(*house.receive(1))
    house.run()
    assert [[COMMITTED]] == [list(report.outcomes.values()) for report in scanner.told]


def test_nothing_is_reported_in_clear_to_a_caller_with_tls(
    make_house: MakeHouse, make_peer: MakePeer, hospital: Hospital
) -> None:
    scanner = make_peer()
    house = make_house(caller("own", port=scanner.port, tls=True))
    house.open = set()
    house.ask(*house.receive(1))
    house.run()
    assert ([], True) == (scanner.told, "tls.authorities" in str(house.job(REPORT).reason))
    elsewhere = Hospital(folder=hospital.folder.parent / "elsewhere")
    forged = make_peer(tls=server_context(elsewhere.node(), now=datetime.now(UTC)))
    house = make_house(caller("own", port=forged.port, tls=True), tls=hospital.node())
    house.open = set()
    house.run_until(30)
    assert ([], True) == (forged.told, "no TLS with" in str(house.job(REPORT).reason))


# ---- relay ----------------------------------------------------------------------------------------------------------


def test_success_is_relayed_when_the_pacs_has_committed_on_the_same_association(
    make_house: MakeHouse, make_peer: MakePeer
) -> None:
    peer = make_peer(keeps={ct(1).sop_instance_uid, ct(2).sop_instance_uid})
    house = make_house(caller("relay"), destination=(pacs(peer),), linger_s=10.0)
    house.ask(*house.receive(1, 2))
    house.run()
    assert peer.answered.is_set()
    assert [COMMITTED, COMMITTED] == house.outcomes
    (request,) = peer.requests
    assert "1.9.1" != request.transaction_uid
    assert not house.parts.commitments.is_promised(STUDY)  # it is the PACS that keeps them


def test_a_report_that_comes_later_over_the_listener_is_relayed(make_house: MakeHouse, make_peer: MakePeer) -> None:
    peer = make_peer(keeps={ct(1).sop_instance_uid}, reports=False)
    house = make_house(caller("relay"), destination=(pacs(peer),))
    house.ask(*house.receive(1))
    house.run()
    assert ([], "waiting for commitment of 1 objects by pacs") == (house.told, house.job("commit:").reason)
    (request,) = peer.requests
    assert 0 == house.report(peer.verdict(request))
    house.run()
    assert [COMMITTED] == house.outcomes
    assert 1 == len(peer.requests)
    assert (0, 0) == (rows(house, "peer_commitment_references"), house.report(peer.verdict(request)))


def test_the_request_of_a_caller_and_the_report_of_a_pacs_outlive_a_restart(
    make_house: MakeHouse, make_peer: MakePeer
) -> None:
    peer = make_peer(keeps={ct(1).sop_instance_uid}, reports=False)
    before = make_house(caller("relay"), destination=(pacs(peer),))
    before.ask(*before.receive(1))
    before.run()
    after = make_house(caller("relay"), destination=(pacs(peer),))
    assert 0 == after.report(peer.verdict(peer.requests[0]))
    after.run()
    assert [COMMITTED] == after.outcomes


def test_a_stranger_or_an_unknown_transaction_changes_nothing(make_house: MakeHouse, make_peer: MakePeer) -> None:
    peer = make_peer(keeps={ct(1).sop_instance_uid}, reports=False)
    house = make_house(caller("relay"), destination=(pacs(peer),))
    house.ask(*house.receive(1))
    house.run()
    report = peer.verdict(peer.requests[0])
    stranger = house.report(report, calling_ae="STRANGER", address="10.9.9.9")
    unknown = house.report(replace(report, transaction_uid="1.9.1"))
    assert [INVALID_ARGUMENT, INVALID_ARGUMENT] == [stranger, unknown]
    house.run()
    assert [] == house.told


def test_what_the_pacs_has_not_got_yet_is_asked_again_until_it_has(make_house: MakeHouse, make_peer: MakePeer) -> None:
    peer = make_peer(keeps={ct(1).sop_instance_uid})
    house = make_house(caller("relay"), destination=(pacs(peer),), linger_s=10.0)
    house.ask(*house.receive(1, 2))
    house.run()
    assert [] == house.told
    assert "does not commit yet to 1 object (0x0112" in str(house.job("commit:").reason)
    peer.keeps.add(ct(2).sop_instance_uid)
    house.run_until(60)
    assert [COMMITTED, COMMITTED] == house.outcomes
    assert [2, 1] == [len(each.references) for each in peer.requests]  # what it has committed to is not asked again


def test_a_pacs_that_goes_on_failing_is_believed_and_its_reason_passed_on(
    make_house: MakeHouse, make_peer: MakePeer
) -> None:
    peer = make_peer(keeps={ct(1).sop_instance_uid})
    house = make_house(caller("relay"), destination=(pacs(peer),), linger_s=10.0, rounds=3)
    house.ask(*house.receive(1, 2))
    house.run_until(120)
    assert {COMMITTED, NO_SUCH_INSTANCE} == set(house.outcomes)
    assert 3 == len(peer.requests)


def test_one_keeper_of_two_is_enough(make_house: MakeHouse, make_peer: MakePeer) -> None:
    keeper, other = make_peer(keeps={ct(1).sop_instance_uid}), make_peer(status=NOT_AUTHORISED)
    second = replace_name(pacs(other), "other")
    house = make_house(caller("relay"), destination=(second, pacs(keeper)), linger_s=10.0)
    house.ask(*house.receive(1))
    house.run()
    assert [COMMITTED] == house.outcomes


def replace_name(destination: Destination, name: str) -> Destination:
    return destination.model_copy(update={"name": name})


def test_a_pacs_that_offers_no_commitment_fails_the_request_at_once(make_house: MakeHouse, make_peer: MakePeer) -> None:
    peer = make_peer(status=NOT_AUTHORISED)
    house = make_house(caller("relay"), destination=(pacs(peer),))
    house.ask(*house.receive(1))
    house.run()
    assert [PROCESSING_FAILURE] == house.outcomes
    assert (Status.BURIED, True) == (
        house.job("commit:").status,
        "commitment = false" in str(house.job("commit:").reason),
    )


def test_a_pacs_that_stays_silent_fails_the_request_when_its_time_is_over(
    make_house: MakeHouse, make_peer: MakePeer
) -> None:
    house = make_house(caller("relay"), destination=(pacs(make_peer(reports=False)),), relay_s=3600.0)
    house.ask(*house.receive(1))
    house.run_until(3000)
    assert [] == house.told
    house.run_until(1500)
    assert [PROCESSING_FAILURE] == house.outcomes


# ---- results --------------------------------------------------------------------------------------------------------


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
    from pacs_bridge.part10 import file_header

    content = Dataset()
    content.SOPClassUID, content.SOPInstanceUID = SR, "2.25.7"
    return file_header(SR, "2.25.7", EXPLICIT, "CTRIAGE") + bytes(encode_dataset(content, False, True) or b"")  # noqa: FBT003


def test_a_result_is_delivered_when_the_pacs_has_committed_to_it(make_house: MakeHouse, make_peer: MakePeer) -> None:
    peer = make_peer(reports=False)
    house = make_house(destination=(pacs(peer),))
    publish(house)
    house.run()
    job = house.job("commit:")
    assert (["2.25.7"], Status.READY) == (peer.stored, job.status)
    assert "waiting for commitment of 1 objects by pacs" == job.reason
    peer.keeps = {"2.25.7"}
    assert 0 == house.report(peer.verdict(peer.requests[0]))
    house.run()
    assert (Status.DONE, ["2.25.7"]) == (house.job("commit:").status, peer.stored)
    assert 0 == rows(house, "peer_commitment_references")


def test_a_result_that_the_pacs_does_not_keep_is_sent_again(make_house: MakeHouse, make_peer: MakePeer) -> None:
    peer = make_peer()
    house = make_house(destination=(pacs(peer),), linger_s=10.0)
    publish(house)
    house.run()
    assert len(peer.stored) > 1
    assert {"2.25.7"} == set(peer.stored)


def test_a_result_that_the_pacs_never_keeps_is_shown_after_some_rounds(
    make_house: MakeHouse, make_peer: MakePeer
) -> None:
    peer = make_peer()
    house = make_house(destination=(pacs(peer),), linger_s=10.0)
    publish(house)
    house.run_until(600)
    buried = house.desk.queue.jobs([Status.BURIED])
    assert ["commit:pacs"] == [job.kind for job in buried]
    assert "pacs does not commit to 1 object (0x0112 no such object instance): look into its log" == buried[0].reason
    assert 6 == len(peer.stored)


def test_a_pacs_that_does_not_answer_is_asked_anew_after_an_hour_and_late_reports_count(
    make_house: MakeHouse, make_peer: MakePeer
) -> None:
    peer = make_peer(keeps={"2.25.7"}, reports=False)
    house = make_house(destination=(pacs(peer),))
    publish(house)
    house.run_until(3000)
    assert 1 == len(peer.requests)
    house.run_until(2400)
    assert 2 == len(peer.requests)
    assert 0 == house.report(peer.verdict(peer.requests[0]))
    house.run()
    assert Status.DONE is house.job("commit:").status


def test_a_destination_that_does_not_commit_is_not_asked(make_house: MakeHouse, make_peer: MakePeer) -> None:
    peer = make_peer()
    house = make_house(destination=(pacs(peer).model_copy(update={"commitment": False}),))
    publish(house)
    house.run()
    assert ([], ["2.25.7"]) == (peer.requests, peer.stored)


def test_what_is_not_to_be_committed_to_any_more_is_not_waited_for(make_house: MakeHouse, make_peer: MakePeer) -> None:
    peer = make_peer(reports=False)
    before = make_house(caller("relay"), destination=(pacs(peer),))
    before.ask(*before.receive(1))
    publish(before)
    before.run()
    after = make_house(caller("own"), destination=(pacs(peer).model_copy(update={"commitment": False}),))
    after.run_until(10)
    assert {Status.DONE} == {job.status for job in after.desk.queue.jobs()}
    assert [PROCESSING_FAILURE] == after.outcomes


# ---- over the listener ----------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Scanner:
    """An open association of a caller that asks, and hears a report on it; ``order``: what came, as it came."""

    association: Any
    order: list[str]
    told: list[CommitmentReport]

    def ask(self, *references: Reference, transaction: str = "1.9.1") -> int:
        request = CommitmentRequest(transaction_uid=transaction, references=references)
        content = read_information(written_request(request))
        status, _ = self.association.send_n_action(content, 1, PUSH_MODEL, PUSH_MODEL_INSTANCE)
        self.order.append("answer")
        return int(status.Status)


Connect = Callable[[int], Scanner]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Return a function that connects a scanner to a listener's port until the test ends."""
    open_ones: list[Any] = []

    def made(port: int) -> Scanner:
        order, told = list[str](), list[CommitmentReport]()

        def heard(event: Any) -> tuple[int, None]:
            raw = encode_dataset(event.event_information, True, True)  # noqa: FBT003 - pynetdicom's own
            told.append(read_report(raw or b"", IMPLICIT, event.event_type))
            order.append("report")
            return 0, None

        entity = AE(ae_title="CT01")
        entity.add_requested_context(PUSH_MODEL)
        handlers = [*SOCKET_HANDLERS, (evt.EVT_N_EVENT_REPORT, heard)]
        association = entity.associate("127.0.0.1", port, ae_title="CTRIAGE", evt_handlers=handlers)
        open_ones.append(association)
        return Scanner(association=association, order=order, told=told)

    yield made
    for each in open_ones:
        each.release()


def test_a_report_never_overtakes_the_answer_to_its_request(
    own: House, bridge: Any, listen: Any, connect: Connect
) -> None:
    report = written_report(CommitmentReport(transaction_uid="1.9.1", outcomes={ct(1): COMMITTED}))
    reporting: list[Future[bool]] = []

    def hasty(request: ServiceRequest) -> Any:
        answer = own.parts.service(request)
        reporting.append(threads.submit(lambda: listener.event_report(request.association, report)))
        assert not wait(reporting, timeout=0.3).done  # the answer has not left
        return answer

    listener = listen(bridge, services={PUSH_MODEL: hasty})
    with ThreadPoolExecutor(1) as threads:
        scanner = connect(listener.port)
        assert (0, True) == (scanner.ask(ct(1)), reporting[0].result())
    assert ["1.9.1"] == [each.transaction_uid for each in scanner.told]


def test_a_scanner_hears_on_the_association_over_which_it_asked(
    own: House, bridge: Any, listen: Any, connect: Connect, wait_until: Any
) -> None:
    listener = listen(bridge, services={PUSH_MODEL: own.parts.service})
    own.parts.surroundings.event_report = listener.event_report
    scanner = connect(listener.port)
    assert 0 == scanner.ask(*own.receive(1, 2))
    own.run()
    wait_until(lambda: scanner.told)
    assert ["answer", "report"] == scanner.order
    assert [COMMITTED, COMMITTED] == list(scanner.told[0].outcomes.values())


def test_a_pacs_reports_on_an_association_of_its_own_in_the_role_of_the_scp(
    make_house: MakeHouse, make_peer: MakePeer, bridge: Any, listen: Any
) -> None:
    peer = make_peer(keeps={ct(1).sop_instance_uid}, reports=False)
    house = make_house(caller("relay"), destination=(pacs(peer),))
    listener = listen(bridge, services={PUSH_MODEL: house.parts.service})
    house.ask(*house.receive(1))
    house.run()
    us = SendingPeer(ae_title="CTRIAGE", host="127.0.0.1", port=listener.port)
    tell(us, written_report(peer.verdict(peer.requests[0])), calling_ae="PACS")
    house.run()
    assert [COMMITTED] == house.outcomes
    with pytest.raises(Permanent, match="0x0115"):
        tell(us, written_report(replace(peer.verdict(peer.requests[0]), transaction_uid="1.9.9")), calling_ae="PACS")
