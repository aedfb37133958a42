"""Which instances did somebody say that a series has? The lists as they were told, kept beyond a restart."""

import hashlib
import json
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from sqlite3 import Row
from typing import Any, Final

from pacs_bridge.arrival import ExpectedInstances
from scheduler.database import Database, migrate, statements

KEPT_FOR: Final = timedelta(days=7)
"""Who sends a slice later than this is judged without the list."""


class Declarations:
    """The table of declared lists. Writing joins an open transaction."""

    def __init__(self, database: Database) -> None:
        """Bring the table up to date."""
        self._database = database
        migrate(database, "pacs_bridge", "sql/migrations")
        self._sql = statements("pacs_bridge", "sql/declarations.sql")

    def keep(self, told: ExpectedInstances) -> None:
        """Keep a list; one that was told before stays as it was. Lists that are too old to matter go."""
        names = json.dumps(sorted(told.sop_instance_uids))
        row: dict[str, Any] = {
            "study_instance_uid": told.study,
            "series_instance_uid": told.series,
            "digest": hashlib.sha256(names.encode()).hexdigest(),
            "sop_instance_uids": names,
            "whole": told.whole,
            "awaited": told.awaited,
            "declared_at": told.at.isoformat(),
        }
        with self._database.transaction() as connection:
            connection.execute(self._sql["forget"], {"before": (told.at - KEPT_FOR).isoformat()})
            connection.execute(self._sql["keep"], row)

    def of(self, study: str) -> list[ExpectedInstances]:
        """Return the lists of a study in the order they were told."""
        with self._database.read() as connection:
            rows = connection.execute(self._sql["lists_of"], {"study_instance_uid": study}).fetchall()
        return [_list(row) for row in rows]

    def in_archive(self, study: str, sop_instance_uids: Iterable[str]) -> Collection[str]:
        """Return those of these instances that the archive holds."""
        names = json.dumps(sorted(sop_instance_uids))
        with self._database.read() as connection:
            wanted = {"study_instance_uid": study, "sop_instance_uids": names}
            return {str(row["sop_instance_uid"]) for row in connection.execute(self._sql["in_archive"], wanted)}


def _list(row: Row) -> ExpectedInstances:
    return ExpectedInstances(
        study=row["study_instance_uid"],
        series=row["series_instance_uid"],
        sop_instance_uids=frozenset(json.loads(row["sop_instance_uids"])),
        at=datetime.fromisoformat(row["declared_at"]),
        whole=bool(row["whole"]),
        awaited=bool(row["awaited"]),
    )
