"""Which facts does the bridge need from a received data set, and how are they read without decoding it?"""

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydicom.charset import convert_encodings, decode_bytes

from pacs_bridge.elements import BIG_ENDIAN, Elements, elements_of
from pacs_bridge.errors import CannotUnderstand
from pipeline.select import belongs_to_ct

LONGEST_TEXT_BYTES: Final = 1024
"""No text of the index may be longer (PS3.5, 6.2: 64 characters, a name three times as many); the rest is cut off."""
Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceFacts:
    """What the index, the arrival and the routing know of one SOP instance, as its header says.

    Texts are decoded, without padding; absent ones are empty. ``position_mm`` lies along the normal of
    ``orientation`` (row, then column cosines, LPS). ``declared_count`` is the number of images the header promises.
    """

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    modality: str = ""
    patient_id: str = ""
    patient_name: str = ""
    accession_number: str = ""
    study_description: str = ""
    series_description: str = ""
    body_part: str = ""
    manufacturer: str = ""
    series_number: int | None = None
    acquisition_number: int | None = None
    instance_number: int | None = None
    image_type: tuple[str, ...] = ()
    rows: int | None = None
    columns: int | None = None
    frames: int | None = None
    declared_count: int | None = None
    image_position: Triple | None = None
    orientation: tuple[float, ...] | None = None
    slice_thickness_mm: float | None = None

    @property
    def is_ct(self) -> bool:
        """Say whether this belongs to a CT study: by modality (a scanner's pages too), or by SOP class."""
        return belongs_to_ct(self.modality, self.sop_class_uid)

    @property
    def position_mm(self) -> float | None:
        """Return where the image lies along its own normal; None without position and orientation."""
        if self.image_position is None or self.orientation is None:
            return None
        (a, b, c), (d, e, f) = self.orientation[:3], self.orientation[3:]
        x, y, z = self.image_position
        return (b * f - c * e) * x + (c * d - a * f) * y + (a * e - b * d) * z

    def as_json(self) -> dict[str, Any]:
        """Return the facts as JSON takes them."""
        return {name: getattr(self, name) for name in self.__slots__}


def facts_from_json(facts: Mapping[str, Any]) -> InstanceFacts:
    """Rebuild what `InstanceFacts.as_json` gave."""
    tuples = {key: tuple(value) for key, value in facts.items() if isinstance(value, list)}
    return InstanceFacts(**{**facts, **tuples})


def read_facts(dataset: bytes, transfer_syntax: str) -> InstanceFacts:
    """Read the facts of a data set as it came over the network (no file meta information).

    Raises CannotUnderstand for bytes that are no data set, are cut off, are nested too deeply, or lack a valid UID.
    """
    return facts_of(elements_of(dataset, transfer_syntax), transfer_syntax)


def facts_of(elements: Elements, transfer_syntax: str) -> InstanceFacts:
    """Read the facts of elements that were found; raises CannotUnderstand where a UID is missing or not valid."""
    raw = {tag: elements.value(tag) for tag in _WANTED if tag in elements.places}
    encodings = _encodings(raw)
    uids: dict[str, Any] = {name: _uid(raw, name) for name in _UIDS}
    texts: dict[str, Any] = {name: _text(raw.get(tag, b""), encodings) for name, tag in _TEXTS.items()}
    numbers: dict[str, Any] = {name: _integer(raw.get(tag, b"")) for name, tag in _INTEGERS.items()}
    order = ">" if transfer_syntax == BIG_ENDIAN else "<"
    return InstanceFacts(
        **uids,
        **texts,
        **numbers,
        modality=_text(raw.get(0x00080060, b""), encodings).upper(),
        image_type=tuple(part.strip() for part in _text(raw.get(0x00080008, b""), encodings).split("\\") if part),
        rows=_short(raw.get(0x00280010, b""), order),
        columns=_short(raw.get(0x00280011, b""), order),
        declared_count=_integer(raw.get(0x00201209, b"")) or _integer(raw.get(0x00201002, b"")),
        image_position=_triple(_decimals(raw.get(0x00200032, b""), 3)),
        orientation=_decimals(raw.get(0x00200037, b""), 6),
        slice_thickness_mm=_decimal(raw.get(0x00180050, b"")),
    )


def is_uid(text: str) -> bool:
    """Say whether this may stand as a UID: up to 64 digits and dots; leading zeros, seen in the wild, are let pass."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None


_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)*")
_UIDS: Final = {
    "study_instance_uid": 0x0020000D,
    "series_instance_uid": 0x0020000E,
    "sop_instance_uid": 0x00080018,
    "sop_class_uid": 0x00080016,
}
_TEXTS: Final = {
    "patient_id": 0x00100020,
    "patient_name": 0x00100010,
    "accession_number": 0x00080050,
    "study_description": 0x00081030,
    "series_description": 0x0008103E,
    "body_part": 0x00180015,
    "manufacturer": 0x00080070,
}
_INTEGERS: Final = {
    "series_number": 0x00200011,
    "acquisition_number": 0x00200012,
    "instance_number": 0x00200013,
    "frames": 0x00280008,
}
_OTHERS: Final = (0x80005, 0x80008, 0x80060, 0x201209, 0x201002, 0x200032, 0x200037, 0x280010, 0x280011, 0x180050)
_WANTED: Final = frozenset((*_UIDS.values(), *_TEXTS.values(), *_INTEGERS.values(), *_OTHERS))


def _uid(raw: Mapping[int, bytes], name: str) -> str:
    text = raw.get(_UIDS[name], b"").decode("ascii", "replace").strip("\0 ")
    if not is_uid(text):
        raise CannotUnderstand(f"its {name.replace('_', ' ')} is {'not valid' if text else 'missing'}")
    return text


def _encodings(raw: Mapping[int, bytes]) -> list[str]:
    """Undeclared Latin-1 (ñ without 0008,0005) is common: no declaration, or an unknown one, is read as ISO_IR 100."""
    declared = raw.get(0x00080005, b"").decode("ascii", "replace").strip("\0 ")
    try:
        return convert_encodings(declared.split("\\")) if declared else ["latin_1"]
    except (LookupError, ValueError):
        return ["latin_1"]


def _text(whole: bytes, encodings: list[str]) -> str:
    value = whole[:LONGEST_TEXT_BYTES]
    if value.isascii() and b"\x1b" not in value:
        return value.decode("ascii").strip("\0 ")
    try:
        return decode_bytes(value, encodings, set(b"\\^=\r\n\t\f")).strip("\0 ")
    except (LookupError, ValueError):
        return value.decode("latin-1").strip("\0 ")


def _integer(value: bytes) -> int | None:
    try:
        return int(value.split(b"\\")[0].strip(b"\0 "))
    except ValueError:
        return None


def _short(value: bytes, order: str) -> int | None:
    return int(struct.unpack(order + "H", value[:2])[0]) if len(value) >= 2 else None


def _decimals(value: bytes, count: int) -> tuple[float, ...] | None:
    try:
        numbers = tuple(float(part.strip(b"\0 ")) for part in value.split(b"\\"))
    except ValueError:
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None


def _decimal(value: bytes) -> float | None:
    numbers = _decimals(value, 1)
    return numbers[0] if numbers else None


def _triple(numbers: tuple[float, ...] | None) -> Triple | None:
    return (numbers[0], numbers[1], numbers[2]) if numbers else None
