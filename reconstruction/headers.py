"""What does an instance say about its pixels and their place?"""

import math
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from reconstruction.errors import NotDicom

T = TypeVar("T")
_BROKEN_ELEMENT = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)
"""What pydicom raises where the bytes of one element cannot be converted to its type."""

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
        )


def read_dataset(path: Path, *, pixels: bool = False) -> Dataset:
    """Read a Part-10 file (a missing preamble is forgiven), by default without its pixel data.

    Raises NotDicom where there is no data set that can be read, with the reason.
    """
    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=not pixels, force=_lacks_preamble(path))
    except InvalidDicomError as error:
        raise NotDicom("not a DICOM file", is_foreign=True) from error
    except RecursionError as error:
        raise NotDicom("its sequences are nested too deeply") from error
    except (*_BROKEN_ELEMENT, EOFError, MemoryError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise NotDicom(f"the file cannot be opened: {error.strerror}") from error
        raise NotDicom(f"damaged DICOM file: {type(error).__name__}") from error
    if len(dataset) == 0:
        raise NotDicom("the file is cut off")
    if "SOPInstanceUID" not in dataset:
        is_directory = "DirectoryRecordSequence" in dataset
        raise NotDicom("a DICOMDIR" if is_directory else "no SOP Instance UID", is_foreign=is_directory)
    return dataset


def read_header(path: Path) -> Header:
    """Read the Header of a Part-10 file; raises NotDicom."""
    dataset = read_dataset(path)
    return Header.from_dataset(dataset, transfer_syntax_of(dataset))


def _lacks_preamble(path: Path) -> bool:
    """Say whether a file starts with its File Meta Information, group 0002, at once (seen from old archives)."""
    with path.open("rb") as file:
        return file.read(6) == b"\x02\x00\x00\x00UL"


def text_of(dataset: Dataset, keyword: str) -> str:
    """Read one attribute as text, the first of several values; empty where it is absent or its bytes are broken."""
    return _text(_value(dataset, keyword)) or ""


def transfer_syntax_of(dataset: Dataset) -> str:
    """Return the transfer syntax a file declares, implicit little endian where it declares none (PS3.10 7.1)."""
    meta = getattr(dataset, "file_meta", None)
    return str(meta.get("TransferSyntaxUID", "1.2.840.10008.1.2")) if meta is not None else "1.2.840.10008.1.2"


def _implementation_of(dataset: Dataset) -> str | None:
    meta = getattr(dataset, "file_meta", None)
    return None if meta is None else _text(_value(meta, "ImplementationClassUID"))


def _reader(dataset: Dataset, parse: Callable[[Any], T | None]) -> Callable[[str], T | None]:
    return lambda keyword: parse(_value(dataset, keyword))


def _value(dataset: Dataset, keyword: str) -> Any:
    """Take one value, None where a broken element cannot be converted: a damaged tag must not hide the others."""
    try:
        return dataset.get(keyword)
    except _BROKEN_ELEMENT:
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
