"""Both queues keep the contract; the SQLite one also joins transactions and survives a restart."""

import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.database import Database
from scheduler.errors import LeaseLost
from scheduler.job import TRANSITIONS, Event, Job, JobRequest, Status
from scheduler.queue import Inbox, Queue, QueueDesk
from scheduler.sqlite_queue import WINDOW, SqliteQueue
from scheduler.testing import NOON, MemoryQueue, QueueContract, WholeQueue


class TestMemoryQueue(QueueContract):
    def make_queue(self, folder: Path) -> WholeQueue:
        return MemoryQueue()


class TestSqliteQueue(QueueContract):
    @pytest.fixture(autouse=True)
    def _database(self, tmp_path: Path) -> Iterator[None]:
        self.database = Database(tmp_path / "queue.db")
        yield
        self.database.close()

    def make_queue(self, folder: Path) -> WholeQueue:
        return SqliteQueue(self.database)

    def test_a_rollback_of_the_outer_transaction_unsubmits_the_job(self, queue: WholeQueue) -> None:
        def index_and_submit() -> None:
            with self.database.transaction():
                assert queue.submit(JobRequest(key="a", kind="k"), now=NOON)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            index_and_submit()
        assert list(queue.jobs()) == []

    def test_an_end_and_what_follows_commit_together_or_not_at_all(self, queue: WholeQueue) -> None:
        queue.submit(JobRequest(key="a", kind="k"), now=NOON)
        (job,) = queue.claim(["k"], NOON, 30).started

        def finish_and_follow() -> None:
            with self.database.transaction():
                queue.finish(job)
                queue.submit(JobRequest(key="b", kind="k"), now=NOON)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            finish_and_follow()
        assert [(each.status, each.key) for each in queue.jobs()] == [(Status.RUNNING, "a")]

    def test_jobs_outlive_the_process(self, queue: WholeQueue, tmp_path: Path) -> None:
        queue.submit(JobRequest(key="a", kind="k"), now=NOON)
        (job,) = queue.claim(["k"], NOON, 30).started
        other = Database(tmp_path / "queue.db")
        assert job == SqliteQueue(other).job("a")
        other.close()

    def test_the_database_itself_refuses_two_running_jobs_of_a_group(self, queue: WholeQueue) -> None:
        for key in "ab":
            queue.submit(JobRequest(key=key, kind="k", group="g"), now=NOON)
        queue.claim(["k"], NOON, 30)
        with self.database.transaction() as connection, pytest.raises(sqlite3.IntegrityError):
            connection.execute("update jobs set status = 'running', lease_until = 'x' where key = 'b'")

    def test_a_flood_of_one_group_does_not_hide_the_others(self, queue: WholeQueue) -> None:
        with self.database.transaction():
            for number in range(WINDOW + 5):
                queue.submit(JobRequest(key=f"a{number}", kind="k", group="a", priority=90), now=NOON)
            queue.submit(JobRequest(key="b", kind="k", group="b"), now=NOON)
        queue.claim(["k"], NOON, 30)
        assert [job.key for job in queue.claim(["k"], NOON, 30).started] == ["b"]


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["submit", "claim", "wait", "finish", "retry", "bury", "extend"]),
        st.integers(0, 2),
        st.integers(0, 5),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(actions=ACTIONS)
@pytest.mark.parametrize("kind_of_queue", ["memory", "sqlite"])
def test_no_interleaving_publishes_a_job_twice_or_changes_it_after_its_end(
    kind_of_queue: str, actions: list[tuple[str, int, int]]
) -> None:
    with TemporaryDirectory() as folder:
        database = Database(Path(folder) / "queue.db")
        play = _Play(MemoryQueue() if kind_of_queue == "memory" else SqliteQueue(database))
        for what, key, claim in actions:
            play.act(what, f"job{key}", claim)
            play.check()
        database.close()


class _Play:
    """Workers that act on claims of any age, against a queue."""

    def __init__(self, queue: WholeQueue) -> None:
        self.queue = queue
        self.now = NOON
        self.claims: list[Job] = []
        self.submitted: set[str] = set()
        self.published: list[str] = []
        self.ended: dict[str, Job] = {}

    def act(self, what: str, key: str, claim: int) -> None:
        match what:
            case "submit":
                is_new = self.queue.submit(JobRequest(key=key, kind="k", max_attempts=3), now=self.now)
                assert is_new == (key not in self.submitted)
                self.submitted.add(key)
            case "claim":
                self.claims.extend(self.queue.claim(["k"], self.now, 30).started)
            case "wait":
                self.now += timedelta(seconds=20)
            case _ if claim < len(self.claims):
                with suppress(LeaseLost):
                    self.settle(what, self.claims[-1 - claim])

    def settle(self, what: str, job: Job) -> None:
        match what:
            case "finish":
                self.queue.finish(job)
                self.published.append(job.key)
            case "retry":
                self.queue.retry(job, self.now, "again")
            case "bury":
                self.queue.bury(job, "broken")
            case "extend":
                self.queue.extend(job, self.now + timedelta(seconds=30))

    def check(self) -> None:
        jobs = self.queue.jobs()
        assert self.submitted == {job.key for job in jobs}
        assert len(self.published) == len(set(self.published))
        assert set(self.published) == {job.key for job in jobs if job.status is Status.DONE}
        assert all(job.attempt <= job.max_attempts for job in jobs)
        tokens = [(job.key, job.attempt) for job in self.claims]
        assert len(tokens) == len(set(tokens))
        for job in jobs:
            if job.status in (Status.DONE, Status.BURIED):
                assert job == self.ended.setdefault(job.key, job)


def test_no_transition_leaves_done_or_cancelled() -> None:
    assert not [before for before, _ in TRANSITIONS if before in (Status.DONE, Status.CANCELLED)]


def test_every_event_and_status_is_in_the_table() -> None:
    assert set(Event) == {event for _, event in TRANSITIONS}
    assert set(Status) == {status for status, _ in TRANSITIONS} | set(TRANSITIONS.values())


def test_each_side_of_the_queue_has_at_most_six_methods() -> None:
    for side in (Inbox, Queue, QueueDesk):
        assert len([name for name in vars(side) if not name.startswith("_")]) <= 6


@pytest.mark.parametrize("bad", [{"key": ""}, {"kind": ""}, {"max_attempts": 0}, {"memory_mb": -1}])
def test_a_request_that_exists_is_valid(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="job"):
        JobRequest(**({"key": "a", "kind": "k"} | bad))  # type: ignore[arg-type]


def test_a_payload_holds_json_only() -> None:
    with pytest.raises(TypeError):
        JobRequest(key="a", kind="k", payload={"pixels": object()})
