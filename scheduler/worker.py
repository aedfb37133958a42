"""How does a job get done? The driver: claims what admission lets in, runs it on an executor, settles the outcome.

The queue is the truth, the executor is muscle. Nothing of a job is published before its commit, and its commit, its
end and the jobs that follow from it are one transaction, in which the attempt's right to publish is checked first.
"""

import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from queue import Empty, SimpleQueue
from random import Random
from typing import Any, Final, Generic, Protocol, TypeVar

import structlog

from scheduler.admission import Machine, admit
from scheduler.database import Database, is_passing, lacks_room
from scheduler.errors import Broke, ExecutorAway, LeaseLost, Permanent, SchedulerError, Transient, Unfinished
from scheduler.executors import Kills
from scheduler.job import Job
from scheduler.queue import Claims, Queue

R = TypeVar("R")
LONGEST_REASON: Final = 500
_Token = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Task(Generic[R]):
    """What the executor runs: a function and arguments, picklable where the executor crosses processes."""

    function: Callable[..., R]
    args: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class Nothing:
    """The job has nothing (left) to do; it ends as done."""

    reason: str


class Handler(Protocol[R]):
    """How one kind of job is done; all three methods run on the driver's thread.

    Raise Permanent where trying again is useless. Transient and every other exception are tried again until the
    attempts are used up.
    """

    def prepare(self, job: Job) -> Task[R] | Nothing:
        """Turn the job's names into a task for the executor, reading what it must; write nothing."""

    def commit(self, job: Job, result: R, connection: sqlite3.Connection) -> None:
        """Publish the result, inside the transaction that also ends the job; submit the jobs that follow from it.

        What a task that raised Unfinished got done is published the same way, and the job goes on.
        """

    def failed(self, job: Job, reason: str, connection: sqlite3.Connection) -> None:
        """Show that the job has failed for good, inside the transaction that buries it."""


class Gate(Protocol):
    """Watches the place that a lane leads to; while that does not answer, its jobs wait together."""

    def room(self, running: int, now: datetime) -> int | None:
        """Return how many more jobs may start; None: as many as the machine takes."""

    def answered(self) -> None:
        """Note that a job's task has reached the place."""

    def unanswered(self, reason: str, *, started_at: datetime, now: datetime) -> datetime | None:
        """Note that a task has not, and return when its job is to try again; None: at the job's own pace.

        An attempt that is given an instant is no fault of the job.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """Kinds of job that share an executor and what they may use of the machine.

    A task that runs longer than `limit_s` is killed, where the executor can, and the attempt has failed. A failure that
    is the job's own doing (its process died, or it raised what is not Transient) is final from attempt `give_up_at` on,
    where there is one: so that interruptions may be outlived many times, and a defect is told soon. `gate` is told how
    each task ended: one that raises Transient has not reached the place that the lane leads to.
    """

    name: str
    executor: Executor
    machine: Machine
    handlers: Mapping[str, Handler[Any]]
    limit_s: float | None = None
    give_up_at: int | None = None
    gate: Gate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often the worker looks, how long a lease lasts, and how long a failed job, or a failed database, waits."""

    poll_s: float = 0.5
    lease_s: float = 30.0
    first_retry_s: float = 2.0
    longest_retry_s: float = 600.0
    longest_away_s: float = 10.0

    def retry_s(self, attempt: int, random: Random) -> float:
        """Double the wait with each attempt up to the longest, then take between half of it and all."""
        wait_s = min(self.first_retry_s * 2.0 ** min(attempt - 1, 32), self.longest_retry_s)
        return wait_s * random.uniform(0.5, 1.0)


