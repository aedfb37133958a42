"""Do the same names give the same bytes, and is everything a task noticed said in its outcome?"""

import pickle
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest

from pacs_bridge.ledger import KeptObject
from pacs_bridge.tasks import DeriveTask, SeriesFiles, TriageTask, make_pictures, triage
from pipeline import wire
from pipeline.model import PictureOptions, Provenance, Report, StudyStatus
from pipeline.process import SeriesResult
from pipeline.select import digest_of

NO_PICTURES = PictureOptions(mpr=False, mip=False, render=False)


@pytest.fixture(scope="module")
def tilted(shared_data: Path) -> dict[str, str]:
    """Return the files of a real, tilted scan of four slices by SOP Instance UID."""
    paths = sorted((shared_data / "geometry_faults" / "gantrytilting").rglob("*.dcm"))
    return {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID): str(path) for path in paths}


MakeTask = Callable[..., TriageTask]


@pytest.fixture
def make_task(tilted: dict[str, str], tmp_path: Path) -> MakeTask:
    """Return a maker of triage tasks, each with an object store of its own."""

    def make(store: str = "objects", files: dict[str, str] | None = None, **changes: Any) -> TriageTask:
        task = TriageTask(
            study_instance_uid="1.2.3",
            series=(SeriesFiles(series_instance_uid="1.2.3.4", files=files or tilted),),
            detectors=("hemorrhage",),
            provenance=Provenance(code_version="1", detector_versions={"hemorrhage": "1"}, settings_hash="s"),
            language="en",
            committed_at=datetime(2026, 3, 1, 12, tzinfo=UTC),
            objects_dir=str(tmp_path / store),
        )
        return replace(task, **changes)

    return make


def stored(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def dataset(folder: Path, kept: KeptObject) -> pydicom.Dataset:
    return pydicom.dcmread(BytesIO((folder / kept.path).read_bytes()))


def derive_task(task: TriageTask, text: str, files: dict[str, str], **changes: Any) -> DeriveTask:
    return replace(
        DeriveTask(
            report_text=text,
            files=files,
            options=NO_PICTURES,
            language=task.language,
            committed_at=task.committed_at,
            objects_dir=task.objects_dir,
            study_key="0123456789ab",
        ),
        **changes,
    )


def test_the_same_task_twice_gives_the_same_bytes_under_the_same_names(make_task: MakeTask, tmp_path: Path) -> None:
    one, other = triage(make_task("one")), triage(make_task("other"))
    assert one.objects == other.objects
    assert one.report_text == other.report_text
    assert stored(tmp_path / "one") == stored(tmp_path / "other") != {}


def test_a_task_that_is_tried_again_adds_no_file(make_task: MakeTask, tmp_path: Path) -> None:
    triage(make_task())
    before = stored(tmp_path / "objects")
    triage(make_task())
    assert before == stored(tmp_path / "objects")


def test_objects_lie_in_the_object_store_alone_whole_and_under_their_hashes(
    make_task: MakeTask, tmp_path: Path
) -> None:
    outcome = triage(make_task())
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert {f"objects/{each.path}" for each in outcome.objects} == written
    assert all(Path(each.path).stem == each.sha256 for each in outcome.objects)


def test_tasks_and_outcomes_cross_a_process_border(make_task: MakeTask) -> None:
    task = make_task()
    assert task == pickle.loads(pickle.dumps(task))
    outcome = triage(task)
    assert outcome == pickle.loads(pickle.dumps(outcome))


def test_the_digest_is_that_of_the_names_handed_over(make_task: MakeTask, tilted: dict[str, str]) -> None:
    report = wire.loads(Report, triage(make_task()).report_text)
    assert digest_of(tilted) == report.study_digest


def test_a_file_that_cannot_be_read_becomes_a_note_and_the_rest_is_read(
    make_task: MakeTask, tilted: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "broken").write_bytes(b"no DICOM at all")
    outcome = triage(make_task(files={**tilted, "1.9": str(tmp_path / "broken"), "1.8": str(tmp_path / "gone")}))
    report = wire.loads(Report, outcome.report_text)
    assert [4] == [len(row.instances) for row in report.examined]
    assert "1 image(s) could not be read: not a DICOM file" in report.notes
    assert any("1 image(s) could not be read" in note and "No such file" in note for note in report.notes)
    assert digest_of([*tilted, "1.9", "1.8"]) == report.study_digest


def test_a_series_without_a_readable_file_is_not_analysed_and_its_study_not_negative(
    make_task: MakeTask, tilted: dict[str, str], tmp_path: Path
) -> None:
    dark = SeriesFiles(series_instance_uid="9.9", files={"1.8": str(tmp_path / "gone")})
    task = make_task()
    outcome = triage(replace(task, series=(*task.series, dark)))
    report = wire.loads(Report, outcome.report_text)
    assert (StudyStatus.NOT_ANALYSED, None) == (report.status, report.priority)
    assert "none of its 1 images can be read" in [row.reason for row in report.skipped]
    said = [str(element.value) for element in dataset(tmp_path / "objects", outcome.objects[0]).iterall()]
    assert any("none of its 1 images can be read" in text for text in said)
    pictures = make_pictures(derive_task(task, outcome.report_text, tilted))
    assert ["summary"] == [each.kind for each in pictures.objects]


def test_a_kept_result_is_used_instead_of_looking_again(make_task: MakeTask, tilted: dict[str, str]) -> None:
    first = triage(make_task())
    ((_, digest, text),) = first.series_results
    assert digest_of(tilted) == digest == wire.loads(SeriesResult, text).digest
    again = make_task()
    kept = replace(again.series[0], kept_result=text)
    outcome = triage(replace(again, series=(kept,), detectors=()))
    assert ((), first.report_text) == (outcome.series_results, outcome.report_text)


def test_spanish_settings_change_the_texts_and_not_the_names(make_task: MakeTask, tmp_path: Path) -> None:
    english, spanish = triage(make_task()), triage(make_task(language="es"))
    one, other = (dataset(tmp_path / "objects", each.objects[0]) for each in (english, spanish))
    assert one.SeriesDescription != other.SeriesDescription
    assert english.objects[0].sop_instance_uid == spanish.objects[0].sop_instance_uid  # the settings' hash tells apart
    assert english.objects[0].sha256 != spanish.objects[0].sha256


def test_pictures_are_the_same_bytes_each_time_and_carry_the_studys_key_alone(
    make_task: MakeTask, tilted: dict[str, str], tmp_path: Path
) -> None:
    task = make_task()
    text = triage(task).report_text
    options = PictureOptions(mpr=True, mpr_step_mm=40, mip=True, render=False)
    one = make_pictures(derive_task(task, text, tilted, options=options, objects_dir=str(tmp_path / "one")))
    other = make_pictures(derive_task(task, text, tilted, options=options, objects_dir=str(tmp_path / "other")))
    assert one.objects == other.objects
    assert stored(tmp_path / "one") == stored(tmp_path / "other")
    assert {"mpr", "mip", "summary"} == {each.kind for each in one.objects}
    assert set(one.timings_s) == {"derive", "write"}
