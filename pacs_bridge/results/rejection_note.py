"""How is a PACS told that results it holds were superseded: a Key Object Selection that rejects them (IHE RAD IOCM).

IHE RAD TF-3 4.66 (Rejection Note Stored) knows four titles. Wrong patients and worklist entries (113037, 113038) and
retention (113039) are not what happened; (113001, DCM, Rejected for Quality Reasons) is: something better exists.
"""

from collections.abc import Sequence
from typing import Final

import highdicom as hd
from pydicom.dataset import Dataset

from pacs_bridge.results import codes
from pacs_bridge.results.context import Context, DocumentReference
from pacs_bridge.results.evidence import evidence_sequence
from pacs_bridge.results.identifiers import MANUFACTURER, named_uid
from pacs_bridge.results.part10 import SERIES_NUMBERS, dress, finished, stand_in, uid_of
from pacs_bridge.results.sr_content import device_observer
from pacs_bridge.results.texts import say
from pipeline.model import Report, ResultObject

_NO_IMAGE: Final = ("1.2.840.10008.5.1.4.1.1.88.", "1.2.840.10008.5.1.4.1.1.104.")
"""Documents, and what is encapsulated: a KO refers to them as COMPOSITE, to all else of ours as IMAGE."""


def build_rejection_note(
    context: Context, report: Report, superseded: Sequence[DocumentReference], destination: str
) -> ResultObject:
    """Build the note that ``report`` has replaced these results of ours, which ``destination`` holds.

    Named by what it says, so that building it again makes the same. Raises ValueError where nothing is superseded, or
    of another study.
    """
    if {each.study_instance_uid for each in superseded} != {report.study_instance_uid}:
        raise ValueError("a rejection note lists results of its own study, one at least")
    headers = [_header(each) for each in superseded]
    name = uid_of(report, f"rejection:{destination}", 1)
    document: Dataset = hd.ko.KeyObjectSelectionDocument(
        evidence=[stand_in(header) for header in headers],
        content=_content(context, report, headers),
        series_instance_uid=named_uid("series", name),
        series_number=SERIES_NUMBERS["rejection"],
        sop_instance_uid=named_uid(name, *sorted(each.sop_instance_uid for each in superseded)),
        instance_number=1,
        manufacturer=MANUFACTURER,
        series_description=say("series.rejection", context.language),
    )
    document.CurrentRequestedProcedureEvidenceSequence = evidence_sequence(headers)
    dress(document, context, report)
    return finished(document, "rejection", 1)


def _content(context: Context, report: Report, headers: Sequence[Dataset]) -> hd.ko.KeyObjectSelection:
    said = say("rejection", context.language, version=report.version)
    return hd.ko.KeyObjectSelection(
        document_title=codes.REJECTED_FOR_QUALITY,
        referenced_objects=headers,
        observer_device_context=device_observer(),
        description=f"{said}. {say('disclaimer', context.language)}",
    )


def _header(reference: DocumentReference) -> Dataset:
    header = Dataset()
    header.StudyInstanceUID = reference.study_instance_uid
    header.SeriesInstanceUID = reference.series_instance_uid
    header.SOPClassUID = reference.sop_class_uid
    header.SOPInstanceUID = reference.sop_instance_uid
    if not reference.sop_class_uid.startswith(_NO_IMAGE):
        header.Rows = header.Columns = 1  # by these highdicom tells what is an image
    return header
