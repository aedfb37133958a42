"""What was looked at, found and not read, as a Comprehensive 3D SR document (TID 1500)?"""

from collections.abc import Sequence

import highdicom as hd
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage

from pacs_bridge.results import codes
from pacs_bridge.results.context import Context, DocumentReference
from pacs_bridge.results.evidence import evidence_sequence
from pacs_bridge.results.identifiers import MANUFACTURER
from pacs_bridge.results.image_library import image_library
from pacs_bridge.results.part10 import SERIES_NUMBERS, dress, finished, name_of, series_uid_of, stand_in, uid_of
from pacs_bridge.results.regions import Placed
from pacs_bridge.results.seg import segmentation_numbers, segmentation_uid
from pacs_bridge.results.sr_content import content_tree
from pacs_bridge.results.texts import say
from pipeline.model import Report, ResultObject, StudyStatus


def build_report_document(
    context: Context, report: Report, findings: Sequence[Placed], notes: Sequence[str] = ()
) -> ResultObject:
    """Build the SR that every CT study gets, negatives and studies that nobody could read included.

    ``notes`` are said beside those of the Report. Raises MissingHeaders where no header can be read.
    """
    evidence = [*context.sources.evidence(report), *_segmentations(report, findings)]
    document: Dataset = hd.sr.Comprehensive3DSR(
        evidence=[stand_in(evidence[0]), *(name_of(header) for header in evidence[1:])],
        content=content_tree(context, report, findings, notes),
        series_instance_uid=series_uid_of(report, "sr"),
        series_number=SERIES_NUMBERS["sr"],
        sop_instance_uid=uid_of(report, "sr", 1),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=report.status is StudyStatus.ANALYSED,
        series_description=say("series.sr", context.language),
    )
    _insert_library(document, image_library(context.sources, report))
    document.CurrentRequestedProcedureEvidenceSequence = evidence_sequence(evidence)
    document.CodingSchemeIdentificationSequence = codes.scheme_identification()
    if report.status is not StudyStatus.ANALYSED:
        document.CompletionFlagDescription = say("completion", context.language)
    if context.predecessor is not None:
        document.PredecessorDocumentsSequence = evidence_sequence([_as_header(context.predecessor)])
    dress(document, context, report)
    return finished(document, "sr", 1)


def _insert_library(document: Dataset, library: list[Dataset]) -> None:
    """Put the image library where TID 1500 has it: behind the procedure, before the first container."""
    items: list[Dataset] = list(document.ContentSequence)
    first = next(at for at, item in enumerate(items) if item.ValueType == "CONTAINER")
    document.ContentSequence = pydicom.Sequence([*items[:first], *library, *items[first:]])


def _segmentations(report: Report, findings: Sequence[Placed]) -> list[Dataset]:
    return [
        _as_header(
            DocumentReference(
                study_instance_uid=report.study_instance_uid,
                series_instance_uid=series_uid_of(report, "seg", number),
                sop_class_uid=SegmentationStorage,
                sop_instance_uid=segmentation_uid(report, number),
            )
        )
        for number in segmentation_numbers(findings)
    ]


def _as_header(reference: DocumentReference) -> Dataset:
    header = Dataset()
    header.StudyInstanceUID = reference.study_instance_uid
    header.SeriesInstanceUID = reference.series_instance_uid
    header.SOPClassUID = reference.sop_class_uid
    header.SOPInstanceUID = reference.sop_instance_uid
    return header
