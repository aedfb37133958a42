"""What do the functional groups of a multi-frame instance say of each of its frames (PS3.3 C.7.6.16)?

An own reading of the bytes: pydicom takes seconds over the sequences of 2,900 frames, most of which say the same.
"""

import math
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import reduce
from io import BytesIO
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, Final, TypeAlias

from pydicom import dcmwrite
from pydicom.dataset import Dataset

from reconstruction.data_set import BROKEN_ELEMENT

Attributes: TypeAlias = Mapping[str, Any]
"""What one frame states, by the name of the ``Header`` field or of what helps to settle one."""

DIMENSION_INDEX: Final = 0x00209222
SHARED_GROUPS: Final = 0x52009229
PER_FRAME_GROUPS: Final = 0x52009230
CONTRAST_AGENT: Final = 0x00180012
SEQUENCES: Final = (CONTRAST_AGENT, DIMENSION_INDEX, SHARED_GROUPS, PER_FRAME_GROUPS)
"""The top-level sequences that are read, by tag."""

IMPLICIT_LE = "1.2.840.10008.1.2"
_OTHERWISE = frozenset({"1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"})
"""Big endian and deflated."""

_UNDEFINED, _ITEM = 0xFFFFFFFF, 0xFFFEE000
_ENDS = frozenset({0xFFFEE00D, 0xFFFEE0DD})
_DEEPEST = 16
_LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_implicit = struct.Struct("<HHL").unpack_from
_explicit = struct.Struct("<HH2sH").unpack_from
_length = struct.Struct("<L").unpack_from

Bytes: TypeAlias = bytes | mmap
Span: TypeAlias = tuple[int, int]
Parse: TypeAlias = Callable[[bytes], Any]


class _Damaged(ValueError):
    """The bytes of a sequence break off, or hold no items."""


_BROKEN_OFF = (_Damaged, struct.error)
_UNWRITABLE = (*BROKEN_ELEMENT, EOFError)
"""What pydicom raises over elements whose bytes are none of their type."""


def in_file(path: Path, transfer_syntax_uid: str) -> dict[int, bytes] | None:
    """Find the values of ``SEQUENCES`` in a Part-10 file, without reading its pixels.

    A sequence in which the file breaks off is absent. None where the file is not written as its transfer syntax says,
    or neither in implicit nor in explicit little endian: ``encoded`` then helps.
    """
    implicit = transfer_syntax_uid == IMPLICIT_LE
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        start = _data_set_at(content)
        if start is None or transfer_syntax_uid in _OTHERWISE or implicit is content[start + 4 : start + 6].isalpha():
            return None
        found: dict[int, bytes] = {}
        with suppress(*_BROKEN_OFF):
            for tag, (at, end) in _Reading(implicit=implicit).elements(content, (start, len(content))):
                if tag in SEQUENCES:
                    found[tag] = content[at:end]
                if tag >= PER_FRAME_GROUPS:
                    break
        return found


def _data_set_at(content: mmap) -> int | None:
    """Return where the data set starts, behind the File Meta Information; None where there is none."""
    at = 132 if content[128:132] == b"DICM" else 0
    if content[at : at + 8] != b"\x02\x00\x00\x00UL\x04\x00":
        return None
    return at + 12 + int(_length(content, at + 8)[0])


def encoded(dataset: Dataset) -> dict[int, bytes]:
    """Write the sequences of a data set as values in explicit little endian.

    Those that it lacks are absent, and those that pydicom can read no further than to raise.
    """
    found = {}
    for tag in SEQUENCES:
        if tag in dataset:
            part, buffer = Dataset(), BytesIO()
            with suppress(*_UNWRITABLE):
                part[tag] = dataset[tag]
                dcmwrite(buffer, part, implicit_vr=False, little_endian=True)
                found[tag] = buffer.getvalue()[12:]
    return found


def per_frame(elements: Mapping[int, bytes], *, implicit: bool) -> list[Attributes | None]:
    """Return what each frame states, in the order of the frames: its own groups before the shared ones.

    ``elements`` are the values of ``SEQUENCES`` in little endian. Attributes that nobody states are absent; None stands
    for a frame whose groups are damaged. Where the sequence itself breaks off, the frames described until then are
    returned.
    """
    reading = _Reading(implicit=implicit)
    try:
        shared = _shared(elements, reading)
    except _BROKEN_OFF:
        return []
    frames: list[Attributes | None] = []
    for content, span in reading.items_of(elements.get(PER_FRAME_GROUPS)):
        try:
            frames.append(shared | reading.groups(content, span))
        except _BROKEN_OFF:
            frames.append(None)
    return frames


