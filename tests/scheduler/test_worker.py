"""The driver publishes each job once, tries again what may succeed, buries what cannot, and recovers from a crash."""

import errno
import operator
import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
import structlog

from scheduler.admission import Machine
from scheduler.database import Database
from scheduler.errors import Broke, Permanent, Transient
from scheduler.executors import inline, processes, threads
from scheduler.job import Job, JobRequest, Status
from scheduler.sqlite_queue import SqliteQueue
from scheduler.testing import NOON
from scheduler.worker import Lane, Nothing, Pace, Task, Worker

DEADLINE_S = 60.0


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    never = threading.Event()
    while not condition():
        assert time.monotonic() < end, "the condition never came true"
        never.wait(0.002)


def fail(error: BaseException) -> None:
    raise error


def enter(entered: threading.Event, gate: threading.Event) -> None:
    entered.set()
    gate.wait(DEADLINE_S)


class Clock:
    def __init__(self) -> None:
        self.at = NOON

    def __call__(self) -> datetime:
        return self.at

    def passes(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


class Recorder:
    """A handler that runs the task named by the job's key, and publishes into a table."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task[object] | Nothing] = {}
        self.error_in_prepare: Exception | None = None
        self.error_in_commit: Exception | None = None
        self.error_in_failed: Exception | None = None
        self.prepared: list[str] = []

    def prepare(self, job: Job) -> Task[object] | Nothing:
        self.prepared.append(job.key)
        if self.error_in_prepare is not None:
            raise self.error_in_prepare
        return self.tasks[job.key]

    def commit(self, job: Job, result: object, connection: sqlite3.Connection) -> None:
        connection.execute("insert into outcome values (?, ?)", (job.key, str(result)))
        if self.error_in_commit is not None:
            raise self.error_in_commit

    def failed(self, job: Job, reason: str, connection: sqlite3.Connection) -> None:
        connection.execute("insert into outcome values (?, ?)", (job.key, f"failed: {reason}"))
        if self.error_in_failed is not None:
            raise self.error_in_failed


class House:
    """A database, a queue, one handler and the workers made over them."""

    def __init__(self, folder: Path, database: Database | None = None) -> None:
        self.database = database or Database(folder / "house.db")
        self.queue = SqliteQueue(self.database)
        self.clock = Clock()
        self.handler = Recorder()
        with self.database.transaction() as connection:
            connection.execute("create table outcome (key text, result text)")

    def worker(
        self,
        executor: Executor,
        *,
        limit_s: float | None = None,
        now: Callable[[], datetime] | None = None,
        give_up_at: int | None = None,
    ) -> Worker:
        lane = Lane(
            name="cpu",
            executor=executor,
            machine=Machine(memory_mb=1000, slots=2),
            handlers={"k": self.handler},
            limit_s=limit_s,
            give_up_at=give_up_at,
        )
        return Worker(
            database=self.database,
            queue=self.queue,
            lanes=[lane],
            now=now or self.clock,
            random=Random(0),
            pace=Pace(first_retry_s=0.01 if now else 2.0),
        )

    def submit(self, key: str, task: Task[object] | Nothing, *, max_attempts: int = 3) -> None:
        self.handler.tasks[key] = task
        self.queue.submit(JobRequest(key=key, kind="k", max_attempts=max_attempts), now=self.clock())

    def status(self, key: str) -> Status:
        return self.queue.job(key).status

    def outcomes(self) -> list[tuple[str, str]]:
        with self.database.read() as connection:
            return [(row["key"], row["result"]) for row in connection.execute("select * from outcome order by rowid")]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.database.close()


def run_out(worker: Worker) -> None:
    while worker.step():
        pass


def test_a_job_is_run_and_published_with_its_end(house: House) -> None:
    house.submit("a", Task(operator.add, (2, 3)))
    run_out(house.worker(inline()))
    assert (house.status("a"), house.outcomes()) == (Status.DONE, [("a", "5")])


def test_a_job_with_nothing_to_do_is_done(house: House) -> None:
    house.submit("a", Nothing("a newer version is under way"))
    run_out(house.worker(inline()))
    assert (house.status("a"), house.outcomes()) == (Status.DONE, [])


def test_a_permanent_failure_is_buried_and_shown(house: House) -> None:
    house.submit("a", Task(fail, (Permanent("no such peer"),)))
    run_out(house.worker(inline()))
    assert (house.status("a"), house.queue.job("a").reason) == (Status.BURIED, "no such peer")
    assert house.outcomes() == [("a", "failed: no such peer")]


def test_a_transient_failure_waits_longer_each_time(house: House) -> None:
    house.submit("a", Task(fail, (Transient("the peer is away"),)), max_attempts=9)
    worker = house.worker(inline())
    waits_s = []
    for _ in range(5):
        run_out(worker)
        job = house.queue.job("a")
        assert (job.status, job.reason) == (Status.READY, "the peer is away")
        waits_s.append((job.next_at - house.clock()).total_seconds())
        house.clock.passes(waits_s[-1])
    for attempt, wait_s in enumerate(waits_s):
        assert 2.0**attempt <= wait_s <= 2.0 ** (attempt + 1)


def test_the_longest_wait_holds_for_any_number_of_attempts() -> None:
    assert 300 <= Pace().retry_s(100_000, Random(0)) <= 600


@pytest.mark.parametrize("error", [ValueError("odd slices"), SystemExit(3), Transient("away")])
def test_any_failure_is_tried_until_the_attempts_are_used_up(house: House, error: BaseException) -> None:
    house.submit("a", Task(fail, (error,)), max_attempts=2)
    with threads(1) as executor:
        worker = house.worker(executor)
        wait_until(lambda: worker.step() == 0 and house.status("a") is Status.READY)
        house.clock.passes(600)
        wait_until(lambda: worker.step() == 0 and house.status("a") is Status.BURIED)
    assert house.queue.job("a").attempt == 2
    assert str(error) in str(house.queue.job("a").reason)


def test_a_failure_in_prepare_counts_as_the_jobs(house: House) -> None:
    house.submit("a", Task(operator.add, (2, 3)))
    house.handler.error_in_prepare = Permanent("the study is gone")
    run_out(house.worker(inline()))
    assert (house.status("a"), house.queue.job("a").reason) == (Status.BURIED, "the study is gone")


def test_a_failure_in_commit_publishes_nothing(house: House) -> None:
    house.submit("a", Task(operator.add, (2, 3)))
    house.handler.error_in_commit = ValueError("no room")
    worker = house.worker(inline())
    run_out(worker)
    assert (house.status("a"), house.outcomes()) == (Status.READY, [])
    house.handler.error_in_commit = None
    house.clock.passes(600)
    run_out(worker)
    assert (house.status("a"), house.outcomes()) == (Status.DONE, [("a", "5")])


def test_a_handler_that_cannot_show_a_failure_does_not_stop_the_others(house: House) -> None:
    house.submit("a", Task(fail, (Permanent("broken"),)))
    house.submit("b", Task(operator.add, (2, 3)))
    house.handler.error_in_failed = KeyError("study")
    run_out(house.worker(inline()))
    assert (house.status("a"), house.status("b")) == (Status.BURIED, Status.DONE)
    assert house.queue.job("a").reason == "broken; and it could not be shown: KeyError: 'study'"


def test_a_lease_is_extended_while_the_task_runs(house: House) -> None:
    gate = threading.Event()
    house.submit("a", Task(gate.wait, (DEADLINE_S,)))
    with threads(1) as executor:
        worker = house.worker(executor)
        for _ in range(20):
            worker.step()
            house.clock.passes(10)
        gate.set()
        wait_until(lambda: worker.step() == 0 and house.status("a") is Status.DONE)
    assert house.queue.job("a").attempt == 1


def test_a_stale_attempt_publishes_nothing(house: House) -> None:
    gate = threading.Event()
    house.submit("a", Task(gate.wait, (DEADLINE_S,)))
    with threads(1) as executor:
        sleeper = house.worker(executor)
        sleeper.step()
        house.clock.passes(31)
        house.handler.tasks["a"] = Task(operator.add, (2, 3))
        run_out(house.worker(inline()))
        gate.set()
        wait_until(lambda: sleeper.step() > 0)
    assert (house.status("a"), house.outcomes()) == (Status.DONE, [("a", "5")])


def test_a_job_whose_worker_died_on_its_last_attempt_is_buried_and_shown(house: House) -> None:
    house.submit("a", Task(operator.add, (2, 3)), max_attempts=1)
    house.queue.claim(["k"], house.clock(), 30)
    house.clock.passes(30)
    run_out(house.worker(inline()))
    assert house.status("a") is Status.BURIED
    assert house.outcomes()[0][1].startswith("failed: the worker died or overran its lease 1 times: last at ")


def test_such_a_job_is_buried_even_when_it_cannot_be_shown(house: House) -> None:
    house.handler.error_in_failed = KeyError("study")
    house.submit("a", Task(operator.add, (2, 3)), max_attempts=1)
    house.queue.claim(["k"], house.clock(), 30)
    house.clock.passes(30)
    house.submit("b", Task(operator.add, (2, 3)))
    run_out(house.worker(inline()))
    assert (house.status("a"), house.status("b")) == (Status.BURIED, Status.DONE)


def test_a_restarted_driver_takes_up_what_the_last_one_left(house: House) -> None:
    house.submit("a", Task(operator.add, (2, 3)))
    house.queue.claim(["k"], house.clock(), 3600)
    worker = house.worker(inline())
    worker.start()
    wait_until(lambda: house.status("a") is Status.DONE)
    assert worker.stop(DEADLINE_S)
    assert (house.queue.job("a").attempt, house.outcomes()) == (2, [("a", "5")])


def test_a_woken_worker_starts_a_job_within_50_ms(house: House) -> None:
    worker = house.worker(threads(1))
    worker.start()
    waits_s = []
    for number in range(7):
        started = threading.Event()
        house.submit(f"job{number}", Task(started.set))
        before = time.perf_counter()
        worker.wake()
        assert started.wait(DEADLINE_S)
        waits_s.append(time.perf_counter() - before)
        wait_until(lambda key=f"job{number}": house.status(key) is Status.DONE)  # type: ignore[misc]
    assert worker.stop(DEADLINE_S)
    assert sorted(waits_s)[3] < 0.05


def test_a_stopping_worker_ends_what_runs_and_claims_nothing_more(house: House) -> None:
    entered, gate = threading.Event(), threading.Event()
    house.submit("a", Task(enter, (entered, gate)))
    with threads(2) as executor, threads(1) as other:
        worker = house.worker(executor)
        worker.start()
        assert entered.wait(DEADLINE_S)
        stopped = other.submit(worker.stop, DEADLINE_S)
        wait_until(worker._stopping.is_set)
        house.submit("b", Task(operator.add, (2, 3)))
        gate.set()
        assert stopped.result()
    assert (house.status("a"), house.status("b")) == (Status.DONE, Status.READY)


def test_a_worker_that_cannot_wait_leaves_the_job_to_the_next_driver(house: House) -> None:
    entered, gate = threading.Event(), threading.Event()
    house.submit("a", Task(enter, (entered, gate)))
    with threads(1) as executor:
        worker = house.worker(executor)
        worker.start()
        assert entered.wait(DEADLINE_S)
        assert not worker.stop(timeout_s=0.01)
        gate.set()
    assert (house.status("a"), house.outcomes()) == (Status.READY, [])


def test_any_number_of_orderly_stops_uses_up_no_attempt(house: House) -> None:
    house.submit("a", Task(operator.add, (2, 3)), max_attempts=1)
    quick, gate = house.handler.tasks["a"], threading.Event()
    for _ in range(4):
        entered = threading.Event()
        house.handler.tasks["a"] = Task(enter, (entered, gate))
        with threads(1) as executor:
            worker = house.worker(executor)
            worker.start()
            assert entered.wait(DEADLINE_S)
            assert not worker.stop(timeout_s=0.01)
            gate.set()
        gate.clear()
    house.handler.tasks["a"] = quick
    run_out(house.worker(inline()))
    assert (house.status("a"), house.outcomes()) == (Status.DONE, [("a", "5")])


@pytest.mark.parametrize("interruptions", range(1, 10))
def test_a_job_outlives_interruptions_up_to_its_attempts(house: House, interruptions: int) -> None:
    house.submit("a", Task(operator.add, (2, 3)), max_attempts=10)
    for _ in range(interruptions):
        house.queue.claim(["k"], house.clock(), 30)
        house.queue.recover(house.clock())
    run_out(house.worker(inline(), give_up_at=3))
    assert house.status("a") is Status.DONE


@pytest.mark.parametrize("error", [ValueError("odd slices"), Broke("the process that ran it died")])
def test_a_jobs_own_doing_is_final_sooner_than_an_interruption(house: House, error: Exception) -> None:
    house.submit("a", Task(fail, (error,)), max_attempts=10)
    for _ in range(9):
        run_out(house.worker(inline(), give_up_at=3))
        house.clock.passes(600)
    assert (house.status("a"), house.queue.job("a").attempt) == (Status.BURIED, 3)


# ---- a full disk ----------------------------------------------------------------------------------------------------


class FullDisk(Database):
    """A database that takes nothing while `is_full`."""

    is_full = False

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Refuse as SQLite does."""
        if self.is_full:
            raise sqlite3.OperationalError("database or disk is full")
        with super().transaction() as connection:
            yield connection


@pytest.fixture
def full(tmp_path: Path) -> Iterator[tuple[House, FullDisk]]:
    disk = FullDisk(tmp_path / "house.db")
    house = House(tmp_path, disk)
    yield house, disk
    disk.close()


def test_what_ended_while_the_disk_was_full_is_published_once_there_is_room(full: tuple[House, FullDisk]) -> None:
    house, disk = full
    house.submit("a", Task(setattr, (disk, "is_full", True)))
    house.submit("b", Task(fail, (ValueError("odd slices"),)))
    worker = house.worker(inline())
    with structlog.testing.capture_logs() as said:
        for _ in range(5):
            run_out(worker)
            house.clock.passes(60)
        assert (house.status("a"), house.status("b")) == (Status.RUNNING, Status.RUNNING)
        disk.is_full = False
        run_out(worker)
    assert (house.status("a"), house.status("b")) == (Status.DONE, Status.READY)
    assert ([("a", "None")], 1) == (house.outcomes(), house.queue.job("a").attempt)
    told = [each["event"] for each in said if each["event"].startswith("database")]
    assert ["database takes nothing: waiting", "database takes writes again"] == told


def test_the_loop_waits_for_room_and_goes_on(full: tuple[House, FullDisk]) -> None:
    house, disk = full
    house.submit("a", Task(operator.add, (2, 3)))
    worker = house.worker(inline())
    disk.is_full = True
    loop = worker._thread.submit(worker._run)
    wait_until(lambda: worker._is_away)
    assert not loop.done()
    disk.is_full = False
    wait_until(lambda: house.status("a") is Status.DONE)
    assert worker.stop(DEADLINE_S)


def test_a_full_disk_under_a_task_uses_up_no_attempt(house: House) -> None:
    house.submit("a", Task(fail, (OSError(errno.ENOSPC, "No space left on device"),)), max_attempts=1)
    worker = house.worker(inline())
    for _ in range(5):
        run_out(worker)
        assert house.status("a") is Status.READY
        house.clock.passes(600)
    house.handler.tasks["a"] = Task(operator.add, (2, 3))
    run_out(worker)
    assert house.outcomes() == [("a", "5")]


def test_a_loop_that_cannot_go_on_says_so(house: House) -> None:
    worker = house.worker(inline())
    with house.database.transaction() as connection:
        connection.execute("alter table jobs rename column place_at to gone")
    with pytest.raises(sqlite3.OperationalError):
        worker.start().result(DEADLINE_S)
    with pytest.raises(sqlite3.OperationalError):
        worker.stop(DEADLINE_S)


def test_a_job_outlasts_an_executor_that_is_away(house: House) -> None:
    house.submit("a", Task(operator.add, (2, 3)), max_attempts=1)
    with threads(1) as executor:
        pass
    worker = house.worker(executor)
    for _ in range(3):
        run_out(worker)
        assert (house.status("a"), house.outcomes()) == (Status.READY, [])
        house.clock.passes(600)
    run_out(house.worker(inline()))
    assert house.outcomes() == [("a", "5")]


def test_a_task_that_the_executor_loses_is_not_held_against_the_job(house: House) -> None:
    gate = threading.Event()
    with threads(1) as executor:
        busy = executor.submit(gate.wait, DEADLINE_S)
        house.submit("a", Task(operator.add, (2, 3)), max_attempts=1)
        worker = house.worker(executor)
        worker.step()
        executor.shutdown(wait=False, cancel_futures=True)
        wait_until(lambda: worker.step() > 0)
        gate.set()
        assert busy.result()
    assert house.status("a") is Status.READY


def real_now() -> datetime:
    return datetime.now(UTC)


def test_a_task_that_takes_its_process_down_is_buried_while_others_go_on(house: House) -> None:
    house.submit("dying", Task(os._exit, (1,)), max_attempts=3)
    for number in range(6):
        house.submit(f"fine{number}", Task(pow, (number, 2)))
    with processes(2) as executor:
        worker = house.worker(executor, now=real_now)
        worker.start()
        wait_until(lambda: house.status("dying") is Status.BURIED)
        wait_until(lambda: all(house.status(f"fine{number}") is Status.DONE for number in range(6)))
        assert worker.stop(DEADLINE_S)
    assert (house.queue.job("dying").attempt, house.queue.job("dying").reason) == (3, "the process that ran it died")
    assert all(house.queue.job(f"fine{number}").attempt == 1 for number in range(6))
    expected = {(f"fine{number}", str(number**2)) for number in range(6)}
    assert expected | {("dying", "failed: the process that ran it died")} == set(house.outcomes())


def test_a_task_over_its_time_limit_is_killed_and_buried(house: House) -> None:
    house.submit("hanging", Task(signal.pause), max_attempts=1)
    with processes(1) as executor:
        worker = house.worker(executor, limit_s=60)
        worker.step()
        house.clock.passes(60)
        wait_until(lambda: worker.step() == 0 and house.status("hanging") is Status.BURIED)
    assert house.queue.job("hanging").reason == "it was stopped after its time limit of 60 s"


def test_a_task_that_cannot_be_pickled_fails_as_a_job(house: House) -> None:
    house.submit("a", Task(lambda: None), max_attempts=1)
    with processes(1) as executor:
        worker = house.worker(executor)
        wait_until(lambda: worker.step() == 0 and house.status("a") is Status.BURIED)
    assert "pickle" in str(house.queue.job("a").reason).lower()


def test_a_task_that_exits_politely_does_not_end_the_driver(house: House) -> None:
    house.submit("a", Task(sys.exit, (3,)), max_attempts=1)
    with processes(1) as executor:
        worker = house.worker(executor)
        wait_until(lambda: worker.step() == 0 and house.status("a") is Status.BURIED)
    assert house.queue.job("a").reason == "SchedulerError: the task raised SystemExit: 3"
