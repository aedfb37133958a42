"""The spine of a torso: bodies, discs, arches with their processes, canal and cord."""

import numpy as np

from pipeline.phantom.canvas import Canvas, Image, bump, ramp

STEP_MM = 27.0
BODY_Y_MM, CANAL_Y_MM = 58.0, 84.0


def paint_spine(canvas: Canvas, skin: Image) -> None:
    """Paint all vertebrae at once: they repeat every STEP_MM along z, and end 8 mm below the ``skin``."""
    part = canvas.near((0.0, 85.0, float(canvas.plane.origin_mm[2])), 75.0)
    window = canvas.plane.near((0.0, 85.0, float(canvas.plane.origin_mm[2])), 83.0)
    if part is None or window is None:
        return
    step = np.rint(part.z * np.float32(1 / STEP_MM))
    off = part.z - step * np.float32(STEP_MM)
    _paint_bodies(part, np.asarray(off, dtype=np.float32))
    _paint_arches(part, np.asarray(off, dtype=np.float32), skin[window])
    canal = np.hypot(part.x, part.y - np.float32(CANAL_Y_MM))
    part.paint(np.asarray(canal - 10.0, dtype=np.float32), 10.0)
    part.paint(np.asarray(np.hypot(part.x * 0.8, part.y - CANAL_Y_MM) - 4.8, dtype=np.float32), 36.0)


def _paint_bodies(part: Canvas, off: Image) -> None:
    waist = 1.0 - 0.08 * bump(off, 0.0, 7.0)
    across = np.hypot(part.x / 21.0, (part.y - BODY_Y_MM) / 16.5) / waist
    round_mm = np.maximum((across - 1.0) * 17.0, -(part.y * -1 + 72.5))
    part.paint(np.asarray(round_mm, dtype=np.float32), 85.0)
    body = np.maximum(round_mm, np.abs(off) - 11.0)
    part.paint(np.asarray(body, dtype=np.float32), 620.0)
    part.paint(np.asarray(body + 1.4, dtype=np.float32), 185.0)


def _paint_arches(part: Canvas, off: Image, skin: Image) -> None:
    """Paint pedicles and laminae as a ring, and the processes as bars to the sides and to the back."""
    ring = np.abs(np.hypot(part.x * 0.95, part.y - CANAL_Y_MM) - 13.5) - 3.4
    ring = np.maximum(ring, np.abs(off + 2.0 - 0.25 * (part.y - CANAL_Y_MM)) - 8.5)
    side = np.hypot(off - 2.0, (part.y - CANAL_Y_MM - 8.0 - 0.25 * np.abs(part.x)) * 0.9) - 4.6
    side = np.maximum(side, np.abs(part.x) - 36.0 + 8 * ramp(part.z, 0.0, -80.0))
    back = np.maximum(np.hypot(part.x * 1.6, (off + 5.0) * 0.55) - 5.0, np.abs(part.y - 108.0) - 13.0)
    bone = np.minimum(np.minimum(ring, side), back)
    bone = np.maximum(bone, 10.0 - np.hypot(part.x, part.y - CANAL_Y_MM))
    bone = np.maximum(bone, skin + 8.0)
    part.paint(np.asarray(bone, dtype=np.float32), 680.0)
    part.paint(np.asarray(bone + 1.4, dtype=np.float32), 260.0)