def dimensions(elements: Mapping[int, bytes], *, implicit: bool) -> tuple[int, ...]:
    """Return the tags that Dimension Index Values count, in their order (PS3.3 C.7.6.17); () where damaged."""
    reading = _Reading(implicit=implicit)
    items = reading.items_of(elements.get(DIMENSION_INDEX))
    try:
        return tuple(_pointer(reading.first(content, span, 0x00209165)) for content, span in items)
    except _BROKEN_OFF:
        return ()


def _pointer(value: bytes) -> int:
    if len(value) != 4:
        return 0
    group, element = struct.unpack("<HH", value)
    return int(group << 16 | element)


def _shared(elements: Mapping[int, bytes], reading: "_Reading") -> dict[str, Any]:
    shared: dict[str, Any] = {}
    for content, span in reading.items_of(elements.get(CONTRAST_AGENT)):
        shared.setdefault("contrast_agent", _text(reading.first(content, span, 0x00080104)))
    for content, span in reading.items_of(elements.get(SHARED_GROUPS)):
        shared |= reading.groups(content, span)
    return shared


class _Reading:
    """The reading of one instance's sequences; groups with the same bytes are read once."""

    def __init__(self, *, implicit: bool) -> None:
        self._implicit = implicit
        self._unknown: _Reading = self if implicit else _Reading(implicit=True)  # what UN holds (PS3.5 6.2.2)
        self._known: dict[tuple[int, bytes], Attributes] = {}

    def items_of(self, value: bytes | None) -> Iterator[tuple[bytes, Span]]:
        """Yield the items of a sequence's value, until it ends or breaks off."""
        if value is None:
            return
        try:
            yield from ((value, item) for item in self._items(value, (0, len(value)), 0))
        except _BROKEN_OFF:
            return

    def groups(self, content: Bytes, span: Span) -> dict[str, Any]:
        """Read the functional groups of one item; converted attributes are overruled by what has its own place."""
        stated: dict[str, Any] = {}
        converted: dict[str, Any] = {}
        for tag, (start, end) in self.elements(content, span):
            if tag in _GROUPS:
                key = (tag, content[start:end])
                if key not in self._known:
                    self._known[key] = self._group(*key)
                (converted if tag in _CONVERTED else stated).update(self._known[key])
        return converted | stated

    def _group(self, tag: int, value: bytes) -> Attributes:
        wanted = _GROUPS[tag]
        found: dict[str, Any] = {}
        for item in self._items(value, (0, len(value)), 0):
            for each, (start, end) in self.elements(value, item):
                if each in wanted:
                    name, parse = wanted[each]
                    found[name] = parse(value[start:end])
                elif each in _CODES:
                    name, part = _CODES[each]
                    found[name] = _text(self._code(value, (start, end), part))
            break
        return {name: attribute for name, attribute in found.items() if attribute is not None}

    def _code(self, content: Bytes, span: Span, part: int) -> bytes:
        for item in self._items(content, span, 1):
            return self.first(content, item, part)
        return b""

    def first(self, content: Bytes, span: Span, wanted: int) -> bytes:
        """Return the value of one element of an item, empty where it is absent."""
        return next((content[start:end] for tag, (start, end) in self.elements(content, span) if tag == wanted), b"")

    def elements(self, content: Bytes, span: Span, *, depth: int = 0) -> Iterator[tuple[int, Span]]:
        """Yield tag and value of each element of a data set; raises ValueError or struct.error where it breaks off."""
        at, end = span
        while at < end:
            tag, start, length, nested = self._element(content, at)
            if tag in _ENDS:
                return
            if length == _UNDEFINED:
                if nested is None or depth > _DEEPEST:
                    raise _Damaged
                at = nested._after(content, start, end, depth + 1)
            else:
                at = start + length
            if at > end:
                raise _Damaged
            yield tag, (start, at)

    def _element(self, content: Bytes, at: int) -> tuple[int, int, int, "_Reading | None"]:
        """Return tag, start and length of a value, and how to read it where it is a sequence of undefined length."""
        group, element, *_ = _implicit(content, at)
        tag = group << 16 | element
        if self._implicit or group == 0xFFFE:
            return tag, at + 8, _length(content, at + 4)[0], self
        _, _, vr, length = _explicit(content, at)
        if vr in _LONG_VRS:
            return tag, at + 12, _length(content, at + 8)[0], {b"SQ": self, b"UN": self._unknown}.get(vr)
        return tag, at + 8, length, None

    def _items(self, content: Bytes, span: Span, depth: int) -> Iterator[Span]:
        """Yield the content of each item of a sequence's value."""
        at, end = span
        while at + 8 <= end:
            group, element, length = _implicit(content, at)
            tag, start = group << 16 | element, at + 8
            if tag in _ENDS:
                return
            if tag != _ITEM or depth > _DEEPEST:
                raise _Damaged
            at = self._item_end(content, start, end, depth) if length == _UNDEFINED else start + length
            if at > end:
                raise _Damaged
            yield start, at

    def _item_end(self, content: Bytes, start: int, end: int, depth: int) -> int:
        """Return where an item of undefined length ends, its delimiter included."""
        ends = (after for _, (_, after) in self.elements(content, (start, end), depth=depth + 1))
        return reduce(_latest, ends, start) + 8

    def _after(self, content: Bytes, start: int, end: int, depth: int) -> int:
        """Return where a sequence of undefined length ends, its delimiter included."""
        ends = (after for _, after in self._items(content, (start, end), depth))
        return reduce(_latest, ends, start) + 8


