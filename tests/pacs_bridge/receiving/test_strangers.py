"""How many may be connected without having asked for an association, and who is let in when others have gone?"""

import socket
from typing import Any

import structlog
from pynetdicom import AE, build_context
from pynetdicom.sop_class import Verification

from pacs_bridge.receiving.strangers import TELL_EVERY_S, Strangers, StrangersAllowed
from pacs_bridge.transport import SOCKET_HANDLERS


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def strangers(clock: Clock | None = None) -> Strangers:
    return Strangers(StrangersAllowed(at_most=3, from_one_address=2, count_s=300), clock or Clock())


def test_neither_one_address_nor_all_together_take_more_than_their_share() -> None:
    among = strangers()
    assert [True, True, False] == [among.enter(("10.0.0.1", port)) for port in (1, 2, 3)]
    assert [True, False] == [among.enter((f"10.0.0.{n}", 1)) for n in (2, 3)]


def test_who_leaves_makes_room() -> None:
    among = strangers()
    for port in range(100):
        assert among.enter(("10.0.0.1", port))
        among.leave(("10.0.0.1", port))
    among.leave(("10.0.0.1", 1))
    assert not len(among)


def test_who_was_never_seen_to_leave_does_not_count_for_ever() -> None:
    clock = Clock()
    among = strangers(clock)
    assert [True, True, False] == [among.enter(("10.0.0.1", port)) for port in (1, 2, 3)]
    clock.now = 301.0
    assert among.enter(("10.0.0.1", 3))
    assert 1 == len(among)


def test_it_is_told_now_and_then_only() -> None:
    clock = Clock()
    among = strangers(clock)
    assert [True, False] == [among.is_to_be_told() for _ in range(2)]
    clock.now = TELL_EVERY_S
    assert among.is_to_be_told()


def echoes(listener: Any) -> bool:
    association = AE(ae_title="CT01").associate(
        "127.0.0.1",
        listener.port,
        contexts=[build_context(Verification)],
        ae_title="CTRIAGE",
        evt_handlers=SOCKET_HANDLERS,
    )
    if not association.is_established:
        return False
    status = association.send_c_echo()
    association.release()
    return bool(status.get("Status") == 0)


def test_connections_that_ask_for_nothing_are_closed_beyond_some_and_room_comes_back(
    bridge: Any, listen: Any, wait_until: Any, caplog: Any
) -> None:
    caplog.set_level("CRITICAL", logger="pynetdicom")
    with structlog.testing.capture_logs() as logs:
        listener = listen(bridge, receiver={"strangers": StrangersAllowed(at_most=4, from_one_address=2)})
        assert all(echoes(listener) for _ in range(5))  # those who ask do not count
        idle = [socket.create_connection(("127.0.0.1", listener.port), timeout=20) for _ in range(2)]
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", listener.port), timeout=20) as one_too_many:
                assert one_too_many.recv(1) == b""
        told = [each["reason"] for each in logs if each["event"] == "connection_turned_away"]
        assert ["too many are connected without having asked for an association"] == told
        for each in idle:
            each.close()
        wait_until(lambda: echoes(listener))
