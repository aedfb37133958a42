"""Is there fresh blood inside the skull?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.detectors.bleed_candidates import Candidate, candidates, contrast_of
from pipeline.detectors.bleed_measure import Measured, measure
from pipeline.detectors.head import Head, find_head
from pipeline.detectors.headers import FEWEST_SLICES, not_a_head
from pipeline.detectors.upright import stand_upright
from pipeline.model import HEMORRHAGE, Acquisition, Code, Declined, Finding, Measurement
from reconstruction.volume import Volume

SMALLEST_ML = 0.7
FLAG_FROM = 0.5
THICKEST_MM = 6.0
NOISIEST_HU = 18.0
SMALLEST_HEAD_ML = 300.0

MEAN_HU = Code(scheme="DCM", value="112031", meaning="Attenuation Coefficient")
HOUNSFIELD = Code(scheme="UCUM", value="[hnsf'U]", meaning="Hounsfield unit")


@dataclass(frozen=True, slots=True)
class HemorrhageDetector:
    """Finds dense, thick, uncalcified places inside the skull (after the rules of ipilab's AIH).

    Fresh blood of 50-90 HU is seen, as a lump or as a layer of 8 mm or more along the bone. Blood as dense as brain
    (isodense), thinner layers and blood between the gyri (subarachnoid) are beyond it. Probability is a logistic
    score with the weights in ``score``.
    """

    name: str = "hemorrhage"
    version: str = "1"
    looks_for: tuple[str, ...] = ("hemorrhage",)

    def declines(self, acquisition: Acquisition) -> str | None:
        """Return why headers alone forbid a judgement: another region, contrast medium, too few or thick slices."""
        if acquisition.contrast_agent:
            return "contrast medium was given: it looks like blood"
        thickness = acquisition.slice_thickness_mm
        if thickness is not None and thickness > THICKEST_MM:
            return f"slices of {thickness:g} mm are too thick (at most {THICKEST_MM:g} mm)"
        return not_a_head(acquisition)

    def __call__(self, volume: Volume, acquisition: Acquisition, /) -> Sequence[Finding] | Declined:
        """Find bleeds of SMALLEST_ML or more; Declined where no head, too little of one or too much noise is seen."""
        refusal = self.declines(acquisition)
        if refusal is not None:
            return Declined(reason=refusal)
        if min(volume.hu.shape) < FEWEST_SLICES:
            return Declined(reason=f"fewer than {FEWEST_SLICES} slices")
        head = find_head(stand_upright(volume.hu, volume.geometry, thickness_mm=acquisition.slice_thickness_mm))
        if isinstance(head, Declined):
            return head
        if head.noise_hu > NOISIEST_HU:
            return Declined(reason=f"the image is too noisy for blood to be told apart ({head.noise_hu:.0f} HU)")
        found = _findings(head, volume)
        return found or _unless_incomplete(head)


def score(candidate: Candidate, slice_mm: float) -> float:
    """Return the probability that a candidate is blood, from 0 to 1: as a lump or as a layer along the bone.

    Weights were set by hand on two real heads with implanted bleeds: no calibration on patients lies behind them.
    """
    shared = -10.0 * candidate.calcium - 1.5 * (candidate.section < 0.3)
    logit = shared + max(_lump(candidate, slice_mm), _layer(candidate))
    return float(1.0 / (1.0 + np.exp(-logit)))


def _lump(candidate: Candidate, slice_mm: float) -> float:
    thickness = candidate.half_thickness_mm - slice_mm / 2
    return (
        -1.2
        + 0.22 * (min(candidate.contrast_hu, 30.0) - 12.0)
        + 1.6 * (min(thickness, 7.0) - 3.0)
        + 0.6 * float(np.clip(np.log(candidate.volume_ml), -1.0, 1.1))
        - 1.0 * (candidate.from_bone_mm < 6.0)
    )


def _layer(candidate: Candidate) -> float:
    size = float(np.log(max(candidate.core_ml, 0.01) / 1.5))
    return -1.0 + 2.0 * min(size, 3.0) + 0.15 * (min(candidate.contrast_hu, 30.0) - 15.0)


def _subtype(candidate: Candidate) -> str:
    """Say only what is measured: far from bone, or flat along it."""
    if candidate.from_bone_mm > 12.0:
        return "intraparenchymal"
    ball_ml = 4.19 * candidate.half_thickness_mm**3 / 1000.0
    flat = candidate.from_bone_mm < 8.0 and candidate.volume_ml > 5.0 * ball_ml
    return "extra-axial" if flat else "undetermined"


def _unless_incomplete(head: Head) -> Sequence[Finding] | Declined:
    if head.notes or head.inside_ml < SMALLEST_HEAD_ML:
        where = "; ".join(head.notes) or f"only {head.inside_ml:.0f} mL of it are in the image"
        return Declined(reason=f"nothing detected, but the head is not wholly seen ({where})")
    return ()


def _findings(head: Head, volume: Volume) -> tuple[Finding, ...]:
    contrast = contrast_of(head)
    found = []
    for candidate in candidates(contrast, head):
        probability = score(candidate, head.image.slice_mm)
        measured = measure(candidate, contrast, head, volume.hu) if probability >= FLAG_FROM else None
        if measured is not None and measured.volume_ml >= SMALLEST_ML:
            found.append(_finding(candidate, measured, probability))
    return tuple(sorted(found, key=lambda finding: -finding.probability))


def _finding(candidate: Candidate, measured: Measured, probability: float) -> Finding:
    return Finding(
        kind="hemorrhage",
        subtype=_subtype(candidate),
        code=HEMORRHAGE,
        probability=round(probability, 4),
        region=measured.region,
        volume_ml=measured.volume_ml,
        centroid_lps_mm=measured.centroid_lps_mm,
        detector="hemorrhage",
        measurements=(Measurement(name=MEAN_HU, value=measured.mean_hu, unit=HOUNSFIELD),),
    )
