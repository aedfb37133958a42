"""A compiled scan of Part-10 bytes: little endian elements, one after the other, and over sequences.

Every function takes the bytes read so far and offsets into them, checks the bounds itself, and holds no GIL.
"""

# mypy: disable-error-code="no-any-return"
# numba's decorator is untyped, and so is all that a kernel gets from another.

from typing import Final

import numba
import numpy as np
import numpy.typing as npt
from pydicom._dicom_dict import DicomDictionary

from reconstruction.part10 import PIXEL_DATA

Bytes = npt.NDArray[np.uint8]
Table = npt.NDArray[np.int64]
Element = tuple[int, int, int, int]
"""A tag, where its value starts, its length, and its kind."""

UNSURE: Final = -1
TOO_SHORT: Final = -2
LONGEST_ELEMENT: Final = 8192

_DEEPEST = 16
_UNDEFINED = 0xFFFFFFFF
_TRANSFER_SYNTAX, _IMPLEMENTATION = 0x00020010, 0x00020012
_CHARACTER_SET = 0x00080005
_EXTENDED_OFFSETS = 0x7FE00001
_FLOAT_PIXELS, _DOUBLE_PIXELS = 0x7FE00008, 0x7FE00009
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD

_LONG_VRS = "OB OD OF OL OV OW SV UC UR UT UV"
_SHORT_VRS = "AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US"
"""PS3.5 7.1.2: which value representations have a length of 32 bits, and which of 16."""

_NO_VR, _SHORT, _LONG, _NESTING = 0, 1, 2, 3
_DICM, _UL, _UI = (int.from_bytes(letters, "little") for letters in (b"DICM", b"UL", b"UI"))
_IMPLICIT_BYTES = np.frombuffer(b"1.2.840.10008.1.2", dtype=np.uint8)


def _vr_kinds() -> Bytes:
    """Tabulate the kinds of value representations, by their two letters."""
    kinds = np.zeros((256, 256), dtype=np.uint8)
    for kind, vrs in ((_SHORT, _SHORT_VRS), (_LONG, _LONG_VRS), (_NESTING, "SQ UN")):
        for vr in vrs.split():
            kinds[ord(vr[0]), ord(vr[1])] = kind
    return kinds


