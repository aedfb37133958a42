"""A written series is valid DICOM whose tags agree with the volume, and its truth lies beside it."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from pipeline.phantom import Patient, ScanOptions, WrittenSeries, make_patient, write_series

Write = Callable[[Patient], WrittenSeries]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return lambda patient: write_series(patient, tmp_path / patient.kind)


def _dciodvfy(path: Path) -> str:
    tool = shutil.which("dciodvfy") or str(Path(sys.executable).with_name("dciodvfy"))
    done = subprocess.run([tool, str(path)], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_dciodvfy_finds_no_error(write: Write, bleed: Patient, torso: Patient) -> None:
    for patient in (bleed, torso):
        said = _dciodvfy(write(patient).files[3])
        assert "CTImage" in said
        assert "Error" not in said


def test_tags_rebuild_the_volume(write: Write, bleed: Patient) -> None:
    images = [dcmread(path) for path in write(bleed).files]
    hu = np.stack([image.pixel_array.astype(int) + int(image.RescaleIntercept) for image in images])
    assert np.array_equal(bleed.volume.hu, hu)
    geometry = bleed.volume.geometry
    positions = np.array([image.ImagePositionPatient for image in images], dtype=float)
    assert positions == pytest.approx(geometry.to_mm([(k, 0, 0) for k in range(len(images))]), abs=1e-6)
    across = np.array(images[0].ImageOrientationPatient, dtype=float)
    spacing = [float(v) for v in images[0].PixelSpacing]
    assert across[:3] * spacing[1] == pytest.approx(geometry.affine[:3, 2], abs=1e-6)
    assert across[3:] * spacing[0] == pytest.approx(geometry.affine[:3, 1], abs=1e-6)


def test_tilted_tags_agree_with_the_tilt(tmp_path: Path, small: ScanOptions) -> None:
    options = replace(small, rows=64, columns=64, slice_count=4, slice_step_mm=5.0, tilt_deg=-18.5)
    files = write_series(make_patient("head", options=options), tmp_path).files
    first, last = dcmread(files[0]), dcmread(files[-1])
    axis = np.subtract(last.ImagePositionPatient, first.ImagePositionPatient).astype(float)
    row, column = np.array(first.ImageOrientationPatient, dtype=float).reshape(2, 3)
    normal = np.cross(row, column)
    angle = np.degrees(np.arccos(axis @ normal / np.linalg.norm(axis)))
    assert float(first.GantryDetectorTilt) == -18.5
    assert angle == pytest.approx(18.5, abs=1e-3)
    assert axis @ normal == pytest.approx(15.0, abs=1e-5)


def test_writing_twice_gives_the_same_bytes(tmp_path: Path, head: Patient) -> None:
    one, other = (write_series(head, tmp_path / name) for name in ("a", "b"))
    assert [p.read_bytes() for p in one.files] == [p.read_bytes() for p in other.files]
    assert one.truth.read_bytes() == other.truth.read_bytes()


def test_identifiers_differ_by_kind_seed_and_scan(tmp_path: Path, small: ScanOptions) -> None:
    tiny = replace(small, rows=16, columns=16, slice_count=1)
    patients = [
        make_patient("head", seed=1, options=tiny),
        make_patient("head", seed=2, options=tiny),
        make_patient("head", seed=1, options=replace(tiny, tilt_deg=5)),
        make_patient("torso", seed=1, options=tiny),
    ]
    images = [dcmread(write_series(p, tmp_path / str(n)).files[0]) for n, p in enumerate(patients)]
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert len({image[keyword].value for image in images}) == 4
        assert all(str(image[keyword].value).startswith("2.25.") for image in images)


@pytest.mark.parametrize(
    ("name", "character_set"),
    [("Muñoz Peña^José Ángel", "ISO_IR 100"), ("Kowalczyk Łoś^Żaneta", "ISO_IR 192")],
)
def test_names_survive_in_the_character_set_they_need(
    tmp_path: Path, small: ScanOptions, name: str, character_set: str
) -> None:
    patient = make_patient("head", options=replace(small, rows=16, columns=16, slice_count=1))
    image = dcmread(write_series(patient, tmp_path, patient_name=name).files[0])
    assert (name, character_set) == (str(image.PatientName), image.SpecificCharacterSet)


def test_a_phantom_is_never_taken_for_a_result_of_ours(write: Write, head: Patient) -> None:
    image = dcmread(write(head).files[0])
    assert image.Manufacturer == "Digital phantom"
    assert (image.RescaleType, int(image.RescaleSlope), int(image.RescaleIntercept)) == ("HU", 1, -1024)


def test_truth_names_the_series_and_the_mask_gives_the_volume(write: Write, bleed: Patient) -> None:
    written = write(bleed)
    truth = json.loads(written.truth.read_text(encoding="utf-8"))
    image = dcmread(written.files[0])
    assert truth["series_instance_uid"] == image.SeriesInstanceUID
    assert truth["study_instance_uid"] == image.StudyInstanceUID
    (finding,) = truth["findings"]
    assert finding["code"] == {"scheme": "SCT", "value": "1386000", "meaning": "Intracranial hemorrhage"}
    mask = np.load(written.folder / finding["mask"])
    voxel_ml = abs(np.linalg.det(mask["affine_kji_to_lps_mm"])) / 1000
    assert mask["bits"].sum() * voxel_ml == pytest.approx(finding["volume_ml"], rel=0.1)
