"""The skull and what wraps it: cavity, tables, diploe, sutures, base, face, scalp."""

from dataclasses import dataclass

import numpy as np

from pipeline.phantom.canvas import Canvas, Image, Place, bump, common, ellipsoid, joined, ramp
from pipeline.phantom.waves import Waves, make_waves

SKIN_HU, FAT_HU, MUSCLE_HU, GALEA_HU, AIR_HU = 45.0, -90.0, 56.0, 40.0, -1000.0
SUTURE_HU = 180.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Skull:
    """The measures of one skull, in its own millimetres (x left, y back, z up, origin in the middle of the brain)."""

    half_mm: Place
    thickness_mm: float
    table_hu: float
    diploe_hu: float
    sinus: float
    uneven: Waves
    marrow: Waves
    zigzag: Waves
    cells: Waves
    fat: Waves


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shell:
    """Signed distances (mm, negative inside) that everything else in the head is placed by.

    ``cavity``: to the inner table; ``bone``: to the skull's outer surface; ``skin``: to the air; ``thickness``: of the
    bone there; ``dome``: to the inner table as if the skull had no floor.
    """

    cavity: Image
    bone: Image
    skin: Image
    thickness: Image
    dome: Image


def make_skull(rng: np.random.Generator) -> Skull:
    """Draw one adult skull."""
    size = rng.normal(1.0, 0.025)
    half = (67.0 * size + rng.normal(0, 1.5), 84.0 * size + rng.normal(0, 2.0), 80.0 * size + rng.normal(0, 1.5))
    return Skull(
        half_mm=half,
        thickness_mm=float(rng.uniform(5.8, 7.4)),
        table_hu=float(rng.uniform(1400, 1700)),
        diploe_hu=float(rng.uniform(450, 750)),
        sinus=float(rng.uniform(0.35, 0.75)),
        uneven=make_waves(rng, length_mm=45),
        marrow=make_waves(rng, length_mm=7, count=10),
        zigzag=make_waves(rng, length_mm=9, count=8),
        cells=make_waves(rng, length_mm=5.5, count=10),
        fat=make_waves(rng, length_mm=35),
    )


def measure(canvas: Canvas, skull: Skull) -> Shell:
    """Work out the distances to the skull's surfaces."""
    x, y, z = canvas.x, canvas.y, canvas.z
    dome = _dome(canvas, skull.half_mm)
    cavity = common(dome, (_floor(x, y) - z) * np.float32(0.85), 9.0)
    thickness = _thickness(x, y, z, skull, skull.uneven.on(canvas.plane))
    bone = cavity - thickness
    skin = joined(dome - thickness - _scalp_mm(x, y, z, skull, canvas), _face_and_neck(canvas, skull), 14.0)
    return Shell(cavity=cavity, bone=bone, skin=skin, thickness=thickness, dome=dome)


def paint_outside(canvas: Canvas, skull: Skull, shell: Shell) -> None:
    """Paint everything between the air and the bone: skin, fat, muscle, galea."""
    canvas.paint(shell.skin, SKIN_HU)
    fat = FAT_HU + 10 * skull.fat.on(canvas.plane)
    canvas.paint(shell.skin + np.float32(2.0), fat)
    galea = shell.dome - shell.thickness - np.float32(1.2)
    canvas.paint(galea, GALEA_HU)
    _paint_muscles(canvas, skull, shell)


def paint_bone(canvas: Canvas, skull: Skull, shell: Shell) -> None:
    """Paint the skull from the outside inwards: outer table, diploe, inner table; then its gaps and its air."""
    below = ramp(canvas.z, -58.0, -64.0) * ramp(canvas.y, 5.0, 15.0)
    canvas.blend(canvas.inside(shell.bone) * (1 - below * ramp(shell.bone, -2, 0)), skull.table_hu)
    grain = skull.diploe_hu + 130 * skull.marrow.on(canvas.plane)
    depth = -shell.bone
    marrow = np.maximum(np.float32(1.9) - depth, depth - shell.thickness + np.float32(1.5))
    canvas.paint(marrow, np.asarray(grain, dtype=np.float32))
    _paint_sutures(canvas, skull, shell)


def _dome(canvas: Canvas, half: Place) -> Image:
    """Return the distance to the vault: an egg, broader behind, with flattened sides."""
    wide = bump(canvas.y, 22.0, 40.0) * np.float32(0.10) + np.float32(0.95)
    u, v, w = canvas.x / (wide * np.float32(half[0])), canvas.y / np.float32(half[1]), canvas.z / np.float32(half[2])
    w = np.where(w < 0, w * np.float32(0.86), w)
    flat = np.abs(u) ** np.float32(2.2) + np.abs(v) ** np.float32(2.12) + np.abs(w) ** np.float32(2.08)
    level = flat ** np.float32(1 / 2.13) + np.float32(1e-4)
    reach = np.sqrt(canvas.x * canvas.x + canvas.y * canvas.y + canvas.z * canvas.z)
    return np.asarray(np.maximum(reach, 20.0) * (1 - 1 / level), dtype=np.float32)


