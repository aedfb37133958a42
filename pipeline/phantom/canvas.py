"""One plane through a body, on which tissues are painted in HU."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]
Vector = npt.NDArray[np.float64]
Place = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plane:
    """A grid of points in space: ``origin_mm + row_mm * j + column_mm * i`` for j, i below ``shape``."""

    origin_mm: Vector
    row_mm: Vector
    column_mm: Vector
    shape: tuple[int, int]

    def moved(self, turn: Vector, shift_mm: Vector) -> "Plane":
        """Return the plane of the points ``turn @ (p - shift_mm)``."""
        return Plane(
            origin_mm=turn @ (self.origin_mm - shift_mm),
            row_mm=turn @ self.row_mm,
            column_mm=turn @ self.column_mm,
            shape=self.shape,
        )

    def coordinate(self, axis: int) -> Image:
        """Return one coordinate (0 x, 1 y, 2 z) of every point, in mm."""
        down = self.origin_mm[axis] + self.row_mm[axis] * np.arange(self.shape[0])
        along = self.column_mm[axis] * np.arange(self.shape[1])
        return np.asarray(down[:, None] + along[None, :], dtype=np.float32)

    def part(self, rows: slice, columns: slice) -> "Plane":
        """Return a rectangle of this plane."""
        return Plane(
            origin_mm=self.origin_mm + self.row_mm * rows.start + self.column_mm * columns.start,
            row_mm=self.row_mm,
            column_mm=self.column_mm,
            shape=(rows.stop - rows.start, columns.stop - columns.start),
        )

    def near(self, centre: Place, reach_mm: float) -> tuple[slice, slice] | None:
        """Return the rows and columns within ``reach_mm`` of ``centre``, or None where there are none."""
        away = [c - o for c, o in zip(centre, self.origin_mm.tolist(), strict=True)]
        row, column = self.row_mm.tolist(), self.column_mm.tolist()
        rows = _span(away, row, reach_mm, self.shape[0])
        columns = _span(away, column, reach_mm, self.shape[1])
        square = (
            _dot(away, away) - _dot(away, row) ** 2 / _dot(row, row) - _dot(away, column) ** 2 / _dot(column, column)
        )
        return None if rows is None or columns is None or square > reach_mm**2 else (rows, columns)


def _dot(one: list[float], other: list[float]) -> float:
    return one[0] * other[0] + one[1] * other[1] + one[2] * other[2]


def _span(away: list[float], side: list[float], reach_mm: float, count: int) -> slice | None:
    square = _dot(side, side)
    middle, reach = _dot(away, side) / square, reach_mm / square**0.5
    low, high = max(int(middle - reach), 0), min(int(middle + reach) + 2, count)
    return slice(low, high) if low < high else None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Canvas:
    """A plane being painted: where each point lies in the body's own (bent) millimetres, and its HU so far.

    ``x``, ``y``, ``z`` grow to the left, to the back and to the top, as in LPS. ``edge_mm`` is how wide the border
    between two tissues is drawn: half a sample each side, which gives partial volume.
    """

    plane: Plane
    x: Image
    y: Image
    z: Image
    hu: Image
    edge_mm: float

    def near(self, centre: Place, reach_mm: float) -> Self | None:
        """Return the part of the canvas round ``centre`` as views, or None; 8 mm are added for the bending."""
        window = self.plane.near(centre, reach_mm + 8.0)
        if window is None:
            return None
        return type(self)(
            plane=self.plane.part(*window),
            x=self.x[window],
            y=self.y[window],
            z=self.z[window],
            hu=self.hu[window],
            edge_mm=self.edge_mm,
        )

    def points(self) -> Image:
        """Return where every point lies in the body's axes before bending, (..., 3) in mm."""
        return np.stack([self.plane.coordinate(axis) for axis in range(3)], axis=-1)

    def inside(self, distance_mm: Image) -> Image:
        """Return the filled fraction (0..1) for a signed distance that is negative inside."""
        return np.asarray(np.clip(np.float32(0.5) - distance_mm * np.float32(1 / self.edge_mm), 0, 1))

    def paint(self, distance_mm: Image, hu: float | Image) -> None:
        """Paint the inside of a signed distance with ``hu``."""
        self.blend(self.inside(distance_mm), hu)

    def blend(self, fraction: Image, hu: float | Image) -> None:
        """Paint with ``hu`` where ``fraction`` (0..1) says how much of the point is covered."""
        self.hu[...] += (np.float32(hu) - self.hu if isinstance(hu, float) else hu - self.hu) * fraction

    def ellipsoid(self, centre: Place, half_mm: Place, hu: float) -> None:
        """Paint an ellipsoid with half axes ``half_mm``."""
        part = self.near(centre, max(half_mm))
        if part is not None:
            part.paint(ellipsoid(part, centre, half_mm), hu)

    def rod(self, start: Place, end: Place, radii_mm: tuple[float, float], hu: float) -> None:
        """Paint a rod with rounded ends that goes from ``start`` to ``end``."""
        middle, reach = _around(start, end)
        part = self.near(middle, reach + max(radii_mm))
        if part is not None:
            part.paint(rod(part, start, end, radii_mm), hu)


