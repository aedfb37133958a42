"""The grid a picture is cast from keeps means, places and every flake of bone, and leaves the couch out."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from reconstruction.geometry import Geometry
from reconstruction.render_cast import RIM, Camera, Looks, cast, set_scene
from reconstruction.render_grid import grown, opened, prepared, reduced
from reconstruction.render_looks import AIR_HU, BONE
from reconstruction.volume import Volume

WHITE = Looks(opacity=((100, 0.0), (101, 1.0)), colour=((0, (1.0, 1.0, 1.0)),), depth_mm=0.01, sure_hu=1.0)


def body() -> Volume:
    """A soft block with a little bone."""
    hu = np.full((60, 60, 60), -1000, dtype=np.int16)
    hu[4:56, 4:56, 4:56] = 40
    hu[4:20, 4:20, 40:56] = 1200
    return Volume(hu=hu, geometry=Geometry(affine=np.diag([1.5, 1.5, 1.5, 1.0])[[2, 1, 0, 3]], shape=hu.shape))


def test_a_reduced_grid_keeps_means_and_places() -> None:
    volume = body()
    small = reduced(volume, largest=30)
    assert small.hu.shape == (30, 30, 30)
    assert small.hu[5, 5, 22] == volume.hu[10:12, 10:12, 44:46].mean()
    assert np.allclose(small.geometry.to_mm((5, 5, 22)), volume.geometry.to_mm((10.5, 10.5, 44.5)))


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 60)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 8.0)] * 3),
    largest=st.integers(1, 40),
)
def test_a_reduced_grid_is_within_its_bound_and_reduces_no_coarse_axis_for_a_fine_one(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], largest: int
) -> None:
    volume = Volume(hu=np.zeros(shape, dtype=np.int16), geometry=Geometry(affine=np.diag([*spacing, 1.0]), shape=shape))
    small = reduced(volume, largest=largest)
    assert math.prod(small.hu.shape) <= largest**3
    factors = np.rint(np.array(small.geometry.spacing_mm) / spacing)
    for axis in np.flatnonzero(factors > 1):  # an axis was the finest still divisible one when it was last reduced
        before = small.geometry.spacing_mm[axis] - spacing[axis]
        free = [a for a in range(3) if shape[a] // (factors[a] + 1) >= 1 and a != axis]
        assert all(before <= small.geometry.spacing_mm[a] + 1e-6 for a in free)


def test_what_lies_apart_from_the_patient_is_left_out_and_no_bone_is_lost() -> None:
    volume = body()
    hu = np.pad(volume.hu.copy(), ((0, 0), (0, 40), (0, 0)), constant_values=-1000)
    hu[:, 90:92] = 700  # a thin couch, 5 cm behind
    hu[10:50, 61:62, 10:50] = 700  # a sheet, 7 mm behind
    wide = Volume(hu=hu, geometry=Geometry(affine=volume.geometry.affine, shape=hu.shape))
    cleared = prepared(wide, BONE)
    assert np.count_nonzero(cleared.hu > 1000) == np.count_nonzero(volume.hu > 1000)
    assert not np.isin(cleared.hu, [700]).any()


def test_a_thin_shell_that_hangs_together_with_the_bone_stays() -> None:
    hu = np.full((60, 80, 80), -1000, dtype=np.int16)
    hu[10:50, 10:40, 10:40] = 1000
    hu[10:50, 40:48, 20:21] = 600  # a flake one voxel thin, 8 voxels long
    volume = Volume(hu=hu, geometry=Geometry(affine=np.diag([1.0, 1.0, 1.0, 1.0]), shape=hu.shape))
    assert np.count_nonzero(prepared(volume, BONE).hu == 600) == 40 * 8


def test_the_rim_is_air_and_the_place_of_every_voxel_is_kept() -> None:
    ready = prepared(body(), BONE)
    for axis in range(3):
        assert set(np.unique(np.take(ready.hu, [*range(RIM), *range(-RIM, 0)], axis=axis))) == {AIR_HU}
    bone = ready.geometry.to_mm(np.argwhere(ready.hu == 1200)).mean(axis=0)
    assert bone == pytest.approx(body().geometry.to_mm(np.argwhere(body().hu == 1200)).mean(axis=0))


def test_rays_without_a_rim_are_refused() -> None:
    volume = Volume(hu=np.full((9, 9, 9), 500, dtype=np.int16), geometry=Geometry(affine=np.eye(4), shape=(9, 9, 9)))
    with pytest.raises(ValueError, match="rim"):
        set_scene(volume, WHITE, step_mm=0.5)


@settings(max_examples=15, deadline=None)
@given(
    centre=st.tuples(*[st.floats(-9.0, 9.0)] * 3),
    turn=st.floats(0.0, 2 * np.pi),
    spacing=st.sampled_from([(1.0, 1.0, 1.0), (2.0, 0.8, 0.8), (-1.5, 1.0, 1.2)]),
)
def test_a_ball_is_seen_as_the_disc_that_geometry_says_from_every_side(
    centre: tuple[float, float, float], turn: float, spacing: tuple[float, float, float]
) -> None:
    shape = tuple(int(60 / abs(mm)) for mm in spacing)
    affine = np.diag([*spacing, 1.0])[[2, 1, 0, 3]]
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    geometry = Geometry(affine=affine, shape=(shape[0], shape[1], shape[2]))
    away = np.linalg.norm(geometry.to_mm(np.moveaxis(np.indices(shape), 0, -1)) - centre, axis=-1)
    hu = np.rint(np.clip(100 + (12.0 - away) * 50, -1000, 1000)).astype(np.int16)
    from_lps, up = np.array((np.sin(turn), -np.cos(turn), 0.0)), np.array((0.0, 0.0, 1.0))
    camera = Camera(centre_lps_mm=np.zeros(3), from_lps=from_lps, up_lps=up, reach_mm=64.0, size=128)
    seen = cast(set_scene(Volume(hu=hu, geometry=geometry), WHITE, step_mm=0.4), camera).sum(axis=-1) > 0
    rows, columns = np.nonzero(seen)
    down, right = (rows.mean() - 63.5) / 2.0, (columns.mean() - 63.5) / 2.0
    assert (right, -down) == (
        pytest.approx(np.cross(-from_lps, up) @ centre, abs=0.3),
        pytest.approx(centre[2], abs=0.3),
    )
    assert np.count_nonzero(seen) / 4.0 == pytest.approx(np.pi * 12.0**2, rel=0.06)


@pytest.mark.parametrize("shape", [(5, 9, 11), (1, 2, 7), (3, 3, 1), (20, 40, 30)])
def test_a_sheet_is_opened_away_and_a_piece_grown_as_scipy_would(shape: tuple[int, int, int]) -> None:
    bits = np.random.default_rng(0).random(shape) < 0.7
    cross = ndimage.generate_binary_structure(2, 1)[None]
    assert np.array_equal(ndimage.binary_opening(bits, cross), opened(bits))
    twice = ndimage.binary_opening(bits | np.roll(bits, 1, 2), cross, iterations=2)
    assert np.array_equal(twice, opened(bits | np.roll(bits, 1, 2), rounds=2))
    few = np.random.default_rng(1).random(shape) < 0.05
    assert np.array_equal(ndimage.binary_dilation(few, np.ones((3, 3, 3), dtype=np.bool_)), grown(few))
