"""Is the vault of the skull pressed in?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from pipeline.detectors.head import BONE_HU, Head, find_head
from pipeline.detectors.headers import FEWEST_SLICES, not_a_head
from pipeline.detectors.upright import spread, stand_upright
from pipeline.detectors.vault import AT_RADIUS_MM, CELL_MM, LEAST_RADIUS_MM, Doubles, Vault, map_vault
from pipeline.model import SKULL_FRACTURE, Acquisition, Code, Declined, Finding, Measurement
from reconstruction.volume import Bits, Mask, Volume

THICKEST_MM = 5.0
JUDGED_DEG = 80.0
MIRROR_MM = 9.0
NATURAL_MM = 2.5
DENT_FROM_MM = 2.0
SMALLEST_CM2 = 0.5
FLAG_FROM = 0.5
LEAST_SEEN = 0.6
WELL_SEEN = 0.85
FRAGMENT_MM = (-16.0, 2.0)

DEPTH = Code(scheme="SCT", value="131197000", meaning="Depth")
MILLIMETRE = Code(scheme="UCUM", value="mm", meaning="millimeter")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dent:
    """A part of the vault that lies deeper than its surroundings and than the other side.

    ``steepness`` (mm per mm): how suddenly the surface falls at its edge; a step where broken, gentle where grown.
    """

    cells: Bits
    depth_mm: float
    area_cm2: float
    steepness: float


@dataclass(frozen=True, slots=True)
class SkullFractureDetector:
    """Finds depressed fractures of the vault: its outer surface lies deeper than a smooth skull's and the other side's.

    Only the vault is judged (JUDGED_DEG from the vertex, seen from the middle of the brain): the skull base, the face,
    and linear fractures without a step are beyond it. An old, healed dent or a burr hole looks the same.
    """

    name: str = "skull_fracture"
    version: str = "1"
    looks_for: tuple[str, ...] = ("fracture",)

    def declines(self, acquisition: Acquisition) -> str | None:
        """Return why headers alone forbid a judgement: another region, or slices too thick."""
        thickness = acquisition.slice_thickness_mm
        if thickness is not None and thickness > THICKEST_MM:
            return f"slices of {thickness:g} mm are too thick (at most {THICKEST_MM:g} mm)"
        return not_a_head(acquisition)

    def __call__(self, volume: Volume, acquisition: Acquisition, /) -> Sequence[Finding] | Declined:
        """Find dents of about 3 mm or more; Declined where no head or too little of its vault is seen."""
        refusal = self.declines(acquisition)
        if refusal is not None:
            return Declined(reason=refusal)
        if min(volume.hu.shape) < FEWEST_SLICES:
            return Declined(reason=f"fewer than {FEWEST_SLICES} slices")
        head = find_head(stand_upright(volume.hu, volume.geometry, thickness_mm=acquisition.slice_thickness_mm))
        if isinstance(head, Declined):
            return head
        return _judged(head, volume)


def score(dent: Dent, slice_mm: float) -> float:
    """Return the probability that a dent is a depressed fracture, from 0 to 1.

    Thick slices draw the vault in terraces, so a dent must be deeper there. Weights were set by hand: dents with
    broken edges, put into two real heads, fall by 1.4 or more per mm, a lopsided but whole vault by 0.25 at most.
    """
    needed_mm = 3.6 + 0.3 * max(0.0, slice_mm - 3.0)
    logit = (
        1.6 * (min(dent.depth_mm, 10.0) - needed_mm)
        + 0.8 * float(np.clip(np.log(dent.area_cm2), -1.0, 1.0))
        + 3.0 * (min(dent.steepness, 1.2) - 0.7)
    )
    return float(1.0 / (1.0 + np.exp(-logit)))


def dents(vault: Vault) -> Iterator[Dent]:
    """Yield dented parts of the vault, the deepest first."""
    depth = dent_depth(vault)
    labels, count = ndimage.label(depth > DENT_FROM_MM, np.ones((3, 3), dtype=np.int8))
    parts = [labels == number for number in range(1, count + 1)]
    for cells in sorted(parts, key=lambda part: -float(depth[part].max())):
        area_cm2 = float(vault.cell_mm2[cells].sum()) / 100.0
        if area_cm2 >= SMALLEST_CM2:
            deep_mm = float(np.percentile(depth[cells], 90))
            yield Dent(cells=cells, depth_mm=deep_mm, area_cm2=area_cm2, steepness=_steepness(cells, vault))


def _steepness(cells: Bits, vault: Vault) -> float:
    deeper = np.where(vault.seen, vault.smooth_mm - vault.radius_mm, 0.0)
    per_mm = np.hypot(*np.gradient(deeper, CELL_MM)) * AT_RADIUS_MM / np.maximum(vault.radius_mm, LEAST_RADIUS_MM)
    edge = ndimage.binary_dilation(cells, iterations=2) & vault.seen
    return float(np.percentile(per_mm[edge], 90))


def dent_depth(vault: Vault) -> Doubles:
    """Return how much deeper the surface lies than smooth and than the other side, or far deeper than smooth, in mm."""
    judged = vault.seen & (vault.angle <= np.radians(JUDGED_DEG))
    deeper = np.where(judged, vault.smooth_mm - vault.radius_mm, 0.0)
    other = np.where(vault.seen, vault.smooth_mm - vault.radius_mm, 0.0)[:, ::-1]
    reach = int(MIRROR_MM / CELL_MM)
    disc = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1]) <= reach
    one_sided = deeper - np.maximum(ndimage.grey_dilation(other, footprint=disc), 0.0)
    return np.asarray(np.maximum(one_sided, deeper - NATURAL_MM), dtype=np.float64)


def _judged(head: Head, volume: Volume) -> Sequence[Finding] | Declined:
    vault = map_vault(head)
    within = vault.angle <= np.radians(JUDGED_DEG)
    seen = float(vault.seen[within].mean())
    if seen < LEAST_SEEN:
        return Declined(reason=f"only {seen:.0%} of the skull's vault are in the image")
    found = _findings(vault, head, volume)
    if not found and seen < WELL_SEEN:
        return Declined(reason=f"nothing detected, but only {seen:.0%} of the skull's vault are in the image")
    return found


def _findings(vault: Vault, head: Head, volume: Volume) -> tuple[Finding, ...]:
    found = []
    for dent in dents(vault):
        probability = score(dent, head.image.slice_mm)
        region = _region(dent, vault, head, volume) if probability >= FLAG_FROM else None
        if region is not None:
            found.append(_finding(dent, region, probability))
    return tuple(found)


def _region(dent: Dent, vault: Vault, head: Head, volume: Volume) -> Mask | None:
    """Return the bone of the pressed-in part on the volume's grid."""
    image = head.image
    voxels = np.argwhere(head.bone)
    row, column, radius = vault.cell_of(voxels * np.array(image.spacing_mm))
    away = radius - vault.radius_mm[row, column]
    chosen = voxels[dent.cells[row, column] & (away > FRAGMENT_MM[0]) & (away < FRAGMENT_MM[1])]
    if not len(chosen):
        return None
    low = chosen.min(axis=0)
    blocks = np.zeros(chosen.max(axis=0) + 1 - low, dtype=np.bool_)
    blocks[tuple((chosen - low).T)] = True
    first, second, third = (low + image.origin) * image.factors
    hu = image.turn.apply(volume.hu)[first:, second:, third:]
    bits = spread(blocks, image.factors, tuple(np.multiply(blocks.shape, image.factors)))
    bits &= hu[tuple(slice(0, n) for n in bits.shape)] > BONE_HU
    return image.turn.mask(bits, (int(first), int(second), int(third)), volume.geometry) if bits.any() else None


def _finding(dent: Dent, region: Mask, probability: float) -> Finding:
    centre = region.geometry.to_mm(np.argwhere(region.bits).mean(axis=0) + region.origin_kji)
    return Finding(
        kind="fracture",
        subtype="depressed",
        code=SKULL_FRACTURE,
        probability=round(probability, 4),
        region=region,
        volume_ml=None,
        centroid_lps_mm=(float(centre[0]), float(centre[1]), float(centre[2])),
        detector="skull_fracture",
        measurements=(Measurement(name=DEPTH, value=dent.depth_mm, unit=MILLIMETRE),),
    )
