"""Does a place that does not answer make everybody wait, and one job try it out?"""

from datetime import UTC, datetime, timedelta
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from scheduler.contact import FIRST_WAIT_S, IN_CONTACT, LONGEST_WAIT_S, Contact, failed, room

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


def after_failures(count: int, seed: int = 0) -> Contact:
    """Fail so often, each time as soon as a try is allowed."""
    contact, random = IN_CONTACT, Random(seed)
    for _ in range(count):
        at = contact.next_at or NOON
        contact = failed(contact, "nobody there", started_at=at, now=at + timedelta(seconds=1), random=random)
    return contact


def test_who_is_in_contact_lets_as_many_through_as_fit() -> None:
    assert room(IN_CONTACT, running=3, now=NOON) is None


@given(count=st.integers(1, 40), seed=st.integers(0, 5), early=st.floats(0.001, 1))
def test_after_a_failure_nobody_starts_until_one_may_try(count: int, seed: int, early: float) -> None:
    contact = after_failures(count, seed)
    assert contact.next_at is not None
    assert 0 == room(contact, running=0, now=contact.next_at - timedelta(seconds=early * FIRST_WAIT_S / 2))
    assert 1 == room(contact, running=0, now=contact.next_at)
    assert 0 == room(contact, running=1, now=contact.next_at)


@given(count=st.integers(1, 60), seed=st.integers(0, 5))
def test_the_wait_doubles_up_to_the_longest_with_jitter(count: int, seed: int) -> None:
    before, contact = after_failures(count - 1, seed), after_failures(count, seed)
    assert contact.next_at is not None
    wait_s = (contact.next_at - (before.next_at or NOON)).total_seconds() - 1
    most_s = min(FIRST_WAIT_S * 2 ** (count - 1), LONGEST_WAIT_S)
    assert most_s / 2 - 0.001 <= wait_s <= most_s + 0.001
    assert (count, count > 1) == (contact.failures, contact.is_away)


def test_jobs_that_were_under_way_when_contact_was_lost_count_once() -> None:
    random = Random(0)
    first = failed(IN_CONTACT, "cut off", started_at=NOON, now=NOON + timedelta(seconds=5), random=random)
    late = NOON + timedelta(seconds=6)
    assert first == failed(first, "cut off", started_at=NOON + timedelta(seconds=1), now=late, random=random)
    assert first.since == NOON + timedelta(seconds=5)
