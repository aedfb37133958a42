"""A path unrolled must keep its length, its tissue and its way back into the patient."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial import KDTree

from reconstruction.curved import SPINE, Curved, Look, curved
from reconstruction.errors import ImpossibleView
from reconstruction.geometry import Geometry, Points
from reconstruction.oblique import Plane, oblique
from reconstruction.planes import Slab
from reconstruction.resample import OUTSIDE_HU
from reconstruction.volume import Volume

SIDE = 72
BONE = 600


def grid(shear: float = 0.0) -> Geometry:
    """Cubes of 1 mm about the patient's zero, slices drifting backwards by ``shear``."""
    affine = np.array([[0, 0, 1.0, 0], [shear, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    affine[:3, 3] = -affine[:3, :3] @ np.full(3, (SIDE - 1) / 2.0)
    return Geometry(affine=affine, shape=(SIDE, SIDE, SIDE))


def places(geometry: Geometry) -> Points:
    return geometry.to_mm(np.stack(np.meshgrid(*[np.arange(n) for n in geometry.shape], indexing="ij"), axis=-1))


def tube(path: Points, geometry: Geometry, marks: Points, *, radius_mm: float = 5.0) -> Volume:
    """Soft edges, so that a border can be measured to a part of a voxel; brighter balls at ``marks``."""
    where = places(geometry).reshape(-1, 3)
    near, _ = KDTree(path).query(where, distance_upper_bound=radius_mm + 1.0)
    hu = np.clip(radius_mm - near + 0.5, 0, 1) * BONE
    for each in marks:
        hu += np.clip(3.0 - np.linalg.norm(where - each, axis=1) + 0.5, 0, 1) * BONE
    return Volume(hu=np.rint(hu).astype(np.int16).reshape(geometry.shape), geometry=geometry)


def centre_of(weights: npt.NDArray[np.float64]) -> float:
    return float(np.arange(len(weights)) @ weights / weights.sum())


def helix(turns: Points, *, radius_mm: float = 16.0, rise_mm: float = 36.0) -> Points:
    angle = turns * 2 * math.pi
    return np.column_stack([radius_mm * np.cos(angle), radius_mm * np.sin(angle), rise_mm * (turns - 0.5)])


def arc(share: Points) -> Points:
    """Three quarters of half a circle in the sagittal plane, as a spine's or an aorta's bend."""
    angle = (share - 0.5) * 0.75 * math.pi
    return np.column_stack([np.full(len(share), 1.5), 26 * np.cos(angle) - 12, 26 * np.sin(angle)])


@pytest.mark.parametrize("shear", [0.0, 0.25])
def test_a_helical_tube_comes_out_straight_and_as_long_as_it_is(shear: float) -> None:
    ends = np.array([0.1, 0.9])
    volume = tube(helix(np.linspace(0.02, 0.98, 400)), grid(shear), helix(ends), radius_mm=4.0)
    result = curved(volume, helix(np.linspace(0.04, 0.96, 14)), look=Look(width_mm=30))
    true_mm = math.hypot(2 * math.pi * 16, 36)
    assert_allclose(result.length_mm, 0.92 * true_mm, atol=0.5)
    bright = np.clip(result.hu.astype(float) - BONE, 0, None)
    along = bright.sum(axis=1)
    half = len(along) // 2
    apart = (half + centre_of(along[half:]) - centre_of(along[:half])) * result.pixel_mm
    assert_allclose(0.8 * true_mm, apart, atol=0.5)
    inside = np.clip(result.hu[10:-10].astype(float), 0, BONE)
    assert_allclose([centre_of(row) for row in inside], result.path_columns[10:-10], atol=0.5)
    assert_allclose(inside.sum(axis=1) / BONE * result.pixel_mm, 8.0, atol=1.0)


def test_an_arc_is_unrolled_to_its_length_from_the_head_down() -> None:
    volume = tube(arc(np.linspace(0.02, 0.98, 300)), grid(), arc(np.array([0.15, 0.85])))
    for look in (SPINE, Look(across=(1, 0, 0)), Look(across=(-1, 0, 0)), Look()):
        result = curved(volume, arc(np.linspace(0.05, 0.95, 9)), look=look)
        along = np.clip(result.hu.astype(float) - BONE, 0, None).sum(axis=1)
        half = len(along) // 2
        apart = (half + centre_of(along[half:]) - centre_of(along[:half])) * result.pixel_mm
        assert_allclose(0.7 * 0.75 * math.pi * 26, apart, atol=0.5)
        assert_allclose(result.across, [[1, 0, 0]] * len(along), atol=1e-6)
        assert result.path_lps_mm[0, 2] > result.path_lps_mm[-1, 2]
        assert result.arc_mm[0] == pytest.approx(result.length_mm, abs=1.0)
        assert result.least_bend_mm == pytest.approx(26, rel=0.05)


_PLACES = st.tuples(*[st.floats(-25, 25)] * 3)


@settings(max_examples=30, deadline=None)
@given(_PLACES, _PLACES, st.floats(-0.3, 0.3), st.sampled_from([0.0, 4.0]))
def test_a_straight_path_is_the_oblique_plane(
    one: tuple[float, ...], other: tuple[float, ...], shear: float, thickness_mm: float
) -> None:
    first, last = np.array(one), np.array(other)
    if np.linalg.norm(last - first) < 5 or np.abs(last - first)[0] > 0.9 * np.linalg.norm(last - first):
        return
    geometry = grid(shear)
    hu = np.random.default_rng(1).integers(-500, 500, geometry.shape, dtype=np.int16)
    volume = Volume(hu=hu, geometry=geometry)
    if (np.abs(geometry.to_index([first, last]) - (SIDE - 1) / 2) > SIDE / 2 - 1).any():
        return
    points = [first, first + 0.3 * (last - first), last]
    look = Look(across=(1, 0, 0), width_mm=20, pixel_mm=0.8, thickness_mm=thickness_mm)
    result = curved(volume, points, look=look)
    plane = Plane(
        centre_lps_mm=result.to_mm((len(result.hu) - 1) / 2, 12.0),
        row_direction=result.across[0],
        column_direction=result.path_lps_mm[-1] - result.path_lps_mm[0],
    )
    slab = Slab(thickness_mm=thickness_mm, count=1)
    flat = oblique(volume, plane, pixel_mm=0.8, size_mm=(0.8 * len(result.hu), 20.0), slab=slab)
    assert_allclose(flat.hu[0], result.hu, atol=1)


def test_every_pixel_finds_its_way_back_into_the_patient() -> None:
    geometry = grid()
    ramp = np.rint(places(geometry) @ np.array([30.0, 20.0, 10.0])).astype(np.int16)
    for look in (Look(width_mm=20), Look(width_mm=20, unrolling="stretched")):
        result = curved(Volume(hu=ramp, geometry=geometry), helix(np.linspace(0.1, 0.4, 7)), look=look)
        for row, column in ((0, 0), (7, 11), (len(result.hu) - 1, 19)):
            expected = result.to_mm(row, column) @ np.array([30.0, 20.0, 10.0])
            assert abs(float(result.hu[row, column]) - expected) <= 1.01
        for row in (0, 5, len(result.hu) - 1):
            assert_allclose(result.path_lps_mm[row], result.to_mm(row, float(result.path_columns[row])), atol=1e-9)


def test_a_stretched_picture_keeps_the_length_of_a_path_that_wanders_sideways() -> None:
    volume = Volume(hu=np.zeros((SIDE,) * 3, dtype=np.int16), geometry=grid())
    result = curved(volume, helix(np.linspace(0.3, 0.6, 12)), look=Look(unrolling="stretched", width_mm=60))
    drawn = np.hypot(np.diff(result.path_columns), 1.0).sum() * result.pixel_mm
    assert_allclose(0.3 * math.hypot(2 * math.pi * 16, 36), drawn, atol=1.0)


def turning(result: Curved) -> float:
    """How far the rows' direction turns about the path from row to row, summed (radians)."""
    tangents = np.gradient(result.path_lps_mm, axis=0)
    tangents /= np.linalg.norm(tangents, axis=1)[:, None]
    change = np.diff(result.across, axis=0)
    return float(np.abs((np.cross(tangents[:-1], result.across[:-1]) * change).sum(axis=1)).sum())


def test_rows_turn_round_the_path_only_where_asked() -> None:
    volume = Volume(hu=np.zeros((SIDE,) * 3, dtype=np.int16), geometry=grid())
    points = helix(np.linspace(0.1, 0.9, 20))
    assert turning(curved(volume, points)) < 0.05
    assert turning(curved(volume, points, look=Look(across=(0, 0, 1)))) > 1.0


def test_a_path_from_side_to_side_has_the_head_on_one_side_of_its_rows() -> None:
    volume = Volume(hu=np.zeros((SIDE,) * 3, dtype=np.int16), geometry=grid())
    result = curved(volume, [(20, 0, 0), (0, -10, 0), (-20, 0, 0)], look=SPINE)
    assert_array_equal([0, 0, -1], result.across[0])
    assert result.path_lps_mm[0, 0] < result.path_lps_mm[-1, 0]


def test_rows_stand_across_a_ring() -> None:
    volume = Volume(hu=np.zeros((SIDE,) * 3, dtype=np.int16), geometry=grid())
    turn = np.linspace(0, 2 * np.pi, 20)
    ring = np.column_stack([15 * np.cos(turn), 15 * np.sin(turn), np.full(20, 3.0)])
    result = curved(volume, ring)
    assert_allclose(result.across, np.tile([0, 0, -1], (len(result.hu), 1)), atol=1e-6)
    assert 2 * math.pi * 15 == pytest.approx(result.length_mm, abs=0.5)


def test_what_is_outside_counts_for_nothing() -> None:
    geometry = grid()
    outside = places(geometry)[..., 0] > 5
    hu = np.where(outside, OUTSIDE_HU, 30).astype(np.int16)
    look = Look(width_mm=30, thickness_mm=5, projection="minip")
    result = curved(Volume(hu=hu, geometry=geometry), [(0, 0, -20), (0, 3, 0), (0, 0, 20)], look=look, outside=outside)
    assert {30, OUTSIDE_HU} == set(result.hu.ravel().tolist())


@pytest.mark.parametrize(
    ("points", "why"),
    [
        ([(0, 0, 0)], "2 to"),
        ([], "three numbers"),
        ([(0, 0, 0), (0, 0, np.nan)], "three numbers"),
        ([(0, 0), (1, 1)], "three numbers"),
        ("spine", "three numbers"),
        ([(0, 0, 0), (0, 0, 9), (0, 0, 9), (0, 9, 9)], "points 2 and 3"),
        ([(0, 0, 0), (0, 0, 90)], "point 2 of the path lies outside"),
        ([(0, 0, 0), (0, 0, 20), (0, 0, 5)], "doubles back"),
        ([(0, 0, 0), (0, 0, 0.4)], "shorter than a pixel"),
    ],
)
def test_a_path_that_is_none_is_refused(points: npt.ArrayLike, why: str) -> None:
    volume = Volume(hu=np.zeros((SIDE,) * 3, dtype=np.int16), geometry=grid())
    with pytest.raises(ImpossibleView, match=why):
        curved(volume, points, look=Look(through="lines"))


def test_looks_that_cannot_be_are_refused() -> None:
    volume = Volume(hu=np.zeros((SIDE,) * 3, dtype=np.int16), geometry=grid())
    up: list[tuple[float, float, float]] = [(0, 0, -20), (0, 0, 20)]
    for look in (Look(across=(0, 0, 1)), Look(across=(0, 0, 1), unrolling="stretched")):
        with pytest.raises(ImpossibleView, match="choose another"):
            curved(volume, up, look=look)
    with pytest.raises(ImpossibleView, match="no length"):
        curved(volume, up, look=Look(across=(0, 0, 0)))
    with pytest.raises(ImpossibleView, match="larger pixels"):
        curved(volume, up, look=Look(pixel_mm=0.001))
    with pytest.raises(ImpossibleView, match="wider"):
        curved(volume, up, look=Look(width_mm=1e6))
    for wrong in (
        {"width_mm": 0.0},
        {"pixel_mm": -1.0},
        {"unrolling": "flat"},
        {"through": "air"},
        {"thickness_mm": -1},
    ):
        with pytest.raises(ImpossibleView):
            Look(**wrong)
