"""A plane of any orientation must show the tissue of its millimetre, upright, and nothing from outside the volume."""

import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.transform import Rotation

from reconstruction.assemble import assemble, pixel_reader
from reconstruction.errors import ImpossibleView
from reconstruction.geometry import Geometry
from reconstruction.headers import read_header
from reconstruction.oblique import SINGLE, Plane, oblique
from reconstruction.planes import Orientation, Planes, Projection, Slab
from reconstruction.project import slabs
from reconstruction.render import Flat, frame, letters, upright
from reconstruction.resample import OUTSIDE_HU
from reconstruction.slices import stack_of
from reconstruction.volume import Volume

SHAPE = (9, 14, 17)
RAMP = np.array([3.0, -4.0, 5.0])

_ANGLES = st.tuples(*[st.floats(-180, 180)] * 3)
_SPACINGS = st.tuples(*[st.floats(0.4, 5.0)] * 3)
_SHEARS = st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5))
_NORMALS = st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda n: np.linalg.norm(n) > 0.1)


def leaning(
    angles_deg: tuple[float, ...], spacing_kji: tuple[float, ...], shear: tuple[float, float] = (0.0, 0.0)
) -> Geometry:
    """A grid turned by Euler angles, its slices drifting in plane by ``shear`` (rows, columns) for each mm."""
    axes = np.column_stack([(0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)])
    axes[:, 0] += shear[0] * axes[:, 1] + shear[1] * axes[:, 2]
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles_deg, degrees=True).as_matrix() @ axes * np.array(spacing_kji)
    affine[:3, 3] = (-31.0, 12.5, 470.0)
    return Geometry(affine=affine, shape=SHAPE)


def noise(geometry: Geometry, seed: int = 0) -> Volume:
    hu = np.random.default_rng(seed).integers(-1000, 3000, geometry.shape, dtype=np.int16)
    return Volume(hu=hu, geometry=geometry)


def ramp(geometry: Geometry) -> Volume:
    places = geometry.to_mm(np.stack(np.meshgrid(*[np.arange(n) for n in geometry.shape], indexing="ij"), axis=-1))
    return Volume(hu=np.rint((places - middle(geometry)) @ RAMP * 10).astype(np.int16), geometry=geometry)


def middle(geometry: Geometry) -> npt.NDArray[np.float64]:
    return geometry.to_mm((np.array(geometry.shape) - 1) / 2.0)


def places_of(planes: Planes) -> npt.NDArray[np.float64]:
    frames, rows, columns = planes.hu.shape
    grid = itertools.product(range(frames), range(rows), range(columns))
    return np.array([planes.to_mm(*at) for at in grid]).reshape(frames, rows, columns, 3)


@settings(max_examples=60, deadline=None)
@given(_ANGLES, _SPACINGS, _SHEARS, st.integers(0, SHAPE[0] - 1))
def test_a_plane_on_an_acquired_slice_is_that_slice(
    angles: tuple[float, ...], spacing: tuple[float, ...], shear: tuple[float, float], k: int
) -> None:
    volume = noise(leaning(angles, spacing, shear))
    down, along = (volume.geometry.affine[:3, axis] for axis in (1, 2))
    centre = volume.geometry.to_mm((k, 6.5, 8.0))
    plane = Plane(centre_lps_mm=centre, row_direction=along, column_direction=down)
    planes = oblique(volume, plane, pixel_mm=volume.geometry.spacing_mm[1:])
    assert_array_equal(volume.hu[k], planes.hu[0])
    assert_allclose(volume.geometry.to_mm((k, 0, 0)), planes.origins_lps_mm[0], atol=1e-6)


def test_a_plane_on_a_slice_of_a_real_tilted_scan_is_that_slice(shared_data: Path) -> None:
    folder = shared_data / "head_phantom_philips" / "tilt_plus_16"
    headers = {}
    for path in sorted(folder.rglob("I*")):
        headers[path] = read_header(path)
    stack = stack_of(list(headers.values()))
    volume = assemble(stack, pixel_reader({h.sop_instance_uid: path for path, h in headers.items()})).volume
    assert 16.5 == pytest.approx(volume.geometry.tilt_deg, abs=0.01)
    down, along = (volume.geometry.affine[:3, axis] for axis in (1, 2))
    for k in (0, 7, len(volume.hu) - 1):
        plane = Plane(centre_lps_mm=volume.geometry.to_mm((k, 100, 100)), row_direction=along, column_direction=down)
        assert_array_equal(volume.hu[k], oblique(volume, plane).hu[0])


