"""How does every package keep its tables in one SQLite file: connections, transactions, statements, migrations?"""

import errno
import re
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from types import MappingProxyType
from typing import Final

from scheduler.errors import SchedulerError

BUSY_TIMEOUT_S: Final = 30.0
CHECKPOINT_EVERY_PAGES: Final = 4000


class Database:
    """One SQLite file (WAL, synchronous=FULL, foreign keys on), with one connection per thread.

    A thread's connection is closed when the thread ends, all others by `close`.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, and make it if need be; its folder must exist."""
        self._path = path
        self._of_this_thread = threading.local()
        self._opened: weakref.WeakSet[_Opened] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._closed = False
        # Kept in the file. Set once here, since switching a new file over ignores the busy timeout.
        self._connection().execute("pragma journal_mode = wal")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the write lock: commit at the end, roll back when an exception passes.

        On a thread whose transaction is already open this joins it: what is written here is committed or rolled back
        with the outer one, and an exception that the outer one survives undoes only what was written here.
        """
        connection = self._connection()
        if connection.in_transaction:
            begin, commit, undo = "savepoint joined", "release joined", "rollback to joined; release joined"
        else:
            begin, commit, undo = "begin immediate", "commit", "rollback"
        connection.execute(begin)
        try:
            yield connection
            connection.execute(commit)
        except BaseException:
            _undo(connection, undo)
            raise

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Read without a lock; inside this thread's open transaction its own writes are seen."""
        yield self._connection()

    def close(self) -> None:
        """Close every thread's connection; the threads that used them must have stopped using them."""
        with self._lock:
            self._closed = True
            opened = list(self._opened)
        for each in opened:
            each.close()

    def _connection(self) -> sqlite3.Connection:
        opened: _Opened | None = getattr(self._of_this_thread, "opened", None)
        if opened is None or self._closed:
            opened = self._of_this_thread.opened = self._open()
        return opened.connection

    def _open(self) -> "_Opened":
        with self._lock:
            if self._closed:
                raise SchedulerError(f"the database {self._path.name} is closed: nothing may use it after close()")
            opened = _Opened(self._path)
            self._opened.add(opened)
            return opened


def is_passing(error: BaseException) -> bool:
    """Say whether the database may work again without anybody mending code: a full disk, a lock, an I/O error."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_FULL)
    return isinstance(error, sqlite3.OperationalError) and code & 0xFF != sqlite3.SQLITE_ERROR


def lacks_room(error: BaseException) -> bool:
    """Say whether a write failed since the disk, or what this user may have of it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def statements(package: str, resource: str) -> Mapping[str, str]:
    """Read the named statements of a `.sql` file that lies in a package; each starts with a line `-- name: claim`."""
    return _statements(package, resource)


def migrate(db: Database, package: str, folder: str) -> None:
    """Apply the package's migrations (`folder/001_what.sql`, ...) that this file has not seen, in order, all or none.

    Raises SchedulerError when the file has seen migrations that this code does not know: the code is too old.
    """
    known = _migrations(package, folder)
    with db.transaction() as connection:
        connection.execute(_LEDGER)
        rows = connection.execute("select number from schema_migrations where package = ?", (package,))
        applied = {int(row["number"]) for row in rows}
        if applied - known.keys():
            raise SchedulerError(f"the tables of {package} are newer than this code: install the newer ctriage")
        for number in sorted(known.keys() - applied):
            for statement in _split(known[number].read_text(encoding="utf-8")):
                connection.execute(statement)
            connection.execute("insert into schema_migrations (package, number) values (?, ?)", (package, number))


_LEDGER: Final = """
create table if not exists schema_migrations (
  package text not null,
  number integer not null,
  applied_at text not null default (strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now')),
  primary key (package, number)
) strict
"""
_NAME: Final = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)
_MIGRATION: Final = re.compile(r"(\d{3})_\w+\.sql")


class _Opened:
    """A connection that is closed with its thread: association threads come and go by the thousand."""

    __slots__ = ("__weakref__", "close", "connection")

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        self.connection.row_factory = sqlite3.Row
        self.connection.execute("pragma synchronous = full")
        self.connection.execute("pragma foreign_keys = on")
        # Pages: a checkpoint costs a writer several waits for the disk, and by itself comes every 130 instances.
        self.connection.execute(f"pragma wal_autocheckpoint = {CHECKPOINT_EVERY_PAGES}")
        self.close = weakref.finalize(self, self.connection.close)


def _undo(connection: sqlite3.Connection, undo: str) -> None:
    # SQLite has rolled back by itself after some errors, a full disk for one.
    for statement in undo.split(";") if connection.in_transaction else ():
        connection.execute(statement)


@cache
def _statements(package: str, resource: str) -> Mapping[str, str]:
    parts = _NAME.split(files(package).joinpath(resource).read_text(encoding="utf-8"))
    names, texts = parts[1::2], parts[2::2]
    if len(set(names)) != len(names):
        raise SchedulerError(f"{package}/{resource} gives one name to two statements: rename one")
    return MappingProxyType({name: text.strip() for name, text in zip(names, texts, strict=True)})


def _migrations(package: str, folder: str) -> dict[int, Traversable]:
    found = ((_MIGRATION.fullmatch(each.name), each) for each in files(package).joinpath(folder).iterdir())
    return {int(match[1]): each for match, each in found if match}


def _split(script: str) -> Iterator[str]:
    # Not executescript(): it commits the open transaction first.
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        raise SchedulerError(f"a migration ends without a semicolon: add it after {statement.strip()[-40:]!r}")
