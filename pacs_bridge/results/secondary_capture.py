"""How do pictures without a plane (renderings, curved views, summary) become Secondary Captures (PS3.3 A.8)?"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage
from pydicom.valuerep import format_number_as_ds

from pacs_bridge.results.context import Context, wall_clock
from pacs_bridge.results.part10 import (
    SERIES_NUMBERS,
    coded,
    dress,
    finished,
    series_uid_of,
    uid_of,
)
from pacs_bridge.results.source_images import source_images
from pacs_bridge.results.sources import copy_lossy_history
from pacs_bridge.results.texts import say
from pipeline.model import ExaminedStack, Report, ResultObject

CaptureKind = Literal["render", "summary", "curved", "needle"]
_PLACES: Mapping[CaptureKind, int] = {"render": 1, "summary": 2, "curved": 3, "needle": 4}
# PS3.16 CID 7203
_DERIVATIONS: Mapping[CaptureKind, tuple[str, str]] = {
    "render": ("113074", "Volume rendering"),
    "curved": ("113073", "Curved multiplanar reformatting"),
    "needle": ("113072", "Multiplanar reformatting"),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Capture:
    """A picture: uint8 (rows, columns, 3), and the stack it shows (None for the whole study).

    ``burned_in`` is YES where the pixels hold text that names the patient. ``pixel_spacing_mm`` (row, column) stands
    only where distances in the picture are distances in the patient.
    """

    kind: CaptureKind
    rgb: npt.NDArray[np.uint8]
    burned_in: Literal["YES", "NO"]
    stack: ExaminedStack | None = None
    pixel_spacing_mm: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.rgb.ndim != 3 or self.rgb.shape[2] != 3 or self.rgb.dtype != np.uint8:
            raise ValueError("a capture is uint8 (rows, columns, 3)")


def build_captures(context: Context, report: Report, captures: Sequence[Capture]) -> list[ResultObject]:
    """Build one Secondary Capture for each picture; pictures of one kind share a series."""
    counts: Counter[CaptureKind] = Counter()
    built = []
    for capture in captures:
        counts[capture.kind] += 1
        built.append(build_capture(context, report, capture, counts[capture.kind]))
    return built


def build_capture(context: Context, report: Report, capture: Capture, number: int) -> ResultObject:
    """Build one Secondary Capture, the ``number``-th of its kind in the study."""
    sources = _sources(context, report, capture)
    image = Dataset()
    image.SOPClassUID = SecondaryCaptureImageStorage
    image.SOPInstanceUID = uid_of(report, f"capture:{capture.kind}", number)
    # Planes of a kind may be a CT series; its pictures are another one, since a series has one modality.
    image.SeriesInstanceUID = series_uid_of(report, f"capture:{capture.kind}")
    image.SeriesNumber = SERIES_NUMBERS["captures"] + _PLACES[capture.kind]
    image.SeriesDescription = say(f"series.{capture.kind}", context.language)
    image.InstanceNumber = number
    image.Modality = "OT"
    image.ConversionType = "SYN"
    image.ImageType = ["DERIVED", "SECONDARY"]
    image.PatientOrientation = image.Laterality = None  # type 2C, empty where unknown
    image.BurnedInAnnotation = capture.burned_in
    image.ImageComments = say("disclaimer", context.language)
    image.DerivationDescription = say(f"derivation.{capture.kind}", context.language)
    copy_lossy_history(context.sources.lossy(sources), image)
    _name_source(image, context, capture)
    describe_colours(image, capture.rgb)
    if capture.pixel_spacing_mm is not None:
        image.PixelSpacing = [format_number_as_ds(mm) for mm in capture.pixel_spacing_mm]
    dress(image, context, report)
    date_capture(image, context, report)
    return finished(image, capture.kind, number)


def _sources(context: Context, report: Report, capture: Capture) -> tuple[str, ...]:
    if capture.stack is None:
        return tuple(str(name.SOPInstanceUID) for name in context.sources.evidence(report))
    return capture.stack.instances


def _name_source(image: Dataset, context: Context, capture: Capture) -> None:
    if capture.stack is not None and capture.kind in _DERIVATIONS:
        value, meaning = _DERIVATIONS[capture.kind]
        image.DerivationCodeSequence = [coded(value, "DCM", meaning)]
        image.SourceImageSequence = source_images(context, capture.stack)


def describe_colours(image: Dataset, rgb: npt.NDArray[np.uint8]) -> None:
    """Put RGB pixels, (rows, columns, 3) or (frames, rows, columns, 3), into an image, with what describes them."""
    image.SamplesPerPixel = 3
    image.PhotometricInterpretation = "RGB"
    image.PlanarConfiguration = 0
    image.Rows, image.Columns = rgb.shape[-3:-1]
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit = 7
    image.PixelRepresentation = 0
    pixels = np.ascontiguousarray(rgb).tobytes()
    image.add_new("PixelData", "OB", pixels + b"\0" if len(pixels) % 2 else pixels)


def date_capture(image: Dataset, context: Context, report: Report) -> None:
    """Say when and by what a dressed picture was made (PS3.3 C.8.6.1)."""
    now = wall_clock(context.committed_at, context.sources.speaker(report))
    image.DateOfSecondaryCapture, image.TimeOfSecondaryCapture = f"{now:%Y%m%d}", f"{now:%H%M%S}"
    image.SecondaryCaptureDeviceManufacturer = image.Manufacturer
