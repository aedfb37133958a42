"""How does somebody else's queue show that it keeps the queue's promises? And a fake queue that does."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import RLock
from typing import Final, Protocol

import pytest

from scheduler.admission import in_order, place_at
from scheduler.errors import LeaseLost, NotAllowed, UnknownJob
from scheduler.job import STAT, Event, Job, JobRequest, Status, after, opened, worker_died
from scheduler.queue import Admit, Claims, Inbox, Queue, QueueDesk, everything

NOON: Final = datetime(2026, 1, 5, 12, tzinfo=UTC)


class WholeQueue(Inbox, Queue, QueueDesk, Protocol):
    """All three sides of one queue."""


class MemoryQueue:
    """A queue for tests: keeps every promise but durability, and joins no transaction."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._lock = RLock()

    def submit(self, request: JobRequest, *, now: datetime) -> bool:
        """See Inbox."""
        with self._lock:
            if request.key in self._jobs:
                return False
            job = opened(request, now=now, place_at=now)
            ahead = sum(_is_ahead(other, job) for other in self._jobs.values())
            place = place_at(created_at=now, priority=job.priority, ahead=ahead)
            self._jobs[job.key] = replace(job, place_at=place)
            return True

    def claim(self, kinds: Collection[str], now: datetime, lease_s: float, admit: Admit = everything) -> Claims:
        """See Queue."""
        with self._lock:
            buried = self._end_expired(kinds, now)
            groups = {job.group for job in self._jobs.values() if job.status is Status.RUNNING} - {None}
            mine = [job for job in self._jobs.values() if job.kind in kinds]
            waiting = [
                job for job in mine if job.status is Status.READY and job.next_at <= now and job.group not in groups
            ]
            running = [job for job in mine if job.status is Status.RUNNING]
            started: list[Job] = []
            for job in admit(in_order(waiting), running):
                if job.group is None or all(other.group != job.group for other in started):
                    started.append(self._claimed(job, now + timedelta(seconds=lease_s)))
            return Claims(started=tuple(started), buried=buried)

    def extend(self, job: Job, until: datetime) -> None:
        """See Queue."""
        with self._lock:
            self._settle(replace(self._owned(job), lease_until=until), Event.EXTEND)

    def finish(self, job: Job) -> None:
        """See Queue."""
        with self._lock:
            self._settle(replace(self._owned(job), lease_until=None, reason=None), Event.FINISH)

    def retry(self, job: Job, at: datetime, reason: str, *, given_back: int = 0) -> None:
        """See Queue."""
        with self._lock:
            owned = self._owned(job)
            allowed = owned.max_attempts + given_back
            again = replace(owned, lease_until=None, next_at=at, reason=reason, max_attempts=allowed)
            self._settle(again, Event.RETRY)

    def bury(self, job: Job, reason: str) -> None:
        """See Queue."""
        with self._lock:
            self._settle(replace(self._owned(job), lease_until=None, reason=reason), Event.BURY)

    def recover(self, now: datetime) -> None:
        """See Queue."""
        with self._lock:
            for job in self.jobs([Status.RUNNING]):
                if job.is_exhausted:
                    self.extend(job, now)
                else:
                    self._settle(replace(job, lease_until=None, next_at=now), Event.EXPIRE)

    def jobs(self, statuses: Collection[Status] = tuple(Status), *, limit: int | None = None) -> Sequence[Job]:
        """See QueueDesk."""
        with self._lock:
            found = sorted((job for job in self._jobs.values() if job.status in statuses), key=lambda job: job.key)
        return sorted(found, key=lambda job: job.created_at, reverse=True)[:limit]

    def job(self, key: str) -> Job:
        """See QueueDesk."""
        with self._lock:
            if key not in self._jobs:
                raise UnknownJob(key)
            return self._jobs[key]

    def hold(self, key: str, reason: str) -> None:
        """See QueueDesk."""
        with self._lock:
            self._settle(replace(self.job(key), reason=reason), Event.HOLD)

    def release(self, key: str) -> None:
        """See QueueDesk."""
        with self._lock:
            self._settle(replace(self.job(key), reason=None), Event.RELEASE)

    def hurry(self, key: str, *, now: datetime) -> bool:
        """See Inbox."""
        with self._lock:
            job = self._jobs.get(key)
            if job is None or job.status is not Status.READY or job.next_at <= now:
                return False
            self._jobs[key] = replace(job, next_at=now)
            return True

    def resubmit(self, key: str, *, now: datetime, attempts: int = 3) -> None:
        """See QueueDesk."""
        with self._lock:
            job = self.job(key)
            self._settle(replace(job, next_at=now, max_attempts=job.attempt + attempts), Event.RESUBMIT)

    def cancel(self, key: str, reason: str) -> None:
        """See QueueDesk."""
        with self._lock:
            self._settle(replace(self.job(key), reason=reason), Event.CANCEL)

    def _settle(self, job: Job, event: Event) -> Job:
        self._jobs[job.key] = replace(job, status=after(job.status, event))
        return self._jobs[job.key]

    def _owned(self, job: Job) -> Job:
        kept = self._jobs.get(job.key)
        if kept is None or kept.attempt != job.attempt or kept.status is not Status.RUNNING:
            raise LeaseLost(job.key, job.attempt)
        return kept

    def _claimed(self, job: Job, lease_until: datetime) -> Job:
        return self._settle(replace(job, attempt=job.attempt + 1, lease_until=lease_until), Event.CLAIM)

    def _end_expired(self, kinds: Collection[str], now: datetime) -> tuple[Job, ...]:
        buried = []
        for job in [job for job in self._jobs.values() if job.kind in kinds and _has_expired(job, now)]:
            ended = replace(job, lease_until=None, reason=worker_died(job))
            if job.is_exhausted:
                buried.append(self._settle(ended, Event.BURY))
            else:
                self._settle(replace(ended, next_at=now), Event.EXPIRE)
        return tuple(buried)


