"""How does the queue live in one SQLite table, so that a job commits together with what it is about?"""

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from scheduler.admission import place_at
from scheduler.database import Database, migrate, statements
from scheduler.errors import LeaseLost, UnknownJob
from scheduler.job import Event, Job, JobRequest, Status, after, opened, worker_died
from scheduler.queue import Admit, Claims, everything

WINDOW: Final = 256
"""How many jobs at the head of the line one claim looks at."""


class SqliteQueue:
    """Implements Inbox, Queue and QueueDesk; every method joins the transaction that is open on its thread."""

    def __init__(self, database: Database) -> None:
        """Bring the table up to date."""
        migrate(database, "scheduler", "sql/migrations")
        self._database = database
        self._sql = statements("scheduler", "sql/queue.sql")

    def submit(self, request: JobRequest, *, now: datetime) -> bool:
        """See Inbox."""
        job = opened(request, now=now, place_at=now)
        with self._database.transaction() as connection:
            of_caller = {"caller": job.caller, "priority": job.priority}
            ahead = connection.execute(self._sql["ahead"], of_caller).fetchone()["ahead"]
            job = replace(job, place_at=place_at(created_at=now, priority=job.priority, ahead=ahead))
            return connection.execute(self._sql["submit"], _row(job)).rowcount == 1

    def claim(self, kinds: Collection[str], now: datetime, lease_s: float, admit: Admit = everything) -> Claims:
        """See Queue."""
        where = {"kinds": json.dumps(sorted(kinds)), "now": _text(now), "window": WINDOW}
        lease_until = now + timedelta(seconds=lease_s)
        with self._database.transaction() as connection:
            buried = self._end_expired(connection, where, now)
            waiting = [_job(row) for row in connection.execute(self._sql["waiting"], where)]
            running = [_job(row) for row in connection.execute(self._sql["running"], where)]
            chosen = admit(waiting, running) if waiting else ()
            started = [self._start(connection, job, lease_until) for job in chosen]
        return Claims(started=tuple(job for job in started if job is not None), buried=tuple(buried))

    def extend(self, job: Job, until: datetime) -> None:
        """See Queue."""
        self._settle(job, Event.EXTEND, lease_until=until)

    def finish(self, job: Job) -> None:
        """See Queue."""
        self._settle(job, Event.FINISH)

    def retry(self, job: Job, at: datetime, reason: str, *, given_back: int = 0) -> None:
        """See Queue."""
        self._settle(replace(job, max_attempts=job.max_attempts + given_back), Event.RETRY, next_at=at, reason=reason)

    def bury(self, job: Job, reason: str) -> None:
        """See Queue."""
        self._settle(job, Event.BURY, reason=reason)

    def recover(self, now: datetime) -> None:
        """See Queue."""
        ready = after(Status.RUNNING, Event.EXPIRE)
        with self._database.transaction() as connection:
            connection.execute(self._sql["recover"], {"status": ready, "now": _text(now)})
            connection.execute(self._sql["recover_exhausted"], {"now": _text(now)})

    def jobs(self, statuses: Collection[Status] = tuple(Status), *, limit: int | None = None) -> Sequence[Job]:
        """See QueueDesk."""
        where = {"statuses": json.dumps(sorted(statuses)), "limit": -1 if limit is None else limit}
        with self._database.read() as connection:
            return [_job(row) for row in connection.execute(self._sql["jobs"], where)]

    def job(self, key: str) -> Job:
        """See QueueDesk."""
        with self._database.read() as connection:
            row = connection.execute(self._sql["job"], {"key": key}).fetchone()
        if row is None:
            raise UnknownJob(key)
        return _job(row)

    def hold(self, key: str, reason: str) -> None:
        """See QueueDesk."""
        with self._database.transaction():
            self._move(replace(self.job(key), reason=reason), Event.HOLD)

    def release(self, key: str) -> None:
        """See QueueDesk."""
        with self._database.transaction():
            self._move(replace(self.job(key), reason=None), Event.RELEASE)

    def hurry(self, key: str, *, now: datetime) -> bool:
        """See Inbox."""
        with self._database.transaction() as connection:
            return connection.execute(self._sql["hurry"], {"key": key, "now": _text(now)}).fetchone() is not None

    def resubmit(self, key: str, *, now: datetime, attempts: int = 3) -> None:
        """See QueueDesk."""
        with self._database.transaction():
            job = self.job(key)
            self._move(replace(job, next_at=now, max_attempts=job.attempt + attempts), Event.RESUBMIT)

    def cancel(self, key: str, reason: str) -> None:
        """See QueueDesk."""
        with self._database.transaction():
            self._move(replace(self.job(key), reason=reason), Event.CANCEL)

    def _end_expired(self, connection: sqlite3.Connection, where: Mapping[str, object], now: datetime) -> list[Job]:
        expired = [_job(row) for row in connection.execute(self._sql["expired"], where)]
        exhausted = [replace(job, reason=worker_died(job)) for job in expired if job.is_exhausted]
        for job in exhausted:
            self._settle(job, Event.BURY, reason=job.reason)
        for job in expired:
            if not job.is_exhausted:
                self._settle(job, Event.EXPIRE, next_at=now, reason=worker_died(job))
        return [replace(job, status=Status.BURIED, lease_until=None) for job in exhausted]

    def _start(self, connection: sqlite3.Connection, job: Job, lease_until: datetime) -> Job | None:
        change = {"key": job.key, "status": after(job.status, Event.CLAIM), "lease_until": _text(lease_until)}
        row = connection.execute(self._sql["claim"], change).fetchone()
        return None if row is None else _job(row)

    def _settle(
        self,
        job: Job,
        event: Event,
        *,
        next_at: datetime | None = None,
        lease_until: datetime | None = None,
        reason: str | None = None,
    ) -> None:
        change = {
            "key": job.key,
            "attempt": job.attempt,
            "max_attempts": job.max_attempts,
            "status": after(Status.RUNNING, event),
            "next_at": _text(next_at),
            "lease_until": _text(lease_until),
            "reason": reason,
        }
        with self._database.transaction() as connection:
            if connection.execute(self._sql["settle"], change).fetchone() is None:
                raise LeaseLost(job.key, job.attempt)

    def _move(self, job: Job, event: Event) -> None:
        change = _row(job) | {"before": job.status, "status": after(job.status, event)}
        with self._database.transaction() as connection:
            connection.execute(self._sql["move"], change)


_INSTANTS: Final = ("created_at", "place_at", "next_at", "lease_until")


def _row(job: Job) -> dict[str, object]:
    instants = {name: _text(getattr(job, name)) for name in _INSTANTS}
    return asdict(job) | instants | {"payload": json.dumps(job.payload, sort_keys=True)}


def _job(row: sqlite3.Row) -> Job:
    instants = {name: _instant(row[name]) for name in _INSTANTS}
    known = {"status": Status(row["status"]), "payload": json.loads(row["payload"])}
    return Job(**(dict(row) | instants | known))


def _text(instant: datetime | None) -> str | None:
    # One width and one zone, so that text sorts as time does.
    return None if instant is None else instant.astimezone(UTC).isoformat(timespec="microseconds")


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
