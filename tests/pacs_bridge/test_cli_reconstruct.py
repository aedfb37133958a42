"""``ctriage reconstruct``: what lies in the folder afterwards, and what is said when nothing can."""

import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import structlog
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import UID
from typer.testing import CliRunner, Result

from pacs_bridge.cli import app
from pacs_bridge.results.testing import ct_header, reread
from pipeline.phantom.multi_frame import write_enhanced
from reconstruction.surface import from_stl

COUNT, ROWS, COLUMNS, STEP_MM, PIXEL_MM = 16, 40, 48, 2.0, 0.5
Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Return a runner of ``ctriage reconstruct`` in an empty folder, and put logging back as it was."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.upper().startswith("CTRIAGE_")]:
        monkeypatch.delenv(name)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    runner = CliRunner()
    yield lambda *words: runner.invoke(app, ["reconstruct", *(str(word) for word in words)])
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def hu_at(k: int) -> np.ndarray:
    """Return a slice of a rod of 300 HU along z in water, which grows denser by a unit a slice."""
    hu = np.full((ROWS, COLUMNS), k, dtype=np.int16)
    hu[15:25, 20:30] = 300 + k
    return hu


def image(k: int, **changes: Any) -> Dataset:
    values: dict[str, Any] = {
        "Rows": ROWS,
        "Columns": COLUMNS,
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "PixelSpacing": [PIXEL_MM, PIXEL_MM],
        "ImagePositionPatient": [-12, -10, STEP_MM * k],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
        "RescaleType": "HU",
        "WindowCenter": 40,
        "WindowWidth": 400,
    }
    header = ct_header(k, **(values | changes))
    header.PixelData = hu_at(k).astype("<i2").tobytes()
    header["PixelData"].VR = "OW"
    return reread(header)


def series(folder: Path, count: int = COUNT, **changes: Any) -> Path:
    """Write an axial series of slices 2 mm apart, its voxels 0.5 mm wide, from (-12, -10, 0) on."""
    folder.mkdir(exist_ok=True)
    for k in range(count):
        each = image(k, **changes)
        each.save_as(folder / f"{changes.get('SeriesNumber', 2)}_{k:03d}.dcm")
    return folder


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """Return the folder of a series."""
    return series(tmp_path / "scan")


def outcome(result: Result) -> dict[str, Any]:
    assert 0 == result.exit_code, result.output
    told: dict[str, Any] = json.loads(result.stdout)
    return told


def images_in(folder: Path) -> list[Dataset]:
    return [pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))]


def place_of(dataset: Dataset, row: int, column: int) -> np.ndarray:
    along, down = np.array(dataset.ImageOrientationPatient, dtype=float).reshape(2, 3)
    spacing = [float(mm) for mm in dataset.PixelSpacing]
    return np.array(dataset.ImagePositionPatient, dtype=float) + down * spacing[0] * row + along * spacing[1] * column


def test_an_isotropic_series_its_picture_and_its_nifti_say_the_same(scan: Path, run: Run, tmp_path: Path) -> None:
    told = outcome(run("isotropic", scan, "--out", tmp_path / "out", "--spacing", 1, "--nifti", "--json"))
    images = images_in(tmp_path / "out" / "isotropic")
    assert [31, 20, 24] == told["shape_kji"]
    assert list(range(1, 32)) == [each.InstanceNumber for each in images]
    nifti = nibabel.load(tmp_path / "out" / "isotropic.nii.gz")
    stored = np.asarray(nifti.dataobj)
    for n in (0, 17, 30):
        assert np.array_equal(images[n].pixel_array, stored[:, :, n].T)
        ras = nifti.affine @ (5, 7, n, 1)
        assert place_of(images[n], 7, 5) == pytest.approx(ras[:3] * (-1, -1, 1), abs=1e-3)
    paths = [each["path"] for each in told["outputs"]]
    assert len(paths) == 31 + 1 + 1 == len(set(paths))
    assert all(Path(path).is_file() for path in paths)
    assert {"isotropic"} == {each["kind"] for each in told["outputs"]}


