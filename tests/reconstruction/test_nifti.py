"""A NIfTI file puts every voxel where the volume has it, in other people's readers too."""

from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.transform import Rotation

from reconstruction.convert import from_ras, from_sitk, to_ras
from reconstruction.errors import NotAVolume
from reconstruction.geometry import Geometry
from reconstruction.nifti import grid_of, to_nifti, write_slabs
from reconstruction.planes import Planes
from reconstruction.volume import Volume

SHAPE = (4, 5, 6)
LPS_OF_RAS = np.array([-1.0, -1.0, 1.0])
angle = st.floats(-180, 180)
spacing = st.floats(0.2, 10.0)
place = st.floats(-500, 500)


def volume_of(
    angles_deg: tuple[float, float, float] = (0, 0, 0),
    spacings: tuple[float, float, float] = (3.0, 0.5, 0.7),
    origin: tuple[float, float, float] = (-120.0, -80.0, 40.0),
    shear: float = 0.0,
) -> Volume:
    affine = np.eye(4)
    axes = Rotation.from_euler("xyz", angles_deg, degrees=True).as_matrix()[:, ::-1]
    affine[:3, :3] = axes * spacings
    affine[:3, 0] += shear * affine[:3, 1]
    affine[:3, 3] = origin
    hu = (np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE) * 37) - 1024
    return Volume(hu=hu, geometry=Geometry(affine=affine, shape=SHAPE, frame_of_reference_uid="1.2"))


def lps_through_nibabel(path: Path, kji: tuple[int, int, int]) -> np.ndarray:
    image = nibabel.load(path)
    ras = image.affine @ (*kji[::-1], 1.0)
    return np.asarray(ras[:3] * LPS_OF_RAS)


