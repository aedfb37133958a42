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


@given(st.sampled_from(ORDERS), st.tuples(st.booleans(), st.booleans(), st.booleans()), st.integers(1, 4))
def test_parts_and_slabs_of_a_volume_are_those_of_the_whole(
    order: tuple[int, int, int], flips: tuple[bool, bool, bool], multiple: int
) -> None:
    volume = volume_of(np.random.default_rng(1).integers(-500, 500, (11, 9, 7)).astype(np.int16), spacing_mm=(1, 1, 1))
    affine = volume.geometry.affine.copy()
    affine[:3, :3] = affine[:3, :3][:, list(order)] * [-1 if flip else 1 for flip in flips]
    standing = stand_upright(volume.hu, Geometry(affine=affine, shape=(11, 9, 7)), about_mm=2.0)
    whole = standing.hu
    np.testing.assert_array_equal(whole, np.concatenate([slab for _, slab in standing.slabs(multiple)]))
    part = standing.part((slice(1, 3), slice(0, 2), slice(1, 3)))
    np.testing.assert_array_equal(whole[1:3, 0:2, 1:3], part.hu)


@given(st.sampled_from(ORDERS), st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_a_region_drawn_upright_lies_on_the_same_voxels(
    order: tuple[int, int, int], flips: tuple[bool, bool, bool]
) -> None:
    turn = Turn(order=order, flips=flips)
    kji = np.random.default_rng(2).random((5, 6, 7)) > 0.9
    upright = turn.apply(kji)
    drawn = np.ascontiguousarray(upright[1:, 1:, :-1])
    expected = np.zeros_like(upright)
    expected[1:, 1:, :-1] = drawn
    region = turn.mask(drawn, (1, 1, 0), Geometry(affine=np.eye(4), shape=(5, 6, 7)))
    np.testing.assert_array_equal(turn.undo(expected), region.full())


def test_a_grid_finer_than_its_slices_keeps_the_thickness_of_the_slices() -> None:
    volume = volume_of(np.zeros((3, 3, 3), dtype=np.int16), spacing_mm=(1, 1, 1))
    assert stand_upright(volume.hu, volume.geometry, thickness_mm=5.0).slice_mm == 5.0
    assert stand_upright(volume.hu, volume.geometry, thickness_mm=0.6).slice_mm == 1.0
