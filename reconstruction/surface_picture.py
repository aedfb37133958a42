"""What does a mesh look like from several sides, so that a hole, a spike or too few triangles are seen?

Drawn triangle by triangle into a depth buffer, with parallel rays and no rounding of the light from one triangle to the
next: the picture shows the mesh that is written, not the voxels it was made from. Where a triangle's inside faces the
eye it is red; a closed mesh shows none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from reconstruction.errors import NoSurface
from reconstruction.geometry import Points
from reconstruction.render import Rgb, lettered
from reconstruction.render_3d import ANTERIOR, LEAST_SIZE, LEFT, MOST_SIZE, View
from reconstruction.resample import in_threads
from reconstruction.surface import Mesh, Tissue, Triangles

POSTERIOR = View(name="posterior", from_lps=(0.0, 1.0, 0.0))
SUPERIOR = View(name="superior", from_lps=(0.0, 0.0, 1.0), up_lps=(0.0, -1.0, 0.0))
INSIDE_RGB = (235.0, 40.0, 40.0)
_OUTSIDE_RGB: Mapping[Tissue, tuple[float, float, float]] = {
    "bone": (237.0, 217.0, 184.0),
    "skin": (217.0, 163.0, 140.0),
}
_RIM_SHARE = 1.15  # letters stand in the rim
_FINER = 2  # lines of the depth buffer for each line of the picture
_LIGHT = np.array([-0.2, 0.25, 1.0]) / np.linalg.norm([-0.2, 0.25, 1.0])  # as the caster's: right, up, towards the eye
_AMBIENT, _DIFFUSE = 0.25, 0.75
_EDGE = 1e-9  # of a triangle: a pixel on the edge of two belongs to both, so that none is left out between them

Lines = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeshPicture:
    """Four views of a mesh on one sheet, RGB (rows, columns, 3), lettered; ``pixel_mm`` holds all over it.

    Upper row: from the front, from the patient's left; lower row: from the back, from above with the front up.
    """

    rgb: Rgb
    pixel_mm: float


def surface_picture(mesh: Mesh, tissue: Tissue, *, size: int = 512) -> MeshPicture:
    """Draw a mesh from four sides, each view ``size`` pixels wide and high.

    Raises NoSurface for a mesh without triangles, with vertices that are no numbers, or a size out of bounds.
    """
    if not LEAST_SIZE <= size <= MOST_SIZE:
        raise NoSurface(f"a picture of {size} pixels: {LEAST_SIZE} to {MOST_SIZE} can be made")
    _refuse_undrawable(mesh)
    rows = ((ANTERIOR, LEFT), (POSTERIOR, SUPERIOR))
    middle, reach_mm = _framed(mesh, [view for row in rows for view in row])
    pixel_mm = reach_mm / size

    def shown(view: View) -> Rgb:
        right, up, _ = axes = _axes(view)
        rgb = drawn(mesh, axes, (middle, reach_mm), _OUTSIDE_RGB[tissue], size=size)
        return lettered(rgb, right, -up, pixel_mm=pixel_mm, caption=view.name)

    sheet = np.concatenate([np.concatenate([shown(view) for view in row], axis=1) for row in rows])
    return MeshPicture(rgb=sheet, pixel_mm=pixel_mm)


def drawn(
    mesh: Mesh, axes: Points, framed: tuple[Points, float], outside: tuple[float, float, float], *, size: int
) -> Rgb:
    """Draw a mesh on black, (size, size, 3), without letters.

    ``axes`` are unit rows in LPS: to the viewer's right, up, towards the eye. ``framed`` is the place in LPS mm that is
    shown in the middle, and how many mm the picture spans; what lies beyond is cut off.
    """
    middle, reach_mm = framed
    lines = size * _FINER
    places = (mesh.vertices_lps_mm - middle) @ axes.T * (lines / reach_mm)
    places[:, 0] += (lines - 1) / 2.0
    places[:, 1] = (lines - 1) / 2.0 - places[:, 1]
    depth = np.full((lines, lines), -np.inf)
    light = np.zeros((lines, lines), dtype=np.float32)
    in_threads(lambda span: _draw(places, mesh.triangles, _LIGHT, (depth, light), span), lines)
    return _coloured(light, outside, size)


def _refuse_undrawable(mesh: Mesh) -> None:
    vertices, triangles = mesh.vertices_lps_mm, mesh.triangles
    if not len(triangles):
        raise NoSurface("a mesh without triangles cannot be drawn")
    if triangles.min() < 0 or triangles.max() >= len(vertices) or not np.isfinite(vertices).all():
        raise NoSurface("a mesh whose vertices are missing or no numbers cannot be drawn")


def _axes(view: View) -> Points:
    """Return unit vectors in LPS, one to a row: to the viewer's right, up, towards the eye."""
    towards, up = np.array(view.from_lps), np.array(view.up_lps)
    return np.stack([np.cross(up, towards), up, towards])


