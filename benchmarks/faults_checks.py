"""After all that broke: what was answered Success and is lost, and what else is not as it must be?

Each check reads what is on the disk, in the index and in the PACS; none asks the service.
"""

import json
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from benchmarks.faults_load import Journal, digest
from benchmarks.received import dataset_of, read_only
from benchmarks.service import ReceivingPacs
from pacs_bridge.archive import Archive, ArchivedInstance, ArchivedStudy
from pacs_bridge.ledger import Ledger
from pacs_bridge.status import read_status
from pipeline.select import digest_of
from scheduler.database import Database

BUILT_IN = ("folder",)
"""The destination that is a folder beside the state."""


class Wrong(StrEnum):
    """What may be wrong, in the words that are printed."""

    LOST = "an instance answered Success is not in the archive with its bytes"
    DANGLING = "the index names a file that is not there"
    STRANGE = "the archive holds a content that no sender's bytes made"
    NOT_SENT = "sending did not end as it must"
    REPORT = "a study has no current Report over all of its instances"
    PACS = "the PACS does not hold a result as it was made"
    STUCK = "a job is stuck"
    LEFTOVER = "a half-written file was left behind"
    NOT_STARTED = "the service did not start again"
    BLIND = "a check did not find what was planted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """What is wrong, and how it came to be."""

    wrong: Wrong
    story: str

    def __str__(self) -> str:
        return f"{self.wrong}: {self.story}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the checks look at; the service is stopped. ``sent_kinds``: which objects the PACS was to get."""

    state_dir: Path
    journal: Journal
    pacs: ReceivingPacs
    sent_kinds: Collection[str]


def violations(evidence: Evidence) -> list[Violation]:
    """Return everything that is wrong."""
    found = list(_leftovers(evidence))  # first: opening the archive clears them away
    database = Database(evidence.state_dir / "ctriage.sqlite")
    try:
        looked = _Look(evidence=evidence, archive=Archive(evidence.state_dir, database), ledger=Ledger(database))
        for check in _CHECKS:
            found.extend(check(looked))
    finally:
        database.close()
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    evidence: Evidence
    archive: Archive
    ledger: Ledger

    def studies(self) -> list[ArchivedStudy]:
        return self.archive.studies(limit=10**6)

    def instances(self, study: str) -> Iterator[ArchivedInstance]:
        for series in self.archive.series_of(study):
            yield from self.archive.instances_of(study, series.series_instance_uid)

    def study_named(self, study: ArchivedStudy) -> str:
        return f"{study.patient_id or 'a study'} ({study.study_key})"


def _leftovers(evidence: Evidence) -> Iterator[Violation]:
    for path in (evidence.state_dir / "archive" / "incoming").iterdir():
        yield Violation(wrong=Wrong.LEFTOVER, story=f"archive/incoming/{path.name} after a restart")


def _lost(look: _Look) -> Iterator[Violation]:
    """Every instance answered Success: its name and content stand in the index, and the file says the same.

    A content that the line has changed may stand under the name that it states now.
    """
    held = _indexed_contents(look.evidence.state_dir)
    contents = {content for _, content in held}
    for (uid, content), each in look.evidence.journal.accepted.items():
        was_changed = content != digest(each.dataset)
        if (uid, content) not in held and not (was_changed and content in contents):
            why = "its content is another" if any(uid == name for name, _ in held) else "the index lacks it"
            story = f"{each.name}: {why}; {look.evidence.journal.story(each)}"
            yield Violation(wrong=Wrong.LOST, story=story)


def _dangling(look: _Look) -> Iterator[Violation]:
    for _, path in _indexed_files(look.evidence.state_dir):
        if not path.is_file():
            yield Violation(wrong=Wrong.DANGLING, story=path.name)


def _indexed_contents(state_dir: Path) -> set[tuple[str, bytes]]:
    """Return (SOP Instance UID, content) of every row of the index, superseded contents too, whose file is there."""
    return {(uid, digest(dataset_of(path))) for uid, path in _indexed_files(state_dir) if path.is_file()}


def _indexed_files(state_dir: Path) -> list[tuple[str, Path]]:
    with read_only(state_dir / "ctriage.sqlite") as connection:
        rows = connection.execute("select sop_instance_uid, path from instances").fetchall()
    return [(row["sop_instance_uid"], state_dir / "archive" / row["path"]) for row in rows]


def _strange(look: _Look) -> Iterator[Violation]:
    """Every file of the archive, in the index or not: what was sent, or what the line made of it in clear."""
    archive = look.evidence.state_dir / "archive"
    for path in archive.glob("*/*"):
        if path.is_file() and digest(dataset_of(path)) not in look.evidence.journal.reached:
            yield Violation(wrong=Wrong.STRANGE, story=f"{path.relative_to(archive)}, {path.stat().st_size} bytes")


def _not_sent(look: _Look) -> Iterator[Violation]:
    for problem in look.evidence.journal.problems:
        yield Violation(wrong=Wrong.NOT_SENT, story=problem)


def _reports(look: _Look) -> Iterator[Violation]:
    """The latest version of each study covers exactly the instances that the index holds of it."""
    for study in look.studies():
        read = {i.facts.sop_instance_uid for i in look.instances(study.study_instance_uid) if _may_be_read(i)}
        latest = look.ledger.latest(study.study_instance_uid)
        if not read or (latest is not None and latest.digest == digest_of(read)):
            continue
        said = "no Report" if latest is None else f"version {latest.version} covers other instances"
        story = f"{look.study_named(study)}, {study.state}, {len(read)} images: {said}"
        yield Violation(wrong=Wrong.REPORT, story=story)