def _around(start: Place, end: Place) -> tuple[Place, float]:
    a, b = np.asarray(start), np.asarray(end)
    x, y, z = (float(v) for v in (a + b) / 2)
    return (x, y, z), float(np.linalg.norm(b - a)) / 2


def ellipsoid(canvas: Canvas, centre: Place, half_mm: Place) -> Image:
    """Return the signed distance to an ellipsoid (first order), negative inside."""
    u = (canvas.x - np.float32(centre[0])) * np.float32(1 / half_mm[0])
    v = (canvas.y - np.float32(centre[1])) * np.float32(1 / half_mm[1])
    w = (canvas.z - np.float32(centre[2])) * np.float32(1 / half_mm[2])
    level = np.sqrt(u * u + v * v + w * w) + np.float32(1e-4)
    u, v, w = u * np.float32(1 / half_mm[0]), v * np.float32(1 / half_mm[1]), w * np.float32(1 / half_mm[2])
    slope = np.sqrt(u * u + v * v + w * w) + np.float32(1e-5)
    return np.asarray(level * (level - 1) / slope)


def rod(canvas: Canvas, start: Place, end: Place, radii_mm: tuple[float, float]) -> Image:
    """Return the signed distance to a rod whose radius changes from one end to the other, negative inside."""
    sides = [np.float32(b - a) for a, b in zip(start, end, strict=True)]
    x, y, z = canvas.x - np.float32(start[0]), canvas.y - np.float32(start[1]), canvas.z - np.float32(start[2])
    square = np.float32(max(float(sum(s * s for s in sides)), 1e-6))
    share = np.clip((x * sides[0] + y * sides[1] + z * sides[2]) / square, 0, 1)
    x, y, z = x - share * sides[0], y - share * sides[1], z - share * sides[2]
    radius = np.float32(radii_mm[0]) + share * np.float32(radii_mm[1] - radii_mm[0])
    return np.asarray(np.sqrt(x * x + y * y + z * z) - radius)


def joined(one: Image, other: Image, soft_mm: float) -> Image:
    """Return the union of two signed distances, rounded where they meet over ``soft_mm``."""
    near = np.maximum(np.float32(soft_mm) - np.abs(one - other), 0)
    return np.asarray(np.minimum(one, other) - near * near * np.float32(0.25 / soft_mm))


def common(one: Image, other: Image, soft_mm: float) -> Image:
    """Return the intersection of two signed distances, rounded where they meet over ``soft_mm``."""
    return -joined(-one, -other, soft_mm)


def bump(value: Image, centre: float, width: float) -> Image:
    """Return a bell of height 1 round ``centre``."""
    scaled = (value - np.float32(centre)) * np.float32(1 / width)
    return np.asarray(np.exp(-0.5 * scaled * scaled))


def ramp(value: Image, start: float, end: float) -> Image:
    """Return 0 before ``start``, 1 behind ``end`` and a smooth step between (either may be the larger)."""
    share = value - np.float32(start)
    share *= np.float32(1 / (end - start))
    np.clip(share, 0, 1, out=share)
    smooth = share * np.float32(-2)
    smooth += np.float32(3)
    smooth *= share
    smooth *= share
    return smooth
