"""Which files may a power cut have torn, though the index names them?

Index and file are made durable side by side, and a sender is told Success when both are. So a power cut can leave a row
whose file is not whole; its sender was never told Success, and the row goes before anybody reads the file. Kills tear
nothing: what was written is the system's to write down.
"""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import structlog

from pacs_bridge.archive_files import hash_of
from pacs_bridge.errors import CannotUnderstand
from pacs_bridge.files import sync_folder, write_whole
from pacs_bridge.instance import facts_from_json
from scheduler.database import Database, statements

LOOKED_AT: Final = timedelta(seconds=90)
"""How long before the last row a file may have waited for its fsync; `ctriage verify` would find what waited longer."""
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
MARK: Final = "last_boot"
_log = structlog.get_logger()


def this_boot() -> str:
    """Name the time since the machine was last started; empty where the system does not say."""
    return BOOT_ID.read_text().strip() if BOOT_ID.exists() else ""


def forget_what_was_torn(state_dir: Path, database: Database, *, boot: Callable[[], str] = this_boot) -> int:
    """Take rows whose file is not whole out of the index, where the machine has been started since we last were.

    Returns how many. To be called before anything reads the archive, and before anything is received.
    """
    now, mark = boot(), state_dir / MARK
    before = mark.read_text() if mark.exists() else None
    torn = 0 if before == now and now else _forget(state_dir / "archive", database)
    write_whole(mark, (now.encode(),), state_dir)
    sync_folder(state_dir)
    return torn


def _forget(archive: Path, database: Database) -> int:
    sql = statements("pacs_bridge", "sql/power_cut.sql")
    with database.transaction() as connection:
        newest = connection.execute(sql["newest"]).fetchone()["newest"]
        if newest is None:
            return 0
        since = datetime.fromisoformat(newest) - LOOKED_AT
        rows = connection.execute(sql["received_since"], {"since": since.isoformat()}).fetchall()
        torn = [row for row in rows if not _is_whole(archive / row["path"], row["content_hash"])]
        for row in torn:
            for statement in ("forget_instance", "another_is_current"):
                connection.execute(sql[statement], dict(row))
        for row in torn:
            left = connection.execute(sql["what_is_left"], dict(row))
            arrives = any(facts_from_json(json.loads(each["facts"])).is_ct for each in left)
            for statement in ("reopen_series" if arrives else "keep_series", "reopen_study"):
                connection.execute(sql[statement], dict(row))
    for row in torn:
        (archive / row["path"]).unlink(missing_ok=True)
    if torn:
        _log.warning("torn_by_power_cut", instances=len(torn), remedy="none: their senders were not told Success")
    return len(torn)


def _is_whole(path: Path, content_hash: str) -> bool:
    try:
        return hash_of(path, content_hash.partition(":")[0]) == content_hash
    except (OSError, CannotUnderstand):
        return False
