"""How do the images of a study leave the archive, so that there is never a row without its file?

In one transaction the rows go and the files are marked; then marked files are removed, each where still no row names
it, and the marks last. After a crash at any moment the next run goes on where it ended. Whoever enters a row looks
whether its file lies there, in the same transaction that enters it (`Archive.add`).
"""

import shutil
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from sqlite3 import Connection, Row
from typing import Any, Final

import structlog

from pacs_bridge.audit import AuditEvent, Auditor, StudyShare, study_deleted
from pacs_bridge.files import sync_folder
from pacs_bridge.retention import Decision, StudyFacts, decide, stays
from pacs_bridge.settings import Retention
from scheduler.database import Database, is_passing, statements

EVERY_S: Final = 600.0
PAGE: Final = 100
FILES_AT_ONCE: Final = 200
STOP_WITHIN_S: Final = 10.0
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run did, or would do: whose images go, and of how many studies they stay, by reason."""

    removed: tuple[Decision, ...] = ()
    kept: Mapping[str, int] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """Return how much room the removed images took."""
        return sum(each.study.size_bytes for each in self.removed)


class Removal:
    """Removes images by the rules of retention; the service and `ctriage retention run` may do so side by side."""

    def __init__(
        self,
        database: Database,
        state_dir: Path,
        *,
        auditor: Auditor | None = None,
        free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        """Work with tables that are up to date and an archive that is there."""
        self._database = database
        self._folder = state_dir / "archive"
        self._auditor: Callable[[AuditEvent], None] = auditor or (lambda _: None)
        self._free_bytes = free_bytes
        self._sql = statements("pacs_bridge", "sql/retention.sql")

    def survey(self, rules: Retention, *, now: datetime) -> Outcome:
        """Say what `run` would do, and change nothing."""
        return _outcome(list(self._decisions(rules, now)))

    def run(self, rules: Retention, *, now: datetime, stop: threading.Event | None = None) -> Outcome:
        """Remove what may go, and finish what an earlier run began; ``stop`` ends it between two studies."""
        self.finish()
        done: list[Decision] = []
        for decision in self._decisions(rules, now):
            if stop is not None and stop.is_set():
                break
            if not decision.removes:
                done.append(decision)
            elif self._remove(decision, now):
                self.finish()
                done.append(decision)
        return _outcome(done)

    def finish(self) -> None:
        """Remove the marked files; doing it again is harmless."""
        while paths := self._unlinked():
            for folder in {(self._folder / path).parent for path in paths}:
                sync_folder(folder)
            with self._database.transaction() as connection:
                for path in paths:
                    connection.execute(self._sql["unmark_file"], {"path": path})

    def _unlinked(self) -> list[str]:
        """Unlink some of the marked files, but those that a row names again; returns the marks that are done with."""
        # In a transaction, since nobody can enter a row meanwhile.
        with self._database.transaction() as connection:
            marked = connection.execute(self._sql["marked_files"], {"limit": FILES_AT_ONCE}).fetchall()
            for row in marked:
                if connection.execute(self._sql["is_indexed"], dict(row)).fetchone() is None:
                    (self._folder / row["path"]).unlink(missing_ok=True)
        return [str(row["path"]) for row in marked]

    def _decisions(self, rules: Retention, now: datetime) -> Iterator[Decision]:
        if rules.days or rules.below_free_mb:
            yield from decide(self._studies(), rules, now=now, free_bytes=self._free_bytes(self._folder))

    def _studies(self) -> Iterator[StudyFacts]:
        """Yield the studies that hold images, the oldest first; each page is a look of its own at the tables."""
        after = {"after_at": "", "after_study": ""}
        while True:
            with self._database.read() as connection:
                page = connection.execute(self._sql["page"], {**after, "limit": PAGE}).fetchall()
                unfinished = self._unfinished(connection) if page else set()
                found = [self._facts(connection, row, unfinished) for row in page]
            yield from found
            if len(page) < PAGE:
                return
            after = {"after_at": page[-1]["last_received_at"], "after_study": page[-1]["study_instance_uid"]}

    def _remove(self, decision: Decision, now: datetime) -> bool:
        """Take a study out of the index and mark its files, unless something has come in between."""
        uid = decision.study.study_instance_uid
        of_study = {"study_instance_uid": uid}
        with self._database.transaction() as connection:
            row = connection.execute(self._sql["one"], of_study).fetchone()
            facts = self._facts(connection, row, self._unfinished(connection))
            if stays(facts) or not facts.images or facts.last_received_at > decision.study.last_received_at:
                return False
            share = self._share(connection, row)
            connection.execute(self._sql["mark_files"], of_study)
            connection.execute(self._sql["remove_instances"], of_study)
            noted = {"removed_at": now.isoformat(), "images": facts.images, "size_bytes": facts.size_bytes}
            connection.execute(self._sql["note_removal"], {**of_study, **noted, "rule": decision.rule})
        self._auditor(study_deleted(share, why=decision.rule, at=now))
        _log.info("images_removed", study_key=facts.study_key, images=facts.images, rule=decision.rule)
        return True

    def _unfinished(self, connection: Connection) -> set[str]:
        return {row["study_instance_uid"] for row in connection.execute(self._sql["studies_with_jobs"])}

    def _facts(self, connection: Connection, row: Row, unfinished: set[str]) -> StudyFacts:
        of_study: dict[str, Any] = {"study_instance_uid": row["study_instance_uid"]}
        return StudyFacts(
            study_instance_uid=row["study_instance_uid"],
            study_key=row["study_key"],
            last_received_at=datetime.fromisoformat(row["last_received_at"]),
            images=row["images"],
            size_bytes=row["size_bytes"],
            arriving=row["state"] == "open",
            unfinished=row["study_instance_uid"] in unfinished,
            reported=row["state"] == "kept" or _any(connection, self._sql["has_report"], of_study),
            unforwarded=connection.execute(self._sql["unforwarded"], of_study).fetchone()["images"],
            promised=_any(connection, statements("pacs_bridge", "sql/commitment.sql")["is_promised"], of_study),
            in_conflict=_any(connection, statements("pacs_bridge", "sql/archive.sql")["open_conflicts"], of_study),
        )

    def _share(self, connection: Connection, row: Row) -> StudyShare:
        classes = connection.execute(self._sql["classes_of"], {"study_instance_uid": row["study_instance_uid"]})
        return StudyShare(
            study_instance_uid=row["study_instance_uid"],
            patient_id=row["patient_id"],
            study_key=row["study_key"],
            instances=tuple((each["sop_class_uid"], each["instances"]) for each in classes),
        )


class Keeper:
    """Runs the rules of retention now and then beside the service, on a thread of its own."""

    def __init__(self, removal: Removal, rules: Retention, *, every_s: float = EVERY_S) -> None:
        """Prepare; `start` begins."""
        self._removal = removal
        self._rules = rules
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="retention")
        self._ended: Future[None] | None = None

    def start(self) -> Future[None]:
        """Finish at once what an earlier process began; then follow the rules.

        The future ends with the thread; it holds the exception when the rules can be followed no longer (a damaged
        database), and then the process should end. A full disk and a busy database are waited out.
        """
        self._ended = self._thread.submit(self._keep)
        return self._ended

    def stop(self) -> None:
        """End after the study at hand."""
        self._stop.set()
        if self._ended is not None:
            wait([self._ended], STOP_WITHIN_S)
        self._thread.shutdown(wait=False)

    def _keep(self) -> None:
        while True:
            try:
                self._removal.run(self._rules, now=datetime.now(UTC), stop=self._stop)
            except (OSError, sqlite3.OperationalError) as refused:
                if isinstance(refused, sqlite3.OperationalError) and not is_passing(refused):
                    raise
                _log.warning("images_not_removed", reason=str(refused), remedy="it is tried again by itself")
            if self._stop.wait(self._every_s):
                return


def _outcome(decisions: list[Decision]) -> Outcome:
    kept = Counter(each.kept_since for each in decisions if not each.removes)
    return Outcome(removed=tuple(each for each in decisions if each.removes), kept=dict(kept))


def _any(connection: Connection, statement: str, values: Mapping[str, Any]) -> bool:
    return connection.execute(statement, values).fetchone() is not None
