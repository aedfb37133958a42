"""A voxel has one place in the patient, and a place one voxel, however the axes lie."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from reconstruction.errors import NotAVolume
from reconstruction.geometry import Geometry, Points

angles = st.floats(-math.pi, math.pi)
spacings = st.floats(0.1, 10.0)
signs = st.sampled_from([-1.0, 1.0])
indices = st.tuples(*[st.floats(-1000.0, 1000.0)] * 3)


def rotation(a: float, b: float, c: float) -> Points:
    """Turn about z, then y, then x."""
    about_z = np.array([[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0], [0, 0, 1]])
    about_y = np.array([[math.cos(b), 0, math.sin(b)], [0, 1, 0], [-math.sin(b), 0, math.cos(b)]])
    about_x = np.array([[1, 0, 0], [0, math.cos(c), -math.sin(c)], [0, math.sin(c), math.cos(c)]])
    turned: Points = about_x @ about_y @ about_z
    return turned


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    """Oblique, sheared by up to 35 degrees, any axis negative, far from the origin."""
    turn = rotation(draw(angles), draw(angles), draw(angles))
    shear = np.eye(3)
    shear[1:, 0] = draw(st.floats(-0.7, 0.7)), draw(st.floats(-0.7, 0.7))
    scale = np.diag([draw(spacings) * draw(signs) for _ in range(3)])
    affine = np.eye(4)
    affine[:3, :3] = turn @ shear @ scale
    affine[:3, 3] = [draw(st.floats(-2000.0, 2000.0)) for _ in range(3)]
    return Geometry(affine=affine, shape=(9, 8, 7), frame_of_reference_uid="1.2.3")


def straight(shape: tuple[int, int, int] = (3, 4, 5)) -> Geometry:
    """Axial, k towards the head by 2.5 mm, rows 0.5 mm and columns 0.25 mm apart."""
    affine = np.array([[0, 0, 0.25, -10], [0, 0.5, 0, -20], [2.5, 0, 0, 30], [0, 0, 0, 1]])
    return Geometry(affine=affine, shape=shape, frame_of_reference_uid="1.2.3")


def tilted(degrees: float) -> Geometry:
    affine = straight().affine.copy()
    affine[1, 0] = 2.5 * math.tan(math.radians(degrees))
    return Geometry(affine=affine, shape=(3, 4, 5))


@given(geometry=geometries(), kji=indices)
def test_an_index_comes_back_from_its_place(geometry: Geometry, kji: tuple[float, float, float]) -> None:
    assert_allclose(geometry.to_index(geometry.to_mm(kji)), kji, atol=1e-6)


@given(geometry=geometries())
def test_the_normal_is_a_unit_vector_across_the_slices_towards_growing_k(geometry: Geometry) -> None:
    assert_allclose(np.linalg.norm(geometry.normal), 1.0)
    assert_allclose(geometry.normal @ geometry.affine[:3, 1:3], [0.0, 0.0], atol=1e-9)
    assert geometry.slice_step_mm > 0
    assert_allclose(geometry.slice_step_mm, geometry.spacing_mm[0] * math.cos(math.radians(geometry.tilt_deg)))


@given(geometry=geometries(), origin=st.tuples(*[st.integers(0, 6)] * 3), kji=indices)
def test_a_cropped_grid_keeps_every_voxel_in_its_place(
    geometry: Geometry, origin: tuple[int, int, int], kji: tuple[float, float, float]
) -> None:
    cropped = geometry.cropped(origin, (1, 2, 1))
    assert_allclose(cropped.to_mm(kji), geometry.to_mm(np.add(origin, kji)), atol=1e-6)
    assert ((1, 2, 1), "1.2.3") == (cropped.shape, cropped.frame_of_reference_uid)


@given(geometry=geometries(), along=st.floats(-5.0, 5.0))
def test_grids_agree_within_the_distance_they_are_moved_apart(geometry: Geometry, along: float) -> None:
    affine = geometry.affine.copy()
    affine[0, 3] += along
    moved = Geometry(affine=affine, shape=geometry.shape)
    assert geometry.agrees_with(moved, within_mm=abs(along) + 1e-6)
    assert abs(along) < 1e-3 or not geometry.agrees_with(moved, within_mm=abs(along) - 1e-4)


def test_a_voxel_lies_where_dicom_says() -> None:
    assert [-8.75, -18.5, 35.0] == straight().to_mm((2, 3, 5)).tolist()


def test_many_points_are_mapped_at_once() -> None:
    assert (2, 4, 3) == straight().to_mm(np.zeros((2, 4, 3))).shape


def test_spacing_and_voxel_size_follow_the_axes() -> None:
    assert (2.5, 0.5, 0.25) == straight().spacing_mm
    assert 0.0003125 == pytest.approx(straight().voxel_ml)


@given(degrees=st.floats(-60.0, 60.0))
def test_a_sheared_stack_is_tilted_by_the_angle_of_its_axis_and_keeps_its_step(degrees: float) -> None:
    assert abs(degrees) == pytest.approx(tilted(degrees).tilt_deg, abs=1e-9)
    assert 2.5 == pytest.approx(tilted(degrees).slice_step_mm)
    assert straight().voxel_ml == pytest.approx(tilted(degrees).voxel_ml)


def test_grids_of_different_shape_never_agree() -> None:
    assert not straight((3, 4, 5)).agrees_with(straight((3, 5, 4)), within_mm=1e9)


def test_a_grid_agrees_at_its_far_corner_too() -> None:
    stretched = straight().affine.copy()
    stretched[2, 0] = 2.6
    assert not straight().agrees_with(Geometry(affine=stretched, shape=(3, 4, 5)), within_mm=0.19)
    assert straight().agrees_with(Geometry(affine=stretched, shape=(3, 4, 5)), within_mm=0.21)


def test_the_affine_cannot_be_changed_and_is_a_copy() -> None:
    given_affine = np.eye(4)
    geometry = Geometry(affine=given_affine, shape=(1, 1, 1))
    given_affine[0, 3] = 99.0
    assert 0.0 == geometry.affine[0, 3]
    with pytest.raises(ValueError, match="read-only"):
        geometry.affine[0, 3] = 1.0


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        (0, [0, 0, 0, 0], "do not span a volume"),
        (1, [0, 0, 1, 0], "do not span a volume"),
        (2, [math.nan, 0, 0, 0], "no numbers"),
        (3, [math.inf, 0, 0, 1], "no numbers"),
    ],
)
def test_an_affine_that_is_none_is_refused(column: int, value: list[float], reason: str) -> None:
    affine = np.eye(4)[[2, 1, 0, 3]]
    affine[:, column] = value
    with pytest.raises(NotAVolume, match=reason):
        Geometry(affine=affine, shape=(2, 2, 2))


def test_a_small_matrix_and_an_empty_shape_are_refused() -> None:
    with pytest.raises(NotAVolume, match="no numbers"):
        Geometry(affine=np.eye(3), shape=(2, 2, 2))
    with pytest.raises(NotAVolume, match="no voxels"):
        Geometry(affine=np.eye(4), shape=(2, 0, 2))
