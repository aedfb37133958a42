"""Does a PACS hear of a late slice: a new version that names the old, and which of the old results are void?"""

from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset

from benchmarks.service import ReceivingPacs, Service, wait_until

COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
KEY_OBJECTS = "1.2.840.10008.5.1.4.1.1.88.59"


def is_finished(service: Service) -> bool:
    return service.is_idle() and all(study["report_version"] for study in service.status()["studies"])


def read(dataset: bytes) -> Dataset:
    return pydicom.dcmread(BytesIO(dataset), force=True)


def rejections(pacs: ReceivingPacs) -> list[Any]:
    return [each for each in pacs.of_class(KEY_OBJECTS) if title(read(each.dataset)) == "113001"]


def title(document: Dataset) -> str:
    return str(document.ConceptNameCodeSequence[0].CodeValue)


def test_late_slices_void_the_results_before_them_at_a_pacs_that_takes_notes_and_at_no_other(
    make_service: Any, pacs: ReceivingPacs, to_pacs: Any, send: Any, tilted_head: list[Path]
) -> None:
    other = ReceivingPacs("OTHER")
    other.start()
    service: Service = make_service(destination=[to_pacs(pacs, iocm=True), to_pacs(other, name="other")])
    send(service, tilted_head[:-3]).raise_failure()
    wait_until(lambda: is_finished(service), within_s=180, what="results of the first slices")
    first = set(pacs.held())
    send(service, tilted_head[-3:]).raise_failure()
    wait_until(lambda: bool(rejections(pacs)) and is_finished(service), within_s=180, what="the rejection note")
    other.stop()
    (note,) = rejections(pacs)
    (listed,) = read(note.dataset).CurrentRequestedProcedureEvidenceSequence
    named = {
        (str(each.ReferencedSOPInstanceUID), str(each.ReferencedSOPClassUID), str(series.SeriesInstanceUID))
        for series in listed.ReferencedSeriesSequence
        for each in series.ReferencedSOPSequence
    }
    held = pacs.held()
    assert {(uid, held[uid].sop_class_uid, str(read(held[uid].dataset).SeriesInstanceUID)) for uid in first} == named
    old, new = pacs.of_class(COMPREHENSIVE_3D_SR)
    (before,) = read(new.dataset).PredecessorDocumentsSequence[0].ReferencedSeriesSequence
    assert old.sop_instance_uid == before.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    assert old.at < new.at < note.at
    assert [] == rejections(other)
    assert 2 == len(other.of_class(COMPREHENSIVE_3D_SR))
