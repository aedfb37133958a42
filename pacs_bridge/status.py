"""Where do studies, jobs, deliveries and conflicts stand? Read from the database, whether the service runs or not.

The file is opened read-only and through the same named statements its owners use, so that looking never migrates,
locks or cleans anything.
"""

import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pacs_bridge import forward_status
from pacs_bridge.errors import BridgeError, UnknownStudy
from pacs_bridge.logs import without_uids
from scheduler.database import statements
from scheduler.job import Status

if TYPE_CHECKING:
    from pipeline.model import Report

DELIVER: Final = "deliver"
FORWARD: Final = "forward"
FAILED: Final = "failed"
LIMIT: Final = 1000
"""How many studies and how many ended jobs are shown, the newest; what needs attention always is."""

OPEN: Final = (Status.READY, Status.RUNNING, Status.HELD, Status.BURIED)

Row = dict[str, Any]


@dataclass(eq=False)
class NoState(BridgeError):
    """There is nothing to read where the settings say the state lies."""

    database: Path
    reason: str

    def __str__(self) -> str:
        remedy = "start `ctriage serve` once, or name its settings with --config or --set state_dir=..."
        return f"{self.database}: {self.reason}; {remedy}"


def read_status(database: Path, key: str | None = None) -> dict[str, Any]:
    """Return the object of ``ctriage status --json``, for all studies or the one of this study key.

    Raises NoState where there is no database, UnknownStudy for a key it does not hold.
    """
    with _opened(database) as connection:
        if key is None:
            return _everything(connection)
        study = uid_of(connection, key)
        return {**_of_study(connection, study), "series": _series(connection, study)}


def uid_of(connection: sqlite3.Connection, key: str) -> str:
    """Return the Study Instance UID that a study key stands for; raises UnknownStudy."""
    row = connection.execute(
        statements("pacs_bridge", "sql/archive.sql")["study_by_key"], {"study_key": key}
    ).fetchone()
    if row is None:
        raise UnknownStudy(key)
    return str(row["study_instance_uid"])


def read_report(database: Path, study: str) -> tuple["Report", Sequence[str]] | None:
    """Return the current Report of a study (by UID) and the kinds of its objects; None while there is none.

    Raises NoState where there is no database.
    """
    from pipeline import wire
    from pipeline.model import Report

    sql = statements("pacs_bridge", "sql/ledger.sql")
    with _opened(database) as connection:
        row = connection.execute(sql["latest_report"], {"study_instance_uid": study}).fetchone()
        if row is None:
            return None
        objects = connection.execute(sql["objects_of"], {"study_instance_uid": study, "version": row["version"]})
        return wire.loads(Report, row["report"]), [each["kind"] for each in objects]


def require(database: Path) -> None:
    """Raise NoState where there is no database, or this user may not look."""
    try:
        is_there = database.is_file()
    except PermissionError as refused:
        raise NoState(database, "only the user who runs the service may read it") from refused
    if not is_there:
        raise NoState(database, "there is no such file")


@contextmanager
def _opened(database: Path) -> Iterator[sqlite3.Connection]:
    require(database)
    connection = None
    try:
        connection = sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=10)
        connection.row_factory = sqlite3.Row
        connection.execute("begin")  # one view of all tables
        yield connection
    except sqlite3.Error as unreadable:
        raise NoState(database, f"cannot be read ({unreadable})") from unreadable
    finally:
        if connection is not None:
            connection.close()


def _everything(connection: sqlite3.Connection) -> dict[str, Any]:
    studies, jobs = _studies(connection), _shown_jobs(connection)
    busy = {_study_of(row) for row in jobs if row["status"] in OPEN}
    shown = [row for at, (uid, row) in enumerate(studies.items()) if at < LIMIT or uid in busy]
    return {
        "studies": shown,
        "jobs": _jobs(jobs, studies),
        "deliveries": _deliveries(connection, jobs, studies),
        "forwards": _forwards(connection, studies, {row["study_instance_uid"] for row in shown}),
        "destinations": forward_status.away(connection),
        "conflicts": _conflicts(connection, studies),
    }


