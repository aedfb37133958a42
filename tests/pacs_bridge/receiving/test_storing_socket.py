"""What a sender may send over an association, byte by byte, and what it hears."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import structlog
from pydicom.uid import UID
from pynetdicom import AE, build_context
from pynetdicom.dsutils import encode as encoded
from pynetdicom.sop_class import ModalityPerformedProcedureStep, Verification

from pacs_bridge.receiving.storing_socket import Bounds
from pacs_bridge.services import EventReport, ServiceAnswer, ServiceRequest
from pacs_bridge.transport import SOCKET_HANDLERS

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
STEP = str(ModalityPerformedProcedureStep)
COMMITMENT = "1.2.840.10008.1.20.1"

pytestmark = pytest.mark.usefixtures("quiet_pynetdicom")


@pytest.fixture
def quiet_pynetdicom(caplog: pytest.LogCaptureFixture) -> None:
    """Keep what pynetdicom says of broken peers out of the output."""
    caplog.set_level("CRITICAL", logger="pynetdicom")


def element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHL", 0, number, len(value)) + value


def padded(uid: str) -> bytes:
    return uid.encode() + b"\0" * (len(uid) % 2)


def store_request(sop_instance: str, *, message: int = 1) -> bytes:
    return b"".join(
        (
            element(0x0002, padded(CT_IMAGE)),
            element(0x0100, struct.pack("<H", 1)),
            element(0x0110, struct.pack("<H", message)),
            element(0x0700, struct.pack("<H", 2)),
            element(0x0800, struct.pack("<H", 1)),
            element(0x1000, padded(sop_instance)),
        )
    )


def pdv(content: bytes, *, command: bool, last: bool = True, context: int = 1) -> bytes:
    return struct.pack(">LBB", len(content) + 2, context, command | last << 1) + content


def pdu(*pdvs: bytes, kind: int = 4) -> bytes:
    return struct.pack(">BxL", kind, sum(map(len, pdvs))) + b"".join(pdvs)


class RawSender:
    """An association of pynetdicom's whose socket a test writes to and reads from by itself."""

    def __init__(self, port: int) -> None:
        contexts = [build_context(CT_IMAGE, EXPLICIT), build_context(Verification), build_context(COMMITMENT)]
        entity = AE(ae_title="CT01")
        self.association = entity.associate(
            "127.0.0.1", port, contexts=contexts, ae_title="CTRIAGE", evt_handlers=SOCKET_HANDLERS
        )
        assert self.association.is_established
        self.association._reactor_checkpoint.clear()
        self.association.dul._kill_thread = True
        self.association.dul.join()
        self.raw: socket.socket = self.association.dul.socket.socket
        self.raw.settimeout(20)

    def status(self) -> int:
        """Read one response; return its status."""
        header = self._exactly(6)
        assert header[0] == 4, f"a PDU of type {header[0]}"
        content = self._exactly(int.from_bytes(header[2:], "big"))
        at = content.index(struct.pack("<HHL", 0, 0x0900, 2)) + 8
        return int(struct.unpack_from("<H", content, at)[0])

    def command_field(self) -> int:
        """Read one PDU; return the command field of the message in it, 0 for a data set."""
        header = self._exactly(6)
        assert header[0] == 4, f"a PDU of type {header[0]}"
        content = self._exactly(int.from_bytes(header[2:], "big"))
        at = content.find(struct.pack("<HHL", 0, 0x0100, 2)) + 8
        return int(struct.unpack_from("<H", content, at)[0]) if content[5] & 1 else 0

    def pdu_type(self) -> int:
        """Read the type of the next PDU; 0 where the connection ends."""
        first = self.raw.recv(1)
        return first[0] if first else 0

    def _exactly(self, count: int) -> bytes:
        got = b""
        while len(got) < count:
            part = self.raw.recv(count - len(got))
            assert part, "the connection ended"
            got += part
        return got


@pytest.fixture
def sender() -> Iterator[Callable[[Any], RawSender]]:
    """Return a maker of raw senders."""
    made: list[RawSender] = []

    def make(listener: Any) -> RawSender:
        made.append(RawSender(listener.port))
        return made[-1]

    yield make
    for each in made:
        each.raw.close()
        each.association._reactor_checkpoint.set()
        each.association._kill = True
        each.association.join()


