"""How does the surface of a tissue become a model that a 3D printer understands (PS3.3 A.85.1)?"""

from collections.abc import Mapping
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedSTLStorage

from pacs_bridge.results.context import Context
from pacs_bridge.results.identifiers import frame_of_reference_uid
from pacs_bridge.results.part10 import SERIES_NUMBERS, coded, dress, finished, series_uid_of, uid_of
from pacs_bridge.results.source_images import source_instances
from pacs_bridge.results.sources import copy_attribute
from pacs_bridge.results.texts import say
from pipeline.model import ExaminedStack, Report, ResultObject, SurfaceTissue

_HEADER, _TRIANGLE = 84, 50  # bytes of a binary STL file: 80 of text and a count, then so many for each triangle
_TISSUES: Mapping[SurfaceTissue, tuple[str, str]] = {
    "bone": ("272673000", "Bone structure"),
    "skin": ("39937001", "Skin structure"),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SurfaceModel:
    """A closed surface as a binary STL file in LPS millimetres, what it shows, and the stack it was made from."""

    tissue: SurfaceTissue
    stl: bytes
    stack: ExaminedStack

    def __post_init__(self) -> None:
        triangles = int.from_bytes(self.stl[80:_HEADER], "little")
        if triangles < 1 or len(self.stl) != _HEADER + _TRIANGLE * triangles:
            raise ValueError("a model is a binary STL file with as many triangles as it announces, at least one")


def build_model(context: Context, report: Report, model: SurfaceModel, number: int) -> ResultObject:
    """Build one Encapsulated STL; ``number`` (from 1) tells the models of a study apart. Raises MissingHeaders."""
    title = say(f"surface.{model.tissue}", context.language)
    document = Dataset()
    document.SOPClassUID = EncapsulatedSTLStorage
    document.SOPInstanceUID = uid_of(report, f"surface:{model.tissue}", number)
    document.SeriesInstanceUID = series_uid_of(report, f"surface:{model.tissue}", number)
    document.SeriesNumber = SERIES_NUMBERS["models"] + number
    document.SeriesDescription = say("series.surface", context.language, title=title)
    document.InstanceNumber = 1
    document.Modality = "M3D"
    document.FrameOfReferenceUID = frame_of_reference_uid(model.stack)
    document.PositionReferenceIndicator = None
    document.AcquisitionDateTime = None
    document.BurnedInAnnotation = "NO"
    if model.tissue == "skin":
        document.RecognizableVisualFeatures = "YES"  # a face may be known by its skin
    _describe_model(document, context, model)
    _enclose(document, model.stl)
    document.DocumentTitle = title
    dress(document, context, report)
    first = context.sources.of(model.stack.instances[:1])[0]
    copy_attribute(first, document, "AcquisitionDateTime")
    copy_attribute(first, document, "PositionReferenceIndicator")
    return finished(document, "surface", number)


def _describe_model(document: Dataset, context: Context, model: SurfaceModel) -> None:
    """Say what it is a model of, in which unit, and of which images (PS3.3 C.24.2, C.35.1)."""
    tissue, meaning = _TISSUES[model.tissue]
    document.ConceptNameCodeSequence = [coded("85040-4", "LN", "CT 3D CAM model")]
    document.DocumentClassCodeSequence = [coded(tissue, "SCT", meaning)]
    document.MeasurementUnitsCodeSequence = [coded("mm", "UCUM", "mm")]
    document.ModelModification = document.ModelMirroring = "NO"
    document.ContentDescription = say("disclaimer", context.language)
    document.SourceInstanceSequence = source_instances(context, model.stack)
    for item in document.SourceInstanceSequence:
        item.PurposeOfReferenceCodeSequence = [coded("121324", "DCM", "Source image")]
    series = Dataset()
    series.SeriesInstanceUID = model.stack.series_instance_uid
    series.ReferencedInstanceSequence = source_instances(context, model.stack)
    document.ReferencedSeriesSequence = [series]  # PS3.3 C.12.2: the same once more, by series


def _enclose(document: Dataset, stl: bytes) -> None:
    document.MIMETypeOfEncapsulatedDocument = "model/stl"
    document.EncapsulatedDocumentLength = len(stl)
    document.EncapsulatedDocument = stl + b"\0" if len(stl) % 2 else stl
