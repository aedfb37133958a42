"""Derived pictures must show the same tissue at the same millimetre, whatever the order of storage."""

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from reconstruction.errors import NotAVolume
from reconstruction.geometry import Geometry
from reconstruction.planes import Planes
from reconstruction.project import Reformats, reformat
from reconstruction.volume import Volume

SPACING_KJI = (2.0, 0.8, 0.8)
SHAPE = (20, 40, 48)


def straight(spacing: tuple[float, float, float] = SPACING_KJI) -> Geometry:
    """Axial slices upwards, rows to the back, columns to the left; about the middle of the patient."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *spacing, 1.0
    affine[:3, 3] = (-18.0, -15.0, 100.0)
    return Geometry(affine=affine, shape=SHAPE)


def reference() -> Volume:
    """Linear in space, so that any mean over a slab is the value at its middle."""
    geometry = straight()
    points = geometry.to_mm(np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"), axis=-1))
    return Volume(hu=np.rint(points @ (7.0, -11.0, 5.0)).astype(np.int16), geometry=geometry)


def stored_otherwise(volume: Volume, flips: tuple[bool, ...], order: tuple[int, ...]) -> Volume:
    """Write the same voxels in another order of axes and directions."""
    affine, hu = volume.geometry.affine.copy(), volume.hu
    for axis, flipped in enumerate(flips):
        if flipped:
            affine[:3, 3] += affine[:3, axis] * (hu.shape[axis] - 1)
            affine[:3, axis] *= -1.0
            hu = np.flip(hu, axis)
    affine[:3, :3] = affine[:3, list(order)]
    hu = np.ascontiguousarray(hu.transpose(order))
    k, j, i = hu.shape
    return Volume(hu=hu, geometry=Geometry(affine=affine, shape=(k, j, i)))


def planes_of(result: Reformats) -> list[Planes]:
    return [result.coronal, result.sagittal, *result.mips]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", list(itertools.product([False, True], repeat=3)))
def test_the_order_of_storage_changes_no_picture(flips: tuple[bool, ...], order: tuple[int, ...]) -> None:
    expected = planes_of(reformat(reference(), thickness_mm=3.0, step_mm=3.0))
    actual = planes_of(reformat(stored_otherwise(reference(), flips, order), thickness_mm=3.0, step_mm=3.0))
    for one, other in zip(expected, actual, strict=True):
        assert_allclose(one.hu, other.hu, atol=1)
        assert_allclose(one.origins_lps_mm, other.origins_lps_mm, atol=1e-9)
        assert_array_equal(one.row_direction, other.row_direction)
        assert_array_equal(one.column_direction, other.column_direction)


@pytest.mark.parametrize("name", ["coronal", "sagittal"])
def test_a_pixel_shows_the_tissue_of_its_millimetre(name: str) -> None:
    planes: Planes = getattr(reformat(reference(), thickness_mm=3.0, step_mm=3.0), name)
    frames, rows, columns = planes.hu.shape
    for frame, row, column in itertools.product((0, frames - 1), (0, rows - 1), (0, columns // 2, columns - 1)):
        expected = planes.to_mm(frame, row, column) @ np.array([7.0, -11.0, 5.0])
        assert abs(float(planes.hu[frame, row, column]) - expected) <= 1.01


def test_pictures_read_the_radiological_way_and_have_square_pixels() -> None:
    result = reformat(reference())
    directions = [(p.orientation, p.row_direction.tolist(), p.column_direction.tolist()) for p in planes_of(result)]
    coronal, sagittal = ("coronal", [1, 0, 0], [0, 0, -1]), ("sagittal", [0, 1, 0], [0, 0, -1])
    assert directions == [coronal, sagittal, ("axial", [1, 0, 0], [0, 1, 0]), coronal, sagittal]
    assert {p.pixel_spacing_mm for p in planes_of(result)} == {(0.8, 0.8)}
    assert result.coronal.spacing_between_mm == 3.0
    assert result.coronal.slice_thickness_mm == pytest.approx(3.0)


def test_a_maximum_projection_holds_the_brightest_of_every_line() -> None:
    rng = np.random.default_rng(3)
    volume = Volume(hu=rng.integers(-1000, 3000, SHAPE, dtype=np.int16), geometry=straight((0.8, 0.8, 0.8)))
    axial, coronal, sagittal = reformat(volume).mips
    assert_array_equal(axial.hu[0], volume.hu.max(axis=0))
    assert_array_equal(coronal.hu[0], volume.hu.max(axis=1)[::-1])
    assert_array_equal(sagittal.hu[0], volume.hu.max(axis=2)[::-1])


def test_slabs_of_whole_pixels_are_plain_means() -> None:
    rng = np.random.default_rng(4)
    volume = Volume(hu=rng.integers(-1000, 3000, SHAPE, dtype=np.int16), geometry=straight((1.0, 1.0, 1.0)))
    planes = reformat(volume, thickness_mm=4.0, step_mm=4.0)
    expected: npt.NDArray[np.float64] = volume.hu.reshape(20, 10, 4, 48).mean(axis=2).transpose(1, 0, 2)[:, ::-1]
    frames_towards_back = planes.coronal.origins_lps_mm[-1, 1] > planes.coronal.origins_lps_mm[0, 1]
    assert_allclose(planes.coronal.hu if frames_towards_back else planes.coronal.hu[::-1], expected, atol=0.51)


def test_a_volume_thinner_than_a_slab_still_gives_one_frame() -> None:
    volume = Volume(hu=np.zeros((5, 3, 3), dtype=np.int16), geometry=Geometry(affine=np.eye(4), shape=(5, 3, 3)))
    planes = reformat(volume, thickness_mm=10.0, step_mm=10.0)
    assert (len(planes.coronal.hu), planes.coronal.spacing_between_mm) == (1, None)


def test_a_sheared_volume_is_refused() -> None:
    affine = straight().affine.copy()
    affine[1, 0] = 0.3
    volume = Volume(hu=np.zeros(SHAPE, dtype=np.int16), geometry=Geometry(affine=affine, shape=SHAPE))
    with pytest.raises(NotAVolume, match="regularise"):
        reformat(volume)
