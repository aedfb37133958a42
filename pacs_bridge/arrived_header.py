"""What does a CT image say of its pixels and their place, read in passing while it is received?

The driver receives, and imports no imaging: the Header comes from the elements that were found for the index anyway.
"""

import re
from dataclasses import replace
from typing import Final

from pacs_bridge.elements import DEFLATED, IMPLICIT_VR, PIXELS, Elements, Place
from pacs_bridge.part10 import ARCHIVE_IMPLEMENTATION_CLASS_UID
from reconstruction.headers import HEADER_TAGS, Header, header_of_elements
from reconstruction.part10 import EXPLICIT_BE, PIXEL_DATA, Unsure

LONGEST_ELEMENT: Final = 8192
_BEFORE_PIXELS: Final = 0x7FE00001  # extended offset tables stand between: their pixels are left to pydicom
_FIRST_ITEM: Final = 0xFFFE0000
_LAST_META: Final = 0x0002FFFF
_LONG_VRS: Final = frozenset(b"OB OD OF OL OV OW SV UC UR UT UV SQ UN".split())
_VRS: Final = _LONG_VRS | frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_SYNTAX: Final = re.compile(r"1\.2\.840\.10008\.1\.2(\.[0-9]+)*")


def header_of(elements: Elements, transfer_syntax: str) -> Header | None:
    """Make the Header that ``read_header`` will read from the archived file, but for where in it the pixels stand.

    ``pixels_at`` counts from the start of the data set. None where pydicom might read the elements otherwise: then
    whoever needs it reads the file.
    """
    if not _is_plain(elements, transfer_syntax):
        return None
    wanted = {tag: place for tag, place in elements.places.items() if tag in HEADER_TAGS}
    if any(place.undefined or place.end - place.at > LONGEST_ELEMENT for place in wanted.values()):
        return None
    try:
        return header_of_elements(
            transfer_syntax,
            {tag: elements.content[place.at : place.end] for tag, place in wanted.items()},
            implementation_class_uid=ARCHIVE_IMPLEMENTATION_CLASS_UID,
            pixels=_pixels(elements, transfer_syntax),
        )
    except Unsure:
        return None


def in_file(header: Header, dataset_at: int) -> Header:
    """Move where the pixels stand to the file in which the data set starts at ``dataset_at``."""
    return header if header.pixels_at is None else replace(header, pixels_at=header.pixels_at + dataset_at)


def _is_plain(elements: Elements, transfer_syntax: str) -> bool:
    """Say whether a data set is little endian, written as its syntax says, and in order."""
    if transfer_syntax in (*DEFLATED, EXPLICIT_BE) or not _SYNTAX.fullmatch(transfer_syntax) or not elements.places:
        return False
    tags = list(elements.places)
    if not elements.ascending or tags[0] <= _LAST_META or tags[-1] >= _FIRST_ITEM:
        return False
    if transfer_syntax == IMPLICIT_VR:
        return _vr(elements, elements.places[tags[0]]) not in _VRS
    return elements.plain


def _pixels(elements: Elements, transfer_syntax: str) -> tuple[int | None, int | None]:
    place = elements.places.get(PIXEL_DATA)
    before = [
        tag for tag in list(elements.places)[-2:] if tag not in PIXELS
    ]  # in order, and nothing follows the pixels
    if place is None or max(before, default=0) >= _BEFORE_PIXELS:
        return None, None
    if transfer_syntax != IMPLICIT_VR and _vr(elements, place) not in _LONG_VRS:
        return None, None
    return place.start - elements.start, None if place.undefined else place.end - place.start


def _vr(elements: Elements, place: Place) -> bytes:
    return elements.content[place.at + 4 : place.at + 6]
