"""How does a file reach the disk so that after a power cut there is the whole of it, or none?"""

import ctypes
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_SYNC_FILE_RANGE_WRITE = 2  # linux/fs.h
_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)
if _sync_file_range is not None:
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def write_whole(target: Path, parts: Sequence[bytes], aside: Path) -> None:
    """Write below ``aside``, fsync, rename to ``target``; nothing half-written stays.

    The name is durable once ``sync_folder`` has seen its folder. Both folders exist and lie on one file system. Raises
    OSError as the system does.
    """
    beside = aside / f"{secrets.token_hex(16)}.part"
    try:
        with beside.open("xb", buffering=0) as file:
            for part in parts:
                write_all(file.fileno(), part)
            os.fsync(file.fileno())
        beside.rename(target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def sync_file(path: Path) -> None:
    """Make the content of a file durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def content_store(folder: Path) -> Iterator[Callable[[bytes], tuple[str, str]]]:
    """Yield a function that puts bytes into a store of immutable files named by their SHA-256: (relative path, hash).

    The same content is written once, whoever writes it and however often: a job that is tried again adds nothing. All
    of it is durable when the block ends; only then may anything name it. A file has its name before its fsync, which
    spares a commit of the file system's journal: what nothing names is removed at the next start.
    """
    touched = {folder}

    def keep(content: bytes) -> tuple[str, str]:
        digest = hashlib.sha256(content).hexdigest()
        target = folder / digest[:2] / f"{digest}.dcm"
        touched.add(target.parent)
        if target.exists():
            sync_file(target)  # its writer may not have come so far
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            _name_and_sync(target, content)
        return f"{digest[:2]}/{digest}.dcm", digest

    yield keep
    for each in touched:
        sync_folder(each)


def keep_by_content(folder: Path, content: bytes) -> tuple[str, str]:
    """Put one file into a `content_store`, durably."""
    with content_store(folder) as keep:
        return keep(content)


def _name_and_sync(target: Path, content: bytes) -> None:
    beside = target.with_name(f"{secrets.token_hex(16)}.part")
    try:
        with beside.open("xb", buffering=0) as file:
            write_all(file.fileno(), content)
            beside.rename(target)
            os.fsync(file.fileno())
    except BaseException:
        beside.unlink(missing_ok=True)
        target.unlink(missing_ok=True)
        raise


def begin_writeback(descriptor: int) -> None:
    """Let the system begin to write to the disk what was written to a file, without waiting for it.

    An fsync later finds most of it done. Where the system does not offer this, nothing happens.
    """
    if _sync_file_range is not None:
        _sync_file_range(descriptor, 0, 0, _SYNC_FILE_RANGE_WRITE)


def write_all(descriptor: int, part: bytes | bytearray | memoryview) -> None:
    """Write all of it, however often the system takes only a part."""
    view = memoryview(part)
    while view:
        view = view[os.write(descriptor, view) :]