class QueueContract(ABC):
    """What every queue must do; inherit and supply `make_queue`."""

    @abstractmethod
    def make_queue(self, folder: Path) -> WholeQueue:
        """Make an empty queue; `folder` is the test's own. Close it in a fixture of the subclass."""

    @pytest.fixture
    def queue(self, tmp_path: Path) -> WholeQueue:
        """Hand the test an empty queue."""
        return self.make_queue(tmp_path)

    def test_a_submitted_job_is_ready(self, queue: WholeQueue) -> None:
        assert queue.submit(JobRequest(key="a", kind="k", payload={"study": [1, "x"]}, group="g"), now=NOON)
        job = queue.job("a")
        assert (job.status, job.attempt, job.payload) == (Status.READY, 0, {"study": [1, "x"]})
        assert (job.created_at, job.next_at, job.caller) == (NOON, NOON, "g")

    def test_the_same_key_twice_is_one_job(self, queue: WholeQueue) -> None:
        assert queue.submit(JobRequest(key="a", kind="k", payload={"n": 1}), now=NOON)
        assert not queue.submit(JobRequest(key="a", kind="k", payload={"n": 2}), now=NOON)
        assert [job.payload for job in queue.jobs()] == [{"n": 1}]

    def test_a_key_that_is_done_makes_no_new_job(self, queue: WholeQueue) -> None:
        queue.finish(_one(queue, "a"))
        assert not queue.submit(JobRequest(key="a", kind="k"), now=NOON)
        assert queue.claim(["k"], NOON, 30).started == ()

    def test_a_claim_counts_the_attempt_and_sets_the_lease(self, queue: WholeQueue) -> None:
        job = _one(queue, "a")
        assert (Status.RUNNING, 1, _later(30)) == (job.status, job.attempt, job.lease_until)
        assert job == queue.job("a")

    def test_a_claimed_job_is_not_claimed_again_within_its_lease(self, queue: WholeQueue) -> None:
        _one(queue, "a")
        assert queue.claim(["k"], _later(29), 30).started == ()

    def test_other_kinds_are_left_alone(self, queue: WholeQueue) -> None:
        queue.submit(JobRequest(key="a", kind="other"), now=NOON)
        assert queue.claim(["k"], NOON, 30).started == ()

    def test_a_job_does_not_start_before_its_time(self, queue: WholeQueue) -> None:
        queue.submit(JobRequest(key="a", kind="k", start_at=_later(10)), now=NOON)
        assert queue.claim(["k"], _later(9), 30).started == ()
        assert _keys(queue.claim(["k"], _later(10), 30).started) == ["a"]

    def test_the_most_urgent_starts_first(self, queue: WholeQueue) -> None:
        queue.submit(JobRequest(key="a", kind="k"), now=NOON)
        queue.submit(JobRequest(key="b", kind="k", priority=STAT), now=_later(1))
        assert _keys(queue.claim(["k"], _later(1), 30).started) == ["b", "a"]

    def test_callers_take_turns(self, queue: WholeQueue) -> None:
        for number, key in enumerate(("a1", "a2", "a3", "b1", "b2")):
            queue.submit(JobRequest(key=key, kind="k", caller=key[0]), now=_later(number))
        assert _keys(queue.claim(["k"], _later(9), 30).started) == ["a1", "b1", "a2", "b2", "a3"]

    def test_only_what_is_admitted_starts(self, queue: WholeQueue) -> None:
        for key in "abc":
            queue.submit(JobRequest(key=key, kind="k"), now=NOON)
        claims = queue.claim(["k"], NOON, 30, lambda waiting, _: waiting[1:2])
        assert _keys(claims.started) == ["b"]

    def test_admission_sees_the_running_jobs(self, queue: WholeQueue) -> None:
        _one(queue, "a")
        queue.submit(JobRequest(key="b", kind="k"), now=NOON)
        seen: list[str] = []

        def admit(waiting: Sequence[Job], running: Sequence[Job]) -> Sequence[Job]:
            seen.extend([*_keys(waiting), *_keys(running)])
            return ()

        queue.claim(["k"], NOON, 30, admit)
        assert seen == ["b", "a"]

    def test_jobs_of_one_group_never_run_together(self, queue: WholeQueue) -> None:
        for key, kind in (("a", "k"), ("b", "k"), ("c", "other")):
            queue.submit(JobRequest(key=key, kind=kind, group="g"), now=NOON)
        (first,) = queue.claim(["k", "other"], NOON, 30).started
        assert queue.claim(["k", "other"], NOON, 30).started == ()
        queue.finish(first)
        assert _keys(queue.claim(["k", "other"], NOON, 30).started) == ["b"]

    def test_an_expired_lease_is_claimed_again(self, queue: WholeQueue) -> None:
        _one(queue, "a")
        (again,) = queue.claim(["k"], _later(30), 30).started
        assert again.attempt == 2

    def test_a_stale_attempt_changes_nothing(self, queue: WholeQueue) -> None:
        stale = _one(queue, "a")
        queue.claim(["k"], _later(30), 30)
        before = queue.job("a")
        with pytest.raises(LeaseLost):
            queue.finish(stale)
        with pytest.raises(LeaseLost):
            queue.retry(stale, _later(60), "late")
        with pytest.raises(LeaseLost):
            queue.bury(stale, "late")
        with pytest.raises(LeaseLost):
            queue.extend(stale, _later(90))
        assert before == queue.job("a")

    def test_a_finished_job_cannot_be_settled_again(self, queue: WholeQueue) -> None:
        job = _one(queue, "a")
        queue.finish(job)
        with pytest.raises(LeaseLost):
            queue.finish(job)
        assert Status.DONE is queue.job("a").status

    def test_an_extended_lease_holds(self, queue: WholeQueue) -> None:
        queue.extend(_one(queue, "a"), _later(100))
        assert queue.claim(["k"], _later(99), 30).started == ()
        assert queue.claim(["k"], _later(100), 30).started[0].attempt == 2

    def test_a_late_extension_holds_when_nobody_else_has_claimed(self, queue: WholeQueue) -> None:
        job = _one(queue, "a")
        queue.extend(job, _later(200))
        assert queue.claim(["k"], _later(150), 30).started == ()
        queue.finish(job)

    def test_a_retried_job_waits_and_keeps_its_attempt(self, queue: WholeQueue) -> None:
        queue.retry(_one(queue, "a"), _later(60), "the peer is away")
        assert queue.job("a").reason == "the peer is away"
        assert queue.claim(["k"], _later(59), 30).started == ()
        assert queue.claim(["k"], _later(60), 30).started[0].attempt == 2

    def test_an_attempt_that_is_given_back_is_allowed_once_more(self, queue: WholeQueue) -> None:
        queue.submit(JobRequest(key="a", kind="k", max_attempts=1), now=NOON)
        for number in range(1, 6):
            (job,) = queue.claim(["k"], NOON, 30).started
            assert (number, number) == (job.attempt, job.max_attempts)
            queue.retry(job, NOON, "the disk is full", given_back=1)

    def test_a_job_that_kills_its_worker_every_time_is_buried(self, queue: WholeQueue) -> None:
        queue.submit(JobRequest(key="a", kind="k", max_attempts=2), now=NOON)
        queue.claim(["k"], NOON, 30)
        queue.claim(["k"], _later(30), 30)
        claims = queue.claim(["k"], _later(60), 30)
        assert (_keys(claims.buried), claims.started) == (["a"], ())
        reason = "the worker died or overran its lease 2 times: last at 2026-01-05 12:01:00 UTC"
        assert (Status.BURIED, reason) == (queue.job("a").status, queue.job("a").reason)

    def test_recovery_makes_running_jobs_ready_at_once(self, queue: WholeQueue) -> None:
        _one(queue, "a")
        queue.recover(_later(1))
        assert Status.READY is queue.job("a").status
        assert queue.claim(["k"], _later(1), 30).started[0].attempt == 2

    def test_recovery_of_a_last_attempt_buries(self, queue: WholeQueue) -> None:
        queue.submit(JobRequest(key="a", kind="k", max_attempts=1), now=NOON)
        queue.claim(["k"], NOON, 30)
        queue.recover(_later(1))
        assert _keys(queue.claim(["k"], _later(1), 30).buried) == ["a"]

    def test_a_held_job_waits_for_its_release(self, queue: WholeQueue) -> None:
        queue.submit(JobRequest(key="a", kind="k"), now=NOON)
        queue.hold("a", "the physicist looks at it")
        assert queue.claim(["k"], NOON, 30).started == ()
        queue.release("a")
        assert _keys(queue.claim(["k"], NOON, 30).started) == ["a"]

    def test_a_job_that_waits_for_its_time_can_be_hurried(self, queue: WholeQueue) -> None:
        queue.submit(JobRequest(key="a", kind="k", start_at=_later(60)), now=NOON)
        assert queue.claim(["k"], _later(1), 30).started == ()
        assert [queue.hurry("a", now=_later(1)), queue.hurry("a", now=_later(1))] == [True, False]
        assert _keys(queue.claim(["k"], _later(1), 30).started) == ["a"]
        assert [queue.hurry("a", now=_later(1)), queue.hurry("nosuch", now=_later(1))] == [False, False]

    def test_a_resubmitted_job_goes_on_counting(self, queue: WholeQueue) -> None:
        stale = _one(queue, "a")
        queue.bury(stale, "broken")
        queue.resubmit("a", now=_later(5), attempts=2)
        (again,) = queue.claim(["k"], _later(5), 30).started
        assert (again.attempt, again.max_attempts) == (2, 3)
        with pytest.raises(LeaseLost):
            queue.finish(stale)

    def test_a_cancelled_job_never_starts(self, queue: WholeQueue) -> None:
        queue.submit(JobRequest(key="a", kind="k"), now=NOON)
        queue.cancel("a", "sent by mistake")
        assert (queue.job("a").status, queue.job("a").reason) == (Status.CANCELLED, "sent by mistake")
        assert queue.claim(["k"], NOON, 30).started == ()

    def test_a_running_job_is_neither_held_nor_cancelled(self, queue: WholeQueue) -> None:
        before = _one(queue, "a")
        with pytest.raises(NotAllowed):
            queue.hold("a", "too late")
        with pytest.raises(NotAllowed):
            queue.cancel("a", "too late")
        assert before == queue.job("a")

    def test_an_unknown_key_is_named(self, queue: WholeQueue) -> None:
        with pytest.raises(UnknownJob, match="nosuch"):
            queue.release("nosuch")

    def test_jobs_are_listed_newest_first_by_status(self, queue: WholeQueue) -> None:
        for number, key in enumerate("abc"):
            queue.submit(JobRequest(key=key, kind="k"), now=_later(number))
        queue.hold("b", "wait")
        assert _keys(queue.jobs()) == ["c", "b", "a"]
        assert _keys(queue.jobs([Status.READY], limit=1)) == ["c"]


def _one(queue: WholeQueue, key: str) -> Job:
    queue.submit(JobRequest(key=key, kind="k"), now=NOON)
    return queue.claim(["k"], NOON, 30).started[0]


def _later(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def _keys(jobs: Sequence[Job]) -> list[str]:
    return [job.key for job in jobs]


def _is_ahead(other: Job, job: Job) -> bool:
    same_caller = other.caller is not None and other.caller == job.caller
    return same_caller and other.status is Status.READY and other.priority >= job.priority


def _has_expired(job: Job, now: datetime) -> bool:
    return job.status is Status.RUNNING and job.lease_until is not None and job.lease_until <= now
