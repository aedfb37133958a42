"""Programs read a Report by the keys that docs/JSON.md promises, every key every time."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.model import (
    DetectorRun,
    ExaminedStack,
    Finding,
    Measurement,
    Priority,
    Report,
    Role,
    StudyStatus,
    WorkingGrid,
)
from pipeline.report_json import finding_json, study_json
from reconstruction.geometry import Geometry

MakeReport = Callable[..., Report]
MakeRow = Callable[..., ExaminedStack]
MakeRun = Callable[..., DetectorRun]
MakeFinding = Callable[..., Finding]
MakeGrid = Callable[..., Geometry]

STUDY = {"study_instance_uid", "status", "priority", "series", "findings", "outputs", "timings_s"}
STUDY_TOO = {"report_version", "notes", "changes", "provenance", "disclaimer"}
SERIES = {
    "series_instance_uid",
    "stack",
    "role",
    "status",
    "reason",
    "instances",
    "detectors",
    "geometry",
    "regularised",
    "working_grid",
}
SERIES_TOO = {"series_number", "series_description", "notes", "frames"}
DETECTOR = {"name", "version", "status", "reason"}
GEOMETRY = {"shape_kji", "affine_kji_to_lps_mm", "tilt_deg", "spacing_mm", "gaps_mm"}
WORKING_GRID = {"shape_kji", "affine_kji_to_lps_mm", "max_distance_to_slice_mm"}
FINDING = {"kind", "subtype", "code", "probability", "volume_ml", "centroid_lps_mm", "detector"}
FINDING_TOO = {"measurements", "series_instance_uid", "stack", "also_seen_in"}


@pytest.fixture
def uneven(make_row: MakeRow, make_grid: MakeGrid) -> ExaminedStack:
    """Return the row of an uneven stack examined on a working grid."""
    return make_row(
        geometry=make_grid(slices=4),
        nominal_step_mm=5.0,
        gaps_mm=(10.0,),
        slice_positions_mm=(0.0, 5.0, 10.0, 20.0),
        working_grid=WorkingGrid(geometry=make_grid(slices=21, step_mm=1.0), max_distance_to_slice_mm=5.00004),
    )


def test_every_promised_key_is_there_and_no_unknown_one(
    make_report: MakeReport, make_row: MakeRow, make_finding: MakeFinding, uneven: ExaminedStack
) -> None:
    bare = make_row(role=Role.LOCALIZER, detectors=(), geometry=None, reason="a localizer")
    study = study_json(make_report(examined=(uneven, bare), findings=(make_finding(),)))
    assert STUDY | STUDY_TOO == study.keys()
    for entry in study["series"]:
        assert SERIES | SERIES_TOO == entry.keys()
    full = study["series"][0]
    assert GEOMETRY | {"slice_positions_mm"} == full["geometry"].keys()
    assert (WORKING_GRID, DETECTOR) == (full["working_grid"].keys(), full["detectors"][0].keys())
    assert FINDING | FINDING_TOO == study["findings"][0].keys()
    assert {"scheme", "value", "meaning"} == study["findings"][0]["code"].keys()


def test_it_is_json_as_it_stands(make_report: MakeReport, make_finding: MakeFinding, uneven: ExaminedStack) -> None:
    study = study_json(make_report(examined=(uneven,), findings=(make_finding(),)), timings_s={"read": 0.12345})
    assert study == json.loads(json.dumps(study, allow_nan=False))
    assert {"read": 0.123} == study["timings_s"]


def test_a_stack_is_told_as_acquired(make_report: MakeReport, uneven: ExaminedStack) -> None:
    (entry,) = study_json(make_report(examined=(uneven,)))["series"]
    assert {
        "shape_kji": [4, 100, 100],
        "affine_kji_to_lps_mm": [[0, 0, 1, -49.5], [0, 1, 0, -49.5], [5, 0, 0, 0], [0, 0, 0, 1]],
        "tilt_deg": 0.0,
        "spacing_mm": [5.0, 1.0, 1.0],
        "gaps_mm": [10.0],
        "slice_positions_mm": [0.0, 5.0, 10.0, 20.0],
    } == entry["geometry"]
    assert (True, [21, 100, 100], 5.0) == (
        entry["regularised"],
        entry["working_grid"]["shape_kji"],
        entry["working_grid"]["max_distance_to_slice_mm"],
    )


def test_an_even_stack_lists_no_positions_and_no_working_grid(make_report: MakeReport) -> None:
    (entry,) = study_json(make_report())["series"]
    assert GEOMETRY == entry["geometry"].keys()
    assert (False, None, [5.0, 1.0, 1.0]) == (
        entry["regularised"],
        entry["working_grid"],
        entry["geometry"]["spacing_mm"],
    )


def test_the_step_of_a_tilted_stack_is_measured_along_the_normal(make_report: MakeReport, make_row: MakeRow) -> None:
    affine = make_row().geometry
    assert affine is not None
    sheared = affine.affine.copy()
    sheared[1, 0] = 5.0
    row = make_row(geometry=Geometry(affine=sheared, shape=(3, 4, 5)))
    geometry = study_json(make_report(examined=(row,)))["series"][0]["geometry"]
    assert (45.0, [5.0, 1.0, 1.0]) == (geometry["tilt_deg"], geometry["spacing_mm"])


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (["ran"], "analysed"),
        (["failed", "ran"], "analysed"),
        (["failed", "declined"], "not_analysed"),
        ([], "not_analysed"),
    ],
)
def test_a_stack_is_analysed_when_a_detector_ran(
    make_report: MakeReport, make_row: MakeRow, make_run: MakeRun, statuses: list[Any], expected: str
) -> None:
    row = make_row(detectors=tuple(make_run(status) for status in statuses))
    assert expected == study_json(make_report(examined=(row,)))["series"][0]["status"]


def test_a_stack_not_analysed_keeps_its_reason(make_report: MakeReport, make_row: MakeRow) -> None:
    row = make_row(role=Role.DOCUMENT, detectors=(), geometry=None, reason="a page")
    (entry,) = study_json(make_report(examined=(row,)))["series"]
    assert ("document", "not_analysed", "a page", 2, None, []) == (
        entry["role"],
        entry["status"],
        entry["reason"],
        entry["instances"],
        entry["geometry"],
        entry["detectors"],
    )


@pytest.mark.parametrize(("priority", "expected"), [(None, None), (Priority.STAT, "stat")])
def test_status_and_priority_are_plain_words(
    make_report: MakeReport, priority: Priority | None, expected: str | None
) -> None:
    study = study_json(make_report(status=StudyStatus.PARTLY_ANALYSED, priority=priority))
    assert ("partly_analysed", expected) == (study["status"], study["priority"])


def test_outputs_and_the_disclaimer_are_carried(make_report: MakeReport) -> None:
    study = study_json(make_report(), outputs=[{"path": "a.dcm", "kind": "sr"}])
    assert [{"path": "a.dcm", "kind": "sr"}] == study["outputs"]
    assert "Not a medical device; for research and triage support" == study["disclaimer"]


def test_a_finding_is_rounded_to_what_it_can_claim(make_finding: MakeFinding) -> None:
    code = make_finding().code
    measured = (Measurement(name=code, value=1.23456, unit=code),)
    finding = make_finding(
        at=(1.005, -2.3456, 3.0),
        probability=0.123456,
        volume_ml=11.23456,
        measurements=measured,
        also_seen_in=(("1.2", 3),),
    )
    told = finding_json(finding)
    assert (0.1235, 11.235, [1.0, -2.35, 3.0]) == (told["probability"], told["volume_ml"], told["centroid_lps_mm"])
    assert {"scheme": "SCT", "value": "1386000", "meaning": "Intracranial hemorrhage"} == told["code"]
    assert [{"series_instance_uid": "1.2", "stack": 3}] == told["also_seen_in"]
    assert [{"name": code.meaning, "value": 1.235, "unit": code.value}] == told["measurements"]


def test_no_volume_is_null(make_finding: MakeFinding) -> None:
    assert finding_json(make_finding(volume_ml=None))["volume_ml"] is None
