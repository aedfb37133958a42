"""What fills the skull: grey and white matter, folds, ventricles, membranes, vessels, calcium."""

from dataclasses import dataclass

import numpy as np

from pipeline.phantom.canvas import Canvas, Image, Place, bump, ellipsoid, joined, ramp, rod
from pipeline.phantom.skull import Shell
from pipeline.phantom.waves import Waves, make_waves

DURA_HU, BLOOD_HU, BASAL_HU = 52.0, 54.0, 38.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Brain:
    """The measures of one brain: tissues in HU, folds in mm, and how wide its ventricles are (1: as in middle age)."""

    grey_hu: float
    white_hu: float
    csf_hu: float
    sulcus_mm: float
    ventricles: float
    lopsided: float
    calcium_hu: tuple[float, float, float]
    folds: Waves
    folia: Waves
    patches: Waves


def make_brain(rng: np.random.Generator) -> Brain:
    """Draw one brain."""
    return Brain(
        grey_hu=float(rng.uniform(37.5, 40.0)),
        white_hu=float(rng.uniform(28.5, 31.0)),
        csf_hu=float(rng.uniform(3.0, 8.0)),
        sulcus_mm=float(rng.uniform(0.9, 2.0)),
        ventricles=float(rng.uniform(0.75, 1.15)),
        lopsided=float(rng.normal(0, 0.06)),
        calcium_hu=(float(rng.uniform(90, 300)), float(rng.uniform(90, 300)), float(rng.uniform(100, 260))),
        folds=make_waves(rng, length_mm=24, count=14, spread=0.25),
        folia=make_waves(rng, length_mm=9, count=10),
        patches=make_waves(rng, length_mm=30),
    )


def paint_brain(canvas: Canvas, brain: Brain, shell: Shell) -> Image:
    """Paint the cavity's content; return the fraction of each point that is inside the cavity."""
    cavity = canvas.inside(shell.cavity)
    if not cavity.any():
        return cavity
    rest = canvas.hu.copy()
    canvas.hu[...] = np.float32(brain.csf_hu)
    tent = _tent(canvas)
    _paint_hemispheres(canvas, brain, shell, tent)
    _paint_cerebellum(canvas, brain, shell, tent)
    _paint_stem(canvas, brain)
    _paint_ventricles(canvas, brain)
    _paint_membranes(canvas, shell, tent)
    _paint_sinuses(canvas, shell, tent)
    _paint_calcium(canvas, brain)
    canvas.hu[...] = rest + (canvas.hu - rest) * cavity
    return cavity


def _tent(canvas: Canvas) -> Image:
    """Return the height above the tentorium in mm; far above where the back fossa lies not below."""
    side = np.abs(canvas.x)
    height = canvas.z - (-4.0 - 0.38 * side - 0.20 * np.maximum(canvas.y - 25.0, 0.0))
    front = canvas.y - (4.0 + 0.62 * side)
    return np.asarray(np.maximum(height, -front), dtype=np.float32)


def _paint_hemispheres(canvas: Canvas, brain: Brain, shell: Shell, tent: Image) -> None:
    """Paint the cerebrum: cortex along surface and folds, white matter, deep grey nuclei."""
    surface = np.maximum(shell.cavity + 1.6, 1.0 - tent)
    depth = -surface
    fold = np.abs(brain.folds.on(canvas.plane)) * np.float32(4.6) + np.maximum(depth - 13.0, 0.0) * np.float32(0.6)
    fold = np.minimum(np.minimum(fold, _fissure(canvas)), _insula(canvas))
    open_mm = brain.sulcus_mm * (0.55 + 0.45 * ramp(depth, 10.0, 1.0))
    to_csf = np.minimum(depth, fold - open_mm * 0.5)
    pial = canvas.inside(np.asarray(-to_csf, dtype=np.float32))
    ribbon = ramp(to_csf, 4.2, 2.8)
    white = brain.white_hu + 0.7 * brain.patches.on(canvas.plane)
    matter = white + (brain.grey_hu - white) * np.maximum(ribbon, _nuclei(canvas))
    canvas.blend(pial, np.asarray(matter, dtype=np.float32))


def _fissure(canvas: Canvas) -> Image:
    """Return the distance to the cleft between the hemispheres; it ends at the corpus callosum."""
    callosum = np.hypot((canvas.y - 2.0) * np.float32(1 / 40.0), (canvas.z - 6.0) * np.float32(1 / 25.0))
    inside = np.maximum(1.0 - callosum, 0.0) * 40.0
    below = ramp(canvas.z, -14.0, -20.0) * ramp(canvas.y, -28.0, -20.0) * 12.0
    return np.asarray(np.abs(canvas.x) - 0.6 + inside + below, dtype=np.float32)


