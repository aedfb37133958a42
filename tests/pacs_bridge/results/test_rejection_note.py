"""The note by which a PACS hears that results were replaced."""

from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    CTImageStorage,
    EncapsulatedSTLStorage,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from pacs_bridge.results.bundle import build_flags
from pacs_bridge.results.context import DocumentReference
from pacs_bridge.results.identifiers import is_ours
from pacs_bridge.results.rejection_note import build_rejection_note
from pacs_bridge.results.testing import STUDY_UID, blob, context_of, ct_headers, report_of, stack_of
from pipeline.model import ResultObject

CLASSES = (
    Comprehensive3DSRStorage,
    SegmentationStorage,
    KeyObjectSelectionDocumentStorage,
    CTImageStorage,
    SecondaryCaptureImageStorage,
    EncapsulatedSTLStorage,
)


def results(*classes: str, study: str = STUDY_UID) -> list[DocumentReference]:
    """Return the names of results of ours, one a series, but the images of one series."""
    return [
        DocumentReference(
            study_instance_uid=study,
            series_instance_uid=f"2.25.7{n % 5}",
            sop_class_uid=sop_class,
            sop_instance_uid=f"2.25.8{n}",
        )
        for n, sop_class in enumerate(classes or CLASSES)
    ]


def note(headers: list[Dataset], superseded: list[DocumentReference] | None = None, **changes: Any) -> ResultObject:
    destination = changes.pop("destination", "pacs")
    report = report_of([stack_of(headers)], version=2, study_digest=changes.pop("digest", "d1"))
    listed = results() if superseded is None else superseded
    return build_rejection_note(context_of(headers, **changes), report, listed, destination)


def read(built: ResultObject) -> Dataset:
    return pydicom.dcmread(BytesIO(built.part10))


def listed_in(document: Dataset) -> set[tuple[str, str, str]]:
    (study,) = document.CurrentRequestedProcedureEvidenceSequence
    assert STUDY_UID == study.StudyInstanceUID
    return {
        (series.SeriesInstanceUID, each.ReferencedSOPClassUID, each.ReferencedSOPInstanceUID)
        for series in study.ReferencedSeriesSequence
        for each in series.ReferencedSOPSequence
    }


def pointed_at(document: Dataset) -> Iterator[tuple[str, str, str]]:
    for item in document.ContentSequence:
        if item.ValueType in ("IMAGE", "COMPOSITE"):
            (each,) = item.ReferencedSOPSequence
            yield item.ValueType, each.ReferencedSOPClassUID, each.ReferencedSOPInstanceUID


def test_it_rejects_for_quality_what_it_lists_and_nothing_else() -> None:
    headers = ct_headers()
    document = read(note(headers))
    (title,) = document.ConceptNameCodeSequence
    assert ("113001", "DCM", "Rejected for Quality Reasons") == (
        title.CodeValue,
        title.CodingSchemeDesignator,
        title.CodeMeaning,
    )
    wanted = {(each.series_instance_uid, each.sop_class_uid, each.sop_instance_uid) for each in results()}
    assert wanted == listed_in(document)
    assert {(c, uid) for _, c, uid in wanted} == {(c, uid) for _, c, uid in pointed_at(document)}
    assert set() == {each[2] for each in wanted} & {str(header.SOPInstanceUID) for header in headers}


def test_documents_and_models_are_no_images() -> None:
    kinds = {sop_class: kind for kind, sop_class, _ in pointed_at(read(note(ct_headers())))}
    images = {CTImageStorage, SegmentationStorage, SecondaryCaptureImageStorage}
    assert {sop_class: "IMAGE" if sop_class in images else "COMPOSITE" for sop_class in CLASSES} == kinds


@pytest.mark.parametrize("language", ["en", "es"])
@pytest.mark.parametrize("name", ["Doe^Jane", "Núñez^María"])
def test_the_validator_accepts_it(
    language: str, name: str, dciodvfy_errors: Callable[[Path], set[str]], tmp_path: Path
) -> None:
    headers = ct_headers(PatientName=name, SpecificCharacterSet="ISO_IR 100")
    path = tmp_path / "note.dcm"
    path.write_bytes(note(headers, language=language).part10)
    assert set() == dciodvfy_errors(path)


def test_the_validator_accepts_it_for_a_real_patient(
    real_headers: Callable[[str], list[Dataset]], dciodvfy_errors: Callable[[Path], set[str]], tmp_path: Path
) -> None:
    headers = real_headers("abdomen_ge_revolution")
    study = str(headers[0].StudyInstanceUID)
    report = report_of([stack_of(headers)], version=2, study_instance_uid=study)
    built = build_rejection_note(context_of(headers), report, results(study=study), "pacs")
    (tmp_path / "note.dcm").write_bytes(built.part10)
    assert set() == dciodvfy_errors(tmp_path / "note.dcm")
    assert str(headers[0].PatientName) == str(read(built).PatientName)


def test_it_says_that_the_images_stand_and_that_this_is_no_medical_device() -> None:
    items = [item for item in read(note(ct_headers())).ContentSequence if item.ValueType == "TEXT"]
    (said,) = [item.TextValue for item in items if item.ConceptNameCodeSequence[0].CodeValue == "113012"]
    assert "version 2" in said
    assert "images they were made from are not rejected" in said
    assert "Not a medical device" in said


def test_it_is_a_document_of_our_own_in_a_series_of_its_own() -> None:
    headers = ct_headers()
    stack = stack_of(headers)
    flags = build_flags(context_of(headers), report_of([stack], [blob(stack, (2, 20, 14))], version=2))
    built = note(headers)
    assert ("rejection", KeyObjectSelectionDocumentStorage) == (built.kind, built.sop_class_uid)
    assert is_ours(read(built))
    assert built.series_instance_uid not in {each.series_instance_uid for each in flags}


def test_the_same_note_is_the_same_bytes_and_another_has_another_name() -> None:
    headers = ct_headers()
    one = note(headers)
    assert one.part10 == note(headers).part10
    assert one.sop_instance_uid == note(headers, results()[::-1]).sop_instance_uid
    others = [
        note(headers, results()[:2]),
        note(headers, destination="archive"),
        note(headers, digest="d2"),
    ]
    assert 4 == len({each.sop_instance_uid for each in (one, *others)})
    assert one.series_instance_uid not in {each.series_instance_uid for each in others[1:]}


@pytest.mark.parametrize("superseded", [[], results(study="2.25.9"), [*results(), *results(study="2.25.9")]])
def test_a_note_on_nothing_or_on_another_study_is_none(superseded: list[DocumentReference]) -> None:
    with pytest.raises(ValueError, match="its own study"):
        note(ct_headers(), superseded)
