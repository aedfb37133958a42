"""Pixels and regions fit their grid, and stay as they were."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from reconstruction.errors import NotAVolume
from reconstruction.geometry import Geometry
from reconstruction.volume import Bits, Mask, Volume

SHAPE = (4, 5, 6)
GRID = Geometry(affine=np.eye(4), shape=SHAPE)


@given(full=hnp.arrays(np.bool_, SHAPE).filter(lambda bits: bool(bits.any())))
def test_a_region_comes_back_from_its_box(full: Bits) -> None:
    mask = Mask.cropped_from(full, GRID)
    np.testing.assert_array_equal(full, mask.full())
    assert int(full.sum()) == mask.voxel_count


@given(full=hnp.arrays(np.bool_, SHAPE).filter(lambda bits: bool(bits.any())))
def test_the_box_is_as_small_as_can_be(full: Bits) -> None:
    bits = Mask.cropped_from(full, GRID).bits
    assert all(bits.take(end, axis).any() for axis in range(3) for end in (0, -1))


def test_an_empty_region_is_none() -> None:
    with pytest.raises(NotAVolume, match="empty"):
        Mask.cropped_from(np.zeros(SHAPE, dtype=np.bool_), GRID)


def test_a_region_of_another_grid_is_refused_even_where_it_would_fit() -> None:
    with pytest.raises(NotAVolume, match="grid"):
        Mask.cropped_from(np.ones((2, 2, 2), dtype=np.bool_), GRID)


@given(origin=st.tuples(*[st.integers(-2, 6)] * 3), shape=st.tuples(*[st.integers(1, 6)] * 3))
def test_a_mask_lies_within_its_volume_or_is_refused(origin: tuple[int, int, int], shape: tuple[int, int, int]) -> None:
    bits = np.ones(shape, dtype=np.bool_)
    if all(o >= 0 and o + n <= end for o, n, end in zip(origin, shape, SHAPE, strict=True)):
        assert int(np.prod(shape)) == int(Mask(bits=bits, origin_kji=origin, geometry=GRID).full().sum())
    else:
        with pytest.raises(NotAVolume, match="beyond"):
            Mask(bits=bits, origin_kji=origin, geometry=GRID)


def test_pixels_of_another_shape_or_type_are_refused() -> None:
    with pytest.raises(NotAVolume, match="shape"):
        Volume(hu=np.zeros((4, 6, 5), dtype=np.int16), geometry=GRID)
    with pytest.raises(NotAVolume, match="float32"):
        Volume(hu=np.zeros(SHAPE, dtype=np.float32), geometry=GRID)


def test_neither_pixels_nor_regions_can_be_written_to() -> None:
    volume = Volume(hu=np.zeros(SHAPE, dtype=np.int16), geometry=GRID)
    mask = Mask(bits=np.ones((1, 1, 1), dtype=np.bool_), origin_kji=(0, 0, 0), geometry=GRID)
    for array in (volume.hu, mask.bits):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0, 0] = 1
