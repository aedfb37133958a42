"""Isotropic pictures made slab by slab must be those of the whole grid, in their places, whatever was acquired."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from reconstruction.errors import NotAVolume
from reconstruction.geometry import Geometry
from reconstruction.isotropic import isotropic, isotropic_slabs
from reconstruction.planes import Planes
from reconstruction.resample import OUTSIDE_HU, regularise
from reconstruction.volume import Volume

AXES = {
    "axial": ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    "axial, head first": ((0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    "prone": ((0.0, 0.0, 1.0), (0.0, -1.0, 0.0), (-1.0, 0.0, 0.0)),
    "coronal": ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0)),
    "sagittal": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0)),
    "sagittal on its side": ((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
}


def stack(name: str = "axial", *, tilt_deg: float = 0.0, step_mm: float = 2.0) -> Volume:
    """10 x 24 x 20 voxels of noise; the axis drifts along the rows by the tilt."""
    k, j, i = (np.array(axis) for axis in AXES[name])
    affine = np.eye(4)
    affine[:3, 0] = (k + np.tan(np.radians(tilt_deg)) * j) * step_mm
    affine[:3, 1], affine[:3, 2], affine[:3, 3] = j * 0.8, i * 0.8, (3.0, -7.0, 40.0)
    hu = np.random.default_rng(7).integers(-1000, 2000, (10, 24, 20)).astype(np.int16)
    return Volume(hu=hu, geometry=Geometry(affine=affine, shape=(10, 24, 20), frame_of_reference_uid="1.2"))


def joined(slabs: Sequence[Planes]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([s.hu for s in slabs]), np.concatenate([s.origins_lps_mm for s in slabs])


@pytest.mark.parametrize("name", AXES)
def test_each_pixel_stands_where_the_whole_grid_has_its_value(name: str) -> None:
    volume = stack(name, tilt_deg=12.0)
    whole = regularise(volume, spacing_mm=0.9).volume
    for slab in isotropic_slabs(volume, spacing_mm=0.9, slab_bytes=3000):
        frame, row, column = np.indices(slab.hu.shape).reshape(3, -1)
        places = (
            slab.origins_lps_mm[frame]
            + row[:, None] * 0.9 * slab.column_direction
            + column[:, None] * 0.9 * slab.row_direction
        )
        index = whole.geometry.to_index(places)
        assert_allclose(index, np.rint(index), atol=1e-6)
        k, j, i = np.rint(index).astype(int).T
        # A voxel half-way between two whole values may be rounded either way.
        assert_allclose(slab.hu.ravel(), whole.hu[k, j, i], atol=1)


@pytest.mark.parametrize("name", AXES)
def test_every_picture_reads_the_radiological_way_and_the_next_lies_nearer_to_the_head(name: str) -> None:
    slabs = list(isotropic_slabs(stack(name), slab_bytes=3000))
    _, origins = joined(slabs)
    assert len(slabs) > 2
    for slab in slabs:
        assert ("axial", "isotropic") == (slab.orientation, slab.kind)
        assert_allclose(slab.row_direction, (1.0, 0.0, 0.0), atol=1e-9)
        assert_allclose(slab.column_direction, (0.0, 1.0, 0.0), atol=1e-9)
        assert slab.pixel_spacing_mm == (slab.slice_thickness_mm, slab.slice_thickness_mm)
    spacing = slabs[0].spacing_between_mm
    assert spacing is not None
    assert_allclose(np.diff(origins, axis=0), np.tile((0.0, 0.0, spacing), (len(origins) - 1, 1)), atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(sorted(AXES)),
    tilt_deg=st.sampled_from([0.0, -18.5, 16.0]),
    uneven=st.sampled_from([None, (0.0, 2.0, 4.0, 6.0, 8.0, 9.0, 10.0, 13.0, 20.0, 21.5)]),
    slab_bytes=st.integers(1, 40_000),
)
def test_the_size_of_a_slab_changes_no_picture(
    name: str, tilt_deg: float, uneven: tuple[float, ...] | None, slab_bytes: int
) -> None:
    volume = stack(name, tilt_deg=tilt_deg)
    padding = np.zeros(volume.hu.shape, dtype=np.bool_)
    padding[:, :4, -3:] = True
    plan = isotropic(volume, slice_positions_mm=uneven, padding=padding)
    hu, origins = joined(list(plan.slabs(slab_bytes)))
    whole = regularise(volume, slice_positions_mm=uneven, padding=padding)
    ((at_once, places),) = [joined(list(plan.slabs(2**30)))]
    assert_allclose(places, origins)
    assert_allclose(hu, at_once, atol=1)
    assert plan.pictures.shape == hu.shape
    assert_allclose(plan.pictures.to_mm([(k, 0, 0) for k in range(len(hu))]), origins)
    assert whole.max_distance_to_slice_mm == plan.max_distance_to_slice_mm
    assert np.count_nonzero(whole.volume.hu == OUTSIDE_HU) == np.count_nonzero(hu == OUTSIDE_HU)


def test_a_straight_axial_stack_is_cut_exactly_as_the_whole_grid() -> None:
    volume = stack()
    hu, _ = joined(list(isotropic_slabs(volume, spacing_mm=0.7, slab_bytes=5000)))
    assert_array_equal(hu, regularise(volume, spacing_mm=0.7).volume.hu)


def test_the_farthest_distance_to_a_slice_is_half_the_largest_gap() -> None:
    positions = (0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0, 26.0)
    plan = isotropic(stack(), slice_positions_mm=positions, spacing_mm=0.5)
    assert_allclose(plan.max_distance_to_slice_mm, 5.0, atol=0.25)


def test_slabs_hold_no_more_than_they_may() -> None:
    slabs = list(isotropic_slabs(stack(), spacing_mm=0.5, slab_bytes=20_000))
    assert all(slab.hu.nbytes <= 20_000 for slab in slabs)


@pytest.mark.parametrize("spacing_mm", [0.0, -1.0, float("nan"), float("inf"), 1e-6])
def test_a_spacing_that_is_none_or_far_too_fine_is_refused(spacing_mm: float) -> None:
    with pytest.raises(NotAVolume, match="spacing"):
        isotropic(stack(), spacing_mm=spacing_mm)


def test_positions_that_do_not_grow_are_refused() -> None:
    with pytest.raises(NotAVolume, match="do not grow"):
        isotropic(stack(), slice_positions_mm=(0.0,) * 10)
