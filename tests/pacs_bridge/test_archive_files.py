"""Files of instances: durable or not there, whatever the disk does."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pacs_bridge.archive_files import ArchiveFiles, hash_of
from pacs_bridge.errors import StorageFull
from pacs_bridge.part10 import file_header

SYNTAX = "1.2.840.10008.1.2.1"
META = file_header("1.2.3", "4.5.6", SYNTAX, "CT01")


class Disk:
    """A disk whose fsync fails as often as it is told to."""

    def __init__(self) -> None:
        self.failures = 0

    def sync(self, descriptor: int) -> None:
        """Fail, or do as the system does."""
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EIO, "Input/output error")
        os.fsync(descriptor)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an archive's folder."""
    for name in ("incoming", *(f"{n:02x}" for n in range(256))):
        (tmp_path / name).mkdir()
    return tmp_path


def keep(files: ArchiveFiles, dataset: bytes = b"data set", meta: bytes = META) -> Path:
    part = files.begin(meta, SYNTAX)
    part.write(dataset)
    return files.folder / part.keep().path


def left(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_file_whose_fsync_failed_is_not_found_by_who_sends_again(folder: Path) -> None:
    disk = Disk()
    files = ArchiveFiles(folder, floor_bytes=0, sync=disk.sync)
    disk.failures = 1
    with pytest.raises(OSError, match="Input/output"):
        keep(files)
    assert [] == left(folder)
    kept = keep(files)
    assert [kept] == left(folder)
    assert kept.stem == hash_of(kept, "blake3").removeprefix("blake3:")


def test_the_same_content_from_another_sender_keeps_the_first_file(folder: Path) -> None:
    files = ArchiveFiles(folder, floor_bytes=0)
    first = keep(files)
    content = first.read_bytes()
    assert first == keep(files, meta=file_header("1.2.3", "4.5.6", SYNTAX, "LONGER_TITLE_CT2"))
    assert ([first], content) == (left(folder), first.read_bytes())


@pytest.mark.parametrize(
    "damage",
    [lambda _: b"", lambda whole: whole[:-1], lambda whole: whole[:-1] + b"?"],
    ids=["empty", "cut", "changed"],
)
def test_a_damaged_file_under_the_name_of_the_content_is_replaced(
    folder: Path, damage: Callable[[bytes], bytes]
) -> None:
    files = ArchiveFiles(folder, floor_bytes=0)
    first = keep(files)
    whole = first.read_bytes()
    first.write_bytes(damage(whole))
    keep(files)
    assert whole == first.read_bytes()


def test_room_is_looked_for_while_a_large_instance_comes(folder: Path) -> None:
    free = [2**40]
    files = ArchiveFiles(folder, floor_bytes=2**20, free_bytes=lambda _: free[0])
    part = files.begin(META, SYNTAX)
    part.write(bytes(2**20))
    free[0] = 0
    with pytest.raises(StorageFull):
        part.write(bytes(2**24))
    part.abandon()
    assert [] == left(folder)