def test_planes_hold_the_hounsfield_units_of_the_scan_and_no_letters(scan: Path, run: Run, tmp_path: Path) -> None:
    words = ("--plane", "axial", "--thickness", 0, "--step", 2, "--centre", "0,0,0", "--json")
    told = outcome(run("mpr", scan, "--out", tmp_path / "out", *words))
    images = images_in(tmp_path / "out" / "mpr")
    assert told["images"] == COUNT == len(images)
    at = sorted(images, key=lambda each: float(each.ImagePositionPatient[2]))
    assert np.array_equal(hu_at(5), at[5].pixel_array)
    assert COUNT == len(list((tmp_path / "out" / "mpr").glob("*.png")))


@pytest.mark.parametrize(
    ("projection", "expected"), [("mean", 300 + 7.5), ("mip", 300 + 15), ("minip", 300)], ids=["mean", "mip", "minip"]
)
def test_a_slab_through_everything_shows_what_was_asked_of_it(
    projection: str, expected: float, scan: Path, run: Run, tmp_path: Path
) -> None:
    words = ("--plane", "axial", "--thickness", 30, "--count", 1, "--projection", projection, "--json")
    outcome(run("mpr", scan, "--out", tmp_path / "out", *words))
    kind = {"mean": "mpr"}.get(projection, projection)
    (shown,) = images_in(tmp_path / "out" / kind)
    assert expected == pytest.approx(int(shown.pixel_array[20, 25]), abs=1)
    assert kind.upper() == shown.ImageType[3]


def test_planes_across_any_direction_say_which_and_can_be_nifti(scan: Path, run: Run, tmp_path: Path) -> None:
    words = ("--normal", "1,1,0", "--centre", "0,0,14", "--thickness", 1, "--count", 3, "--nifti", "--json")
    told = outcome(run("mpr", scan, "--out", tmp_path / "out", *words))
    assert [0.7071, 0.7071, 0] == pytest.approx([abs(x) for x in told["normal_lps"]], abs=1e-3)
    images = images_in(tmp_path / "out" / "mpr")
    nifti = nibabel.load(tmp_path / "out" / "mpr.nii.gz")
    assert place_of(images[1], 3, 4) == pytest.approx((nifti.affine @ (4, 3, 1, 1))[:3] * (-1, -1, 1), abs=1e-3)


def test_the_same_wish_names_the_same_objects_and_another_wish_others(scan: Path, run: Run, tmp_path: Path) -> None:
    uids = []
    for folder, thickness in (("a", 3), ("b", 3), ("c", 4)):
        outcome(run("mpr", scan, "--out", tmp_path / folder, "--thickness", thickness, "--json"))
        uids.append([each.SOPInstanceUID for each in images_in(tmp_path / folder / "mpr")])
    assert uids[0] == uids[1]
    assert not set(uids[0]) & set(uids[2])


def test_the_same_wish_of_another_series_names_other_objects(run: Run, tmp_path: Path) -> None:
    scan = series(tmp_path / "scan")
    series(scan, SeriesNumber=3, SeriesInstanceUID="2.25.333", FrameOfReferenceUID="2.25.334")
    for n, path in enumerate(sorted(scan.glob("3_*.dcm"))):
        again = pydicom.dcmread(path)
        again.SOPInstanceUID = again.file_meta.MediaStorageSOPInstanceUID = UID(f"2.25.333{n}")
        again.save_as(path)
    names = []
    for number in (2, 3):
        outcome(run("mpr", scan, "--out", tmp_path / str(number), "--series", number, "--json"))
        names.append({each.SOPInstanceUID for each in images_in(tmp_path / str(number) / "mpr")})
    assert names[0]
    assert not names[0] & names[1]