def _latest(_: int, after: int) -> int:
    return after


def _text(value: bytes) -> str | None:
    return value.decode("latin-1").split("\\")[0].strip(" \0") or None


def _texts(value: bytes) -> tuple[str, ...] | None:
    parts = tuple(part.strip(" \0") for part in value.decode("latin-1").split("\\"))
    return parts if any(parts) else None


def _number(text: str) -> float:
    try:
        return float(text.strip(" \0"))
    except ValueError:
        return math.nan


def _decimal(value: bytes) -> float | None:
    text = _text(value)
    return None if text is None else _number(text)


def _vector(length: int) -> Parse:
    def parse(value: bytes) -> tuple[float, ...] | None:
        parts = value.decode("latin-1").split("\\")
        return tuple(_number(part) for part in parts) if len(parts) == length else None

    return parse


def _whole(value: bytes) -> int | None:
    number = _decimal(value)
    return int(number) if number is not None and math.isfinite(number) else None


def _binary(form: str) -> Parse:
    """Return a reader of the first of several binary numbers."""
    size, unpack = struct.calcsize(form), struct.Struct(form).unpack_from
    return lambda value: unpack(value)[0] if len(value) >= size else None


def _counts(value: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(value) // 4}L", value[: len(value) // 4 * 4])


_RESCALE: Mapping[int, tuple[str, Parse]] = {
    0x00281052: ("rescale_intercept", _decimal),
    0x00281053: ("rescale_slope", _decimal),
    0x00281054: ("rescale_type", _text),
}
_ACQUISITION: Mapping[int, tuple[str, Parse]] = {
    0x00180060: ("kvp", _decimal),
    0x00181120: ("tilt_tag_deg", _decimal),
    0x00181210: ("kernel", _text),
}
_PLANE: Mapping[int, tuple[str, Parse]] = {
    0x00200032: ("position_mm", _vector(3)),
    0x00200037: ("orientation", _vector(6)),
    0x00280030: ("pixel_spacing_mm", _vector(2)),
    0x00180050: ("slice_thickness_mm", _decimal),
}
_OF_CONVERTED: Mapping[int, tuple[str, Parse]] = {
    **_RESCALE,
    **_ACQUISITION,
    **_PLANE,
    0x00080008: ("image_type", _texts),
    0x00080032: ("acquisition_time", _text),
    0x00180010: ("contrast_agent", _text),
    0x00180015: ("body_part", _text),
    0x00200012: ("acquisition_number", _whole),
    0x00200100: ("temporal_position", _whole),
}
_CONVERTED = frozenset({0x00209170, 0x00209171})
"""What a conversion from single frames found no other place for (PS3.3 C.7.6.16.2.25, C.7.6.16.2.26)."""

_GROUPS: Mapping[int, Mapping[int, tuple[str, Parse]]] = {
    0x00189118: {
        0x00209241: ("cardiac_percent", _binary("<f")),
        0x00209153: ("cardiac_delay_ms", _binary("<d")),
    },
    0x00189304: _ACQUISITION,
    0x00189314: _ACQUISITION,
    0x00189325: _ACQUISITION,
    0x00189329: {0x00089007: ("image_type", _texts), 0x00089206: ("volumetric", _text)},
    0x00189341: {0x00189342: ("contrast_given", _text)},
    0x00209071: {},
    0x00209111: {
        0x00189074: ("acquisition_time", _text),
        0x00209056: ("stack_id", _text),
        0x00209128: ("temporal_position", _binary("<L")),
        0x00209156: ("acquisition_number", _binary("<H")),
        0x00209157: ("indices", _counts),
    },
    0x00209113: _PLANE,
    0x00209116: _PLANE,
    0x00209170: _OF_CONVERTED,
    0x00209171: _OF_CONVERTED,
    0x00289110: _PLANE,
    0x00289145: _RESCALE,
    0x00409096: {
        0x00409224: ("real_intercept", _binary("<d")),
        0x00409225: ("real_slope", _binary("<d")),
    },
}
"""The functional groups that are read, by tag of their sequence: the attributes and how their values are read."""

_CODES: Mapping[int, tuple[str, int]] = {
    0x00082218: ("body_part", 0x00080104),
    0x004008EA: ("real_unit", 0x00080100),
}
"""Attributes that are codes, by tag of their sequence, and the part that is read: code value or code meaning."""
