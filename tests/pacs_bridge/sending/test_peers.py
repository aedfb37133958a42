"""Whatever a peer does in the middle of things: is it told apart, in time, and does nothing hang on?"""

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pacs_bridge.part10 import file_header
from pacs_bridge.send import Peer, SendOptions, SendResult, TimeLimits, send_files
from pacs_bridge.sending.pdu import P_DATA_TF, PDU_HEADER
from pacs_bridge.sending.source import MemorySource, Source
from pacs_bridge.sending.testing import (
    A_ABORT,
    A_RELEASE_RP,
    A_RELEASE_RQ,
    Conversation,
    FakePeer,
    Stored,
    answer_to,
    keeping,
    store_all,
)
from scheduler.errors import Permanent, Transient

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT, IMPLICIT, JPEG_LS = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.80"
LARGE = 12_000_000  # more than the buffers of both sides hold
SOON = TimeLimits(connection_s=5, acse_s=1, response_s=0.3)

WriteObject = Callable[..., Path]


@pytest.fixture
def write_object(tmp_path: Path) -> WriteObject:
    """Return a writer of Part-10 files with an arbitrary data set."""

    def write(number: int, dataset: bytes, transfer_syntax: str = EXPLICIT, sop_class: str = CT_IMAGE) -> Path:
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(file_header(sop_class, f"1.2.3.{number}", transfer_syntax, "X") + dataset)
        return path

    return write


@pytest.fixture(autouse=True)
def _nothing_is_left_running(wait_until: Callable[..., None]) -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    wait_until(lambda: set(threading.enumerate()) <= before, deadline_s=5)


def send(paths: list[Path], peer: Peer, **options: object) -> SendResult:
    chosen = SendOptions(**{"limits": SOON, **options})  # type: ignore[arg-type]
    return send_files(paths, peer, calling_ae="CTRIAGE", options=chosen)


