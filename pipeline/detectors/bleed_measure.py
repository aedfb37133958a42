"""How large is a bleed, on the grid as given?"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from pipeline.detectors.bleed_candidates import Candidate, Contrast, blurred_within, widened
from pipeline.detectors.head import Head
from pipeline.detectors.upright import Box, Floats, Upright, spread
from reconstruction.volume import Bits, Hu, Mask

GROW_MM = 4.0
SHELL_MM = (4.0, 9.0)
FINE_BLUR_MM = 0.8
BONE_EDGE_HU = 100.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """A bleed on the volume's own grid, with its density and that of its surroundings."""

    region: Mask
    volume_ml: float
    mean_hu: float
    surroundings_hu: float
    centroid_lps_mm: tuple[float, float, float]


def measure(candidate: Candidate, contrast: Contrast, head: Head, hu: Hu) -> Measured | None:
    """Redraw a candidate half-way between its density and that of its surroundings; None where nothing is left.

    Half-way is where the edge of a blurred object lies, whatever the blur: neither noise nor slice thickness moves
    it. The mask is drawn on the full grid, slightly smoothed; ``hu`` is the volume's, axes kji.
    """
    box = widened(candidate.box, SHELL_MM[1] + 1, head.image)
    dense = _placed(candidate, box)
    away = ndimage.distance_transform_edt(~dense, sampling=head.image.spacing_mm)
    calm = contrast.zone[box] & (np.abs(contrast.hu[box]) < 12.0)
    shell = calm & (away > SHELL_MM[0]) & (away < SHELL_MM[1])
    if not shell.any():
        return None
    smooth = contrast.smooth_hu[box]
    around_hu = float(np.median(smooth[shell]))
    blood_hu = _level_within(dense, smooth, head.image)
    fine_box = _fine(box, head.image)
    full_hu = head.image.turn.apply(hu)[fine_box].astype(np.float32)
    allowed = spread(head.inside[box] & (away <= GROW_MM), head.image.factors, full_hu.shape)
    core = spread(dense, head.image.factors, full_hu.shape)
    drawn = _drawn(full_hu, allowed, core, head.image, level_hu=(blood_hu + around_hu) / 2)
    return _summed(drawn, full_hu, fine_box, head.image, around_hu=around_hu)


def _placed(candidate: Candidate, box: Box) -> Bits:
    dense = np.zeros([s.stop - s.start for s in box], dtype=np.bool_)
    dense[tuple(slice(c.start - b.start, c.stop - b.start) for c, b in zip(candidate.box, box, strict=True))] = (
        candidate.bits
    )
    return dense


def _level_within(dense: Bits, smooth: Floats, image: Upright) -> float:
    depth = ndimage.distance_transform_edt(dense, sampling=image.spacing_mm)
    return float(np.median(smooth[depth >= 0.6 * depth.max()]))


def _fine(box: Box, image: Upright) -> Box:
    sides = zip(box, image.origin, image.factors, strict=True)
    first, second, third = (slice((s.start + o) * f, (s.stop + o) * f) for s, o, f in sides)
    return first, second, third


def _drawn(hu: Floats, allowed: Bits, core: Bits, image: Upright, *, level_hu: float) -> Bits:
    spacing = image.turn.spacing_mm(image.geometry)
    soft = allowed & (hu < BONE_EDGE_HU + 60)
    smooth = blurred_within(np.clip(hu, -20, 120), soft, FINE_BLUR_MM, spacing)
    labels, _ = ndimage.label(soft & (smooth > level_hu) & (smooth < BONE_EDGE_HU))
    kept = np.unique(labels[core])
    return np.asarray(np.isin(labels, kept[kept > 0]), dtype=np.bool_)


def _summed(drawn: Bits, hu: Floats, box: Box, image: Upright, *, around_hu: float) -> Measured | None:
    if not drawn.any():
        return None
    first, second, third = (int(side.start) for side in box)
    region = image.turn.mask(drawn, (first, second, third), image.geometry)
    centre = image.geometry.to_mm(np.argwhere(region.bits).mean(axis=0) + region.origin_kji)
    return Measured(
        region=region,
        volume_ml=region.voxel_count * image.geometry.voxel_ml,
        mean_hu=float(hu[drawn].mean()),
        surroundings_hu=around_hu,
        centroid_lps_mm=(float(centre[0]), float(centre[1]), float(centre[2])),
    )
