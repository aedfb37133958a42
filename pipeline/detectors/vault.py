"""What is the shape of the skull's vault, seen from the middle of the brain?"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.polynomial import chebyshev
from scipy import ndimage

from pipeline.detectors.head import Head
from pipeline.detectors.upright import Floats, thickened
from reconstruction.volume import Bits

Doubles = npt.NDArray[np.float64]

EDGE_HU = 400.0
REACH_DEG = 92.0
CELL_MM = 2.0
AT_RADIUS_MM = 80.0
RAY_MM = (30.0, 130.0, 0.75)
NEAR_BRAIN_MM = 6.0
CLEAR_MM = 3.0
LEAST_RADIUS_MM = 40.0
FIT_DEGREE = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Vault:
    """The outer surface of the skull as a map: rows posterior, columns left, the vertex in the middle.

    Azimuthal equidistant projection of the directions from ``centre_mm`` (upright millimetres from the head's first
    voxel); ``angle`` (radians) is measured from superior. ``radius_mm`` and ``smooth_mm`` (a robust smooth surface
    through it) hold only where ``seen``: bone was met and its outside lies in the image.
    """

    centre_mm: Doubles
    angle: Doubles
    radius_mm: Doubles
    smooth_mm: Doubles
    seen: Bits
    within: Bits

    @property
    def cell_mm2(self) -> Doubles:
        """Area of skull that each cell of the map covers."""
        shrink = np.sinc(self.angle / np.pi)
        return CELL_MM**2 * (self.radius_mm / AT_RADIUS_MM) ** 2 * shrink

    def cell_of(self, upright_mm: Doubles) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Doubles]:
        """Map (n, 3) points to the row and column of their cell and their distance from the centre."""
        away = upright_mm - self.centre_mm
        radius = np.maximum(np.linalg.norm(away, axis=1), 1e-6)
        across = np.maximum(np.hypot(away[:, 1], away[:, 2]), 1e-6)
        cells = np.arccos(np.clip(away[:, 0] / radius, -1, 1)) / across * (AT_RADIUS_MM / CELL_MM)
        middle = self.angle.shape[0] // 2
        row = np.clip(np.rint(away[:, 1] * cells) + middle, 0, 2 * middle).astype(np.intp)
        column = np.clip(np.rint(away[:, 2] * cells) + middle, 0, 2 * middle).astype(np.intp)
        return row, column, radius


def map_vault(head: Head) -> Vault:
    """Follow rays from the middle of the brain to the outermost bone, and lay a smooth surface through it."""
    spacing = np.array(head.image.spacing_mm)
    centre = np.array(ndimage.center_of_mass(head.inside)) * spacing
    angle, directions = _directions()
    radius = _outermost(_skull_hu(head), centre, directions, spacing)
    within = angle <= np.radians(REACH_DEG)
    top_mm = (head.image.hu.shape[0] - 1) * spacing[0]
    clear = centre[0] + directions[0] * (radius + CLEAR_MM) < top_mm
    seen = within & clear & (radius > LEAST_RADIUS_MM)
    calm = ndimage.median_filter(np.where(seen, radius, AT_RADIUS_MM), 3)
    smooth = _smooth_through(calm, seen)
    return Vault(centre_mm=centre, angle=angle, radius_mm=calm, smooth_mm=smooth, seen=seen, within=within)


def _directions() -> tuple[Doubles, Doubles]:
    reach = int(np.radians(REACH_DEG + 3) * AT_RADIUS_MM / CELL_MM)
    steps = np.arange(-reach, reach + 1) * (CELL_MM / AT_RADIUS_MM)
    posterior, left = np.meshgrid(steps, steps, indexing="ij")
    angle = np.hypot(posterior, left)
    shrink = np.sinc(angle / np.pi)
    return angle, np.stack([np.cos(angle), posterior * shrink, left * shrink])


def _skull_hu(head: Head) -> Floats:
    """Blank out what is bright but far from the brain: head rests, electrodes, ear rings."""
    near = thickened(head.inside, NEAR_BRAIN_MM, head.image.spacing_mm)
    labels, count = ndimage.label(head.bone)
    touching = np.zeros(count + 1, dtype=np.bool_)
    touching[labels[near]] = True
    touching[0] = True
    return np.where(touching[labels], head.image.hu, np.float32(0))


def _outermost(hu: Floats, centre_mm: Doubles, directions: Doubles, spacing_mm: Doubles) -> Doubles:
    """Return where each ray leaves the bone, interpolated at EDGE_HU; 0 where it meets none."""
    start, stop, step = RAY_MM
    along = np.arange(start, stop, step)
    radius = np.zeros(directions.shape[1:])
    for row in range(directions.shape[1]):
        points = (centre_mm[:, None, None] + directions[:, row, :, None] * along) / spacing_mm[:, None, None]
        profile = ndimage.map_coordinates(hu, points.astype(np.float32), order=1, cval=-1000.0)
        radius[row] = _last_crossing(profile, along)
    return radius


def _last_crossing(profile: Floats, along: Doubles) -> Doubles:
    bony = profile > EDGE_HU
    last = profile.shape[-1] - 1 - bony[:, ::-1].argmax(axis=-1)
    ray = np.arange(len(profile))
    inner, outer = profile[ray, last], profile[ray, np.minimum(last + 1, profile.shape[-1] - 1)]
    part = np.clip((inner - EDGE_HU) / np.maximum(inner - outer, 1.0), 0, 1)
    return np.where(bony.any(axis=-1), along[last] + part * (along[1] - along[0]), 0.0)


def _smooth_through(radius_mm: Doubles, seen: Bits) -> Doubles:
    """Fit Chebyshev polynomials with weights that let go of dents sooner than of bulges."""
    basis = chebyshev.chebvander(np.linspace(-1, 1, radius_mm.shape[0]), FIT_DEGREE)
    pairs = [(a, b) for a in range(FIT_DEGREE + 1) for b in range(FIT_DEGREE + 1 - a)]
    terms = np.stack([np.outer(basis[:, a], basis[:, b])[seen] for a, b in pairs], axis=1)
    values, weights = radius_mm[seen], np.ones(int(np.count_nonzero(seen)))
    for _ in range(8):
        weighted = terms * weights[:, None]
        solved = np.linalg.solve(terms.T @ weighted + 1e-6 * np.eye(len(pairs)), weighted.T @ values)
        error = values - terms @ solved
        spread = max(0.5, 1.4826 * float(np.median(np.abs(error))))
        weights = np.where(error < 0, 1 / (1 + (error / spread) ** 4), 1 / (1 + (error / (2 * spread)) ** 2))
    smooth = radius_mm.copy()
    smooth[seen] = terms @ solved
    return smooth