def test_a_shorter_series_leaves_nothing_of_a_longer_one_and_touches_nothing_else(
    scan: Path, run: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "out" / "mpr"
    outcome(run("mpr", scan, "--out", tmp_path / "out", "--count", 4, "--json"))
    (folder / "mine.txt").write_text("a note")
    outcome(run("mpr", scan, "--out", tmp_path / "out", "--count", 2, "--json"))
    assert {"0001.dcm", "0001.png", "0002.dcm", "0002.png", "mine.txt"} == {path.name for path in folder.iterdir()}


def test_a_path_from_a_file_becomes_a_capture_with_a_true_scale(scan: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "path.txt").write_text("# along the rod\n0.5,0,4\n0.5 0 14\n\n0.5,0,26  # its end\n")
    words = ("--points", tmp_path / "path.txt", "--width", 20, "--json")
    told = outcome(run("curved", scan, "--out", tmp_path / "out", *words))
    assert [22.0, 20.0] == pytest.approx([told["length_mm"], told["width_mm"]], abs=0.5)
    capture = pydicom.dcmread(tmp_path / "out" / "curved.dcm")
    assert "113073" == capture.DerivationCodeSequence[0].CodeValue
    assert capture.PixelSpacing[0] * capture.Rows == pytest.approx(22.5, abs=0.6)
    with Image.open(tmp_path / "out" / "curved.png") as picture:
        assert (capture.Columns, capture.Rows) == picture.size


def test_a_needle_view_is_two_planes_and_two_pictures(scan: Path, run: Run, tmp_path: Path) -> None:
    told = outcome(run("needle", scan, "--out", tmp_path / "out", "--entry", "-8,0,10", "--target=0,0,16", "--json"))
    assert 10.0 == pytest.approx(told["length_mm"])
    assert 36.87 == pytest.approx(told["angles"]["craniocaudal_deg"], abs=0.01)
    planes = images_in(tmp_path / "out" / "needle")
    assert [["DERIVED", "SECONDARY", "REFORMATTED", "MPR"]] * 2 == [list(each.ImageType) for each in planes]
    for each in planes:
        along, down = np.array(each.ImageOrientationPatient, dtype=float).reshape(2, 3)
        away = np.array([-8, 0, 10]) - np.array(each.ImagePositionPatient, dtype=float)
        assert abs(float(away @ np.cross(along, down))) < 1e-3
    pictures = [pydicom.dcmread(tmp_path / "out" / f"needle_{n}.dcm") for n in (1, 2)]
    assert not {each.SeriesInstanceUID for each in pictures} & {each.SeriesInstanceUID for each in planes}
    assert {"needle_1.png", "needle_2.png"} == {path.name for path in (tmp_path / "out").glob("*.png")}


def test_the_bone_becomes_a_closed_model_of_its_size_at_its_place(run: Run, tmp_path: Path) -> None:
    scan = series(tmp_path / "scan", PixelSpacing=[1, 1])
    told = outcome(run("surface", scan, "--out", tmp_path / "out", "--triangles", 2000, "--json"))
    document = pydicom.dcmread(tmp_path / "out" / "surface_bone.dcm")
    stl = document.EncapsulatedDocument[: document.EncapsulatedDocumentLength]
    assert (tmp_path / "out" / "surface_bone.stl").read_bytes() == stl
    assert told["watertight"] is True
    assert 3.0 == pytest.approx(told["volume_ml"], rel=0.15)  # 10 x 10 x 30 mm
    places = from_stl(stl).vertices_lps_mm
    assert [7.5, 4.5, 0] == pytest.approx(places.min(axis=0), abs=1.2)
    assert [17.5, 14.5, 30] == pytest.approx(places.max(axis=0), abs=1.2)
    with Image.open(tmp_path / "out" / "surface_bone.png") as picture:
        drawn = np.asarray(picture, np.uint8)[40:472, 40:472].max(axis=2)  # from the front, no letters
    assert 10.0 == pytest.approx(np.count_nonzero(drawn.any(axis=0)) * told["pixel_mm"], abs=1.5)
    assert 30.0 == pytest.approx(np.count_nonzero(drawn.any(axis=1)) * told["pixel_mm"], abs=1.5)


def test_a_turn_is_one_moving_picture(scan: Path, run: Run, tmp_path: Path) -> None:
    told = outcome(run("turn", scan, "--out", tmp_path / "out", "--frames", 3, "--size", 64, "--json"))
    capture = pydicom.dcmread(tmp_path / "out" / "turn_bone.dcm")
    assert (3, 3, 64) == (told["frames"], capture.NumberOfFrames, capture.Rows)
    with Image.open(tmp_path / "out" / "turn_bone.png") as picture:
        assert 3 == getattr(picture, "n_frames", 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [(("turn", "--preset", "brain"), "no skull"), (("surface", "--tissue", "skin"), "no skin in the image")],
)
def test_what_is_not_in_the_image_is_not_made(words: tuple[str, ...], said: str, run: Run, tmp_path: Path) -> None:
    air = series(tmp_path / "air", RescaleIntercept=-3000)
    result = run(words[0], air, "--out", tmp_path / "out", *words[1:])
    assert (1, "") == (result.exit_code, result.stdout)
    assert said in result.stderr
    assert isinstance(result.exception, SystemExit)


def test_a_volume_becomes_nifti_where_it_lies(scan: Path, run: Run, tmp_path: Path) -> None:
    told = outcome(run("nifti", scan, "--out", tmp_path / "out", "--json"))
    nifti = nibabel.load(tmp_path / "out" / "volume.nii.gz")
    assert ([COUNT, ROWS, COLUMNS], None) == (told["shape_kji"], told["max_distance_to_slice_mm"])
    assert np.array_equal(hu_at(9), np.asarray(nifti.dataobj)[:, :, 9].T)
    assert np.array([12, 10, 18]) == pytest.approx((nifti.affine @ (0, 0, 9, 1))[:3], abs=1e-4)


@pytest.mark.parametrize("name", ["tilt_minus_18", "tilt_plus_16", "bone_1mm"])
def test_every_slice_of_a_real_scan_lies_in_its_nifti_where_its_header_says(
    name: str, shared_data: Path, run: Run, tmp_path: Path
) -> None:
    folder = shared_data / "head_phantom_philips" / name
    told = outcome(run("nifti", folder, "--out", tmp_path / "out", "--json"))
    nifti = nibabel.load(tmp_path / "out" / "volume.nii.gz")
    slices = [each for path in folder.iterdir() if "ImagePositionPatient" in (each := pydicom.dcmread(path))]
    slices.sort(key=lambda each: float(each.ImagePositionPatient[2]))
    stored = np.asarray(nifti.dataobj)
    assert told["shape_kji"] == [len(slices), *slices[0].pixel_array.shape]
    for k, each in enumerate(slices):
        for row, column in ((0, 0), (300, 411)):
            lps = (nifti.affine @ (column, row, k, 1))[:3] * (-1, -1, 1)
            assert place_of(each, row, column) == pytest.approx(lps, abs=0.02)
    middle = slices[len(slices) // 2]
    hu = middle.pixel_array * float(middle.RescaleSlope) + float(middle.RescaleIntercept)
    assert np.array_equal(hu, stored[:, :, len(slices) // 2].T)


def test_frames_of_an_enhanced_ct_are_rebuilt_as_single_images_are(scan: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "enhanced").mkdir()
    write_enhanced(sorted(scan.iterdir()), tmp_path / "enhanced" / "all.dcm")
    for folder in (scan, tmp_path / "enhanced"):
        words = ("--plane", "axial", "--thickness", 0, "--step", 2, "--centre", "0,0,0", "--json")
        outcome(run("mpr", folder, "--out", tmp_path / "out" / folder.name, *words))
    single, frames = (images_in(tmp_path / "out" / name / "mpr") for name in ("scan", "enhanced"))
    for one, other in zip(single, frames, strict=True):
        assert np.array_equal(one.pixel_array, other.pixel_array)
        assert one.ImagePositionPatient == other.ImagePositionPatient
    (source,) = frames[5].SourceImageSequence
    assert "ReferencedFrameNumber" in source


def test_without_a_wish_the_finest_stack_is_taken_and_named(scan: Path, run: Run, tmp_path: Path) -> None:
    for k in range(4):
        coarse = image(k, SeriesNumber=7, SeriesInstanceUID="2.25.7", SOPInstanceUID=f"2.25.77{k}", SliceThickness=5)
        coarse.ImagePositionPatient = [-12, -10, 8 * k]
        coarse.save_as(scan / f"coarse_{k}.dcm")
    plain = run("nifti", scan, "--out", tmp_path / "out")
    assert "series 2, stack 1: 16 slices 2 mm apart (the finest of 2" in plain.stderr
    for name in ("7", "2.25.7"):
        assert (
            "series 7, stack 1: 4 slices 8 mm apart\n"
            in run("nifti", scan, "--out", tmp_path / "out", "--series", name).stderr
        )


def test_notes_of_the_stack_and_figures_are_told_to_people_too(scan: Path, run: Run, tmp_path: Path) -> None:
    (scan / "2_005.dcm").unlink()
    result = run("nifti", scan, "--out", tmp_path / "out")
    assert 0 == result.exit_code
    assert "note: 1 slice(s) seem to be missing" in result.stdout
    assert "max_distance_to_slice_mm: 2.00" in result.stdout or "max_distance_to_slice_mm: 1" in result.stdout


KINDS = {
    "isotropic": ("--spacing", "2", "--nifti"),
    "mpr": ("--count", "1"),
    "curved": ("--points", "0,0,4 1,0,14 0,0,26"),
    "needle": ("--entry", "-8,0,10", "--target", "0,0,16"),
    "surface": ("--triangles", "2000"),
    "turn": ("--frames", "2", "--size", "64"),
    "nifti": (),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_that_programs_get_is_documented_and_every_documented_one_is_there(
    kind: str, run: Run, tmp_path: Path
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "JSON.md").read_text(encoding="utf-8")
    section = text.partition("## `ctriage reconstruct KIND")[2].partition("\n## ")[0]
    (row,) = [line.split("|") for line in section.splitlines() if line.startswith(f"| `{kind}` |")]
    keys, kinds = (set(re.findall(r"`(\w+)`", cell)) for cell in row[2:4])
    scan = series(tmp_path / "scan", PixelSpacing=[1, 1])
    told = outcome(run(kind, scan, "--out", tmp_path / "out", *KINDS[kind], "--json"))
    common = {"series_instance_uid", "stack", "max_distance_to_slice_mm", "notes", "outputs"}
    assert keys | common == set(told)
    assert {each["kind"] for each in told["outputs"]} <= kinds
    assert all(f"`{name}`" in section for name in told.get("angles", {}))
    assert all(Path(each["path"]).is_file() for each in told["outputs"])


def test_pictures_of_a_slab_are_windowed_for_soft_tissue_and_extremes_by_their_kind(
    scan: Path, run: Run, tmp_path: Path
) -> None:
    greys = {}
    for folder, words in (("mean", ()), ("soft", ("--window", "soft")), ("mip", ("--projection", "mip"))):
        outcome(run("mpr", scan, "--out", tmp_path / folder, "--count", 1, *words, "--json"))
        with Image.open(next((tmp_path / folder).glob("*/0001.png"))) as picture:
            greys[folder] = np.asarray(picture)
    assert np.array_equal(greys["mean"], greys["soft"])
    assert greys["mip"].max(axis=2).mean() < greys["soft"].max(axis=2).mean()


def test_a_path_file_that_is_not_there_is_named_as_such(scan: Path, run: Run, tmp_path: Path) -> None:
    result = run("curved", scan, "--out", tmp_path / "out", "--points", "path.txt")
    assert (2, True) == (result.exit_code, "no such file" in " ".join(result.stderr.replace("│", " ").split()))


NEEDLE = ("needle", "--target", "0,0,16", "--entry")
WRONG_WISHES = [
    (("mpr", "--normal", "1,2"), "three numbers"),
    (("mpr", "--normal", "nan,0,1"), "three numbers"),
    (("mpr", "--normal", "0,0,0"), "no length"),
    (("mpr", "--normal", "0,0,1", "--plane", "axial"), "give one of them"),
    (("mpr", "--centre", "900,0,0", "--count", "1", "--plane", "sagittal"), "does not cut the volume, which spans x"),
    (("mpr", "--thickness", "-1"), "cannot be -1 mm"),
    (("mpr", "--thickness", "nan"), "cannot be nan mm"),
    (("mpr", "--thickness", "0"), "distance of more than 0"),
    (("mpr", "--count", "0"), "0 pictures"),
    (("mpr", "--thickness", "1e12", "--count", "1"), "thicker than any patient"),
    (("turn", "--frames", "720", "--size", "2048"), "more than 1 GiB"),
    (("curved", "--points", "0,0,10"), "needs 2 to"),
    (("curved", "--points", "0,0,10 900,0,0"), "point 2 of the path lies outside"),
    (("curved", "--points", "0,0,10 inf,0,0"), "three numbers"),
    (("curved", "--points", "0,0,4 0,0,26", "--width", "0"), "width"),
    (("curved", "--points", "0,0,4 0,0,26", "--thickness", "1e7"), "thicker than any patient"),
    ((*NEEDLE, "900,0,0"), "lies outside the volume, which spans x -12 to 12"),
    ((*NEEDLE, "0,0,16"), "same point"),
    ((*NEEDLE, "0,0"), "three numbers"),
    (("nifti", "--series", "2.25.999"), "there is no such series"),
    (("nifti", "--stack", "5"), "there is no such series or stack here; there are: series 2, stack 1 (16 images)"),
    (("turn", "--frames", "0"), "--frames"),
    (("turn", "--preset", "liver"), "vessel"),
]


@pytest.mark.parametrize(("words", "said"), WRONG_WISHES, ids=[" ".join(words) for words, _ in WRONG_WISHES])
def test_a_wish_that_cannot_be_met_ends_with_status_2_and_a_sentence(
    words: tuple[str, ...], said: str, scan: Path, run: Run, tmp_path: Path
) -> None:
    result = run(words[0], scan, "--out", tmp_path / "out", *words[1:])
    assert (2, "") == (result.exit_code, result.stdout)
    assert said in " ".join(result.stderr.replace("│", " ").split())
    assert isinstance(result.exception, SystemExit)


def test_a_spacing_that_no_picture_could_hold_is_refused_with_one_that_it_could(
    scan: Path, run: Run, tmp_path: Path
) -> None:
    for spacing in ("0", "-1", "nan", "0.0001", "1000"):
        result = run("isotropic", scan, "--out", tmp_path / "out", "--spacing", spacing)
        assert 1 == result.exit_code, spacing
        assert "spacing" in result.stderr
        assert isinstance(result.exception, SystemExit)


def two_slices(folder: Path) -> str:
    series(folder, 2)
    return "fewer than 3"


def magnetic(folder: Path) -> str:
    series(folder, 4, Modality="MR")
    return "modality MR, not CT"


def nothing(folder: Path) -> str:
    folder.mkdir()
    return "no DICOM images were found"


def no_dicom(folder: Path) -> str:
    folder.mkdir()
    (folder / "notes.txt").write_text("no images here")
    return "not a DICOM file"


def two_patients(folder: Path) -> str:
    series(folder)
    image(0, PatientID="MRN2", SOPInstanceUID="2.25.5").save_as(folder / "other.dcm")
    return "two patient IDs"


def cut_off(folder: Path) -> str:
    series(folder)
    whole = (folder / "2_003.dcm").read_bytes()
    (folder / "2_003.dcm").write_bytes(whole[:-1000])
    return "slice 4"


@pytest.mark.parametrize("make", [two_slices, magnetic, nothing, no_dicom, two_patients, cut_off])
def test_images_of_which_nothing_can_be_made_end_with_status_1_and_a_sentence(
    make: Callable[[Path], str], run: Run, tmp_path: Path
) -> None:
    said = make(tmp_path / "scan")
    result = run("nifti", tmp_path / "scan", "--out", tmp_path / "out", "--json")
    assert (1, "") == (result.exit_code, result.stdout)
    assert said in result.stderr
    assert isinstance(result.exception, SystemExit)
    assert "Doe" not in result.output
    assert "MRN" not in result.output


def test_images_of_two_studies_are_not_chosen_between(scan: Path, run: Run, tmp_path: Path) -> None:
    other = series(tmp_path / "other", StudyInstanceUID="2.25.88", SeriesInstanceUID="2.25.89")
    for k, path in enumerate(sorted(other.iterdir())):
        changed = pydicom.dcmread(path)
        changed.SOPInstanceUID = changed.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.UID(f"2.25.8{k:03d}")
        changed.save_as(path)
    result = run("nifti", scan, other, "--out", tmp_path / "out")
    assert (2, True) == (result.exit_code, "2 studies (series 2; series 2)" in result.stderr)
    assert 0 == run("nifti", scan, other, "--out", tmp_path / "out", "--series", "2.25.89").exit_code


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_read(scan: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    result = run("nifti", scan, "--out", tmp_path / "file" / "out")
    assert (2, True) == (result.exit_code, "cannot be written" in result.stderr)


def test_results_of_our_own_are_not_reconstructed_again(scan: Path, run: Run, tmp_path: Path) -> None:
    outcome(run("isotropic", scan, "--out", tmp_path / "out", "--spacing", 1, "--json"))
    result = run("nifti", tmp_path / "out", "--out", tmp_path / "again")
    assert (1, True) == (result.exit_code, "a result of ctriage itself" in result.stderr)
