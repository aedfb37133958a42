"""Slices become the stacks they belong to, whatever order they came in; what cannot be placed is refused by name."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from reconstruction.errors import NotAVolume, NotDicom
from reconstruction.headers import Header, Vector3, read_header
from reconstruction.slices import Refused, Stack, stack_of, stacks_of

Result = Stack | Refused
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)


def ct_slice(number: int, z_mm: float, **changes: Any) -> Header:
    """Return the header of one axial slice of an ordinary series."""
    header = Header(
        sop_instance_uid=f"1.2.{number:04d}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        series_instance_uid="1.9",
        modality="CT",
        instance_number=number,
        rows=64,
        columns=64,
        orientation=AXIAL,
        position_mm=(-10.0, -20.0, z_mm),
        pixel_spacing_mm=(0.5, 0.5),
        frame_of_reference_uid="1.5",
        slice_thickness_mm=5.0,
    )
    return replace(header, **changes)


def series(*positions: float, first: int = 1, **changes: Any) -> list[Header]:
    return [ct_slice(number, z, **changes) for number, z in enumerate(positions, first)]


def even(count: int = 5, *, step: float = 5.0, first: int = 1, **changes: Any) -> list[Header]:
    return series(*[n * step for n in range(count)], first=first, **changes)


def turned(headers: Sequence[Header], turn: Any, *, tilt_deg: float = 0.0) -> list[Header]:
    """Turn a whole series in space; with a tilt, the slices drift along their columns."""
    drift = math.tan(math.radians(tilt_deg))
    result = []
    for header in headers:
        assert header.position_mm is not None
        x, y, z = header.position_mm
        position = tuple((turn @ [x, y + z * drift, z]).tolist())
        orientation = (*(turn @ AXIAL[:3]).tolist(), *(turn @ AXIAL[3:]).tolist())
        result.append(replace(header, position_mm=position, orientation=orientation))
    return result


def about_x_and_z(a: float, b: float) -> Any:
    about_x = np.array([[1, 0, 0], [0, math.cos(a), -math.sin(a)], [0, math.sin(a), math.cos(a)]])
    about_z = np.array([[math.cos(b), -math.sin(b), 0], [math.sin(b), math.cos(b), 0], [0, 0, 1]])
    return about_x @ about_z


def only_stack(results: Sequence[Result]) -> Stack:
    """Return the one stack of a series in which nothing was refused."""
    (stack,) = results
    assert isinstance(stack, Stack), stack
    return stack


def told(results: Sequence[Result]) -> list[tuple[str, tuple[int | None, ...], Any]]:
    """What came out, in order: which instances in which order, and why refused or how uneven."""
    return [
        (type(r).__name__, tuple(h.instance_number for h in r.headers), r.gaps_mm if isinstance(r, Stack) else r.reason)
        for r in results
    ]


def parts(results: Sequence[Result]) -> tuple[list[Stack], list[Refused]]:
    return [r for r in results if isinstance(r, Stack)], [r for r in results if isinstance(r, Refused)]


MIXED_SERIES = [
    *even(6),
    *even(4, first=20, kernel="B70"),
    *even(3, first=30, frame_of_reference_uid="1.6"),
    *series(0.0, 5.0, 10.0, 15.0, first=40, kernel="dyn", acquisition_number=1),
    *series(0.0, 5.0, 10.0, 15.0, first=50, kernel="dyn", acquisition_number=2),
    ct_slice(60, 12.0, position_mm=None),
    ct_slice(61, 12.0, pixel_spacing_mm=(math.nan, 1.0)),
    ct_slice(62, 12.0, orientation=CORONAL),
]


@settings(max_examples=50)
@given(headers=st.permutations(MIXED_SERIES))
def test_the_order_in_which_slices_arrive_does_not_matter(headers: list[Header]) -> None:
    expected, actual = stacks_of(MIXED_SERIES), stacks_of(headers)
    assert told(expected) == told(actual)
    for one, other in zip(parts(expected)[0], parts(actual)[0], strict=True):
        np.testing.assert_array_equal(one.geometry.affine, other.geometry.affine)


@given(headers=st.permutations(MIXED_SERIES), dropped=st.integers(0, 20))
def test_every_slice_ends_in_exactly_one_place(headers: list[Header], dropped: int) -> None:
    given_headers = headers[dropped:]
    placed = [h.sop_instance_uid for r in stacks_of(given_headers) for h in r.headers]
    assert sorted(h.sop_instance_uid for h in given_headers) == sorted(placed)


@given(a=st.floats(-3.0, 3.0), b=st.floats(-3.0, 3.0), tilt_deg=st.floats(-30.0, 30.0), step=st.floats(0.3, 10.0))
def test_a_gantry_tilted_by_x_degrees_leaves_the_normal_by_x(a: float, b: float, tilt_deg: float, step: float) -> None:
    stack = only_stack(stacks_of(turned(even(7, step=step), about_x_and_z(a, b), tilt_deg=tilt_deg)))
    assert abs(tilt_deg) == pytest.approx(stack.geometry.tilt_deg, abs=1e-6)
    assert step == pytest.approx(stack.geometry.slice_step_mm)
    assert (7, 64, 64) == stack.geometry.shape
    for k, header in enumerate(stack.headers):
        assert header.position_mm is not None
        assert_allclose(stack.geometry.to_mm((k, 0, 0)), header.position_mm, atol=1e-6)


def test_a_stack_is_ordered_along_its_normal_whichever_way_it_was_numbered() -> None:
    stack = only_stack(stacks_of(series(20.0, 15.0, 10.0, 5.0)))
    assert [4, 3, 2, 1] == [h.instance_number for h in stack.headers]
    assert (0.0, 5.0, 10.0, 15.0) == stack.slice_positions_mm
    assert [-10.0, -20.0, 5.0] == stack.geometry.to_mm((0, 0, 0)).tolist()


def test_feet_first_images_grow_along_their_own_normal() -> None:
    stack = only_stack(stacks_of(even(4, orientation=(-1.0, 0.0, 0.0, 0.0, 1.0, 0.0))))
    assert [4, 3, 2, 1] == [h.instance_number for h in stack.headers]
    assert [0.0, 0.0, -1.0] == stack.geometry.normal.tolist()


def test_pixels_need_not_be_square() -> None:
    stack = only_stack(stacks_of(even(3, pixel_spacing_mm=(0.75, 0.5))))
    assert [-9.5, -18.5, 0.0] == stack.geometry.to_mm((0, 2, 1)).tolist()
    assert (5.0, 0.75, 0.5) == stack.geometry.spacing_mm


@pytest.mark.parametrize(
    ("positions", "nominal", "gaps"),
    [
        ((0.0, 5.0, 10.0, 15.0), 5.0, ()),
        ((0.0, 5.0, 15.0, 20.0), 5.0, (10.0,)),
        ((0.0, 4.0, 11.0), 4.0, (7.0,)),  # a tie: the smaller is the nominal
        ((0.0, 7.0, 11.0), 4.0, (7.0,)),
        ((0.0, 0.625, 1.25, 2.5, 3.125), 0.625, (1.25,)),  # gaps are rounded, the step is not
        ((0.0, 5.0, 10.0, 13.0, 16.0), 3.0, (5.0, 5.0)),
        ((0.0, 1.0, 2.0, 3.02), None, ()),  # 0.02 mm is the least tolerance
        ((0.0, 1.0, 2.0, 3.03), 1.0, (1.03,)),
        ((0.0, 5.0, 10.0, 15.05), None, ()),  # 1 % of 5 mm
        ((0.0, 5.0, 10.0, 15.06), 5.0, (5.06,)),
        ((0.0, 5.0, 10.0, 12.0, 22.0), 5.0, (2.0, 10.0)),
    ],
)
def test_gaps_differ_from_the_commonest_distance(
    positions: tuple[float, ...], nominal: float | None, gaps: tuple[float, ...]
) -> None:
    stack = only_stack(stacks_of(series(*positions)))
    assert gaps == stack.gaps_mm
    assert (not gaps) == stack.even
    mean = positions[-1] / (len(positions) - 1)
    assert pytest.approx(mean if nominal is None else nominal) == stack.nominal_step_mm
    assert pytest.approx(stack.nominal_step_mm) == stack.geometry.slice_step_mm


def test_a_missing_slice_is_noted() -> None:
    headers = even(8)
    stack = only_stack(stacks_of(headers[:3] + headers[5:]))
    assert ("2 slice(s) seem to be missing: 1 gap(s) of a multiple of 5 mm",) == stack.notes


def test_uneven_distances_are_noted_and_never_split_a_stack() -> None:
    stack = only_stack(stacks_of(series(0.0, 4.0, 8.0, 15.0, 22.0, 23.1, 27.1, 31.1)))
    assert ("slices are unevenly spaced: 3 of the distances differ from 4 mm",) == stack.notes


def test_one_near_pair_at_the_seam_of_two_rotations_stays_in_its_stack() -> None:
    headers = series(0.0, 5.0, 10.0, acquisition_number=1) + series(10.05, 15.05, 20.05, first=4, acquisition_number=2)
    assert (0.05,) == only_stack(stacks_of(headers)).gaps_mm


@pytest.mark.parametrize("attribute", ["acquisition_number", "acquisition_time"])
@pytest.mark.parametrize("shift", [0.0, 0.004, 0.05])
def test_a_second_pass_over_the_same_range_is_a_second_stack(attribute: str, shift: float) -> None:
    first = even(5, **{attribute: 1})
    second = series(*[shift + 5.0 * n for n in range(5)], first=6, **{attribute: 2})
    expected = [("Stack", (1, 2, 3, 4, 5), ()), ("Stack", (6, 7, 8, 9, 10), ())]
    assert expected == told(stacks_of([*second, *first]))


def test_positions_on_the_edge_of_rounding_still_repeat() -> None:
    first = series(*[0.625 * n + 0.005 for n in range(6)], acquisition_number=1)
    second = series(*[0.625 * n + 0.0050001 for n in range(6)], first=7, acquisition_number=2)
    assert [6, 6] == [len(r.headers) for r in stacks_of(first + second)]


def test_repeats_without_acquisition_or_time_are_parted_by_their_order() -> None:
    headers = even(4) + even(4, first=5)
    assert [("Stack", (1, 2, 3, 4), ()), ("Stack", (5, 6, 7, 8), ())] == told(stacks_of(headers))


def test_a_step_and_shoot_head_scanned_twice_is_two_stacks() -> None:
    once = [ct_slice(n + 1, 5.0 * n, acquisition_number=n // 2) for n in range(6)]
    again = [ct_slice(n + 11, 5.0 * n, acquisition_number=9 + n // 2) for n in range(6)]
    assert [(1, 2, 3, 4, 5, 6), (11, 12, 13, 14, 15, 16)] == [which for _, which, _ in told(stacks_of(once + again))]


def test_acquisition_numbers_alone_never_split() -> None:
    headers = [ct_slice(n + 1, 5.0 * n, acquisition_number=n, acquisition_time=str(n)) for n in range(9)]
    assert (9, 64, 64) == only_stack(stacks_of(headers)).geometry.shape


def test_fewer_than_three_repeated_slices_are_set_aside_as_repeats() -> None:
    stack, aside = stacks_of(even(5) + series(5.0, 10.0, first=6))
    assert isinstance(stack, Stack)
    assert 5 == len(stack.headers)
    assert isinstance(aside, Refused)
    assert (True, "2 slice(s) repeat positions of another stack of this series") == (aside.repeats, aside.reason)


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("frame_of_reference_uid", "1.6"),
        ("frame_of_reference_uid", None),
        ("orientation", CORONAL),
        ("rows", 32),
        ("columns", 32),
        ("pixel_spacing_mm", (0.6, 0.6)),
        ("kernel", "B70"),
        ("kvp", 80.0),
        ("rescale_type", "US"),
        ("temporal_position", 2),
        ("stack_id", "2"),
        ("frame", 1),
        ("image_type", ("DERIVED", "SECONDARY", "AXIAL", "VMI_40KEV")),
    ],
)
def test_what_differs_in_kind_is_another_stack(attribute: str, value: Any) -> None:
    others: list[Header] = []
    for n, header in enumerate(even(4, first=11)):
        position = (-10.0, 5.0 * n, 0.0) if value == CORONAL else header.position_mm
        others.append(replace(header, **{"position_mm": position, attribute: value}))
    stacks, refused = parts(stacks_of(even(4) + others))
    assert ([4, 4], []) == ([len(s.headers) for s in stacks], refused)


@pytest.mark.parametrize(
    "changes",
    [
        {"orientation": CORONAL},
        {"rows": 32},
        {"kernel": "B70"},
        {"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")},
    ],
)
def test_one_odd_slice_stands_apart_and_the_rest_is_read(changes: dict[str, Any]) -> None:
    (stack,), (odd,) = parts(stacks_of([*even(6), ct_slice(9, 12.0, **changes)]))
    assert (6, (9,)) == (len(stack.headers), tuple(h.instance_number for h in odd.headers))
    assert "1 slice(s): fewer than 3 are no volume" == odd.reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"position_mm": None}, "a slice has no Image Position (Patient)"),
        ({"position_mm": (0.0, math.nan, 0.0)}, "a slice's Image Position (Patient) holds values that are no numbers"),
        ({"position_mm": (0.0, 0.0, math.inf)}, "a slice's Image Position (Patient) holds values that are no numbers"),
        ({"orientation": None}, "a slice has no Image Orientation (Patient)"),
        ({"orientation": (math.nan,) * 6}, "the Image Orientation (Patient) is no rotation"),
        ({"orientation": (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)}, "the Image Orientation (Patient) is no rotation"),
        ({"orientation": (2.0, 0.0, 0.0, 0.0, 1.0, 0.0)}, "the Image Orientation (Patient) is no rotation"),
        ({"orientation": (0.0,) * 6}, "the Image Orientation (Patient) is no rotation"),
        ({"pixel_spacing_mm": None}, "a slice has no Pixel Spacing"),
        ({"pixel_spacing_mm": (math.nan, 0.5)}, "a Pixel Spacing of nan x 0.5 mm is none"),
        ({"pixel_spacing_mm": (0.0, 0.5)}, "a Pixel Spacing of 0 x 0.5 mm is none"),
        ({"pixel_spacing_mm": (-0.5, 0.5)}, "a Pixel Spacing of -0.5 x 0.5 mm is none"),
        ({"pixel_spacing_mm": (1e5, 0.5)}, "a Pixel Spacing of 100000 x 0.5 mm is too wide for a patient"),
    ],
)
@pytest.mark.parametrize("count", [1, 4])
def test_slices_without_a_usable_place_are_refused_by_name_and_the_rest_is_read(
    changes: dict[str, Any], reason: str, count: int
) -> None:
    damaged = [ct_slice(10 + n, 12.0 + n, **changes) for n in range(count)]
    (stack,), (refused,) = parts(stacks_of([*even(6), *damaged]))
    assert (6, count, reason) == (len(stack.headers), len(refused.headers), refused.reason)
    assert not refused.repeats


def test_damaged_slices_are_told_apart_by_what_they_lack() -> None:
    headers = [*even(3), ct_slice(7, 0.0, position_mm=None), ct_slice(8, 0.0, pixel_spacing_mm=None)]
    assert ["a slice has no Image Position (Patient)", "a slice has no Pixel Spacing"] == [
        r.reason for r in parts(stacks_of(headers))[1]
    ]


@pytest.mark.parametrize("value", [math.nan, None])
def test_an_unreadable_voltage_does_not_scatter_a_series(value: float | None) -> None:
    assert 5 == len(only_stack(stacks_of([replace(h, kvp=value) for h in even(5)])).headers)


def test_rounding_of_directions_and_spacings_does_not_scatter_a_series() -> None:
    headers = even(5)
    headers[2] = replace(headers[2], orientation=(1.0, 0.0, 4e-4, 0.0, 1.0, 0.0), pixel_spacing_mm=(0.50005, 0.5))
    assert 5 == len(only_stack(stacks_of(headers)).headers)


def test_frames_of_reference_that_differ_in_every_slice_are_taken_as_not_stated() -> None:
    stack = only_stack(stacks_of([replace(h, frame_of_reference_uid=f"1.{n}") for n, h in enumerate(even(4))]))
    assert stack.geometry.frame_of_reference_uid is None
    assert ("every slice names a frame of reference of its own; it is taken as not stated",) == stack.notes


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        (even(1), "1 slice(s): fewer than 3 are no volume"),
        (even(2), "2 slice(s): fewer than 3 are no volume"),
        (series(1.0, 1.0, 1.0), "all 3 slices lie at the same position"),
        (series(1.0, 1.0, 2.0, 2.0), "only 2 slice positions: fewer than 3 are no volume"),
        (series(0.0, 5.0, 5000.0), "slices lie up to 5000 mm apart; no patient is that long"),
        ([*even(3), ct_slice(4, 15.0, position_mm=(0.0, -20.0, 15.0))], "slices are shifted sideways against"),
    ],
)
def test_slices_that_form_no_volume_are_refused(headers: list[Header], reason: str) -> None:
    (refused,) = stacks_of(headers)
    assert isinstance(refused, Refused)
    assert refused.reason.startswith(reason)


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (ct_slice(9, 15.0, orientation=CORONAL), "slices of different orientation or pixel spacing"),
        (ct_slice(9, 15.0, pixel_spacing_mm=(0.6, 0.6)), "slices of different orientation or pixel spacing"),
        (ct_slice(9, 15.0, rows=32), "slices of different matrix sizes"),
        (ct_slice(9, 15.0, frame_of_reference_uid=None), "slices of different frames of reference"),
        (ct_slice(9, 15.0, position_mm=None), "a slice has no Image Position (Patient)"),
        (ct_slice(9, 10.004), "several slices lie at the same position"),
    ],
)
def test_slices_declared_one_stack_must_be_one(odd: Header, reason: str) -> None:
    with pytest.raises(NotAVolume) as refused:
        stack_of([*even(3), odd])
    assert reason == refused.value.reason


NAMELESS = "1 slice(s) name no frame of reference; the one of the series is taken"


def test_the_one_slice_that_names_no_frame_of_reference_lies_in_that_of_its_series() -> None:
    headers = even(6)
    headers[2] = replace(headers[2], frame_of_reference_uid=None)
    stack = only_stack(stacks_of(headers))
    assert (6, "1.5", (NAMELESS,)) == (len(stack.headers), stack.geometry.frame_of_reference_uid, stack.notes)
    assert () == stack_of(stack.headers).notes


@pytest.mark.parametrize(
    "nameless",
    [
        even(3, first=11, frame_of_reference_uid=None),  # places that the others have: a second pass
        series(100.0, 105.0, 110.0, 115.0, 120.0, 125.0, first=11, frame_of_reference_uid=None),  # as many as named
    ],
)
def test_a_missing_frame_of_reference_joins_no_two_passes_and_no_two_ranges(nameless: list[Header]) -> None:
    stacks, refused = parts(stacks_of([*even(6), *nameless]))
    assert ([6, len(nameless)], []) == ([len(s.headers) for s in stacks], refused)
    assert {"1.5", None} == {s.geometry.frame_of_reference_uid for s in stacks}


def test_a_nameless_slice_between_two_frames_of_reference_joins_neither() -> None:
    headers = [*even(4), *even(4, first=11, frame_of_reference_uid="1.6"), ct_slice(30, 7.0)]
    headers[-1] = replace(headers[-1], frame_of_reference_uid=None)
    stacks, (refused,) = parts(stacks_of(headers))
    assert ([4, 4], (30,)) == ([len(s.headers) for s in stacks], tuple(h.instance_number for h in refused.headers))


@pytest.mark.parametrize(
    ("position", "reason"),
    [
        ((-10.0, 5.0, 15.0), "1 slice(s) lie away from the line of the others, by up to 25.0 mm"),
        ((-10.0, -20.0, 4500.0), "1 slice(s) lie away from the line of the others, by up to 4470.0 mm"),
        ((-10.0, -20.0, 1e30), "a slice's Image Position (Patient) lies more than 10 m from the origin"),
    ],
)
def test_one_damaged_position_does_not_hide_the_other_slices(position: Vector3, reason: str) -> None:
    headers = even(11)
    headers[3] = replace(headers[3], position_mm=position)
    (stack,), (stray,) = parts(stacks_of(headers))
    assert (10, (10.0,)) == (len(stack.headers), stack.gaps_mm)
    assert ((4,), reason) == (tuple(h.instance_number for h in stray.headers), stray.reason)


def test_a_table_that_moved_halfway_is_no_few_strays() -> None:
    headers = [replace(h, position_mm=(30.0 * (n > 4), -20.0, 5.0 * n)) for n, h in enumerate(even(10))]
    (refused,) = stacks_of(headers)
    assert isinstance(refused, Refused)
    assert "slices are shifted sideways against each other, by up to 13.3 mm" == refused.reason


def test_slices_that_all_lie_in_planes_of_their_own_are_refused_together() -> None:
    headers = [ct_slice(n, 0.0, orientation=(math.cos(n / 9), math.sin(n / 9), 0.0, 0.0, 0.0, -1.0)) for n in range(9)]
    (refused,) = stacks_of(headers)
    assert isinstance(refused, Refused)
    assert (9, "slices of different orientation or pixel spacing") == (len(refused.headers), refused.reason)


def test_small_differences_that_add_up_make_a_stack_uneven() -> None:
    steps = [5.0] * 50 + [5.04] * 50
    stack = only_stack(stacks_of(series(*np.cumsum(steps).tolist())))
    assert ((), False) == (stack.gaps_mm, stack.even)
    assert ("small differences of the slice distances add up to 0.99 mm",) == stack.notes


@given(order=st.permutations(range(6)))
def test_frames_of_one_instance_have_one_order(order: list[int]) -> None:
    frames = [ct_slice(1, 5.0 * n, sop_instance_uid="1.2.3", frame=n + 1) for n in range(6)]
    twice = [*frames, *(replace(h, frame=10 + n) for n, h in enumerate(frames))]
    expected, actual = stacks_of(twice), stacks_of([twice[n] for n in (*order, *(n + 6 for n in order))])
    assert [[h.frame for h in r.headers] for r in expected] == [[h.frame for h in r.headers] for r in actual]


def test_nothing_gives_nothing() -> None:
    assert () == stacks_of([])


@pytest.fixture(scope="module")
def real(shared_data: Path) -> Callable[[str], list[Header]]:
    """Return a reader of all instances of a folder of real scans."""

    def read(folder: str) -> list[Header]:
        headers = []
        for path in sorted((shared_data / folder).iterdir()):
            try:
                headers.append(read_header(path))
            except NotDicom as foreign:
                assert foreign.is_foreign  # noqa: PT017 - a DICOMDIR or a README among the scans
        return headers

    return read


Real = Callable[[str], list[Header]]


@pytest.mark.parametrize(
    ("folder", "slices", "tilt_deg", "nominal", "gaps"),
    [
        ("head_normal_3mm", 53, 7.4, 2.975, ()),
        ("head_ge_tilted", 28, 18.5, 4.0, (1.08, *[7.0] * 13)),
        ("head_phantom_philips/brain_5mm", 28, 0.0, 5.0, ()),
        ("head_phantom_philips/bone_1mm", 70, 0.0, 1.0, ()),
        ("head_phantom_philips/tilt_minus_18", 54, 18.5, 2.371, ()),
        ("head_phantom_philips/tilt_plus_16", 20, 16.5, 2.397, ()),
        ("chest_1mm", 80, 0.0, 1.0, ()),
        ("abdomen_ge_revolution", 35, 0.0, 5.0, ()),
        ("geometry_faults/gantrytilting/001", 4, 14.0, 4.851, ()),
        ("geometry_faults/sliceincrement/001", 4, 0.0, 5.0, (10.0,)),
        ("geometry_faults/sliceincrement/002", 4, 15.5, 0.75, (1.5,)),
    ],
)
def test_real_series_are_one_stack_each(  # the columns of the table
    real: Real, folder: str, slices: int, tilt_deg: float, nominal: float, gaps: tuple[float, ...]
) -> None:
    stack = only_stack(stacks_of(real(folder)))
    assert slices == len(stack.headers)
    assert tilt_deg == pytest.approx(stack.geometry.tilt_deg, abs=0.001)
    assert nominal == pytest.approx(stack.nominal_step_mm, abs=0.003)
    assert gaps == stack.gaps_mm


@pytest.mark.parametrize(("folder", "signed"), [("tilt_minus_18", -18.5), ("tilt_plus_16", 16.5)])
def test_the_real_tilt_is_the_one_the_gantry_states(real: Real, folder: str, signed: float) -> None:
    stack = only_stack(stacks_of(real(f"head_phantom_philips/{folder}")))
    assert {signed} == {h.tilt_tag_deg for h in stack.headers}
    assert abs(signed) == pytest.approx(stack.geometry.tilt_deg, abs=0.001)


def test_the_real_step_and_shoot_head_has_many_acquisitions_in_one_stack(real: Real) -> None:
    stack = only_stack(stacks_of(real("head_ge_tilted")))
    assert 21 == len({h.acquisition_number for h in stack.headers})


def test_the_real_chest_names_a_frame_of_reference_in_every_slice(real: Real) -> None:
    assert only_stack(stacks_of(real("chest_1mm"))).geometry.frame_of_reference_uid is None


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("notavolume/001", "all 4 slices lie at the same position"),
        ("slicecount/001", "2 slice(s): fewer than 3 are no volume"),
        ("sliceorientation/001", "slices of different orientation or pixel spacing"),
    ],
)
def test_real_faulty_sets_are_refused(real: Real, folder: str, reason: str) -> None:
    with pytest.raises(NotAVolume) as refused:
        stack_of(real(f"geometry_faults/{folder}"))
    assert reason == refused.value.reason
