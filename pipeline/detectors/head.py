"""Where is the inside of the skull, and is this a head at all?"""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from scipy import ndimage

from pipeline.detectors.upright import (
    Box,
    Floats,
    Spacing,
    Standing,
    Upright,
    block_any,
    block_mean,
    box_of,
    finer,
    spread,
    thickened,
    wider,
)
from pipeline.model import Declined
from reconstruction.volume import Bits

BONE_HU = 180.0
BRAIN_HU = (-15.0, 110.0)
CORE_MM = 5.0
SMALLEST_BRAIN_ML = 150.0
LEAST_BONY_SURFACE = 0.6
MEDIAN_HU = (12.0, 55.0)
MARGIN_MM = 12.0
CUT_OFF_CM2 = 35.0  # a smaller section leaves about 15 mL of brain beyond the image, no more
NO_HEAD = "no skull around a brain found in the image"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Head:
    """The inside of the skull on an upright grid that is cropped to it, with MARGIN_MM around.

    ``inside`` holds brain, its fluid and what has bled there; ``bone`` is everything denser than BONE_HU.
    ``notes`` says where the head leaves the image: nothing can be said about that part.
    """

    image: Upright
    inside: Bits
    bone: Bits
    tissue_hu: float
    noise_hu: float
    notes: tuple[str, ...]

    @property
    def inside_ml(self) -> float:
        """Volume of the inside of the skull."""
        return int(np.count_nonzero(self.inside)) * self.image.voxel_ml


def find_head(image: Standing) -> Head | Declined:
    """Find the closed bony shell and the brain within, or decline with the reason.

    The space enclosed by bone in at least five of six directions, thinned by CORE_MM so that foramina and orbits
    fall off, its largest part, grown back. What is accepted must be large, of brain's density and lined by bone.
    Only there the image is averaged as a whole: a body is many times larger than its head.
    """
    if min(image.shape) < 3:
        return Declined(reason=NO_HEAD)
    coarse = _coarse(image)
    if coarse.range_hu < BONE_HU:
        return Declined(reason=NO_HEAD)
    region = _inside(coarse)
    if np.count_nonzero(region) * np.prod(coarse.spacing_mm) / 1000.0 < SMALLEST_BRAIN_ML:
        return Declined(reason=NO_HEAD)
    if _bony_surface(region, coarse.bone, coarse.spacing_mm) < LEAST_BONY_SURFACE:
        return Declined(reason=NO_HEAD)
    return _described(image, region, coarse.factors)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Coarse:
    """The image in blocks of about 2 mm: density within +-200 HU, where there is any bone, and the image's range."""

    hu: Floats
    bone: Bits
    factors: tuple[int, int, int]
    spacing_mm: Spacing
    range_hu: float


