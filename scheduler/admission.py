"""Which waiting jobs start now? Pure: priority with ageing, fairness, group exclusion, memory.

A place in the line is one instant, fixed when the job is submitted, and the earliest goes first:

    place_at = created_at - priority * AGEING_S + min(jobs of the same caller ahead, MOST_TURNS) * TURN_S

Ageing: one point of priority is worth AGEING_S seconds of waiting, so a routine job (10) that has waited two hours
stands level with a STAT job (30) that has just come, and nothing starves. Fairness: a caller's jobs of at least this
priority that are still waiting put a new one back by TURN_S each, so callers take turns, but never by a whole level.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from scheduler.job import Job

AGEING_S: Final = 360.0
TURN_S: Final = 60.0
MOST_TURNS: Final = 30
PATIENCE_S: Final = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What jobs may use together: memory, and how many run at once."""

    memory_mb: int
    slots: int

    def __post_init__(self) -> None:
        if self.memory_mb < 1 or self.slots < 1:
            raise ValueError(f"a machine needs memory and a slot, not {self.memory_mb} MB and {self.slots} slots")


def place_at(*, created_at: datetime, priority: int, ahead: int) -> datetime:
    """Give a new job its place in the line; `ahead` counts its caller's waiting jobs of at least its priority."""
    return created_at + timedelta(seconds=min(ahead, MOST_TURNS) * TURN_S - priority * AGEING_S)


def in_order(waiting: Sequence[Job]) -> list[Job]:
    """Sort waiting jobs by their place in the line."""
    return sorted(waiting, key=lambda job: (job.place_at, job.key))


def admit(waiting: Sequence[Job], running: Sequence[Job], machine: Machine, now: datetime) -> list[Job]:
    """Choose the jobs to start, in order.

    Those later in the line may pass a job that lacks memory for PATIENCE_S after it was due; then the machine drains
    for it. A job larger than the whole machine starts when nothing else runs, and runs alone.
    """
    started: list[Job] = []
    for job in in_order(waiting):
        busy = [*running, *started]
        if len(busy) >= machine.slots:
            break
        if _shares_a_group(job, busy):
            continue
        if _fits(job, busy, machine):
            started.append(job)
        elif now - job.next_at >= timedelta(seconds=PATIENCE_S):
            break
    return started


def _shares_a_group(job: Job, busy: Sequence[Job]) -> bool:
    return job.group is not None and any(other.group == job.group for other in busy)


def _fits(job: Job, busy: Sequence[Job], machine: Machine) -> bool:
    return not busy or sum(other.memory_mb for other in busy) + job.memory_mb <= machine.memory_mb
