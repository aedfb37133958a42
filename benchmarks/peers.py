"""How do others read a folder of CT slices into Hounsfield units? Each in its fastest usual way."""

import importlib.util
import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import SimpleITK as sitk

Voxels = npt.NDArray[Any]
NIFTI_TYPES = {4: np.int16, 512: np.uint16, 8: np.int32, 16: np.float32}


def absent() -> dict[str, str]:
    """Name the peers that this machine lacks, and the remedy."""
    missing = {}
    if shutil.which("dcm2niix") is None:
        missing["dcm2niix"] = "dcm2niix is not installed (apt-get install dcm2niix)"
    if importlib.util.find_spec("dicomsdl") is None:
        missing["dicomsdl"] = "dicomsdl is not installed (pip install dicomsdl)"
    return missing


def run_dcm2niix(folder: Path, out: Path) -> None:
    """Run the whole command, uncompressed, into a folder in memory; raises CalledProcessError."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    command = ["dcm2niix", "-z", "n", "-f", "series", "-o", str(out), str(folder)]
    subprocess.run(command, check=True, capture_output=True)


def read_nifti(path: Path) -> Voxels:
    """Return a NIfTI-1 file's values, rescaled, axes (z, y, x)."""
    content = path.read_bytes()
    x, y, z = struct.unpack_from("<3h", content, 42)
    (kind,) = struct.unpack_from("<h", content, 70)
    offset, slope, intercept = struct.unpack_from("<3f", content, 108)
    values = np.frombuffer(content, NIFTI_TYPES[kind], count=x * y * z, offset=int(offset)).reshape(z, y, x)
    return values if (slope, intercept) in ((1, 0), (0, 0)) else values * np.float32(slope) + np.float32(intercept)


def read_simpleitk(folder: Path) -> sitk.Image:
    """Read with ImageSeriesReader and GDCM's file names; no copy into an array is made."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def voxels_of(read: Any) -> Voxels:
    """Return what a reader returned as an array, axes (z, y, x)."""
    return sitk.GetArrayFromImage(read) if isinstance(read, sitk.Image) else np.asarray(read)


def read_pydicom(folder: Path) -> Voxels:
    """Read with pydicom, sort along z, rescale: the recipe of its documents."""
    datasets = [pydicom.dcmread(path) for path in folder.iterdir()]
    return _stacked([(float(d.ImagePositionPatient[2]), d.pixel_array, d) for d in datasets])


def read_dicomsdl(folder: Path) -> Voxels:
    """Read with dicomsdl, sort along z, rescale."""
    import dicomsdl  # type: ignore[import-not-found,unused-ignore]  # optional: measured where it is there

    opened = [dicomsdl.open(str(path)) for path in folder.iterdir()]
    return _stacked([(float(d.ImagePositionPatient[2]), d.pixelData(storedvalue=True), d) for d in opened])


READERS: dict[str, Callable[[Path], Any]] = {
    "simpleitk": read_simpleitk,
    "pydicom": read_pydicom,
    "dicomsdl": read_dicomsdl,
}


def _stacked(slices: Sequence[tuple[float, Voxels, Any]]) -> Voxels:
    ordered = sorted(slices, key=lambda each: each[0])
    volume = np.empty((len(ordered), *ordered[0][1].shape), dtype=np.int16)
    for k, (_, stored, header) in enumerate(ordered):
        np.add(stored, np.int16(header.RescaleIntercept), out=volume[k], dtype=np.int16, casting="unsafe")
    return volume
