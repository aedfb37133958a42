"""What must an administrator decide, and how does the decision take effect?

Two contents of one SOP instance, or two patients in one study: both were kept, the first stayed current. Works while
the service runs and when it is stopped; index and queue change in one transaction.
"""

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, Final, Literal

from pydicom.datadict import keyword_for_tag

from pacs_bridge.archive import Extent
from pacs_bridge.audit import Auditor, Party, StudyShare, conflict_accepted, unheard
from pacs_bridge.beside_service import looked_at, opened
from pacs_bridge.deliveries import DELIVERY_ATTEMPTS, HELD_BACK
from pacs_bridge.elements import elements_of
from pacs_bridge.errors import BridgeError, CannotUnderstand, UnknownConflict
from pacs_bridge.forward_ledger import ForwardLedger
from pacs_bridge.forward_rules import rules_of
from pacs_bridge.handlers import PROCESS_ATTEMPTS, TRIAGE, memory_mb_of
from pacs_bridge.instance import facts_from_json
from pacs_bridge.part10 import read_file
from pacs_bridge.settings import Settings
from pacs_bridge.status import uid_of
from scheduler.database import Database, statements
from scheduler.job import URGENT, Job, JobRequest, Status
from scheduler.sqlite_queue import SqliteQueue

Keep = Literal["kept", "other"]
TRANSFER_SYNTAX: Final = "transfer syntax"
UNREADABLE: Final = "one of the contents cannot be read: see `ctriage verify`"
GONE: Final = "one of the contents is no longer in the archive"
MOST_SHOWN: Final = 12


@dataclass(eq=False)
class NothingToChoose(BridgeError):
    """A conflict of patients: which images are whose cannot be told here."""

    conflict_id: int

    def __str__(self) -> str:
        return (
            f"conflict {self.conflict_id} is of two patients in one study: there is no other content to keep; "
            "correct the study where it comes from, or accept it as it stands"
        )


