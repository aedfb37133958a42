"""Where is the inside of the skull, and is this a head at all?"""

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from pipeline.detectors.upright import Box, Floats, Spacing, Upright, block_any, block_mean, spread, thickened
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


def find_head(image: Upright) -> Head | Declined:
    """Find the closed bony shell and the brain within, or decline with the reason.

    The space enclosed by bone in at least five of six directions, thinned by CORE_MM so that foramina and orbits
    fall off, its largest part, grown back. What is accepted must be large, of brain's density and lined by bone.
    """
    if min(image.hu.shape) < 3 or float(np.ptp(image.hu)) < BONE_HU:
        return Declined(reason=NO_HEAD)
    bone = image.hu > BONE_HU
    factors = _coarser(image.spacing_mm)
    spacing = _times(image.spacing_mm, factors)
    coarse_bone = block_any(bone, factors)
    region = _inside(block_mean(image.hu, factors), coarse_bone, spacing)
    if np.count_nonzero(region) * np.prod(spacing) / 1000.0 < SMALLEST_BRAIN_ML:
        return Declined(reason=NO_HEAD)
    if _bony_surface(region, coarse_bone, spacing) < LEAST_BONY_SURFACE:
        return Declined(reason=NO_HEAD)
    inside = _refined(region, factors, bone, image.hu)
    notes = _cut_off(image, inside)
    box = _box_around(inside, image.spacing_mm)
    return _described(_cropped(image, box), inside[box], bone[box], notes)


def _coarser(spacing_mm: Spacing) -> tuple[int, int, int]:
    first, second, third = (max(1, round(2.0 / mm)) for mm in spacing_mm)
    return first, second, third


def _times(spacing_mm: Spacing, factors: tuple[int, int, int]) -> Spacing:
    return spacing_mm[0] * factors[0], spacing_mm[1] * factors[1], spacing_mm[2] * factors[2]


def _inside(hu: Floats, bone: Bits, spacing_mm: Spacing) -> Bits:
    smooth = ndimage.gaussian_filter(np.clip(hu, -200, 200), [1.0 / mm for mm in spacing_mm])
    tissue = enclosed(bone) & ~bone & (smooth > BRAIN_HU[0]) & (smooth < BRAIN_HU[1])
    depth = ndimage.distance_transform_edt(tissue, sampling=spacing_mm)
    core = largest(depth > CORE_MM)
    if not core.any():
        return core
    near = ndimage.distance_transform_edt(~core, sampling=spacing_mm) <= CORE_MM + 2.0
    return largest(ndimage.binary_fill_holes(near & tissue) & near)


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
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == int(sizes.argmax()), dtype=np.bool_)


def _bony_surface(region: Bits, bone: Bits, spacing_mm: Spacing) -> float:
    surface = region & ~ndimage.binary_erosion(region, border_value=1)
    lined = thickened(bone, max(5.0, spacing_mm[0]), spacing_mm)
    return float(np.count_nonzero(surface & lined)) / max(1, int(np.count_nonzero(surface)))


def _refined(region: Bits, factors: tuple[int, int, int], bone: Bits, hu: Floats) -> Bits:
    grown = ndimage.binary_dilation(region, ndimage.generate_binary_structure(3, 1))
    return np.asarray(spread(grown, factors, bone.shape) & ~bone & (hu > -50), dtype=np.bool_)


def _box_around(bits: Bits, spacing_mm: Spacing) -> Box:
    box = ndimage.find_objects(bits.astype(np.int8))[0]
    reach = [int(np.ceil(MARGIN_MM / mm)) for mm in spacing_mm]
    first, second, third = (slice(max(0, s.start - r), s.stop + r) for s, r in zip(box, reach, strict=True))
    return first, second, third


def _cropped(image: Upright, box: Box) -> Upright:
    first, second, third = (int(side.start) for side in box)
    return replace(image, hu=np.ascontiguousarray(image.hu[box]), origin=(first, second, third))


def _described(image: Upright, inside: Bits, bone: Bits, notes: tuple[str, ...]) -> Head | Declined:
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


def _cut_off(image: Upright, inside: Bits) -> tuple[str, ...]:
    cell_cm2 = image.spacing_mm[1] * image.spacing_mm[2] / 100.0
    areas = inside.sum(axis=(1, 2)) * cell_cm2
    notes = {"top": float(areas[-1]), "bottom": float(areas[0])}
    return tuple(f"the head is cut off at the {end}" for end, cm2 in notes.items() if cm2 > CUT_OFF_CM2)
