"""How do renderings that turn round the patient become one moving picture (PS3.3 A.8.5)?"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import MultiFrameTrueColorSecondaryCaptureImageStorage
from pydicom.valuerep import format_number_as_ds

from pacs_bridge.results.context import Context
from pacs_bridge.results.part10 import SERIES_NUMBERS, coded, dress, finished, series_uid_of, uid_of
from pacs_bridge.results.secondary_capture import date_capture, describe_colours
from pacs_bridge.results.source_images import source_images
from pacs_bridge.results.sources import copy_lossy_history
from pacs_bridge.results.texts import say
from pipeline.model import ExaminedStack, Report, ResultObject, TurnPreset

FRAMES_A_SECOND = 10
_LARGEST = 2**32 - 2  # bytes that an uncompressed Pixel Data element can hold (PS3.5 7.1.1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TurnCapture:
    """Renderings from one place after the other, uint8 (frames, rows, columns, 3), and the stack they show.

    Uncompressed, as all results: 36 frames of 512 x 512 are 28 MB.
    """

    preset: TurnPreset
    rgb: npt.NDArray[np.uint8]
    stack: ExaminedStack

    def __post_init__(self) -> None:
        if self.rgb.ndim != 4 or self.rgb.shape[3] != 3 or self.rgb.dtype != np.uint8 or not len(self.rgb):
            raise ValueError("a turning picture is uint8 (frames, rows, columns, 3)")
        if self.rgb.nbytes > _LARGEST:
            raise ValueError("a turning picture of 4 GB and more cannot be written: take fewer or smaller frames")


def build_turn(context: Context, report: Report, turn: TurnCapture, number: int) -> ResultObject:
    """Build one Multi-frame True Color Secondary Capture; ``number`` (from 1) tells those of a study apart.

    It plays in a loop, ten frames a second. Raises MissingHeaders.
    """
    image = Dataset()
    image.SOPClassUID = MultiFrameTrueColorSecondaryCaptureImageStorage
    image.SOPInstanceUID = uid_of(report, f"turn:{turn.preset}", number)
    image.SeriesInstanceUID = series_uid_of(report, f"turn:{turn.preset}", number)
    image.SeriesNumber = SERIES_NUMBERS["turns"] + number
    image.SeriesDescription = say("series.turn", context.language, preset=say(f"turn.{turn.preset}", context.language))
    image.InstanceNumber = 1
    image.Modality = "OT"
    image.ConversionType = "SYN"
    image.ImageType = ["DERIVED", "SECONDARY"]
    image.PatientOrientation = image.Laterality = None  # type 2C, empty where unknown
    image.BurnedInAnnotation = "NO"
    image.ImageComments = say("disclaimer", context.language)
    image.DerivationDescription = say("derivation.turn", context.language)
    image.DerivationCodeSequence = [coded("113074", "DCM", "Volume rendering")]
    image.SourceImageSequence = source_images(context, turn.stack)
    copy_lossy_history(context.sources.lossy(turn.stack.instances), image)
    _let_it_play(image, len(turn.rgb))
    describe_colours(image, turn.rgb)
    dress(image, context, report)
    date_capture(image, context, report)
    return finished(image, "render", number)


def _let_it_play(image: Dataset, frames: int) -> None:
    """Say how fast the frames follow each other (PS3.3 C.7.6.5 Cine, C.7.6.6 Multi-frame)."""
    image.NumberOfFrames = frames
    image.FrameIncrementPointer = Tag("FrameTime")
    image.FrameTime = format_number_as_ds(1000.0 / FRAMES_A_SECOND)
    image.RecommendedDisplayFrameRate = image.CineRate = FRAMES_A_SECOND
    image.PreferredPlaybackSequencing = 0