def _insula(canvas: Canvas) -> Image:
    """Return the distance to the Sylvian fissure: a cleft from the side to the insula, and along it."""
    side = np.abs(canvas.x)
    height = canvas.z - (-6.0 + 0.38 * (canvas.y + 12.0))
    cleft = np.abs(height) + 20 * ramp(side, 40.0, 32.0) + 20 * ramp(np.abs(canvas.y + 8.0), 26.0, 38.0)
    along = np.abs(side - 38.0 - 0.004 * (canvas.y + 8.0) ** 2) + 20 * ramp(np.abs(canvas.y + 8.0), 16.0, 24.0)
    along = along + 20 * ramp(np.abs(height - 2.0), 11.0, 17.0)
    return np.asarray(np.minimum(cleft, along) + 0.2, dtype=np.float32)


def _nuclei(canvas: Canvas) -> Image:
    """Return the fraction of basal ganglia and thalami."""
    grey = np.zeros_like(canvas.hu)
    for side in (-1.0, 1.0):
        for centre, half in _NUCLEI:
            place = (side * centre[0], centre[1], centre[2])
            window = canvas.plane.near(place, max(half) + 8.0)
            part = canvas.near(place, max(half))
            if window is not None and part is not None:
                grey[window] = np.maximum(grey[window], part.inside(ellipsoid(part, place, half)))
    return grey * np.float32(0.9)


_NUCLEI: tuple[tuple[Place, Place], ...] = (
    ((13.0, -18.0, 9.0), (5.0, 12.0, 8.0)),
    ((25.0, -3.0, 3.0), (6.5, 16.0, 10.0)),
    ((11.0, 10.0, 5.0), (8.5, 14.0, 9.0)),
)


def _paint_cerebellum(canvas: Canvas, brain: Brain, shell: Shell, tent: Image) -> None:
    surface = np.maximum(shell.cavity + 2.0, tent + 1.5)
    surface = np.maximum(surface, 14.0 - np.hypot(canvas.x * 0.8, canvas.y - 12.0))
    core = ramp(-surface, 9.0, 14.0) * ramp(np.abs(canvas.x), 4.0, 9.0)
    leaves = 1.6 * brain.folia.on(canvas.plane)
    matter = brain.grey_hu - 2.0 + leaves + (brain.white_hu - brain.grey_hu + 2.0) * core
    vallecula = 6.0 * bump(canvas.x, 0.0, 2.2) * ramp(canvas.y, 55.0, 66.0) * ramp(canvas.z, -25.0, -40.0)
    canvas.paint(np.asarray(surface + vallecula, dtype=np.float32), np.asarray(matter, dtype=np.float32))


def _paint_stem(canvas: Canvas, brain: Brain) -> None:
    """Paint cisterns, then the brain stem standing in them, and its main artery."""
    canvas.ellipsoid((0.0, -7.0, -21.0), (15.0, 9.0, 7.0), brain.csf_hu)
    canvas.ellipsoid((0.0, 9.0, -18.0), (15.8, 16.5, 8.0), brain.csf_hu)
    canvas.ellipsoid((0.0, 27.0, -7.0), (9.0, 5.0, 7.0), brain.csf_hu)
    stem_hu = brain.white_hu + 2.5
    canvas.rod((0.0, 9.0, -7.0), (0.0, 10.0, -20.0), (11.0, 13.0), stem_hu)
    canvas.ellipsoid((0.0, 12.0, -34.0), (16.0, 12.0, 13.0), stem_hu)
    canvas.rod((0.0, 15.0, -42.0), (0.0, 36.0, -80.0), (10.0, 6.5), stem_hu)
    for side in (-1.0, 1.0):
        canvas.rod((side * 12.0, 16.0, -34.0), (side * 24.0, 32.0, -36.0), (7.0, 6.0), stem_hu)
        canvas.rod((0.0, -6.0, -22.0), (side * 20.0, -12.0, -17.0), (1.5, 1.3), 44.0)
    canvas.rod((0.0, -3.5, -24.0), (0.0, 2.0, -42.0), (1.6, 1.6), 45.0)


def _paint_ventricles(canvas: Canvas, brain: Brain) -> None:
    """Paint the four ventricles; one side is a little wider than the other."""
    for side in (-1.0, 1.0):
        wide = brain.ventricles * (1.0 + side * brain.lopsided)
        part = canvas.near((side * 18.0, 8.0, 4.0), 58.0)
        if part is not None:
            part.paint(_lateral(part, side, wide), brain.csf_hu)
    wide = brain.ventricles
    canvas.ellipsoid((0.0, 5.0, -3.0), (2.4 * wide, 14.0, 10.0), brain.csf_hu)
    canvas.rod((0.0, 17.0, -12.0), (0.0, 24.0, -26.0), (0.9, 0.9), brain.csf_hu)
    canvas.ellipsoid((0.0, 27.0, -35.0), (8.0 * wide, 4.6 * wide, 9.0), brain.csf_hu)