def _may_be_read(instance: ArchivedInstance) -> bool:
    return not instance.is_ours and instance.facts.is_ct


def _pacs(look: _Look) -> Iterator[Violation]:
    """Each object of a current version lies in the PACS with its bytes; nothing lies there that was never committed."""
    held = look.evidence.pacs.held()
    for study in look.studies():
        latest = look.ledger.latest(study.study_instance_uid)
        if latest is None or look.archive.open_conflicts(study.study_instance_uid):
            continue
        for each in look.ledger.objects(study.study_instance_uid, latest.version):
            if each.kind not in look.evidence.sent_kinds:
                continue
            arrived = held.get(each.sop_instance_uid)
            made = look.evidence.state_dir / "objects" / each.path
            if arrived is None or arrived.dataset != dataset_of(made):
                lacks = "lacks" if arrived is None else "holds with other bytes"
                story = f"{lacks} the {each.kind} {each.index} of {look.study_named(study)}, version {latest.version}"
                yield Violation(wrong=Wrong.PACS, story=story)
    yield from _pacs_strangers(look)


def _pacs_strangers(look: _Look) -> Iterator[Violation]:
    contents: dict[str, set[bytes]] = {}
    for each in look.evidence.pacs.arrived:
        contents.setdefault(each.sop_instance_uid, set()).add(each.dataset)
    for uid, ways in contents.items():
        if not look.ledger.is_result(uid):
            yield Violation(wrong=Wrong.PACS, story="it holds an object that belongs to no committed version")
        if len(ways) > 1:
            yield Violation(wrong=Wrong.PACS, story=f"one object came with {len(ways)} different contents")


def _stuck(look: _Look) -> Iterator[Violation]:
    """Nothing waits, runs, is held or was given up; a study with two patients waits for a person, as it must."""
    status = read_status(look.evidence.state_dir / "ctriage.sqlite")
    waits_for_a_person = {row["study_key"] for row in status["conflicts"] if row["kind"] == "patient"}
    for row in (*status["jobs"], *status["deliveries"]):
        if row["state"] in ("done", "cancelled") or row["study_key"] in waits_for_a_person:
            continue
        yield Violation(wrong=Wrong.STUCK, story=json.dumps({k: v for k, v in row.items() if v is not None}))
    for study in status["studies"]:
        if study["state"] == "open":
            yield Violation(wrong=Wrong.STUCK, story=f"study {study['study_key']} is still arriving")


_CHECKS: Sequence[Callable[[_Look], Iterator[Violation]]] = (
    _lost,
    _dangling,
    _strange,
    _not_sent,
    _reports,
    _pacs,
    _stuck,
)


# ---- can the checks fail? -------------------------------------------------------------------------------------------


def plant_losses(evidence: Evidence) -> dict[Wrong, str]:
    """Spoil what the checks look at, each thing in another way; returns what must be found now.

    A file of the archive is removed, a byte of another changed, a row of the index deleted, a Report lost, the PACS
    robbed of an object, a job left waiting and a half-written file laid down.
    """
    database = sqlite3.connect(evidence.state_dir / "ctriage.sqlite")
    try:
        _rob_archive(evidence, database)
        database.execute("update jobs set status = 'ready' where key in (select key from jobs limit 1)")
        database.execute(
            "update reports set digest = 'other' where (study_instance_uid, version) in"
            " (select study_instance_uid, max(version) from reports group by 1 limit 1)"
        )
        _rob_pacs(evidence, database)
        database.commit()
    finally:
        database.close()
    (evidence.state_dir / "archive" / "incoming" / "planted.part").write_bytes(b"half")
    return {
        Wrong.LOST: "a removed file, a changed byte and a deleted row",
        Wrong.DANGLING: "a removed file",
        Wrong.STRANGE: "a changed byte",
        Wrong.REPORT: "a Report over other instances",
        Wrong.PACS: "an object that the PACS has lost",
        Wrong.STUCK: "a waiting job",
        Wrong.LEFTOVER: "a half-written file",
    }


LOST_BY_PLANTING = 3


def _rob_archive(evidence: Evidence, database: sqlite3.Connection) -> None:
    rows: list[tuple[Any, ...]] = database.execute("select id, path from instances order by id limit 3").fetchall()
    (_, removed), (_, changed), (deleted, _) = rows
    archive = evidence.state_dir / "archive"
    (archive / removed).unlink()
    content = bytearray((archive / changed).read_bytes())
    content[-1] ^= 1
    (archive / changed).chmod(0o600)
    (archive / changed).write_bytes(content)
    database.execute("delete from instances where id = ?", (deleted,))


def _rob_pacs(evidence: Evidence, database: sqlite3.Connection) -> None:
    of_current = (
        "select sop_instance_uid from result_objects where (study_instance_uid, version) in"
        " (select study_instance_uid, max(version) from reports group by 1)"
    )
    current = {uid for (uid,) in database.execute(of_current)}
    robbed = next(uid for uid in evidence.pacs.held() if uid in current)
    evidence.pacs.arrived[:] = [each for each in evidence.pacs.arrived if each.sop_instance_uid != robbed]
