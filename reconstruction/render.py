"""How do Hounsfield units become a picture for people: windowed, upright, outlined and lettered?"""

import functools
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy import ndimage

from reconstruction.geometry import Points
from reconstruction.lettering import Colour, write
from reconstruction.planes import Planes
from reconstruction.volume import Bits, Hu

Grey = npt.NDArray[np.uint8]
Rgb = npt.NDArray[np.uint8]

RED: Colour = (255, 70, 60)
YELLOW: Colour = (255, 214, 64)
_OBLIQUE = 0.4  # a second letter stands where the direction leans by more than about 24 degrees
_LETTERS = (("L", "R"), ("P", "A"), ("H", "F"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A display window: the level in the middle, and the width from black to white."""

    level_hu: float
    width_hu: float


BRAIN = Window(level_hu=40, width_hu=80)
SUBDURAL = Window(level_hu=75, width_hu=215)
BONE = Window(level_hu=500, width_hu=2000)
SOFT_TISSUE = Window(level_hu=40, width_hu=400)
LUNG = Window(level_hu=-600, width_hu=1500)
MIP_BONE = Window(level_hu=700, width_hu=2000)


def window(hu: Hu, level_hu: float, width_hu: float) -> Grey:
    """Map Hounsfield units of any shape to grey, 0..255, linearly (PS3.3 C.11.2.1.2.1)."""
    return _table(float(level_hu), float(width_hu))[hu.view(np.uint16)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Flat:
    """A flat picture that knows how it lies in the patient; ``pixels`` is (rows, columns) or (rows, columns, 3).

    Directions are as in ``Planes``: ``row_direction`` points along a row, ``column_direction`` down a column.
    """

    pixels: npt.NDArray[np.generic]
    row_direction: Points
    column_direction: Points
    pixel_spacing_mm: tuple[float, float]


def upright(flat: Flat) -> Flat:
    """Turn and flip by whole quarters to the radiological way: right on the left, anterior up or left, head up."""
    if _along(flat.row_direction) > _along(flat.column_direction):
        flat = _transposed(flat)
    if _sign(flat.column_direction, (1, 1, -1)) < 0:
        flat = replace(flat, pixels=flat.pixels[::-1], column_direction=-flat.column_direction)
    if _sign(flat.row_direction, (1, 1, -1)) < 0:
        flat = replace(flat, pixels=flat.pixels[:, ::-1], row_direction=-flat.row_direction)
    return flat


def frame(planes: Planes, number: int) -> Flat:
    """Return one frame of derived planes as a flat picture in Hounsfield units."""
    return Flat(
        pixels=planes.hu[number],
        row_direction=planes.row_direction,
        column_direction=planes.column_direction,
        pixel_spacing_mm=planes.pixel_spacing_mm,
    )


def picture(flat: Flat, view: Window, *, outline: Bits | None = None, colour: Colour = RED, size: int = 512) -> Rgb:
    """Make a lettered picture with a scale bar from Hounsfield units, its longer side ``size`` pixels.

    ``outline`` (rows, columns) is drawn as a contour; both are turned upright together.
    """
    shown = upright(flat)
    height, width = _fitted(shown, size)
    grey = window(np.ascontiguousarray(shown.pixels).astype(np.int16), view.level_hu, view.width_hu)
    rgb = np.stack([_resized(grey, height, width)] * 3, axis=-1)
    if outline is not None:
        marked = upright(replace(flat, pixels=outline))
        rgb = outlined(rgb, _resized(marked.pixels.astype(np.uint8) * 255, height, width) > 127, colour)
    spacing_mm = shown.pixel_spacing_mm[1] * shown.pixels.shape[1] / width
    return lettered(rgb, shown.row_direction, shown.column_direction, pixel_mm=spacing_mm)


def outlined(rgb: Rgb, region: Bits, colour: Colour) -> Rgb:
    """Draw the contour of a region just outside it, so that what it holds stays visible."""
    ring = ndimage.binary_dilation(region, iterations=2) & ~region
    result = rgb.copy()
    result[ring] = colour
    return result


def lettered(
    rgb: Rgb, row_direction: Points, column_direction: Points, *, pixel_mm: float | None = None, caption: str = ""
) -> Rgb:
    """Write the patient's directions at the four edges, a scale bar where ``pixel_mm`` is known, and a caption."""
    edges = (-row_direction, row_direction, -column_direction, column_direction)
    return lettered_at_edges(rgb, edges, pixel_mm=pixel_mm, caption=caption)


def lettered_at_edges(
    rgb: Rgb, directions: tuple[Points, Points, Points, Points], *, pixel_mm: float | None = None, caption: str = ""
) -> Rgb:
    """Write, as ``lettered``, what lies to the left, to the right, above and below a picture that may be bent."""
    image = Image.fromarray(rgb)
    draw = ImageDraw.Draw(image)
    width, height = image.size
    size = max(14, min(width, height) // 22)
    edges = (
        ((4, height // 2), "lm"),
        ((width - 4, height // 2), "rm"),
        ((width // 2, 3), "ma"),
        ((width // 2, height - 4), "md"),
    )
    for (place, anchor), direction in zip(edges, directions, strict=True):
        write(draw, place, letters(direction), size=size, colour=YELLOW, anchor=anchor)
    if pixel_mm:
        _scale_bar(draw, image.size, pixel_mm, size)
    if caption:
        write(draw, (6, 4), caption, size=size)
    return np.asarray(image)


def letters(direction: Points) -> str:
    """Name a direction in LPS by the patient's sides: A, P, L, R, H, F; two letters where it is oblique.

    Nothing for the zero vector: a picture that turns from row to row has no one direction.
    """
    if not direction.any():
        return ""
    order = np.argsort(-np.abs(direction), kind="stable")
    named = [axis for n, axis in enumerate(order) if n == 0 or abs(direction[axis]) > _OBLIQUE]
    return "".join(_LETTERS[axis][0 if direction[axis] > 0 else 1] for axis in named)


@functools.lru_cache(maxsize=16)
def _table(level_hu: float, width_hu: float) -> Grey:
    """Grey for each of the 65536 int16 values, by their bits read as uint16."""
    hu = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.float64)
    grey = ((hu - (level_hu - 0.5)) / max(width_hu - 1.0, 1.0) + 0.5) * 255.0
    table: Grey = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
    table.flags.writeable = False
    return table


def _along(direction: Points) -> int:
    """0, 1 or 2: the patient's axis (right-left, front-back, head-feet) a direction follows most."""
    return int(np.abs(direction).argmax())


def _sign(direction: Points, wanted: tuple[int, int, int]) -> float:
    axis = _along(direction)
    return float(direction[axis]) * wanted[axis]


def _transposed(flat: Flat) -> Flat:
    return Flat(
        pixels=flat.pixels.swapaxes(0, 1),
        row_direction=flat.column_direction,
        column_direction=flat.row_direction,
        pixel_spacing_mm=flat.pixel_spacing_mm[::-1],
    )


def _fitted(flat: Flat, size: int) -> tuple[int, int]:
    """Height and width in square pixels, the longer of them ``size``."""
    tall, wide = (n * mm for n, mm in zip(flat.pixels.shape[:2], flat.pixel_spacing_mm, strict=True))
    scale = size / max(tall, wide)
    return max(1, round(tall * scale)), max(1, round(wide * scale))


def _resized(grey: Grey, height: int, width: int) -> Grey:
    if grey.shape == (height, width):
        return grey
    return np.asarray(Image.fromarray(np.ascontiguousarray(grey)).resize((width, height), Image.Resampling.BILINEAR))


def _scale_bar(draw: ImageDraw.ImageDraw, size: tuple[int, int], pixel_mm: float, text_size: int) -> None:
    """A bar of 5 cm (1 cm in small pictures) at the lower right."""
    width, height = size
    bar_mm = 50.0 if 50.0 / pixel_mm < width * 0.4 else 10.0
    right, y = width - 8, height - 8
    left = right - bar_mm / pixel_mm
    draw.line([(left, y), (right, y)], fill=(0, 0, 0), width=5)
    draw.line([(left, y), (right, y)], fill=(255, 255, 255), width=3)
    write(draw, (right, y - 4), f"{bar_mm / 10:.0f} cm", size=max(12, text_size * 3 // 4), anchor="rd")
