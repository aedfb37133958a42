"""What does the bone look like in space? Rendered by VTK in a child process, which may fail without harm."""

import ctypes
import functools
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from reconstruction.convert import is_straight, right_handed
from reconstruction.errors import NotAVolume, RenderingUnavailable
from reconstruction.geometry import Geometry
from reconstruction.render import Rgb, lettered
from reconstruction.render_vtk import NO_LIBRARY
from reconstruction.volume import Hu, Mask, Volume

REMEDY = "install libegl1 or libosmesa6"
AIR_HU = -1024
_TISSUE_HU = -200
_BONE_HU = 150
_NEAR_MM = 15.0
_RIM = 2

# VTK's window class -> the system libraries it needs; the software one first: it asks for no device.
BACKENDS: Mapping[str, Sequence[str]] = {
    "vtkOSOpenGLRenderWindow": ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"),
    "vtkEGLRenderWindow": ("libEGL.so.1",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A direction to look from: ``from_lps`` points from the patient's middle to the eye, ``up_lps`` upwards."""

    name: str
    from_lps: tuple[float, float, float]
    up_lps: tuple[float, float, float] = (0.0, 0.0, 1.0)


ANTERIOR = View(name="anterior", from_lps=(0.0, -1.0, 0.0))
POSTERIOR = View(name="posterior", from_lps=(0.0, 1.0, 0.0))
LEFT = View(name="left lateral", from_lps=(1.0, 0.0, 0.0))
RIGHT = View(name="right lateral", from_lps=(-1.0, 0.0, 0.0))
SUPERIOR = View(name="superior", from_lps=(0.0, 0.0, 1.0), up_lps=(0.0, -1.0, 0.0))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rendered:
    """One rendering: RGB (rows, columns, 3), lettered, and the name of its view."""

    rgb: Rgb
    label: str


def render_bone(
    volume: Volume,
    views: Sequence[View] = (ANTERIOR, LEFT),
    *,
    size: int = 512,
    limit_s: float = 60.0,
    backends: Mapping[str, Sequence[str]] = BACKENDS,
) -> list[Rendered]:
    """Render the bone of a straight volume from each view by ray casting on the CPU, from a reduced grid.

    Runs in a child process because the VTK wheel ends its process where the system has no EGL or OSMesa. Raises
    RenderingUnavailable with the remedy where no backend works or the time is over, NotAVolume for a sheared volume.
    """
    if not is_straight(volume.geometry):
        raise NotAVolume("a sheared volume cannot be rendered; regularise it first")
    with tempfile.TemporaryDirectory(prefix="ctriage-render-") as folder:
        reach_mm = _write_job(Path(folder), volume, views, size)
        _first_that_works(Path(folder), limit_s, backends)
        frames = np.load(Path(folder) / "rgb.npy")
    pixel_mm = reach_mm / size
    return [
        Rendered(rgb=_lettered(rgb, view, pixel_mm), label=view.name) for rgb, view in zip(frames, views, strict=True)
    ]


@functools.cache
def why_not() -> str | None:
    """Say why this system cannot render, with the remedy, without trying; None where a library for it is there."""
    names = [name for libraries in BACKENDS.values() for name in libraries]
    if any(_is_there(name) for name in names):
        return None
    return f"no 3D rendering on this system ({' and '.join(names)} are missing): {REMEDY}"


def _is_there(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def reduced(volume: Volume, *, largest: int = 320) -> Volume:
    """Average whole blocks of voxels until no axis is longer than ``largest``."""
    factors = [-(-n // largest) for n in volume.hu.shape]
    if factors == [1, 1, 1]:
        return volume
    shape = tuple(n // f for n, f in zip(volume.hu.shape, factors, strict=True))
    hu = np.empty(shape, dtype=np.int16)
    for k in range(shape[0]):
        hu[k] = _block_means(volume.hu[k * factors[0] : (k + 1) * factors[0]], factors, shape)
    affine = volume.geometry.affine.copy()
    affine[:3, :3] *= factors
    affine[:3, 3] = volume.geometry.to_mm([(f - 1) / 2.0 for f in factors])
    frame = volume.geometry.frame_of_reference_uid
    return Volume(hu=hu, geometry=Geometry(affine=affine, shape=hu.shape, frame_of_reference_uid=frame))


def without_couch(volume: Volume) -> Volume:
    """Make air of what lies apart from the patient, and crop to the box of the bone.

    The patient is the largest connected part once thin shells are opened away; everything within 15 mm of it stays,
    for a picture may keep a strip of the couch but may not lose a flake of bone.
    """
    solid = volume.hu[::2, ::2, ::2] > _TISSUE_HU
    cross = ndimage.generate_binary_structure(2, 1)[None]
    labels, count = ndimage.label(ndimage.binary_opening(solid, cross, iterations=2))
    if count == 0:
        return volume
    patient = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    sampling = [2.0 * mm for mm in volume.geometry.spacing_mm]
    near = ndimage.distance_transform_edt(~patient, sampling=sampling) <= _NEAR_MM
    kept = near.repeat(2, 0).repeat(2, 1).repeat(2, 2)[tuple(slice(n) for n in volume.hu.shape)]
    hu = np.where(kept, volume.hu, AIR_HU).astype(np.int16)
    bone = hu > _BONE_HU
    if not bone.any():
        return volume
    box = Mask.cropped_from(bone, volume.geometry)
    return _rimmed(hu, box)


def _rimmed(hu: Hu, box: Mask) -> Volume:
    """Crop to a box and lay a rim of air round it: bone at the very edge has no gradient and would be cast black."""
    k, j, i = box.origin_kji
    n, m, p = box.bits.shape
    cut = np.pad(hu[k : k + n, j : j + m, i : i + p], _RIM, constant_values=AIR_HU)
    affine = box.geometry.affine.copy()
    affine[:3, 3] = box.geometry.to_mm((k - _RIM, j - _RIM, i - _RIM))
    frame = box.geometry.frame_of_reference_uid
    return Volume(hu=cut, geometry=Geometry(affine=affine, shape=cut.shape, frame_of_reference_uid=frame))


def _block_means(slab: Hu, factors: Sequence[int], shape: tuple[int, ...]) -> Hu:
    rows, columns = shape[1] * factors[1], shape[2] * factors[2]
    flat = slab[:, :rows, :columns].sum(axis=0, dtype=np.int32)
    sums = flat.reshape(shape[1], factors[1], shape[2], factors[2]).sum(axis=(1, 3))
    means: Hu = np.rint(sums / float(np.prod(factors))).astype(np.int16)
    return means


def _reach_mm(geometry: Geometry) -> float:
    """How much of the patient a square picture shows from edge to edge: the longest side and a small rim."""
    corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in geometry.shape])).reshape(3, -1).T
    return 1.04 * float(np.ptp(geometry.to_mm(corners), axis=0).max())


def _write_job(folder: Path, volume: Volume, views: Sequence[View], size: int) -> float:
    """Write the reduced grid and the order for the child; returns how many mm a picture spans.

    The grid is let go here: this process only waits while the child holds its own.
    """
    small = right_handed(without_couch(reduced(volume)))
    reach_mm = _reach_mm(small.geometry)
    np.save(folder / "hu.npy", np.ascontiguousarray(small.hu))
    job = {
        "affine": small.geometry.affine.tolist(),
        "reach_mm": reach_mm,
        "size": size,
        "views": [{"from_lps": view.from_lps, "up_lps": view.up_lps} for view in views],
    }
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    return reach_mm


def _first_that_works(folder: Path, limit_s: float, backends: Mapping[str, Sequence[str]]) -> None:
    failures = []
    for window, libraries in backends.items():
        failure = _attempt(folder, limit_s, window, libraries)
        if failure is None:
            return
        failures.append(failure)
    raise RenderingUnavailable(f"no 3D rendering on this system ({'; '.join(failures)}): {REMEDY}")


def _attempt(folder: Path, limit_s: float, window: str, libraries: Sequence[str]) -> str | None:
    """Run the child once; return None on success, else why it failed."""
    command = [sys.executable, "-m", "reconstruction.render_vtk", str(folder), window, *libraries]
    try:
        done = subprocess.run(command, capture_output=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        return f"{window} took longer than {limit_s:g} s"
    if done.returncode == NO_LIBRARY:
        return f"{libraries[0]} is missing"
    if done.returncode < 0:
        return f"{window} ended by {signal.Signals(-done.returncode).name}"
    if done.returncode or not (folder / "rgb.npy").exists():
        return f"{window} failed with status {done.returncode}"
    return None


def _lettered(rgb: Rgb, view: View, pixel_mm: float) -> Rgb:
    up = np.array(view.up_lps)
    right = np.cross(-np.array(view.from_lps), up)
    return lettered(rgb, right, -up, pixel_mm=pixel_mm, caption=view.name)