def _of_study(connection: sqlite3.Connection, study: str) -> dict[str, Any]:
    studies = {uid: row for uid, row in _studies(connection).items() if uid == study}
    of_study = {"study_instance_uid": study}
    jobs = connection.execute(statements("pacs_bridge", "sql/ledger.sql")["jobs_of_study"], of_study).fetchall()
    return {
        "studies": list(studies.values()),
        "jobs": _jobs(jobs, studies),
        "deliveries": _deliveries(connection, jobs, studies),
        "forwards": _forwards(connection, studies, set()),
        "destinations": forward_status.away(connection),
        "conflicts": [row for row in _conflicts(connection, studies) if row["study_instance_uid"] == study],
    }


def _studies(connection: sqlite3.Connection) -> dict[str, Row]:
    """Return the rows of studies by Study Instance UID, the newest first, each with what its latest Report says."""
    everyone = connection.execute(statements("pacs_bridge", "sql/archive.sql")["studies"], {"limit": -1})
    latest, failed = _latest_verdicts(connection), _failed_studies(connection)
    removed = _removed(connection)
    return {
        (uid := row["study_instance_uid"]): {
            **_study(row, latest.get(uid), failed),
            "images_removed_at": removed.get(uid),
        }
        for row in everyone
    }


def _removed(connection: sqlite3.Connection) -> dict[str, str]:
    """Say of which studies rules of retention have removed images, and when last."""
    rows = connection.execute(
        statements("pacs_bridge", "sql/retention.sql")["removed_at"], {"study_instance_uid": None}
    )
    return {row["study_instance_uid"]: row["removed_at"] for row in rows}


def _failed_studies(connection: sqlite3.Connection) -> set[str]:
    """Name the studies whose newest triage job was buried: nobody has looked at what came last."""
    rows = connection.execute(statements("pacs_bridge", "sql/ledger.sql")["failed_studies"])
    return {row["study_instance_uid"] for row in rows}


def _study(row: sqlite3.Row, report: sqlite3.Row | None, failed: Collection[str]) -> Row:
    return {
        "study_key": row["study_key"],
        "study_instance_uid": row["study_instance_uid"],
        "state": FAILED if row["study_instance_uid"] in failed else row["state"],
        "evidence": row["evidence"],
        "priority": report["priority"] if report else None,
        "report_version": report["version"] if report else None,
        "report_status": report["status"] if report else None,
        "last_received_at": row["last_received_at"],
        "committed_at": report["committed_at"] if report else None,
        "remarks": json.loads(report["remarks"]) if report else [],
    }


def _latest_verdicts(connection: sqlite3.Connection) -> dict[str, sqlite3.Row]:
    rows = connection.execute(statements("pacs_bridge", "sql/ledger.sql")["latest_verdicts"])
    return {row["study_instance_uid"]: row for row in rows}


def _series(connection: sqlite3.Connection, study: str) -> list[Row]:
    of_study = {"study_instance_uid": study}
    rows = connection.execute(statements("pacs_bridge", "sql/archive.sql")["series_of"], of_study)
    shown = ("series_instance_uid", "series_number", "modality", "state", "evidence")
    return [{name: row[name] for name in shown} for row in rows]


def _jobs(jobs: Sequence[sqlite3.Row], studies: Mapping[str, Row]) -> list[Row]:
    rows = [row for row in jobs if _family(row) not in (DELIVER, FORWARD)]
    return [{"key": row["key"], "kind": row["kind"], **_progress(row, studies)} for row in rows]


def _deliveries(connection: sqlite3.Connection, jobs: Sequence[sqlite3.Row], studies: Mapping[str, Row]) -> list[Row]:
    away = {row["destination"]: row for row in forward_status.away(connection)}
    rows = [{**_what_is_delivered(row), **_progress(row, studies)} for row in jobs if _family(row) == DELIVER]
    return [forward_status.with_contact(row, away.get(row["destination"])) for row in rows]


