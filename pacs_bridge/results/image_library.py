"""Which images were read, as an Image Library (TID 1600)?"""

from collections.abc import Sequence

from pydicom.dataset import Dataset

from pacs_bridge.results.frames import referable_slices, references_to
from pacs_bridge.results.part10 import coded
from pacs_bridge.results.sources import SourceHeaders
from pipeline.model import Report


def image_library(sources: SourceHeaders, report: Report) -> list[Dataset]:
    """Name the images that a detector read, one group for each stack: "not detected" holds for these and no others.

    Frames of one multi-frame instance are one item with their numbers.
    Plain data sets: highdicom copies and checks every content item several times over, which hundreds of images make
    slow. Empty where nothing was read.
    """
    stacks = [stack for stack in report.examined if stack.analysed and stack.instances]
    groups = [
        _container("126200", "Image Library Group", [_image(each) for each in references_to(slices)])
        for slices in (referable_slices(sources, stack) for stack in stacks)
    ]
    return [_container("111028", "Image Library", groups)] if groups else []


def _container(value: str, meaning: str, items: Sequence[Dataset]) -> Dataset:
    container = Dataset()
    container.RelationshipType = "CONTAINS"
    container.ValueType = "CONTAINER"
    container.ConceptNameCodeSequence = [coded(value, "DCM", meaning)]
    container.ContinuityOfContent = "CONTINUOUS"
    container.ContentSequence = list(items)
    return container


def _image(reference: Dataset) -> Dataset:
    image = Dataset()
    image.RelationshipType = "CONTAINS"
    image.ValueType = "IMAGE"
    image.ConceptNameCodeSequence = [coded("260753009", "SCT", "Source")]
    image.ReferencedSOPSequence = [reference]
    return image
