"""A pattern known in millimetres must come back in its place, however it was sliced."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from reconstruction.errors import NotAVolume
from reconstruction.geometry import Geometry, Points
from reconstruction.resample import (
    OUTSIDE_HU,
    region_centroid_lps_mm,
    region_volume_ml,
    regularise,
    slice_points_mm,
    slice_shares_mm,
    to_acquired,
)
from reconstruction.volume import Mask, Volume

CENTRE_MM = np.array([3.0, -2.0, 21.0])


def stack(*, tilt_deg: float, step_mm: float, slices: int, flips: tuple[int, int, int] = (1, 1, 1)) -> Geometry:
    """A head-like stack of 64 x 60 pixels of 1.2 mm whose axis drifts along the rows by the tilt."""
    drift = np.tan(np.radians(tilt_deg))
    affine = np.eye(4)
    affine[:3, 0] = np.array([0.0, drift, 1.0]) * step_mm * flips[0]
    affine[:3, 1] = np.array([0.0, 1.2, 0.0]) * flips[1]
    affine[:3, 2] = np.array([1.2, 0.0, 0.0]) * flips[2]
    middle = affine[:3, :3] @ ((np.array([slices, 64, 60]) - 1) / 2.0)
    affine[:3, 3] = CENTRE_MM - middle
    return Geometry(affine=affine, shape=(slices, 64, 60), frame_of_reference_uid="1.2.3")


def ball(points: Points, *, radius_mm: float = 14.0) -> Points:
    """A soft ball: 1000 HU inside, fading over 4 mm."""
    distance = np.linalg.norm(points - CENTRE_MM, axis=-1)
    return np.asarray(1000.0 / (1.0 + np.exp((distance - radius_mm) / 1.0)))


def grid_points(geometry: Geometry, positions: list[float] | None = None) -> Points:
    kji = np.stack(np.meshgrid(*[np.arange(n) for n in geometry.shape], indexing="ij"), axis=-1)
    return slice_points_mm(geometry, kji, positions)


def scan(geometry: Geometry, positions: list[float] | None = None) -> Volume:
    return Volume(hu=np.rint(ball(grid_points(geometry, positions))).astype(np.int16), geometry=geometry)


def surface_radius(volume: Volume) -> float:
    """Radius of the ball of voxels above half height."""
    return float((3.0 * np.count_nonzero(volume.hu > 500) * volume.geometry.voxel_ml * 1000.0 / 4.0 / np.pi) ** (1 / 3))


@settings(max_examples=25, deadline=None)
@given(
    tilt_deg=st.floats(-25.0, 25.0),
    step_mm=st.floats(1.0, 4.0),
    flips=st.tuples(st.sampled_from([1, -1]), st.sampled_from([1, -1]), st.sampled_from([1, -1])),
)
def test_a_tilted_scan_of_a_ball_comes_back_in_place_and_in_size(
    tilt_deg: float, step_mm: float, flips: tuple[int, int, int]
) -> None:
    slices = int(46.0 / step_mm) + 1
    result = regularise(scan(stack(tilt_deg=tilt_deg, step_mm=step_mm, slices=slices, flips=flips)))
    grid = result.volume.geometry
    inside = np.argwhere(result.volume.hu > 500)
    assert abs(grid.tilt_deg) < 1e-6
    assert_allclose(grid.to_mm(inside.mean(axis=0)), CENTRE_MM, atol=0.25)
    assert_allclose(surface_radius(result.volume), 14.0, atol=0.6)


def test_an_uneven_tilted_scan_of_a_ball_comes_back_within_half_a_slice() -> None:
    geometry = stack(tilt_deg=18.5, step_mm=3.0, slices=17)
    positions = [0, 3, 6, 9, 12, 14, 16, 18, 20, 22, 26, 30, 31, 35, 39, 43, 47.0]
    result = regularise(scan(geometry, positions), slice_positions_mm=positions)
    inside = np.argwhere(result.volume.hu > 500)
    truth = ball(grid_points(result.volume.geometry)) > 500
    differing = np.argwhere((result.volume.hu > 500) != truth)
    distance = np.linalg.norm(result.volume.geometry.to_mm(differing) - CENTRE_MM, axis=1)
    assert_allclose(result.volume.geometry.to_mm(inside.mean(axis=0)), CENTRE_MM, atol=0.6)
    assert np.abs(distance - 14.0).max() < 2.0
    assert 1.4 < result.max_distance_to_slice_mm <= 2.0


@given(tilt_deg=st.floats(-25, 25), step_mm=st.floats(0.4, 6.0), spacing_mm=st.floats(0.8, 2.0))
@settings(max_examples=20, deadline=None)
def test_linear_values_are_reproduced_exactly_wherever_a_slice_was_acquired(
    tilt_deg: float, step_mm: float, spacing_mm: float
) -> None:
    geometry = stack(tilt_deg=tilt_deg, step_mm=step_mm, slices=6)
    slope = np.array([2.0, -3.0, 5.0])
    volume = Volume(hu=np.rint(grid_points(geometry) @ slope).astype(np.int16), geometry=geometry)
    result = regularise(volume, spacing_mm=spacing_mm)
    apart = result.volume.hu - grid_points(result.volume.geometry) @ slope
    rows_mm = (np.abs(np.array(result.volume.geometry.shape[1:]) * spacing_mm)).min()
    deep = ~result.outside
    deep[:, :2], deep[:, -2:] = False, False
    edge_hu = 0.5 * 1.2 * 3.0  # half a pixel is carried over at the sheared edge
    assert rows_mm > 60
    assert np.abs(apart[deep]).max() <= 1.01 + edge_hu
    assert (result.volume.hu[result.outside] == OUTSIDE_HU).all()


def test_the_extent_covers_every_acquired_voxel() -> None:
    geometry = stack(tilt_deg=20.0, step_mm=3.0, slices=10)
    result = regularise(scan(geometry))
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in geometry.shape])).reshape(3, -1).T
    index = result.volume.geometry.to_index(geometry.to_mm(corners))
    assert index.min() >= -0.51
    assert (index.max(axis=0) <= np.array(result.volume.geometry.shape) - 0.49).all()
    assert result.outside.any()


@settings(max_examples=15, deadline=None)
@given(
    tilt_deg=st.floats(-20.0, 20.0),
    gaps_mm=st.lists(st.floats(0.7, 6.0), min_size=30, max_size=60),
    spacing_mm=st.floats(0.8, 3.0),
)
def test_slices_that_are_said_to_be_used_are_read_no_more(
    tilt_deg: float, gaps_mm: list[float], spacing_mm: float
) -> None:
    geometry = stack(tilt_deg=tilt_deg, step_mm=3.0, slices=len(gaps_mm) + 1)
    positions = np.concatenate([[0.0], np.cumsum(gaps_mm)]).tolist()
    hu = np.random.default_rng(4).integers(-1000, 2000, geometry.shape).astype(np.int16)
    padding = np.random.default_rng(5).random(geometry.shape) < 0.01
    expected = regularise(
        Volume(hu=hu.copy(), geometry=geometry), slice_positions_mm=positions, spacing_mm=spacing_mm, padding=padding
    )
    told: list[int] = []

    def used(slices: int) -> None:
        told.append(slices)
        spoilt[:slices], blocked[:slices] = 3000, True

    spoilt, blocked = hu.copy(), padding.copy()
    volume = Volume(hu=spoilt.view(), geometry=geometry)
    made = regularise(volume, slice_positions_mm=positions, spacing_mm=spacing_mm, padding=blocked, used=used)
    np.testing.assert_array_equal(expected.volume.hu, made.volume.hu)
    np.testing.assert_array_equal(expected.outside, made.outside)
    assert sorted(told) == told
    assert len(positions) == told[-1]


def test_padding_is_never_interpolated() -> None:
    geometry = stack(tilt_deg=0.0, step_mm=3.0, slices=8)
    hu = np.full(geometry.shape, 40, dtype=np.int16)
    padding = np.zeros(geometry.shape, dtype=np.bool_)
    padding[:, :10] = True
    hu[padding] = -2000
    result = regularise(Volume(hu=hu, geometry=geometry), padding=padding)
    assert {OUTSIDE_HU, 40} == set(np.unique(result.volume.hu).tolist())
    assert result.outside[:, 0].all()


def test_a_region_goes_to_the_slices_and_keeps_its_place_and_volume() -> None:
    geometry = stack(tilt_deg=18.5, step_mm=3.0, slices=16)
    working = regularise(scan(geometry)).volume
    region = Mask.cropped_from(working.hu > 500, working.geometry)
    carried = to_acquired(region, geometry)
    assert carried.geometry is geometry
    assert_allclose(region_centroid_lps_mm(carried), CENTRE_MM, atol=0.5)
    assert_allclose(region_volume_ml(carried), 4 / 3 * np.pi * 14.0**3 / 1000.0, rtol=0.06)


def test_overlapping_slices_are_not_counted_twice() -> None:
    geometry = stack(tilt_deg=10.0, step_mm=3.0, slices=18)
    positions = [0, 3, 6, 9, 12, 15, 18, 19, 22, 25, 28, 31, 34, 37, 40, 43, 46, 49.0]
    truth = ball(grid_points(geometry, positions)) > 500
    region = Mask.cropped_from(truth, geometry)
    expected = 4 / 3 * np.pi * 14.0**3 / 1000.0
    assert_allclose(region_volume_ml(region, slice_positions_mm=positions), expected, rtol=0.05)


def test_a_region_between_two_slices_is_not_lost() -> None:
    geometry = stack(tilt_deg=18.5, step_mm=7.0, slices=8)
    working = regularise(scan(geometry)).volume.geometry
    bits = np.ones((1, 4, 4), dtype=np.bool_)
    carried = to_acquired(Mask(bits=bits, origin_kji=(24, 30, 30), geometry=working), geometry)
    where = working.to_mm((24, 31.5, 31.5))
    along = (np.array(region_centroid_lps_mm(carried)) - where) @ geometry.normal
    assert abs(along) <= 3.5
    assert_allclose(np.array(region_centroid_lps_mm(carried)) - along * geometry.normal, where, atol=1.0)


def test_a_slices_share_is_half_the_way_to_its_neighbours() -> None:
    assert slice_shares_mm([0.0, 4.0, 8.0, 15.0]).tolist() == [4.0, 4.0, 5.5, 7.0]
    assert slice_shares_mm([0.0, 4.0, 8.0, 28.0], slice_thickness_mm=4.0).tolist() == [4.0, 4.0, 4.0, 4.0]


def test_positions_that_go_back_are_refused() -> None:
    geometry = stack(tilt_deg=0.0, step_mm=3.0, slices=3)
    with pytest.raises(NotAVolume, match="do not grow"):
        regularise(scan(geometry), slice_positions_mm=[0.0, 3.0, 3.0])
