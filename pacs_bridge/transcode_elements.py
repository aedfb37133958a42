"""How is an encoded data set written in another plain encoding (PS3.5 chapter 7), every value as it is?

Values are never read as numbers, dates or names, so one that breaks its own rules passes unharmed.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pydicom.datadict import dictionary_VR

from pacs_bridge.errors import CannotTranscode

PIXEL_DATA: Final = 0x7FE00010
PIXEL_REPRESENTATION: Final = 0x00280103
BITS_ALLOCATED: Final = 0x00280100
MOST_NESTED: Final = 64
_OFFSET_TABLES: Final = (0x7FE00001, 0x7FE00002)
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED: Final = 0xFFFFFFFF
_LONG_FORM: Final = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
_WORD_BYTES: Final = {
    **dict.fromkeys((b"AT", b"OW", b"SS", b"US"), 2),
    **dict.fromkeys((b"FL", b"OF", b"OL", b"SL", b"UL"), 4),
    **dict.fromkeys((b"FD", b"OD", b"OV", b"SV", b"UV"), 8),
}


class Encoding(NamedTuple):
    """How the elements of a data set are written; ``order`` is that of `struct`."""

    explicit: bool = True
    order: str = "<"


EXPLICIT: Final = Encoding()
IMPLICIT: Final = Encoding(explicit=False)
BIG_ENDIAN: Final = Encoding(order=">")


@dataclass(frozen=True, slots=True, kw_only=True)
class Native:
    """Pixels that are not compressed any more, and the elements of their data set that change (tag: VR and value)."""

    pixels: bytes = field(repr=False)
    changes: Mapping[int, tuple[bytes, bytes]]


Decompress = Callable[[Mapping[int, bytes], bytes], Native]
"""(values of group 0028 of a data set, its encapsulated pixel data) -> the same without compression."""


def recoded(content: bytes, source: Encoding, target: Encoding, decompress: Decompress) -> bytes:
    """Write a data set (no file meta information) in another little endian encoding.

    Lengths of groups and offset tables, which would be wrong, are left out. Raises CannotTranscode where the bytes are
    no data set, and what ``decompress`` raises.
    """
    reading = _Recoding(content=content, target=target, decompress=decompress)
    try:
        return reading.data_set(_Span(0, len(content)), source, {}, 0).written
    except (struct.error, IndexError) as cut:
        raise CannotTranscode("it ends in the middle of an element") from cut


def element(tag: int, vr: bytes, value: bytes, target: Encoding) -> bytes:
    """Write one element; a value that is too long for its VR's short form is written as UN (PS3.5 6.2.2)."""
    start = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    value += b"\0" * (len(value) % 2)
    if not target.explicit:
        return start + struct.pack("<L", len(value)) + value
    if vr not in _LONG_FORM and len(value) <= 0xFFFF:
        return start + vr + struct.pack("<H", len(value)) + value
    return start + (vr if vr in _LONG_FORM else b"UN") + struct.pack("<HL", 0, len(value)) + value


class _Span(NamedTuple):
    at: int
    end: int


class _Head(NamedTuple):
    tag: int
    vr: bytes
    at: int
    length: int


class _Written(NamedTuple):
    written: bytes
    at: int


