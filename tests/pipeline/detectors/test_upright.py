import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.detectors.upright import Turn, block_any, block_mean, spread, stand_upright
from pipeline.testing import flipped, plain_head, volume_of
from reconstruction.geometry import Geometry
from reconstruction.volume import Volume

ORDERS = list(itertools.permutations(range(3)))


@pytest.mark.parametrize("order", ORDERS)
def test_axes_in_any_order_stand_up_to_the_same_picture(order: tuple[int, int, int]) -> None:
    straight = volume_of(np.random.default_rng(0).integers(-500, 500, (4, 5, 6)).astype(np.int16), spacing_mm=(1, 1, 1))
    affine = straight.geometry.affine.copy()
    affine[:3, :3] = affine[:3, :3][:, list(order)]
    hu = np.ascontiguousarray(straight.hu.transpose(order))
    shape = (hu.shape[0], hu.shape[1], hu.shape[2])
    turned = Volume(hu=hu, geometry=Geometry(affine=affine, shape=shape))
    expected = stand_upright(straight.hu, straight.geometry).hu
    np.testing.assert_array_equal(expected, stand_upright(turned.hu, turned.geometry).hu)


@given(st.sampled_from(ORDERS), st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_undoing_a_turn_gives_the_array_back(order: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> None:
    turn = Turn(order=order, flips=flips)
    array = np.arange(24).reshape(2, 3, 4)
    np.testing.assert_array_equal(array, turn.undo(turn.apply(array)))


def test_superior_grows_along_the_first_axis_even_where_slices_run_down() -> None:
    down = flipped(plain_head(bleed_ml=8), 0)
    np.testing.assert_array_equal(
        stand_upright(plain_head(bleed_ml=8).hu, plain_head().geometry).hu, stand_upright(down.hu, down.geometry).hu
    )


def test_blocks_average_and_leave_out_what_is_incomplete() -> None:
    values = np.arange(5, dtype=np.int16).reshape(1, 1, 5)
    np.testing.assert_array_equal([[[0.5, 2.5]]], block_mean(values, (1, 1, 2)))


def test_a_block_holds_a_bit_where_any_of_its_voxels_does() -> None:
    bits = np.array([[[False, True, False, False]]])
    np.testing.assert_array_equal([[[True, False]]], block_any(bits, (1, 1, 2)))
    np.testing.assert_array_equal([[[True, True, False, False, False]]], spread(bits[:, :, 1:3], (1, 1, 2), (1, 1, 5)))


def test_a_grid_finer_than_its_slices_keeps_the_thickness_of_the_slices() -> None:
    volume = volume_of(np.zeros((3, 3, 3), dtype=np.int16), spacing_mm=(1, 1, 1))
    assert stand_upright(volume.hu, volume.geometry, thickness_mm=5.0).slice_mm == 5.0
    assert stand_upright(volume.hu, volume.geometry, thickness_mm=0.6).slice_mm == 1.0