@pytest.mark.parametrize("processes", [0, 1])
def test_a_data_set_arrives_whole_however_it_is_cut(
    bridge: Any, listen: Any, sender: Any, make_slice: Any, encode: Any, processes: int
) -> None:
    raw = sender(listen(bridge, options={"processes": processes}))
    for number, size in enumerate((2, 6, 100, 250, 10_000), 1):
        dataset = encode(make_slice(number))
        request = store_request(f"1.2.3.4.{number}")
        parts = [dataset[at : at + size] for at in range(0, len(dataset), size)]
        data = [pdv(part, command=False, last=n == len(parts) - 1) for n, part in enumerate(parts)]
        if number % 2:
            stream = pdu(pdv(request, command=True)) + b"".join(map(pdu, data))
        else:
            stream = pdu(pdv(request[:20], command=True, last=False), pdv(request[20:], command=True), *data)
        raw.raw.sendall(stream)
        assert raw.status() == 0
        instance = bridge.archive.instances_of("1.2.3", "1.2.3.4")[-1]
        assert instance.path.read_bytes().endswith(dataset)


def test_bytes_that_trickle_in_are_put_together(
    bridge: Any, listen: Any, sender: Any, make_slice: Any, encode: Any
) -> None:
    raw = sender(listen(bridge))
    stream = pdu(pdv(store_request("1.2.3.4.1"), command=True)) + pdu(pdv(encode(make_slice()), command=False))
    for at in range(0, len(stream), 7):
        raw.raw.sendall(stream[at : at + 7])
    assert raw.status() == 0


def test_requests_sent_ahead_of_their_answers_are_answered_in_order(
    bridge: Any, listen: Any, sender: Any, make_slice: Any, encode: Any
) -> None:
    raw = sender(listen(bridge))
    stream = b"".join(
        pdu(pdv(store_request(f"1.2.3.4.{n}"), command=True), pdv(encode(make_slice(n)), command=False))
        for n in (1, 2, 3)
    )
    raw.raw.sendall(stream)
    assert [0, 0, 0] == [raw.status() for _ in range(3)]


def test_an_echo_between_instances_is_answered_by_pynetdicom(
    bridge: Any, listen: Any, sender: Any, make_slice: Any, encode: Any
) -> None:
    raw = sender(listen(bridge))
    echo = b"".join(
        (
            element(0x0002, padded("1.2.840.10008.1.1")),
            element(0x0100, struct.pack("<H", 0x30)),
            element(0x0110, struct.pack("<H", 9)),
            element(0x0800, struct.pack("<H", 0x0101)),
        )
    )
    echo = element(0x0000, struct.pack("<L", len(echo))) + echo
    for n in (1, 2):
        raw.raw.sendall(
            pdu(pdv(store_request(f"1.2.3.4.{n}"), command=True), pdv(encode(make_slice(n)), command=False))
        )
        assert raw.status() == 0
        raw.raw.sendall(pdu(pdv(echo, command=True, context=3)))
        assert raw.status() == 0


@pytest.mark.parametrize(
    "stream",
    [
        pdu(pdv(b"x", command=False)),
        pdu(b"\0\0\0\1x"),
        pdu(),
        pdu(pdv(b"no command set", command=True)),
        pdu(pdv(store_request("1.2.3.4.1"), command=True, context=99), pdv(b"x", command=False, context=99)),
        struct.pack(">BxL", 4, 2**31) + bytes(100),
        struct.pack(">BxL", 9, 4) + bytes(4),
    ],
    ids=["data first", "cut value", "empty", "no command", "context not accepted", "too long", "unknown type"],
)
def test_what_breaks_the_protocol_ends_the_association_and_leaves_nothing(
    bridge: Any, listen: Any, sender: Any, wait_until: Any, stream: bytes
) -> None:
    listener = listen(bridge)
    raw = sender(listener)
    raw.raw.sendall(stream)
    assert raw.pdu_type() in (0, 7)
    wait_until(lambda: not listener._desk.open_associations)
    assert [] == bridge.archive.studies()
    assert [] == list(bridge.archive.files.incoming.glob("*.part"))


def test_a_pdu_larger_than_agreed_is_never_held(bridge: Any, listen: Any, sender: Any) -> None:
    raw = sender(listen(bridge))
    raw.raw.sendall(struct.pack(">BxL", 5, 2**31))
    assert raw.pdu_type() in (0, 7)