def _coarse(image: Standing) -> _Coarse:
    factors = _coarser(image.spacing_mm)
    first, second, third = (n // f for n, f in zip(image.shape, factors, strict=True))
    hu, bone = np.empty((first, second, third), dtype=np.float32), np.empty((first, second, third), dtype=np.bool_)
    low, high = np.float32(np.inf), np.float32(-np.inf)
    for start, slab in image.slabs(factors[0]):
        low, high = min(low, slab.min()), max(high, slab.max())
        layers = slice(start // factors[0], (start + len(slab)) // factors[0])
        bone[layers] = block_any(slab > BONE_HU, factors)
        np.clip(block_mean(slab, factors), -200, 200, out=hu[layers])
    spacing = _times(image.spacing_mm, factors)
    return _Coarse(hu=hu, bone=bone, factors=factors, spacing_mm=spacing, range_hu=float(high - low))


def _coarser(spacing_mm: Spacing) -> tuple[int, int, int]:
    first, second, third = (max(1, round(2.0 / mm)) for mm in spacing_mm)
    return first, second, third


def _times(spacing_mm: Spacing, factors: tuple[int, int, int]) -> Spacing:
    return spacing_mm[0] * factors[0], spacing_mm[1] * factors[1], spacing_mm[2] * factors[2]


def _inside(coarse: _Coarse) -> Bits:
    smooth = ndimage.gaussian_filter(coarse.hu, [1.0 / mm for mm in coarse.spacing_mm])
    tissue = enclosed(coarse.bone)
    tissue &= ~coarse.bone
    tissue &= smooth > BRAIN_HU[0]
    tissue &= smooth < BRAIN_HU[1]
    del smooth
    core = largest(deeper_than(tissue, CORE_MM, coarse.spacing_mm))
    if not core.any():
        return core
    box = wider(box_of(core), _reach(CORE_MM + 2.0, coarse.spacing_mm), core.shape)
    near = ndimage.distance_transform_edt(~core[box], sampling=coarse.spacing_mm) <= CORE_MM + 2.0
    core[box] = largest(ndimage.binary_fill_holes(near & tissue[box]) & near)
    return core


def deeper_than(bits: Bits, depth_mm: float, spacing_mm: Spacing) -> Bits:
    """Say which voxels of a region lie deeper in it than ``depth_mm``; the image's edge is no edge of the region.

    What a Euclidean distance transform would say, without the fifteen bytes a voxel and the time that it needs.
    """
    found = bits.copy()
    reach = _reach(depth_mm, spacing_mm)
    for away in product(*(range(-r, r + 1) for r in reach)):
        near = float(np.sqrt(np.sum((np.array(away) * spacing_mm) ** 2))) <= depth_mm
        if near and all(abs(step) < n for step, n in zip(away, bits.shape, strict=True)):
            here = tuple(slice(max(0, -step), n - max(0, step)) for step, n in zip(away, bits.shape, strict=True))
            there = tuple(slice(max(0, step), n - max(0, -step)) for step, n in zip(away, bits.shape, strict=True))
            found[here] &= bits[there]
    return found


def _reach(distance_mm: float, spacing_mm: Spacing) -> tuple[int, int, int]:
    first, second, third = (int(distance_mm / mm) + 2 for mm in spacing_mm)
    return first, second, third


def enclosed(bone: Bits) -> Bits:
    """Say where bone lies ahead in at least five of the six directions along the axes.

    The image's upper and lower end count as bone: heads are often cut off there.
    """
    count = np.full(bone.shape, 0, dtype=np.int8)
    for axis in range(3):
        for way in (slice(None), slice(None, None, -1)):
            turned = np.moveaxis(bone, axis, 0)[way]
            ahead = np.logical_or.accumulate(turned, axis=0)
            np.moveaxis(count, axis, 0)[way] += ahead
    count += 2 - np.logical_or.accumulate(bone, axis=0).astype(np.int8)
    count -= np.logical_or.accumulate(bone[::-1], axis=0)[::-1].astype(np.int8)
    return count >= 5


def largest(bits: Bits) -> Bits:
    """Keep the largest connected part (faces touching)."""
    labels, count = ndimage.label(bits)
    if count == 0:
        return np.zeros_like(bits)
    sizes = np.sum([np.bincount(layer.ravel(), minlength=count + 1) for layer in labels], axis=0)
    sizes[0] = 0
    return np.asarray(labels == int(sizes.argmax()), dtype=np.bool_)


def _bony_surface(region: Bits, bone: Bits, spacing_mm: Spacing) -> float:
    reach_mm = max(5.0, spacing_mm[0])
    box = wider(box_of(region), _reach(reach_mm, spacing_mm), region.shape)
    surface = region[box] & ~ndimage.binary_erosion(region[box], border_value=1)
    lined = thickened(bone[box], reach_mm, spacing_mm)
    return float(np.count_nonzero(surface & lined)) / max(1, int(np.count_nonzero(surface)))


def _described(image: Standing, region: Bits, factors: tuple[int, int, int]) -> Head | Declined:
    """Draw the region on the image's own blocks, and cut the image there."""
    coarse_box = wider(box_of(region), (1, 1, 1), region.shape)
    grown = ndimage.binary_dilation(region[coarse_box], ndimage.generate_binary_structure(3, 1))
    fine_box = finer(coarse_box, factors)
    around = wider(fine_box, _margin(image.spacing_mm), image.shape)
    part = image.part(around)
    bone = part.hu > BONE_HU
    inside = np.zeros_like(bone)
    inside[_within(fine_box, around)] = spread(grown, factors, tuple(s.stop - s.start for s in fine_box))
    inside &= ~bone & (part.hu > -50)
    if not inside.any():
        return Declined(reason=NO_HEAD)
    box = _box_around(inside, image.spacing_mm)
    return _measured(_cropped(part, box), inside[box], bone[box], _cut_off(image, inside, around[0]))


def _within(box: Box, around: Box) -> Box:
    first, second, third = (slice(s.start - a.start, s.stop - a.start) for s, a in zip(box, around, strict=True))
    return first, second, third


def _margin(spacing_mm: Spacing) -> tuple[int, int, int]:
    first, second, third = (int(np.ceil(MARGIN_MM / mm)) for mm in spacing_mm)
    return first, second, third


def _box_around(bits: Bits, spacing_mm: Spacing) -> Box:
    return wider(box_of(bits), _margin(spacing_mm), bits.shape)


def _cropped(image: Upright, box: Box) -> Upright:
    first, second, third = (int(side.start) + start for side, start in zip(box, image.origin, strict=True))
    return replace(image, hu=np.ascontiguousarray(image.hu[box]), origin=(first, second, third))


def _measured(image: Upright, inside: Bits, bone: Bits, notes: tuple[str, ...]) -> Head | Declined:
    values = image.hu[inside]
    middle = float(np.median(values))
    if not MEDIAN_HU[0] <= middle <= MEDIAN_HU[1]:
        return Declined(reason=f"{NO_HEAD}: what the skull holds is {middle:.0f} HU")
    return Head(
        image=image,
        inside=inside,
        bone=bone,
        tissue_hu=float(np.median(values[np.abs(values - middle) < 20])),
        noise_hu=_noise(image, inside),
        notes=notes,
    )


def _noise(image: Upright, inside: Bits) -> float:
    apart = image.hu[:, :, 2:] - 2 * image.hu[:, :, 1:-1] + image.hu[:, :, :-2]
    values = apart[inside[:, :, 2:] & inside[:, :, :-2]]
    return float(np.median(np.abs(values))) * 1.4826 / 6.0**0.5 if values.size else 0.0


def _cut_off(image: Standing, inside: Bits, layers: slice) -> tuple[str, ...]:
    """Say at which end of the image the head is cut off; ``inside`` stands on ``layers`` of it."""
    cell_cm2 = image.spacing_mm[1] * image.spacing_mm[2] / 100.0
    areas = inside.sum(axis=(1, 2)) * cell_cm2
    top = float(areas[-1]) if layers.stop == image.shape[0] else 0.0
    notes = {"top": top, "bottom": float(areas[0]) if layers.start == 0 else 0.0}
    return tuple(f"the head is cut off at the {end}" for end, cm2 in notes.items() if cm2 > CUT_OFF_CM2)
