"""What has been concluded: cached per-series results, committed Reports, and the result objects made from them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from sqlite3 import Row
from typing import Any, get_args

from pipeline import wire
from pipeline.model import KeptKind, ObjectKind, Priority, Report, StudyStatus
from scheduler.database import Database, migrate, statements

_KINDS: tuple[KeptKind, ...] = (*get_args(ObjectKind), "rejection")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptObject:
    """A finished result object: its names and the file of the object store that holds its bytes."""

    kind: KeptKind
    index: int
    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    path: str
    sha256: str
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommittedReport:
    """A Report that people read: ``report_text`` is its stored form, see ``report``.

    ``remarks`` came later, while its pictures were made.
    """

    study_instance_uid: str
    version: int
    digest: str
    provenance_key: str
    status: StudyStatus
    priority: Priority | None
    report_text: str
    timings_s: Mapping[str, float]
    remarks: tuple[str, ...]
    committed_at: datetime

    def report(self) -> Report:
        """Read the whole Report back."""
        return wire.loads(Report, self.report_text)


class Ledger:
    """The tables of conclusions, in the same file as index and queue. Writing joins an open transaction."""

    def __init__(self, database: Database) -> None:
        """Bring the tables up to date."""
        self._database = database
        migrate(database, "pacs_bridge", "sql/migrations")
        self._sql = statements("pacs_bridge", "sql/ledger.sql")

    def keep_series_result(self, study: str, series: str, *, digest: str, provenance_key: str, result: str) -> None:
        """Keep what became of one series, so that a later series of its study costs only itself."""
        self._write(
            "keep_series_result",
            study_instance_uid=study,
            series_instance_uid=series,
            digest=digest,
            provenance_key=provenance_key,
            result=result,
        )

    def series_result(self, study: str, series: str, *, digest: str, provenance_key: str) -> str | None:
        """Return the kept result of exactly these instances under exactly this code; None where there is none."""
        row = self._one(
            "series_result",
            study_instance_uid=study,
            series_instance_uid=series,
            digest=digest,
            provenance_key=provenance_key,
        )
        return None if row is None else str(row["result"])

    def commit(
        self, report: Report, *, provenance_key: str, timings_s: Mapping[str, float], objects: Sequence[KeptObject]
    ) -> None:
        """Publish a version of a study's Report with the objects made from it."""
        if report.committed_at is None:
            raise ValueError("a Report is committed at an instant")
        self._write(
            "add_report",
            study_instance_uid=report.study_instance_uid,
            version=report.version,
            digest=report.study_digest,
            provenance_key=provenance_key,
            status=report.status.value,
            priority=report.priority.value if report.priority else None,
            report=wire.dumps(report),
            timings_s=json.dumps(dict(timings_s)),
            committed_at=report.committed_at.isoformat(),
        )
        self.add_objects(report.study_instance_uid, report.version, objects)

    def add_objects(self, study: str, version: int, objects: Sequence[KeptObject]) -> None:
        """Add result objects to a committed version."""
        for kept in objects:
            self._write(
                "add_object",
                study_instance_uid=study,
                version=version,
                kind=kept.kind,
                object_index=kept.index,
                sop_instance_uid=kept.sop_instance_uid,
                sop_class_uid=kept.sop_class_uid,
                series_instance_uid=kept.series_instance_uid,
                path=kept.path,
                sha256=kept.sha256,
                label=kept.label,
            )

    def add_remarks(self, study: str, version: int, *, notes: Sequence[str], timings_s: Mapping[str, float]) -> None:
        """Keep what was noticed while a committed version's pictures were made; the Report itself stays as it is.

        The seconds of a step that is there already (both kinds of job read and write) are added up.
        """
        committed = self.version(study, version)
        before = committed.timings_s if committed else {}
        self._write(
            "add_remarks",
            study_instance_uid=study,
            version=version,
            remarks=json.dumps(list(notes)),
            timings_s=json.dumps({step: before.get(step, 0.0) + seconds for step, seconds in timings_s.items()}),
        )

    def latest(self, study: str) -> CommittedReport | None:
        """Return the current version of a study's Report."""
        row = self._one("latest_report", study_instance_uid=study)
        return None if row is None else _committed(row)

    def version(self, study: str, version: int) -> CommittedReport | None:
        """Return one version of a study's Report."""
        row = self._one("report", study_instance_uid=study, version=version)
        return None if row is None else _committed(row)

    def reports(self) -> list[CommittedReport]:
        """Return the current version of every study's Report."""
        with self._database.read() as connection:
            return [_committed(row) for row in connection.execute(self._sql["latest_reports"])]

    def objects(self, study: str, version: int) -> list[KeptObject]:
        """Return the objects of a version, flags before pictures, several series of a kind as they were built."""
        with self._database.read() as connection:
            rows = connection.execute(self._sql["objects_of"], {"study_instance_uid": study, "version": version})
            kept = [_object(row) for row in rows]
        return sorted(kept, key=lambda each: (_KINDS.index(each.kind), each.index))

    def note_sent(self, destination: str, objects: Sequence[KeptObject], sent_at: datetime) -> None:
        """Keep that a destination has these objects."""
        rows = [(each.sop_instance_uid, destination, sent_at.isoformat()) for each in objects]
        with self._database.transaction() as connection:
            connection.executemany(self._sql["note_sent"], rows)

    def superseded(self, study: str, version: int, destination: str) -> list[KeptObject]:
        """Return the results that a destination has of versions before this one and that no note has rejected yet."""
        with self._database.read() as connection:
            of = {"study_instance_uid": study, "version": version, "destination": destination}
            return [_object(row) for row in connection.execute(self._sql["superseded"], of)]

    def note_rejected(self, destination: str, objects: Sequence[KeptObject], note: KeptObject) -> None:
        """Keep that a rejection note for a destination lists these objects."""
        rows = [(note.sop_instance_uid, each.sop_instance_uid, destination) for each in objects]
        with self._database.transaction() as connection:
            connection.executemany(self._sql["note_rejected"], rows)

    def is_result(self, sop_instance_uid: str) -> bool:
        """Say whether this is the name of a result of ours, come back."""
        return self._one("is_result", sop_instance_uid=sop_instance_uid) is not None

    def object_paths(self) -> set[str]:
        """Return every file of the object store that a committed version needs."""
        with self._database.read() as connection:
            return {str(row["path"]) for row in connection.execute(self._sql["object_paths"])}

    def _write(self, statement: str, **values: Any) -> None:
        with self._database.transaction() as connection:
            connection.execute(self._sql[statement], values)

    def _one(self, statement: str, **values: Any) -> Row | None:
        with self._database.read() as connection:
            row: Row | None = connection.execute(self._sql[statement], values).fetchone()
            return row


def _committed(row: Row) -> CommittedReport:
    return CommittedReport(
        study_instance_uid=row["study_instance_uid"],
        version=row["version"],
        digest=row["digest"],
        provenance_key=row["provenance_key"],
        status=StudyStatus(row["status"]),
        priority=Priority(row["priority"]) if row["priority"] else None,
        report_text=row["report"],
        timings_s=json.loads(row["timings_s"]),
        remarks=tuple(json.loads(row["remarks"])),
        committed_at=datetime.fromisoformat(row["committed_at"]),
    )


def _object(row: Row) -> KeptObject:
    return KeptObject(
        kind=row["kind"],
        index=row["object_index"],
        sop_instance_uid=row["sop_instance_uid"],
        sop_class_uid=row["sop_class_uid"],
        series_instance_uid=row["series_instance_uid"],
        path=row["path"],
        sha256=row["sha256"],
        label=row["label"],
    )