def test_an_instance_that_is_too_large_is_refused_and_the_next_one_taken(
    bridge: Any, listen: Any, sender: Any, make_slice: Any, encode: Any
) -> None:
    raw = sender(listen(bridge, receiver={"maximum_instance_bytes": 2**20}))
    large = encode(make_slice(1, PixelData=bytes(2**21)))
    parts = [large[at : at + 100_000] for at in range(0, len(large), 100_000)]
    raw.raw.sendall(pdu(pdv(store_request("1.2.3.4.1"), command=True)))
    for n, part in enumerate(parts):
        raw.raw.sendall(pdu(pdv(part, command=False, last=n == len(parts) - 1)))
    assert raw.status() == 0xC000
    raw.raw.sendall(pdu(pdv(store_request("1.2.3.4.2"), command=True), pdv(encode(make_slice(2)), command=False)))
    assert raw.status() == 0
    assert [] == list(bridge.archive.files.incoming.glob("*.part"))


def test_a_sender_that_is_too_slow_is_cut_off(bridge: Any, listen: Any, sender: Any, wait_until: Any) -> None:
    bounds = Bounds(maximum_pdu_bytes=65536, idle_s=0.3, slowest_bytes_per_s=10**9)
    listener = listen(bridge, receiver={"bounds": bounds})
    raw = sender(listener)
    raw.raw.sendall(pdu(pdv(store_request("1.2.3.4.1"), command=True)))
    assert raw.pdu_type() in (0, 7)
    wait_until(lambda: not listener._desk.open_associations)
    wait_until(lambda: not list(bridge.archive.files.incoming.glob("*.part")))


def test_a_sender_that_says_nothing_is_sent_away(bridge: Any, listen: Any, sender: Any, wait_until: Any) -> None:
    bounds = Bounds(maximum_pdu_bytes=65536, idle_s=0.3, slowest_bytes_per_s=0)
    listener = listen(bridge, receiver={"bounds": bounds})
    raw = sender(listener)
    assert raw.pdu_type() in (0, 7)
    wait_until(lambda: not listener._desk.open_associations)


def test_a_connection_that_asks_for_nothing_is_turned_away(bridge: Any, listen: Any) -> None:
    listener = listen(bridge, receiver={"acse_timeout_s": 0.2})
    with socket.create_connection(("127.0.0.1", listener.port), timeout=20) as silent:
        assert silent.recv(1) in (b"", b"\7")