@pytest.mark.parametrize("maximum_length", [0, 8, 40, 1000, 16384, 131072, 2**32 - 1])
def test_objects_arrive_whole_in_pdus_of_any_length_that_a_peer_takes(
    write_object: WriteObject, maximum_length: int
) -> None:
    size = 3_000_000 if maximum_length > 10_000 else 3_000
    datasets = [bytes(range(256)) * (size // 256), b"", b"ab", bytes(size + 2)]
    stored: list[Stored] = []
    with FakePeer(keeping(stored), maximum_length=maximum_length) as fake:
        result = send([write_object(n, dataset) for n, dataset in enumerate(datasets)], fake.peer)
    assert (4, ()) == (len(result.sent), result.failures)
    assert datasets == [each.dataset for each in stored]
    assert len({each.message_id for each in stored}) == 4
    assert maximum_length == 0 or all(each.longest_pdu <= maximum_length for each in stored)


def test_a_peer_that_takes_pdus_of_no_use_is_told(write_object: WriteObject) -> None:
    with FakePeer(store_all, maximum_length=7) as fake, pytest.raises(Transient, match="carry no data"):
        send([write_object(1, b"ab")], fake.peer).raise_failure()


def read_a_little(conversation: Conversation) -> None:
    conversation.socket.recv(50_000)


def abort_and_stay(conversation: Conversation) -> None:
    read_a_little(conversation)
    conversation.abort()
    conversation.socket.recv(0)
    threading.Event().wait(1.0)


def vanish(conversation: Conversation) -> None:
    read_a_little(conversation)
    vanish_at_close(conversation)


def vanish_at_close(conversation: Conversation) -> None:
    conversation.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def stand_still(conversation: Conversation) -> None:
    read_a_little(conversation)
    threading.Event().wait(1.0)


def release_instead(conversation: Conversation) -> None:
    conversation.read_store()
    conversation.send(PDU_HEADER.pack(A_RELEASE_RQ, 4) + bytes(4))
    kind, _ = conversation.read_pdu()
    assert kind == A_RELEASE_RP


def say_nothing(conversation: Conversation) -> None:
    conversation.read_store()
    kind, _ = conversation.read_pdu()
    assert kind == A_ABORT


def answer_another(conversation: Conversation) -> None:
    stored = conversation.read_store()
    assert stored is not None
    other = Stored(context_id=stored.context_id, message_id=99, dataset=b"", longest_pdu=0)
    conversation.answer(other)
    kind, _ = conversation.read_pdu()
    assert kind == A_ABORT


def answer_nonsense(conversation: Conversation) -> None:
    conversation.read_store()
    conversation.send(PDU_HEADER.pack(4, 10) + b"\0\0\0\x06\x01\x03ABCD")
    kind, _ = conversation.read_pdu()
    assert kind == A_ABORT


def say_what_nobody_knows(conversation: Conversation) -> None:
    conversation.read_store()
    conversation.send(PDU_HEADER.pack(0x42, 4) + bytes(4))
    kind, _ = conversation.read_pdu()
    assert kind == A_ABORT


def hang_up(conversation: Conversation) -> None:
    conversation.read_store()


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (abort_and_stay, "broke the association off"),
        (vanish, "broke|closed"),
        (stand_still, "took nothing"),
        (release_instead, "broke the association off"),
        (say_nothing, "did not answer within"),
        (answer_another, "message 99"),
        (answer_nonsense, "command set"),
        (say_what_nobody_knows, "broke the association off"),
        (hang_up, "closed|broke"),
    ],
)
def test_a_peer_that_breaks_off_is_transient_and_soon_noticed(
    write_object: WriteObject, script: Callable[[Conversation], None], told: str
) -> None:
    paths = [write_object(1, bytes(LARGE)), write_object(2, b"ab")]
    with FakePeer(script) as fake:
        result = send(paths, fake.peer)
    assert ((), paths) == (result.sent, [failure.path for failure in result.failures])
    with pytest.raises(Transient, match=told):
        result.raise_failure()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    answers=st.integers(0, 2), more_bytes=st.integers(0, 700_000), ending=st.sampled_from(["close", "reset", "abort"])
)
def test_wherever_a_peer_breaks_off_what_it_answered_is_sent_and_the_rest_is_to_be_tried_again(
    write_object: WriteObject, answers: int, more_bytes: int, ending: str
) -> None:
    def break_off(conversation: Conversation) -> None:
        for _ in range(answers):
            stored = conversation.read_store()
            assert stored is not None
            conversation.answer(stored)
        left = more_bytes
        while left:
            left -= len(conversation.socket.recv(left))
        if ending == "abort":
            conversation.abort()
        elif ending == "reset":
            vanish_at_close(conversation)

    paths = [write_object(n, bytes(800_000)) for n in (1, 2, 3)]
    with FakePeer(break_off) as fake:
        result = send(paths, fake.peer)
    assert tuple(paths[:answers]) == result.sent
    assert paths[answers:] == [failure.path for failure in result.failures]
    assert all(isinstance(failure.problem, Transient) for failure in result.failures)


def test_what_a_peer_took_before_it_broke_off_counts_as_sent(write_object: WriteObject) -> None:
    def take_one(conversation: Conversation) -> None:
        stored = conversation.read_store()
        assert stored is not None
        conversation.answer(stored)
        conversation.abort()

    paths = [write_object(n, b"ab" * n) for n in (1, 2, 3)]
    with FakePeer(take_one) as fake:
        result = send(paths, fake.peer)
    assert ((paths[0],), 2) == (result.sent, len(result.failures))
    assert all(isinstance(failure.problem, Transient) for failure in result.failures)


def test_a_peer_that_ends_the_association_after_its_last_answer_has_taken_all(write_object: WriteObject) -> None:
    for ending in (A_ABORT, A_RELEASE_RQ):

        def take_and_go(conversation: Conversation, ending: int = ending) -> None:
            stored = conversation.read_store()
            assert stored is not None
            last_words = PDU_HEADER.pack(ending, 4) + bytes(4)
            conversation.send(answer_to(stored) + last_words)
            conversation.socket.recv(100)

        with FakePeer(take_and_go) as fake:
            result = send([write_object(1, b"ab")], fake.peer)
        assert (1, ()) == (len(result.sent), result.failures)


def test_several_threads_send_at_once(write_object: WriteObject) -> None:
    stored: list[Stored] = []
    datasets = [bytes([n]) * 300_000 for n in range(24)]
    paths = [write_object(n, dataset) for n, dataset in enumerate(datasets)]
    with FakePeer(keeping(stored)) as fake, ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda first: send(paths[first::4], fake.peer), range(4)))
    assert sorted(paths) == sorted(path for result in results for path in result.sent)
    assert sorted(datasets) == sorted(each.dataset for each in stored)