class Worker:
    """The one driver of a queue. `start` it, `wake` it after a submit, `stop` it; or call `step` by hand."""

    def __init__(
        self,
        *,
        database: Database,
        queue: Queue,
        lanes: Sequence[Lane],
        now: Callable[[], datetime],
        random: Random,
        pace: Pace | None = None,
    ) -> None:
        """Take the lanes' executors as they are; whoever made them shuts them down after `stop`."""
        self._database = database
        self._queue = queue
        self._lanes = tuple(lanes)
        self._now = now
        self._random = random
        self._pace = pace or Pace()
        self._in_flight: dict[_Token, _Running] = {}
        self._ended: SimpleQueue[_Token] = SimpleQueue()
        self._owed: deque[Callable[[], None]] = deque()
        self._is_away = False
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._abandoning = threading.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ctriage-worker")
        self._loop: Future[None] | None = None
        self._log = structlog.get_logger("scheduler.worker")

    def start(self) -> Future[None]:
        """Recover what an earlier driver left running, then work on a thread of its own.

        The future ends with the loop; it holds the exception when the loop could not go on (a damaged database), and
        then the process should end, for nothing is worked on any more. A full disk is waited out.
        """
        self._queue.recover(self._now())
        self._loop = self._thread.submit(self._run)
        return self._loop

    def wake(self) -> None:
        """Look for work at once; from any thread."""
        self._wake.set()

    def stop(self, timeout_s: float) -> bool:
        """Claim nothing more, wait for what runs, and say whether all of it ended in time.

        What did not end is ready for the next driver, its attempt given back.
        """
        self._stopping.set()
        self._wake.set()
        try:
            if self._loop is not None:
                self._loop.result(timeout=timeout_s)
        except TimeoutError:
            self._abandoning.set()
            self._wake.set()
        finally:
            self._thread.shutdown()
        return self._given_back()

    def step(self) -> int:
        """Do all that can be done now without waiting; returns how many jobs were started or settled.

        While the database takes nothing (a full disk), what it could not be told is kept and tried first at each step.
        """
        if not self._pay_off():
            return 0
        settled = self._settle_ended()
        self._look_after_running()
        started = 0 if self._stopping.is_set() else sum(self._claim(lane) for lane in self._lanes)
        return settled + started

    def _run(self) -> None:
        away_s = self._pace.poll_s
        while not self._abandoning.is_set():
            self._wake.clear()
            moved = self.step()
            if self._stopping.is_set() and not self._in_flight:
                return
            away_s = min(away_s * 2, self._pace.longest_away_s) if self._owed else self._pace.poll_s
            if not moved:
                self._wake.wait(away_s)

    def _pay_off(self) -> bool:
        """Do what the database did not take before, in order; say whether nothing is owed any more."""
        for _ in range(len(self._owed)):
            self._owed.popleft()()
        if self._is_away and not self._owed:
            self._is_away = False
            self._log.info("database takes writes again")
        return not self._owed

    def _owe(self, action: Callable[[], None], error: Exception) -> None:
        if not self._is_away:
            self._is_away = True
            self._log.error("database takes nothing: waiting", reason=str(error))
        self._owed.append(action)

    def _given_back(self) -> bool:
        """Give back the attempts that are stopped with this driver; say whether there were none."""
        left = list(self._in_flight.values())
        for running in left:
            self._guard(
                partial(self._queue.retry, running.job, self._now(), "the service was stopped", given_back=1),
                otherwise=_reraise,
            )
        return not left

    def _claim(self, lane: Lane) -> int:
        if self._owed:
            return 0
        taken: list[int] = []
        self._guard(
            lambda: taken.append(self._take_up(lane, self._claim_and_tell(lane))),
            # A handler that cannot show a failure must not keep the lane from working.
            otherwise=lambda _: taken.append(self._take_up(lane, self._claims(lane))),
        )
        return sum(taken)

    def _claims(self, lane: Lane) -> Claims:
        now = self._now()
        return self._queue.claim(
            lane.handlers.keys(),
            now,
            self._pace.lease_s,
            lambda waiting, running: _admitted(lane, waiting, running, now),
        )

    def _claim_and_tell(self, lane: Lane) -> Claims:
        with self._database.transaction() as connection:
            claims = self._claims(lane)
            for job in claims.buried:
                lane.handlers[job.kind].failed(job, str(job.reason), connection)
        return claims

    def _take_up(self, lane: Lane, claims: Claims) -> int:
        for job in claims.buried:
            self._log.error("job buried", job=job.key, kind=job.kind, attempt=job.attempt, reason=job.reason)
        for job in claims.started:
            self._start(lane, job)
        return len(claims.started)

    def _start(self, lane: Lane, job: Job) -> None:
        self._guard(lambda: self._submit(lane, job), otherwise=lambda error: self._fail(lane, job, error))

    def _submit(self, lane: Lane, job: Job) -> None:
        task = lane.handlers[job.kind].prepare(job)
        if isinstance(task, Nothing):
            self._queue.finish(job)
            self._log.info("job had nothing to do", job=job.key, kind=job.kind, reason=task.reason)
            return
        future = _submitted(lane, task)
        token = (job.key, job.attempt)
        now = self._now()
        self._in_flight[token] = _Running(job=job, lane=lane, future=future, started_at=now, extended_at=now)
        future.add_done_callback(lambda _: self._end(token))

    def _end(self, token: _Token) -> None:
        self._ended.put(token)
        self._wake.set()

    def _settle_ended(self) -> int:
        settled = 0
        while True:
            try:
                running = self._in_flight.pop(self._ended.get_nowait())
            except Empty:
                return settled
            self._settle(running)
            settled += 1

    def _settle(self, running: "_Running") -> None:
        retry_at: list[datetime] = []
        self._guard(lambda: retry_at.extend(self._told(running)), otherwise=_reraise)
        self._guard(
            lambda: self._commit(running),
            otherwise=lambda error: self._fail(running.lane, running.job, error, *retry_at),
        )

    def _told(self, running: "_Running") -> Sequence[datetime]:
        """Tell the lane's gate how a task ended; returns when the job is to try again, where the gate says so."""
        gate, error = running.lane.gate, None if running.future.cancelled() else running.future.exception()
        if gate is None or running.future.cancelled():
            return ()
        if error is None or isinstance(error, Permanent | Unfinished):
            gate.answered()
        if not isinstance(error, Transient) or isinstance(error, ExecutorAway | Broke):
            return ()
        at = gate.unanswered(error.reason, started_at=running.started_at, now=self._now())
        return () if at is None else (at,)

    def _commit(self, running: "_Running") -> None:
        job = running.job
        result = _result(running)
        with self._database.transaction() as connection:
            self._queue.finish(job)  # first: a stale attempt must not publish
            running.lane.handlers[job.kind].commit(job, result, connection)
        self._log.info("job done", job=job.key, kind=job.kind, attempt=job.attempt)

    def _fail(self, lane: Lane, job: Job, error: Exception, retry_at: datetime | None = None) -> None:
        reason = _reason(error)
        if isinstance(error, Unfinished):
            self._guard(lambda: self._go_on(lane, job, error, retry_at), otherwise=_reraise)
        elif retry_at is not None or self._is_no_fault_of_its(error):
            self._try_again(job, reason, given_back=1, at=retry_at)
        elif _is_final(lane, job, error):
            self._guard(
                lambda: self._bury(lane, job, reason),
                otherwise=lambda other: self._queue.bury(job, f"{reason}; and it could not be shown: {_reason(other)}"),
            )
            self._log.error("job buried", job=job.key, kind=job.kind, attempt=job.attempt, reason=reason)
        else:
            self._try_again(job, reason, given_back=0)

    def _is_no_fault_of_its(self, error: Exception) -> bool:
        """Say whether the attempt is not to count; a whole service that is told to stop takes its processes along."""
        stopped = isinstance(error, Broke) and self._stopping.is_set()
        return stopped or isinstance(error, ExecutorAway) or lacks_room(error)

    def _go_on(self, lane: Lane, job: Job, error: Unfinished, retry_at: datetime | None) -> None:
        """Publish what an attempt got done; it does not count as one that failed, and the next comes soon."""
        at = retry_at or self._now() + timedelta(seconds=self._pace.retry_s(1, self._random))
        with self._database.transaction() as connection:
            self._queue.retry(job, at, error.reason, given_back=1)  # first: a stale attempt must not publish
            lane.handlers[job.kind].commit(job, error.result, connection)
        self._log.warning("job goes on", job=job.key, kind=job.kind, attempt=job.attempt, reason=error.reason)

    def _try_again(self, job: Job, reason: str, *, given_back: int, at: datetime | None = None) -> None:
        own_at = self._now() + timedelta(seconds=self._pace.retry_s(job.attempt, self._random))
        self._guard(lambda: self._queue.retry(job, at or own_at, reason, given_back=given_back), otherwise=_reraise)
        self._log.warning("job will be tried again", job=job.key, kind=job.kind, attempt=job.attempt, reason=reason)

    def _bury(self, lane: Lane, job: Job, reason: str) -> None:
        with self._database.transaction() as connection:
            self._queue.bury(job, reason)
            lane.handlers[job.kind].failed(job, reason, connection)

    def _look_after_running(self) -> None:
        now = self._now()
        for token in list(self._in_flight):
            self._kill_if_overdue(token, now)
            self._extend_if_due(token, now)

    def _kill_if_overdue(self, token: _Token, now: datetime) -> None:
        running = self._in_flight[token]
        if running.is_overdue(now) and isinstance(running.lane.executor, Kills):
            running.lane.executor.kill(running.future)
            self._in_flight[token] = replace(running, is_killed=True)

    def _extend_if_due(self, token: _Token, now: datetime) -> None:
        running = self._in_flight[token]
        if now - running.extended_at >= timedelta(seconds=self._pace.lease_s / 3):
            until = now + timedelta(seconds=self._pace.lease_s)
            self._guard(partial(self._queue.extend, running.job, until), otherwise=_reraise)
            self._in_flight[token] = replace(running, extended_at=now)

    def _guard(self, action: Callable[[], None], *, otherwise: Callable[[Exception], None]) -> None:
        try:
            action()
        except LeaseLost as lost:
            self._log.warning("lease lost", job=lost.key, attempt=lost.attempt)
        except Exception as error:  # noqa: BLE001 - the one place: whatever a job raises becomes its outcome
            if is_passing(error):
                self._owe(lambda: self._guard(action, otherwise=otherwise), error)
            else:
                otherwise(error)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Running:
    job: Job
    lane: Lane
    future: Future[Any]
    started_at: datetime
    extended_at: datetime
    is_killed: bool = False

    def is_overdue(self, now: datetime) -> bool:
        limit_s = self.lane.limit_s
        return limit_s is not None and not self.is_killed and now - self.started_at >= timedelta(seconds=limit_s)


