"""How does a volume become a NIfTI-1 file, with its shear and without a word about the patient?"""

import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import nibabel
import numpy as np

from reconstruction.convert import is_straight, to_ras
from reconstruction.errors import NotAVolume
from reconstruction.geometry import Geometry
from reconstruction.planes import Planes
from reconstruction.volume import Hu, Volume

_SCANNER = 1  # NIFTI_XFORM_SCANNER_ANAT: coordinates of the scanner's own frame of reference
_NO_EXTENSION = bytes(4)  # what stands after the header where nothing extends it
_LONGEST_AXIS = 32767  # the header counts voxels in int16
_EVEN_MM = 0.01


def to_nifti(volume: Volume, path: Path) -> Path:
    """Write Hounsfield units (int16) as ``path``, .nii or .nii.gz; returns the path.

    The sform holds the grid as it is, shear included, as (i, j, k) -> RAS mm; the qform, which can hold no shear, is
    set only where the grid is straight. Raises NotAVolume for another file name or an axis of more than 32,767
    voxels, and OSError.
    """
    return write_slabs(path, volume.geometry, (volume.hu,))


def write_slabs(path: Path, geometry: Geometry, slabs: Iterable[Hu]) -> Path:
    """Write a volume that comes in slabs of slices (kji, k growing), as ``to_nifti``; one slab is held at a time.

    Raises NotAVolume where the slabs together are not the shape of ``geometry``; no file is left then.
    """
    if not path.name.endswith((".nii", ".nii.gz")):
        raise NotAVolume(f"{path.name} is no name of a NIfTI file: end it with .nii or .nii.gz")
    head = _header(geometry)
    aside = path.with_name(f".{path.name}.part")
    try:
        with aside.open("wb") as raw:
            _write(raw, head, slabs, geometry, packed=path.name.endswith(".gz"))
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return path


def grid_of(planes: Planes) -> Geometry:
    """Return evenly spaced planes as a grid (frame, row, column) -> LPS mm; a single one is as thick as its slab.

    Raises NotAVolume where the planes are not evenly spaced.
    """
    origins = planes.origins_lps_mm
    if len(origins) > 1:
        step = (origins[-1] - origins[0]) / (len(origins) - 1)
        expected = origins[0] + np.arange(len(origins))[:, None] * step
        if float(np.abs(origins - expected).max()) > _EVEN_MM:
            raise NotAVolume("planes that are not evenly spaced form no grid")
    else:
        step = np.cross(planes.row_direction, planes.column_direction) * planes.slice_thickness_mm
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = planes.column_direction * planes.pixel_spacing_mm[0]
    affine[:3, 2] = planes.row_direction * planes.pixel_spacing_mm[1]
    affine[:3, 3] = origins[0]
    frames, rows, columns = planes.hu.shape
    return Geometry(affine=affine, shape=(frames, rows, columns))


def _header(geometry: Geometry) -> bytes:
    if max(geometry.shape) > _LONGEST_AXIS:
        raise NotAVolume(f"NIfTI-1 holds at most {_LONGEST_AXIS} voxels along an axis, not {max(geometry.shape)}")
    header = nibabel.Nifti1Header()
    header.set_data_dtype("<i2")
    header.set_data_shape(geometry.shape[::-1])
    header.set_zooms(geometry.spacing_mm[::-1])
    header.set_xyzt_units("mm")
    header.set_slope_inter(1.0, 0.0)
    header["descrip"] = b"ctriage: not a medical device; for research and triage support"
    ras = to_ras(geometry)
    header.set_sform(ras, _SCANNER)
    if is_straight(geometry):
        header.set_qform(ras, _SCANNER)
    header["vox_offset"] = header.single_vox_offset
    header["magic"] = header.single_magic
    return bytes(header.binaryblock)


def _write(raw: IO[bytes], head: bytes, slabs: Iterable[Hu], geometry: Geometry, *, packed: bool) -> None:
    if not packed:
        _write_plain(raw, head, slabs, geometry)
        return
    # No name and no time inside: the same volume gives the same file
    with gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0, compresslevel=4) as zipped:
        _write_plain(zipped, head, slabs, geometry)


def _write_plain(target: IO[bytes] | gzip.GzipFile, head: bytes, slabs: Iterable[Hu], geometry: Geometry) -> None:
    """Write header and voxels: kji in memory order is what NIfTI stores, i the quickest."""
    target.write(head + _NO_EXTENSION)
    written = 0
    for slab in slabs:
        if slab.dtype != np.int16 or slab.ndim != 3 or slab.shape[1:] != geometry.shape[1:]:
            raise NotAVolume(f"a slab of shape {slab.shape} does not belong to a grid of {geometry.shape}")
        for picture in slab:
            target.write(np.ascontiguousarray(picture, dtype="<i2").data)
        written += len(slab)
    if written != geometry.shape[0]:
        raise NotAVolume(f"{written} slices came for a grid of {geometry.shape[0]}")