@settings(max_examples=60, deadline=None)
@given(_ANGLES, _SPACINGS, _SHEARS, _NORMALS, st.sampled_from([0.0, 2.0, 7.5]))
def test_a_linear_ramp_is_reproduced_in_every_orientation_and_thickness(
    angles: tuple[float, ...],
    spacing: tuple[float, ...],
    shear: tuple[float, float],
    normal: tuple[float, ...],
    thickness_mm: float,
) -> None:
    geometry = leaning(angles, spacing, shear)
    volume = ramp(geometry)
    slab = Slab(thickness_mm=thickness_mm, step_mm=3.0, count=3)
    planes = oblique(volume, Plane.facing(normal, middle(geometry)), slab=slab, pixel_mm=4.0)
    places = places_of(planes)
    ends = [geometry.to_index(places + d * thickness_mm / 2.0 * plane_normal(planes)) for d in (-1, 1)]
    whole = np.logical_and.reduce([((e >= 0) & (e <= np.array(SHAPE) - 1)).all(axis=-1) for e in ends])
    expected = (places - middle(geometry)) @ RAMP * 10
    assert_allclose(planes.hu[whole], expected[whole], atol=1.01)


def plane_normal(planes: Planes) -> npt.NDArray[np.float64]:
    return np.cross(planes.row_direction, planes.column_direction)


@settings(max_examples=40, deadline=None)
@given(_ANGLES, _SPACINGS, _SHEARS, _NORMALS)
def test_the_picture_covers_every_voxel_it_cuts_and_outside_is_marked(
    angles: tuple[float, ...], spacing: tuple[float, ...], shear: tuple[float, float], normal: tuple[float, ...]
) -> None:
    volume = Volume(hu=np.full(SHAPE, 50, dtype=np.int16), geometry=leaning(angles, spacing, shear))
    planes = oblique(volume, Plane.facing(normal, middle(volume.geometry)), pixel_mm=1.0)
    index = volume.geometry.to_index(places_of(planes)[0])
    depth = np.minimum(index, np.array(SHAPE) - 1 - index).min(axis=-1)
    assert (planes.hu[0][depth > 1e-3] == 50).all()
    assert (planes.hu[0][depth < -1e-3] == OUTSIDE_HU).all()
    for row, column in itertools.product((-1, planes.hu.shape[1]), (-1, planes.hu.shape[2])):
        edge = volume.geometry.to_index(planes.to_mm(0, row, column))
        assert ((edge < 1e-3) | (edge > np.array(SHAPE) - 1 - 1e-3)).any()


@settings(max_examples=150, deadline=None)
@given(_NORMALS)
def test_a_plane_given_by_its_normal_stands_upright(normal: tuple[float, ...]) -> None:
    plane = Plane.facing(normal, (0, 0, 0))
    flipped = Plane.facing([-each for each in normal], (0, 0, 0))
    assert_allclose(np.cross(plane.normal, np.array(normal) / np.linalg.norm(normal)), 0, atol=1e-9)
    assert_allclose(plane.row_direction, flipped.row_direction, atol=1e-9)
    assert_allclose(plane.column_direction, flipped.column_direction, atol=1e-9)
    sizes = sorted(np.abs(normal))
    if sizes[2] - sizes[1] > 1e-3:  # where two of the patient's axes are as near, either is right
        flat = Flat(
            pixels=np.zeros((2, 3)),
            row_direction=plane.row_direction,
            column_direction=plane.column_direction,
            pixel_spacing_mm=(1.0, 1.0),
        )
        assert_array_equal(plane.row_direction, upright(flat).row_direction)
        assert_array_equal(plane.column_direction, upright(flat).column_direction)


@pytest.mark.parametrize(
    ("normal", "expected"),
    [((0, 0, 1), "RLAP"), ((0, 1, 0), "RLHF"), ((1, 0, 0), "APHF"), ((0, 0.2, -1), "RLAP"), ((0.9, -0.1, 0.1), "APHF")],
)
def test_right_anterior_and_head_are_where_a_radiologist_looks_for_them(
    normal: tuple[float, ...], expected: str
) -> None:
    plane = Plane.facing(normal, (0, 0, 0))
    edges = (-plane.row_direction, plane.row_direction, -plane.column_direction, plane.column_direction)
    assert expected == "".join(letters(each)[0] for each in edges)


@pytest.mark.parametrize("orientation", ["coronal", "sagittal", "axial"])
@pytest.mark.parametrize("projection", ["mean", "mip", "minip"])
def test_slabs_along_the_axes_agree_with_the_standard_ones(orientation: Orientation, projection: Projection) -> None:
    geometry = leaning((0, 0, 0), (0.8, 0.8, 0.8))
    volume = noise(geometry)
    odd = SHAPE[("axial", "coronal", "sagittal").index(orientation)] % 2
    slab = Slab(thickness_mm=2.4 if odd else 1.6, count=1, projection=projection)  # its edges halve no voxel
    expected = slabs(volume, orientation, slab=slab)
    centre = expected.to_mm(0, 0, 0)
    plane = Plane(
        centre_lps_mm=centre, row_direction=expected.row_direction, column_direction=expected.column_direction
    )
    actual = oblique(volume, plane, slab=slab)
    assert_allclose(expected.hu, actual.hu, atol=1 if projection == "mean" else 0)
    assert_allclose(expected.origins_lps_mm, actual.origins_lps_mm, atol=1e-9)
    assert expected.hu.shape == actual.hu.shape