def test_a_peer_that_takes_a_few_bytes_now_and_then_is_given_up(write_object: WriteObject) -> None:
    given_up = threading.Event()

    def sip(conversation: Conversation) -> None:
        while conversation.socket.recv(100_000) and not given_up.wait(0.05):
            pass

    limits = TimeLimits(response_s=0.5, slowest_bytes_per_s=1e9)
    with FakePeer(sip) as fake:
        result = send([write_object(1, bytes(LARGE))], fake.peer, limits=limits)
        given_up.set()
    with pytest.raises(Transient, match=r"took nothing .* or too little"):
        result.raise_failure()


def test_an_answer_before_the_end_is_kept_until_all_is_sent(write_object: WriteObject) -> None:
    def answer_early(conversation: Conversation) -> None:
        _, body = conversation.read_pdu()
        conversation.answer(Stored(context_id=body[4], message_id=1, dataset=b"", longest_pdu=0), 0xA700)
        while conversation.read_pdu()[0] == P_DATA_TF:
            pass
        conversation.send(PDU_HEADER.pack(A_RELEASE_RP, 4) + bytes(4))

    with FakePeer(answer_early) as fake:
        result = send([write_object(1, bytes(LARGE))], fake.peer)
    with pytest.raises(Transient, match="0xA700"):
        result.raise_failure()


def test_a_peer_that_stalls_in_the_middle_of_its_acceptance_is_given_up(write_object: WriteObject) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = threading.Event()

        def stall() -> None:
            accepted, _ = server.accept()
            with accepted:
                accepted.recv(10_000)
                accepted.sendall(PDU_HEADER.pack(2, 500) + bytes(20))
                done.wait(10)

        thread = threading.Thread(target=stall)
        thread.start()
        peer = Peer(ae_title="STALLS", host="127.0.0.1", port=server.getsockname()[1])
        result = send([write_object(1, b"ab")], peer)
        done.set()
        thread.join()
    with pytest.raises(Transient, match="no association"):
        result.raise_failure()


def test_a_host_that_nobody_knows_is_transient(write_object: WriteObject) -> None:
    with pytest.raises(Transient, match="cannot be found"):
        send([write_object(1, b"ab")], Peer(ae_title="X", host="no-such-host.invalid", port=104)).raise_failure()


def test_a_file_that_shrinks_while_it_is_sent_costs_only_itself(write_object: WriteObject) -> None:
    paths = [write_object(n, bytes(LARGE if n == 2 else 100)) for n in (1, 2, 3)]

    def shrink(size: int) -> None:
        if size == LARGE:
            paths[1].write_bytes(paths[1].read_bytes()[:3_000_000])

    stored: list[Stored] = []
    with FakePeer(keeping(stored)) as fake:
        result = send(paths, fake.peer, throttle=shrink)
    assert ((paths[0], paths[2]), 2) == (result.sent, len(stored))
    with pytest.raises(Permanent, match="early"):
        result.raise_failure()


def test_a_file_that_is_gone_when_its_turn_comes_costs_only_itself(write_object: WriteObject) -> None:
    paths = [write_object(n, bytes(100)) for n in (1, 2, 3)]
    with FakePeer(store_all) as fake:
        result = send(paths, fake.peer, throttle=lambda _: paths[1].unlink(missing_ok=True))
    assert (paths[0], paths[2]) == result.sent
    with pytest.raises(Permanent, match="cannot be read"):
        result.raise_failure()


def test_the_throttle_is_asked_before_each_object_with_its_bytes(write_object: WriteObject) -> None:
    asked: list[int] = []
    with FakePeer(store_all) as fake:
        send([write_object(n, bytes(10 * n)) for n in (1, 2, 3)], fake.peer, throttle=asked.append).raise_failure()
    assert asked == [10, 20, 30]


