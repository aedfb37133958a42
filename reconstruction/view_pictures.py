"""How do views along a path become pictures for people: windowed, to scale, and lettered where a letter is true?"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from reconstruction.curved import Curved
from reconstruction.geometry import Points
from reconstruction.render import Rgb, Window, lettered_at_edges, window
from reconstruction.volume import Hu

_NEAR_THE_END = 8  # rows over which a path's direction at its end is taken


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ViewPicture:
    """An RGB picture (rows, columns, 3) and the size of its square pixels in the patient."""

    rgb: Rgb
    pixel_mm: float


def curved_picture(view: Curved, look: Window, *, size: int = 768) -> ViewPicture:
    """Draw a curved reformat, its longer side ``size`` pixels, with the length of its path.

    The letters above and below say where the path comes from and goes to, those at the sides where the middle row
    points: on a curve that changes from row to row.
    """
    rgb, pixel_mm = _drawn(view.hu, view.pixel_mm, look, size)
    middle = view.across[len(view.across) // 2]
    from_above = _towards(view.path_lps_mm[: _NEAR_THE_END + 1])
    below = _towards(view.path_lps_mm[-_NEAR_THE_END - 1 :])
    directions = (-middle, middle, -from_above, below)
    rgb = lettered_at_edges(rgb, directions, pixel_mm=pixel_mm, caption=f"{view.length_mm:.0f} mm")
    return ViewPicture(rgb=rgb, pixel_mm=pixel_mm)


def _drawn(hu: Hu, pixel_mm: float, look: Window, size: int) -> tuple[Rgb, float]:
    """Window square pixels and enlarge or reduce them; return the picture and its pixels' size."""
    rows, columns = hu.shape
    scale = size / max(rows, columns)
    shape = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    grey = window(np.ascontiguousarray(hu), look.level_hu, look.width_hu)
    enlarged = np.asarray(Image.fromarray(grey).resize(shape, Image.Resampling.BILINEAR))
    return np.stack([enlarged] * 3, axis=-1), pixel_mm / scale


def _towards(places: Points) -> Points:
    """Return the direction from the first of these places to the last."""
    way: Points = places[-1] - places[0]
    way /= max(float(np.linalg.norm(way)), 1e-9)
    return way
