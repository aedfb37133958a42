"""How do reformatted planes and projections become a derived CT series (PS3.3 A.3)?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage
from pydicom.valuerep import format_number_as_ds

from pacs_bridge.results.context import Context
from pacs_bridge.results.identifiers import frame_of_reference_uid
from pacs_bridge.results.part10 import (
    SERIES_NUMBERS,
    coded,
    dress,
    finished,
    reference,
    series_uid_of,
    uid_of,
)
from pacs_bridge.results.sources import ACQUISITION, copy_attribute, copy_lossy_history
from pacs_bridge.results.texts import say
from pipeline.model import ExaminedStack, Report, ResultObject
from reconstruction.planes import Planes

# PS3.16 CID 7203
_DERIVATIONS = {"mpr": ("113072", "Multiplanar reformatting"), "mip": ("113078", "Maximum intensity projection")}
_TYPE_2 = ("KVP", "AcquisitionNumber", "PositionReferenceIndicator", "PatientPosition")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reformat:
    """Derived planes and the stack they were made from."""

    planes: Planes
    stack: ExaminedStack


def build_derived_series(context: Context, report: Report, reformat: Reformat, number: int) -> Iterator[ResultObject]:
    """Build one CT image for each plane, one by one; ``number`` (from 1) tells this study's derived series apart."""
    shared = _shared(context, report, reformat, number)
    kind = reformat.planes.kind
    for index in range(len(reformat.planes.hu)):
        yield finished(_frame(shared, report, reformat.planes, (number, index)), kind, index + 1)


def _shared(context: Context, report: Report, reformat: Reformat, number: int) -> Dataset:
    planes = reformat.planes
    instances = reformat.stack.instances
    shared = Dataset()
    shared.SOPClassUID = CTImageStorage
    shared.Modality = "CT"
    shared.ImageType = ["DERIVED", "SECONDARY", "REFORMATTED", planes.kind.upper()]
    shared.SeriesInstanceUID = series_uid_of(report, planes.kind, number)
    shared.SeriesNumber = SERIES_NUMBERS["planes"] + number
    shared.SeriesDescription = _description(context, planes)
    shared.ImageComments = say("disclaimer", context.language)
    shared.BurnedInAnnotation = "NO"
    shared.FrameOfReferenceUID = frame_of_reference_uid(reformat.stack)
    _copy_acquisition(context.sources.of(instances[:1])[0], shared)
    copy_lossy_history(context.sources.lossy(instances), shared)
    _describe_pixels(planes, shared)
    _describe_plane(planes, shared)
    shared.DerivationDescription = say(f"derivation.{planes.kind}", context.language)
    value, meaning = _DERIVATIONS[planes.kind]
    shared.DerivationCodeSequence = [coded(value, "DCM", meaning)]
    shared.SourceImageSequence = [reference(name) for name in context.sources.referable(instances)]
    dress(shared, context, report)
    return _read_back(shared)


def _description(context: Context, planes: Planes) -> str:
    orientation = say(f"orientation.{planes.orientation}", context.language)
    thickness = f"{planes.slice_thickness_mm:g}"
    return say(f"series.{planes.kind}", context.language, orientation=orientation, thickness=thickness)


def _copy_acquisition(source: Dataset, target: Dataset) -> None:
    for keyword in ACQUISITION:
        copy_attribute(source, target, keyword)
    if "WindowCenter" not in target or "WindowWidth" not in target:
        for keyword in ("WindowCenter", "WindowWidth"):  # one says nothing without the other
            target.pop(keyword, None)
    for keyword in _TYPE_2:
        if keyword not in target:
            setattr(target, keyword, None)
    if "BodyPartExamined" not in target and "Laterality" not in target:
        target.Laterality = None  # type 2C, wanted where the body part is unknown


def _describe_pixels(planes: Planes, target: Dataset) -> None:
    target.SamplesPerPixel = 1
    target.PhotometricInterpretation = "MONOCHROME2"
    target.Rows, target.Columns = planes.hu.shape[1:]
    target.BitsAllocated = target.BitsStored = 16
    target.HighBit = 15
    target.PixelRepresentation = 1
    target.RescaleIntercept, target.RescaleSlope, target.RescaleType = "0", "1", "HU"


def _describe_plane(planes: Planes, target: Dataset) -> None:
    target.PixelSpacing = _decimals(planes.pixel_spacing_mm)
    target.ImageOrientationPatient = _decimals([*planes.row_direction, *planes.column_direction])
    target.SliceThickness = _decimals([planes.slice_thickness_mm])[0]
    if planes.spacing_between_mm is not None:
        target.SpacingBetweenSlices = _decimals([planes.spacing_between_mm])[0]


def _decimals(values: Sequence[float]) -> list[str]:
    """Write numbers in the 16 characters of a decimal string; -0.0 becomes 0."""
    return [format_number_as_ds(float(value) + 0.0) for value in values]


def _read_back(shared: Dataset) -> Dataset:
    """Return the data set as undecoded bytes: hundreds of frames then share one encoding of hundreds of references."""
    buffer = BytesIO()
    dcmwrite(buffer, shared, implicit_vr=False, little_endian=True)
    buffer.seek(0)
    return dcmread(buffer, force=True)


def _frame(shared: Dataset, report: Report, planes: Planes, place: tuple[int, int]) -> Dataset:
    number, index = place
    frame = Dataset()
    frame.update({tag: shared.get_item(tag) for tag in list(shared.keys())})
    implicit_vr, little_endian = shared.original_encoding
    frame.set_original_encoding(implicit_vr, little_endian, shared.original_character_set)
    frame.SOPInstanceUID = uid_of(report, f"{planes.kind}:{number}", index + 1)
    frame.InstanceNumber = index + 1
    frame.ImagePositionPatient = _decimals(planes.origins_lps_mm[index])
    frame.add_new("PixelData", "OW", np.ascontiguousarray(planes.hu[index], dtype="<i2").tobytes())
    return frame
