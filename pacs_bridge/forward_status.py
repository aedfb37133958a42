"""How far is what is passed on, what does it wait for, and which destinations do not answer?

Read through the named statements alone, so that looking changes nothing.
"""

import json
import sqlite3
from collections.abc import Collection, Mapping
from typing import Any, Final

from pacs_bridge.logs import without_uids
from scheduler.database import statements
from scheduler.job import Status

COLLECTING, REFUSED, SENT = "collecting", "refused", "sent"
_JOB_GONE: Final = "its job was ended: `ctriage forward retry` brings it back"

Row = dict[str, Any]
_Place = tuple[str, str]


def unsettled(connection: sqlite3.Connection) -> set[str]:
    """Return the UIDs of the studies that are not through, or of which something was refused."""
    return {row["study_instance_uid"] for row in connection.execute(_sql()["unsettled_studies"])}


def standing(connection: sqlite3.Connection, studies: Collection[str]) -> list[Row]:
    """Return a row for each of these studies (by UID) and destination, those that wait longest first.

    ``state`` is ``sent`` or ``refused`` where nothing is pending, ``collecting`` while no job has been made, else how
    its next job stands; ``since`` is when the oldest that is not through was noted, or refused.
    """
    where = {"studies": json.dumps(sorted(studies))}
    open_ends = {_place(row): row for row in connection.execute(_sql()["unsettled"], where)}
    jobs = {_place(row): row for row in connection.execute(_sql()["waiting_jobs"], where)}
    lost = {row["destination"]: row for row in away(connection)}
    rows = []
    for counts in connection.execute(_sql()["standing"], where):
        place = _place(counts)
        row = {**counts, **_progress(counts, open_ends.get(place), jobs.get(place))}
        rows.append(_with_refusal(with_contact(row, lost.get(counts["destination"])), open_ends.get(place)))
    return sorted(rows, key=lambda row: (row["since"] is None, row["since"] or "", row["destination"]))


def away(connection: sqlite3.Connection) -> list[Row]:
    """Return the destinations that did not answer when last asked: since when, how often, the next try, and why."""
    return [{**row} for row in connection.execute(_sql()["contacts_lost"])]


def with_contact(row: Row, contact: Mapping[str, Any] | None) -> Row:
    """Let a row that waits for a destination which does not answer say so, and when that is tried next."""
    if contact is None or row["state"] != Status.READY:
        return row
    return {
        **row,
        "next_at": max(row["next_at"] or "", contact["next_at"]),
        "reason": row["reason"] or f"waits with all others for {contact['destination']}: {contact['reason']}",
    }


def _progress(counts: sqlite3.Row, open_end: sqlite3.Row | None, job: sqlite3.Row | None) -> Row:
    since = open_end["since"] if open_end else None
    if not counts["pending"] or job is None:
        ended = REFUSED if counts["refused"] else SENT
        state = COLLECTING if counts["pending"] else ended
        return {"state": state, "since": since, "attempts": 0, "next_at": None, "reason": None}
    has_ended = job["status"] not in (Status.READY, Status.RUNNING, Status.HELD)
    said = job["reason"] or (_JOB_GONE if has_ended else None)
    return {
        "state": job["status"],
        "since": since,
        "attempts": job["attempt"],
        "next_at": job["next_at"] if job["status"] == Status.READY else None,
        "reason": without_uids(said) if said else None,
    }


def _with_refusal(row: Row, open_end: sqlite3.Row | None) -> Row:
    """Say besides why something was refused, where some was."""
    if not row["refused"] or open_end is None:
        return row
    refusal = f"{row['refused']} refused: {open_end['reason']}"
    return {**row, "reason": f"{row['reason']}; {refusal}" if row["reason"] else refusal}


def _place(row: sqlite3.Row) -> _Place:
    return row["study_instance_uid"], row["destination"]


def _sql() -> Mapping[str, str]:
    return statements("pacs_bridge", "sql/forwards.sql")
