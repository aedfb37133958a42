"""Where does every received instance lie, and what is known of it: immutable files, and an index over them.

A file's name is the hash of its content, never a UID. What `store` has returned is on the disk for good; `add` puts it
into the index, inside the caller's transaction if one is open.
"""

import hashlib
import hmac
import json
import secrets
import shutil
import sqlite3
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from sqlite3 import Connection, Row
from typing import Any, Final, Literal, NewType

import structlog

from pacs_bridge.archive_files import FREE_SPACE_FLOOR_BYTES, ArchiveFiles, KeptFile, hash_of
from pacs_bridge.arrived_header import in_file
from pacs_bridge.errors import UnknownConflict, UnknownStudy
from pacs_bridge.files import sync_folder, write_whole
from pacs_bridge.instance import InstanceFacts, facts_from_json
from pacs_bridge.part10 import file_header
from pacs_bridge.settings import SettingsError
from reconstruction.headers import Header, pack
from scheduler.database import Database, migrate, statements

StudyKey = NewType("StudyKey", str)
StudyState = Literal["kept", "open", "quiet"]
SeriesState = Literal["kept", "open", "complete"]

SECRET_BYTES: Final = 32
TOUCHED_EVERY: Final = timedelta(seconds=1)
MOST_TOUCHED: Final = 1000
_NO_IDENTITY: Final = {"patient_id": "", "patient_name": "", "accession_number": "", "study_description": ""}
_log = structlog.get_logger()


class Added(Enum):
    """What the index made of an instance."""

    NEW = "new"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A Part-10 file of the archive; ``path`` is relative to the archive's folder, ``content_hash`` its content's.

    ``header`` is the packed Header of a CT image: read once, when the file came, for all who assemble it later. None
    where it has to be read from the file.
    """

    content_hash: str
    path: str
    size_bytes: int
    transfer_syntax: str
    header: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedStudy:
    """A row of the index about a study."""

    study_instance_uid: str
    study_key: StudyKey
    patient_id: str
    patient_name: str
    accession_number: str
    description: str
    state: StudyState
    evidence: str | None
    first_received_at: datetime
    last_received_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedSeries:
    """A row of the index about a series."""

    series_instance_uid: str
    study_instance_uid: str
    modality: str
    series_number: int | None
    description: str
    state: SeriesState
    evidence: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedInstance:
    """A row of the index about the current content of a SOP instance; ``path`` is absolute.

    ``header`` as in StoredFile; None also where the instance came before headers were kept.
    """

    facts: InstanceFacts
    content_hash: str
    transfer_syntax: str
    path: Path
    size_bytes: int
    is_ours: bool
    calling_ae: str
    received_at: datetime
    header: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How large a study is, what its first instance says of where it comes from, and how often images were removed."""

    images: int
    calling_ae: str
    body_part: str
    removals: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """Two contents of one SOP instance (``kept`` and ``other`` are hashes) or two patients in one study (their IDs)."""

    id: int
    kind: Literal["content", "patient"]
    study_instance_uid: str
    sop_instance_uid: str
    kept: str
    other: str
    found_at: datetime
    accepted_at: datetime | None


