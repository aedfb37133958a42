"""Where in a Part-10 file do the elements stand that we need, and where its pixels?

An own scan of the bytes, far faster than a whole parse. It knows little endian files as the standard describes them;
whatever else it meets makes it unsure, and the caller then asks pydicom. So what it finds is what pydicom would read.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

IMPLICIT_LE: Final = "1.2.840.10008.1.2"
EXPLICIT_LE: Final = "1.2.840.10008.1.2.1"
DEFLATED_LE: Final = "1.2.840.10008.1.2.1.99"
EXPLICIT_BE: Final = "1.2.840.10008.1.2.2"

META_WITHOUT_PREAMBLE: Final = b"\x02\x00\x00\x00UL"
"""How a file starts without preamble, with its File Meta Information, group 0002, at once (seen from old archives)."""

PIXEL_DATA: Final = 0x7FE00010

Bytes = npt.NDArray[np.uint8]

_READS = (1 << 15, 1 << 18, 1 << 22)
"""How many bytes are read at first, and how many when the header turns out to be longer."""

_UID = re.compile(rb"[0-9.]{0,64}\0?")
_SYNTAX = re.compile(rb"1\.2\.840\.10008\.1\.2(\.[0-9]+)*\0?")
_MOST_STEADY = 1 << 14


class Unsure(Exception):
    """The scan met something that it leaves to pydicom."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """What a scan found of one file's header.

    ``steady`` holds the wanted steady elements whole, one after the other, as they stand in the file;
    ``each`` the wanted others, by tag, None where absent. ``pixels_at`` is the offset of the value of Pixel Data in
    the file and ``pixels_length`` its length in bytes, None where not there or not stated (encapsulated).
    """

    transfer_syntax_uid: str
    implementation_class_uid: str | None
    steady: bytes
    each: tuple[bytes | None, ...]
    pixels_at: int | None
    pixels_length: int | None


class Scan:
    """Finds elements in Part-10 files; ``steady`` tags are those expected to be equal over a series."""

    def __init__(self, *, steady: Sequence[int], each: Sequence[int]) -> None:
        self._wanted = np.array(sorted([*steady, *each]), dtype=np.int64)
        places = {tag: n for n, tag in enumerate(each)}
        self._place = np.array([places.get(int(tag), -1) for tag in self._wanted], dtype=np.int64)
        self._count = len(each)

    def file(self, path: Path) -> Found:
        """Scan a file, reading no more of it than its header takes.

        Raises Unsure where it is anything but a plain little endian file with ascending tags, and OSError.
        """
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for most in _READS:
                room = np.empty(most, dtype=np.uint8)
                got = os.preadv(file, [room.data], 0)
                found = self.content(room[:got], is_whole=got < most)
                if found is not None:
                    return found
        finally:
            os.close(file)
        raise Unsure

    def content(self, content: Bytes, *, is_whole: bool = True) -> Found | None:
        """Scan the first bytes of a file; None where the header goes on beyond them. Raises Unsure."""
        # numba takes longer to import than most headers to read: whoever only asks for names does without.
        from reconstruction.part10_scan import TOO_SHORT, scan

        steady = np.empty(_MOST_STEADY, dtype=np.uint8)
        places = np.full((self._count + 4, 2), -1, dtype=np.int64)
        state = scan(content, int(is_whole), self._wanted, self._place, (steady, places))
        if state == TOO_SHORT and not is_whole:
            return None
        if state != 0:
            raise Unsure
        *each, implementation, syntax, (pixels_at, pixels_length), (_, used) = places.tolist()
        return Found(
            transfer_syntax_uid=_transfer_syntax(content[syntax[0] : syntax[1]].tobytes()),
            implementation_class_uid=_uid(content[implementation[0] : implementation[1]].tobytes()),
            steady=steady[:used].tobytes(),
            each=tuple(content[start:end].tobytes() if end >= 0 else None for start, end in each),
            pixels_at=pixels_at if pixels_at >= 0 else None,
            pixels_length=pixels_length if pixels_length >= 0 else None,
        )


def _transfer_syntax(value: bytes) -> str:
    if not _SYNTAX.fullmatch(value):
        raise Unsure
    uid = value.rstrip(b"\0").decode("ascii")
    if uid in (DEFLATED_LE, EXPLICIT_BE):
        raise Unsure
    return uid


def _uid(value: bytes) -> str | None:
    if not _UID.fullmatch(value):
        raise Unsure
    return value.rstrip(b"\0").decode("ascii") or None
