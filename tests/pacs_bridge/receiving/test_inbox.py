"""A reader that takes what is there, waits no longer than it may, and knows who is too slow."""

import socket
import time
from collections.abc import Iterator

import pytest

from pacs_bridge.receiving.inbox import Inbox, Pace, PeerGone


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return two connected sockets; the first has the short time limit of a receiver's."""
    ours, theirs = socket.socketpair()
    ours.settimeout(0.01)
    with ours, theirs:
        yield ours, theirs


def inbox_of(ours: socket.socket, capacity: int = 16, *, given_up: bool = False) -> Inbox:
    return Inbox(ours, capacity, Pace(slowest_bytes_per_s=0, grace_s=60), lambda: given_up)


def test_bytes_come_out_in_order_however_they_lie_in_the_buffer(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    inbox = inbox_of(ours)
    sent = bytes(range(100))
    got = b""
    for start in range(0, 100, 10):
        theirs.sendall(sent[start : start + 10])
        got += bytes(inbox.need(10, time.monotonic() + 5)[:7])
        inbox.drop(7)
        got += inbox.take(3)
    assert sent == got
    assert not len(inbox)


def test_the_end_of_the_connection_is_told(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.sendall(b"abc")
    theirs.close()
    inbox = inbox_of(ours)
    assert b"abc" == bytes(inbox.need(3, time.monotonic() + 5))
    with pytest.raises(PeerGone, match="closed the connection"):
        inbox.need(4, time.monotonic() + 5)


def test_nobody_is_waited_for_beyond_the_time_given(pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(PeerGone, match="nothing came"):
        inbox_of(pair[0]).need(1, time.monotonic() - 1)


def test_a_wait_ends_when_the_association_is_given_up(pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(PeerGone):
        inbox_of(pair[0], given_up=True).need(1, time.monotonic() + 60)


def test_more_than_the_buffer_holds_is_refused_at_once(pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(PeerGone, match="more than we hold"):
        inbox_of(pair[0]).need(17, time.monotonic() + 60)


def test_a_slow_message_is_given_up_after_its_grace_and_not_before() -> None:
    clock = Clock()
    pace = Pace(slowest_bytes_per_s=100, grace_s=10, clock=clock)
    pace.begin()
    pace.came(500)
    clock.now = 10
    pace.check()
    clock.now = 10.1
    with pytest.raises(PeerGone, match="too slow: 500 bytes in 10 s"):
        pace.check()


def test_between_messages_nobody_is_slow() -> None:
    clock = Clock()
    pace = Pace(slowest_bytes_per_s=100, grace_s=10, clock=clock)
    pace.begin()
    pace.end()
    clock.now = 1000
    pace.check()


def test_a_fast_message_may_take_all_day() -> None:
    clock = Clock()
    pace = Pace(slowest_bytes_per_s=100, grace_s=10, clock=clock)
    pace.begin()
    for clock.now in range(1000):
        pace.came(101)
        pace.check()
