"""How does a file reach the disk so that after a power cut there is the whole of it, or none?"""

import hashlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path


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


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def keep_by_content(folder: Path, content: bytes) -> tuple[str, str]:
    """Put bytes into a store of immutable files named by their SHA-256; returns (relative path, hash).

    The same content is written once, whoever writes it and however often: a job that is tried again adds nothing.
    """
    digest = hashlib.sha256(content).hexdigest()
    relative = f"{digest[:2]}/{digest}.dcm"
    target = folder / relative
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, (content,), target.parent)
    for each in (target.parent, folder):  # also for content that was there: its writer may not have come so far
        sync_folder(each)
    return relative, digest


def write_all(descriptor: int, part: bytes | bytearray | memoryview) -> None:
    """Write all of it, however often the system takes only a part."""
    view = memoryview(part)
    while view:
        view = view[os.write(descriptor, view) :]
