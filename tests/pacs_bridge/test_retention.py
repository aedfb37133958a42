"""Which studies' images may go, and which never?"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs_bridge.retention import MEGABYTE, Decision, StudyFacts, decide, stays
from pacs_bridge.settings import Retention

NOW = datetime(2026, 6, 1, tzinfo=UTC)
PLENTY = 10**15


def study(days_old: float = 100, *, uid: str = "1", size_mb: int = 500, **facts: Any) -> StudyFacts:
    return StudyFacts(
        study_instance_uid=uid,
        study_key=f"key{uid}",
        last_received_at=NOW - timedelta(days=days_old),
        images=1000,
        size_bytes=size_mb * MEGABYTE,
        **facts,
    )


def decided(*studies: StudyFacts, free_mb: int | None = None, **rules: Any) -> list[Decision]:
    free = PLENTY if free_mb is None else free_mb * MEGABYTE
    return list(decide(studies, Retention(**rules), now=NOW, free_bytes=free))


def test_without_rules_nothing_is_removed() -> None:
    assert [] == decided(study(10_000), free_mb=0)


@pytest.mark.parametrize(("days_old", "removed"), [(89.99, []), (90, [True]), (91, [True])])
def test_a_study_goes_once_it_is_old_enough(days_old: float, removed: list[bool]) -> None:
    assert removed == [each.removes for each in decided(study(days_old), days=90)]


def test_the_oldest_go_until_enough_is_free() -> None:
    studies = [study(30 - n, uid=str(n)) for n in range(10)]
    gone = decided(*studies, free_mb=1_000, below_free_mb=2_100)
    assert ["0", "1", "2"] == [each.study.study_instance_uid for each in gone]


def test_what_must_stay_makes_no_room() -> None:
    first = study(30, uid="0", promised=True)
    decisions = decided(first, study(29, uid="1"), study(28, uid="2"), free_mb=0, below_free_mb=500)
    assert [("0", False), ("1", True)] == [(d.study.study_instance_uid, d.removes) for d in decisions]


STAYS: list[dict[str, Any]] = [
    {"arriving": True},
    {"unfinished": True},
    {"reported": False},
    {"unforwarded": 1},
    {"promised": True},
    {"in_conflict": True},
]


@pytest.mark.parametrize("fact", STAYS, ids=lambda fact: str(next(iter(fact))))
def test_what_is_on_its_way_promised_or_in_doubt_stays_however_full_the_disk_is(fact: dict[str, Any]) -> None:
    (decision,) = decided(study(10_000, **fact), free_mb=0, days=1, below_free_mb=10**6)
    assert not decision.removes
    assert decision.kept_since == stays(decision.study) != ""


def test_a_reason_names_no_study() -> None:
    assert all("key1" not in stays(study(**fact)) for fact in STAYS)


@st.composite
def many(draw: st.DrawFn) -> list[StudyFacts]:
    """Draw studies, the oldest first, in every state."""
    ages = sorted(draw(st.lists(st.floats(0, 400), max_size=12)), reverse=True)
    flags = ("arriving", "unfinished", "reported", "promised", "in_conflict")
    sizes, counts, either = st.integers(0, 900), st.integers(0, 2), st.booleans()
    return [
        study(age, uid=str(n), size_mb=draw(sizes), unforwarded=draw(counts), **{flag: draw(either) for flag in flags})
        for n, age in enumerate(ages)
    ]


@given(many(), st.integers(0, 300), st.integers(0, 3000), st.integers(0, 3000))
def test_nothing_goes_without_a_rule_and_nothing_that_must_stay(
    studies: list[StudyFacts], days: int, below_free_mb: int, free_mb: int
) -> None:
    decisions = decided(*studies, free_mb=free_mb, days=days, below_free_mb=below_free_mb)
    free = free_mb * MEGABYTE
    for decision in decisions:
        too_old = bool(days) and NOW - decision.study.last_received_at >= timedelta(days=days)
        assert too_old or free < below_free_mb * MEGABYTE
        assert decision.removes == (stays(decision.study) == "")
        free += decision.study.size_bytes if decision.removes else 0
    assert [each.study for each in decisions] == studies[: len(decisions)]
    if decisions != [] and len(decisions) < len(studies):
        next_one = studies[len(decisions)]
        assert free >= below_free_mb * MEGABYTE
        assert not days or NOW - next_one.last_received_at < timedelta(days=days)
