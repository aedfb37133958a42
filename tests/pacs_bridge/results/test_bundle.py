"""All results of a Report together: the same bytes each time, and objects that a validator accepts."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from pacs_bridge.results.bundle import build_flags, build_pictures
from pacs_bridge.results.context import Context
from pacs_bridge.results.errors import MissingHeaders, NaiveInstant
from pacs_bridge.results.identifiers import frame_of_reference_uid, is_ours
from pacs_bridge.results.testing import (
    COMMITTED_AT,
    blob,
    context_of,
    ct_headers,
    report_of,
    stack_of,
    write_badly,
)
from pacs_bridge.results.texts import Language
from pipeline.derive import Captured, Product, Remark, StackPlanes, StackSurface, StackTurn
from pipeline.model import ExaminedStack, Report, ResultObject, Role, StudyStatus
from reconstruction.planes import Planes
from reconstruction.surface import Mesh, to_stl


def everything(context: Context, report: Report, stack: ExaminedStack) -> list[ResultObject]:
    coronal = Planes(
        hu=np.zeros((2, 5, 7), np.int16),
        origins_lps_mm=np.array([[0.1, 0, 0], [0.1, 3.3333333333333, 0]]),
        row_direction=np.array([1.0, 0, 0]),
        column_direction=np.array([0, 0, -1.0]),
        pixel_spacing_mm=(0.33, 0.33),
        slice_thickness_mm=3.0,
        spacing_between_mm=3.0,
        orientation="coronal",
        kind="mpr",
    )
    rgb = np.zeros((5, 7, 3), np.uint8)
    one = Mesh(
        vertices_lps_mm=np.eye(4, 3, dtype=np.float32),
        triangles=np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]], np.int32),
    )
    products: list[Product] = [
        StackPlanes(planes=coronal, stack=stack),
        StackPlanes(planes=coronal, stack=stack, images_before=2),
        StackTurn(preset="bone", rgb=np.zeros((2, 5, 7, 3), np.uint8), stack=stack),
        StackSurface(tissue="bone", stl=to_stl(one), stack=stack),
        Remark(text="something could not be made"),
        Captured(kind="render", rgb=rgb, label="anterior", stack=stack),
        Captured(kind="summary", rgb=rgb, label="summary"),
    ]
    return [*build_flags(context, report), *build_pictures(context, report, products)]


def test_the_same_report_gives_the_same_bytes_in_whatever_order_its_headers_came() -> None:
    headers = ct_headers()
    stack = stack_of(headers)
    report = report_of([stack], [blob(stack, (2, 20, 14)), blob(stack, (5, 40, 30))])
    once = everything(context_of(headers), report, stack)
    again = everything(context_of(headers[::-1]), report, stack)
    assert [o.part10 for o in once] == [o.part10 for o in again]
    assert len(once) == len({o.sop_instance_uid for o in once})


def test_a_series_that_comes_in_batches_is_one_and_its_images_count_on() -> None:
    headers = ct_headers()
    stack = stack_of(headers)
    images = [read(o) for o in everything(context_of(headers), report_of([stack], []), stack) if o.kind == "mpr"]
    assert 1 == len({image.SeriesInstanceUID for image in images})
    assert [1, 2, 3, 4] == [image.InstanceNumber for image in images]


def test_every_object_is_recognised_as_ours_and_named_as_it_is() -> None:
    headers = ct_headers()
    stack = stack_of(headers)
    for built in everything(context_of(headers), report_of([stack], [blob(stack, (2, 20, 14))]), stack):
        dataset = pydicom.dcmread(BytesIO(built.part10))
        assert is_ours(dataset)
        del dataset.file_meta.ImplementationClassUID
        assert is_ours(dataset)
        assert built.sop_instance_uid == dataset.SOPInstanceUID == dataset.file_meta.MediaStorageSOPInstanceUID
        assert built.series_instance_uid == dataset.SeriesInstanceUID
        assert "1.2.840.10008.1.2.1" == dataset.file_meta.TransferSyntaxUID


def test_a_commit_without_a_time_zone_is_refused() -> None:
    with pytest.raises(NaiveInstant):
        context_of(ct_headers(), committed_at=datetime(2026, 1, 1))  # noqa: DTZ001


BADLY_WRITTEN = {
    "PatientSize": "1,75",
    "PatientWeight": "70,5 kg",
    "LossyImageCompressionRatio": "10,5",
    "WindowCenter": "40,5",
    "KVP": "120 kV",
    "AcquisitionNumber": "x1",
    "SliceThickness": "5,0 mm",
}
KINDS = ["sr", "seg", "key_objects", *["mpr"] * 4, "render", "surface", "render", "summary"]


def read(built: ResultObject) -> Dataset:
    return pydicom.dcmread(BytesIO(built.part10))


def said_in(document: Dataset) -> str:
    evaluations = document.ContentSequence[-1].ContentSequence
    return "\n".join(item.TextValue for item in evaluations if item.ValueType == "TEXT")


@pytest.mark.parametrize("keyword", [*BADLY_WRITTEN, "all"])
def test_a_badly_written_value_is_left_out_of_all_results_and_named_in_the_report(
    keyword: str, dciodvfy_errors: Callable[[Path], set[str]], tmp_path: Path
) -> None:
    headers = ct_headers(LossyImageCompression="01", WindowWidth=80)
    stack = stack_of(headers)
    broken = BADLY_WRITTEN if keyword == "all" else {keyword: BADLY_WRITTEN[keyword]}
    for header in headers:
        for name, text in broken.items():
            write_badly(header, name, text)
    objects = everything(context_of(headers), report_of([stack], [blob(stack, (2, 20, 14))]), stack)
    assert [built.kind for built in objects] == KINDS
    document, planes = read(objects[0]), read(objects[3])
    assert f"source headers were left out: {', '.join(sorted(broken))}" in said_in(document)
    assert not any(document.get(name) for name in broken)
    assert not any(planes.get(name) for name in set(broken) - {"SliceThickness"})
    assert "WindowWidth" not in planes
    errors = errors_of(objects, tmp_path, dciodvfy_errors)
    assert not {error for error in errors if "SliceThickness" not in error}  # SEG asks for one, and nobody knows it


def test_slices_that_each_name_a_frame_of_reference_share_the_one_their_series_stands_for(
    dciodvfy_errors: Callable[[Path], set[str]], tmp_path: Path
) -> None:
    headers = ct_headers()
    for k, header in enumerate(headers):
        header.FrameOfReferenceUID = f"2.25.41{k}"
    stack = stack_of(headers)
    assert stack.geometry is not None
    stack = replace(stack, geometry=replace(stack.geometry, frame_of_reference_uid=None))
    objects = everything(context_of(headers), report_of([stack], [blob(stack, (2, 20, 14))]), stack)
    assert [built.kind for built in objects] == KINDS
    frames = {read(built).get("FrameOfReferenceUID") for built in objects} - {None}
    assert {frame_of_reference_uid(stack)} == frames
    assert b"SCOORD3D" not in objects[0].part10
    assert set() == errors_of(objects, tmp_path, dciodvfy_errors)


@pytest.mark.parametrize(("language", "expected"), [("en", "No segmentation could be made"), ("es", "No se pudo")])
def test_a_report_leaves_with_its_finding_where_highdicom_refuses_the_segmentation(
    language: Language, expected: str, dciodvfy_errors: Callable[[Path], set[str]], tmp_path: Path
) -> None:
    headers = ct_headers()
    stack = stack_of(headers)
    headers[4].Columns = 47  # a slice of the region with another matrix than the stack was read with
    report = report_of([stack], [blob(stack, (4, 30, 20))])
    objects = build_flags(context_of(headers, language=language), report)
    assert ["sr", "key_objects"] == [built.kind for built in objects]
    document = read(objects[0])
    assert expected in said_in(document)
    assert "hemorrhage 1" in said_in(document)
    assert "ValueError" in said_in(document)
    assert b"Referenced Segment" not in objects[0].part10
    group = next(item for item in document.ContentSequence if item.ValueType == "CONTAINER").ContentSequence[0]
    sources = [item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in images_in(group)]
    assert [header.SOPInstanceUID for header in headers] == sources
    assert set() == errors_of(objects, tmp_path, dciodvfy_errors)


def images_in(group: Dataset) -> list[Dataset]:
    return [item for item in group.ContentSequence if item.ValueType == "IMAGE"]


def test_a_segmentation_that_fails_takes_no_other_along() -> None:
    headers = ct_headers()
    others = ct_headers(SeriesInstanceUID="2.25.2002")
    for k, other in enumerate(others):
        other.SOPInstanceUID = f"2.25.6{k}"
    stack, second = stack_of(headers), stack_of(others)
    headers[4].Columns = 47
    findings = [blob(stack, (4, 30, 20)), blob(second, (4, 30, 20))]
    objects = build_flags(context_of(headers + others), report_of([stack, second], findings))
    assert ["sr", "seg", "key_objects"] == [built.kind for built in objects]
    assert "No segmentation could be made of hemorrhage 1 (" in said_in(read(objects[0]))
    assert ["hemorrhage 2"] == [segment.TrackingID for segment in read(objects[1]).SegmentSequence]


def test_a_report_leaves_where_highdicom_refuses_the_key_objects() -> None:
    headers = ct_headers()
    stack = stack_of(headers)
    headers[4].StudyInstanceUID, headers[6].StudyInstanceUID = "2.25.1002", "2.25.1003"
    findings = [blob(stack, (k, 30, 20)) for k in (2, 4, 6)]
    objects = build_flags(context_of(headers), report_of([stack], findings))
    assert "sr" == objects[0].kind
    assert "key_objects" not in {built.kind for built in objects}
    assert "The list of key images could not be made (" in said_in(read(objects[0]))


@pytest.mark.parametrize("keyword", ["SeriesInstanceUID", "SOPClassUID", "StudyInstanceUID"])
def test_an_instance_that_lacks_a_name_is_not_referred_to_and_stops_nothing(keyword: str) -> None:
    headers, nameless = ct_headers(), ct_headers(SeriesInstanceUID="2.25.2002")
    for k, header in enumerate(nameless):
        header.SOPInstanceUID = f"2.25.6{k}"
    stack, other = stack_of(headers), stack_of(nameless)
    for header in nameless:
        del header[keyword]
    report = report_of([stack, other], [blob(other, (4, 30, 20))])
    objects = everything(context_of(headers + nameless), report, other)
    assert ["sr", *KINDS[3:]] == [built.kind for built in objects]
    for built in objects:
        assert report.study_instance_uid == read(built).StudyInstanceUID
        assert b"2.25.60" not in built.part10
    assert b"Certainty of Finding" in objects[0].part10


def test_a_study_of_which_no_header_can_be_read_is_refused_by_name() -> None:
    row = replace(stack_of(ct_headers(), Role.DOCUMENT, "none of its 8 images can be read"), instances=())
    with pytest.raises(MissingHeaders):
        build_flags(context_of([]), report_of([row]))


def errors_of(objects: list[ResultObject], folder: Path, check: Callable[[Path], set[str]]) -> set[str]:
    found: set[str] = set()
    for built in objects:
        path = folder / f"{built.kind}{built.index}.dcm"
        path.write_bytes(built.part10)
        found |= check(path)
    return found


def inherited(headers: list[Dataset], folder: Path, check: Callable[[Path], set[str]]) -> set[str]:
    """Return what dciodvfy finds wrong with the source itself."""
    path = folder / "source.dcm"
    pydicom.dcmwrite(path, headers[0], enforce_file_format=True)
    return check(path)


@pytest.mark.parametrize("language", ["en", "es"])
@pytest.mark.parametrize("name", ["head_normal_3mm", "head_ge_tilted", "abdomen_ge_revolution"])
def test_dciodvfy_finds_no_error_that_a_real_source_does_not_have(
    name: str,
    language: Language,
    real_headers: Callable[[str], list[Dataset]],
    dciodvfy_errors: Callable[[Path], set[str]],
    tmp_path: Path,
) -> None:
    headers = real_headers(name)
    stack = stack_of(headers)
    report = report_of(
        [stack],
        [blob(stack, (10, 250, 250)), blob(stack, (12, 255, 250), 15)],
        study_instance_uid=str(headers[0].StudyInstanceUID),
    )
    objects = everything(context_of(headers, language=language), report, stack)
    assert set() == errors_of(objects, tmp_path, dciodvfy_errors) - inherited(headers, tmp_path, dciodvfy_errors)


def test_dciodvfy_accepts_a_study_of_scouts_and_pages_alone(
    real_headers: Callable[[str], list[Dataset]], dciodvfy_errors: Callable[[Path], set[str]], tmp_path: Path
) -> None:
    scout, pages = (real_headers(f"head_phantom_philips/{name}") for name in ("scout", "exam_summary"))
    stacks = [
        stack_of(scout, Role.LOCALIZER, "a localizer is no volume"),
        stack_of(pages, Role.DOCUMENT, "pages, not slices"),
    ]
    report = report_of(stacks, study_instance_uid=str(scout[0].StudyInstanceUID), notes=("nothing to read",))
    assert StudyStatus.NOT_ANALYSED is report.status
    objects = build_flags(context_of(scout + pages, language="es"), report)
    assert ["sr"] == [built.kind for built in objects]
    assert set() == errors_of(objects, tmp_path, dciodvfy_errors) - inherited(scout, tmp_path, dciodvfy_errors)


@pytest.mark.parametrize("character_set", ["ISO_IR 100", "ISO_IR 192", None])
def test_dciodvfy_accepts_results_over_clean_headers(
    character_set: str | None, dciodvfy_errors: Callable[[Path], set[str]], tmp_path: Path
) -> None:
    headers = ct_headers(PatientName="Muñoz Peña^José Ángel", SpecificCharacterSet=character_set)
    stack = stack_of(headers)
    report = report_of([stack], [blob(stack, (2, 20, 14))])
    objects = everything(context_of(headers, committed_at=COMMITTED_AT), report, stack)
    assert set() == errors_of(objects, tmp_path, dciodvfy_errors)
