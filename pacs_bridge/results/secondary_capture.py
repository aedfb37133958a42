"""How do pictures without a plane (renderings, the summary page) become Secondary Capture images (PS3.3 A.8)?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from pacs_bridge.results.context import Context, wall_clock
from pacs_bridge.results.part10 import (
    SERIES_NUMBERS,
    coded,
    dress,
    finished,
    reference,
    series_uid_of,
    uid_of,
)
from pacs_bridge.results.sources import copy_lossy_history
from pacs_bridge.results.texts import say
from pipeline.model import ExaminedStack, Report, ResultObject


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Capture:
    """A picture: uint8 (rows, columns, 3), and the stack it shows (None for the whole study).

    ``burned_in`` is YES where the pixels hold text that names the patient.
    """

    kind: Literal["render", "summary"]
    rgb: npt.NDArray[np.uint8]
    burned_in: Literal["YES", "NO"]
    stack: ExaminedStack | None = None

    def __post_init__(self) -> None:
        if self.rgb.ndim != 3 or self.rgb.shape[2] != 3 or self.rgb.dtype != np.uint8:
            raise ValueError("a capture is uint8 (rows, columns, 3)")


def build_captures(context: Context, report: Report, captures: Sequence[Capture]) -> list[ResultObject]:
    """Build one Secondary Capture for each picture; pictures of one kind share a series."""
    counts = {"render": 0, "summary": 0}
    built = []
    for capture in captures:
        counts[capture.kind] += 1
        built.append(_image(context, report, capture, counts[capture.kind]))
    return built


def _image(context: Context, report: Report, capture: Capture, index: int) -> ResultObject:
    sources = _sources(context, report, capture)
    image = Dataset()
    image.SOPClassUID = SecondaryCaptureImageStorage
    image.SOPInstanceUID = uid_of(report, capture.kind, index)
    image.SeriesInstanceUID = series_uid_of(report, capture.kind)
    image.SeriesNumber = SERIES_NUMBERS["captures"] + (1 if capture.kind == "render" else 2)
    image.SeriesDescription = say(f"series.{capture.kind}", context.language)
    image.InstanceNumber = index
    image.Modality = "OT"
    image.ConversionType = "SYN"
    image.ImageType = ["DERIVED", "SECONDARY"]
    image.PatientOrientation = image.Laterality = None  # type 2C, empty where unknown
    image.BurnedInAnnotation = capture.burned_in
    image.ImageComments = say("disclaimer", context.language)
    image.DerivationDescription = say(f"derivation.{capture.kind}", context.language)
    copy_lossy_history(context.sources.lossy([str(name.SOPInstanceUID) for name in sources]), image)
    _name_source(image, capture, sources)
    _describe_pixels(image, capture.rgb)
    dress(image, context, report)
    _date(image, context, report)
    return finished(image, capture.kind, index)


def _sources(context: Context, report: Report, capture: Capture) -> list[Dataset]:
    if capture.stack is None:
        return context.sources.evidence(report)
    return context.sources.referable(capture.stack.instances)


def _name_source(image: Dataset, capture: Capture, sources: Sequence[Dataset]) -> None:
    if capture.stack is not None:
        image.DerivationCodeSequence = [coded("113074", "DCM", "Volume rendering")]
        image.SourceImageSequence = [reference(header) for header in sources]


def _describe_pixels(image: Dataset, rgb: npt.NDArray[np.uint8]) -> None:
    image.SamplesPerPixel = 3
    image.PhotometricInterpretation = "RGB"
    image.PlanarConfiguration = 0
    image.Rows, image.Columns = rgb.shape[:2]
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit = 7
    image.PixelRepresentation = 0
    pixels = np.ascontiguousarray(rgb).tobytes()
    image.add_new("PixelData", "OB", pixels + b"\0" * (len(pixels) % 2))


def _date(image: Dataset, context: Context, report: Report) -> None:
    now = wall_clock(context.committed_at, context.sources.speaker(report))
    image.DateOfSecondaryCapture, image.TimeOfSecondaryCapture = f"{now:%Y%m%d}", f"{now:%H%M%S}"
    image.SecondaryCaptureDeviceManufacturer = image.Manufacturer
