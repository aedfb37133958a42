"""Does ``ctriage process`` say of real scans what docs/JSON.md promises that programs can read?"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset

from pacs_bridge.cli import _status_of
from pacs_bridge.offline import TWO_PATIENTS, process_paths
from pacs_bridge.settings import Outputs, Settings

STUDY_KEYS = {"study_instance_uid", "status", "priority", "series", "findings", "outputs", "timings_s"}
MakeSlice = Callable[..., Dataset]
SERIES_KEYS = {
    "series_instance_uid", "stack", "role", "status", "reason", "instances", "detectors", "geometry", "regularised",
    "working_grid",
}  # fmt: skip
GEOMETRY_KEYS = {"shape_kji", "affine_kji_to_lps_mm", "tilt_deg", "spacing_mm", "gaps_mm"}
NO_PICTURES = Settings(outputs=Outputs(mpr=False, mip=False, render=False))


def silent(what: str, done: int, total: int) -> None:
    """Show nothing."""


@pytest.fixture(scope="module")
def processed(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Process the real heads once, without pictures beside the summary."""
    out = tmp_path_factory.mktemp("out")
    names = ("head_normal_3mm", "head_ge_tilted", "head_phantom_philips")
    return {name: process_paths([shared_data / name], out / name, NO_PICTURES, silent) for name in names}


def test_the_normal_head_has_every_key_of_the_design_and_no_hemorrhage(processed: dict[str, dict[str, Any]]) -> None:
    outcome = processed["head_normal_3mm"]
    assert {"ignored", "unreadable", "studies"} == set(outcome)
    (study,) = outcome["studies"]
    (series,) = study["series"]
    assert set(study) >= STUDY_KEYS
    assert set(series) >= SERIES_KEYS
    assert set(series["geometry"]) == GEOMETRY_KEYS
    assert {"read", "assemble", "detect", "derive", "write"} == set(study["timings_s"])
    assert ("analysed", "routine", []) == (study["status"], study["priority"], study["findings"])
    assert (53, True, 7.4) == (series["instances"], series["regularised"], round(series["geometry"]["tilt_deg"], 2))


def test_the_tilted_ge_head_is_one_stack_with_its_tilt_and_gaps(processed: dict[str, dict[str, Any]]) -> None:
    (study,) = processed["head_ge_tilted"]["studies"]
    (series,) = study["series"]
    gaps = series["geometry"]["gaps_mm"]
    assert series["geometry"]["tilt_deg"] == pytest.approx(18.5, abs=0.01)
    assert series["geometry"]["spacing_mm"][0] == pytest.approx(4.0, abs=0.01)
    assert (13, 1, 14) == (gaps.count(7.0), gaps.count(1.08), len(gaps))
    assert 28 == len(series["geometry"]["slice_positions_mm"])
    assert [f for f in study["findings"] if f["kind"] == "hemorrhage" and f["volume_ml"] >= 1] == []


def test_scouts_and_pages_are_told_apart_and_never_negative(processed: dict[str, dict[str, Any]]) -> None:
    outcome = processed["head_phantom_philips"]
    roles = [(s["role"], s["instances"]) for study in outcome["studies"] for s in study["series"]]
    assert [("document", 6), ("localizer", 1)] == sorted(r for r in roles if r[0] != "volume")
    assert [20, 28, 54, 70] == sorted(count for role, count in roles if role == "volume")
    unread = [s for study in outcome["studies"] for s in study["series"] if s["status"] == "not_analysed"]
    assert all(s["reason"] for s in unread)
    assert {"a DICOMDIR", "not a DICOM file"} == {each["reason"] for each in outcome["ignored"]}


def test_every_output_named_is_there_and_of_its_kind(processed: dict[str, dict[str, Any]]) -> None:
    (study,) = processed["head_ge_tilted"]["studies"]
    kinds = {(each["kind"], Path(each["path"]).suffix) for each in study["outputs"]}
    assert {("sr", ".dcm"), ("summary", ".dcm"), ("summary", ".png")} <= kinds
    assert [each["path"] for each in study["outputs"] if not Path(each["path"]).is_file()] == []