def test_as_many_parallel_pictures_are_made_as_the_volume_holds() -> None:
    volume = ramp(leaning((10, 20, 30), (1.0, 1.0, 1.0)))
    plane = Plane.facing((0.3, 0.8, 0.5), middle(volume.geometry))
    every = oblique(volume, plane, slab=Slab(thickness_mm=1.0, step_mm=2.0))
    away = (every.origins_lps_mm - plane.centre_lps_mm) @ plane.normal
    assert_allclose(np.diff(away), 2.0, atol=1e-9)
    corners = volume.geometry.to_mm(np.array(list(itertools.product(*[(0, n - 1) for n in SHAPE]))))
    reach = (corners - plane.centre_lps_mm) @ plane.normal
    assert reach.min() <= away[0] < reach.min() + 2.0
    assert reach.max() - 2.0 < away[-1] <= reach.max()
    assert (2.0, "mpr", "oblique") == (every.spacing_between_mm, every.kind, every.orientation)
    assert every.slice_thickness_mm == pytest.approx(1.0)


def test_samples_outside_the_volume_enter_no_mean() -> None:
    volume = Volume(hu=np.full(SHAPE, 70, dtype=np.int16), geometry=leaning((0, 0, 0), (1.0, 1.0, 1.0)))
    edge = volume.geometry.to_mm((4, 0, 8))
    plane = Plane.facing((0, 1, 0), edge)
    planes = oblique(volume, plane, slab=Slab(thickness_mm=6.0, count=1))
    assert {70} == set(planes.hu.ravel().tolist())


def test_what_is_outside_has_no_share_in_a_pixel() -> None:
    geometry = leaning((0, 0, 0), (1.0, 1.0, 1.0))
    outside = np.zeros(SHAPE, dtype=np.bool_)
    outside[:, :, 9:] = True
    hu = np.where(outside, OUTSIDE_HU, 40).astype(np.int16)
    volume = Volume(hu=hu, geometry=geometry)
    plane = Plane.facing((0, 0.4, 1.0), middle(geometry))
    projections: tuple[Projection, ...] = ("mean", "mip", "minip")
    for projection in projections:
        slab = Slab(thickness_mm=4.0, count=1, projection=projection)
        found = oblique(volume, plane, slab=slab, pixel_mm=0.7, outside=outside).hu
        assert {OUTSIDE_HU, 40} == set(found.ravel().tolist())


def test_a_chosen_size_lies_about_the_centre() -> None:
    volume = noise(leaning((0, 0, 0), (1.0, 1.0, 1.0)))
    plane = Plane.facing((0, 0, 1), volume.geometry.to_mm((4, 5, 6)))
    planes = oblique(volume, plane, size_mm=(3.0, 5.0), pixel_mm=1.0)
    assert_array_equal(volume.hu[4, 4:7, 4:9], planes.hu[0])


def test_planes_and_pictures_that_cannot_be_are_refused() -> None:
    volume = noise(leaning((0, 0, 0), (1.0, 1.0, 1.0)))
    plane = Plane.facing((0, 0, 1), middle(volume.geometry))
    with pytest.raises(ImpossibleView, match="does not cut"):
        oblique(volume, Plane.facing((0, 0, 1), (0, 0, 0)))
    with pytest.raises(ImpossibleView, match="cuts the volume"):
        oblique(volume, Plane.facing((0, 0, 1), (0, 0, 469)), slab=Slab(thickness_mm=1, step_mm=500.0))
    for wrong in (0.0, float("nan"), (1.0, -1.0)):
        with pytest.raises(ImpossibleView, match="pixels"):
            oblique(volume, plane, pixel_mm=wrong)
    with pytest.raises(ImpossibleView, match="8192"):
        oblique(volume, plane, pixel_mm=1e-4)
    with pytest.raises(ImpossibleView, match="2 GiB"):
        oblique(volume, plane, size_mm=(8000, 8000), pixel_mm=1.0, slab=Slab(count=100))
    with pytest.raises(ImpossibleView, match="size"):
        oblique(volume, plane, size_mm=(0.0, 1.0))
    with pytest.raises(ImpossibleView, match="shape"):
        oblique(volume, plane, outside=np.ones((1, 1, 1), dtype=np.bool_))
    with pytest.raises(ImpossibleView, match="right angles"):
        Plane(centre_lps_mm=np.zeros(3), row_direction=np.array([1.0, 0, 0]), column_direction=np.array([1.0, 1, 0]))
    for normal in ((0, 0, 0), (np.nan, 0, 1), (1, 2), "up"):
        with pytest.raises(ImpossibleView):
            Plane.facing(normal, (0, 0, 0))


def test_a_lone_slice_can_be_cut_too() -> None:
    geometry = Geometry(affine=leaning((0, 0, 0), (3.0, 1.0, 1.0)).affine, shape=(1, 5, 6))
    volume = noise(geometry)
    planes = oblique(volume, Plane.facing((0, 0, 1), geometry.to_mm((0, 2, 2))), slab=SINGLE)
    assert_array_equal(volume.hu, planes.hu)
    assert "A" in letters(-frame(planes, 0).column_direction)
