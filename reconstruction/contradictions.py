"""What do the headers of a stack say that its slices' positions deny?"""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from reconstruction.geometry import Geometry, Points
from reconstruction.headers import Header
from reconstruction.placing import Placed

TILT_WITHIN_DEG = 0.5
NOTED_MM = 0.1
FEW_SHARE = 0.1
"""Where more of the neighbours run against their numbers than this, numbers mean something else in that series."""


def contradictions(slices: Placed, geometry: Geometry, steps: Points) -> tuple[str, ...]:
    """Note where a header denies where its slice is taken to lie, or the stated tilt, distance or numbers deny it.

    ``slices`` in slice order; ``steps`` says at which k of the geometry each lies. The positions are followed in
    either case: they are what DICOM defines a slice's place by (PS3.3 C.7.6.2.1.1).
    """
    off = off_grid_mm(slices, geometry, steps)
    notes = (f"slices are turned or shifted by up to {off:.2f} mm against the common grid",) if off > NOTED_MM else ()
    return (
        *notes,
        *_of_tilt(slices.headers, geometry.tilt_deg),
        *_of_spacing(slices.headers, geometry),
        *_of_numbers(slices.headers),
    )


def off_grid_mm(slices: Placed, geometry: Geometry, steps: Points) -> float:
    """Return how far a corner pixel lies from where its own header puts it (PS3.3 C.7.6.2.1.1), at most."""
    _, rows, columns = geometry.shape
    corners = np.array([(j, i) for j in (0, rows - 1) for i in (0, columns - 1)], dtype=np.float64)
    down, across = (corners[None, :, a] * slices.spacings[:, a, None] for a in (0, 1))
    stated = slices.origins[:, None] + across[..., None] * slices.orientations[:, None, :3]
    stated += down[..., None] * slices.orientations[:, None, 3:]
    index = np.empty((len(steps), len(corners), 3))
    index[..., 0], index[..., 1:] = steps[:, None], corners[None]
    return float(np.linalg.norm(geometry.to_mm(index) - stated, axis=2).max())


def _of_tilt(headers: Sequence[Header], tilt_deg: float) -> tuple[str, ...]:
    stated = {abs(h.tilt_tag_deg) for h in headers if h.tilt_tag_deg is not None and math.isfinite(h.tilt_tag_deg)}
    denied = sorted(tag for tag in stated if abs(tag - tilt_deg) > TILT_WITHIN_DEG)
    if not denied:
        return ()
    return (f"a gantry tilt of {denied[0]:g} degrees is stated, the slices lie at {tilt_deg:.1f}: they are followed",)


def _of_spacing(headers: Sequence[Header], geometry: Geometry) -> tuple[str, ...]:
    """Note a stated distance that is neither the one along the normal nor, as some write it, along a tilted axis."""
    step, along_axis = geometry.slice_step_mm, geometry.spacing_mm[0]
    within = max(0.01 * along_axis, 0.02)
    stated = {abs(h.spacing_between_slices_mm) for h in headers if h.spacing_between_slices_mm}
    denied = sorted(s for s in stated if math.isfinite(s) and min(abs(s - step), abs(s - along_axis)) > within)
    if not denied:
        return ()
    return (f"a distance of {denied[0]:g} mm between slices is stated, they lie {step:.2f} apart: they are followed",)


def _of_numbers(headers: Sequence[Header]) -> tuple[str, ...]:
    """Note places where few slices of an acquisition run against the way in which it is numbered."""
    steps = [
        b.instance_number - a.instance_number
        for a, b in pairwise(headers)
        if a.instance_number is not None
        and b.instance_number is not None
        and a.acquisition_number == b.acquisition_number
    ]
    back = min(sum(step < 0 for step in steps), sum(step > 0 for step in steps))
    if not 0 < back <= FEW_SHARE * len(steps):
        return ()
    return (f"the slices' positions run against their instance numbers at {back} place(s): they are followed",)