def _forwards(connection: sqlite3.Connection, studies: Mapping[str, Row], newest: set[str]) -> list[Row]:
    """Return how far these studies are with each destination, and all others that are not through."""
    chosen = studies.keys() & (newest | forward_status.unsettled(connection)) if newest else studies.keys()
    rows = forward_status.standing(connection, chosen)
    return [{"study_key": _key_of(row.pop("study_instance_uid"), studies), **row} for row in rows]


def _family(row: sqlite3.Row) -> str:
    return str(row["kind"]).partition(":")[0]


def _shown_jobs(connection: sqlite3.Connection) -> list[sqlite3.Row]:
    """Return all jobs that need somebody or something, and the newest of those that have ended; the newest first."""
    still_open = _jobs_that_are(connection, OPEN, limit=-1)
    ended = _jobs_that_are(connection, set(Status) - set(OPEN), limit=LIMIT)
    return sorted([*still_open, *ended], key=lambda row: str(row["created_at"]), reverse=True)


def _jobs_that_are(connection: sqlite3.Connection, statuses: Collection[str], *, limit: int) -> list[sqlite3.Row]:
    where = {"statuses": json.dumps(sorted(statuses)), "limit": limit}
    return connection.execute(statements("pacs_bridge", "sql/forwards.sql")["other_jobs"], where).fetchall()


def _study_of(row: sqlite3.Row) -> str:
    return str(json.loads(row["payload"]).get("study_instance_uid", ""))


def _what_is_delivered(row: sqlite3.Row) -> Row:
    payload = json.loads(row["payload"])
    return {"destination": payload["destination"], "version": payload["version"], "objects": payload["group"]}


def _progress(row: sqlite3.Row, studies: Mapping[str, Row]) -> Row:
    return {
        "study_key": _key_of(_study_of(row), studies),
        "state": row["status"],
        "attempts": row["attempt"],
        "next_at": row["next_at"] if row["status"] == Status.READY else None,
        "reason": None if row["reason"] is None else without_uids(row["reason"]),
    }


def _conflicts(connection: sqlite3.Connection, studies: Mapping[str, Row]) -> list[Row]:
    every = {"study_instance_uid": None}
    rows = connection.execute(statements("pacs_bridge", "sql/archive.sql")["open_conflicts"], every)
    return [{**row, "study_key": _key_of(row["study_instance_uid"], studies)} for row in rows]


def _key_of(study: str, studies: Mapping[str, Row]) -> str | None:
    return studies[study]["study_key"] if study in studies else None


# ---- text -----------------------------------------------------------------------------------------------------------

_SHOWN: Final[Mapping[str, Sequence[str]]] = {
    "studies": ("study_key", "state", "priority", "report_version", "report_status", "evidence", "images_removed_at"),
    "jobs": ("study_key", "kind", "state", "attempts", "next_at", "reason"),
    "deliveries": ("study_key", "version", "destination", "objects", "state", "attempts", "next_at", "reason"),
    "forwards": ("study_key", "destination", "state", "pending", "sent", "refused", "since", "next_at", "reason"),
    "destinations": ("destination", "since", "failures", "next_at", "reason"),
    "conflicts": ("id", "study_key", "kind", "found_at"),
    "series": ("series_number", "modality", "state", "evidence"),
}


def tables(status: Mapping[str, Sequence[Row]]) -> Iterator[tuple[str, Sequence[str], list[tuple[object, ...]]]]:
    """Yield title, columns and rows of each table for people; columns that name a patient or a UID stay out."""
    for name, columns in _SHOWN.items():
        if name in status:
            yield name, columns, [tuple(_shown(column, row[column]) for column in columns) for row in status[name]]
    studies = status.get("studies", ())
    remarks: list[tuple[object, ...]] = [(study["study_key"], said) for study in studies for said in study["remarks"]]
    yield "remarks", ("study_key", "remark"), remarks


def _shown(column: str, value: object) -> object:
    """Leave the fractions of a second to programs."""
    is_instant = column.endswith("_at") or column == "since"
    return value[:19] + "Z" if is_instant and isinstance(value, str) else value
