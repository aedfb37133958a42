"""Do bytes leave no faster than they may, and no slower?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs_bridge.throttle import BURST_S, Throttle


class Time:
    """A clock that waiting moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def clock(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


sizes = st.lists(st.integers(0, 5_000_000), min_size=1, max_size=40)


@given(sizes=sizes, rate=st.floats(1000, 1e8))
def test_never_more_leaves_than_time_allows_besides_a_burst_and_one_object(sizes: list[int], rate: float) -> None:
    time = Time()
    throttle = Throttle(rate, clock=time.clock, wait=time.wait)
    gone = 0
    for size in sizes:
        throttle.take(size)
        # What leaves now may overdraw; all that left before is paid for.
        assert gone <= rate * (BURST_S + time.now - 100.0) * (1 + 1e-9) + 1e-6
        gone += size


@given(sizes=sizes, rate=st.floats(1000, 1e8))
def test_nobody_waits_longer_than_what_has_left_takes(sizes: list[int], rate: float) -> None:
    time = Time()
    throttle = Throttle(rate, clock=time.clock, wait=time.wait)
    for size in sizes:
        throttle.take(size)
    assert time.now - 100.0 <= sum(sizes[:-1]) / rate + 1e-6


def test_what_was_not_used_is_saved_for_a_burst_only() -> None:
    time = Time()
    throttle = Throttle(1000, clock=time.clock, wait=time.wait)
    time.now += 3600
    for _ in range(4):
        throttle.take(1000)
    assert 2 == round(time.now - 3700)


def test_those_who_wait_at_once_wait_one_after_the_other() -> None:
    time = Time()
    waits: list[float] = []
    throttle = Throttle(1000, clock=time.clock, wait=waits.append)
    for _ in range(4):
        throttle.take(2000)
    assert [1.0, 3.0, 5.0] == waits


def test_a_rate_that_lets_nothing_through_is_refused() -> None:
    with pytest.raises(ValueError, match="let nothing through"):
        Throttle(0)


def test_who_waits_is_let_go_when_the_service_stops() -> None:
    throttle = Throttle(1)
    throttle.take(1000)
    throttle.close()
    throttle.take(1000)
