"""Does every file of the archive still hold what was kept? Reads files and index, and never changes anything.

What was received is hashed as it was when it came (`content_hash`), result objects by their SHA-256. Reading is held
back to a pace, and leaves nothing in the page cache, so that a running service keeps its disk and its memory.
"""

import hashlib
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

from pacs_bridge.archive_files import content_hasher
from pacs_bridge.beside_service import looked_at
from pacs_bridge.errors import CannotUnderstand
from pacs_bridge.part10 import read_file
from pacs_bridge.status import uid_of
from scheduler.database import statements

PAGE: Final = 500
BLOCK_BYTES: Final = 2**20
SETTLED_S: Final = 600.0
"""A file that no row names may still be on its way into the index while it is younger than this."""

Kind = Literal["missing", "damaged", "orphaned"]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A file that is not as it was kept, or that nobody names; ``path`` is relative to the state_dir."""

    kind: Kind
    path: str
    detail: str
    study_key: str | None = None
    sop_instance_uid: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How many files were read, and what is wrong."""

    files: int
    size_bytes: int
    problems: tuple[Problem, ...] = ()

    @property
    def intact(self) -> bool:
        """Say whether nothing that was kept is missing or damaged; a file that nobody names does no harm."""
        return all(problem.kind == "orphaned" for problem in self.problems)

    def as_json(self) -> dict[str, Any]:
        """Return the object that ``ctriage verify --json`` prints."""
        counts = Counter(problem.kind for problem in self.problems)
        kinds = {kind: counts[kind] for kind in ("missing", "damaged", "orphaned")}
        problems = [asdict(problem) for problem in self.problems]
        return {"intact": self.intact, "files": self.files, "bytes": self.size_bytes, **kinds, "problems": problems}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What is looked at: everything, or one study by its key, or what came since an instant."""

    study_key: str | None = None
    since: datetime | None = None

    @property
    def is_everything(self) -> bool:
        """Say whether files that nobody names can be told."""
        return self.study_key is None and self.since is None


def verify(
    database: Path,
    state_dir: Path,
    scope: Scope,
    *,
    pace: Callable[[int], object] = lambda _bytes: None,
    progress: Progress = lambda _what, _done, _total: None,
) -> Verdict:
    """Hash every file in scope anew and compare; ``progress`` is told how many of them are behind us.

    ``pace`` is told of bytes that were read, and returns when more may be (`Throttle.take`).
    Raises NoState where there is no database or one of another version, UnknownStudy.
    """
    with looked_at(database) as connection:
        study = None if scope.study_key is None else uid_of(connection, scope.study_key)
        since = None if scope.since is None else scope.since.isoformat()
        looking = _Looking(
            connection=connection,
            state_dir=state_dir,
            where={"study": study, "since": since},
            pace=pace,
            progress=progress,
        )
        looking.through("instances", looking.of_instance)
        looking.through("objects", looking.of_object)
        if scope.is_everything:
            looking.for_orphans()
    return Verdict(files=looking.files, size_bytes=looking.size_bytes, problems=tuple(looking.problems))


_Row = sqlite3.Row


@dataclass(slots=True, kw_only=True)
class _Looking:
    """One call of `verify` under way."""

    connection: sqlite3.Connection
    state_dir: Path
    where: Mapping[str, Any]
    pace: Callable[[int], object]
    progress: Progress
    files: int = 0
    size_bytes: int = 0
    problems: list[Problem] = field(default_factory=list)

    def through(self, name: str, look: Callable[[_Row], Problem | None]) -> None:
        """Look at each row of a kind; what came after we began is left for the next time."""
        (extent,) = self._rows(f"{name}_extent", **self.where)
        after, done = 0, 0
        while page := self._rows(name, **self.where, after=after, last=extent["last"], limit=PAGE):
            for row in page:
                problem = look(row)
                if problem is not None:
                    self.problems.append(problem)
                done += 1
                self.progress(name, done, max(done, extent["files"]))
            after = page[-1]["id"]

    def of_instance(self, row: _Row) -> Problem | None:
        """Compare what was received; what the rules of retention take while we look is no loss."""
        path = Path("archive") / row["path"]
        found = self._instance_fault(self.state_dir / path, row)
        if found is None or not self._rows("is_instance", path=row["path"], sop_instance_uid=row["sop_instance_uid"]):
            return None
        return _problem(found, path, row)

    def of_object(self, row: _Row) -> Problem | None:
        """Compare what was made."""
        path = Path("objects") / row["path"]
        found = self._fault_of(self.state_dir / path, 0, hashlib.sha256(), row["sha256"])
        return None if found is None else _problem(found, path, row)

    def for_orphans(self) -> None:
        """Tell files that no row names; of one that was just written the row may be on its way."""
        known_bad = {problem.path for problem in self.problems}
        archived = sorted((self.state_dir / "archive").glob("[0-9a-f][0-9a-f]/*"))
        for done, path in enumerate(archived, start=1):
            relative = str(path.relative_to(self.state_dir))
            if relative not in known_bad and self._is_settled(path) and not self._is_named(path):
                self.problems.append(Problem(kind="orphaned", path=relative, detail="no row of the index names it"))
            self.progress("files without a name", done, len(archived))

    def _instance_fault(self, path: Path, row: _Row) -> tuple[Kind, str] | None:
        try:
            file = read_file(path)
        except FileNotFoundError:
            return "missing", "there is no such file"
        except OSError as refused:
            return "damaged", f"cannot be read: {refused.strerror}"
        except CannotUnderstand as damage:
            return "damaged", f"no Part-10 file any more ({damage.reason})"
        says = (file.sop_class_uid, file.sop_instance_uid, file.transfer_syntax)
        if says != (row["sop_class_uid"], row["sop_instance_uid"], row["transfer_syntax"]):
            return "damaged", "its file meta information is not what was kept"
        algorithm, _, digest = row["content_hash"].partition(":")
        return self._fault_of(path, file.offset, content_hasher(algorithm, row["transfer_syntax"]), digest)

    def _fault_of(self, path: Path, offset: int, hasher: Any, expected: str) -> tuple[Kind, str] | None:
        try:
            for block in self._blocks(path, offset):
                hasher.update(block)
        except FileNotFoundError:
            return "missing", "there is no such file"
        except OSError as refused:
            return "damaged", f"cannot be read: {refused.strerror}"
        return None if hasher.hexdigest() == expected else ("damaged", "its content is not what was kept")

    def _blocks(self, path: Path, offset: int) -> Iterator[bytes]:
        with path.open("rb", buffering=0) as content:
            content.seek(offset)
            while block := content.read(BLOCK_BYTES):
                self.size_bytes += len(block)
                self.pace(len(block))
                yield block
            os.posix_fadvise(content.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        self.files += 1

    def _is_settled(self, path: Path) -> bool:
        try:
            return time.time() - path.stat().st_mtime > SETTLED_S
        except FileNotFoundError:
            return False

    def _is_named(self, path: Path) -> bool:
        relative = str(path.relative_to(self.state_dir / "archive"))
        if self._rows("is_marked", path=relative):
            return True
        try:
            uid = read_file(path).sop_instance_uid
        except FileNotFoundError:
            return True
        except (OSError, CannotUnderstand):
            return False
        return bool(self._rows("is_instance", path=relative, sop_instance_uid=uid))

    def _rows(self, statement: str, **values: Any) -> Sequence[_Row]:
        return self.connection.execute(statements("pacs_bridge", "sql/verify.sql")[statement], values).fetchall()


def _problem(found: tuple[Kind, str], path: Path, row: _Row) -> Problem:
    kind, detail = found
    uid = row["sop_instance_uid"]
    return Problem(kind=kind, path=str(path), detail=detail, study_key=row["study_key"], sop_instance_uid=uid)
