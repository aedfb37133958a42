"""The report as a structured document."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom as hd
import pydicom
import pytest
from pydicom.dataset import Dataset

from pacs_bridge.results.bundle import build_flags
from pacs_bridge.results.context import DocumentReference
from pacs_bridge.results.testing import RAN, blob, context_of, ct_headers, report_of, stack_of
from pipeline.model import Code, DetectorRun, Measurement, Priority, Report, Role, StudyStatus, WorkingGrid


def document_of(report: Report, headers: list[Dataset], **changes: Any) -> Dataset:
    return pydicom.dcmread(BytesIO(build_flags(context_of(headers, **changes), report)[0].part10))


def items(node: Dataset) -> Iterator[Dataset]:
    for item in node.get("ContentSequence", []):
        yield item
        yield from items(item)


def named(node: Dataset, meaning: str) -> list[Dataset]:
    found = (i for i in items(node) if "ConceptNameCodeSequence" in i)
    return [item for item in found if item.ConceptNameCodeSequence[0].CodeMeaning == meaning]


def texts(node: Dataset) -> str:
    return "\n".join(str(item.TextValue) for item in items(node) if item.ValueType == "TEXT")


def test_a_finding_is_measured_tracked_and_pointed_at() -> None:
    headers = ct_headers()
    stack = stack_of(headers)
    document = document_of(report_of([stack], [blob(stack, (4, 30, 20))]), headers)
    certainty, volume = named(document, "Certainty of Finding")[0], named(document, "Volume")[0]
    assert 93.0 == certainty.MeasuredValueSequence[0].NumericValue
    assert "%" == certainty.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue
    assert "mL" == volume.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue
    assert "hemorrhage 1" == named(document, "Tracking Identifier")[0].TextValue
    assert "1.0" == named(document, "Algorithm Version")[0].TextValue
    center = named(document, "Center")[0]
    assert ("SCOORD3D", "2.25.4001") == (center.ValueType, center.ReferencedFrameOfReferenceUID)
    assert [-2, -1, 20] == list(center.GraphicData)


def test_the_region_is_a_segment_of_the_seg_with_the_same_tracking_uid() -> None:
    headers = ct_headers()
    stack = stack_of(headers)
    report = report_of([stack], [blob(stack, (2, 30, 20)), blob(stack, (5, 30, 20))])
    flags = [pydicom.dcmread(BytesIO(o.part10)) for o in build_flags(context_of(headers), report)]
    groups = [g for g in named(flags[0], "Measurement Group") if named(g, "Referenced Segment")]
    for group, segment in zip(groups, flags[1].SegmentSequence, strict=True):
        reference = named(group, "Referenced Segment")[0].ReferencedSOPSequence[0]
        assert "1411" == group.ContentTemplateSequence[0].TemplateIdentifier
        assert flags[1].SOPInstanceUID == reference.ReferencedSOPInstanceUID
        assert segment.SegmentNumber == reference.ReferencedSegmentNumber
        assert segment.TrackingUID == named(group, "Tracking Unique Identifier")[0].UID


def test_without_a_frame_of_reference_the_centre_is_on_an_image_not_in_space() -> None:
    headers = ct_headers(FrameOfReferenceUID=None)
    stack = stack_of(headers)
    document = document_of(report_of([stack], [blob(stack, (4, 30, 20))]), headers)
    assert not [item for item in items(document) if item.ValueType == "SCOORD3D"]
    center = named(document, "Center")[0]
    assert [20.5, 30.5] == list(center.GraphicData)
    image = center.ContentSequence[0].ReferencedSOPSequence[0]
    assert headers[4].SOPInstanceUID == image.ReferencedSOPInstanceUID


def test_a_detector_that_ran_without_a_finding_says_not_detected_never_absent_or_normal() -> None:
    headers = ct_headers()
    document = document_of(report_of([stack_of(headers)]), headers)
    values = [
        (i.ConceptNameCodeSequence[0].CodeMeaning, i.ConceptCodeSequence[0].CodeMeaning)
        for i in items(document)
        if i.ValueType == "CODE" and i.ConceptCodeSequence[0].CodeValue == "260415000"
    ]
    assert [("Intracranial hemorrhage", "Not detected"), ("Fracture of skull", "Not detected")] == values
    assert not {"absent", "normal", "negative"} & set(texts(document).lower().split())


def test_a_detector_that_found_the_lesion_elsewhere_does_not_deny_it_where_it_was_also_seen() -> None:
    headers, others = ct_headers(), ct_headers(4)
    for k, other in enumerate(others):
        other.SeriesInstanceUID, other.SOPInstanceUID = "2.25.2002", f"2.25.6{k}"
    stack, second = stack_of(headers), stack_of(others)
    finding = replace(blob(stack, (4, 30, 20)), also_seen_in=(("2.25.2002", 1),))
    document = document_of(report_of([stack, second], [finding]), headers + others)
    said = texts(document)
    assert "hemorrhage: not detected" not in said
    assert 2 == said.count("fracture: not detected")
    assert 'Also seen in Series 2 "Head 5mm", stack 1' in said


@pytest.mark.parametrize(("language", "expected"), [("en", "NOT ANALYSED: Series 2"), ("es", "NO ANALIZADO: Serie 2")])
def test_a_stack_that_was_not_read_is_named_with_its_reason(language: str, expected: str) -> None:
    headers = ct_headers(2)
    stack = stack_of(headers, Role.LOCALIZER, "a localizer is no volume")
    document = document_of(report_of([stack]), headers, language=language)
    assert expected in texts(document)
    assert "a localizer is no volume" in texts(document)
    assert "PARTIAL" == document.CompletionFlag
    assert not named(document, "Imaging Measurements")
    assert "NOT_ANALYSED" == named(document, "Study status")[0].ConceptCodeSequence[0].CodeValue
    assert "UNKNOWN" == named(document, "Priority")[0].ConceptCodeSequence[0].CodeValue


def test_the_pipelines_own_sentences_are_said_in_the_language_of_the_report() -> None:
    headers = ct_headers(2)
    stack = replace(stack_of(headers, Role.LOCALIZER, "a localizer (scout), not a cross-section"), notes=("mine",))
    changes, notes = ("findings: 1 before, 2 now",), ("1 image(s) could not be read: the file is cut off",)
    report = report_of([stack], changes=changes, notes=notes)
    said = texts(document_of(report, headers, language="es"))
    assert "un localizador (scout), no un corte transversal" in said
    assert "hallazgos: 1 antes, 2 ahora" in said
    assert "no se pudieron leer 1 imágenes: el archivo está truncado" in said
    assert ": mine" in said
    assert "findings: 1 before, 2 now" in texts(document_of(report, headers))


def test_a_detector_that_declined_or_failed_is_named_with_its_reason() -> None:
    headers = ct_headers()
    declined = DetectorRun(
        name="skull_fracture", version="2.0", looks_for=("fracture",), status="declined", reason="slices of 5 mm"
    )
    stack = replace(stack_of(headers), detectors=(RAN[0], declined))
    document = document_of(report_of([stack], status=StudyStatus.PARTLY_ANALYSED), headers)
    assert "NOT ANALYSED for fracture by skull_fracture (declined)" in texts(document)
    assert "slices of 5 mm" in texts(document)
    assert "fracture: not detected" not in texts(document)
    assert ("PARTIAL", "UNVERIFIED") == (document.CompletionFlag, document.VerificationFlag)


def test_the_images_that_were_read_are_listed_and_no_others() -> None:
    headers, scout = ct_headers(), ct_headers(1, SOPInstanceUID="2.25.9", SeriesInstanceUID="2.25.8")
    stacks = [stack_of(headers), stack_of(scout, Role.LOCALIZER, "a localizer is no volume")]
    library = named(document_of(report_of(stacks), headers + scout), "Image Library")[0]
    listed = [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in items(library) if item.ValueType == "IMAGE"
    ]
    assert [header.SOPInstanceUID for header in headers] == listed


def test_every_instance_of_the_study_is_evidence() -> None:
    headers = ct_headers()
    page = ct_headers(1, SOPInstanceUID="2.25.9", SeriesInstanceUID="2.25.8", SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    stacks = [stack_of(headers), stack_of(page, Role.DOCUMENT, "a page of text")]
    document = document_of(report_of(stacks), headers + page)
    listed = {
        (instance.ReferencedSOPInstanceUID, instance.ReferencedSOPClassUID)
        for study in document.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    assert {(h.SOPInstanceUID, h.SOPClassUID) for h in headers + page} == listed


def test_a_new_version_names_the_old_one_and_says_what_changed() -> None:
    headers = ct_headers()
    old = DocumentReference(
        study_instance_uid="2.25.1001",
        series_instance_uid="2.25.70",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34",
        sop_instance_uid="2.25.71",
    )
    report = report_of([stack_of(headers)], version=2, supersedes_digest="d0", changes=("1 slice arrived late",))
    document = document_of(report, headers, predecessor=old)
    series = document.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert "2.25.70" == series.SeriesInstanceUID
    assert "2.25.71" == series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    assert ["This version (2) replaces an earlier one", "1 slice arrived late"] == [
        item.TextValue for item in named(document, "Changes since the earlier version")
    ]


def test_the_validator_accepts_a_version_that_names_its_predecessor(
    dciodvfy_errors: Callable[[Path], set[str]], tmp_path: Path
) -> None:
    headers = ct_headers()
    predecessor = DocumentReference(
        study_instance_uid="2.25.1001",
        series_instance_uid="2.25.9",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34",
        sop_instance_uid="2.25.10",
    )
    report = report_of([stack_of(headers)], version=2, supersedes_digest="d0", changes=("series 2 added",))
    (built,) = build_flags(context_of(headers, predecessor=predecessor), report)
    (tmp_path / "sr.dcm").write_bytes(built.part10)
    assert set() == dciodvfy_errors(tmp_path / "sr.dcm")


def test_the_document_says_what_it_is_and_in_which_language() -> None:
    headers = ct_headers()
    document = document_of(report_of([stack_of(headers)], priority=Priority.ROUTINE), headers, language="es")
    assert "No es dispositivo médico; para investigación y apoyo al triaje" in texts(document)
    assert "es" == named(document, "Language of Content Item and Descendants")[0].ConceptCodeSequence[0].CodeValue
    assert "99CTRIAGE" == document.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator
    assert "COMPLETE" == document.CompletionFlag


def test_a_working_grid_and_uneven_distances_are_said() -> None:
    headers = ct_headers()
    stack = stack_of(headers)
    assert stack.geometry is not None
    grid = WorkingGrid(geometry=stack.geometry, max_distance_to_slice_mm=3.5)
    uneven = replace(stack, working_grid=grid, gaps_mm=(7.0, 1.08, 7.0), nominal_step_mm=4.0, notes=("2 clipped",))
    said = texts(document_of(report_of([uneven]), headers))
    assert "a voxel lies up to 3.50 mm from an acquired slice" in said
    assert "1.08 (×1), 7.00 (×2) mm instead of 4.00 mm" in said
    assert "2 clipped" in said


def test_undeclared_latin_is_noted() -> None:
    headers = ct_headers(PatientName="Muñoz^José")
    document = document_of(report_of([stack_of(headers)]), headers)
    assert "read as ISO_IR 100" in texts(document)


def test_a_finding_whose_region_lies_on_no_acquired_slice_still_stands_in_the_report() -> None:
    headers = ct_headers()
    finding = blob(stack_of(headers), (4, 30, 20), volume_ml=None)
    unit = Code(scheme="UCUM", value="mm", meaning="millimeter")
    extra = Measurement(name=Code(scheme="SCT", value="103340004", meaning="Depth"), value=7.5, unit=unit)
    document = document_of(report_of([stack_of(headers)], [replace(finding, stack=7, measurements=(extra,))]), headers)
    group = named(document, "Measurement Group")[0]
    assert "1501" == group.ContentTemplateSequence[0].TemplateIdentifier
    assert not named(group, "Volume")
    assert 7.5 == named(group, "Depth")[0].MeasuredValueSequence[0].NumericValue


def test_a_measurement_that_the_report_makes_itself_is_not_written_twice() -> None:
    headers = ct_headers()
    stack = stack_of(headers)
    unit = Code(scheme="UCUM", value="ml", meaning="milliliter")
    extra = Measurement(name=Code(scheme="SCT", value="118565006", meaning="Volume"), value=99.0, unit=unit)
    finding = blob(stack, (4, 30, 20), measurements=(extra,))
    volumes = named(document_of(report_of([stack], [finding]), headers), "Volume")
    assert [pytest.approx(finding.volume_ml, abs=1e-3)] == [v.MeasuredValueSequence[0].NumericValue for v in volumes]


def test_highdicom_and_dcmtk_read_the_tree_as_tid_1500(tmp_path: Path) -> None:
    headers = ct_headers(FrameOfReferenceUID=None, PatientName="Muñoz^José")
    stack = stack_of(headers)
    built = build_flags(context_of(headers, language="es"), report_of([stack], [blob(stack, (4, 30, 20))]))[0]
    document = hd.sr.srread(BytesIO(built.part10))
    groups = document.content.get_volumetric_roi_measurement_groups()
    assert ["hemorrhage 1"] == [group.tracking_identifier for group in groups]
    assert 1 == len(document.content.get_image_measurement_groups())
    if shutil.which("dsrdump") is None:
        pytest.skip("dsrdump is not installed: apt-get install dcmtk")
    (tmp_path / "sr.dcm").write_bytes(built.part10)
    dumped = subprocess.run(["dsrdump", "+Pl", tmp_path / "sr.dcm"], capture_output=True, check=True)
    assert b"" == dumped.stderr
    assert b"Certainty of Finding" in dumped.stdout


def test_dates_are_on_the_clock_of_the_source() -> None:
    headers = ct_headers(TimezoneOffsetFromUTC="-0600")
    document = document_of(report_of([stack_of(headers)]), headers)
    assert ("20261121", "210405") == (document.ContentDate, document.ContentTime)
    headers = ct_headers()
    document = document_of(report_of([stack_of(headers)]), headers)
    assert ("20261122", "030405") == (document.ContentDate, document.ContentTime)
