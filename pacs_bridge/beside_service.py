"""How does a command reach what the service owns, while it runs or when it is stopped?

Opening an Archive is left to the service: that migrates, and clears away what is half-received.
"""

import os
import pwd
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pacs_bridge.audit import Auditor, AuditSource, Party, unheard
from pacs_bridge.status import NoState, require
from scheduler.database import Database

NEWEST_TABLE: Final = "removed_files"


@contextmanager
def opened(database: Path) -> Iterator[Database]:
    """Open the service's database for writing.

    Raises NoState where there is none, where it is of an older version, or where it is another user's: what that one
    would leave there (SQLite's log, for one) the service could not write to.
    """
    require(database)
    _require_owner(database)
    with closing(Database(database)) as found:
        with found.read() as connection:
            tables = {row["name"] for row in connection.execute("select name from sqlite_master where type = 'table'")}
        if NEWEST_TABLE not in tables:
            raise NoState(database, "an older ctriage used it last")
        yield found


@contextmanager
def looked_at(database: Path) -> Iterator[sqlite3.Connection]:
    """Open the service's database read-only, each look a transaction of its own: a long one lets its log grow.

    Raises NoState where there is none, or one of another version.
    """
    require(database)
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=10)) as connection:
            connection.row_factory = sqlite3.Row
            yield connection
    except sqlite3.Error as unreadable:
        raise NoState(database, f"cannot be read, or is of another version ({unreadable})") from unreadable


@contextmanager
def trail_of(state_dir: Path, ae_title: str) -> Iterator[Auditor]:
    """Yield what records into the service's audit trail; where there is no trail yet, nobody listens."""
    from pacs_bridge.audit_trail import AuditTrail

    folder = state_dir / "audit"
    if not folder.is_dir():
        yield unheard
        return
    source = AuditSource(ae_title=ae_title, machine=socket.gethostname(), process_id=os.getpid())
    with closing(AuditTrail(folder, source, now=lambda: datetime.now(UTC))) as trail:
        yield trail.record


def operator() -> Party:
    """Name the person at the command line, as the operating system does."""
    return Party(name=os.environ.get("SUDO_USER") or _user_name(os.getuid()))


def _require_owner(database: Path) -> None:
    owner = database.stat().st_uid
    if os.geteuid() != owner:
        name = _user_name(owner)
        raise NoState(database, f"it belongs to {name}: run this as that user (sudo -u {name})")


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
