"""How does an administrator's decision (to accept a conflict, to try again what was given up) take effect?

While the service runs or when it is stopped.

Writes to the index and the queue in one transaction. Opening an Archive is left to the service: that clears away what
is half-received.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from pacs_bridge.errors import UnknownConflict
from pacs_bridge.status import require, uid_of
from scheduler.database import Database, statements
from scheduler.job import Status
from scheduler.sqlite_queue import SqliteQueue


def accept(database: Path, conflict_id: int, *, now: datetime) -> str:
    """Close a conflict and let go what it held back; returns the Study Instance UID.

    The study's jobs are released once no second patient stands against it. Raises UnknownConflict, NoState.
    """
    with _opened(database) as opened:
        return _accept(opened, conflict_id, now)


def retry(database: Path, key: str | None, *, now: datetime) -> Sequence[str]:
    """Bring back the buried jobs of the study with this key, or of all; returns the jobs' keys, the oldest first.

    Raises UnknownStudy, NoState.
    """
    with _opened(database) as opened:
        queue = SqliteQueue(opened)
        with opened.transaction() as connection:
            study = {"study_instance_uid": None if key is None else uid_of(connection, key)}
            buried = connection.execute(statements("pacs_bridge", "sql/ledger.sql")["buried_jobs"], study).fetchall()
            for row in buried:
                queue.resubmit(row["key"], now=now)
    return [str(row["key"]) for row in buried]


@contextmanager
def _opened(database: Path) -> Iterator[Database]:
    require(database)
    opened = Database(database)
    try:
        yield opened
    finally:
        opened.close()


def _accept(database: Database, conflict_id: int, now: datetime) -> str:
    sql = statements("pacs_bridge", "sql/archive.sql")
    queue = SqliteQueue(database)
    with database.transaction() as connection:
        study = _close(connection, sql["accept_conflict"], {"id": conflict_id, "accepted_at": now.isoformat()})
        still_open = connection.execute(sql["open_conflicts"], {"study_instance_uid": study}).fetchall()
        if not any(conflict["kind"] == "patient" for conflict in still_open):
            for job in queue.jobs((Status.HELD,)):
                if job.payload.get("study_instance_uid") == study:
                    queue.release(job.key)
    return study


def _close(connection: sqlite3.Connection, statement: str, row: dict[str, Any]) -> str:
    closed = connection.execute(statement, row).fetchone()
    if closed is None:
        raise UnknownConflict(row["id"])
    return str(closed["study_instance_uid"])
