"""What the rows say about a study: never a negative where nobody looked, never a lesion lost or counted twice."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.model import DetectorRun, ExaminedStack, Finding, Priority, Role, StudyStatus
from pipeline.rules import merged, priority_of, status_of, with_coverage
from reconstruction.geometry import Geometry

MakeRow = Callable[..., ExaminedStack]
MakeRun = Callable[..., DetectorRun]
MakeFinding = Callable[..., Finding]
MakeGrid = Callable[..., Geometry]
ANALYSED, PARTLY, NOT = StudyStatus.ANALYSED, StudyStatus.PARTLY_ANALYSED, StudyStatus.NOT_ANALYSED


@pytest.fixture
def unread(make_row: MakeRow, make_run: MakeRun) -> MakeRow:
    """Return a maker of volumes on which the detector declined."""

    def make(series: str = "1.2", **changes: Any) -> ExaminedStack:
        runs = (make_run("declined", reason="a bone kernel"),)
        return make_row(series, **({"detectors": runs, "reason": "bright: a bone kernel"} | changes))

    return make


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ("", NOT),
        ("l", NOT),
        ("u", NOT),
        ("ul", NOT),
        ("r", ANALYSED),
        ("rl", ANALYSED),
        ("rr", ANALYSED),
        ("ru", PARTLY),
        ("rc", ANALYSED),
        ("rcu", PARTLY),
    ],
)
def test_a_study_is_as_analysed_as_its_volumes(
    make_row: MakeRow, unread: MakeRow, kinds: str, expected: StudyStatus
) -> None:
    of = {
        "r": make_row(),
        "u": unread(),
        "c": unread(covered_by=("1.1", 1)),
        "l": unread(role=Role.LOCALIZER, detectors=()),
    }
    assert expected == status_of([of[kind] for kind in kinds])


def test_a_failed_or_declined_detector_is_no_analysis(make_row: MakeRow, make_run: MakeRun) -> None:
    assert NOT == status_of([make_row(detectors=(make_run("failed", reason="x"), make_run("declined", reason="y")))])


@pytest.mark.parametrize(
    ("grid", "by"),
    [
        ({}, ("1.1", 1)),
        ({"slices": 100, "step_mm": 1.0}, ("1.1", 1)),
        ({"z_mm": -50.0, "slices": 40}, ("1.1", 1)),
        ({"slices": 18}, None),  # 85 of 95 mm
        ({"slices": 19}, ("1.1", 1)),  # 90 of 95 mm
        ({"z_mm": 200.0}, None),
        ({"frame": "1.6"}, None),
        ({"frame": None}, None),
        ({"side": 90}, ("1.1", 1)),  # cut a little closer around the same head
        ({"side": 40}, None),  # an ear does not cover a head
    ],
)
def test_an_unread_volume_is_covered_by_an_analysed_one_of_the_same_scan(
    make_row: MakeRow, unread: MakeRow, make_grid: MakeGrid, grid: dict[str, Any], by: tuple[str, int] | None
) -> None:
    _, row = with_coverage([make_row("1.1", geometry=make_grid(**grid)), unread("1.2")])
    assert by == row.covered_by
    prefix = "covered by series 2, stack 1 of the same scan; " if by else ""
    assert f"{prefix}bright: a bone kernel" == row.reason


COARSE, SAME, FINE = {"slices": 20, "step_mm": 5.0}, {"slices": 20, "step_mm": 5.04}, {"slices": 160, "step_mm": 0.625}
DECLINED, UNREAD = ("declined", "a bone kernel"), ("declined", "no volume: slice 3: the pixel data is cut off")
RAN, FAILED = ("ran", None), ("failed", "ZeroDivisionError: no skull")


@pytest.mark.parametrize(
    ("row_grid", "of_row", "other_grid", "of_other", "covered"),
    [
        # A fine series that nobody looked at: thick slices show no fine crack.
        (FINE, [UNREAD, UNREAD], COARSE, [RAN, RAN], False),
        (FINE, [UNREAD, UNREAD], FINE, [RAN, RAN], True),
        (FINE, [FAILED, FAILED], COARSE, [RAN, RAN], False),
        (FINE, [DECLINED, FAILED], COARSE, [RAN, RAN], False),
        (FINE, [DECLINED, UNREAD], COARSE, [RAN, RAN], False),
        (FINE, [], COARSE, [RAN, RAN], False),
        # A fine series that every detector declined, for one on which each of them ran.
        (FINE, [DECLINED, DECLINED], COARSE, [RAN, RAN], True),
        (FINE, [DECLINED, DECLINED], COARSE, [RAN, DECLINED], False),
        (FINE, [DECLINED, DECLINED], COARSE, [RAN, FAILED], False),
        (FINE, [DECLINED], COARSE, [RAN, DECLINED], True),
        # Slices as close, or closer.
        (COARSE, [UNREAD, UNREAD], FINE, [RAN, DECLINED], True),
        (COARSE, [FAILED, DECLINED], FINE, [RAN, DECLINED], True),
        (COARSE, [UNREAD, UNREAD], SAME, [RAN, RAN], True),
        (COARSE, [UNREAD, UNREAD], {"slices": 20, "step_mm": 5.06}, [RAN, RAN], False),
    ],
)
def test_a_stack_is_covered_only_where_no_less_can_be_seen(
    make_row: MakeRow, make_run: MakeRun, make_grid: MakeGrid, row_grid: dict[str, Any], of_row: list[Any],
    other_grid: dict[str, Any], of_other: list[Any], *, covered: bool,
) -> None:  # fmt: skip
    def runs(told: list[Any]) -> tuple[DetectorRun, ...]:
        return tuple(make_run(how, name=name, reason=why) for name, (how, why) in zip("ab", told, strict=False))

    other = make_row("1.1", geometry=make_grid(**other_grid), detectors=runs(of_other))
    row = make_row("1.2", geometry=make_grid(**row_grid), detectors=runs(of_row), reason="not read")
    rows = with_coverage([other, row])
    assert (("1.1", 1) if covered else None) == rows[1].covered_by
    assert (ANALYSED if covered else PARTLY) == status_of(rows)


def test_the_step_that_counts_is_the_commonest_of_an_uneven_stack(
    make_row: MakeRow, unread: MakeRow, make_grid: MakeGrid
) -> None:
    runs = unread().detectors[:0]
    coarse = make_row("1.1", geometry=make_grid(**COARSE), nominal_step_mm=2.5)
    assert ("1.1", 1) == with_coverage([coarse, unread(nominal_step_mm=2.5, detectors=runs)])[1].covered_by
    assert with_coverage([coarse, unread(nominal_step_mm=1.25, detectors=runs)])[1].covered_by is None


def test_a_tilted_volume_with_a_turned_matrix_is_covered_by_a_straight_one(
    make_row: MakeRow, unread: MakeRow, make_grid: MakeGrid
) -> None:
    straight = make_grid(z_mm=-60.0, slices=30, side=100)
    turn = np.array([[1, 0, 0], [0, np.cos(0.3), -np.sin(0.3)], [0, np.sin(0.3), np.cos(0.3)]])
    affine = make_grid(slices=15, side=60).affine.copy()
    affine[:3, 1] *= -1
    affine[:3, :3] = turn @ affine[:3, :3]
    affine[:3, 3] = turn @ [-29.5, 29.5, -35.0]
    tilted = Geometry(affine=affine, shape=(15, 60, 60), frame_of_reference_uid="1.5")
    _, row = with_coverage([make_row("1.1", geometry=straight), unread("1.2", geometry=tilted)])
    assert ("1.1", 1) == row.covered_by


def test_what_has_no_place_is_never_covered(make_row: MakeRow, unread: MakeRow) -> None:
    rows = with_coverage([make_row(), unread(geometry=None), unread(role=Role.LOCALIZER)])
    assert [None, None, None] == [row.covered_by for row in rows]


def test_two_unread_volumes_do_not_cover_each_other(unread: MakeRow) -> None:
    assert [None, None] == [row.covered_by for row in with_coverage([unread("1.1"), unread("1.2")])]


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [(["fracture"], Priority.URGENT), (["fracture", "hemorrhage"], Priority.STAT), (["a new kind"], Priority.URGENT)],
)
@pytest.mark.parametrize("status", list(StudyStatus))
def test_a_finding_raises_the_priority_whatever_was_not_looked_at(
    make_row: MakeRow, make_finding: MakeFinding, kinds: list[str], expected: Priority, status: StudyStatus
) -> None:
    findings = [make_finding(kind=kind) for kind in kinds]
    assert expected == priority_of(status, [make_row(detectors=())], findings)


@pytest.mark.parametrize(
    ("status", "runs", "expected"),
    [
        (ANALYSED, [["ran", "ran"]], Priority.ROUTINE),
        (ANALYSED, [["ran", "declined"], ["declined", "ran"]], Priority.ROUTINE),
        (ANALYSED, [["ran", "declined"]], None),
        (ANALYSED, [["ran", "failed"]], None),
        (ANALYSED, [["ran", "failed"], ["ran", "ran"]], None),
        (PARTLY, [["ran", "ran"]], None),
        (NOT, [["declined", "declined"]], None),
        (NOT, [], None),
    ],
)
def test_a_study_is_routine_only_where_everything_due_ran(
    make_row: MakeRow, make_run: MakeRun, status: StudyStatus, runs: list[list[str]], expected: Priority | None
) -> None:
    rows = [
        make_row(detectors=tuple(make_run(how, name=name) for how, name in zip(each, ("a", "b"), strict=True)))
        for each in runs
    ]
    assert expected == priority_of(status, rows, [])


def test_the_same_lesion_in_two_series_is_one_finding_of_the_surest(
    make_row: MakeRow, make_finding: MakeFinding
) -> None:
    unsure = make_finding("1.1", (0.0, 0.0, 3.0), probability=0.6, volume_ml=9.0)
    sure = make_finding("1.2", (0.0, 0.0, 0.0), probability=0.95, volume_ml=11.0)
    (finding,) = merged([unsure, sure], [make_row("1.1"), make_row("1.2")])
    assert ("1.2", 11.0, (("1.1", 1),)) == (finding.series_instance_uid, finding.volume_ml, finding.also_seen_in)


@pytest.mark.parametrize(
    ("other", "frames"),
    [
        ({"at": (0.0, 0.0, 30.0)}, ("1.5", "1.5")),
        ({"kind": "fracture"}, ("1.5", "1.5")),
        ({}, ("1.5", "1.6")),
        ({}, (None, None)),
    ],
)
def test_another_place_kind_or_frame_of_reference_is_another_finding(
    make_row: MakeRow, make_finding: MakeFinding, make_grid: MakeGrid, other: dict[str, Any], frames: tuple[Any, Any]
) -> None:
    rows = [make_row(f"1.{n}", geometry=make_grid(frame=frame)) for n, frame in enumerate(frames, 1)]
    assert 2 == len(merged([make_finding("1.1"), make_finding("1.2", **other)], rows))


def test_findings_of_one_series_are_never_merged(make_row: MakeRow, make_finding: MakeFinding) -> None:
    assert 2 == len(merged([make_finding(), make_finding(at=(1.0, 0.0, 0.0))], [make_row()]))


def test_a_second_lesion_beside_a_large_one_does_not_vanish(make_row: MakeRow, make_finding: MakeFinding) -> None:
    large = make_finding("1.1", volume_ml=60.0, probability=0.99)
    again = make_finding("1.2", volume_ml=50.0, probability=0.98)
    beside = make_finding("1.2", (0.0, 0.0, 15.0), volume_ml=1.0, probability=0.7)
    found = merged([beside, again, large], [make_row("1.1"), make_row("1.2")])
    assert [("1.1", 60.0, (("1.2", 1),)), ("1.2", 1.0, ())] == [
        (f.series_instance_uid, f.volume_ml, f.also_seen_in) for f in found
    ]


def test_findings_are_listed_surest_first(make_row: MakeRow, make_finding: MakeFinding) -> None:
    findings = [make_finding(at=(0.0, 0.0, 40.0 * n), probability=p) for n, p in enumerate((0.2, 0.9, 0.5))]
    ordered = [f.probability for f in merged(findings, [make_row()])]
    assert [0.9, 0.5, 0.2] == ordered
    assert ordered == [f.probability for f in merged(findings[::-1], [make_row()])]


def test_a_fracture_without_a_volume_is_merged_by_its_place(make_row: MakeRow, make_finding: MakeFinding) -> None:
    one = make_finding("1.1", kind="fracture", volume_ml=None)
    other = replace(one, series_instance_uid="1.2", centroid_lps_mm=(0.0, 4.9, 0.0))
    assert 1 == len(merged([one, other], [make_row("1.1"), make_row("1.2")]))