@pytest.mark.parametrize("taken", [EXPLICIT, IMPLICIT])
def test_what_a_peer_does_not_take_as_it_is_is_transcoded(write_object: WriteObject, taken: str) -> None:
    asked: list[tuple[Path, str]] = []

    def transcode(path: Path, transfer_syntax: str) -> Source | None:
        asked.append((path, transfer_syntax))
        return MemorySource(b"transcoded")

    paths = [write_object(1, b"compressed", JPEG_LS), write_object(2, b"as it is", taken)]
    stored: list[Stored] = []
    with FakePeer(keeping(stored), accepts=lambda _, syntax: syntax == taken) as fake:
        send(paths, fake.peer, transcode=transcode).raise_failure()
    assert [b"transcoded", b"as it is"] == [each.dataset for each in stored]
    assert [(paths[0], taken)] == asked


def test_nothing_is_transcoded_where_the_peer_takes_it_as_it_is(write_object: WriteObject) -> None:
    def refuse(_path: Path, _syntax: str) -> Source | None:
        raise AssertionError

    stored: list[Stored] = []
    with FakePeer(keeping(stored)) as fake:
        send([write_object(1, b"compressed", JPEG_LS)], fake.peer, transcode=refuse).raise_failure()
    assert [b"compressed"] == [each.dataset for each in stored]


def test_what_cannot_be_transcoded_is_permanent(write_object: WriteObject) -> None:
    with FakePeer(store_all, accepts=lambda _, syntax: syntax == EXPLICIT) as fake:
        result = send([write_object(1, b"x", JPEG_LS)], fake.peer, transcode=lambda _path, _syntax: None)
    with pytest.raises(Permanent, match="does not take CT Image Storage in JPEG-LS"):
        result.raise_failure()


def test_many_classes_with_their_alternatives_need_several_associations(write_object: WriteObject) -> None:
    paths = [write_object(n, b"ab", JPEG_LS, f"1.2.3.4.{n}") for n in range(1, 51)]
    stored: list[Stored] = []
    with FakePeer(keeping(stored)) as fake:
        result = send(paths, fake.peer, transcode=lambda _path, _syntax: None)
    assert (tuple(paths), 50) == (result.sent, len(stored))


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Return a certificate authority of this test run."""
    return trustme.CA()


def server_side(authority: trustme.CA, name: str = "pacs.example") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def client_side(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def over_tls(fake: FakePeer, context: ssl.SSLContext, name: str = "pacs.example") -> Peer:
    return Peer(ae_title="FAKE", host="127.0.0.1", port=fake.peer.port, tls=context, tls_name=name)


def test_objects_arrive_over_tls(write_object: WriteObject, authority: trustme.CA) -> None:
    datasets = [bytes(range(256)) * 20_000, b"", bytes(LARGE)]
    stored: list[Stored] = []
    with FakePeer(keeping(stored), tls=server_side(authority)) as fake:
        paths = [write_object(n, dataset) for n, dataset in enumerate(datasets)]
        send(paths, over_tls(fake, client_side(authority))).raise_failure()
    assert datasets == [each.dataset for each in stored]


@pytest.mark.parametrize("script", [abort_and_stay, vanish, stand_still, say_nothing])
def test_a_peer_that_breaks_off_over_tls_is_transient(
    write_object: WriteObject, authority: trustme.CA, script: Callable[[Conversation], None]
) -> None:
    with FakePeer(script, tls=server_side(authority)) as fake:
        result = send([write_object(1, bytes(LARGE))], over_tls(fake, client_side(authority)))
    with pytest.raises(Transient):
        result.raise_failure()


def test_a_stranger_s_certificate_a_wrong_name_and_none_of_our_own_are_told(
    write_object: WriteObject, authority: trustme.CA
) -> None:
    path = write_object(1, b"ab")
    wanting = server_side(authority)
    wanting.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(wanting)
    with FakePeer(store_all, tls=server_side(authority)) as fake, FakePeer(store_all, tls=wanting) as strict:
        for peer, told in (
            (over_tls(fake, client_side(trustme.CA())), "no TLS .*issuer"),
            (over_tls(fake, client_side(authority), "other.example"), "no TLS .*other.example"),
            (over_tls(fake, client_side(authority), ".wrong"), "no TLS"),
            (over_tls(strict, client_side(authority)), "no TLS .*(?i:certificate.required)"),
        ):
            with pytest.raises(Transient, match=told):
                send([path], peer).raise_failure()