def _admitted(lane: Lane, waiting: Sequence[Job], running: Sequence[Job], now: datetime) -> Sequence[Job]:
    room = lane.gate.room(len(running), now) if lane.gate else None
    if room is None:
        return admit(waiting, running, lane.machine, now)
    # Whoever failed least tries the place out: a job that breaks every contact must not be the one that is asked.
    return sorted(waiting, key=lambda job: job.attempt)[:room]


def _submitted(lane: Lane, task: Task[Any]) -> Future[Any]:
    try:
        return lane.executor.submit(task.function, *task.args)
    except (RuntimeError, OSError) as error:
        raise ExecutorAway(f"the executor of lane {lane.name} takes no task: {error}") from error


def _result(running: _Running) -> object:
    if running.future.cancelled():
        raise ExecutorAway(f"the executor of lane {running.lane.name} has lost the task")
    error = running.future.exception()
    if error is None:
        return running.future.result()
    if running.is_killed:
        raise Broke(f"it was stopped after its time limit of {running.lane.limit_s:g} s")
    if isinstance(error, BrokenExecutor):
        raise Broke("the process that ran it died")
    if isinstance(error, Exception):
        raise error
    # SystemExit from a task must not end the driver.
    raise SchedulerError(f"the task raised {type(error).__name__}: {error}")


def _is_final(lane: Lane, job: Job, error: Exception) -> bool:
    if isinstance(error, Permanent) or job.is_exhausted:
        return True
    is_its_own_doing = isinstance(error, Broke) or not isinstance(error, Transient)
    return is_its_own_doing and lane.give_up_at is not None and job.attempt >= lane.give_up_at


def _reason(error: Exception) -> str:
    text = str(error) if isinstance(error, Transient | Permanent) else f"{type(error).__name__}: {error}"
    return text[:LONGEST_REASON]


def _reraise(error: Exception) -> None:
    raise error