_VR_KINDS = _vr_kinds()
_SEQUENCE_TAGS = np.array(sorted(tag for tag, entry in DicomDictionary.items() if entry[0] == "SQ"), dtype=np.int64)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def scan(content: Bytes, whole: int, wanted: Table, place: Table, found: tuple[Bytes, Table]) -> int:
    """Scan the first bytes of a file, 1 for ``whole`` where they are all of it; return 0, or UNSURE or TOO_SHORT.

    ``wanted`` are ascending tags; ``place`` says into which row of ``found[1]`` the start and end of each goes, -1:
    its bytes are appended to ``found[0]``. The last four rows are those of the values of implementation class
    and transfer syntax UID, of the pixels (start and length), and (0, length) of what was appended.
    """
    places = found[1]
    at = _file_meta(content, places[-4:-2])
    if at < 0 or at + 8 > len(content):
        return at if at < 0 else TOO_SHORT
    implicit = _is_implicit(content, places[-3])
    if implicit == _looks_explicit(content, at) or _number(content, at, 2) == 0:
        return UNSURE  # a file that is not written as it says, or the command group 0000
    places[-1, :] = 0
    last, n, character_set = 0, 0, (0, 0)
    while at < len(content) or whole == 0:
        element = _head(content, at, implicit)
        tag = element[0]
        if element[3] < 0 or tag in (PIXEL_DATA, _FLOAT_PIXELS, _DOUBLE_PIXELS):
            return _pixels(element, places[-2]) if last < _EXTENDED_OFFSETS else 0
        after = _after(content, element, implicit, character_set)
        if after < 0 or tag <= last or tag >= _ITEM:
            return min(after, UNSURE) if tag > last else UNSURE
        if tag == _CHARACTER_SET:
            character_set = (element[1], after)
        n += np.searchsorted(wanted[n:], tag)
        if _note(content, (at, after, element), (wanted, place, n), found) < 0:
            return UNSURE
        last, at = tag, after
    return 0


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _note(
    content: Bytes, where: tuple[int, int, Element], search: tuple[Table, Table, int], found: tuple[Bytes, Table]
) -> int:
    """Keep an element if it is wanted; UNSURE where it is and is no plain one."""
    at, after, element = where
    wanted, place, n = search
    if n == len(wanted) or wanted[n] != element[0]:
        return 0
    if element[2] == _UNDEFINED or after - at > LONGEST_ELEMENT:
        return UNSURE
    steady, places = found
    if place[n] >= 0:
        places[place[n], 0], places[place[n], 1] = at, after
        return 0
    used = places[-1, 1]
    if used + after - at > len(steady):
        return UNSURE
    steady[used : used + after - at] = content[at:after]
    places[-1, 1] = used + after - at
    return 0


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _pixels(element: Element, place: Table) -> int:
    tag, value, length, kind = element
    if kind < 0:
        return kind
    if tag == PIXEL_DATA and kind != _SHORT:
        place[0] = value
        if length != _UNDEFINED:
            place[1] = length
    return 0


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _file_meta(content: Bytes, uids: Table) -> int:
    """Go through the File Meta Information (PS3.10 7.1); return where the data set starts."""
    if len(content) < 140:
        return TOO_SHORT
    at = 132 if _number(content, 128, 4) == _DICM else 0
    if _tag(content, at) != 0x00020000 or _number(content, at + 4, 2) != _UL or _number(content, at + 6, 2) != 4:
        return UNSURE
    last = 0
    while at + 8 <= len(content) and _number(content, at, 2) == 2:
        tag, value, length, kind = _head(content, at, 0)
        if kind < 0 or length == _UNDEFINED or tag <= last:
            return min(kind, UNSURE)
        if tag in (_TRANSFER_SYNTAX, _IMPLEMENTATION):
            if _number(content, at + 4, 2) != _UI:
                return UNSURE
            uids[1 if tag == _TRANSFER_SYNTAX else 0] = (value, value + length)
        last, at = tag, value + length
    if at + 8 > len(content):
        return TOO_SHORT
    return at if uids[1, 1] >= 0 else UNSURE


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _is_implicit(content: Bytes, syntax: Table) -> int:
    """Say whether the transfer syntax is Implicit VR Little Endian, which is the prefix of all others."""
    length = len(_IMPLICIT_BYTES)
    over = syntax[1] - syntax[0] - length
    return 1 if over == 0 or (over == 1 and content[syntax[1] - 1] == 0) else 0


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _looks_explicit(content: Bytes, at: int) -> int:
    """Say whether an element shows a value representation: two capital letters."""
    if at + 6 > len(content):
        return 0
    return 1 if 0x40 < content[at + 4] < 0x5B and 0x40 < content[at + 5] < 0x5B else 0


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _number(content: Bytes, at: int, size: int) -> int:
    value = 0
    for n in range(size):
        value |= int(content[at + n]) << (8 * n)
    return value


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _head(content: Bytes, at: int, implicit: int) -> Element:
    """Read an element's head (PS3.5 7.1): tag, where its value starts, its length, its kind or why it is none."""
    if at + 8 > len(content):
        return 0, 0, 0, TOO_SHORT
    tag = _tag(content, at)
    if implicit == 1:
        return tag, at + 8, _number(content, at + 4, 4), _NO_VR
    kind = int(_VR_KINDS[content[at + 4], content[at + 5]])
    if kind == _SHORT:
        return tag, at + 8, _number(content, at + 6, 2), kind
    if kind == _NO_VR:
        return tag, at + 8, 0, UNSURE
    if at + 12 > len(content):
        return tag, at + 8, 0, TOO_SHORT
    return tag, at + 12, _number(content, at + 8, 4), kind


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _after(content: Bytes, element: Element, implicit: int, character_set: tuple[int, int]) -> int:
    """Return where an element of the data set ends."""
    tag, value, length, kind = element
    if length != _UNDEFINED:
        return value + length if value + length <= len(content) else TOO_SHORT
    if not _is_sequence(content, tag, value, kind):
        return UNSURE
    return _after_sequence(content, value, implicit, character_set)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _is_sequence(content: Bytes, tag: int, value: int, kind: int) -> bool:
    """Say whether pydicom takes an element of undefined length for a sequence; UN holds one too (PS3.5 6.2.2)."""
    if kind != _NO_VR:
        return kind == _NESTING
    n = np.searchsorted(_SEQUENCE_TAGS, tag)
    if n < len(_SEQUENCE_TAGS) and _SEQUENCE_TAGS[n] == tag:
        return True
    private = (tag >> 16) % 2 == 1
    return private and value + 4 <= len(content) and _tag(content, value) == _ITEM


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _tag(content: Bytes, at: int) -> int:
    return _number(content, at, 2) << 16 | _number(content, at + 2, 2)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _after_sequence(content: Bytes, at: int, implicit: int, character_set: tuple[int, int]) -> int:
    """Return where a sequence of undefined length ends (PS3.5 7.5.2).

    ``levels`` has a row for each open item: where it ends (-1: with its delimiter), whether it is implicit, whether
    the sequence around it is.
    """
    levels = np.zeros((_DEEPEST + 1, 3), dtype=np.int64)
    levels[0, 2] = implicit
    depth, in_item = 0, False
    while at >= 0:
        if not in_item:
            at, in_item = _open_item(content, at, levels[depth])
            if not in_item:
                depth -= 1
                in_item = True
            if depth < 0:
                return at
        elif at == levels[depth, 0]:
            in_item = False
        else:
            at, in_item, depth = _step(content, (at, depth), levels, character_set)
    return at


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _open_item(content: Bytes, at: int, level: Table) -> tuple[int, bool]:
    """Enter the next item, or leave the sequence."""
    if at + 8 > len(content):
        return TOO_SHORT, True
    tag, length = _tag(content, at), _number(content, at + 4, 4)
    at += 8
    if tag == _SEQUENCE_END and length == 0:
        return at, False
    if tag != _ITEM:
        return UNSURE, True
    level[0] = -1 if length == _UNDEFINED else at + length
    # Inside a sequence each item may be implicit, whatever the file is.
    level[1] = max(level[2], 1 - _looks_explicit(content, at))
    return at, True


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _step(
    content: Bytes, position: tuple[int, int], levels: Table, character_set: tuple[int, int]
) -> tuple[int, bool, int]:
    """Go over one element of an item, or out of the item, or into a sequence."""
    at, depth = position
    end = levels[depth, 0]
    if end < 0 and at + 8 <= len(content) and _tag(content, at) == _ITEM_END:
        return (at + 8 if _number(content, at + 4, 4) == 0 else UNSURE), False, depth
    tag, value, length, kind = _head(content, at, levels[depth, 1])
    if kind < 0 or tag >= _ITEM or depth == _DEEPEST or (end >= 0 and value > end):
        return min(kind, UNSURE), True, depth
    if length == _UNDEFINED:
        levels[depth + 1, 2] = levels[depth, 1]
        return (value if _is_sequence(content, tag, value, kind) else UNSURE), False, depth + 1
    after = value + length
    if after > len(content):
        return TOO_SHORT, True, depth
    strange = tag == _CHARACTER_SET and not _same(content, (value, after), character_set)
    return (UNSURE if strange or (end >= 0 and after > end) else after), True, depth


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _same(content: Bytes, one: tuple[int, int], other: tuple[int, int]) -> bool:
    return np.array_equal(content[one[0] : one[1]], content[other[0] : other[1]])
