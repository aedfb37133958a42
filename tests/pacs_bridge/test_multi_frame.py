"""A scan that comes as one multi-frame instance ends in the results that its single images end in."""

from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from pacs_bridge.offline import process_paths
from pacs_bridge.settings import Detectors, Outputs, Settings
from pacs_bridge.tasks import DeriveTask, SeriesFiles, TriageTask, make_pictures, triage
from pipeline import wire
from pipeline.model import PictureOptions, Provenance, Report
from pipeline.phantom import BleedWish, ScanOptions, WrittenSeries, make_patient, write_series
from pipeline.phantom.multi_frame import JPEG_LS, write_enhanced

SCAN = ScanOptions(
    rows=128, columns=128, slice_count=32, slice_thickness_mm=5.0, slice_step_mm=5.0, detail_mm=2.0, tilt_deg=12.0
)
PLAIN = Settings(outputs=Outputs(mpr=False, mip=False, render=False), detectors=Detectors(enabled=("hemorrhage",)))


def silent(what: str, done: int, total: int) -> None:
    """Show nothing."""


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> WrittenSeries:
    patient = make_patient("head-bleed", seed=5, options=SCAN, wish=BleedWish(volume_ml=25))
    return write_series(patient, tmp_path_factory.mktemp("single"))


@pytest.fixture(scope="module")
def frames(series: WrittenSeries, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the same scan as one compressed Enhanced CT, its frames in a scrambled order."""
    order = np.random.default_rng(2).permutation(len(series.files))
    target = tmp_path_factory.mktemp("frames") / "frames.dcm"
    return write_enhanced([series.files[n] for n in order], target, transfer_syntax_uid=JPEG_LS)


def items(node: Dataset) -> Iterator[Dataset]:
    for item in node.get("ContentSequence", []):
        yield item
        yield from items(item)


def number_of(document: Dataset, meaning: str) -> list[float]:
    numbers = (item for item in items(document) if item.ValueType == "NUM")
    return [
        float(item.MeasuredValueSequence[0].NumericValue)
        for item in numbers
        if item.ConceptNameCodeSequence[0].CodeMeaning == meaning
    ]


def output(study: dict[str, Any], kind: str) -> Dataset:
    (path,) = (each["path"] for each in study["outputs"] if each["kind"] == kind)
    return pydicom.dcmread(path)


def test_a_bleed_in_frames_gives_the_report_and_the_segments_of_the_single_images(
    series: WrittenSeries, frames: Path, tmp_path: Path
) -> None:
    (single,) = process_paths(list(series.files), tmp_path / "single", PLAIN, silent)["studies"]
    (study,) = process_paths([frames], tmp_path / "frames", PLAIN, silent)["studies"]
    assert ("analysed", "stat") == (study["status"], study["priority"])
    assert single["findings"] == study["findings"]
    (before,), (after,) = single["series"], study["series"]
    assert ((32, None), (1, 32)) == ((before["instances"], before["frames"]), (after["instances"], after["frames"]))
    told_apart = {"instances", "frames"}
    assert {key: before[key] for key in before.keys() - told_apart} == {
        key: after[key] for key in after.keys() - told_apart
    }
    expected, actual = output(single, "sr"), output(study, "sr")
    assert number_of(expected, "Volume") == number_of(actual, "Volume") != []
    assert_same_segments(output(single, "seg"), output(study, "seg"), frames)


def assert_same_segments(expected: Dataset, actual: Dataset, frames: Path) -> None:
    """The same pixels at the same positions; each names the frame that stands there."""
    assert np.array_equal(expected.pixel_array, actual.pixel_array)
    source = pydicom.dcmread(frames, stop_before_pixels=True)
    groups = zip(expected.PerFrameFunctionalGroupsSequence, actual.PerFrameFunctionalGroupsSequence, strict=True)
    for before, after in groups:
        placed = list(after.PlanePositionSequence[0].ImagePositionPatient)
        assert list(before.PlanePositionSequence[0].ImagePositionPatient) == placed
        named = after.DerivationImageSequence[0].SourceImageSequence[0]
        assert source.SOPInstanceUID == named.ReferencedSOPInstanceUID
        frame = source.PerFrameFunctionalGroupsSequence[named.ReferencedFrameNumber - 1]
        assert placed == list(frame.PlanePositionSequence[0].ImagePositionPatient)


def test_the_real_enhanced_image_ends_with_the_reason(shared_data: Path, tmp_path: Path) -> None:
    outcome = process_paths([shared_data / "enhanced_ct"], tmp_path, PLAIN, silent)
    (study,) = outcome["studies"]
    (row,) = study["series"]
    assert ("not_analysed", None) == (study["status"], study["priority"])
    assert ("volume", "2 slice(s): fewer than 3 are no volume", 1, 2) == (
        row["role"],
        row["reason"],
        row["instances"],
        row["frames"],
    )
    said = "\n".join(str(item.TextValue) for item in items(output(study, "sr")) if item.ValueType == "TEXT")
    assert "2 slice(s): fewer than 3 are no volume" in said


def test_a_worker_reads_frames_and_pictures_them(frames: Path, tmp_path: Path) -> None:
    uid = str(pydicom.dcmread(frames, stop_before_pixels=True).SOPInstanceUID)
    task = TriageTask(
        study_instance_uid="1.2.3",
        series=(SeriesFiles(series_instance_uid="1.2.3.4", files={uid: str(frames)}),),
        detectors=("hemorrhage",),
        provenance=Provenance(code_version="1", detector_versions={"hemorrhage": "1"}, settings_hash="s"),
        language="en",
        committed_at=datetime(2026, 3, 1, 12, tzinfo=UTC),
        objects_dir=str(tmp_path / "objects"),
    )
    outcome = triage(task)
    assert ["sr", "seg", "key_objects"] == [each.kind for each in outcome.objects]
    report = wire.loads(Report, outcome.report_text)
    (row,) = report.examined
    assert ({uid}, 32, 1) == (set(row.instances), len(row.frames), len(report.findings))
    pictures = make_pictures(
        DeriveTask(
            report_text=outcome.report_text,
            files={uid: str(frames)},
            options=PictureOptions(mip=False, render=False, mpr_step_mm=40, mpr_thickness_mm=40),
            language=task.language,
            committed_at=task.committed_at,
            objects_dir=task.objects_dir,
            study_key="0123456789ab",
        )
    )
    assert {"mpr", "summary"} == {each.kind for each in pictures.objects}
    first = next(each for each in pictures.objects if each.kind == "mpr")
    derived = pydicom.dcmread(BytesIO((tmp_path / "objects" / first.path).read_bytes()))
    assert [uid] == [item.ReferencedSOPInstanceUID for item in derived.SourceImageSequence]
