"""Which slices should a radiologist open first, as a Key Object Selection (TID 2010)?"""

from collections.abc import Sequence

import highdicom as hd
from pydicom.dataset import Dataset

from pacs_bridge.results import codes
from pacs_bridge.results.context import Context
from pacs_bridge.results.evidence import evidence_sequence
from pacs_bridge.results.identifiers import MANUFACTURER
from pacs_bridge.results.part10 import SERIES_NUMBERS, dress, finished, series_uid_of, stand_in, uid_of
from pacs_bridge.results.regions import Placed
from pacs_bridge.results.sr_content import device_observer
from pacs_bridge.results.texts import say
from pipeline.model import Report, ResultObject


def build_key_objects(context: Context, report: Report, findings: Sequence[Placed]) -> list[ResultObject]:
    """Build one KO document with the largest slice of each finding; none where no finding has slices."""
    keys = [(placed, placed.key_slice) for placed in findings if placed.key_slice is not None]
    chosen = {(str(p.names[k].SOPInstanceUID), p.named(k)[1]): p.slices[k] for p, k in keys}
    if not chosen:
        return []
    images = list({str(header.SOPInstanceUID): header for header in chosen.values()}.values())
    document: Dataset = hd.ko.KeyObjectSelectionDocument(
        evidence=[stand_in(header) for header in images],
        content=_content(context, list(chosen.values())),
        series_instance_uid=series_uid_of(report, "key_objects"),
        series_number=SERIES_NUMBERS["key_objects"],
        sop_instance_uid=uid_of(report, "key_objects", 1),
        instance_number=1,
        manufacturer=MANUFACTURER,
        series_description=say("series.key_objects", context.language),
    )
    _name_frames(document, [frame for _, frame in chosen])
    document.CurrentRequestedProcedureEvidenceSequence = evidence_sequence(images)
    dress(document, context, report)
    return [finished(document, "key_objects", 1)]


def _content(context: Context, images: Sequence[Dataset]) -> hd.ko.KeyObjectSelection:
    disclaimer = say("disclaimer", context.language)
    return hd.ko.KeyObjectSelection(
        document_title=codes.OF_INTEREST,
        referenced_objects=images,
        observer_device_context=device_observer(),
        description=f"{say('key_objects', context.language)}. {disclaimer}",
    )


def _name_frames(document: Dataset, frames: Sequence[int | None]) -> None:
    """Say which frames are meant: highdicom refers to whole instances."""
    images = [item for item in document.ContentSequence if item.ValueType == "IMAGE"]
    for image, frame in zip(images, frames, strict=True):
        if frame is not None:
            image.ReferencedSOPSequence[0].ReferencedFrameNumber = frame
