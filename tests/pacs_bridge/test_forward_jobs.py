"""Do images reach real peers as they came, or as the peer takes them, each once, and does nobody wait for another?"""

import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.filereader import read_dataset
from pydicom.uid import UID
from pynetdicom import AE, evt

from pacs_bridge.app import desk_of
from pacs_bridge.archive import Added
from pacs_bridge.audit import AuditEvent
from pacs_bridge.desk import Desk
from pacs_bridge.forward_gate import DestinationGate
from pacs_bridge.forward_jobs import FORWARD, ForwardHandler, dispatch
from pacs_bridge.forward_ledger import bring_back
from pacs_bridge.instance import read_facts
from pacs_bridge.part10 import read_file
from pacs_bridge.settings import Destination, Forward, Settings
from pacs_bridge.status import read_status
from reconstruction.decode import stored_values
from reconstruction.headers import read_header
from scheduler.admission import Machine
from scheduler.database import Database
from scheduler.executors import threads
from scheduler.worker import Lane, Worker

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
IMAGES = tuple(f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("2", "2.1", "6.1", "7"))


@dataclass(kw_only=True)
class Scp:
    """A PACS on loopback: which syntaxes of CT images it takes, and what it answers to each instance."""

    syntaxes: tuple[str, ...] = (EXPLICIT, IMPLICIT)
    answer: Callable[[Any], int] = lambda _event: 0x0000
    arrived: list[tuple[str, str, bytes]] = field(default_factory=list)
    port: int = 0
    server: Any = None

    def start(self) -> None:
        entity = AE(ae_title="PACS")
        for syntax in self.syntaxes:
            for sop_class in IMAGES:
                entity.add_supported_context(sop_class, syntax)
        self.server = entity.start_server(
            ("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )
        self.port = self.server.socket.getsockname()[1]

    def stop(self) -> None:
        if self.server is not None:
            self.server.shutdown()
            self.server = None

    def uids(self) -> list[str]:
        return [uid for uid, _, _ in self.arrived]

    def _store(self, event: Any) -> int:
        status = self.answer(event)
        if status == 0:
            uid, syntax = str(event.request.AffectedSOPInstanceUID), str(event.context.transfer_syntax)
            self.arrived.append((uid, syntax, event.request.DataSet.getvalue()))
        return status


@dataclass(kw_only=True)
class House:
    """A service without a listener: what is received is passed on by a worker whose clock a test moves."""

    desk: Desk
    database: Database
    worker: Worker
    now: datetime
    audited: list[AuditEvent]

    def audit(self) -> list[tuple[str, int, bool]]:
        """Return what the audit trail was told: who was sent how many images, and whether that failed."""
        told = [(each.peer, each.study, bool(each.said)) for each in self.audited]
        return [
            (peer.name, sum(n for _, n in study.instances), failed) for peer, study, failed in told if peer and study
        ]

    def receive(self, path: Path, caller: str = "CT01") -> Added:
        """Enter a file as the intake does."""
        file = read_file(path)
        dataset = path.read_bytes()[file.offset :]
        facts = read_facts(dataset, file.transfer_syntax)
        stored = self.desk.archive.store(facts, dataset, file.transfer_syntax, caller)
        with self.database.transaction():
            added = self.desk.archive.add(facts, stored, caller, self.now)
            if added is Added.NEW:
                self.desk.forwards.note(facts, caller, self.now)
        return added

    def passes(self, seconds: float = 5.0) -> None:
        """Let time pass, make jobs of what is due, and start them."""
        self.now += timedelta(seconds=seconds)
        dispatch(self.desk, self.now)
        self.worker.step()

    def forwards(self) -> list[tuple[str, int, int, int]]:
        """Return what `ctriage status` says of all studies together: destination, pending, sent, refused."""
        total: dict[str, Counter[str]] = {}
        for row in read_status(self.desk.settings.database)["forwards"]:
            counts = {name: row[name] for name in ("pending", "sent", "refused")}
            total.setdefault(row["destination"], Counter()).update(counts)
        return sorted((name, n["pending"], n["sent"], n["refused"]) for name, n in total.items())


MakeHouse = Callable[..., House]


@pytest.fixture
def scp() -> Iterator[Callable[..., Scp]]:
    made: list[Scp] = []

    def start(**options: Any) -> Scp:
        made.append(Scp(**options))
        made[-1].start()
        return made[-1]

    yield start
    for each in made:
        each.stop()


@pytest.fixture
def make_house(tmp_path: Path) -> Iterator[MakeHouse]:
    """Return a maker of houses over one folder: making one twice is a restart."""
    with ExitStack() as stack:

        def make(*destinations: Destination, rules: tuple[Forward, ...] = ()) -> House:
            everything = tuple(Forward(to=each.name) for each in destinations)
            settings = Settings(state_dir=tmp_path, destination=destinations, forward=rules or everything)
            database = Database(settings.database)
            stack.callback(database.close)
            house: House
            audited: list[AuditEvent] = []
            desk = replace(desk_of(settings, database, audited.append), now=lambda: house.now)
            lanes = []
            for each in destinations:
                executor = threads(each.associations)
                stack.callback(executor.shutdown)
                stack.callback(desk.destinations[each.name].close)
                handlers = {FORWARD + each.name: ForwardHandler(desk=desk)}
                gate = DestinationGate(each.name, database, Random(0))
                machine = Machine(memory_mb=1, slots=each.associations)
                lanes.append(Lane(name=each.name, executor=executor, machine=machine, handlers=handlers, gate=gate))
            worker = Worker(database=database, queue=desk.queue, lanes=lanes, now=desk.now, random=Random(0))
            now = datetime(2026, 3, 1, 12, tzinfo=UTC)
            house = House(desk=desk, database=database, worker=worker, now=now, audited=audited)
            return house

        yield make


def to(port: int, **more: Any) -> Destination:
    return Destination(**{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port, **more})


@pytest.fixture
def small_study(shared_data: Path) -> list[Path]:
    return sorted((shared_data / "head_ge_tilted").glob("*.dcm"))[:8]


def settle(house: House, wait_until: Any, want: list[tuple[str, int, int, int]]) -> None:
    """Step on, without moving the clock, until what is passed on stands as wanted."""

    def stands() -> bool:
        house.worker.step()
        return house.forwards() == want

    wait_until(stands)


def test_a_study_arrives_byte_for_byte_and_a_second_sending_changes_nothing(
    make_house: MakeHouse, scp: Callable[..., Scp], small_study: list[Path], wait_until: Any
) -> None:
    pacs = scp()
    house = make_house(to(pacs.port))
    assert {Added.NEW} == {house.receive(path) for path in small_study}
    house.passes()
    settle(house, wait_until, [("pacs", 0, 8, 0)])
    assert {Added.DUPLICATE} == {house.receive(path) for path in small_study}
    house.passes()
    assert ([], [("pacs", 0, 8, 0)]) == (house.desk.forwards.unbatched(), house.forwards())
    sent = {uid: (syntax, content) for uid, syntax, content in pacs.arrived}
    for path in small_study:
        file = read_file(path)
        assert (file.transfer_syntax, path.read_bytes()[file.offset :]) == sent[file.sop_instance_uid]
    assert 8 == len(pacs.arrived)


def test_a_content_that_is_not_current_any_more_is_not_sent(
    make_house: MakeHouse, scp: Callable[..., Scp], small_study: list[Path], wait_until: Any
) -> None:
    pacs = scp()
    house = make_house(to(pacs.port))
    for path in small_study[:2]:
        house.receive(path)
    with house.database.transaction() as connection:
        connection.execute("update instances set is_current = 0 where id = 1")
    house.passes()
    settle(house, wait_until, [("pacs", 0, 1, 0)])
    assert [read_file(small_study[1]).sop_instance_uid] == pacs.uids()


def test_late_images_go_too_but_nothing_goes_back_to_its_sender(
    make_house: MakeHouse, scp: Callable[..., Scp], small_study: list[Path], wait_until: Any
) -> None:
    pacs = scp()
    house = make_house(to(pacs.port))
    house.receive(small_study[0], caller="PACS")
    for path in small_study[1:4]:
        house.receive(path)
        house.passes()
    settle(house, wait_until, [("pacs", 0, 3, 0)])
    assert sorted(read_file(path).sop_instance_uid for path in small_study[1:4]) == sorted(pacs.uids())


def compressed(shared_data: Path) -> list[Path]:
    """Return one slice in each compressed syntax that keeps CT images as they were, each under a name of its own."""
    return [
        path
        for path in sorted((shared_data / "syntaxes").glob("*.dcm"))
        if read_file(path).transfer_syntax.startswith(("1.2.840.10008.1.2.4.", "1.2.840.10008.1.2.5"))
    ]


def renamed(path: Path, number: int, folder: Path) -> Path:
    """Give a file a SOP Instance UID of its own."""
    header = pydicom.dcmread(path)
    header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = UID(f"1.2.3.{number}")
    header.save_as(folder / f"{number}.dcm")
    return folder / f"{number}.dcm"


def test_a_peer_that_takes_implicit_only_gets_the_same_values(
    make_house: MakeHouse, scp: Callable[..., Scp], shared_data: Path, tmp_path: Path, wait_until: Any
) -> None:
    pacs = scp(syntaxes=(IMPLICIT,))
    house = make_house(to(pacs.port))
    files = {f"1.2.3.{n}": renamed(path, n, tmp_path) for n, path in enumerate(compressed(shared_data), start=1)}
    for path in files.values():
        house.receive(path)
    house.passes()
    settle(house, wait_until, [("pacs", 0, len(files), 0)])
    assert {IMPLICIT} == {syntax for _, syntax, _ in pacs.arrived}
    for uid, _, content in pacs.arrived:
        before = pydicom.dcmread(files[uid])
        after = read_dataset(BytesIO(content), is_implicit_VR=True, is_little_endian=True)
        header = read_header(files[uid])
        if header.number_of_frames == 1:
            plain = replace(header, transfer_syntax_uid=IMPLICIT)
            assert np.array_equal(stored_values(before, header), stored_values(after, plain))
        assert before.PatientName == after.PatientName


def test_what_a_peer_never_takes_is_refused_with_the_reason_and_can_be_tried_again(
    make_house: MakeHouse, scp: Callable[..., Scp], small_study: list[Path], wait_until: Any
) -> None:
    first = read_file(small_study[0]).sop_instance_uid
    pacs = scp(answer=lambda event: 0xA900 if event.request.AffectedSOPInstanceUID == first else 0)
    house = make_house(to(pacs.port))
    for path in small_study[:3]:
        house.receive(path)
    house.passes()
    settle(house, wait_until, [("pacs", 0, 2, 1)])
    (row,) = read_status(house.desk.settings.database)["forwards"]
    assert "0xA900" in row["reason"]
    assert [("PACS", 2, False), ("PACS", 1, True)] == house.audit()
    pacs.answer = lambda _event: 0
    with house.database.transaction() as connection:
        assert 1 == bring_back(connection, "pacs", None, at=house.now)
    house.passes()
    settle(house, wait_until, [("pacs", 0, 3, 0)])
    assert 3 == len(pacs.arrived)


def test_a_class_the_peer_does_not_take_at_all_is_refused(
    make_house: MakeHouse, scp: Callable[..., Scp], shared_data: Path, small_study: list[Path], wait_until: Any
) -> None:
    pacs = scp()
    house = make_house(to(pacs.port))
    reports = (path for path in (shared_data / "dose_reports").glob("*.dcm") if is_report(path))
    house.receive(next(reports))
    house.receive(small_study[0])
    house.passes()
    settle(house, wait_until, [("pacs", 0, 1, 1)])


def is_report(path: Path) -> bool:
    return read_file(path).sop_class_uid.startswith("1.2.840.10008.5.1.4.1.1.88.")


def test_what_arrived_before_a_break_is_not_sent_again(
    make_house: MakeHouse, scp: Callable[..., Scp], small_study: list[Path], wait_until: Any
) -> None:
    def break_off(event: Any) -> int:
        if len(pacs.arrived) == 3:
            event.assoc.abort()
        return 0

    pacs = scp(answer=break_off)
    house = make_house(to(pacs.port))
    for path in small_study:
        house.receive(path)
    house.passes()
    settle(house, wait_until, [("pacs", 5, 3, 0)])
    (row,) = read_status(house.desk.settings.database)["forwards"]
    assert ("ready", True) == (row["state"], bool(row["reason"]))
    pacs.answer = lambda _event: 0
    house.passes(10)
    settle(house, wait_until, [("pacs", 0, 8, 0)])
    again = [uid for uid in pacs.uids() if pacs.uids().count(uid) > 1]
    assert (8, 0) == (len(set(pacs.uids())), len(set(again) - {pacs.uids()[3]}))


def test_an_instance_that_breaks_every_association_keeps_no_other_from_arriving(
    make_house: MakeHouse, scp: Callable[..., Scp], small_study: list[Path], wait_until: Any
) -> None:
    poison = read_file(small_study[2]).sop_instance_uid

    def break_off(event: Any) -> int:
        if event.request.AffectedSOPInstanceUID == poison:
            event.assoc.abort()
            return 0x0110
        return 0

    pacs = scp(answer=break_off)
    house = make_house(to(pacs.port))
    for path in small_study:
        house.receive(path)

    def all_but_one() -> bool:
        house.passes(1)
        return house.forwards() == [("pacs", 1, 7, 0)]

    wait_until(all_but_one)


def test_a_restart_goes_on_where_a_killed_service_was(
    make_house: MakeHouse, scp: Callable[..., Scp], small_study: list[Path], wait_until: Any
) -> None:
    entered, gate = threading.Event(), threading.Event()

    def hold(_event: Any) -> int:
        entered.set()
        gate.wait(20)
        return 0

    pacs = scp(answer=hold)
    killed = make_house(to(pacs.port))
    for path in small_study[:4]:
        killed.receive(path)
    killed.passes()
    for path in small_study[4:]:
        killed.receive(path)
    wait_until(entered.is_set)
    gate.set()
    house = make_house(to(pacs.port))
    house.desk.queue.recover(house.now)
    house.passes(20)
    settle(house, wait_until, [("pacs", 0, 8, 0)])
    assert 8 == len(set(pacs.uids()))


@pytest.fixture
def black_hole() -> Iterator[int]:
    """Return the port of a peer that accepts connections and never says a word; it hangs up at the end."""
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            while True:
                try:
                    taken.append(listening.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()
    for each in taken:
        each.close()


def test_a_peer_that_never_answers_delays_nobody_else(
    make_house: MakeHouse, scp: Callable[..., Scp], black_hole: int, small_study: list[Path], wait_until: Any
) -> None:
    pacs = scp()
    house = make_house(to(black_hole, name="hole", ae_title="HOLE"), to(pacs.port))
    for path in small_study:
        house.receive(path)
    house.passes()
    settle(house, wait_until, [("hole", 8, 0, 0), ("pacs", 0, 8, 0)])
    assert 8 == len(pacs.arrived)


def test_as_many_associations_as_are_set_work_side_by_side(
    make_house: MakeHouse, scp: Callable[..., Scp], shared_data: Path, small_study: list[Path], wait_until: Any
) -> None:
    both = threading.Barrier(2)
    pacs = scp(answer=lambda _event: 0 * both.wait(10))
    house = make_house(to(pacs.port, associations=2))
    for path in (small_study[0], next((shared_data / "chest_1mm").glob("*.dcm"))):
        house.receive(path)
    house.passes()
    settle(house, wait_until, [("pacs", 0, 2, 0)])


def test_a_peer_that_is_away_is_tried_by_one_job_and_gets_everything_when_it_is_back(
    make_house: MakeHouse, scp: Callable[..., Scp], small_study: list[Path], wait_until: Any
) -> None:
    pacs = scp()
    pacs.stop()
    house = make_house(to(pacs.port))
    for path in small_study[:4]:
        house.receive(path)
        house.passes()

    def is_away() -> bool:
        house.passes(1)
        contacts = read_status(house.desk.settings.database)["destinations"]
        return any(each["destination"] == "pacs" and each["failures"] > 1 for each in contacts)

    wait_until(is_away)
    (contact,) = read_status(house.desk.settings.database)["destinations"]
    assert "nobody listens there" in contact["reason"]
    pacs.start()
    house.passes(121)
    settle_after_outage(house, wait_until)
    assert 4 == len(set(pacs.uids()))
    assert [] == read_status(house.desk.settings.database)["destinations"]


def settle_after_outage(house: House, wait_until: Any) -> None:
    def is_done() -> bool:
        house.passes(1)
        return house.forwards() == [("pacs", 0, 4, 0)]

    wait_until(is_done)


def test_orthanc_gets_each_syntax_as_it_came_or_as_it_takes_it(
    make_house: MakeHouse, orthanc: Any, shared_data: Path, tmp_path: Path, wait_until: Any
) -> None:
    house = make_house(to(orthanc.dicom_port, host=orthanc.host, ae_title=orthanc.ae_title))
    files = {f"1.2.3.{n}": renamed(path, n, tmp_path) for n, path in enumerate(compressed(shared_data), start=1)}
    high_throughput = as_htj2k(shared_data / "syntaxes" / "CTImage.dcm", tmp_path)
    files["1.2.3.99"] = high_throughput
    for path in files.values():
        house.receive(path)
    house.passes()
    settle(house, wait_until, [("pacs", 0, len(files), 0)])
    held = {each["MainDicomTags"]["SOPInstanceUID"]: each["ID"] for each in orthanc.get("/instances?expand")}
    syntaxes = {uid: orthanc.get(f"/instances/{held[uid]}/header")["0002,0010"]["Value"] for uid in files}
    came = {uid: read_file(path).transfer_syntax for uid, path in files.items()}
    # Debian's Orthanc knows all but the youngest, and gets that one as it takes it.
    assert {**came, "1.2.3.99": EXPLICIT} == syntaxes


def as_htj2k(path: Path, folder: Path) -> Path:
    """Compress a slice with a codec that is younger than Debian's Orthanc."""
    header = pydicom.dcmread(path)
    stream = bytes(imagecodecs.htj2k_encode(header.pixel_array, reversible=True))
    header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3.99")
    header.file_meta.TransferSyntaxUID = pydicom.uid.HTJ2KLossless
    header.PixelData = encapsulate([stream])
    header["PixelData"].VR = "OB"
    header["PixelData"].is_undefined_length = True
    pydicom.dcmwrite(folder / "htj2k.dcm", header, implicit_vr=False, little_endian=True)
    return folder / "htj2k.dcm"
