"""Both pictures of a needle's path must hold it whole, and its numbers must be those of the patient's geometry."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from reconstruction.errors import ImpossibleView
from reconstruction.geometry import Geometry
from reconstruction.needle import angles, needle_view, pixel_of
from reconstruction.planes import Planes, Slab
from reconstruction.resample import OUTSIDE_HU
from reconstruction.volume import Volume

SHAPE = (40, 60, 64)
_POINTS = st.tuples(st.floats(-28, 28), st.floats(-26, 26), st.floats(-36, 36))


def volume_of(shear: float = 0.0) -> Volume:
    """2 mm slices of 1 mm pixels about the patient's zero; Hounsfield units grow along all axes."""
    affine = np.array([[0, 0, 1.0, 0], [shear * 2, 1, 0, 0], [2, 0, 0, 0], [0, 0, 0, 1]])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2.0)
    geometry = Geometry(affine=affine, shape=SHAPE)
    places = geometry.to_mm(np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"), axis=-1))
    return Volume(hu=np.rint(places @ np.array([5.0, 7.0, 3.0])).astype(np.int16), geometry=geometry)


def off_plane_mm(planes: Planes, place: npt.ArrayLike) -> float:
    normal = np.cross(planes.row_direction, planes.column_direction)
    return abs(float((np.asarray(place) - planes.origins_lps_mm[0]) @ normal))


@settings(max_examples=60, deadline=None)
@given(_POINTS, _POINTS, st.sampled_from([0.0, 0.3]))
def test_both_planes_hold_the_path_and_stand_at_right_angles(
    entry: tuple[float, ...], target: tuple[float, ...], shear: float
) -> None:
    volume = volume_of(shear)
    for each in (entry, target):
        index = volume.geometry.to_index(each)
        assume(((index > 0) & (index < np.array(SHAPE) - 1)).all())
    length = float(np.linalg.norm(np.subtract(target, entry)))
    assume(length > 2)
    view = needle_view(volume, entry, target)
    both = (view.near_axial, view.perpendicular)
    normals = [np.cross(p.row_direction, p.column_direction) for p in both]
    assert abs(float(normals[0] @ normals[1])) < 1e-6
    assert length == pytest.approx(view.length_mm)
    for mark, place in ((view.entry, entry), (view.target, target)):
        assert_allclose(mark.place_lps_mm, place, atol=1e-6)
        for planes, pixel in zip(both, (mark.pixel, mark.pixel_across), strict=True):
            assert off_plane_mm(planes, place) < 1e-6
            assert_allclose(planes.to_mm(0, *pixel), place, atol=1e-6)
            assert (np.array(pixel) > -0.5).all()
            assert (np.array(pixel) < np.array(planes.hu.shape[1:]) - 0.5).all()
    craniocaudal = abs(view.angles.craniocaudal_deg)
    tilted = math.degrees(math.acos(min(1.0, abs(float(normals[0][2])))))
    if craniocaudal < 87:  # no plane through the path is nearer to axial than the path itself leans
        assert tilted == pytest.approx(craniocaudal, abs=1e-3)


def test_depths_are_marked_each_centimetre_and_the_profile_is_that_of_the_tissue() -> None:
    volume = volume_of()
    entry, target = np.array([-10.0, -20.0, 5.0]), np.array([-10.0, 16.0, -22.0])
    view = needle_view(volume, entry, target)
    assert 45.0 == pytest.approx(view.length_mm)
    assert [10, 20, 30, 40] == [mark.depth_mm for mark in view.depths]
    along = (target - entry) / 45.0
    for mark in view.depths:
        assert_allclose(entry + along * mark.depth_mm, mark.place_lps_mm)
        assert_allclose(pixel_of(view.near_axial, np.array(mark.place_lps_mm)), mark.pixel)
    assert_allclose(np.arange(91) * 0.5, view.profile_depth_mm)
    expected = (entry + along * view.profile_depth_mm[:, None]) @ np.array([5.0, 7.0, 3.0])
    assert_allclose(expected, view.profile_hu, atol=1.01)


@pytest.mark.parametrize(
    ("direction", "in_plane", "vertical", "craniocaudal", "tilt"),
    [
        ((0, 1, 0), 0, 0, 0, 0),
        ((1, 1, 0), 45, 45, 0, 0),
        ((-1, 1, 0), -45, 45, 0, 0),
        ((1, 0, 0), 90, 90, 0, 0),
        ((0, -1, 0), 180, 0, 0, 0),
        ((-1, -1, 0), -135, 45, 0, 0),
        ((0, 1, 1), 0, 0, 45, 45),
        ((0, 1, -1), 0, 0, -45, -45),
        ((0, -1, 1), 180, 0, 45, -45),
        ((1, 1, math.sqrt(2)), 45, 45, 45, math.degrees(math.atan(math.sqrt(2)))),
        ((1, 0, 1), 90, 90, 45, None),
        ((0, 0, 1), None, None, 90, None),
        ((0, 0, -1), None, None, -90, None),
    ],
)
def test_angles_have_the_sides_and_signs_their_words_say(
    direction: tuple[float, ...],
    in_plane: float | None,
    vertical: float | None,
    craniocaudal: float,
    tilt: float | None,
) -> None:
    found = angles(direction)
    actual = (found.in_axial_plane_deg, found.from_vertical_deg, found.craniocaudal_deg, found.gantry_tilt_deg)
    assert [(e is None) == (a is None) for e, a in zip((in_plane, vertical, craniocaudal, tilt), actual, strict=True)]
    for expected, angle in zip((in_plane, vertical, craniocaudal, tilt), actual, strict=True):
        assert (expected is None) == (angle is None)
        if expected is not None and angle is not None:
            assert expected == pytest.approx(angle)


@settings(max_examples=60, deadline=None)
@given(_POINTS)
def test_a_scan_plane_tilted_so_far_holds_the_whole_path(direction: tuple[float, float, float]) -> None:
    assume(np.linalg.norm(direction) > 1)
    tilt = angles(direction).gantry_tilt_deg
    if tilt is None:
        assert abs(direction[1]) < 1e-6 * abs(direction[2]) or abs(direction[1]) < 1e-6
        return
    down_a_column = np.array([0.0, math.cos(math.radians(tilt)), math.sin(math.radians(tilt))])
    normal = np.cross((1.0, 0.0, 0.0), down_a_column)
    assert abs(float(normal @ np.array(direction))) < 1e-4 * float(np.linalg.norm(direction))


def test_a_path_straight_to_the_feet_is_shown_from_the_front_and_the_side() -> None:
    view = needle_view(volume_of(), (0, 0, 30), (0, 0, -20))
    assert_allclose([1, 0, 0], view.near_axial.row_direction, atol=1e-9)
    assert_allclose([0, 0, -1], view.near_axial.column_direction, atol=1e-9)
    assert_allclose([0, 1, 0], view.perpendicular.row_direction, atol=1e-9)
    assert_allclose([0, 0, -1], view.perpendicular.column_direction, atol=1e-9)


def test_a_slab_a_size_and_what_is_outside_are_kept_to() -> None:
    volume = volume_of()
    outside = np.zeros(SHAPE, dtype=np.bool_)
    outside[:, :20] = True
    slab = Slab(thickness_mm=4, projection="mip")
    view = needle_view(volume, (0, -20, 0), (0, 20, 0), slab=slab, size_mm=(30, 20), outside=outside)
    assert (1, 30, 20) == view.near_axial.hu.shape
    assert "mip" == view.perpendicular.kind
    assert OUTSIDE_HU == view.profile_hu[0]
    assert_array_equal(view.near_axial.hu[0, 15:].min() > OUTSIDE_HU, np.True_)


@pytest.mark.parametrize(
    ("entry", "target", "why"),
    [
        ((0, 0, 0), (0, 0, 0.5), "same point"),
        ((0, 0, 0), (0, 0, 99), "target point lies outside"),
        ((99, 0, 0), (0, 0, 9), "entry point lies outside"),
        ((0, 0), (0, 0, 9), "entry point is not three numbers"),
        ((0, 0, 0), (0, np.nan, 9), "target point is not three numbers"),
        ("here", (0, 0, 0), "entry point is not three numbers"),
    ],
)
def test_a_path_that_is_none_is_refused(entry: npt.ArrayLike, target: npt.ArrayLike, why: str) -> None:
    with pytest.raises(ImpossibleView, match=why):
        needle_view(volume_of(), entry, target)


def test_a_path_longer_than_any_needle_is_refused() -> None:
    affine = np.diag([10.0, 10.0, 10.0, 1.0])
    volume = Volume(hu=np.zeros((40, 40, 40), dtype=np.int16), geometry=Geometry(affine=affine, shape=(40, 40, 40)))
    with pytest.raises(ImpossibleView, match="longer than any needle"):
        needle_view(volume, (10, 10, 10), (380, 20, 20))
