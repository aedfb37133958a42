"""What does a queue promise: to those with work, to the worker, and to people?"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from scheduler.admission import in_order
from scheduler.job import Job, JobRequest, Status

Admit = Callable[[Sequence[Job], Sequence[Job]], Sequence[Job]]
"""(jobs due and not blocked by a running job of their group, running jobs of the same kinds) -> those to start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a claim did: the jobs started, and the jobs buried because their last lease had run out."""

    started: tuple[Job, ...]
    buried: tuple[Job, ...]


def everything(waiting: Sequence[Job], running: Sequence[Job]) -> Sequence[Job]:
    """Admit all that waits, in order: for machines without limits, and for tests."""
    return in_order(waiting)


class Inbox(Protocol):
    """The queue as those see it who have work to be done."""

    def submit(self, request: JobRequest, *, now: datetime) -> bool:
        """Keep a job, ready, in the caller's open transaction if there is one; False when the key exists already."""

    def hurry(self, key: str, *, now: datetime) -> bool:
        """Let a ready job that waits for its time start at once; False where there is none, or it does not wait."""


class Queue(Protocol):
    """The queue as the worker sees it. A stale attempt raises LeaseLost and changes nothing."""

    def claim(self, kinds: Collection[str], now: datetime, lease_s: float, admit: Admit = everything) -> Claims:
        """Start the admitted jobs of these kinds: running, under a lease, the attempt counted.

        Jobs whose lease has run out are ready again first, or buried when no attempt is left. Never starts two jobs
        of one group, whatever `admit` says.
        """

    def extend(self, job: Job, until: datetime) -> None:
        """Move the end of the lease; allowed after its end as long as nobody else has claimed the job."""

    def finish(self, job: Job) -> None:
        """End the job as done."""

    def retry(self, job: Job, at: datetime, reason: str, *, given_back: int = 0) -> None:
        """Make the job ready again from `at` on; the attempt stays counted, and that many more are allowed."""

    def bury(self, job: Job, reason: str) -> None:
        """End the job as failed; only a person brings it back."""

    def recover(self, now: datetime) -> None:
        """End the lease of every running job: for the start of the one driver, when nothing can be running yet."""


class QueueDesk(Protocol):
    """The queue as people see it. Raises UnknownJob, and NotAllowed where the job's status has no such transition."""

    def jobs(self, statuses: Collection[Status] = tuple(Status), *, limit: int | None = None) -> Sequence[Job]:
        """List jobs, the newest first; all of them where no limit is given."""

    def job(self, key: str) -> Job:
        """Look one job up."""

    def hold(self, key: str, reason: str) -> None:
        """Keep a ready job from starting."""

    def release(self, key: str) -> None:
        """Let a held job start."""

    def resubmit(self, key: str, *, now: datetime, attempts: int = 3) -> None:
        """Give a buried job that many more attempts; the count goes on, so that no stale attempt can publish."""

    def cancel(self, key: str, reason: str) -> None:
        """Give up a job that does not run and is not done."""