def _framed(mesh: Mesh, views: list[View]) -> tuple[Points, float]:
    """Return the middle of a mesh, and how many mm a square must span to hold it in each view."""
    used = mesh.vertices_lps_mm[np.unique(mesh.triangles)].astype(np.float64)
    middle: Points = (used.min(axis=0) + used.max(axis=0)) / 2.0
    sides = np.concatenate([_axes(view)[:2] for view in views])
    return middle, max(2.0 * _RIM_SHARE * float(np.abs((used - middle) @ sides.T).max()), 1e-3)


def _coloured(light: Lines, outside: tuple[float, float, float], size: int) -> Rgb:
    """Colour how light a surface is, below zero its inside, and average the finer lines."""
    front, back = np.maximum(light, 0)[..., None], np.maximum(-light, 0)[..., None]
    fine = front * np.array(outside, dtype=np.float32) + back * np.array(INSIDE_RGB, dtype=np.float32)
    rgb: Rgb = np.rint(fine.reshape(size, _FINER, size, _FINER, 3).mean(axis=(1, 3))).astype(np.uint8)
    return rgb


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _draw(places: Points, triangles: Triangles, lamp: Points, onto: Any, span: tuple[int, int]) -> None:
    """Draw the lines ``span`` of every triangle; places are (column, row, nearness), all in lines of the picture."""
    for t in range(len(triangles)):
        a, b, c = places[triangles[t, 0]], places[triangles[t, 1]], places[triangles[t, 2]]
        first = max(span[0], int(np.ceil(min(a[1], b[1], c[1]))))
        last = min(span[1] - 1, int(np.floor(max(a[1], b[1], c[1]))))
        facing = _lit(a, b, c, lamp) if first <= last else 0.0
        if facing != 0.0:
            for row in range(first, last + 1):
                _draw_line((a, b, c), facing, row, onto)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _lit(a: Points, b: Points, c: Points, lamp: Points) -> float:
    """Return how light a triangle is, 0..1; below zero where its inside faces the eye, 0 where it is seen edge on."""
    x = -(b[1] - a[1]) * (c[2] - a[2]) + (b[2] - a[2]) * (c[1] - a[1])  # rows run down, the axis beside them up
    y = (b[2] - a[2]) * (c[0] - a[0]) - (b[0] - a[0]) * (c[2] - a[2])
    z = -(b[0] - a[0]) * (c[1] - a[1]) + (b[1] - a[1]) * (c[0] - a[0])
    length = np.sqrt(x * x + y * y + z * z)
    if abs(z) <= 1e-12 * length or length == 0.0:
        return 0.0
    way = 1.0 if z > 0 else -1.0
    squarely = way * (x * lamp[0] + y * lamp[1] + z * lamp[2]) / length
    return float(way * (_AMBIENT + _DIFFUSE * max(squarely, 0.0)))


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _draw_line(corners: Any, facing: float, row: int, onto: Any) -> None:
    """Draw one line of a triangle where nothing nearer stands; of two as near, the one whose outside is seen."""
    a, b, c = corners
    depth, light = onto
    whole = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    left = max(0, int(np.ceil(min(a[0], b[0], c[0]))))
    for column in range(left, min(light.shape[1] - 1, int(np.floor(max(a[0], b[0], c[0])))) + 1):
        v = ((column - a[0]) * (c[1] - a[1]) - (row - a[1]) * (c[0] - a[0])) / whole
        w = ((b[0] - a[0]) * (row - a[1]) - (b[1] - a[1]) * (column - a[0])) / whole
        if min(v, w, 1.0 - v - w) < -_EDGE:
            continue
        near = a[2] + v * (b[2] - a[2]) + w * (c[2] - a[2])
        before = depth[row, column]
        if near > before or (near == before and facing > 0):
            depth[row, column], light[row, column] = near, facing
