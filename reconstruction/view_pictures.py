"""How do views along a path become pictures for people: windowed, to scale, and lettered where a letter is true?"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from reconstruction.curved import Curved
from reconstruction.geometry import Points
from reconstruction.lettering import Colour, wrapped, write
from reconstruction.needle import NeedleView
from reconstruction.planes import Planes
from reconstruction.render import Rgb, Window, lettered_at_edges, window
from reconstruction.volume import Hu

_PATH: Colour = (80, 255, 140)
_TICK, _RING = 4, 9  # half sides and radius of the marks, in pixels
_HOLDS = 0.7  # the cosine of 45 degrees
_NONE = 1e-9
_NEAR_THE_END = 8  # rows over which a path's direction at its end is taken


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ViewPicture:
    """An RGB picture (rows, columns, 3) and the size of its square pixels in the patient."""

    rgb: Rgb
    pixel_mm: float


def curved_picture(view: Curved, look: Window, *, size: int = 768) -> ViewPicture:
    """Draw a curved reformat, its longer side ``size`` pixels, with the length of its path.

    Above and below stands where the path comes from and goes to at that end; at the sides what is true of every row
    within 45 degrees, or nothing where the picture turns round the path. A path from side to side lies across.
    """
    rgb, pixel_mm = _drawn(view.hu, view.pixel_mm, look, size)
    across, ends = _common(view.across), (view.path_lps_mm[: _NEAR_THE_END + 1], view.path_lps_mm[-_NEAR_THE_END - 1 :])
    directions = (-across, across, -_towards(ends[0]), _towards(ends[1]))
    if _lies(view.path_lps_mm):
        rgb, directions = rgb.swapaxes(0, 1), (*directions[2:], *directions[:2])
    rgb = lettered_at_edges(
        np.ascontiguousarray(rgb), directions, pixel_mm=pixel_mm, caption=f"{view.length_mm:.0f} mm"
    )
    return ViewPicture(rgb=rgb, pixel_mm=pixel_mm)


def needle_pictures(
    view: NeedleView, look: Window, *, size: int = 768, remarks: tuple[str, str] = ("", "")
) -> tuple[ViewPicture, ViewPicture]:
    """Draw the two planes of a needle view, near axial and across it, with the path.

    The longer side has ``size`` pixels. A square stands at the entry, a ring round the target, a tick every 10 mm of
    depth, and the length in the corner, below it what ``remarks`` says of each, such as its angle; the line stops
    short of the target, so that the lesion stays in sight.
    """
    ends, ticks = (view.entry, view.target), view.depths
    near = _Path(entry=ends[0].pixel, target=ends[1].pixel, depths=tuple(tick.pixel for tick in ticks))
    across = _Path(
        entry=ends[0].pixel_across, target=ends[1].pixel_across, depths=tuple(tick.pixel_across for tick in ticks)
    )
    caption = f"{view.length_mm:.0f} mm"
    first = _needle_picture(view.near_axial, near, look, size, (caption, remarks[0]))
    return first, _needle_picture(view.perpendicular, across, look, size, (caption, remarks[1]))


_Pixel = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Path:
    """Where a needle's path lies in a picture: (row, column), fractional."""

    entry: _Pixel
    target: _Pixel
    depths: tuple[_Pixel, ...]


def _needle_picture(planes: Planes, path: _Path, look: Window, size: int, words: tuple[str, str]) -> ViewPicture:
    rgb, pixel_mm = _drawn(planes.hu[0], planes.pixel_spacing_mm[0], look, size)
    image = Image.fromarray(rgb)
    _draw_path(ImageDraw.Draw(image), path, planes.pixel_spacing_mm[0] / pixel_mm)
    row, column = planes.row_direction, planes.column_direction
    directions = (-row, row, -column, column)
    rgb = lettered_at_edges(np.asarray(image), directions, pixel_mm=pixel_mm, caption=words[0])
    return ViewPicture(rgb=_remarked(rgb, words[1]), pixel_mm=pixel_mm)


def _remarked(rgb: Rgb, remark: str) -> Rgb:
    """Write below the caption, small, in the left half: no letter of the patient's sides stands there."""
    image = Image.fromarray(rgb)
    below, size = max(14, min(image.size) // 22) * 1.4, max(12, min(image.size) // 32)
    for n, line in enumerate(wrapped(remark, size, image.width * 0.45)):
        write(ImageDraw.Draw(image), (6, 4 + below + n * size * 1.25), line, size=size)
    return np.asarray(image)


def _draw_path(draw: ImageDraw.ImageDraw, path: _Path, scale: float) -> None:
    """Draw on an enlarged picture; the middle of pixel 0 then lies half an enlarged pixel from the edge."""
    entry, target, *depths = (
        np.array([column + 0.5, row + 0.5]) * scale - 0.5 for row, column in (path.entry, path.target, *path.depths)
    )
    along = target - entry
    length = max(float(np.hypot(*along)), 1e-6)
    along /= length
    beside = np.array([-along[1], along[0]]) * _TICK
    stop = entry + along * max(length - _RING, 0.0)
    draw.line([tuple(entry), tuple(stop)], fill=_PATH, width=1)
    for place in depths:
        draw.line([tuple(place - beside), tuple(place + beside)], fill=_PATH, width=1)
    draw.rectangle([tuple(entry - _TICK), tuple(entry + _TICK)], outline=_PATH, width=2)
    draw.ellipse([tuple(target - _RING), tuple(target + _RING)], outline=_PATH, width=2)


def _drawn(hu: Hu, pixel_mm: float, look: Window, size: int) -> tuple[Rgb, float]:
    """Window square pixels and enlarge or reduce them; return the picture and its pixels' size."""
    rows, columns = hu.shape
    scale = size / max(rows, columns)
    shape = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    grey = window(np.ascontiguousarray(hu), look.level_hu, look.width_hu)
    enlarged = np.asarray(Image.fromarray(grey).resize(shape, Image.Resampling.BILINEAR))
    return np.stack([enlarged] * 3, axis=-1), pixel_mm / scale


def _lies(path: Points) -> bool:
    """Say whether a path runs from side to side: its rows then point head-feet, and it is shown lying."""
    return int(np.abs(path[-1] - path[0]).argmax()) == 0


def _common(directions: Points) -> Points:
    """Return the direction that all keep to; none (zero) where they do not."""
    middle: Points = directions.mean(axis=0)
    length = float(np.linalg.norm(middle))
    if length < _NONE or float((directions @ middle).min()) < _HOLDS * length:
        return np.zeros(3)
    return middle / length


def _towards(places: Points) -> Points:
    """Return the direction from the first of these places to the last."""
    way: Points = places[-1] - places[0]
    way /= max(float(np.linalg.norm(way)), _NONE)
    return way