@dataclass(slots=True, kw_only=True)
class _Recoding:
    """One data set under way; every step goes forward, so it ends."""

    content: bytes
    target: Encoding
    decompress: Decompress

    def data_set(self, span: _Span, source: Encoding, outer: Mapping[int, bytes], depth: int) -> _Written:
        """Write the elements of a data set up to its end, or to the delimiter of its item."""
        if depth > MOST_NESTED:
            raise CannotTranscode("its sequences are nested too deeply")
        about = {tag: value for tag, value in outer.items() if tag == PIXEL_REPRESENTATION}
        chunks: dict[int, bytes] = {}
        at = span.at
        while at < span.end:
            head = self._head(at, source, about)
            if head.tag in (_ITEM_END, _SEQUENCE_END):
                at = head.at
                break
            at = self._element(head, span.end, source, about, chunks, depth)
        return _Written(b"".join(chunks[tag] for tag in sorted(chunks)), at)

    def _element(
        self, head: _Head, end: int, source: Encoding, about: dict[int, bytes], chunks: dict[int, bytes], depth: int
    ) -> int:
        tag, vr = head.tag, head.vr
        if tag == PIXEL_DATA and head.length == _UNDEFINED:
            return self._pixels(head, about, chunks)
        if vr == b"SQ" or head.length == _UNDEFINED:
            within = IMPLICIT if vr == b"UN" else source
            items = self._items(head, end, within, about, depth)
            chunks[tag] = element(tag, b"SQ", items.written, self.target)
            return items.at
        stop = head.at + head.length
        if stop > end:
            raise CannotTranscode("it ends in the middle of an element")
        value = self._value(head, stop, source, about)
        if tag >> 16 == 0x0028:
            about[tag] = value
        if tag & 0xFFFF and tag not in _OFFSET_TABLES:
            chunks[tag] = element(tag, vr, value, self.target)
        return stop

    def _items(self, head: _Head, end: int, source: Encoding, about: Mapping[int, bytes], depth: int) -> _Written:
        stop = end if head.length == _UNDEFINED else head.at + head.length
        written, at = [], head.at
        while at < stop:
            item = self._head(at, source, about)
            if item.tag == _SEQUENCE_END:
                at = item.at
                break
            if item.tag != _ITEM:
                raise CannotTranscode("a sequence holds what is no item")
            last = stop if item.length == _UNDEFINED else item.at + item.length
            inner = self.data_set(_Span(item.at, last), source, about, depth + 1)
            written.append(struct.pack("<HHL", 0xFFFE, 0xE000, len(inner.written)) + inner.written)
            at = inner.at
        return _Written(b"".join(written), at)

    def _pixels(self, head: _Head, about: Mapping[int, bytes], chunks: dict[int, bytes]) -> int:
        at = head.at
        while True:
            group, number, length = struct.unpack_from("<HHL", self.content, at)
            at += 8
            if (group << 16 | number) == _SEQUENCE_END:
                break
            if (group << 16 | number) != _ITEM or at + length > len(self.content):
                raise CannotTranscode("its pixel data is cut off")
            at += length
        native = self.decompress(about, self.content[head.at : at - 8])
        for tag, (vr, value) in native.changes.items():
            chunks[tag] = element(tag, vr, value, self.target)
        vr = _pixel_vr(about)
        chunks[PIXEL_DATA] = element(PIXEL_DATA, vr, native.pixels, self.target)
        return at

    def _head(self, at: int, source: Encoding, about: Mapping[int, bytes]) -> _Head:
        group, number = struct.unpack_from(f"{source.order}HH", self.content, at)
        tag = group << 16 | number
        if group == 0xFFFE or not source.explicit:
            (length,) = struct.unpack_from(f"{source.order}L", self.content, at + 4)
            return _Head(tag, b"" if group == 0xFFFE else _vr_of(tag, length, about), at + 8, length)
        vr = self.content[at + 4 : at + 6]
        if vr in _LONG_FORM:
            (length,) = struct.unpack_from(f"{source.order}L", self.content, at + 8)
            return _Head(tag, vr, at + 12, length)
        if not (vr.isalpha() and vr.isupper()):
            raise CannotTranscode("an element has no value representation")
        (length,) = struct.unpack_from(f"{source.order}H", self.content, at + 6)
        return _Head(tag, vr, at + 8, length)

    def _value(self, head: _Head, stop: int, source: Encoding, about: Mapping[int, bytes]) -> bytes:
        value = self.content[head.at : stop]
        size = _WORD_BYTES.get(head.vr, 1)
        if source.order == "<" or size == 1:
            return value
        if head.tag == PIXEL_DATA and number_of(about, BITS_ALLOCATED) > 16:
            raise CannotTranscode("pixels of more than 16 bits in big endian words have no one meaning")
        if len(value) % size:
            raise CannotTranscode("a big endian value ends in the middle of a word")
        swapped = bytearray(len(value))
        for place in range(size):
            swapped[place::size] = value[size - 1 - place :: size]
        return bytes(swapped)


def number_of(about: Mapping[int, bytes], tag: int, otherwise: int = 0) -> int:
    """Read an unsigned short of a data set, little endian as it was noted."""
    value = about.get(tag, b"")
    return struct.unpack_from("<H", value)[0] if len(value) >= 2 else otherwise


def _pixel_vr(about: Mapping[int, bytes]) -> bytes:
    return b"OB" if number_of(about, BITS_ALLOCATED) <= 8 else b"OW"


def _vr_of(tag: int, length: int, about: Mapping[int, bytes]) -> bytes:
    """Look up what an element of the implicit encoding is; what no dictionary knows is UN (PS3.5 6.2.2)."""
    try:
        vr = dictionary_VR(tag).encode()
    except KeyError:
        is_creator = tag >> 16 & 1 and 0x10 <= tag & 0xFFFF <= 0xFF
        vr = b"LO" if is_creator else b"UN"
    if length == _UNDEFINED and tag != PIXEL_DATA:
        return b"SQ"
    return vr if b" " not in vr else _settled(tag, vr, about)


def _settled(tag: int, vr: bytes, about: Mapping[int, bytes]) -> bytes:
    """Choose where the dictionary leaves a choice (PS3.5 A.2; US or SS: by Pixel Representation)."""
    if tag == PIXEL_DATA:
        return _pixel_vr(about)
    if b"OW" in vr:
        return b"OW"
    return b"SS" if number_of(about, PIXEL_REPRESENTATION) == 1 else b"US"
