"""Which places inside the skull are denser than their surroundings, and what are they like?"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from pipeline.detectors.head import Head
from pipeline.detectors.upright import Box, Floats, Spacing, Upright, block_mean
from reconstruction.volume import Bits

SMOOTH_MM = 1.5
SURROUNDINGS_MM = 15.0
COARSE_MM = 4.0
LOOK_FROM_HU = 9.0
RIM_MM = 3.0
PARTIAL_SLICES = 1.25
CALCIUM_HU = 100.0
SMALLEST_ML = 0.3
THIN_MM = 2.0
MOST_CANDIDATES = 24


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contrast:
    """How much denser each voxel is than its surroundings; 0 outside ``zone``.

    ``zone`` is the inside of the skull without the rim where bone's partial volume makes brain look dense.
    ``from_bone_mm`` is the distance to bone, with slices counted as at most RIM_MM apart.
    """

    hu: Floats
    smooth_hu: Floats
    zone: Bits
    from_bone_mm: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """A dense place: its voxels in ``box`` of the head's grid, and the measured traits it is judged by.

    ``calcium`` is the share of voxels above CALCIUM_HU; ``section`` the area of the head's inside at this level as a
    share of the largest: small near the vertex and the foramen magnum, where bone is all around;
    ``core_ml`` what is left when THIN_MM are taken off every side that is not bone.
    """

    bits: Bits
    box: Box
    volume_ml: float
    contrast_hu: float
    mean_hu: float
    half_thickness_mm: float
    calcium: float
    from_bone_mm: float
    section: float
    core_ml: float = 0.0


def contrast_of(head: Head) -> Contrast:
    """Smooth to the noise and subtract local surroundings and the bright rim that beam hardening leaves."""
    image = head.image
    from_bone = _from_bone(head.bone, image)
    zone = head.inside & (from_bone > RIM_MM)
    smooth = blurred_within(np.clip(image.hu, -10, 120), head.inside, SMOOTH_MM, image.spacing_mm)
    level = _surroundings(smooth, zone, head)
    excess = np.where(zone, smooth - np.maximum(level, head.tissue_hu - 3), 0)
    return Contrast(hu=_without_rim(excess, zone, from_bone), smooth_hu=smooth, zone=zone, from_bone_mm=from_bone)


def blurred_within(hu: Floats, bits: Bits, sigma_mm: float, spacing_mm: Spacing) -> Floats:
    """Blur with a Gaussian that sees only the voxels in ``bits``."""
    sigma = [sigma_mm / mm for mm in spacing_mm]
    weight = ndimage.gaussian_filter(bits.astype(np.float32), sigma, truncate=3.0)
    total = ndimage.gaussian_filter(np.where(bits, hu, np.float32(0)), sigma, truncate=3.0)
    return np.asarray(total / np.maximum(weight, 1e-3), dtype=np.float32)


def candidates(contrast: Contrast, head: Head) -> Iterator[Candidate]:
    """Yield dense places, the largest first, each cut free of thin sheets (falx, tentorium) that join them.

    The rim at the bone, where nothing can be told, counts as dense while sheets are thinned away: blood that lies
    along the bone is as thick as it looks and the rim besides.
    """
    dense = contrast.hu > LOOK_FROM_HU
    unknown = head.bone | (head.inside & ~contrast.zone)
    core = ndimage.binary_erosion(dense | unknown, _ball(THIN_MM, head.image.spacing_mm)) & dense
    labels, _ = ndimage.label(core, np.ones((3, 3, 3), dtype=np.int8))
    sizes = np.bincount(labels.ravel())[1:]
    boxes = ndimage.find_objects(labels)
    for label in np.argsort(-sizes, kind="stable")[:MOST_CANDIDATES]:
        box = widened(boxes[label], THIN_MM + 1.5, head.image)
        grown = ndimage.binary_dilation(labels[box] == label + 1, _ball(THIN_MM + 0.5, head.image.spacing_mm))
        bits = grown & dense[box]
        if np.count_nonzero(bits) * head.image.voxel_ml >= SMALLEST_ML:
            core_ml = int(sizes[label]) * head.image.voxel_ml
            yield replace(_described(bits, box, contrast, head), core_ml=core_ml)


def widened(box: Box, reach_mm: float, image: Upright) -> Box:
    """Widen a box of the head's grid on all sides, within the grid."""
    reach = [int(np.ceil(reach_mm / mm)) for mm in image.spacing_mm]
    ends = zip(box, reach, image.hu.shape, strict=True)
    first, second, third = (slice(max(0, s.start - r), min(n, s.stop + r)) for s, r, n in ends)
    return first, second, third


