"""Puts a bleed of known volume into any head, real or digital."""

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.phantom.blob import Blob, NoRoom, make_blob, solve
from reconstruction.geometry import Geometry, Points
from reconstruction.volume import Mask, Volume

Floats = npt.NDArray[np.float32]
Index = tuple[int, int, int]

SOFT_TISSUE_HU = (-25, 105)
FINEST_MM = 0.9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Implanted:
    """A volume with a bleed in it and the truth about that bleed.

    ``region`` holds the voxels at least half filled; ``volume_ml`` and ``centroid_lps_mm`` count every voxel with its
    filled fraction.
    """

    volume: Volume
    region: Mask
    volume_ml: float
    centroid_lps_mm: tuple[float, float, float]


def implant_bleed(
    volume: Volume, *, centre_lps_mm: npt.ArrayLike, volume_ml: float, bleed_hu: float = 65.0, seed: int = 0
) -> Implanted:
    """Put a smooth, irregular bleed of ``volume_ml`` into ``volume`` around ``centre_lps_mm`` (LPS, mm).

    The grid may be anisotropic and sheared; slices are taken to be as thick as their step. Bone and air bound the
    bleed, and so does anything they part from its centre. Its noise has the strength and grain of the tissue around.
    The same arguments give the same result. Raises NoRoom where the place cannot hold it.
    """
    rng = np.random.default_rng(seed)
    centre = np.asarray(centre_lps_mm, dtype=np.float64)
    blob = make_blob(rng, centre_mm=centre, volume_ml=volume_ml)
    box = _box_around(volume.geometry, centre, 2.2 * blob.radius_mm + 3.0)
    hu = volume.hu[box].astype(np.float32)
    grid = volume.geometry.cropped(_origin(box), (hu.shape[0], hu.shape[1], hu.shape[2]))
    room = _room_around(hu, grid, centre)
    fraction = _filled(grid, blob, volume_ml, room=room)
    grain = _noise_like(hu, room, rng)
    mixed = hu * (1 - fraction) + (np.float32(bleed_hu) + grain) * fraction
    return _with_box(volume, box, mixed, fraction)


def _box_around(geometry: Geometry, centre: Points, reach_mm: float) -> tuple[slice, slice, slice]:
    """Return the part of the grid that holds the sphere of ``reach_mm`` round ``centre``."""
    per_mm = np.linalg.norm(np.linalg.inv(geometry.affine)[:3, :3], axis=1)
    middle = geometry.to_index(centre)
    if np.any(middle < -0.5) or np.any(middle > np.array(geometry.shape) - 0.5):
        raise NoRoom("the centre given lies outside the volume")
    low = np.maximum(np.floor(middle - reach_mm * per_mm), 0).astype(int)
    high = np.minimum(np.ceil(middle + reach_mm * per_mm) + 1, geometry.shape).astype(int)
    k, j, i = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return k, j, i


def _origin(box: tuple[slice, slice, slice]) -> Index:
    return int(box[0].start), int(box[1].start), int(box[2].start)


def _room_around(hu: Floats, grid: Geometry, centre: Points) -> npt.NDArray[np.bool_]:
    """Return the soft tissue that is joined to the centre without passing bone or air."""
    calm = ndimage.gaussian_filter(hu, (0, 1, 1))
    soft = (calm > SOFT_TISSUE_HU[0]) & (calm < SOFT_TISSUE_HU[1])
    soft = ndimage.binary_erosion(soft, np.ones((1, 3, 3), dtype=np.bool_), border_value=1)
    labels, _ = ndimage.label(soft)
    k, j, i = np.rint(grid.to_index(centre)).astype(int).clip(0, np.array(hu.shape) - 1)
    if labels[k, j, i] == 0:
        raise NoRoom("the centre given lies in bone, air or fat")
    return np.asarray(labels == labels[k, j, i])


def _filled(grid: Geometry, blob: Blob, volume_ml: float, *, room: npt.NDArray[np.bool_]) -> Floats:
    """Return each voxel's filled fraction (0..1), summing to ``volume_ml``."""
    levels = _levels(grid, blob)

    def fraction(threshold: float) -> Floats:
        return np.asarray(blob.filled(levels, threshold).mean(axis=0) * room, dtype=np.float32)

    wanted = volume_ml / grid.voxel_ml
    threshold = solve(lambda t: float(fraction(t).sum(dtype=np.float64)), wanted, most=2.0)
    if threshold is None:
        raise NoRoom(f"the soft tissue around the centre given has no room for {volume_ml:g} mL")
    return fraction(threshold)


def _levels(grid: Geometry, blob: Blob) -> Floats:
    """Return the blob's level at each sample of each voxel: (sample, k, j, i)."""
    indices = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), axis=-1)
    points = grid.to_mm(indices)
    return np.stack([blob.level(points + offset) for offset in _sample_offsets(grid)])


def _sample_offsets(grid: Geometry) -> Points:
    """Return sample places in a voxel (mm from its centre): across the slab along its normal, and in plane."""
    row, column = grid.affine[:3, 1], grid.affine[:3, 2]
    sides = (grid.normal * grid.slice_step_mm, row, column)
    counts = [max(1, int(np.ceil(np.linalg.norm(side) / FINEST_MM))) for side in sides]
    places = [(np.arange(n) + 0.5) / n - 0.5 for n in counts]
    steps = np.array(list(product(*places)))
    return np.asarray(steps @ np.stack(sides), dtype=np.float64)


def _noise_like(hu: Floats, room: npt.NDArray[np.bool_], rng: np.random.Generator) -> Floats:
    """Return noise with the strength and the in-plane grain of the soft tissue in ``room``, in HU."""
    residual = hu - ndimage.gaussian_filter(hu, (0, 2.5, 2.5))
    inner = ndimage.binary_erosion(room, np.ones((1, 7, 7), dtype=np.bool_))
    inner = inner if np.count_nonzero(inner) > 50 else room
    values = residual[inner]
    sigma = 1.4826 * float(np.median(np.abs(values - np.median(values))))
    pairs = inner[:, :, 1:] & inner[:, :, :-1]
    clipped = np.clip(residual, -3 * sigma, 3 * sigma)
    alike = float(np.mean(clipped[:, :, 1:][pairs] * clipped[:, :, :-1][pairs])) / max(sigma**2, 1e-6)
    grain_px = np.sqrt(-1 / (4 * np.log(np.clip(alike, 0.02, 0.95))))
    noise = ndimage.gaussian_filter(rng.normal(size=hu.shape), (0, grain_px, grain_px))
    return np.asarray(noise * (sigma / noise.std()), dtype=np.float32)


def _with_box(volume: Volume, box: tuple[slice, slice, slice], mixed: Floats, fraction: Floats) -> Implanted:
    hu = volume.hu.copy()
    hu[box] = np.rint(mixed).astype(np.int16)
    full = np.zeros(hu.shape, dtype=np.bool_)
    full[box] = fraction >= 0.5
    filled = np.argwhere(fraction > 0)
    weights = fraction[fraction > 0].astype(np.float64)
    centroid = volume.geometry.to_mm(weights @ (filled + _origin(box)) / weights.sum())
    return Implanted(
        volume=Volume(hu=hu, geometry=volume.geometry),
        region=Mask.cropped_from(full, volume.geometry),
        volume_ml=float(weights.sum() * volume.geometry.voxel_ml),
        centroid_lps_mm=(float(centroid[0]), float(centroid[1]), float(centroid[2])),
    )
