"""All results of a Report together: the same bytes each time, and objects that a validator accepts."""

from collections.abc import Callable
from datetime import datetime
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from pacs_bridge.results.bundle import build_flags, build_pictures
from pacs_bridge.results.context import Context
from pacs_bridge.results.derived import Reformat
from pacs_bridge.results.errors import NaiveInstant
from pacs_bridge.results.identifiers import is_ours
from pacs_bridge.results.secondary_capture import Capture
from pacs_bridge.results.testing import COMMITTED_AT, blob, context_of, ct_headers, report_of, stack_of
from pacs_bridge.results.texts import Language
from pipeline.model import ExaminedStack, Report, ResultObject, Role, StudyStatus
from reconstruction.planes import Planes


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
    captures = [
        Capture(kind="render", rgb=rgb, burned_in="NO", stack=stack),
        Capture(kind="summary", rgb=rgb, burned_in="YES"),
    ]
    reformats = [Reformat(planes=coronal, stack=stack)]
    return build_flags(context, report) + build_pictures(context, report, planes=reformats, captures=captures)


def test_the_same_report_gives_the_same_bytes_in_whatever_order_its_headers_came() -> None:
    headers = ct_headers()
    stack = stack_of(headers)
    report = report_of([stack], [blob(stack, (2, 20, 14)), blob(stack, (5, 40, 30))])
    once = everything(context_of(headers), report, stack)
    again = everything(context_of(headers[::-1]), report, stack)
    assert [o.part10 for o in once] == [o.part10 for o in again]
    assert len(once) == len({o.sop_instance_uid for o in once})


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
