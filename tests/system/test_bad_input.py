"""Does every bad study end in a clear status and message, with the next study processed as if nothing had been?"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from benchmarks.service import Service, wait_until
from pacs_bridge.status import read_report

Change = Callable[[int, Dataset], None]


def without_position(n: int, dataset: Dataset) -> None:
    del dataset.ImagePositionPatient


def without_spacing(n: int, dataset: Dataset) -> None:
    del dataset.PixelSpacing


def with_two_frames_of_reference(n: int, dataset: Dataset) -> None:
    dataset.FrameOfReferenceUID = f"1.2.3.{n // 2}"


def with_pixels_cut_off(n: int, dataset: Dataset) -> None:
    dataset.PixelData = dataset.PixelData[:1000]


BAD: dict[str, tuple[Change, str]] = {
    "without position": (without_position, "Image Position"),
    "without spacing": (without_spacing, "Pixel Spacing"),
    "two frames of reference": (with_two_frames_of_reference, "fewer than 3"),
    "pixels cut off": (with_pixels_cut_off, "cut off"),
}


@pytest.fixture
def changed(small_study: list[Path], tmp_path: Path) -> Callable[[str, Change, int], list[Path]]:
    """Return a maker of studies of their own: the small one's slices, each changed."""

    def make(name: str, change: Change, count: int = 4) -> list[Path]:
        folder = tmp_path / name.replace(" ", "_")
        folder.mkdir()
        return [_changed(path, folder, n, change) for n, path in enumerate(small_study[:count])]

    return make


def _changed(path: Path, folder: Path, n: int, change: Change) -> Path:
    dataset = pydicom.dcmread(path)
    dataset.StudyInstanceUID = generate_uid(prefix="2.25.", entropy_srcs=[folder.name, "study"])
    dataset.SeriesInstanceUID = generate_uid(prefix="2.25.", entropy_srcs=[folder.name, "series"])
    dataset.SOPInstanceUID = generate_uid(prefix="2.25.", entropy_srcs=[folder.name, str(n)])
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    change(n, dataset)
    target = folder / f"{n}.dcm"
    dataset.save_as(target)
    return target


def test_each_bad_study_ends_not_analysed_with_its_reason_and_the_next_one_is_processed(
    make_service: Any, send: Any, small_study: list[Path], changed: Any
) -> None:
    service: Service = make_service()
    bad = {name: changed(name, change) for name, (change, _) in BAD.items()}
    bad["one slice"] = changed("one slice", lambda *_: None, 1)
    expected = {name: text for name, (_, text) in BAD.items()} | {"one slice": "1 slice(s)"}
    for files in bad.values():
        send(service, files).raise_failure()
    send(service, small_study).raise_failure()
    wait_until(lambda: service.is_idle() and len(reports(service)) == len(bad) + 1, within_s=180, what="every study")
    said = {name: _reasons(service, files) for name, files in bad.items()}
    missing = {name: said[name] for name, text in expected.items() if not any(text in each for each in said[name])}
    assert missing == {}
    assert [study["report_status"] for study in service.status()["studies"]] == ["not_analysed"] * (len(bad) + 1)


def test_a_slice_with_other_bytes_is_kept_beside_the_first_and_shown(
    make_service: Any, send: Any, small_study: list[Path], tmp_path: Path
) -> None:
    service: Service = make_service()
    again = pydicom.dcmread(small_study[0])
    again.PatientName = "Corrected^Name"
    again.save_as(tmp_path / "again.dcm")
    send(service, [*small_study, tmp_path / "again.dcm"]).raise_failure()
    (conflict,) = service.status()["conflicts"]
    assert conflict["kind"] == "content"
    assert len(list((service.state_dir / "archive").glob("??/*.dcm"))) == len(small_study) + 1


def reports(service: Service) -> list[dict[str, Any]]:
    """Return the studies that have a Report."""
    return [study for study in service.status()["studies"] if study["report_version"]]


def _reasons(service: Service, files: list[Path]) -> list[str]:
    uid = pydicom.dcmread(files[0], specific_tags=["StudyInstanceUID"]).StudyInstanceUID
    found = read_report(service.state_dir / "ctriage.sqlite", uid)
    return [row.reason or "" for row in found[0].examined] if found else [json.dumps(service.status())]
