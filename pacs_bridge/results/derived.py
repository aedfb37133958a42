"""How do reformatted planes and projections become a derived CT series (PS3.3 A.3)?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage
from pydicom.valuerep import format_number_as_ds

from pacs_bridge.results.alike import Alike, Pieces, long_element, text_element
from pacs_bridge.results.context import Context
from pacs_bridge.results.identifiers import frame_of_reference_uid
from pacs_bridge.results.part10 import (
    SERIES_NUMBERS,
    coded,
    dress,
    series_uid_of,
    uid_of,
)
from pacs_bridge.results.source_images import SOURCE_IMAGE_SEQUENCE, EncodedSources, slices_shown
from pacs_bridge.results.sources import ACQUISITION, copy_attribute, copy_lossy_history
from pacs_bridge.results.texts import say
from pipeline.model import ExaminedStack, ObjectKind, Report, ResultObject
from reconstruction.planes import Planes, PlanesKind

# PS3.16 CID 7203
_DERIVATIONS: Mapping[PlanesKind, tuple[str, str]] = {
    "mpr": ("113072", "Multiplanar reformatting"),
    "mip": ("113078", "Maximum intensity projection"),
    "minip": ("113079", "Minimum intensity projection"),
    "isotropic": ("113085", "Spatial resampling"),
}
# Image Type value 4; RESAMPLED is PS3.3 C.8.16.1.4's word for values that were interpolated and nothing more
_CONTRASTS: Mapping[PlanesKind, str] = {"mpr": "MPR", "mip": "MIP", "minip": "MINIP", "isotropic": "RESAMPLED"}
_INSTANCE_NUMBER, _POSITION, _PIXEL_DATA = 0x00200013, 0x00200032, 0x7FE00010
_VARYING = (SOURCE_IMAGE_SEQUENCE, _INSTANCE_NUMBER, _POSITION, _PIXEL_DATA)
_TYPE_2 = ("KVP", "AcquisitionNumber", "PositionReferenceIndicator", "PatientPosition")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reformat:
    """Derived planes and the stack they were made from.

    ``images_before`` counts the images that its series has already, where a series comes in several batches.
    ``kind`` says what they are for where that is more than how they were made ("needle").
    """

    planes: Planes
    stack: ExaminedStack
    images_before: int = 0
    kind: ObjectKind | None = None


def build_derived_series(context: Context, report: Report, reformat: Reformat, number: int) -> Iterator[ResultObject]:
    """Build one CT image for each plane, one by one; ``number`` (from 1) tells this study's derived series apart.

    Each names as its sources the slices that its slab touches. Raises MissingHeaders.
    """
    template = _template(context, report, reformat, number)
    series = Alike(template, _VARYING)
    sources = EncodedSources(context, reformat.stack)
    for index in range(len(reformat.planes.hu)):
        image = reformat.images_before + index + 1
        name = uid_of(report, f"{_kind(reformat)}:{number}", image)
        named = sources.element(slices_shown(reformat.stack, reformat.planes, index))
        yield ResultObject(
            kind=_kind(reformat),
            index=image,
            sop_instance_uid=name,
            sop_class_uid=str(template.SOPClassUID),
            series_instance_uid=str(template.SeriesInstanceUID),
            part10=series.file(name, _own(reformat.planes, index, image) | {SOURCE_IMAGE_SEQUENCE: named}),
            label=str(template.SeriesDescription),
        )


def _kind(reformat: Reformat) -> ObjectKind:
    return reformat.kind or reformat.planes.kind


def _template(context: Context, report: Report, reformat: Reformat, number: int) -> Dataset:
    """Return what the images of the series share, with a placeholder for each element that varies."""
    template = _shared(context, report, reformat, number)
    template.SOPInstanceUID = template.SeriesInstanceUID
    template.SourceImageSequence = []
    template.InstanceNumber = 1
    template.ImagePositionPatient = ["0", "0", "0"]
    template.add_new(_PIXEL_DATA, "OW", b"")
    return template


def _own(planes: Planes, index: int, image: int) -> dict[int, Pieces]:
    """Encode what one image says alone, but for its sources."""
    pixels = np.ascontiguousarray(planes.hu[index], dtype="<i2")
    return {
        _INSTANCE_NUMBER: (text_element(_INSTANCE_NUMBER, "IS", str(image)),),
        _POSITION: (text_element(_POSITION, "DS", *_decimals(planes.origins_lps_mm[index])),),
        _PIXEL_DATA: long_element(_PIXEL_DATA, "OW", pixels.data),
    }


def _shared(context: Context, report: Report, reformat: Reformat, number: int) -> Dataset:
    planes = reformat.planes
    instances = reformat.stack.instances
    shared = Dataset()
    shared.SOPClassUID = CTImageStorage
    shared.Modality = "CT"
    shared.ImageType = ["DERIVED", "SECONDARY", "REFORMATTED", _CONTRASTS[planes.kind]]
    shared.SeriesInstanceUID = series_uid_of(report, _kind(reformat), number)
    shared.SeriesNumber = SERIES_NUMBERS["planes"] + number
    shared.SeriesDescription = _description(context, reformat)
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
    dress(shared, context, report)
    return shared


def _description(context: Context, reformat: Reformat) -> str:
    orientation = say(f"orientation.{reformat.planes.orientation}", context.language)
    thickness = f"{reformat.planes.slice_thickness_mm:.3g}"
    words = "series.needle_planes" if reformat.kind == "needle" else f"series.{reformat.planes.kind}"
    return say(words, context.language, orientation=orientation, thickness=thickness)


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
