"""What of the archive has been passed on to whom: promised, sent, or refused and why.

One row for each destination and archived instance, written in the transaction that enters the instance into the index,
or publishes the Report that a rule waited for. A re-send of the same bytes is no new instance, so it has no new row.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from sqlite3 import Connection, Row
from typing import Any

from pacs_bridge.forward_rules import ForwardFacts, ForwardRules, Verdict
from pacs_bridge.instance import InstanceFacts
from pipeline.model import Priority, Report
from scheduler.database import Database, migrate, statements


@dataclass(frozen=True, slots=True, kw_only=True)
class Unbatched:
    """What waits for a job: the instances of one study for one destination, and when the first and last were noted."""

    destination: str
    study_instance_uid: str
    instances: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardItem:
    """One archived instance on its way; ``path`` is absolute. Not current: another content has taken its place."""

    instance_id: int
    path: Path
    size_bytes: int
    sop_class_uid: str
    transfer_syntax: str
    is_current: bool


class ForwardLedger:
    """The rows of what is passed on. Writing joins an open transaction; threads may share it."""

    def __init__(self, database: Database, rules: ForwardRules, archive_dir: Path) -> None:
        """Bring the tables up to date; ``archive_dir`` is the folder that the paths of the index lie in."""
        migrate(database, "pacs_bridge", "sql/migrations")
        self._database = database
        self._rules = rules
        self._archive_dir = archive_dir
        self._sql = statements("pacs_bridge", "sql/forwards.sql")

    def note(self, facts: InstanceFacts, calling_ae: str, at: datetime) -> tuple[str, ...]:
        """Promise an instance that is new to the index to the destinations that rules name, and return their names.

        To be called in the transaction that entered it. What this archive made itself, come back, is not promised to
        anybody; what another ctriage made is. Costs no statement where no rule matches.
        """
        if not self._rules.rules:
            return ()
        asked = ForwardFacts(
            caller=calling_ae,
            modality=facts.modality,
            descriptions=(facts.study_description, facts.series_description),
        )
        chosen = self._rules.destinations(asked, self._verdicts(facts.study_instance_uid))
        if chosen:
            row = {"sop_instance_uid": facts.sop_instance_uid, "at": at.isoformat()}
            with self._database.transaction() as connection:
                connection.executemany(self._sql["note"], [{**row, "destination": name} for name in chosen])
        return chosen

    def note_report(self, report: Report, at: datetime) -> None:
        """Promise what is there of a study to the destinations that rules about its Report name, and what comes late.

        To be called in the transaction that commits the version.
        """
        if not self._rules.ask_for_verdicts:
            return
        study = {"study_instance_uid": report.study_instance_uid, "at": at.isoformat()}
        findings = json.dumps(sorted({finding.kind for finding in report.findings}))
        said = {"findings": findings, "priority": report.priority.value if report.priority else ""}
        with self._database.transaction() as connection:
            connection.execute(self._sql["add_verdict"], {**study, **said})
            verdicts = self._verdicts(report.study_instance_uid)
            for kind in connection.execute(self._sql["kinds_of_instances"], study).fetchall():
                chosen = self._rules.destinations(_facts(kind), verdicts)
                connection.executemany(
                    self._sql["note_all"], [{**study, **dict(kind), "destination": name} for name in chosen]
                )

    def transaction(self) -> AbstractContextManager[Connection]:
        """Let a batch and its job be made together, or not at all."""
        return self._database.transaction()

    def unbatched(self) -> list[Unbatched]:
        """Return what waits for a job, the longest waiting first."""
        return [
            Unbatched(**{**row, **{name: datetime.fromisoformat(row[name]) for name in ("first_at", "last_at")}})
            for row in self._rows("unbatched")
        ]

    def unbatched_sizes(self, waiting: Unbatched) -> list[tuple[int, int]]:
        """Return the number in the index and the bytes of each instance that waits, in the order they came."""
        of_study = {"destination": waiting.destination, "study_instance_uid": waiting.study_instance_uid}
        return [(row["instance_id"], row["size_bytes"]) for row in self._rows("unbatched_of", **of_study)]

    def make_batch(self, waiting: Unbatched, instance_ids: Sequence[int]) -> int:
        """Bind instances to a job to come, in the caller's transaction, and return the number of their batch."""
        of_study = {"destination": waiting.destination, "study_instance_uid": waiting.study_instance_uid}
        with self._database.transaction() as connection:
            number = int(connection.execute(self._sql["add_batch"], of_study).fetchone()["number"])
            rows = [{**of_study, "batch": number, "instance_id": each} for each in instance_ids]
            connection.executemany(self._sql["assign"], rows)
        return number

    def batch(self, number: int) -> list[ForwardItem]:
        """Return what of a batch is still to be sent, in the order it came."""
        return [_item(row, self._archive_dir) for row in self._rows("batch", batch=number)]

    def settle(
        self, destination: str, number: int, *, arrived: Sequence[int], refused: Mapping[int, str], at: datetime
    ) -> None:
        """Note what of a batch arrived, and what the destination will never take; the rest stays pending."""
        row: dict[str, Any] = {"destination": destination, "batch": number, "at": at.isoformat()}
        ended = [{**row, "instance_id": each, "state": "sent", "reason": None} for each in arrived]
        ended += [{**row, "instance_id": each, "state": "refused", "reason": why} for each, why in refused.items()]
        with self._database.transaction() as connection:
            connection.executemany(self._sql["settle"], ended)

    def withdraw(self, destination: str, instance_ids: Sequence[int]) -> None:
        """Forget what was promised and not sent yet: another content has become the current one."""
        rows = [{"destination": destination, "instance_id": each} for each in instance_ids]
        with self._database.transaction() as connection:
            connection.executemany(self._sql["withdraw"], rows)

    def priority(self, study: str) -> Priority | None:
        """Return the most urgent priority that a version of the study's Report has given, for rules that asked."""
        given = {verdict.priority for verdict in self._verdicts(study)}
        return next((each for each in Priority if each in given), None)

    def _verdicts(self, study: str) -> tuple[Verdict, ...]:
        if not self._rules.ask_for_verdicts:
            return ()
        return tuple(_verdict(row) for row in self._rows("verdicts_of", study_instance_uid=study))

    def _rows(self, statement: str, **values: object) -> list[Row]:
        with self._database.read() as connection:
            return connection.execute(self._sql[statement], values).fetchall()


def bring_back(connection: Connection, destination: str, study: str | None, *, at: datetime) -> int:
    """Let what a destination refused, of one study or of all, be sent again; returns how many instances."""
    where = {"destination": destination, "study_instance_uid": study, "at": at.isoformat()}
    return len(connection.execute(statements("pacs_bridge", "sql/forwards.sql")["bring_back"], where).fetchall())


def _facts(row: Row) -> ForwardFacts:
    return ForwardFacts(
        caller=row["calling_ae"],
        modality=row["modality"],
        descriptions=(row["study_description"], row["series_description"]),
    )


def _verdict(row: Row) -> Verdict:
    priority = Priority(row["priority"]) if row["priority"] else None
    return Verdict(findings=frozenset(json.loads(row["findings"])), priority=priority)


def _item(row: Row, folder: Path) -> ForwardItem:
    return ForwardItem(
        instance_id=row["instance_id"],
        path=folder / row["path"],
        size_bytes=row["size_bytes"],
        sop_class_uid=row["sop_class_uid"],
        transfer_syntax=row["transfer_syntax"],
        is_current=bool(row["is_current"]),
    )