def _ball(radius_mm: float, spacing_mm: Spacing) -> Bits:
    reach = [int(radius_mm / mm) for mm in spacing_mm]
    grid = np.ogrid[tuple(slice(-r, r + 1) for r in reach)]
    squares = [(axis * mm) ** 2 for axis, mm in zip(grid, spacing_mm, strict=True)]
    return np.asarray(squares[0] + squares[1] + squares[2] <= radius_mm**2, dtype=np.bool_)


def _from_bone(bone: Bits, image: Upright) -> Floats:
    squeeze = RIM_MM / max(RIM_MM, PARTIAL_SLICES * image.slice_mm)
    sampling = (image.spacing_mm[0] * squeeze, image.spacing_mm[1], image.spacing_mm[2])
    return ndimage.distance_transform_edt(~bone, sampling=sampling).astype(np.float32)


def _surroundings(smooth: Floats, zone: Bits, head: Head) -> Floats:
    first, second, third = factors = tuple(max(1, round(COARSE_MM / mm)) for mm in head.image.spacing_mm)
    padding = [(0, -n % f) for n, f in zip(zone.shape, factors, strict=True)]
    weight = block_mean(np.pad(zone, padding), (first, second, third))
    values = block_mean(np.pad(np.where(zone, smooth, 0), padding), (first, second, third)) / np.maximum(weight, 1e-3)
    sigma = [SURROUNDINGS_MM / (mm * f) for mm, f in zip(head.image.spacing_mm, factors, strict=True)]
    spread = np.maximum(ndimage.gaussian_filter(weight, sigma), 1e-4)
    level = np.full_like(values, head.tissue_hu)
    for _ in range(2):
        level = ndimage.gaussian_filter(np.clip(values, level - 8, level + 6) * weight, sigma) / spread
    return _finer(level.astype(np.float32), (first, second, third), zone.shape)


def _finer(coarse: Floats, factors: tuple[int, int, int], shape: tuple[int, ...]) -> Floats:
    for axis, (factor, count) in enumerate(zip(factors, shape, strict=True)):
        at = np.clip((np.arange(count) + 0.5) / factor - 0.5, 0, coarse.shape[axis] - 1)
        low = np.minimum(at.astype(int), max(0, coarse.shape[axis] - 2))
        part = np.expand_dims(at - low, [a for a in range(3) if a != axis]).astype(np.float32)
        high = np.minimum(low + 1, coarse.shape[axis] - 1)
        coarse = np.take(coarse, low, axis) * (1 - part) + np.take(coarse, high, axis) * part
    return coarse


def _without_rim(excess: Floats, zone: Bits, from_bone_mm: Floats) -> Floats:
    """Subtract the median excess at each distance from bone: what beam hardening does all around the head."""
    bins = np.minimum(from_bone_mm[zone], 30).astype(int)
    values = excess[zone]
    profile = np.array([np.median(values[bins == b]) if np.any(bins == b) else 0 for b in range(31)])
    excess[zone] = values - np.clip(profile, 0, 12)[bins]
    return excess


def _described(bits: Bits, box: Box, contrast: Contrast, head: Head) -> Candidate:
    depth = ndimage.distance_transform_edt(np.pad(bits, 1), sampling=head.image.spacing_mm)[1:-1, 1:-1, 1:-1]
    deep = bits & (depth >= 0.5 * depth.max())
    return Candidate(
        bits=bits,
        box=box,
        volume_ml=int(np.count_nonzero(bits)) * head.image.voxel_ml,
        contrast_hu=float(contrast.hu[box][deep].mean()),
        mean_hu=float(contrast.smooth_hu[box][deep].mean()),
        half_thickness_mm=float(depth.max()),
        calcium=float(np.mean(head.image.hu[box][bits] > CALCIUM_HU)),
        from_bone_mm=float(np.median(contrast.from_bone_mm[box][bits])),
        section=_section(bits, box, head),
    )


def _section(bits: Bits, box: Box, head: Head) -> float:
    areas = head.inside.sum(axis=(1, 2))
    middle = box[0].start + int(np.median(np.nonzero(bits)[0]))
    return float(areas[middle] / areas.max())
