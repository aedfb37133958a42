"""What does an instance say about its pixels and their place?"""

import json
import math
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import pydicom
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset as parse

from reconstruction.data_set import BROKEN_ELEMENT, pixels_of
from reconstruction.data_set import read_dataset as read_dataset
from reconstruction.errors import NotDicom
from reconstruction.part10 import (
    DEFLATED_LE,
    EXPLICIT_BE,
    IMPLICIT_LE,
    Found,
    Scan,
    Unsure,
)

T = TypeVar("T")
_PATHS_AT_ONCE = 16

Vector3 = tuple[float, float, float]
Vector6 = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The attributes of one instance that decide where and what its pixels are; None where absent or unusable.

    ``orientation`` is the row direction followed by the column direction, ``position_mm`` the centre of the first
    pixel (LPS, PS3.3 C.7.6.2.1.1); ``pixel_spacing_mm`` is (between rows, between columns). Values that are no
    finite numbers are kept as NaN, so that whoever needs them refuses them by name. ``frame`` counts from 1 within a
    multi-frame instance (None: the instance is one image). ``pixels_at`` is where the value of Pixel Data starts in
    the Part-10 file and ``pixels_length`` its length in bytes, None where not known or not stated (encapsulated).
    ``is_lossy``: the pixels were once compressed with loss (PS3.3 C.7.6.1.1.5). ``implementation_class_uid`` names who
    wrote the file, by its meta information. ``stack_id``: frames that state different ones are different stacks.
    """

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    series_instance_uid: str
    modality: str
    image_type: tuple[str, ...] = ()
    series_number: int | None = None
    series_description: str = ""
    instance_number: int | None = None
    acquisition_number: int | None = None
    acquisition_time: str | None = None
    temporal_position: int | None = None
    rows: int = 0
    columns: int = 0
    number_of_frames: int = 1
    samples_per_pixel: int = 1
    bits_allocated: int = 16
    bits_stored: int = 16
    high_bit: int | None = None
    pixel_representation: int = 0
    pixel_padding: tuple[int, int] | None = None
    orientation: Vector6 | None = None
    position_mm: Vector3 | None = None
    pixel_spacing_mm: tuple[float, float] | None = None
    frame_of_reference_uid: str | None = None
    slice_thickness_mm: float | None = None
    tilt_tag_deg: float | None = None
    rescale_slope: float | None = None
    rescale_intercept: float | None = None
    rescale_type: str | None = None
    kernel: str | None = None
    kvp: float | None = None
    contrast_agent: str | None = None
    body_part: str | None = None
    study_description: str | None = None
    protocol_name: str | None = None
    manufacturer: str | None = None
    age_years: float | None = None
    frame: int | None = None
    pixels_at: int | None = None
    pixels_length: int | None = None
    study_instance_uid: str = ""
    patient_id: str = field(default="", repr=False)
    is_lossy: bool = False
    implementation_class_uid: str | None = None
    stack_id: str | None = None
    spacing_between_slices_mm: float | None = None

    @property
    def has_pixels(self) -> bool:
        """Say whether the header announces an image at all."""
        return self.rows > 0 and self.columns > 0

    @classmethod
    def from_dataset(cls, dataset: Dataset, transfer_syntax_uid: str) -> "Header":
        """Read the attributes from a data set that was read tolerantly."""
        text, whole, number = _reader(dataset, _text), _reader(dataset, _whole), _reader(dataset, _number)
        return cls(
            sop_instance_uid=text("SOPInstanceUID") or "",
            sop_class_uid=text("SOPClassUID") or "",
            transfer_syntax_uid=transfer_syntax_uid,
            series_instance_uid=text("SeriesInstanceUID") or "",
            modality=text("Modality") or "",
            image_type=_texts(dataset, "ImageType"),
            series_number=whole("SeriesNumber"),
            series_description=text("SeriesDescription") or "",
            instance_number=whole("InstanceNumber"),
            acquisition_number=whole("AcquisitionNumber"),
            acquisition_time=text("AcquisitionTime") or text("ContentTime"),
            temporal_position=whole("TemporalPositionIdentifier"),
            rows=whole("Rows") or 0,
            columns=whole("Columns") or 0,
            number_of_frames=whole("NumberOfFrames") or 1,
            samples_per_pixel=whole("SamplesPerPixel") or 1,
            bits_allocated=whole("BitsAllocated") or 16,
            bits_stored=whole("BitsStored") or 16,
            high_bit=whole("HighBit"),
            pixel_representation=whole("PixelRepresentation") or 0,
            pixel_padding=_padding(dataset),
            orientation=_vector(dataset, "ImageOrientationPatient", 6),
            position_mm=_vector(dataset, "ImagePositionPatient", 3),
            pixel_spacing_mm=_vector(dataset, "PixelSpacing", 2),
            frame_of_reference_uid=text("FrameOfReferenceUID"),
            slice_thickness_mm=number("SliceThickness"),
            tilt_tag_deg=number("GantryDetectorTilt"),
            rescale_slope=number("RescaleSlope"),
            rescale_intercept=number("RescaleIntercept"),
            rescale_type=text("RescaleType"),
            kernel=text("ConvolutionKernel"),
            kvp=number("KVP"),
            contrast_agent=text("ContrastBolusAgent"),
            body_part=text("BodyPartExamined"),
            study_description=text("StudyDescription"),
            protocol_name=text("ProtocolName"),
            manufacturer=text("Manufacturer"),
            age_years=_age_years(text("PatientAge")),
            study_instance_uid=text("StudyInstanceUID") or "",
            patient_id=text("PatientID") or "",
            is_lossy=text("LossyImageCompression") == "01",
            implementation_class_uid=_implementation_of(dataset),
            spacing_between_slices_mm=number("SpacingBetweenSlices"),
        )


_FIELDS = tuple(each.name for each in fields(Header))
_PUT = tuple(Header.__dict__[name].__set__ for name in _FIELDS)
_LAYOUT = zlib.crc32(repr([(each.name, str(each.type)) for each in fields(Header)]).encode(), 1)
"""Changes with the fields of Header; the number after them is to be raised when one is read differently."""

_STEADY = (
    *("SpecificCharacterSet", "ImageType", "SOPClassUID", "SeriesInstanceUID", "Modality", "SeriesNumber"),
    *("SeriesDescription", "TemporalPositionIdentifier", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("ImageOrientationPatient", "PixelSpacing", "FrameOfReferenceUID", "SliceThickness", "GantryDetectorTilt"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "ConvolutionKernel", "KVP", "ContrastBolusAgent"),
    *("BodyPartExamined", "StudyDescription", "ProtocolName", "Manufacturer", "PatientAge", "StudyInstanceUID"),
    *("PatientID", "LossyImageCompression", "SpacingBetweenSlices"),
)
"""What ``Header.from_dataset`` reads and a series usually repeats, so that it is converted once."""

_UID, _WHOLE, _TIME = (
    re.compile(rb"[0-9.]{1,64}[ \0]*"),
    re.compile(rb" *(?:[+-]?[0-9]{1,9})? *"),
    re.compile(rb"[0-9.:]* *"),
)
_DECIMAL = rb" *[+-]?[0-9]{1,12}(?:\.[0-9]{0,12})?(?:[eE][+-]?[0-9]{1,2})? *"
_POSITION = re.compile(rb"(?:%b\\%b\\%b)?" % (_DECIMAL, _DECIMAL, _DECIMAL))
_EACH = (
    ("SOPInstanceUID", b"UI", _UID),
    ("InstanceNumber", b"IS", _WHOLE),
    ("ImagePositionPatient", b"DS", _POSITION),
    ("AcquisitionTime", b"TM", _TIME),
    ("ContentTime", b"TM", _TIME),
    ("AcquisitionNumber", b"IS", _WHOLE),
)
"""What differs from slice to slice, and how it is plainly written."""


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return tag


_STEADY_TAGS, _EACH_TAGS = sorted(map(_tag, _STEADY)), [_tag(keyword) for keyword, _, _ in _EACH]
HEADER_TAGS = frozenset((*_STEADY_TAGS, *_EACH_TAGS))
"""The elements that make a Header."""

_SCAN = Scan(steady=_STEADY_TAGS, each=_EACH_TAGS)


def read_header(path: Path) -> Header:
    """Read the Header of a Part-10 file; raises NotDicom."""
    try:
        return _header_of(_SCAN.file(path))
    except (Unsure, OSError):
        return _header_by_pydicom(path)


def read_headers(paths: Sequence[Path], *, threads: int = 2) -> list[Header | NotDicom]:
    """Read many headers, in the order of ``paths``: for each its Header, or why it has none."""

    def read(some: Sequence[Path]) -> list[Header | NotDicom]:
        return [_header_or_refusal(path) for path in some]

    with ThreadPoolExecutor(threads) as pool:
        parts = pool.map(read, [paths[n : n + _PATHS_AT_ONCE] for n in range(0, len(paths), _PATHS_AT_ONCE)])
        return [header for part in parts for header in part]


def header_of_elements(
    transfer_syntax_uid: str,
    elements: Mapping[int, bytes],
    *,
    implementation_class_uid: str | None = None,
    pixels: tuple[int | None, int | None] = (None, None),
) -> Header:
    """Make the Header of elements (whole, by tag, as they stand in a little endian file) that others have found.

    Of ``elements`` those in HEADER_TAGS are read; ``pixels`` are the value's offset in the file and its length.
    Raises Unsure where pydicom might read them otherwise.
    """
    if transfer_syntax_uid in (DEFLATED_LE, EXPLICIT_BE):
        raise Unsure
    return _header_of(
        Found(
            transfer_syntax_uid=transfer_syntax_uid,
            implementation_class_uid=implementation_class_uid,
            steady=b"".join(elements[tag] for tag in _STEADY_TAGS if tag in elements),
            each=tuple(elements.get(tag) for tag in _EACH_TAGS),
            pixels_at=pixels[0],
            pixels_length=pixels[1],
        )
    )


def pack(header: Header) -> str:
    """Write a Header as one line of text, for an index; numbers come back exactly, NaN as NaN."""
    return json.dumps([_LAYOUT, *(getattr(header, name) for name in _FIELDS)], separators=(",", ":"))


def unpack(text: str) -> Header | None:
    """Read a Header that ``pack`` wrote; None where another version of this layout did: the file has to be read."""
    try:
        layout, *values = json.loads(text)
    except (ValueError, TypeError):
        return None
    if layout != _LAYOUT or len(values) != len(_FIELDS):
        return None
    header = object.__new__(Header)  # a third of the time that the constructor takes, for 2,900 at once
    for put, value in zip(_PUT, values, strict=True):
        put(header, tuple(value) if type(value) is list else value)
    return header


def _header_or_refusal(path: Path) -> Header | NotDicom:
    try:
        return read_header(path)
    except NotDicom as refused:
        return refused


def _header_by_pydicom(path: Path) -> Header:
    dataset = read_dataset(path)
    header = Header.from_dataset(dataset, transfer_syntax_of(dataset))
    if header.transfer_syntax_uid in (DEFLATED_LE, EXPLICIT_BE):
        return header
    at, length = pixels_of(path)
    return replace(header, pixels_at=at, pixels_length=length)


def _header_of(found: Found) -> Header:
    """Make the Header of what a scan found; raises Unsure where pydicom might read it otherwise."""
    is_implicit = found.transfer_syntax_uid == IMPLICIT_LE
    changes = _plain_values(found.each, is_implicit=is_implicit)
    if changes is None:
        elements = b"".join(element for element in found.each if element is not None)
        values = _values_by_pydicom(found.transfer_syntax_uid, found.steady + elements)
        if not values["sop_instance_uid"]:
            raise Unsure
        return Header(**{**values, **_beside_the_data_set(found)})
    steady = _steady_values(found.transfer_syntax_uid, found.steady)
    return Header(**{**steady, **changes, **_beside_the_data_set(found)})


def _plain_values(each: Sequence[bytes | None], *, is_implicit: bool) -> dict[str, Any] | None:
    """Read the values that differ from slice to slice, as pydicom does; None where one is not plainly written."""
    texts = []
    for element, (_, vr, plain) in zip(each, _EACH, strict=True):
        if element is None:
            texts.append("")
        elif (is_implicit or element[4:6] == vr) and plain.fullmatch(element, 8):
            texts.append(element[8:].decode("ascii").strip(" \0"))
        else:
            return None
    uid, number, position, acquired, content, acquisition = texts
    if not uid:
        return None
    return {
        "sop_instance_uid": uid,
        "instance_number": int(number) if number else None,
        "position_mm": tuple(map(float, position.split("\\"))) if position else None,
        "acquisition_time": acquired or content or None,
        "acquisition_number": int(acquisition) if acquisition else None,
    }


@lru_cache(maxsize=1024)
def _steady_values(transfer_syntax_uid: str, elements: bytes) -> Mapping[str, Any]:
    return _values_by_pydicom(transfer_syntax_uid, elements)


def _values_by_pydicom(transfer_syntax_uid: str, elements: bytes) -> dict[str, Any]:
    """Read elements taken from a file as pydicom reads them in their places; raises Unsure where it cannot."""
    try:
        dataset = parse(BytesIO(elements), transfer_syntax_uid == IMPLICIT_LE, True)  # noqa: FBT003 - little endian
    except BROKEN_ELEMENT as error:
        raise Unsure from error
    header = Header.from_dataset(dataset, transfer_syntax_uid)
    return {name: getattr(header, name) for name in _FIELDS}


def _beside_the_data_set(found: Found) -> dict[str, Any]:
    return {
        "implementation_class_uid": found.implementation_class_uid,
        "pixels_at": found.pixels_at,
        "pixels_length": found.pixels_length,
    }


def text_of(dataset: Dataset, keyword: str) -> str:
    """Read one attribute as text, the first of several values; empty where it is absent or its bytes are broken."""
    return _text(_value(dataset, keyword)) or ""


def transfer_syntax_of(dataset: Dataset) -> str:
    """Return the transfer syntax a file declares, implicit little endian where it declares none (PS3.10 7.1)."""
    meta = getattr(dataset, "file_meta", None)
    return str(meta.get("TransferSyntaxUID", IMPLICIT_LE)) if meta is not None else IMPLICIT_LE


def _implementation_of(dataset: Dataset) -> str | None:
    meta = getattr(dataset, "file_meta", None)
    return None if meta is None else _text(_value(meta, "ImplementationClassUID"))


def _reader(dataset: Dataset, parse: Callable[[Any], T | None]) -> Callable[[str], T | None]:
    return lambda keyword: parse(_value(dataset, keyword))


def _value(dataset: Dataset, keyword: str) -> Any:
    """Take one value, None where a broken element cannot be converted: a damaged tag must not hide the others."""
    try:
        return dataset.get(keyword)
    except BROKEN_ELEMENT:
        return None


def _text(value: Any) -> str | None:
    if value is None:
        return None
    first = value[0] if isinstance(value, pydicom.multival.MultiValue) and value else value
    return str(first).strip(" \0") or None


def _texts(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    value = _value(dataset, keyword)
    if value is None:
        return ()
    return tuple(str(v) for v in value) if isinstance(value, pydicom.multival.MultiValue) else (str(value),)


def _number(value: Any) -> float | None:
    if value is None or value == "":
        return None
    first = value[0] if isinstance(value, pydicom.multival.MultiValue) and value else value
    try:
        return float(first)
    except (ValueError, TypeError):
        return math.nan


def _whole(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and math.isfinite(number) else None


def _vector(dataset: Dataset, keyword: str, length: int) -> Any:
    value = _value(dataset, keyword)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes) or len(value) != length:
        return None
    return tuple(number if (number := _number(v)) is not None else math.nan for v in value)


def _padding(dataset: Dataset) -> tuple[int, int] | None:
    """Read the range of padding values in the sign of the pixels: some scanners write -2000 as the unsigned 63536."""
    whole = _reader(dataset, _whole)
    value, limit = whole("PixelPaddingValue"), whole("PixelPaddingRangeLimit")
    if value is None:
        return None
    span, signed = 1 << (whole("BitsAllocated") or 16), whole("PixelRepresentation") == 1
    ends = [end % span for end in (value, value if limit is None else limit)]
    if signed:
        ends = [end - span if end >= span // 2 else end for end in ends]
    return min(ends), max(ends)


def _age_years(text: str | None) -> float | None:
    """PS3.5 6.2, Age String: nnnD, nnnW, nnnM or nnnY."""
    units = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}
    if text is None or text[-1:] not in units or not text[:-1].isdecimal():
        return None
    return int(text[:-1]) / units[text[-1]]
