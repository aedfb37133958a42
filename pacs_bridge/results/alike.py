"""How are the many images of one series written, which differ in a few elements only?"""

import struct
from collections.abc import Mapping, Sequence

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from pacs_bridge.elements import elements_of
from pacs_bridge.results.part10 import written

Pieces = Sequence[bytes | memoryview]
"""The bytes of one encoded element, in pieces that need not be copied together."""

_PREAMBLE_BYTES = 132  # with "DICM"
_GROUP_LENGTH = 0x00020000
_MEDIA_STORAGE_SOP_INSTANCE_UID = 0x00020003
_SOP_INSTANCE_UID = 0x00080018
_ITEM = 0xFFFEE000


class Alike:
    """Part-10 files like a template, of which all but its ``varying`` elements is encoded once."""

    def __init__(self, template: Dataset, varying: Sequence[int]) -> None:
        """Take a whole data set, dressed; each ``varying`` tag stands in it, with any value."""
        content = written(template)
        self._places = elements_of(content[_PREAMBLE_BYTES:], ExplicitVRLittleEndian).places
        own = (_GROUP_LENGTH, _MEDIA_STORAGE_SOP_INSTANCE_UID, _SOP_INSTANCE_UID)
        self._tags = sorted({*own, *varying})
        ends = [_PREAMBLE_BYTES + self._places[tag].end for tag in self._tags]
        starts = [_PREAMBLE_BYTES + self._places[tag].at for tag in self._tags]
        self._between = [content[a:b] for a, b in zip([0, *ends], [*starts, len(content)], strict=True)]
        self._group_length = struct.unpack_from("<L", content, starts[0] + 8)[0]

    def file(self, sop_instance_uid: str, elements: Mapping[int, Pieces]) -> bytes:
        """Write the image of this name; ``elements`` are the encoded varying ones by tag."""
        meta_uid = text_element(_MEDIA_STORAGE_SOP_INSTANCE_UID, "UI", sop_instance_uid)
        replaced = self._places[_MEDIA_STORAGE_SOP_INSTANCE_UID]
        group_length = self._group_length + len(meta_uid) - (replaced.end - replaced.at)
        own: dict[int, Pieces] = {
            _GROUP_LENGTH: (struct.pack("<HH2sHL", 2, 0, b"UL", 4, group_length),),
            _MEDIA_STORAGE_SOP_INSTANCE_UID: (meta_uid,),
            _SOP_INSTANCE_UID: (text_element(_SOP_INSTANCE_UID, "UI", sop_instance_uid),),
        }
        pieces: list[bytes | memoryview] = [self._between[0]]
        for tag, after in zip(self._tags, self._between[1:], strict=True):
            pieces.extend(own[tag] if tag in own else elements[tag])
            pieces.append(after)
        return b"".join(pieces)


def text_element(tag: int, vr: str, *values: str) -> bytes:
    """Encode an element of short text in explicit VR little endian, padded to an even length (PS3.5 6.2)."""
    value = "\\".join(values).encode("latin-1")
    if len(value) % 2:
        value += b"\0" if vr == "UI" else b" "
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value


def long_element(tag: int, vr: str, *pieces: bytes | memoryview) -> Pieces:
    """Put before a value, of even length in all, the head of an element whose length has 32 bits (PS3.5 7.1.2)."""
    length = sum(memoryview(piece).nbytes for piece in pieces)
    return struct.pack("<HH2s2xL", tag >> 16, tag & 0xFFFF, vr.encode(), length), *pieces


def item(*elements: bytes) -> bytes:
    """Encode one item of a sequence."""
    value = b"".join(elements)
    return struct.pack("<HHL", _ITEM >> 16, _ITEM & 0xFFFF, len(value)) + value
