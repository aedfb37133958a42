"""The rough parts below the brain: petrous bones, clivus, sinuses, orbits, first vertebra."""

import numpy as np

from pipeline.phantom.canvas import Canvas, bump, ellipsoid, ramp, rod
from pipeline.phantom.skull import AIR_HU, FAT_HU, MUSCLE_HU, Shell, Skull

DENSE_HU = 1600.0


def paint_base(canvas: Canvas, skull: Skull, shell: Shell) -> None:
    """Paint the base from the bones to the air in them; planes above it are left as they are."""
    _paint_frontal_sinus(canvas, skull, shell)
    if float(canvas.z.min()) > -10.0:
        return
    outside = canvas.inside(-shell.cavity)
    before = canvas.hu.copy()
    for side in (-1.0, 1.0):
        _paint_petrous(canvas, skull, side)
        _paint_orbit(canvas, side)
        _paint_cheek(canvas, side)
    _paint_middle(canvas, skull)
    _paint_atlas(canvas, shell)
    canvas.hu[...] = before + (canvas.hu - before) * outside * canvas.inside(shell.skin + np.float32(1.5))


def _paint_petrous(canvas: Canvas, skull: Skull, side: float) -> None:
    """Paint one petrous pyramid and its mastoid with air cells."""
    canvas.rod((side * 16.0, 12.0, -45.0), (side * 52.0, 34.0, -46.0), (6.0, 12.0), DENSE_HU)
    canvas.rod((side * 55.0, 36.0, -46.0), (side * 57.0, 34.0, -68.0), (13.0, 8.0), 900.0)
    part = canvas.near((side * 56.0, 35.0, -52.0), 24.0)
    if part is None:
        return
    air = np.maximum(rod(part, (side * 54.0, 35.0, -46.0), (side * 57.0, 34.0, -66.0), (11.0, 6.0)), 0.0)
    walls = np.abs(skull.zigzag.on(part.plane)) * np.float32(1.7)
    part.blend(part.inside(np.asarray(air - 0.5, dtype=np.float32)) * ramp(walls, 0.4, 1.3), -900.0)
    canvas.rod((side * 48.0, 18.0, -52.0), (side * 76.0, 16.0, -54.0), (2.5, 3.5), AIR_HU)


def _paint_orbit(canvas: Canvas, side: float) -> None:
    """Paint one orbit: bony walls, fat, globe, lens, muscles, optic nerve."""
    front, apex = (side * 33.0, -78.0, -44.0), (side * 14.0, -34.0, -40.0)
    canvas.rod((side * 33.0, -72.0, -44.0), apex, (20.5, 6.0), 800.0)
    canvas.rod((side * 34.0, -92.0, -44.0), front, (19.0, 19.0), 30.0)
    canvas.rod(front, apex, (18.5, 4.0), FAT_HU)
    for dx, dz in ((14.0, 0.0), (-13.0, 0.0), (0.0, 12.0), (0.0, -12.0)):
        canvas.rod((side * (33.0 + dx), -76.0, -44.0 + dz), apex, (1.8, 1.8), MUSCLE_HU)
    canvas.rod((side * 32.0, -72.0, -44.0), apex, (2.0, 2.0), 35.0)
    canvas.ellipsoid((side * 33.0, -82.0, -44.0), (12.3, 12.3, 12.3), 48.0)
    canvas.ellipsoid((side * 33.0, -82.0, -44.0), (11.2, 11.2, 11.2), 12.0)
    canvas.ellipsoid((side * 33.0, -90.0, -44.0), (4.6, 2.2, 4.6), 85.0)


def _paint_cheek(canvas: Canvas, side: float) -> None:
    """Paint the zygomatic arch, the maxillary sinus and the head of the mandible."""
    canvas.rod((side * 50.0, -62.0, -58.0), (side * 68.0, -18.0, -56.0), (4.0, 2.5), 1100.0)
    canvas.ellipsoid((side * 29.0, -60.0, -80.0), (17.5, 19.5, 18.5), 800.0)
    canvas.ellipsoid((side * 29.0, -60.0, -80.0), (16.0, 18.0, 17.0), AIR_HU)
    canvas.rod((side * 48.0, 4.0, -62.0), (side * 57.0, 6.0, -62.0), (4.5, 4.5), 1000.0)
    canvas.rod((side * 53.0, 5.0, -64.0), (side * 52.0, 0.0, -95.0), (4.0, 6.0), 1000.0)


def _paint_middle(canvas: Canvas, skull: Skull) -> None:
    """Paint clivus and sphenoid bone, the sphenoid sinus, the ethmoid cells and the nose."""
    canvas.rod((0.0, 6.0, -46.0), (0.0, 21.0, -70.0), (9.0, 6.0), 700.0)
    canvas.ellipsoid((0.0, -14.0, -46.0), (21.0, 18.0, 13.0), 750.0)
    for side in (-1.0, 1.0):
        canvas.ellipsoid((side * 8.2, -17.0, -47.0), (7.2, 13.0, 9.5), AIR_HU)
    part = canvas.near((0.0, -60.0, -60.0), 45.0)
    if part is None:
        return
    box = ellipsoid(part, (0.0, -60.0, -60.0), (15.5, 33.0, 33.0))
    part.paint(box, 350.0)
    walls = np.abs(skull.zigzag.on(part.plane)) * np.float32(1.7)
    hollow = part.inside(box + np.float32(1.2))
    septum = ramp(np.abs(part.x), 0.4, 1.4)
    part.blend(hollow * np.maximum(ramp(walls, 0.3, 1.1), ramp(part.z, -58.0, -63.0)) * septum, AIR_HU)


def _paint_frontal_sinus(canvas: Canvas, skull: Skull, shell: Shell) -> None:
    """Paint air between the tables of the brow, in two halves of uneven size."""
    part = canvas.near((0.0, -88.0, -20.0), 30.0)
    if part is None:
        return
    window = canvas.plane.near((0.0, -88.0, -20.0), 38.0)
    bone, cavity = shell.bone[window], shell.cavity[window]
    between = np.maximum(bone + 2.2, 1.8 - cavity)
    spread = bump(part.x, 3.0, 15.0) * bump(part.z, -24.0, 11.0) * ramp(part.y, -45.0, -65.0)
    wide = np.float32(skull.sinus) - spread + 0.06 * np.abs(skull.cells.on(part.plane))
    air = np.maximum(np.maximum(between, wide * 18), 0.7 - np.abs(part.x))
    part.paint(np.asarray(air, dtype=np.float32), AIR_HU)


def _paint_atlas(canvas: Canvas, shell: Shell) -> None:
    """Paint the first vertebra's ring, the dens, and the spinal canal with its cord."""
    part = canvas.near((0.0, 36.0, -84.0), 36.0)
    if part is None:
        return
    ring = np.abs(np.hypot(part.x * np.float32(0.8), part.y - 36.0) - 20.0) - 4.0
    flat = np.maximum(ring, np.abs(part.z + 84.0) - 6.0)
    part.paint(np.asarray(flat, dtype=np.float32), 900.0)
    canvas.rod((0.0, 22.0, -76.0), (0.0, 24.0, -110.0), (4.5, 7.0), 850.0)
    canal = ellipsoid(part, (0.0, 38.0, -84.0), (11.5, 10.5, 60.0))
    part.paint(canal, 8.0)
    part.paint(ellipsoid(part, (0.0, 38.0, -84.0), (6.5, 5.5, 60.0)), 33.0)