def _floor(x: Image, y: Image) -> Image:
    """Return the height of the skull's floor: front, middle and back fossa, saddle, clivus, petrous ridges."""
    side = np.abs(x)
    front = -30.0 + 9.0 * bump(side, 30.0, 16.0)
    middle = -50.0 + 21.0 * ramp(side, 24.0, 9.0)
    floor = front + (middle - front) * ramp(y, -38.0, -24.0)
    ridge_y = 2.0 + 0.62 * side
    clivus = -33.0 - 1.35 * np.maximum(y - 2.0, 0.0)
    back = np.maximum(np.maximum(clivus, -68.0), -68.0 + 24.0 * ramp(y, 55.0, 88.0))
    behind = np.asarray(y - ridge_y, dtype=np.float32)
    floor = floor + (back - floor) * ramp(behind, -4.0, 8.0)
    ridge = -36.0 - 0.10 * np.maximum(side - 20.0, 0.0)
    return np.asarray(floor + (ridge - floor) * bump(behind, 0.0, 5.0) * ramp(side, 6.0, 14.0), dtype=np.float32)


def _thickness(x: Image, y: Image, z: Image, skull: Skull, uneven: Image) -> Image:
    """Return the skull's thickness: thin at the temples, thick at brow and occiput, uneven by seed."""
    temple = ramp(np.abs(x), 45.0, 62.0) * bump(z, -14.0, 22.0) * bump(y, -12.0, 32.0)
    brow = bump(x, 0.0, 22.0) * ramp(y, -55.0, -75.0) * bump(z, -22.0, 15.0)
    occiput = bump(x, 0.0, 14.0) * ramp(y, 60.0, 78.0) * bump(z, -18.0, 16.0)
    base = ramp(z, -34.0, -44.0) * ramp(y, 25.0, 5.0)
    thick = skull.thickness_mm * (1 + 0.10 * uneven) - 3.6 * temple + 4.0 * brow + 3.0 * occiput - 3.2 * base
    return np.asarray(np.maximum(thick, 2.2), dtype=np.float32)


def _scalp_mm(x: Image, y: Image, z: Image, skull: Skull, canvas: Canvas) -> Image:
    low = ramp(z, 25.0, -30.0)
    temple = ramp(np.abs(x), 40.0, 60.0) * bump(y, -20.0, 32.0)
    nape = ramp(y, 20.0, 70.0)
    return np.asarray(5.2 + low * (7.0 * temple + 7.0 * nape) + 0.5 * skull.fat.on(canvas.plane), dtype=np.float32)


def _face_and_neck(canvas: Canvas, skull: Skull) -> Image:
    wide = skull.half_mm[0] / 67.0
    face = ellipsoid(canvas, (0.0, -42.0, -72.0), (64.0 * wide, 60.0, 62.0))
    nose = ellipsoid(canvas, (0.0, -98.0, -62.0), (11.0, 15.0, 22.0))
    neck = ellipsoid(canvas, (0.0, 22.0, -112.0), (62.0 * wide, 64.0, 85.0))
    return joined(joined(face, nose, 10.0), neck, 20.0)


def _paint_muscles(canvas: Canvas, skull: Skull, shell: Shell) -> None:
    """Paint the temporal muscles and those of the nape."""
    x, y, z = canvas.x, canvas.y, canvas.z
    striped = MUSCLE_HU - 25 * np.maximum(skull.fat.on(canvas.plane), 0.6)
    thick = 8.0 * ramp(np.abs(x), 42.0, 58.0) * bump(y, -20.0, 22.0) * ramp(z, 34.0, -12.0)
    thick = thick + 22.0 * ramp(y, 15.0, 45.0) * ramp(z, -32.0, -58.0) * ramp(np.abs(x), 62.0, 45.0)
    thick = np.minimum(thick, -shell.skin - 5.0)
    outer = np.maximum(shell.dome - shell.thickness - thick, shell.skin + 4.0)
    canvas.blend(canvas.inside(outer) * ramp(thick, 0.4, 2.0), np.asarray(striped, dtype=np.float32))
    deep = np.maximum(shell.skin + 9.0, z + 48.0)
    canvas.paint(np.asarray(deep, dtype=np.float32), np.asarray(striped - 6, dtype=np.float32))


def _paint_sutures(canvas: Canvas, skull: Skull, shell: Shell) -> None:
    """Paint the coronal, sagittal and lambdoid sutures: thin wandering gaps through the vault."""
    x, y, z = canvas.x, canvas.y, canvas.z
    wander = skull.zigzag.on(canvas.plane) * np.float32(1.3)
    side = np.abs(x)
    coronal = np.abs(y + 24.0 - 0.22 * side + wander) + 30 * ramp(z, 0.0, -10.0)
    sagittal = np.abs(x + wander) + 30 * ramp(y, -18.0, -26.0) + 30 * ramp(y, 56.0, 62.0) + 30 * ramp(z, 30.0, 20.0)
    lambdoid = np.abs(z - 52.0 + 1.15 * side + wander) * 0.66 + 30 * ramp(y, 42.0, 34.0) + 30 * ramp(z, -20.0, -30.0)
    gap = np.minimum(np.minimum(coronal, sagittal), lambdoid) - np.float32(0.55)
    gap = np.maximum(np.maximum(gap, shell.bone), -shell.cavity)
    canvas.blend(canvas.inside(gap) * np.float32(0.8), SUTURE_HU)
