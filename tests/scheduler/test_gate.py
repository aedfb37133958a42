"""Do the jobs of a lane wait together while the place that it leads to does not answer, and all flow again after?"""

import sqlite3
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from scheduler.admission import Machine
from scheduler.contact import IN_CONTACT, Contact, failed, room
from scheduler.database import Database
from scheduler.errors import Permanent, Transient, Unfinished
from scheduler.executors import inline
from scheduler.job import Job, JobRequest, Status
from scheduler.sqlite_queue import SqliteQueue
from scheduler.testing import NOON
from scheduler.worker import Lane, Nothing, Task, Worker


class Place:
    """A gate over a contact that is kept in memory."""

    def __init__(self) -> None:
        self.contact = IN_CONTACT

    def room(self, running: int, now: datetime) -> int | None:
        return room(self.contact, running=running, now=now)

    def answered(self) -> None:
        self.contact = IN_CONTACT

    def unanswered(self, reason: str, *, started_at: datetime, now: datetime) -> datetime | None:
        self.contact = failed(self.contact, reason, started_at=started_at, now=now, random=Random(0))
        return self.contact.next_at if self.contact.is_away else None


class House:
    """One lane to a place; ``does`` says what becomes of a job that gets there."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(folder / "house.db")
        self.queue = SqliteQueue(self.database)
        self.place = Place()
        self.now = NOON
        self.does: Callable[[str], object] = lambda key: key
        self.went: list[str] = []
        self.published: list[object] = []
        lane = Lane(
            name="pacs",
            executor=inline(),
            machine=Machine(memory_mb=1000, slots=4),
            handlers={"k": self},
            gate=self.place,
        )
        self.worker = Worker(
            database=self.database, queue=self.queue, lanes=[lane], now=lambda: self.now, random=Random(0)
        )

    def submit(self, *keys: str) -> None:
        for key in keys:
            self.queue.submit(JobRequest(key=key, kind="k", max_attempts=3), now=self.now)

    def passes(self, seconds: float) -> list[str]:
        """Let time pass and the worker do what it can; returns which jobs went to the place."""
        self.now += timedelta(seconds=seconds)
        self.went.clear()
        while self.worker.step():
            pass
        return list(self.went)

    def status(self, key: str) -> Status:
        return self.queue.job(key).status

    def prepare(self, job: Job) -> Task[object] | Nothing:
        return Task(self._go, (job.key,))

    def commit(self, job: Job, result: object, connection: sqlite3.Connection) -> None:
        self.published.append(result)

    def failed(self, job: Job, reason: str, connection: sqlite3.Connection) -> None:
        self.published.append(reason)

    def _go(self, key: str) -> object:
        self.went.append(key)
        return self.does(key)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.database.close()


def nobody(key: str) -> object:
    raise Transient(f"nobody there for {key}")


def test_everybody_waits_for_one_who_tries_and_then_all_flow(house: House) -> None:
    house.does = nobody
    house.submit("a", "b", "c", "d", "e", "f")
    assert 4 == len(house.passes(0))
    assert [] == house.passes(0.5)
    assert 1 == len(house.passes(3))
    assert [] == house.passes(0.5)
    house.does = lambda key: key
    assert 6 == len(house.passes(300))
    assert {Status.DONE} == {house.status(key) for key in "abcdef"}


def test_a_place_that_is_away_for_days_exhausts_nobody(house: House) -> None:
    house.does = nobody
    house.submit("a")
    tries = sum(len(house.passes(60)) for _ in range(3 * 24 * 60))
    assert tries > 1000
    assert Status.READY is house.status("a")
    house.does = lambda key: key
    assert ["a"] == house.passes(121)


def test_one_job_that_breaks_every_contact_slows_nobody_else_and_is_buried(house: House) -> None:
    house.does = lambda key: nobody(key) if key == "bad" else key
    house.submit("bad")
    house.passes(0)
    for n in range(20):
        house.submit(f"good {n}")
        house.passes(3)
    assert {Status.DONE} == {house.status(f"good {n}") for n in range(20)}
    assert Status.BURIED is house.status("bad")


def test_what_an_attempt_got_done_is_published_and_the_rest_tried_again(house: House) -> None:
    parts = iter([Unfinished("cut off", "half"), Unfinished("cut off", "more"), Unfinished("cut off", "more"), None])

    def go(_key: str) -> object:
        part = next(parts)
        if part is not None:
            raise part
        return "end"

    house.does = go
    house.submit("a")
    for _ in range(8):
        house.passes(3)
    assert ["half", "more", "more", "end"] == house.published
    assert Status.DONE is house.status("a")


def test_a_refusal_is_an_answer(house: House) -> None:
    def refuse(_key: str) -> object:
        raise Permanent("no such class here")

    house.place.contact = Contact(failures=5, since=NOON, next_at=NOON, reason="away")
    house.does = refuse
    house.submit("a", "b")
    assert 2 == len(house.passes(1))
    assert (Status.BURIED, IN_CONTACT) == (house.status("a"), house.place.contact)