def test_pictures_of_a_volume_no_detector_reads_are_made_all_the_same(shared_data: Path, tmp_path: Path) -> None:
    outcome = process_paths([shared_data / "abdomen_ge_revolution"], tmp_path, Settings(), silent)
    (study,) = outcome["studies"]
    made = {each["kind"] for each in study["outputs"]}
    coronal = pydicom.dcmread(next((tmp_path / "study_1" / "mpr_1").glob("*.dcm")))
    assert ("not_analysed", None) == (study["status"], study["priority"])
    assert {"sr", "mpr", "mip", "summary"} <= made
    assert ("render" in made) or any("no 3D rendering" in note for note in study["notes"])
    assert ["DERIVED", "SECONDARY", "REFORMATTED", "MPR"] == list(coronal.ImageType)


def test_files_that_are_no_dicom_or_broken_are_listed_and_the_rest_is_read(shared_data: Path, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    source = sorted((shared_data / "geometry_faults" / "gantrytilting").rglob("*.dcm"))
    for path in source:
        (scans / path.name).write_bytes(path.read_bytes())
    (scans / "notes.txt").write_text("no DICOM")
    (scans / "broken.dcm").write_bytes(source[0].read_bytes()[:400])
    (scans / "zz_again.dcm").write_bytes(source[0].read_bytes())
    outcome = process_paths([scans], tmp_path / "out", NO_PICTURES, silent)
    (study,) = outcome["studies"]
    assert [4] == [series["instances"] for series in study["series"]]
    assert {"notes.txt", "zz_again.dcm"} == {Path(each["path"]).name for each in outcome["ignored"]}
    assert ["broken.dcm"] == [Path(each["path"]).name for each in outcome["unreadable"]]


def test_a_folder_without_dicom_gives_no_study(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert {"ignored": [], "unreadable": [], "studies": []} == process_paths(
        [tmp_path / "empty"], tmp_path / "out", Settings(), silent
    )


def test_geometry_faults_end_as_the_design_says(shared_data: Path, tmp_path: Path) -> None:
    outcome = process_paths([shared_data / "geometry_faults"], tmp_path, NO_PICTURES, silent)
    rows = [series for study in outcome["studies"] for series in study["series"]]
    gaps = sorted(row["geometry"]["gaps_mm"] for row in rows if row["geometry"])
    assert [[], [1.5], [10.0]] == gaps
    assert ["not_ct", "not_ct"] == [row["role"] for row in rows if row["role"] != "volume"]
    assert any("same position" in (row["reason"] or "") for row in rows)


def written(folder: Path, *slices: Dataset) -> Path:
    folder.mkdir(exist_ok=True)
    for number, each in enumerate(slices, start=len(list(folder.iterdir()))):
        each.save_as(folder / f"{number:02d}.dcm", enforce_file_format=True)
    return folder


def reasons(listed: list[dict[str, str]]) -> dict[str, str]:
    return {Path(each["path"]).name: each["reason"] for each in listed}


def test_a_study_that_breaks_off_is_failed_and_the_others_go_on(make_slice: MakeSlice, tmp_path: Path) -> None:
    scans = written(tmp_path / "scans", *(make_slice(n, PatientID="SECRET77") for n in (1, 2, 3)))
    other = {"StudyInstanceUID": "1.2.9", "SeriesInstanceUID": "1.2.9.4"}
    written(scans, *(make_slice(n, SOPInstanceUID=f"1.2.9.4.{n}", **other) for n in (1, 2, 3)))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "study_1").write_text("where the first study's results should go, there is a file")
    outcome = process_paths([scans], tmp_path / "out", NO_PICTURES, silent)
    bad, good = outcome["studies"]
    assert ("failed", "not_analysed", None) == (bad["status"], good["status"], good["reason"])
    assert bad["reason"].startswith(("NotADirectoryError", "FileExistsError"))
    assert set(bad) == set(good)
    assert set(bad["timings_s"]) == set(good["timings_s"]) == {"read", "assemble", "detect", "derive", "write"}
    assert ([3], []) == ([series["instances"] for series in bad["series"]], bad["outputs"])
    assert (1, 0) == (_status_of(outcome), _status_of({"studies": [good]}))


def test_a_study_that_was_read_but_not_written_is_not_routine(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "study_1").write_text("where its results should go, there is a file")
    (study,) = process_paths([shared_data / "head_ge_tilted"], tmp_path, NO_PICTURES, silent)["studies"]
    assert ("failed", None, ["analysed"]) == (
        study["status"],
        study["priority"],
        [s["status"] for s in study["series"]],
    )


def test_a_study_of_which_nothing_could_be_read_names_its_series_and_no_patient(
    make_slice: MakeSlice, tmp_path: Path
) -> None:
    def tripping(what: str, done: int, total: int) -> None:
        if what.endswith("series"):
            raise ValueError("Doe^Jane (SECRET77) of 1.2.840.99999.1.2.3.4 has a value nobody can read")

    scans = written(tmp_path / "scans", make_slice(1, PatientID="SECRET77"))
    (study,) = process_paths([scans], tmp_path / "out", NO_PICTURES, tripping)["studies"]
    reason = "ValueError: (withheld) ((withheld)) of (withheld) has a value nobody can read"
    assert ("failed", None, reason) == (study["status"], study["priority"], study["reason"])
    (series,) = study["series"]
    assert ("1.2.3.4", "not_analysed", reason, 1) == (
        series["series_instance_uid"],
        series["status"],
        series["reason"],
        series["instances"],
    )


@pytest.mark.parametrize(
    ("keyword", "reason"),
    [
        ("StudyInstanceUID", "no Study Instance UID"),
        ("SeriesInstanceUID", "no Series Instance UID"),
        ("SOPClassUID", "no SOP Class UID"),
    ],
)
def test_an_image_that_lacks_a_name_is_unreadable_and_the_rest_is_read(
    make_slice: MakeSlice, tmp_path: Path, keyword: str, reason: str
) -> None:
    nameless = make_slice(9)
    nameless.preamble = bytes(128)
    nameless.file_meta.MediaStorageSOPClassUID = nameless.SOPClassUID
    nameless.file_meta.MediaStorageSOPInstanceUID = nameless.SOPInstanceUID
    delattr(nameless, keyword)
    scans = written(tmp_path / "scans", *(make_slice(n) for n in (1, 2, 3)))
    nameless.save_as(scans / "nameless.dcm", enforce_file_format=False)
    outcome = process_paths([scans], tmp_path / "out", NO_PICTURES, silent)
    (study,) = outcome["studies"]
    assert {"nameless.dcm": reason} == reasons(outcome["unreadable"])
    assert ("not_analysed", [3]) == (study["status"], [series["instances"] for series in study["series"]])


def test_two_patients_in_one_study_are_said_and_no_results_are_written(make_slice: MakeSlice, tmp_path: Path) -> None:
    scans = written(tmp_path / "scans", make_slice(1), make_slice(2, PatientID=""), make_slice(3, PatientID="P2"))
    (study,) = process_paths([scans], tmp_path / "out", NO_PICTURES, silent)["studies"]
    assert (TWO_PATIENTS, "not_analysed", []) == (study["notes"][0], study["status"], study["outputs"])
    assert [] == [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    written(scans, make_slice(4))
    (scans / "02.dcm").unlink()
    (study,) = process_paths([scans], tmp_path / "out", NO_PICTURES, silent)["studies"]
    assert (False, True) == (TWO_PATIENTS in study["notes"], bool(study["outputs"]))


def test_a_second_file_of_an_instance_says_whether_it_holds_something_else(
    make_slice: MakeSlice, tmp_path: Path
) -> None:
    again, other = make_slice(1), make_slice(1, PixelData=bytes(31) + b"\1")
    again.file_meta.SourceApplicationEntityTitle = "PACS2"
    scans = written(tmp_path / "scans", make_slice(1), make_slice(2), make_slice(3), again, other)
    outcome = process_paths([scans], tmp_path / "out", NO_PICTURES, silent)
    differs = "a second file of the same SOP instance with other content; the first one is read"
    assert {"03.dcm": "the same file again", "04.dcm": differs} == reasons(outcome["ignored"])


def test_each_step_of_a_study_is_shown_from_its_beginning_to_its_end(shared_data: Path, tmp_path: Path) -> None:
    shown: dict[str, list[tuple[int, int]]] = {}

    def show(what: str, done: int, total: int) -> None:
        shown.setdefault(what, []).append((done, total))

    process_paths([shared_data / "geometry_faults" / "gantrytilting"], tmp_path, NO_PICTURES, show)
    series = "study 1, series 1"
    assert ["reading", "study 1: series", f"{series}: assembled", f"{series}: detectors", "study 1: pictures"] == list(
        shown
    )
    assert [(done, 4) for done in range(5)] == shown[f"{series}: assembled"]
    assert all(steps[-1][0] == steps[-1][1] for steps in shown.values())