class Archive:
    """The files below ``state_dir/archive`` and their index. Threads may share it."""

    def __init__(
        self,
        state_dir: Path,
        database: Database,
        *,
        free_space_floor_bytes: int = FREE_SPACE_FLOOR_BYTES,
        free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        """Bring folder and index up to date, and clear away what an earlier process left half-written.

        Raises SettingsError where the key of the study keys is damaged.
        """
        self._folder = state_dir / "archive"
        self.files = ArchiveFiles(self._folder, floor_bytes=free_space_floor_bytes, free_bytes=free_bytes)
        self._database = database
        _make_folders(self._folder, self.files.incoming)
        _clear(self.files.incoming)
        self._secret = _secret(state_dir / "secret", self.files.incoming)
        migrate(database, "pacs_bridge", "sql/migrations")
        self._sql = statements("pacs_bridge", "sql/archive.sql")
        # Only looked at and changed by whoever holds the write lock.
        self._touched: dict[tuple[str, str, str], datetime] = {}

    # ---- files ------------------------------------------------------------------------------------------------------

    def store(
        self, facts: InstanceFacts, dataset: bytes, transfer_syntax: str, calling_ae: str, header: Header | None = None
    ) -> StoredFile:
        """Put a received data set on the disk, byte for byte, durably; the same content is written once.

        ``header`` is what the data set says of its pixels, where that was read in passing (``arrived_header``). Raises
        StorageFull when the disk takes no more; nothing half-written stays.
        """
        meta = file_header(facts.sop_class_uid, facts.sop_instance_uid, transfer_syntax, calling_ae)
        self.files.require_room(len(dataset))
        part = self.files.begin(meta, transfer_syntax)
        try:
            part.write(dataset)
            return stored_file(part.keep(), transfer_syntax, header)
        finally:
            part.abandon()

    # ---- index: writing ---------------------------------------------------------------------------------------------

    def add(
        self, facts: InstanceFacts, stored: StoredFile, calling_ae: str, received_at: datetime, *, is_ours: bool = False
    ) -> Added:
        """Enter an instance whose file is stored; the first content of a SOP instance stays the current one.

        A result of ours says nothing of who the patient is: a PACS may have put another Patient ID into it. Raises
        FileNotFoundError where the file is gone.
        """
        row = _as_row(facts, stored, calling_ae, received_at)
        with self._database.transaction() as connection:
            contents = connection.execute(self._sql["contents_of"], row).fetchall()
            if any(self._is_same(content["content_hash"], stored) for content in contents):
                return Added.DUPLICATE
            # Retention may just have taken the very file that its receiver found there: then its sender sends it again.
            (self._folder / stored.path).stat()
            first = not contents
            row |= {"is_current": first, "is_ours": is_ours}
            self._enter(connection, row | _NO_IDENTITY if is_ours else row, received_at)
            if first:
                return Added.NEW
            kept = next(content["content_hash"] for content in contents if content["is_current"])
            self._add_conflict(connection, row, kind="content", kept=kept, other=stored.content_hash)
            return Added.CONFLICT

    def _enter(self, connection: Connection, row: Mapping[str, Any], received_at: datetime) -> None:
        """Insert the row of an instance; those of its study and series are refreshed once a second."""
        names = (row["study_instance_uid"], row["series_instance_uid"], row["patient_id"])
        last = self._touched.get(names)
        if last is not None and timedelta(0) <= received_at - last < TOUCHED_EVERY:
            try:
                connection.execute(self._sql["add_instance"], row)
            except sqlite3.IntegrityError:  # the transaction that had made them was rolled back
                self._touched.clear()
            else:
                return
        self._touch(connection, row)
        connection.execute(self._sql["add_instance"], row)
        if len(self._touched) > MOST_TOUCHED:
            self._touched.clear()
        self._touched[names] = received_at

    def _is_same(self, known_hash: str, stored: StoredFile) -> bool:
        """Compare by the algorithm that the known content was hashed with."""
        algorithm = known_hash.partition(":")[0]
        if stored.content_hash.startswith(f"{algorithm}:"):
            return known_hash == stored.content_hash
        return known_hash == hash_of(self._folder / stored.path, algorithm)

    def set_series_state(self, study: str, series: str, state: SeriesState, evidence: str | None = None) -> None:
        """Note how far the arrival of a series is, and on which evidence."""
        row = {"study_instance_uid": study, "series_instance_uid": series, "state": state, "evidence": evidence}
        with self._database.transaction() as connection:
            connection.execute(self._sql["set_series_state"], row)

    def set_study_state(self, study: str, state: StudyState, evidence: str | None = None) -> None:
        """Note how far the arrival of a study is, and on which evidence."""
        with self._database.transaction() as connection:
            row = {"study_instance_uid": study, "state": state, "evidence": evidence}
            connection.execute(self._sql["set_study_state"], row)

    def accept(self, conflict_id: int, accepted_at: datetime) -> Conflict:
        """Close a conflict, as an administrator decided. Raises UnknownConflict when none such is open."""
        with self._database.transaction() as connection:
            row = {"id": conflict_id, "accepted_at": accepted_at.isoformat()}
            accepted = connection.execute(self._sql["accept_conflict"], row).fetchone()
        if accepted is None:
            raise UnknownConflict(conflict_id)
        return _conflict(accepted)

    def _touch(self, connection: Connection, row: Mapping[str, Any]) -> None:
        """Make or refresh the rows of study and series; a second patient in the study is a conflict."""
        study = {
            **row,
            "description": row["study_description"],
            "study_key": self.study_key(row["study_instance_uid"]),
        }
        known = connection.execute(self._sql["touch_study"], study).fetchone()["patient_id"]
        connection.execute(self._sql["touch_series"], {**row, "description": row["series_description"]})
        if row["patient_id"] not in ("", known):
            no_instance = {**row, "sop_instance_uid": ""}
            self._add_conflict(connection, no_instance, kind="patient", kept=known, other=row["patient_id"])

    def _add_conflict(self, connection: Connection, row: Mapping[str, Any], **what: str) -> None:
        found = {**row, **what, "found_at": row["received_at"]}
        if connection.execute(self._sql["add_conflict"], found).fetchone():
            _log.warning("conflict_found", kind=what["kind"], study_key=self.study_key(row["study_instance_uid"]))

    # ---- index: reading ---------------------------------------------------------------------------------------------

    def study_key(self, study: str) -> StudyKey:
        """Return the name under which a study stands in logs, file names and messages."""
        return StudyKey(hmac.new(self._secret, study.encode(), hashlib.sha256).hexdigest()[:12])

    def studies(self, limit: int = 1000) -> list[ArchivedStudy]:
        """Return the studies, the latest received first."""
        return [_study(row) for row in self._rows("studies", limit=limit)]

    def study(self, study: str) -> ArchivedStudy:
        """Return a study by its UID. Raises UnknownStudy."""
        for row in self._rows("study", study_instance_uid=study):
            return _study(row)
        raise UnknownStudy(self.study_key(study))

    def study_by_key(self, key: str) -> ArchivedStudy:
        """Return a study by its study key. Raises UnknownStudy."""
        for row in self._rows("study_by_key", study_key=key):
            return _study(row)
        raise UnknownStudy(key)

    def unfinished_studies(self) -> list[str]:
        """Return the UIDs of the studies whose arrival goes on."""
        return [row["study_instance_uid"] for row in self._rows("unfinished_studies")]

    def series_of(self, study: str) -> list[ArchivedSeries]:
        """Return the series of a study by series number."""
        return [ArchivedSeries(**row) for row in self._rows("series_of", study_instance_uid=study)]

    def instances_of(self, study: str, series: str) -> list[ArchivedInstance]:
        """Return the current instances of a series in the order they came."""
        found = self._rows("instances_of", study_instance_uid=study, series_instance_uid=series)
        return [_instance(row, self._folder) for row in found]

    def extent(self, study: str) -> Extent:
        """Return how many current instances a study has, who sent the first and which body part it names."""
        (row,) = self._rows("extent_of", study_instance_uid=study)
        of_first = {"calling_ae": row["calling_ae"] or "", "body_part": row["body_part"] or ""}
        return Extent(images=row["images"], **of_first, removals=row["removals"])

    def open_conflicts(self, study: str | None = None) -> list[Conflict]:
        """Return the conflicts nobody has accepted, of one study or of all."""
        return [_conflict(row) for row in self._rows("open_conflicts", study_instance_uid=study)]

    def chosen_contents(self, study: str) -> list[str]:
        """Return the hashes of contents that an administrator chose over those that came first, in that order."""
        with self._database.read() as connection:
            chosen = statements("pacs_bridge", "sql/conflicts.sql")["chosen_contents"]
            return [row["content_hash"] for row in connection.execute(chosen, {"study_instance_uid": study})]

    def removed_at(self, study: str) -> datetime | None:
        """Return when rules of retention last removed images of a study; None: never."""
        with self._database.read() as connection:
            removed = statements("pacs_bridge", "sql/retention.sql")["removed_at"]
            row = connection.execute(removed, {"study_instance_uid": study}).fetchone()
        return None if row is None else datetime.fromisoformat(row["removed_at"])

    def _rows(self, statement: str, **values: object) -> list[Row]:
        with self._database.read() as connection:
            return connection.execute(self._sql[statement], values).fetchall()


def stored_file(kept: KeptFile, transfer_syntax: str, header: Header | None) -> StoredFile:
    """Say of a kept file what the index needs; ``header`` counts from the start of the data set."""
    return StoredFile(
        content_hash=kept.content_hash,
        path=kept.path,
        size_bytes=kept.size_bytes,
        transfer_syntax=transfer_syntax,
        header=packed(header, kept.dataset_at),
    )


def packed(header: Header | None, dataset_at: int) -> str | None:
    """Write a Header as the index keeps it, of a file in which the data set starts at ``dataset_at``."""
    return None if header is None else pack(in_file(header, dataset_at))


def _make_folders(archive: Path, incoming: Path) -> None:
    for folder in (archive, incoming, *(archive / f"{number:02x}" for number in range(256))):
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    _close_to_others(archive)
    sync_folder(archive)
    sync_folder(archive.parent)


def _close_to_others(folder: Path) -> None:
    """Keep other local users out, also of a folder that was there before; whose it is not says so."""
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & stat.S_IRWXO:
        try:
            folder.chmod(mode & ~stat.S_IRWXO)
        except PermissionError:
            _log.warning("open_to_other_users", folder=folder.name, remedy="chmod o-rwx, as its owner")


def _clear(incoming: Path) -> None:
    for leftover in incoming.iterdir():
        try:
            leftover.unlink()
        except OSError as refused:
            _log.warning("leftover_not_removed", file=leftover.name, reason=refused.strerror)


def _secret(path: Path, incoming: Path) -> bytes:
    """Read the key of the study keys; the first start makes it, whole and for the owner alone, or not at all."""
    if not path.exists():
        made = incoming / "secret"
        write_whole(made, (secrets.token_bytes(SECRET_BYTES),), incoming)
        made.chmod(0o600)
        made.rename(path)
        sync_folder(path.parent)
    secret = path.read_bytes()
    if len(secret) < SECRET_BYTES:
        damage = f"the key of the study keys is damaged ({len(secret)} of {SECRET_BYTES} bytes)"
        remedy = "put it back from a backup, or delete it: then a new one is made, and study keys change"
        raise SettingsError((f"{path}: {damage}: {remedy}",))
    return secret


def _as_row(facts: InstanceFacts, stored: StoredFile, calling_ae: str, received_at: datetime) -> dict[str, Any]:
    told = facts.as_json()
    return {
        **told,
        "content_hash": stored.content_hash,
        "path": stored.path,
        "size_bytes": stored.size_bytes,
        "transfer_syntax": stored.transfer_syntax,
        "header": stored.header,
        "calling_ae": calling_ae,
        "received_at": received_at.isoformat(),
        "facts": json.dumps(told),
    }


def _study(row: Row) -> ArchivedStudy:
    return ArchivedStudy(**{**row, **_instants(row, "first_received_at", "last_received_at")})


def _instance(row: Row, folder: Path) -> ArchivedInstance:
    return ArchivedInstance(
        facts=facts_from_json(json.loads(row["facts"])),
        content_hash=row["content_hash"],
        transfer_syntax=row["transfer_syntax"],
        path=folder / row["path"],
        size_bytes=row["size_bytes"],
        is_ours=bool(row["is_ours"]),
        calling_ae=row["calling_ae"],
        received_at=datetime.fromisoformat(row["received_at"]),
        header=row["header"],
    )


def _conflict(row: Row) -> Conflict:
    return Conflict(**{**row, **_instants(row, "found_at", "accepted_at")})


def _instants(row: Row, *names: str) -> dict[str, datetime | None]:
    return {name: datetime.fromisoformat(row[name]) if row[name] else None for name in names}
