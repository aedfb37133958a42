"""How do the bytes of one instance become a file of the archive, durable and named by its content?

Receivers write here while fragments arrive; whoever owns the index enters what `keep` has returned. No index is needed,
and any number of processes may write side by side.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from blake3 import blake3

from pacs_bridge.errors import StorageFull
from pacs_bridge.files import begin_writeback, sync_file, sync_folder, write_all
from pacs_bridge.part10 import read_file

FREE_SPACE_FLOOR_BYTES: Final = 512 * 2**20
_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)
_COMPARED_AT_ONCE: Final = 1 << 20
_ROOM_LOOKED_AT_EVERY: Final = 16 * 2**20
_WRITTEN_BACK_EVERY: Final = 2**18


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptFile:
    """A Part-10 file that is on the disk for good: ``path`` below the archive's folder, its data set at ``dataset_at``.

    ``content_hash`` is of transfer syntax and data set: ``blake3:`` and hexadecimal digits.
    """

    content_hash: str
    path: str
    size_bytes: int
    dataset_at: int


def content_hasher(algorithm: str, transfer_syntax: str) -> Any:
    """Return a hash object that waits for the data set; raises KeyError for an algorithm nobody used.

    Instances that came before BLAKE3 was chosen have ``sha256``.
    """
    makers: dict[str, Callable[[], Any]] = {"blake3": blake3, "sha256": hashlib.sha256}
    hasher = makers[algorithm]()
    hasher.update(transfer_syntax.encode("ascii"))
    return hasher


def hash_of(path: Path, algorithm: str) -> str:
    """Hash the data set that lies in a file of the archive, anew. Raises OSError, CannotUnderstand."""
    file = read_file(path)
    hasher = content_hasher(algorithm, file.transfer_syntax)
    with path.open("rb") as content:
        content.seek(file.offset)
        while block := content.read(_COMPARED_AT_ONCE):
            hasher.update(block)
    return f"{algorithm}:{hasher.hexdigest()}"


class ArchiveFiles:
    """The folder ``state_dir/archive`` and how much of its disk must stay free. Threads may share it."""

    def __init__(
        self,
        folder: Path,
        *,
        floor_bytes: int = FREE_SPACE_FLOOR_BYTES,
        free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
        sync: Callable[[int], None] = os.fsync,
    ) -> None:
        """Take a folder that `Archive` has prepared; ``sync`` makes an open file durable."""
        self.sync = sync
        self.folder = folder
        self.incoming = folder / "incoming"
        self.floor_bytes = floor_bytes
        self._free_bytes = free_bytes

    def require_room(self, wanted_bytes: int = 0) -> None:
        """Raise StorageFull where that many bytes would leave less free than must stay."""
        left = self._free_bytes(self.folder) - self.floor_bytes
        if left < wanted_bytes:
            raise StorageFull(max(left, 0))

    def begin(self, meta: bytes, transfer_syntax: str) -> "PartFile":
        """Open a file for a data set to come, its file meta information ``meta`` before it. Raises StorageFull."""
        self.require_room(len(meta))
        with translated():
            return PartFile(self, meta, transfer_syntax)


class PartFile:
    """A file that is being written below ``incoming``; `keep` it or `abandon` it."""

    __slots__ = (
        "_aside",
        "_dataset_at",
        "_descriptor",
        "_files",
        "_hasher",
        "_room_looked_at",
        "_transfer_syntax",
        "_unsettled",
        "_written_back",
        "size_bytes",
    )

    def __init__(self, files: ArchiveFiles, meta: bytes, transfer_syntax: str) -> None:
        """Open the file; see `ArchiveFiles.begin`."""
        self._files = files
        self._transfer_syntax = transfer_syntax
        self._aside = files.incoming / f"{secrets.token_hex(16)}.part"
        self._descriptor = os.open(self._aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        self._hasher = content_hasher("blake3", transfer_syntax)
        self._dataset_at = len(meta)
        self._unsettled: tuple[bool, Path] | None = None
        self._room_looked_at = _ROOM_LOOKED_AT_EVERY
        self._written_back = 0
        self.size_bytes = 0
        """Bytes of the data set so far."""
        write_all(self._descriptor, meta)

    def write(self, fragment: bytes | bytearray | memoryview) -> None:
        """Append a part of the data set. Raises StorageFull; then only `abandon` is left."""
        with translated():
            write_all(self._descriptor, fragment)
        self._hasher.update(fragment)
        self.size_bytes += len(fragment)
        if self.size_bytes - self._written_back >= _WRITTEN_BACK_EVERY:
            self._written_back = self.size_bytes
            begin_writeback(self._descriptor)
        if self.size_bytes > self._room_looked_at:
            self._room_looked_at = self.size_bytes + _ROOM_LOOKED_AT_EVERY
            self._files.require_room()

    def keep(self) -> KeptFile:
        """Give the file its name, durably; the same content is kept once. Raises StorageFull, OSError."""
        try:
            kept = self.place()
            self.settle()
        finally:
            self.abandon()
        return kept

    def place(self) -> KeptFile:
        """Give the file its name, which only `settle` makes durable. Raises StorageFull, OSError.

        The name comes before the fsync, which spares a commit of the file system's journal: a name promises nothing,
        and what is found under it is compared, not believed.
        """
        self._files.require_room()
        digest = self._hasher.hexdigest()
        folder = self._files.folder / digest[:2]
        target = folder / f"{digest}.dcm"
        dataset_at = self._dataset_at
        with translated():
            known = self._held_at(target)
            if known is None:
                self._aside.rename(target)
            else:
                dataset_at = known
            self._unsettled = (known is not None, target)
        return KeptFile(
            content_hash=f"blake3:{digest}",
            path=f"{digest[:2]}/{digest}.dcm",
            size_bytes=dataset_at + self.size_bytes,
            dataset_at=dataset_at,
        )

    def settle(self) -> None:
        """Make what was placed durable, content and name. Raises StorageFull, OSError.

        Also where the same content was there already: whoever placed it may not have come this far.
        """
        if self._unsettled is None:
            return
        there_already, target = self._unsettled
        with translated():
            if not (there_already and _is_synced(target)):
                self._sync_as(target)
            sync_folder(target.parent)

    def _sync_as(self, target: Path) -> None:
        """Make our own file durable under this name; where that fails, no file may be taken for a durable one.

        Linux tells of a failed write once and then forgets it, so a second fsync of the same pages proves nothing.
        """
        try:
            if self._aside.exists():
                self._aside.rename(target)
            self._files.sync(self._descriptor)
        except OSError:
            target.unlink(missing_ok=True)
            raise

    def copied(self, meta: bytes) -> "PartFile":
        """Begin again with other meta information and the same data set, and abandon this one. Raises StorageFull."""
        copy = self._files.begin(meta, self._transfer_syntax)
        for start in range(0, self.size_bytes, _COMPARED_AT_ONCE):
            copy.write(self.read(min(_COMPARED_AT_ONCE, self.size_bytes - start), start))
        self.abandon()
        return copy

    def abandon(self) -> None:
        """Close the file, and remove it unless it was placed. Doing it again is harmless."""
        if self._descriptor < 0:
            return
        os.close(self._descriptor)
        self._descriptor = -1
        if self._unsettled is None or self._unsettled[0]:
            self._aside.unlink(missing_ok=True)

    def read(self, count: int, at: int = 0) -> bytes:
        """Read bytes of the data set back, from byte ``at`` of it."""
        return os.pread(self._descriptor, count, self._dataset_at + at)

    @property
    def descriptor(self) -> int:
        """The open file, for reading back; the data set starts at `dataset_at`."""
        return self._descriptor

    @property
    def dataset_at(self) -> int:
        """Where in the file the data set starts."""
        return self._dataset_at

    def _held_at(self, target: Path) -> int | None:
        """Say where in ``target`` this very data set starts; None where there is no such file, or a damaged one."""
        try:
            size = target.stat().st_size
        except FileNotFoundError:
            return None
        at = size - self.size_bytes
        if at < 0:
            return None
        with target.open("rb") as held:
            held.seek(at)
            for start in range(0, self.size_bytes, _COMPARED_AT_ONCE):
                count = min(_COMPARED_AT_ONCE, self.size_bytes - start)
                if held.read(count) != self.read(count, start):
                    return None
        return at


def _is_synced(path: Path) -> bool:
    try:
        sync_file(path)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Say StorageFull where the system says that there is no room."""
    try:
        yield
    except OSError as refused:
        if refused.errno in _NO_SPACE:
            raise StorageFull(0) from refused
        raise