_HORNS: tuple[tuple[Place, Place, tuple[float, float]], ...] = (
    ((11.5, -35.0, 7.0), (6.0, -18.0, 14.0), (2.4, 3.8)),
    ((6.0, -18.0, 14.0), (10.0, 8.0, 20.0), (3.8, 3.2)),
    ((10.0, 8.0, 20.0), (23.0, 31.0, 11.0), (3.2, 6.0)),
    ((23.0, 31.0, 11.0), (21.0, 54.0, 4.0), (5.2, 1.6)),
    ((23.0, 31.0, 11.0), (32.0, 14.0, -9.0), (4.0, 2.0)),
    ((32.0, 14.0, -9.0), (31.0, -6.0, -19.0), (2.0, 1.6)),
)


def _lateral(part: Canvas, side: float, wide: float) -> Image:
    """Return the distance to one lateral ventricle: horns and body run into each other."""
    whole: Image | None = None
    for start, end, radii in _HORNS:
        limb = rod(
            part,
            (side * start[0], start[1], start[2]),
            (side * end[0], end[1], end[2]),
            (radii[0] * wide, radii[1] * wide),
        )
        whole = limb if whole is None else joined(whole, limb, 3.0)
    septum = np.float32(0.7) - np.float32(side) * part.x
    return np.asarray(np.maximum(whole, septum) if whole is not None else septum)


def _paint_membranes(canvas: Canvas, shell: Shell, tent: Image) -> None:
    """Paint the falx and the tentorium, leaving free the callosum and the notch for the stem."""
    ring = np.hypot((canvas.y - 4.0) * np.float32(1 / 48.0), (canvas.z - 2.0) * np.float32(1 / 36.0))
    edge = (
        (1.0 - ring) * 40.0 + 60 * ramp(tent, 2.0, -2.0) + 60 * ramp(canvas.y, -30.0, -22.0) * ramp(canvas.z, 5.0, -8.0)
    )
    thick = 0.45 + 0.35 * ramp(canvas.y, -20.0, 60.0)
    falx = np.maximum(np.abs(canvas.x) - thick, edge)
    canvas.paint(np.asarray(falx, dtype=np.float32), DURA_HU)
    notch = 22.0 - np.hypot(canvas.x * 1.25, (canvas.y - 10.0) * 0.9)
    sheet = np.maximum(np.maximum(np.abs(tent) - 0.65, notch), 4.0 + 0.62 * np.abs(canvas.x) - canvas.y)
    canvas.paint(np.asarray(sheet, dtype=np.float32), DURA_HU)
    canvas.paint(np.asarray(-0.5 - shell.cavity, dtype=np.float32), DURA_HU)


def _paint_sinuses(canvas: Canvas, shell: Shell, tent: Image) -> None:
    """Paint the venous sinuses: sagittal, transverse, straight."""
    back = ramp(canvas.y, -60.0, 50.0)
    upper = np.maximum(np.abs(canvas.x) - 0.7 * (shell.cavity + 2.0 + 5.0 * back), -1.0 - 5.5 * back - shell.cavity)
    upper = np.maximum(upper, 2.0 - tent)
    canvas.paint(np.asarray(upper, dtype=np.float32), BLOOD_HU)
    across = np.maximum(np.hypot(shell.cavity + 2.5, tent) - 3.0, 38.0 - canvas.y)
    canvas.paint(np.asarray(across, dtype=np.float32), BLOOD_HU)
    canvas.rod((0.0, 31.0, -3.0), (0.0, 76.0, -16.0), (1.5, 2.0), BLOOD_HU)


def _paint_calcium(canvas: Canvas, brain: Brain) -> None:
    """Paint the pineal gland and the choroid plexus, soft first and then its calcium."""
    left, right, pineal = brain.calcium_hu
    for side, hu in ((1.0, left), (-1.0, right)):
        canvas.ellipsoid((side * 23.0, 32.0, 11.0), (2.6, 5.5, 3.6), 42.0)
        canvas.ellipsoid((side * 23.5, 33.0, 10.0), (1.8, 3.2, 2.4), hu)
    canvas.ellipsoid((0.0, 25.0, -1.0), (2.0, 2.8, 2.2), pineal)
