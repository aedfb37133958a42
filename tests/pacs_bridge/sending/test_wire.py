"""Whatever bytes come over a socket: is each answer read, or what is wrong said, and nothing else?"""

import socket
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacs_bridge.sending.commands import StoreResponse
from pacs_bridge.sending.errors import BrokenOff, TooSlow
from pacs_bridge.sending.pdu import LONGEST_RECEIVED, PDU_HEADER, Malformed, Pdv, encode, fragments
from pacs_bridge.sending.peer import TimeLimits
from pacs_bridge.sending.testing import Stored, answer_to
from pacs_bridge.sending.wire import Wire

ANSWER = answer_to(Stored(context_id=3, message_id=7, dataset=b"", longest_pdu=0), 0xB000)


def heard(said: bytes) -> tuple[StoreResponse, bytes]:
    """Return what a wire understands of a peer that says this and hangs up, and what it leaves unread."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wire = Wire(ours, TimeLimits(response_s=5))
        theirs.sendall(said)
        theirs.shutdown(socket.SHUT_WR)
        return wire.response(), wire.unread


@settings(deadline=None, max_examples=300)
@given(said=st.one_of(st.binary(max_size=300), st.binary(max_size=60).map(lambda tail: b"\x04\0\0\0\0\x18" + tail)))
def test_arbitrary_bytes_are_no_answer_and_end_at_once(said: bytes) -> None:
    with pytest.raises((BrokenOff, Malformed)):
        heard(said)


@settings(deadline=None)
@given(at=st.integers(0, len(ANSWER) - 1), value=st.integers(0, 255))
def test_a_damaged_answer_is_read_or_named(at: int, value: int) -> None:
    damaged = bytearray(ANSWER)
    damaged[at] = value
    try:
        response, _ = heard(bytes(damaged))
    except (BrokenOff, Malformed):
        return
    assert response.status in range(0x10000)


@settings(deadline=None)
@given(longest=st.integers(1, 60), stray=st.binary(max_size=20))
def test_an_answer_in_many_fragments_is_read_and_a_stray_data_set_passed_over(longest: int, stray: bytes) -> None:
    command = ANSWER[12:]
    pdus = b"".join(map(encode, fragments(command, 3, longest, is_command=True)))
    data = encode(Pdv(context_id=3, is_command=False, is_last=True, fragment=stray))
    assert (StoreResponse(message_id=7, status=0xB000), b"") == heard(data + pdus)


def test_what_follows_an_answer_is_left_to_others() -> None:
    abort = PDU_HEADER.pack(7, 4) + bytes(4)
    assert (StoreResponse(message_id=7, status=0xB000), abort) == heard(ANSWER + abort)


def test_an_answer_without_end_is_given_up_before_memory_is() -> None:
    fragment = encode(Pdv(context_id=3, is_command=True, is_last=False, fragment=bytes(10_000)))
    with pytest.raises(Malformed, match="without end"):
        heard(fragment * 8)
    with pytest.raises(Malformed, match="where a short answer was due"):
        heard(PDU_HEADER.pack(4, LONGEST_RECEIVED + 1))


def test_a_peer_that_takes_nothing_is_too_slow_by_its_own_deadline() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wire = Wire(ours, TimeLimits(response_s=60))
        with pytest.raises(TooSlow):
            wire.send(memoryview(bytes(20_000_000)), time.monotonic() + 0.05)
        assert wire.is_inside_pdu
