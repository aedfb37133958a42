"""Where do the bytes of one image lie in a Part-10 file whose Header says where its pixels start?"""

import os
import struct
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from reconstruction.headers import Header
from reconstruction.part10 import EXPLICIT_LE, IMPLICIT_LE

_PIXEL_DATA = b"\xe0\x7f\x10\x00"
_UNDEFINED = 0xFFFFFFFF
_ITEM = b"\xfe\xff\x00\xe0"
_SEQUENCE_END = b"\xfe\xff\xdd\xe0\0\0\0\0"
_SINGLE_FRAME_TABLES = (b"", b"\0\0\0\0")


Place = tuple[int, int]
"""Where some bytes lie in a file, and how many."""

Places = tuple[Place, ...]


class Elsewhere(Exception):
    """The pixels are not, or not only, where a Header says: the file has to be parsed."""


def read_native(path: Path, header: Header, into: memoryview) -> None:
    """Read the pixels of an uncompressed little endian image, or of one frame, as they stand in the file.

    Raises Elsewhere where the file does not hold them as the header says, and OSError.
    """
    if header.transfer_syntax_uid not in (EXPLICIT_LE, IMPLICIT_LE) or not _holds(header, into.nbytes):
        raise Elsewhere
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        at = _checked(file, header, header.pixels_length) + ((header.frame or 1) - 1) * into.nbytes
        if os.preadv(file, [into], at) != into.nbytes:
            raise Elsewhere
    finally:
        os.close(file)


def _holds(header: Header, size: int) -> bool:
    """Say whether the stated length is that of the announced frames, but for a byte or a part of a frame."""
    count = max(header.number_of_frames, 1)
    length = header.pixels_length
    return length is not None and (count * size <= length < (count + 1) * size or length == count * size + 1)


def find_frames(path: Path, header: Header) -> tuple[Places, ...]:
    """Find where the fragments of each frame of a compressed image lie, by their item headers (PS3.5 A.4).

    Raises Elsewhere where frames cannot be told apart by their offsets or their number alone, and OSError.
    """
    with _open(path, header, None) as (file, at):
        items: list[Place] = []
        while (item := os.pread(file, 8, at)) != _SEQUENCE_END:
            if item[:4] != _ITEM or len(item) < 8:
                raise Elsewhere
            (length,) = struct.unpack_from("<L", item, 4)
            items.append((at + 8, length))
            at += 8 + length
        if len(items) < 2:
            raise Elsewhere
        (table_at, table_length), *fragments = items
        table = os.pread(file, table_length, table_at)
    return _told_apart(fragments, table, max(header.number_of_frames, 1))


def _told_apart(fragments: list[Place], table: bytes, count: int) -> tuple[Places, ...]:
    """Tell the frames apart; the Basic Offset Table counts from the first fragment's item."""
    if count == 1 and table in _SINGLE_FRAME_TABLES:
        return (tuple(fragments),)
    start = fragments[0][0]
    offsets = [at - start for at, _ in fragments]
    if table and len(table) == 4 * count:
        firsts = list(struct.unpack(f"<{count}L", table))
    elif not table and len(fragments) == count:
        firsts = offsets
    else:
        raise Elsewhere
    if firsts[0] != 0 or firsts != sorted({*firsts} & {*offsets}):
        raise Elsewhere
    edges = [bisect_left(offsets, first) for first in firsts] + [len(fragments)]
    return tuple(tuple(fragments[a:b]) for a, b in pairwise(edges))


def read_frame(path: Path, header: Header, frames: Sequence[Places]) -> bytes:
    """Read the codestream of an image or of one frame; raises Elsewhere and OSError."""
    with _open(path, header, None) as (file, _):
        return b"".join(os.pread(file, length, at) for at, length in frames[(header.frame or 1) - 1])


@contextmanager
def _open(path: Path, header: Header, length: int | None) -> Iterator[tuple[int, int]]:
    """Open a file whose Pixel Data stand where the header says, with the length it says, and end within the file."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield file, _checked(file, header, length)
    finally:
        os.close(file)


def _checked(file: int, header: Header, length: int | None) -> int:
    """Return where the value of Pixel Data starts, once the file says so too; raises Elsewhere."""
    at = header.pixels_at
    if at is None or at < 12 or header.pixels_length != length:
        raise Elsewhere
    head = os.pread(file, 12, at - 12)
    tag = head[4:8] if header.transfer_syntax_uid == IMPLICIT_LE else head[:4]
    stated = (_UNDEFINED if length is None else length).to_bytes(4, "little")
    if tag != _PIXEL_DATA or head[8:] != stated or at + (length or 0) > os.fstat(file).st_size:
        raise Elsewhere
    return at
