"""Urgent first, nobody starves, memory holds, one of a group at a time."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.admission import AGEING_S, MOST_TURNS, PATIENCE_S, TURN_S, Machine, admit, place_at
from scheduler.job import ROUTINE, STAT, URGENT, Job, JobRequest, opened
from scheduler.testing import NOON

MACHINE = Machine(memory_mb=1000, slots=2)


def waiting(
    key: str, *, at_s: float = 0, priority: int = ROUTINE, memory_mb: int = 100, group: str | None = None
) -> Job:
    now = NOON + timedelta(seconds=at_s)
    request = JobRequest(key=key, kind="k", priority=priority, memory_mb=memory_mb, group=group)
    return opened(request, now=now, place_at=place_at(created_at=now, priority=priority, ahead=0))


def started(jobs: list[Job], running: list[Job] | None = None, *, at_s: float = 0) -> list[str]:
    return [job.key for job in admit(jobs, running or [], MACHINE, NOON + timedelta(seconds=at_s))]


def test_the_urgent_start_first() -> None:
    jobs = [waiting("routine"), waiting("urgent", priority=URGENT), waiting("stat", priority=STAT)]
    assert started(jobs) == ["stat", "urgent"]


def test_a_routine_job_that_waited_two_hours_stands_level_with_a_new_stat() -> None:
    two_hours_s = (STAT - ROUTINE) * AGEING_S
    jobs = [waiting("old"), waiting("early stat", at_s=two_hours_s - 1, priority=STAT)]
    assert started(jobs) == ["early stat", "old"]
    jobs = [waiting("old"), waiting("late stat", at_s=two_hours_s + 1, priority=STAT)]
    assert started(jobs) == ["old", "late stat"]


def test_turns_never_cost_a_whole_level_of_priority() -> None:
    assert (URGENT - ROUTINE) * AGEING_S > MOST_TURNS * TURN_S
    flooded = place_at(created_at=NOON, priority=URGENT, ahead=10_000)
    assert flooded < place_at(created_at=NOON, priority=ROUTINE, ahead=0)


def test_a_group_runs_one_job_at_a_time() -> None:
    assert started([waiting("a", group="g"), waiting("b", group="g"), waiting("c")]) == ["a", "c"]
    assert started([waiting("a", group="g"), waiting("c")], [waiting("r", group="g")]) == ["c"]


def test_the_slots_hold() -> None:
    assert started([waiting("a"), waiting("b")], [waiting("r")]) == ["a"]


def test_a_small_job_passes_a_large_one_only_while_patience_lasts() -> None:
    jobs, running = [waiting("large", memory_mb=950), waiting("small", at_s=1)], [waiting("r")]
    assert started(jobs, running, at_s=PATIENCE_S - 1) == ["small"]
    assert started(jobs, running, at_s=PATIENCE_S) == []
    assert started(jobs, [], at_s=PATIENCE_S) == ["large"]


def test_a_job_larger_than_the_machine_runs_alone() -> None:
    giant = waiting("giant", memory_mb=5000)
    assert started([giant, waiting("b", at_s=1)]) == ["giant"]
    assert started([waiting("b")], [giant]) == []


@pytest.mark.parametrize(("memory_mb", "slots"), [(0, 1), (1, 0)])
def test_a_machine_that_exists_can_run_something(memory_mb: int, slots: int) -> None:
    with pytest.raises(ValueError, match="machine"):
        Machine(memory_mb=memory_mb, slots=slots)


JOBS = st.lists(
    st.builds(
        lambda number, at_s, priority, memory_mb, group: waiting(
            f"{number}", at_s=at_s, priority=priority, memory_mb=memory_mb, group=group
        ),
        st.integers(0, 10**6),
        st.integers(0, 600),
        st.sampled_from([ROUTINE, URGENT, STAT]),
        st.sampled_from([0, 1, 100, 400, 700, 1000, 3000]),
        st.sampled_from([None, "g", "h"]),
    ),
    max_size=20,
    unique_by=lambda job: job.key,
)


@given(jobs=JOBS, slots=st.integers(1, 4), at_s=st.integers(600, 2000), split=st.integers(0, 20))
def test_slots_memory_and_groups_hold_whatever_waits_and_runs(
    jobs: list[Job], slots: int, at_s: int, split: int
) -> None:
    machine = Machine(memory_mb=1000, slots=slots)
    now = NOON + timedelta(seconds=at_s)
    running = admit(jobs[:split], [], machine, now)
    busy = [*running, *admit(jobs[split:], running, machine, now)]
    groups = [job.group for job in busy if job.group is not None]
    assert len(busy) <= slots
    assert len(groups) == len(set(groups))
    assert len(busy) == 1 or sum(job.memory_mb for job in busy) <= machine.memory_mb


@settings(deadline=None)
@given(jobs=JOBS, stream=st.sampled_from([STAT, URGENT, ROUTINE]), memory_mb=st.sampled_from([0, 100, 600]))
def test_nothing_starves_under_an_endless_stream_of_other_work(jobs: list[Job], stream: int, memory_mb: int) -> None:
    # Work comes as fast as the machine does it: two jobs of a minute each minute.
    line, running, ever = list(jobs), list[Job](), set[str]()
    minute = 0
    while not {job.key for job in jobs} <= ever:
        now = NOON + timedelta(minutes=10 + minute)
        for number in range(MACHINE.slots):
            at_s = 600 + 60 * minute
            line.append(waiting(f"new {minute} {number}", at_s=at_s, priority=stream, memory_mb=memory_mb))
        running = admit(line, [], MACHINE, now) if minute % 2 else running[:1] + admit(line, running[:1], MACHINE, now)
        ever |= {job.key for job in running}
        line = [job for job in line if job.key not in ever]
        minute += 1
        assert minute < 600, "a job has starved"


def test_the_line_is_the_one_that_was_promised() -> None:
    expected = NOON + timedelta(seconds=3 * TURN_S - STAT * AGEING_S)
    assert expected == place_at(created_at=NOON, priority=STAT, ahead=3)
