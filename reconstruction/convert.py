"""How do our volumes meet libraries with another order of axes? Axes change here and nowhere else."""

import itertools

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from reconstruction.errors import NotAVolume
from reconstruction.geometry import Affine, Geometry
from reconstruction.volume import Hu, Mask, Volume

_SHEAR_TOLERANCE = 1e-4
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


def to_sitk(volume: Volume) -> sitk.Image:
    """Return a SimpleITK image (xyz order, LPS) with the volume's geometry; the voxels are copied.

    Raises NotAVolume for a sheared volume, which SimpleITK cannot hold: regularise it first.
    """
    return _placed(volume.hu, volume.geometry)


def mask_to_sitk(mask: Mask) -> sitk.Image:
    """Return a region on its whole grid as a SimpleITK image of 0 and 1 (uint8). Raises NotAVolume when sheared."""
    return _placed(mask.full().astype(np.uint8), mask.geometry)


def from_sitk(image: sitk.Image, *, frame_of_reference_uid: str | None = None) -> Volume:
    """Return the volume (int16, kji) of a SimpleITK image; values are rounded to whole Hounsfield units."""
    values = sitk.GetArrayFromImage(image)
    limits = np.iinfo(np.int16)
    hu = np.clip(np.rint(values), limits.min, limits.max).astype(np.int16)
    return Volume(hu=hu, geometry=geometry_of(image, frame_of_reference_uid=frame_of_reference_uid))


def mask_from_sitk(image: sitk.Image, geometry: Geometry) -> Mask:
    """Return the region where ``image`` is not 0. It must lie on ``geometry``; raises NotAVolume otherwise."""
    if not geometry_of(image).agrees_with(geometry, within_mm=0.01):
        raise NotAVolume("a region lies on another grid than its volume")
    return Mask.cropped_from(sitk.GetArrayFromImage(image) != 0, geometry)


def geometry_of(image: sitk.Image, *, frame_of_reference_uid: str | None = None) -> Geometry:
    """Return the grid of a 3D SimpleITK image as kji -> LPS mm."""
    if image.GetDimension() != 3:
        raise NotAVolume(f"an image of {image.GetDimension()} dimensions is no volume")
    axes = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine = np.eye(4)
    affine[:3, :3] = axes[:, ::-1]
    affine[:3, 3] = image.GetOrigin()
    i, j, k = image.GetSize()
    return Geometry(affine=affine, shape=(k, j, i), frame_of_reference_uid=frame_of_reference_uid)


def is_straight(geometry: Geometry) -> bool:
    """Say whether the grid's three axes stand at right angles (no shear)."""
    axes = geometry.affine[:3, :3] / np.array(geometry.spacing_mm)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() < _SHEAR_TOLERANCE)


def axial_first(volume: Volume) -> Volume:
    """Return the same voxels with k running mostly head-feet, j front-back and i right-left, in memory order.

    Directions are not flipped. A volume acquired so (axial slices) is returned as it is, others are copied.
    """
    order = nearest_axes(volume.geometry)
    if order == (0, 1, 2) and volume.hu.flags.c_contiguous:
        return volume
    affine = np.eye(4)
    affine[:3, :3] = volume.geometry.affine[:3, list(order)]
    affine[:3, 3] = volume.geometry.affine[:3, 3]
    hu = np.ascontiguousarray(volume.hu.transpose(order))
    return Volume(hu=hu, geometry=_on_grid(affine, hu.shape, volume.geometry))


def nearest_axes(geometry: Geometry) -> tuple[int, int, int]:
    """Return for head-feet, front-back and right-left the array axis that runs nearest to it."""
    along = np.abs(geometry.affine[:3, :3] / np.array(geometry.spacing_mm))
    orders = itertools.permutations(range(3))
    return max(orders, key=lambda o: float(along[2, o[0]] + along[1, o[1]] + along[0, o[2]]))  # type: ignore[return-value]


def right_handed(volume: Volume) -> Volume:
    """Return the same voxels with axes i, j, k right-handed, k reversed where need be: VTK casts no others."""
    if np.linalg.det(volume.geometry.affine[:3, 2::-1]) > 0:
        return volume
    affine = volume.geometry.affine.copy()
    affine[:3, 3] = volume.geometry.to_mm((volume.hu.shape[0] - 1, 0, 0))
    affine[:3, 0] *= -1.0
    hu = np.ascontiguousarray(volume.hu[::-1])
    return Volume(hu=hu, geometry=_on_grid(affine, hu.shape, volume.geometry))


def to_ras(geometry: Geometry) -> Affine:
    """Return the grid as neuroimaging tools hold it: (i, j, k) -> RAS mm, shear and all (NIfTI-1, sform)."""
    ras = np.eye(4)
    ras[:3, :3] = _LPS_TO_RAS @ geometry.affine[:3, 2::-1]
    ras[:3, 3] = _LPS_TO_RAS @ geometry.affine[:3, 3]
    return ras


def from_ras(ras: Affine, shape_ijk: tuple[int, int, int], *, frame_of_reference_uid: str | None = None) -> Geometry:
    """Return the grid of an affine (i, j, k) -> RAS mm. Raises NotAVolume where it spans none."""
    affine = np.eye(4)
    affine[:3, :3] = (_LPS_TO_RAS @ ras[:3, :3])[:, ::-1]
    affine[:3, 3] = _LPS_TO_RAS @ ras[:3, 3]
    i, j, k = shape_ijk
    return Geometry(affine=affine, shape=(k, j, i), frame_of_reference_uid=frame_of_reference_uid)


def _on_grid(affine: Affine, shape: tuple[int, ...], like: Geometry) -> Geometry:
    k, j, i = shape
    return Geometry(affine=affine, shape=(k, j, i), frame_of_reference_uid=like.frame_of_reference_uid)


def _placed(values: Hu | npt.NDArray[np.uint8], geometry: Geometry) -> sitk.Image:
    if not is_straight(geometry):
        raise NotAVolume("SimpleITK cannot hold a sheared volume; regularise it first")
    image = sitk.GetImageFromArray(values)
    spacing = geometry.spacing_mm[::-1]
    axes = geometry.affine[:3, 2::-1] / np.array(spacing)
    u, _, v = np.linalg.svd(axes)  # SimpleITK wants unit axes to the last digit
    image.SetSpacing(spacing)
    image.SetDirection((u @ v).ravel().tolist())
    image.SetOrigin(geometry.affine[:3, 3].tolist())
    return image