@dataclass(eq=False)
class ContentGone(BridgeError):
    """The other content of a conflict is no longer in the index: rules of retention or a power cut took it."""

    conflict_id: int

    def __str__(self) -> str:
        return (
            f"conflict {self.conflict_id}: the other content is no longer in the archive (rules of retention removed "
            "it, or a power cut tore it); accept the conflict as it stands, or have the images sent again"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two: who sent it and when, and how much it is; ``name`` is a content's hash or a Patient ID.

    The patient is named for those who asked for it.
    """

    name: str
    callers: tuple[str, ...]
    first_at: str | None
    last_at: str | None
    images: int
    size_bytes: int | None = None
    patient_id: str = ""
    patient_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenConflict:
    """A conflict nobody has accepted; ``differs`` names attributes, never values."""

    id: int
    kind: Literal["content", "patient"]
    study_key: str
    study_instance_uid: str
    sop_instance_uid: str
    found_at: str
    differs: tuple[str, ...]
    kept: Side
    other: Side


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """What a decision has brought: how many deliveries go on, and how many conflicts of the study are still open."""

    study_key: str
    let_go: int
    still_open: int


def open_conflicts(database: Path, state_dir: Path) -> list[OpenConflict]:
    """Read the open conflicts, and of two contents in what they differ. Raises NoState."""
    with looked_at(database) as connection:
        rows = connection.execute(_sql("open_ones")).fetchall()
        return [_described(connection, row, state_dir / "archive") for row in rows]


def accept(
    settings: Settings,
    conflict_id: int,
    *,
    keep: Keep = "kept",
    now: datetime,
    auditor: Auditor = unheard,
    person: Party | None = None,
) -> Accepted:
    """Close a conflict and let go what it held back.

    ``other`` makes the other content of an instance the current one: its study is analysed again, and the content is
    passed on as if it were new. Once no second patient stands against the study, its deliveries go on: those that
    were held, and those that waited for the decision until they were given up. Raises UnknownConflict, NothingToChoose,
    ContentGone, NoState.
    """
    with opened(settings.database) as database, database.transaction() as connection:
        row = connection.execute(_sql("conflict"), {"id": conflict_id}).fetchone()
        if row is None:
            raise UnknownConflict(conflict_id)
        close = statements("pacs_bridge", "sql/archive.sql")["accept_conflict"]
        connection.execute(close, {"id": conflict_id, "accepted_at": now.isoformat()})
        if keep == "other":
            _choose_other(settings, database, row, now)
        let_go = _release(connection, SqliteQueue(database), row["study_instance_uid"], now)
        others = len(_open_of(connection, row["study_instance_uid"]))
    share = StudyShare(study_instance_uid=row["study_instance_uid"], study_key=row["study_key"])
    if person is not None:
        auditor(conflict_accepted(person, share, what=f"{row['kind']}: {keep}", at=now))
    return Accepted(study_key=row["study_key"], let_go=let_go, still_open=others)


def retry(database: Path, key: str | None, *, now: datetime) -> Sequence[str]:
    """Bring back the buried jobs of the study with this key, or of all; returns the jobs' keys, the oldest first.

    Raises UnknownStudy, NoState.
    """
    with opened(database) as found:
        queue = SqliteQueue(found)
        with found.transaction() as connection:
            study = {"study_instance_uid": None if key is None else uid_of(connection, key)}
            buried = connection.execute(statements("pacs_bridge", "sql/ledger.sql")["buried_jobs"], study).fetchall()
            for row in buried:
                queue.resubmit(row["key"], now=now)
    return [str(row["key"]) for row in buried]


# ---- deciding -------------------------------------------------------------------------------------------------------


def _choose_other(settings: Settings, database: Database, conflict: sqlite3.Row, now: datetime) -> None:
    """Make the other content the current one, and let it be analysed and passed on; inside a transaction."""
    if conflict["kind"] != "content":
        raise NothingToChoose(conflict["id"])
    names = {"sop_instance_uid": conflict["sop_instance_uid"], "content_hash": conflict["other"]}
    with database.transaction() as connection:
        aside = connection.execute(_sql("set_aside"), names).fetchall()
        chosen = connection.execute(_sql("make_current"), names).fetchone()
        if chosen is None:
            raise ContentGone(conflict["id"])
        # The same instance may have been sent as part of two studies: both have changed.
        for study in sorted({chosen["study_instance_uid"], *(row["study_instance_uid"] for row in aside)}):
            noted = {"id": conflict["id"], "study_instance_uid": study, "chosen_at": now.isoformat()}
            connection.execute(_sql("note_choice"), {**names, **noted})
            _analyse_again(connection, SqliteQueue(database), study, f"chosen:{conflict['id']}", now)
    facts = facts_from_json(json.loads(chosen["facts"]))
    forwards = ForwardLedger(database, rules_of(settings), settings.state_dir / "archive")
    forwards.note(facts, chosen["calling_ae"], now)


def _analyse_again(
    connection: sqlite3.Connection, queue: SqliteQueue, study: str, occasion: str, now: datetime
) -> None:
    archive = statements("pacs_bridge", "sql/archive.sql")
    known = connection.execute(archive["study"], {"study_instance_uid": study}).fetchone()
    extent = connection.execute(archive["extent_of"], {"study_instance_uid": study}).fetchone()
    size = Extent(images=extent["images"], calling_ae=extent["calling_ae"] or "", body_part="")
    request = JobRequest(
        key=f"{TRIAGE}:{known['study_key']}:{occasion}",
        kind=TRIAGE,
        payload={"study_instance_uid": study, "final": True},
        group=known["study_key"],
        caller=size.calling_ae,
        priority=URGENT,
        memory_mb=memory_mb_of(size),
        max_attempts=PROCESS_ATTEMPTS,
    )
    queue.submit(request, now=now)


def _release(connection: sqlite3.Connection, queue: SqliteQueue, study: str, now: datetime) -> int:
    """Let go what was held back because of a second patient, once none stands against the study any more."""
    if any(conflict["kind"] == "patient" for conflict in _open_of(connection, study)):
        return 0
    waiting = [
        job
        for job in queue.jobs((Status.HELD, Status.READY, Status.BURIED))
        if job.payload.get("study_instance_uid") == study and job.reason == HELD_BACK
    ]
    for job in waiting:
        _let_go(queue, job, now)
    return len(waiting)


def _open_of(connection: sqlite3.Connection, study: str) -> list[sqlite3.Row]:
    still_open = statements("pacs_bridge", "sql/archive.sql")["open_conflicts"]
    return connection.execute(still_open, {"study_instance_uid": study}).fetchall()


def _let_go(queue: SqliteQueue, job: Job, now: datetime) -> None:
    if job.status is Status.HELD:
        queue.release(job.key)
    elif job.status is Status.BURIED:
        queue.resubmit(job.key, now=now, attempts=DELIVERY_ATTEMPTS)
    else:
        queue.hurry(job.key, now=now)


# ---- describing -----------------------------------------------------------------------------------------------------


def _described(connection: sqlite3.Connection, row: sqlite3.Row, archive: Path) -> OpenConflict:
    content = row["kind"] == "content"
    describe = _content_side if content else _patient_side
    return OpenConflict(
        id=row["id"],
        kind=row["kind"],
        study_key=row["study_key"],
        study_instance_uid=row["study_instance_uid"],
        sop_instance_uid=row["sop_instance_uid"],
        found_at=row["found_at"],
        differs=_differences(connection, row, archive) if content else ("PatientID",),
        kept=describe(connection, row, row["kept"]),
        other=describe(connection, row, row["other"]),
    )


def _content_side(connection: sqlite3.Connection, row: sqlite3.Row, content_hash: str) -> Side:
    found = _content(connection, row, content_hash)
    if found is None:
        return Side(name=content_hash, callers=(), first_at=None, last_at=None, images=0)
    facts = facts_from_json(json.loads(found["facts"]))
    return Side(
        name=content_hash,
        callers=(found["calling_ae"],),
        first_at=found["received_at"],
        last_at=found["received_at"],
        images=1,
        size_bytes=found["size_bytes"],
        patient_id=facts.patient_id,
        patient_names=(facts.patient_name,),
    )


def _patient_side(connection: sqlite3.Connection, row: sqlite3.Row, patient_id: str) -> Side:
    of_patient = {"study_instance_uid": row["study_instance_uid"], "patient_id": patient_id}
    found = connection.execute(_sql("of_patient"), of_patient).fetchone()
    return Side(
        name=patient_id,
        callers=tuple(sorted(json.loads(found["callers"]))),
        first_at=found["first_at"],
        last_at=found["last_at"],
        images=found["images"],
        patient_id=patient_id,
        patient_names=tuple(sorted(json.loads(found["names"]))),
    )


def _differences(connection: sqlite3.Connection, row: sqlite3.Row, archive: Path) -> tuple[str, ...]:
    """Name the attributes in which two contents differ, by comparing the files."""
    kept, other = (_content(connection, row, row[side]) for side in ("kept", "other"))
    if kept is None or other is None:
        return (GONE,)
    try:
        first, second = (_values_of(archive / each["path"]) for each in (kept, other))
    except (OSError, CannotUnderstand):
        return (UNREADABLE,)
    names = [_keyword(tag) for tag in sorted({*first, *second}) if first.get(tag) != second.get(tag)]
    return (*([TRANSFER_SYNTAX] if kept["transfer_syntax"] != other["transfer_syntax"] else []), *names)


def _values_of(path: Path) -> dict[int, bytes]:
    """Return the hash of the value of each top-level element of a file."""
    file = read_file(path)
    with path.open("rb") as opened_file, mmap(opened_file.fileno(), 0, access=ACCESS_READ) as content:
        elements = elements_of(content, file.transfer_syntax, start=file.offset)
        return {tag: hashlib.sha256(elements.value(tag)).digest() for tag in elements.places}


def _keyword(tag: int) -> str:
    return keyword_for_tag(tag) or f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _content(connection: sqlite3.Connection, row: sqlite3.Row, content_hash: str) -> sqlite3.Row | None:
    names = {"sop_instance_uid": row["sop_instance_uid"], "content_hash": content_hash}
    found: sqlite3.Row | None = connection.execute(_sql("content"), names).fetchone()
    return found


def _sql(name: str) -> str:
    return statements("pacs_bridge", "sql/conflicts.sql")[name]


def columns(*, identifiers: bool) -> tuple[str, ...]:
    """Name the columns of `as_rows`."""
    sides = [f"{side} {what}" for side in ("kept", "other") for what in ("from", "at", "images")]
    return ("id", "study_key", "kind", "differs", *sides, *(("kept patient", "other patient") if identifiers else ()))


def as_rows(conflicts: Sequence[OpenConflict], *, identifiers: bool) -> list[tuple[object, ...]]:
    """Return a row for each conflict as people read it; patients are named only where ``identifiers`` were wanted."""
    return [
        (each.id, each.study_key, each.kind, _shortened(each.differs), *_told(each.kept), *_told(each.other))
        + ((_patient(each.kept), _patient(each.other)) if identifiers else ())
        for each in conflicts
    ]


def _told(side: Side) -> tuple[object, ...]:
    at = f"{side.first_at[:10]} {side.first_at[11:16]}Z" if side.first_at else "-"
    return ", ".join(side.callers) or "-", at, side.images


def _patient(side: Side) -> str:
    return f"{side.patient_id} {', '.join(side.patient_names)}"


def _shortened(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
    return ", ".join(names[:MOST_SHOWN]) + more


def as_json(conflicts: Sequence[OpenConflict]) -> dict[str, Any]:
    """Return the object that ``ctriage conflicts list --json`` prints; it names patients."""
    return {"conflicts": [_as_json(each) for each in conflicts]}


def _as_json(conflict: OpenConflict) -> dict[str, Any]:
    """Keep what was always told: ``kept`` and ``other`` are hashes of contents, or Patient IDs."""
    told = asdict(conflict)
    sides = {"kept": told.pop("kept"), "other": told.pop("other")}
    return {**told, "kept": sides["kept"]["name"], "other": sides["other"]["name"], "accepted_at": None, "sides": sides}
