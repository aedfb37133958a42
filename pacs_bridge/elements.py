"""Where do the elements of an encoded data set stand?

One pass over the top-level elements, by lengths alone: nothing recurses, nothing is copied, pixels are stepped over.
What comes before the pixels must be whole, and so must the pixels; what follows them is nobody's business here.
"""

import itertools
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from mmap import mmap
from typing import Final, NamedTuple

from pacs_bridge.errors import CannotUnderstand

DEFLATED: Final = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95")
IMPLICIT_VR: Final = "1.2.840.10008.1.2"
BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
MAX_DEPTH: Final = 64
"""Deeper nesting than this is an attack or an accident: the deepest standard object (SR) stays below 20."""
MAX_TOP_LEVEL: Final = 100_000
"""Elements before the pixels; there are some 5,000 standard ones."""
MAX_STEPS: Final = 500_000
"""Of sequences without a stated length: an Enhanced CT of 4,000 frames has half as many; so many take a second."""
MAX_INFLATED_BYTES: Final = 2**30
ALWAYS_INFLATED_BYTES: Final = 2**27
MAX_INFLATION: Final = 20
"""How many times its size a data set may inflate to where that is more than is always inflated: images deflate to a
third; a megabyte that became a gigabyte held a receiver for three seconds and two gigabytes."""
PIXELS: Final = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED: Final = 0xFFFFFFFF
_LONG_FORM: Final = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
_SHORT_FORM: Final = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())


class Place(NamedTuple):
    """Where an element stands: its first byte, the first of its value, the end; ``undefined``: no length is stated."""

    at: int
    start: int
    end: int
    undefined: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Elements:
    """The top-level elements of ``content`` (inflated where it came deflated), the first of each tag.

    ``ascending``: their tags grow from one to the next, as they must (PS3.5 7.1). ``plain``: each is of a VR of PS3.5
    6.2, where the syntax writes one. ``start``: where in ``content`` the data set starts; ``end``: where the last of
    these elements says that it ends. Places count from ``content``'s start.
    """

    content: bytes | mmap
    places: Mapping[int, Place]
    ascending: bool
    plain: bool
    end: int
    start: int = 0

    def value(self, tag: int) -> bytes:
        """Return the bytes of a value; empty where there is none."""
        place = self.places.get(tag)
        return b"" if place is None else self.content[place.start : place.end]


def elements_of(dataset: bytes | mmap, transfer_syntax: str, *, start: int = 0) -> Elements:
    """Find the elements of a data set that starts at byte ``start`` (no file meta information).

    Raises CannotUnderstand for bytes that are no data set, are cut off or are nested too deeply.
    """
    content: bytes | mmap = dataset
    if transfer_syntax in DEFLATED:
        content, start = _inflated(memoryview(dataset)[start:]), 0
    try:
        elements = _walk(content, transfer_syntax).elements(start)
    except struct.error as cut:
        raise CannotUnderstand("it ends in the middle of an element") from cut
    require_whole(elements, len(content))
    return elements


def elements_at_the_start(beginning: bytes, transfer_syntax: str) -> Elements | None:
    """Find the elements of a data set of which only the beginning has come; None: wait for all of it.

    That the rest is whole is for `require_whole` to say, once its length is known.
    """
    if transfer_syntax in DEFLATED:
        return None
    try:
        elements = _walk(beginning, transfer_syntax).elements(0)
    except (struct.error, CannotUnderstand):
        return None
    pixels = next((elements.places[tag] for tag in PIXELS if tag in elements.places), None)
    return None if pixels is None or pixels.undefined else elements


def require_whole(elements: Elements, length: int) -> None:
    """Raise CannotUnderstand where ``length`` bytes end before the last element does."""
    if elements.end > length:
        raise CannotUnderstand("it ends in the middle of an element")


def _walk(content: bytes | mmap, transfer_syntax: str) -> "_Walk":
    order = ">" if transfer_syntax == BIG_ENDIAN else "<"
    return _Walk(content, implicit=transfer_syntax == IMPLICIT_VR, order=order)


def _inflated(dataset: memoryview) -> bytes:
    """PS3.5 A.5: RFC 1951, no zlib header; a bomb is not inflated beyond what any study's object needs."""
    try:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        plain = inflater.decompress(dataset, _most_inflated(len(dataset)))
    except zlib.error as broken:
        raise CannotUnderstand("its deflated bytes are broken") from broken
    if not inflater.eof:
        raise CannotUnderstand("its deflated bytes are cut off, or too many")
    return plain


