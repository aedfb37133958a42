"""Nothing may move when a volume goes to SimpleITK and back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.transform import Rotation

from reconstruction.convert import (
    axial_first,
    from_sitk,
    geometry_of,
    is_straight,
    mask_from_sitk,
    mask_to_sitk,
    right_handed,
    to_sitk,
)
from reconstruction.errors import NotAVolume
from reconstruction.geometry import Geometry
from reconstruction.volume import Mask, Volume


def turned(angles_deg: tuple[float, float, float], spacing: tuple[float, float, float]) -> Volume:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles_deg, degrees=True).as_matrix() * spacing
    affine[:3, 3] = (11.0, -22.0, 33.0)
    hu = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    return Volume(hu=hu, geometry=Geometry(affine=affine, shape=(4, 5, 6), frame_of_reference_uid="1.2"))


angle = st.floats(-180, 180)
spacing = st.floats(0.2, 10.0)


@settings(max_examples=50, deadline=None)
@given(angles=st.tuples(angle, angle, angle), spacings=st.tuples(spacing, spacing, spacing))
def test_a_volume_comes_back_as_it_went(
    angles: tuple[float, float, float], spacings: tuple[float, float, float]
) -> None:
    volume = turned(angles, spacings)
    image = to_sitk(volume)
    back = from_sitk(image, frame_of_reference_uid="1.2")
    assert_array_equal(back.hu, volume.hu)
    assert back.geometry.agrees_with(volume.geometry, within_mm=1e-6)
    place = image.TransformIndexToPhysicalPoint((5, 1, 2))
    assert_allclose(place, volume.geometry.to_mm((2, 1, 5)), atol=1e-6)


def test_a_region_comes_back_as_it_went() -> None:
    volume = turned((5.0, 0.0, 90.0), (3.0, 0.5, 0.5))
    mask = Mask.cropped_from(volume.hu % 7 == 3, volume.geometry)
    back = mask_from_sitk(mask_to_sitk(mask), volume.geometry)
    assert_array_equal(back.full(), mask.full())


def test_a_region_on_another_grid_is_refused() -> None:
    one, other = turned((0, 0, 0), (1, 1, 1)), turned((0, 0, 0), (2, 1, 1))
    mask = Mask.cropped_from(one.hu > 5, one.geometry)
    with pytest.raises(NotAVolume, match="another grid"):
        mask_from_sitk(mask_to_sitk(mask), other.geometry)


def test_shear_is_refused_rather_than_dropped() -> None:
    affine = np.eye(4)
    affine[1, 0] = 0.2
    volume = Volume(hu=np.zeros((3, 3, 3), dtype=np.int16), geometry=Geometry(affine=affine, shape=(3, 3, 3)))
    assert not is_straight(volume.geometry)
    with pytest.raises(NotAVolume, match="shear"):
        to_sitk(volume)


def test_axial_first_keeps_every_voxel_in_its_place() -> None:
    coronal = turned((0.0, 0.0, 0.0), (1.0, 2.0, 3.0))
    axial = axial_first(coronal)
    assert [2, 1, 0] == np.abs(axial.geometry.affine[:3, :3]).argmax(axis=0).tolist()
    here = (3, 1, 2)
    there = tuple(np.rint(axial.geometry.to_index(coronal.geometry.to_mm(here))).astype(int))
    assert axial.hu[there] == coronal.hu[here]


@pytest.mark.parametrize("spacings", [(1.0, 2.0, 3.0), (-1.0, 2.0, 3.0)])
def test_right_handed_axes_keep_every_voxel_in_its_place(spacings: tuple[float, float, float]) -> None:
    volume = turned((10.0, 20.0, 30.0), spacings)
    turned_round = right_handed(volume)
    here = (3, 1, 2)
    there = tuple(np.rint(turned_round.geometry.to_index(volume.geometry.to_mm(here))).astype(int))
    assert np.linalg.det(turned_round.geometry.affine[:3, 2::-1]) > 0
    assert turned_round.hu[there] == volume.hu[here]


def test_an_image_that_is_flat_is_no_volume() -> None:
    import SimpleITK as sitk

    with pytest.raises(NotAVolume, match="dimensions"):
        geometry_of(sitk.Image(3, 3, sitk.sitkInt16))