@pytest.mark.parametrize("sent", [b"", b"\1\0", b"\1\0\0\0\0\x40half", b"\1\0\x7f\xff\xff\xff"])
def test_a_refused_or_broken_off_caller_is_no_error_of_ours(
    bridge: Any, listen: Any, wait_until: Any, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    caplog.set_level("ERROR", logger="pynetdicom")
    listener = listen(bridge)
    threads = threading.active_count()
    AE(ae_title="CT01").associate("127.0.0.1", listener.port, contexts=[build_context(Verification)], ae_title="OTHER")
    with socket.create_connection(("127.0.0.1", listener.port), timeout=20) as stranger:
        stranger.sendall(sent)
    wait_until(lambda: threading.active_count() <= threads)
    errors = [each for each in caplog.records if each.exc_info or "before the entire PDU" in each.getMessage()]
    assert [] == errors


def test_another_uid_than_announced_is_kept_under_its_own(
    bridge: Any, listen: Any, sender: Any, make_slice: Any, encode: Any
) -> None:
    from pacs_bridge.part10 import read_file

    raw = sender(listen(bridge))
    dataset = encode(make_slice(2))
    raw.raw.sendall(pdu(pdv(store_request("9.9"), command=True), pdv(dataset, command=False)))
    assert raw.status() == 0
    (kept,) = bridge.archive.instances_of("1.2.3", "1.2.3.4")
    assert "1.2.3.4.2" == kept.facts.sop_instance_uid == read_file(kept.path).sop_instance_uid
    assert kept.path.read_bytes().endswith(dataset)


def test_services_are_asked_with_what_came_and_their_answer_goes_back(
    bridge: Any, listen: Any, make_slice: Any
) -> None:
    asked: list[ServiceRequest] = []

    def answer(request: ServiceRequest) -> ServiceAnswer:
        asked.append(request)
        return ServiceAnswer(status=0x0111)

    listener = listen(bridge, services={STEP: answer}, options={"processes": 1})
    association = AE(ae_title="CT01").associate(
        "127.0.0.1",
        listener.port,
        contexts=[build_context(STEP, EXPLICIT)],
        ae_title="CTRIAGE",
        evt_handlers=SOCKET_HANDLERS,
    )
    content = make_slice()
    status, _ = association.send_n_create(content, STEP, "1.2.3.99")
    association.release()
    (request,) = asked
    assert (0x0111, "n_create", STEP, "1.2.3.99", "CT01", "127.0.0.1", EXPLICIT) == (
        status.Status,
        request.kind,
        request.sop_class_uid,
        request.sop_instance_uid,
        request.calling_ae,
        request.address,
        request.transfer_syntax,
    )
    assert encoded(content, is_implicit_vr=False, is_little_endian=True) == request.dataset


def test_an_event_is_reported_on_the_association_that_is_open(
    bridge: Any, listen: Any, make_slice: Any, wait_until: Any
) -> None:
    from pynetdicom import evt

    names: list[str] = []
    heard: list[Any] = []

    def answer(request: ServiceRequest) -> ServiceAnswer:
        names.append(request.association)
        return ServiceAnswer(status=0)

    listener = listen(bridge, services={COMMITMENT: answer}, options={"processes": 1})

    def hear(event: Any) -> tuple[int, None]:
        heard.append(event.event_type)
        return 0, None

    handlers = [*SOCKET_HANDLERS, (evt.EVT_N_EVENT_REPORT, hear)]
    association = AE(ae_title="CT01").associate(
        "127.0.0.1",
        listener.port,
        contexts=[build_context(COMMITMENT, EXPLICIT)],
        ae_title="CTRIAGE",
        evt_handlers=handlers,
    )
    association.send_n_action(make_slice(), 1, COMMITMENT, UID("1.2.840.10008.1.20.1.1"))
    report = EventReport(
        sop_class_uid=COMMITMENT,
        sop_instance_uid="1.2.840.10008.1.20.1.1",
        event_type_id=1,
        dataset=encoded(make_slice(), is_implicit_vr=True, is_little_endian=True) or b"",
    )
    assert listener.event_report(names[0], report)
    assert [1] == heard
    association.release()
    wait_until(lambda: not listener._desk.open_associations)
    assert not listener.event_report(names[0], report)


def action_request(message: int) -> bytes:
    return b"".join(
        (
            element(0x0003, padded(COMMITMENT)),
            element(0x0100, struct.pack("<H", 0x0130)),
            element(0x0110, struct.pack("<H", message)),
            element(0x0800, struct.pack("<H", 1)),
            element(0x1001, padded("1.2.840.10008.1.20.1.1")),
            element(0x1008, struct.pack("<H", 1)),
        )
    )


def report_response(number: int, *, has_dataset: bool = False) -> bytes:
    return b"".join(
        (
            element(0x0002, padded(COMMITMENT)),
            element(0x0100, struct.pack("<H", 0x8100)),
            element(0x0120, struct.pack("<H", number)),
            element(0x0800, struct.pack("<H", 1 if has_dataset else 0x0101)),
            element(0x0900, struct.pack("<H", 0)),
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    """A listener that is asked for commitment by a raw sender, and reports on its association when told to."""

    sender: RawSender
    names: list[str]
    report: Callable[[], Future[bool]]

    def ask(self, message: int) -> None:
        """Send a request of one empty data set."""
        self.sender.raw.sendall(pdu(pdv(action_request(message), command=True, context=5)))
        self.sender.raw.sendall(pdu(pdv(b"", command=False, context=5)))


@pytest.fixture
def commitment(bridge: Any, listen: Any, sender: Any, make_slice: Any) -> Iterator[Commitment]:
    """Return a sender that has asked for commitment once, and has its answer."""
    names: list[str] = []

    def answer(request: ServiceRequest) -> ServiceAnswer:
        names.append(request.association)
        return ServiceAnswer(status=0)

    listener = listen(bridge, services={COMMITMENT: answer})
    content = encoded(make_slice(), is_implicit_vr=True, is_little_endian=True) or b""
    event = EventReport(
        sop_class_uid=COMMITMENT, sop_instance_uid="1.2.840.10008.1.20.1.1", event_type_id=1, dataset=content
    )
    with ThreadPoolExecutor(2) as threads:
        made = Commitment(
            sender=sender(listener),
            names=names,
            report=lambda: threads.submit(listener.event_report, names[0], event),
        )
        made.ask(1)
        assert made.sender.status() == 0
        yield made


def test_a_report_and_a_request_that_cross_are_both_answered(commitment: Commitment) -> None:
    sender = commitment.sender
    for number, has_dataset in ((1, False), (2, True)):
        reported = commitment.report()
        assert [0x0100, 0] == [sender.command_field(), sender.command_field()]
        commitment.ask(2)
        assert sender.command_field() == 0x8130
        response = report_response(number, has_dataset=has_dataset)
        sender.raw.sendall(pdu(pdv(response, command=True, context=5)))
        if has_dataset:
            sender.raw.sendall(pdu(pdv(b"", command=False, context=5)))
        assert reported.result(20)
    commitment.ask(3)
    assert sender.command_field() == 0x8130


def test_a_report_gets_through_while_instances_keep_coming(
    commitment: Commitment, make_slice: Any, encode: Any
) -> None:
    sender, heard = commitment.sender, threading.Event()
    one = pdu(pdv(store_request("1.2.3.4.1"), command=True), pdv(encode(make_slice(1)), command=False))
    ahead = threading.Semaphore(16)

    def keep_sending() -> None:
        while ahead.acquire(timeout=20) and not heard.is_set():
            sender.raw.sendall(one)

    with ThreadPoolExecutor(1) as threads:
        sending = threads.submit(keep_sending)
        reported = commitment.report()
        try:
            while (field := sender.command_field()) != 0x0100:
                assert field == 0x8001
                ahead.release()
        finally:
            heard.set()
            ahead.release()
        assert sender.command_field() == 0  # the report's data set, and no answer between the two
        sending.result(20)
    sender.raw.sendall(pdu(pdv(report_response(1), command=True, context=5)))
    assert reported.result(20)


def test_a_report_is_not_waited_for_once_its_association_has_ended(commitment: Commitment) -> None:
    reported = commitment.report()
    assert commitment.sender.command_field() == 0x0100
    commitment.sender.raw.shutdown(socket.SHUT_RDWR)
    assert not reported.result(10)


def test_a_request_without_end_ends_the_association_before_it_fills_the_memory(
    commitment: Commitment, bridge: Any, wait_until: Any
) -> None:
    raw = commitment.sender.raw
    raw.sendall(pdu(pdv(action_request(2), command=True, context=5)))
    part = pdu(pdv(bytes(200_000), command=False, last=False, context=5))
    with pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):
        raw.sendall(part * 500)
    assert [commitment.names[0]] == commitment.names


def test_a_peer_that_speaks_tls_to_the_port_for_clear_text_is_told_of_as_such(
    bridge: Any, listen: Any, wait_until: Any
) -> None:
    with structlog.testing.capture_logs() as logs:
        listener = listen(bridge)
        with socket.create_connection(("127.0.0.1", listener.port), timeout=20) as stranger:
            stranger.sendall(b"\x16\x03\x01\x02\x00\x01\x00" + bytes(512))
            assert stranger.recv(1) in (b"", b"\7")
        wait_until(lambda: any(each["event"] == "connection_turned_away" for each in logs))
    (reason,) = [each["reason"] for each in logs if each["event"] == "connection_turned_away"]
    assert "it spoke TLS at the port for clear text" in reason


@pytest.mark.parametrize("instead", [pdu(b"", kind=2), pdu(bytes(4), kind=7), pdu(bytes(4), kind=0x53)])
def test_what_interrupts_an_instance_leaves_no_part_of_it(
    instead: bytes, bridge: Any, listen: Any, sender: Any, wait_until: Any
) -> None:
    raw = sender(listen(bridge))
    raw.raw.sendall(pdu(pdv(store_request("1.2.3.4.1"), command=True), pdv(bytes(99), command=False, last=False)))
    wait_until(lambda: list(bridge.archive.files.incoming.glob("*.part")))
    raw.raw.sendall(instead)
    wait_until(lambda: not list(bridge.archive.files.incoming.glob("*.part")))


def test_a_command_that_there_is_not_ends_the_association(bridge: Any, listen: Any, sender: Any) -> None:
    raw = sender(listen(bridge))
    unknown = store_request("1.2.3.4.1").replace(element(0x0100, b"\1\0"), element(0x0100, b"\0\x80"))
    raw.raw.sendall(pdu(pdv(unknown, command=True)))
    assert raw.pdu_type() in (0, 7)


def test_a_context_of_an_even_number_ends_the_association(bridge: Any, listen: Any, sender: Any) -> None:
    raw = sender(listen(bridge))
    raw.raw.sendall(pdu(pdv(store_request("1.2.3.4.1"), command=True, context=2)))
    assert raw.pdu_type() in (0, 7)