@settings(max_examples=40, deadline=None)
@given(
    angles=st.tuples(angle, angle, angle),
    spacings=st.tuples(spacing, spacing, spacing),
    origin=st.tuples(place, place, place),
    shear=st.floats(-3, 3),
    suffix=st.sampled_from([".nii", ".nii.gz"]),
)
def test_every_voxel_is_found_at_its_place_by_nibabel_sheared_or_not(
    angles: tuple[float, float, float],
    spacings: tuple[float, float, float],
    origin: tuple[float, float, float],
    shear: float,
    suffix: str,
) -> None:
    volume = volume_of(angles, spacings, origin, shear)
    with TemporaryDirectory() as folder:
        path = to_nifti(volume, Path(folder) / f"volume{suffix}")
        image = nibabel.load(path)
        assert_array_equal(volume.hu, np.asarray(image.dataobj).T)
        for kji in ((0, 0, 0), (3, 4, 5), (1, 0, 2)):
            assert_allclose(lps_through_nibabel(path, kji), volume.geometry.to_mm(kji), atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(
    angles=st.tuples(angle, angle, angle),
    spacings=st.tuples(spacing, spacing, spacing),
    origin=st.tuples(place, place, place),
)
def test_every_voxel_of_a_straight_volume_is_found_at_its_place_by_simpleitk(
    angles: tuple[float, float, float], spacings: tuple[float, float, float], origin: tuple[float, float, float]
) -> None:
    volume = volume_of(angles, spacings, origin)
    with TemporaryDirectory() as folder:
        path = to_nifti(volume, Path(folder) / "volume.nii.gz")
        image = sitk.ReadImage(str(path))
        assert_array_equal(volume.hu, from_sitk(image).hu)
        for kji in ((0, 0, 0), (3, 4, 5), (1, 0, 2)):
            found = image.TransformIndexToPhysicalPoint(kji[::-1])
            assert_allclose(found, volume.geometry.to_mm(kji), atol=2e-3)


@given(shear=st.floats(-3, 3), angles=st.tuples(angle, angle, angle))
@settings(max_examples=30, deadline=None)
def test_the_way_to_ras_and_back_moves_nothing(shear: float, angles: tuple[float, float, float]) -> None:
    geometry = volume_of(angles, shear=shear).geometry
    back = from_ras(to_ras(geometry), (6, 5, 4), frame_of_reference_uid="1.2")
    assert back.agrees_with(geometry, within_mm=1e-9)


@pytest.mark.parametrize(("shear", "qform"), [(0.0, 1), (0.5, 0)])
def test_a_qform_stands_only_where_it_can_say_the_truth(shear: float, qform: int, tmp_path: Path) -> None:
    image = nibabel.load(to_nifti(volume_of(shear=shear), tmp_path / "a.nii"))
    header, stored = image.header, image.dataobj
    assert (1, qform) == (int(header["sform_code"]), int(header["qform_code"]))
    assert ("mm", "unknown") == header.get_xyzt_units()
    assert (np.dtype("<i2"), 1.0, 0.0) == (header.get_data_dtype(), stored.slope, stored.inter)


def test_a_file_says_nothing_but_numbers_and_is_the_same_each_time(tmp_path: Path) -> None:
    volume = volume_of()
    once = to_nifti(volume, tmp_path / "a.nii.gz").read_bytes()
    header = nibabel.load(tmp_path / "a.nii.gz").header
    assert {b""} == {bytes(header[name].tobytes()).strip(b"\0") for name in ("aux_file", "intent_name")}
    assert b"not a medical device" in bytes(header["descrip"].tobytes())
    assert once == to_nifti(volume, tmp_path / "b.nii.gz").read_bytes()


def test_slabs_one_after_the_other_are_the_volume(tmp_path: Path) -> None:
    volume = volume_of((10, 20, 30))
    slabs = (volume.hu[k : k + 3] for k in range(0, 4, 3))
    together = write_slabs(tmp_path / "slabs.nii", volume.geometry, slabs).read_bytes()
    assert to_nifti(volume, tmp_path / "whole.nii").read_bytes() == together


@pytest.mark.parametrize("slabs", [(0, 3), (0, 4, 4)])
def test_too_few_or_too_many_slices_leave_no_file(slabs: tuple[int, ...], tmp_path: Path) -> None:
    volume = volume_of()
    parts = [volume.hu[:end] for end in slabs]
    with pytest.raises(NotAVolume, match="for a grid of 4"):
        write_slabs(tmp_path / "a.nii", volume.geometry, parts)
    assert [] == list(tmp_path.iterdir())


def test_a_slab_of_another_grid_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(NotAVolume, match="does not belong"):
        write_slabs(tmp_path / "a.nii", volume_of().geometry, [np.zeros((4, 5, 5), dtype=np.int16)])
    assert [] == list(tmp_path.iterdir())


def test_a_name_that_is_none_of_nifti_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotAVolume, match=r"\.nii"):
        to_nifti(volume_of(), tmp_path / "volume.img")


def test_an_axis_that_the_header_cannot_count_is_refused(tmp_path: Path) -> None:
    geometry = Geometry(affine=np.eye(4), shape=(40000, 1, 1))
    with pytest.raises(NotAVolume, match="32767"):
        write_slabs(tmp_path / "long.nii", geometry, [])


def planes_at(*places_mm: float) -> Planes:
    return Planes(
        hu=np.zeros((len(places_mm), 3, 4), dtype=np.int16),
        origins_lps_mm=np.array([[1.0, y, 2.0] for y in places_mm]),
        row_direction=np.array([1.0, 0, 0]),
        column_direction=np.array([0, 0, -1.0]),
        pixel_spacing_mm=(0.8, 0.5),
        slice_thickness_mm=3.0,
        spacing_between_mm=2.0,
        orientation="coronal",
        kind="mpr",
    )


@pytest.mark.parametrize("places", [(5.0,), (5.0, 7.0, 9.0)])
def test_planes_are_a_grid_with_every_pixel_at_its_place(places: tuple[float, ...]) -> None:
    planes = planes_at(*places)
    grid = grid_of(planes)
    for frame, row, column in ((0, 0, 0), (len(places) - 1, 2, 3)):
        assert_allclose(grid.to_mm((frame, row, column)), planes.to_mm(frame, row, column), atol=1e-9)


def test_a_single_plane_is_as_thick_as_its_slab() -> None:
    assert 3.0 == pytest.approx(grid_of(planes_at(5.0)).spacing_mm[0])


def test_uneven_planes_are_no_grid() -> None:
    with pytest.raises(NotAVolume, match="evenly"):
        grid_of(planes_at(5.0, 7.0, 10.0))
