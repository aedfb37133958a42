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

from pacs_bridge.errors import BridgeError, UnknownStudy
from scheduler.database import statements
from scheduler.job import Status

if TYPE_CHECKING:
    from pipeline.model import Report

DELIVER: Final = "deliver"
TRIAGE: Final = "triage"
FAILED: Final = "failed"
LIMIT: Final = 1000

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
        studies = _studies(connection)
        everything = {
            "studies": list(studies.values()),
            "jobs": _jobs(connection, studies),
            "deliveries": _deliveries(connection, studies),
            "conflicts": _conflicts(connection, studies),
        }
        if key is None:
            return everything
        uid = next((uid for uid, study in studies.items() if study["study_key"] == key), None)
        if uid is None:
            raise UnknownStudy(key)
        of_study = {name: [row for row in rows if row["study_key"] == key] for name, rows in everything.items()}
        return {**of_study, "series": _series(connection, uid)}


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


@contextmanager
def _opened(database: Path) -> Iterator[sqlite3.Connection]:
    if not database.is_file():
        raise NoState(database, "there is no such file")
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


def _studies(connection: sqlite3.Connection) -> dict[str, Row]:
    """Return the rows of studies by Study Instance UID, each with what its latest Report says."""
    rows = connection.execute(statements("pacs_bridge", "sql/archive.sql")["studies"], {"limit": LIMIT})
    latest, failed = _latest_reports(connection), _failed_studies(connection)
    return {row["study_instance_uid"]: _study(row, latest.get(row["study_instance_uid"]), failed) for row in rows}


def _failed_studies(connection: sqlite3.Connection) -> set[str]:
    """Name the studies whose newest triage job was buried: nobody has looked at what came last."""
    newest: dict[str, str] = {}
    for row in _all_jobs(connection):
        if row["kind"] == TRIAGE:
            newest.setdefault(json.loads(row["payload"])["study_instance_uid"], row["status"])
    return {study for study, status in newest.items() if status == Status.BURIED}


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


def _latest_reports(connection: sqlite3.Connection) -> dict[str, sqlite3.Row]:
    rows = connection.execute(statements("pacs_bridge", "sql/ledger.sql")["latest_reports"])
    return {row["study_instance_uid"]: row for row in rows}


def _series(connection: sqlite3.Connection, study: str) -> list[Row]:
    of_study = {"study_instance_uid": study}
    rows = connection.execute(statements("pacs_bridge", "sql/archive.sql")["series_of"], of_study)
    shown = ("series_instance_uid", "series_number", "modality", "state", "evidence")
    return [{name: row[name] for name in shown} for row in rows]


def _jobs(connection: sqlite3.Connection, studies: Mapping[str, Row]) -> list[Row]:
    rows = [row for row in _all_jobs(connection) if not _is_delivery(row)]
    return [{"key": row["key"], "kind": row["kind"], **_progress(row, studies)} for row in rows]


def _deliveries(connection: sqlite3.Connection, studies: Mapping[str, Row]) -> list[Row]:
    rows = [row for row in _all_jobs(connection) if _is_delivery(row)]
    return [{**_what_is_delivered(row), **_progress(row, studies)} for row in rows]


def _is_delivery(row: sqlite3.Row) -> bool:
    return str(row["kind"]).partition(":")[0] == DELIVER


def _all_jobs(connection: sqlite3.Connection) -> list[sqlite3.Row]:
    where = {"statuses": json.dumps(sorted(Status)), "limit": LIMIT}
    return connection.execute(statements("scheduler", "sql/queue.sql")["jobs"], where).fetchall()


def _what_is_delivered(row: sqlite3.Row) -> Row:
    payload = json.loads(row["payload"])
    return {"destination": payload["destination"], "version": payload["version"], "objects": payload["group"]}


def _progress(row: sqlite3.Row, studies: Mapping[str, Row]) -> Row:
    study = json.loads(row["payload"]).get("study_instance_uid", "")
    return {
        "study_key": _key_of(study, studies),
        "state": row["status"],
        "attempts": row["attempt"],
        "next_at": row["next_at"] if row["status"] == Status.READY else None,
        "reason": row["reason"],
    }


def _conflicts(connection: sqlite3.Connection, studies: Mapping[str, Row]) -> list[Row]:
    every = {"study_instance_uid": None}
    rows = connection.execute(statements("pacs_bridge", "sql/archive.sql")["open_conflicts"], every)
    return [{**row, "study_key": _key_of(row["study_instance_uid"], studies)} for row in rows]


def _key_of(study: str, studies: Mapping[str, Row]) -> str | None:
    return studies[study]["study_key"] if study in studies else None


# ---- text -----------------------------------------------------------------------------------------------------------

_SHOWN: Final[Mapping[str, Sequence[str]]] = {
    "studies": ("study_key", "state", "priority", "report_version", "report_status", "evidence"),
    "jobs": ("study_key", "kind", "state", "attempts", "next_at", "reason"),
    "deliveries": ("study_key", "destination", "objects", "state", "attempts", "next_at", "reason"),
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
    return value[:19] + "Z" if column.endswith("_at") and isinstance(value, str) else value
