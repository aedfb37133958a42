"""Which of the files that are to be promised are on the disk for good? An index row may be older than its file's fsync.

Linux tells of a failed write once, and marks the pages clean: a second fsync succeeds and proves nothing, and reading
them again only reads the memory. So a file whose fsync has failed is in doubt until its content has been written anew,
under its name, with an fsync that did not fail.
"""

import os
import secrets
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Final

import structlog

from pacs_bridge.archive_files import hash_of
from pacs_bridge.commitments import Commitments, Held
from pacs_bridge.errors import CannotUnderstand
from pacs_bridge.files import sync_folder

_REMEDY: Final = "look after the disk, then `ctriage verify`"
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Durability:
    """Makes files of the archive durable, and remembers those for which that has failed. Threads may share it.

    ``sync`` makes an open file durable, ``sync_names`` the names in a folder.
    """

    commitments: Commitments
    archive_dir: Path
    now: Callable[[], datetime]
    sync: Callable[[int], None] = os.fsync
    sync_names: Callable[[Path], None] = sync_folder
    _lock: Lock = field(default_factory=Lock, repr=False)
    _doubted: set[Path] = field(default_factory=set, repr=False)

    def of(self, held: Mapping[str, Held]) -> Collection[str]:
        """Return the UIDs of those instances whose files are there, and on the disk for good.

        Those for which it failed now are failures now, also where they could be written anew at once.
        """
        hashes = {found.path: found.content_hash for found in held.values()}
        with self._lock:  # between a failed fsync and its note no other may try the same file
            doubted = self._known_doubts(hashes)
            there, failed = self._tried([path for path in hashes if path not in doubted])
            self._doubt(failed)
            mended = self._written_anew({path: hashes[path] for path in failed | doubted})
        durable = there | (mended - failed)
        return [uid for uid, found in held.items() if found.path in durable]

    def _known_doubts(self, paths: Iterable[Path]) -> set[Path]:
        noted = {self.archive_dir / each for each in self.commitments.in_doubt()}
        return {path for path in paths if path in noted or path in self._doubted}

    def _tried(self, paths: Iterable[Path]) -> tuple[set[Path], set[Path]]:
        """Sync files, then their names: those that are durable, and those that failed; what is gone is neither."""
        there, failed = set[Path](), set[Path]()
        for path in paths:
            try:
                with path.open("rb") as file:
                    self.sync(file.fileno())
            except FileNotFoundError:
                continue
            except OSError:
                failed.add(path)
            else:
                there.add(path)
        for folder in {path.parent for path in there}:
            if not self._has_names(folder):
                failed |= {path for path in there if path.parent == folder}
        return there - failed, failed

    def _has_names(self, folder: Path) -> bool:
        try:
            self.sync_names(folder)
        except OSError:
            return False
        return True

    def _doubt(self, failed: Collection[Path]) -> None:
        """Remember first in memory: the disk that has just failed may not take the note."""
        self._doubted.update(failed)
        if failed:
            _log.error("fsync_failed", files=len(failed), remedy=_REMEDY)
            self.commitments.doubt([self._name(path) for path in failed], at=self.now())

    def _written_anew(self, hashes: Mapping[Path, str]) -> set[Path]:
        mended = {path for path, content_hash in hashes.items() if self._is_written_anew(path, content_hash)}
        if mended:
            self.commitments.trust([self._name(path) for path in mended])
            self._doubted.difference_update(mended)
        return mended

    def _is_written_anew(self, path: Path, content_hash: str) -> bool:
        """Copy a file aside, and rename the copy over it when it is durable and its content is what its name says."""
        aside = self.archive_dir / "incoming" / f"{secrets.token_hex(16)}.part"
        try:
            with path.open("rb") as source, aside.open("xb", buffering=0) as copy:
                shutil.copyfileobj(source, copy)
                self.sync(copy.fileno())
            if hash_of(aside, content_hash.partition(":")[0]) != content_hash:
                return False
            shutil.copymode(path, aside)
            aside.rename(path)
            self.sync_names(path.parent)
        except (OSError, CannotUnderstand):
            return False
        finally:
            aside.unlink(missing_ok=True)
        return True

    def _name(self, path: Path) -> str:
        return path.relative_to(self.archive_dir).as_posix()