def _most_inflated(deflated_bytes: int) -> int:
    return min(MAX_INFLATED_BYTES, max(ALWAYS_INFLATED_BYTES, MAX_INFLATION * deflated_bytes))


class _Element(NamedTuple):
    tag: int
    start: int
    length: int
    implicit: bool


class _Walk:
    """Steps over the elements of encoded bytes; every step goes forward, so it ends."""

    __slots__ = ("_bytes", "_explicit", "_implicit", "_long", "_short", "_steps", "_tag")

    def __init__(self, dataset: bytes | mmap, *, implicit: bool, order: str) -> None:
        self._bytes = dataset
        self._implicit = implicit
        self._tag = struct.Struct(order + "HH")
        self._short = struct.Struct(order + "H")
        self._long = struct.Struct(order + "L")
        self._steps = 0
        self._explicit = struct.Struct(order + "HH2sH")

    def elements(self, start: int) -> Elements:
        """Find the elements from ``start`` up to the pixels; the last may end after the bytes do."""
        places: dict[int, Place] = {}
        position, last, ascending, plain, length = start, -1, True, True, len(self._bytes)
        unpack, short_form, explicit = self._explicit.unpack_from, _SHORT_FORM, not self._implicit
        for count in itertools.count():
            if position >= length or count > MAX_TOP_LEVEL:
                break
            # Most are of an explicit VR whose length has two bytes; they are read in place, for the loop is hot.
            if explicit:
                group, number, vr, size = unpack(self._bytes, position)
            if explicit and vr in short_form and group != 0xFFFE:
                tag, place = group << 16 | number, Place(position, position + 8, position + 8 + size, undefined=False)
            else:
                tag, place = self._any_element(position)
                plain = plain and (self._implicit or self._bytes[position + 4 : position + 6] in _LONG_FORM)
            position = place.end
            ascending, last = ascending and tag > last, tag
            places.setdefault(tag, place)
            if tag in PIXELS:
                break
        return Elements(content=self._bytes, places=places, ascending=ascending, plain=plain, end=position, start=start)

    def _any_element(self, position: int) -> tuple[int, Place]:
        element = self._element(position, self._implicit)
        end = self._end_of(element)
        return element.tag, Place(position, element.start, end, element.length == _UNDEFINED)

    def _element(self, position: int, implicit: bool) -> _Element:  # noqa: FBT001 - the syntax, not a choice
        group, number = self._tag.unpack_from(self._bytes, position)
        tag = group << 16 | number
        vr = self._bytes[position + 4 : position + 6]
        # pydicom reads on with implicit VR where no VR stands; so do we. Items never have one (PS3.5 7.5).
        if implicit or group == 0xFFFE or not (vr.isalpha() and vr.isupper()):
            (length,) = self._long.unpack_from(self._bytes, position + 4)
            return _Element(tag, position + 8, length, implicit)
        if vr in _LONG_FORM:
            (length,) = self._long.unpack_from(self._bytes, position + 8)
            # PS3.5 6.2.2: UN of undefined length holds a sequence in implicit VR.
            return _Element(tag, position + 12, length, vr == b"UN")
        (length,) = self._short.unpack_from(self._bytes, position + 6)
        return _Element(tag, position + 8, length, implicit)

    def _end_of(self, element: _Element) -> int:
        if element.length != _UNDEFINED:
            return element.start + element.length
        return self._end_of_sequence(element.start, element.implicit)

    def _end_of_sequence(self, position: int, implicit: bool) -> int:  # noqa: FBT001 - the syntax, not a choice
        """Return where a sequence (or encapsulated pixels) of undefined length ends."""
        open_levels = [implicit]
        while open_levels:
            self._steps += 1
            element = self._element(position, open_levels[-1])
            position = element.start
            if element.tag in (_ITEM_END, _SEQUENCE_END):
                open_levels.pop()
            elif element.length != _UNDEFINED:
                position += element.length
            else:
                inner = open_levels[-1] if element.tag == _ITEM else element.implicit
                open_levels.append(inner)
            if len(open_levels) > MAX_DEPTH:
                raise CannotUnderstand(f"its sequences are nested more than {MAX_DEPTH // 2} deep")
            if self._steps > MAX_STEPS:
                raise CannotUnderstand(f"its sequences hold more than {MAX_STEPS} elements")
        return position
