"""What does a volume look like along a curved path through a spine or a vessel?"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.interpolate import CubicSpline

from reconstruction.errors import ImpossibleView
from reconstruction.geometry import Geometry, Points
from reconstruction.oblique import extent, point, read_lines, seen
from reconstruction.planes import KIND_OF, PlanesKind, Projection, Slab
from reconstruction.volume import Bits, Hu, Volume

Unrolling = Literal["straightened", "stretched"]
Through = Literal["spline", "lines"]
_LONGEST_SIDE = 8192
_MOST_POINTS = 10_000
_SAME_PLACE = 1e-3  # mm
_PARALLEL = 0.05  # the sine of about 3 degrees
_TURNS_BACK = -0.5
_A_RING = 0.1  # a path that ends so near to its start, against its extent, goes round
_ALONG = "the path runs along the direction of the rows; choose another direction across"
_UPRIGHT = np.array([1.0, 1.0, -1.0])  # the radiological way along each of the patient's axes: left, back, feet


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How a curved reformat is laid out.

    ``straightened`` (vessels: diameters and lengths along the path are true) puts each row at right angles to the
    path. Without ``across`` the rows turn round the path as little as they can; with it they keep as near to that
    direction as the path allows. ``stretched`` (spine, jaw) unrolls the surface that ``across`` sweeps along the path,
    without any distortion on that surface: the path itself may wander from side to side. ``across`` (LPS) is by
    default the patient's right-left, head-feet for a path from side to side, and for a ring the axis it lies across.
    ``through`` joins the points by a cubic spline or by straight lines. ``width_mm`` is how far rows reach;
    ``thickness_mm`` and ``projection`` are of the slab before and behind the surface; ``pixel_mm`` defaults to the
    smallest spacing of the volume. Raises ImpossibleView for a look that is none.
    """

    unrolling: Unrolling = "straightened"
    across: tuple[float, float, float] | None = None
    through: Through = "spline"
    width_mm: float = 80.0
    thickness_mm: float = 0.0
    projection: Projection = "mean"
    pixel_mm: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.width_mm) and self.width_mm > 0):
            raise ImpossibleView("a curved reformat needs a width of more than 0 mm")
        if self.pixel_mm is not None and not (math.isfinite(self.pixel_mm) and self.pixel_mm > 0):
            raise ImpossibleView("the pixels of a picture need a size of more than 0 mm")
        if self.unrolling not in get_args(Unrolling) or self.through not in get_args(Through):
            raise ImpossibleView(f"no such curved reformat: {self.unrolling} through {self.through}")
        Slab(thickness_mm=self.thickness_mm, count=1, projection=self.projection)


VESSEL = Look()
SPINE = Look(unrolling="stretched", width_mm=120.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Curved:
    """A picture along a path, in Hounsfield units (int16, -1024 outside); pixels are squares of ``pixel_mm``.

    Rows follow one another along the path, in whichever direction reads the radiological way (head above);
    columns run across. For each row: ``arc_mm``, the length of the path from the caller's first point to it;
    ``origins_lps_mm`` and ``across`` (unit), where its first pixel lies and where its columns go, LPS;
    ``path_lps_mm`` and ``path_columns``, where the path crosses it. ``length_mm`` is the path's whole length.
    ``least_bend_mm`` is the path's smallest radius: on the inner side of a bend a straightened picture shows tissue
    farther than that from the path more than once, and beyond the outer side it leaves some out.
    """

    hu: Hu
    arc_mm: Points
    length_mm: float
    origins_lps_mm: Points
    across: Points
    path_lps_mm: Points
    path_columns: Points
    pixel_mm: float
    thickness_mm: float
    least_bend_mm: float
    unrolling: Unrolling
    kind: PlanesKind

    def __post_init__(self) -> None:
        for array in (self.hu, self.arc_mm, self.origins_lps_mm, self.across, self.path_lps_mm, self.path_columns):
            array.flags.writeable = False

    def to_mm(self, row: float, column: float) -> Points:
        """Map a pixel (fractional row and column allowed, linear between rows) to LPS millimetres."""
        low = min(max(math.floor(row), 0), max(len(self.hu) - 2, 0))
        high = min(low + 1, len(self.hu) - 1)
        one, other = (self.origins_lps_mm[r] + self.across[r] * (column * self.pixel_mm) for r in (low, high))
        place: Points = one + (other - one) * (row - low)
        return place


def curved(volume: Volume, points_lps_mm: npt.ArrayLike, *, look: Look = VESSEL, outside: Bits | None = None) -> Curved:
    """Make a curved planar reformat along a path through points (n, 3), LPS mm, of a straight or sheared volume.

    Rows are as far apart along the path as pixels are wide. Values are trilinear through the volume's affine, samples
    outside it or where ``outside`` (kji) has a share count for nothing, as in ``oblique``. Straightened and stretched
    reformats: Kanitsar et al., CPR - Curved Planar Reformation, IEEE Visualization 2002; least rotation: Wang et al.,
    Computation of Rotation Minimizing Frames, ACM TOG 27(1), 2008 (double reflection). Raises ImpossibleView for fewer
    than two points, points that repeat, are no numbers or lie outside the volume, a path that doubles back on itself
    or runs along ``across``.
    """
    hidden = seen(volume, outside)
    points = _checked(points_lps_mm, volume.geometry)
    pixel = look.pixel_mm or min(volume.geometry.spacing_mm)
    path = _measured(points, look, pixel)
    forwards = _runs_down(points)
    surface = (_stretched if look.unrolling == "stretched" else _straightened)(path, look, pixel, forwards)
    columns = _columns(look.width_mm, pixel)
    origins, path_columns = surface.origins(columns, pixel)
    deep = np.cross(surface.across, surface.tangents)
    slab = Slab(thickness_mm=look.thickness_mm, projection=look.projection, count=1)
    hu = read_lines(volume, hidden, (origins, surface.across * pixel, deep), slab, columns)
    return Curved(
        hu=hu,
        arc_mm=surface.arc_mm,
        length_mm=path.length_mm,
        origins_lps_mm=origins,
        across=surface.across,
        path_lps_mm=surface.places,
        path_columns=path_columns,
        pixel_mm=pixel,
        thickness_mm=look.thickness_mm,
        least_bend_mm=_least_bend(surface.places),
        unrolling=look.unrolling,
        kind=KIND_OF[look.projection],
    )


def _columns(width_mm: float, pixel: float) -> int:
    if width_mm > _LONGEST_SIDE * pixel:
        raise ImpossibleView(f"the picture is wider than {_LONGEST_SIDE} pixels; choose larger pixels")
    return max(1, round(width_mm / pixel))


def _checked(points_lps_mm: npt.ArrayLike, geometry: Geometry) -> Points:
    try:
        points = np.array(points_lps_mm, dtype=np.float64)
    except (TypeError, ValueError):
        points = np.empty(0)
    if points.ndim != 2 or points.shape[1:] != (3,) or not np.isfinite(points).all():
        raise ImpossibleView("a path is a list of points of three numbers each (LPS mm)")
    if not 2 <= len(points) <= _MOST_POINTS:
        raise ImpossibleView(f"a path needs 2 to {_MOST_POINTS} points, not {len(points)}")
    for n in np.flatnonzero(np.linalg.norm(np.diff(points, axis=0), axis=1) < _SAME_PLACE)[:1]:
        raise ImpossibleView(f"points {n + 1} and {n + 2} of the path are the same; leave one out")
    index = geometry.to_index(points)
    away = ((index < -0.5) | (index > np.array(geometry.shape) - 0.5)).any(axis=1)
    for n in np.flatnonzero(away)[:1]:
        raise ImpossibleView(f"point {n + 1} of the path lies outside the volume, {extent(geometry)}")
    return points


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Path:
    """A path by its length: places at ever ``arc_mm``, finely spaced."""

    arc_mm: Points
    places: Points

    @property
    def length_mm(self) -> float:
        return float(self.arc_mm[-1])

    def at(self, arc_mm: Points) -> Points:
        return np.column_stack([np.interp(arc_mm, self.arc_mm, self.places[:, axis]) for axis in range(3)])

    def tangents(self, arc_mm: Points, pixel: float) -> Points:
        """Directions over a pixel's length."""
        ends = (np.clip(arc_mm + half, 0.0, self.length_mm) for half in (-pixel / 2.0, pixel / 2.0))
        before, after = (self.at(each) for each in ends)
        return _units((after - before) / pixel, "the path doubles back on itself; leave out what returns")


def _measured(points: Points, look: Look, pixel: float) -> _Path:
    """Walk the path in steps of at most an eighth of a pixel."""
    chords = np.linalg.norm(np.diff(points, axis=0), axis=1)
    if chords.sum() > _LONGEST_SIDE * pixel:
        raise ImpossibleView(f"the path is longer than {_LONGEST_SIDE} pixels; choose larger pixels")
    knots = np.concatenate([[0.0], np.cumsum(np.sqrt(chords))])  # centripetal: no loops between uneven points
    curve: Callable[[Points], Points]
    if look.through == "spline" and len(points) > 2:
        curve = CubicSpline(knots, points)
    else:
        curve = lambda at: np.column_stack([np.interp(at, knots, points[:, axis]) for axis in range(3)])  # noqa: E731
    steps = np.ceil(chords / (pixel / 8.0)).astype(int) + 1
    fine = [np.linspace(a, b, n, endpoint=False) for a, b, n in zip(knots[:-1], knots[1:], steps, strict=True)]
    places = np.asarray(curve(np.concatenate([*fine, knots[-1:]])), dtype=np.float64)
    lengths = np.linalg.norm(np.diff(places, axis=0), axis=1)
    if lengths.sum() < pixel:
        raise ImpossibleView("the path is shorter than a pixel")
    return _Path(arc_mm=np.concatenate([[0.0], np.cumsum(lengths)]), places=places)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Surface:
    """Per row of the picture: how far along the path, where on it, its direction down the picture, and across it.

    ``sideways_mm`` is how far the path lies along ``across`` from the middle of the picture.
    """

    arc_mm: Points
    places: Points
    tangents: Points
    across: Points
    sideways_mm: Points

    def origins(self, columns: int, pixel: float) -> tuple[Points, Points]:
        """Where each row's first pixel lies, and in which column the path."""
        path_columns: Points = (columns - 1) / 2.0 + self.sideways_mm / pixel
        return self.places - self.across * (path_columns * pixel)[:, None], path_columns


def _straightened(path: _Path, look: Look, pixel: float, forwards: float) -> _Surface:
    """Rows at right angles to the path."""
    count = math.floor(path.length_mm / pixel + 1e-6) + 1
    arc: Points = np.arange(count, dtype=np.float64)[:: int(forwards)] * pixel
    places, tangents = path.at(arc), path.tangents(arc, pixel) * forwards
    cosines = (tangents[1:] * tangents[:-1]).sum(axis=1)
    for n in np.flatnonzero(cosines < _TURNS_BACK)[:1]:
        raise ImpossibleView(f"the path doubles back on itself after {arc[n]:.0f} mm; leave out what returns")
    wanted = _across_direction(look, places)
    if look.across is None:
        across = _least_rotation(places, tangents, _beside(tangents[:1], wanted)[0])
    else:
        across = _beside(tangents, wanted)
    sideways = np.zeros(len(arc))
    return _Surface(arc_mm=arc, places=places, tangents=tangents, across=across, sideways_mm=sideways)


def _stretched(path: _Path, look: Look, pixel: float, forwards: float) -> _Surface:
    """Rows along one direction, as far apart as the path climbs at right angles to it: an unrolled surface."""
    across = _across_direction(look, path.places)
    sideways = path.places @ across
    climb = np.linalg.norm(np.diff(path.places - sideways[:, None] * across, axis=0), axis=1)
    steps = np.diff(path.arc_mm)
    for n in np.flatnonzero(climb < _PARALLEL * steps)[:1]:
        raise ImpossibleView(f"{_ALONG} (after {path.arc_mm[n]:.0f} mm)")
    climbed = np.concatenate([[0.0], np.cumsum(climb)])
    rows = np.arange(math.floor(climbed[-1] / pixel + 1e-6) + 1) * pixel
    arc: Points = np.interp(rows if forwards > 0 else rows[::-1], climbed, path.arc_mm).astype(np.float64)
    places = path.at(arc)
    tangents = path.tangents(arc, pixel) * forwards
    middle = (float(sideways.min()) + float(sideways.max())) / 2.0
    return _Surface(
        arc_mm=arc,
        places=places,
        tangents=_units(tangents - (tangents @ across)[:, None] * across, _ALONG),
        across=np.tile(across, (len(arc), 1)),
        sideways_mm=places @ across - middle,
    )


def _runs_down(points: Points) -> float:
    """1 where the path runs the way a picture is read (feet below, back and left after front and right), else -1."""
    return _sign(points[-1] - points[0])


def _sign(direction: Points) -> float:
    axis = int(np.abs(direction).argmax())
    return 1.0 if direction[axis] * _UPRIGHT[axis] >= 0 else -1.0


def _across_direction(look: Look, places: Points) -> Points:
    """The direction wanted for rows, turned the radiological way."""
    if look.across is not None:
        wanted = point(look.across, "direction across")
        across: Points = _units(wanted[None], "the direction across has no length")[0] * _sign(wanted)
        return across
    chord, extent = places[-1] - places[0], np.ptp(places, axis=0)
    if np.linalg.norm(chord) < _A_RING * np.linalg.norm(extent):
        axis = int(extent.argmin())
    else:
        axis = 2 if int(np.abs(chord).argmax()) == 0 else 0
    standard: Points = np.eye(3)[axis] * _UPRIGHT[axis]
    return standard


def _units(vectors: Points, wrong: str) -> Points:
    lengths = np.linalg.norm(vectors, axis=1)
    if lengths.min() < _PARALLEL:
        raise ImpossibleView(wrong)
    units: Points = vectors / lengths[:, None]
    return units


def _beside(tangents: Points, wanted: Points) -> Points:
    """Directions at right angles to the path, as near as can be to the one wanted."""
    return _units(wanted - (tangents @ wanted)[:, None] * tangents, _ALONG)


def _least_rotation(places: Points, tangents: Points, first: Points) -> Points:
    """Carry a direction along the path by double reflection, so that it never turns about the path itself."""
    across = np.empty_like(tangents)
    across[0] = first
    for n in range(len(places) - 1):
        step = places[n + 1] - places[n]
        mirrored, tangent = (v - 2.0 * step * float(step @ v) / float(step @ step) for v in (across[n], tangents[n]))
        turn = tangents[n + 1] - tangent
        size = float(turn @ turn)
        across[n + 1] = mirrored - (2.0 * turn * float(turn @ mirrored) / size if size > 1e-18 else 0.0)
    exact = across - (across * tangents).sum(axis=1)[:, None] * tangents
    carried: Points = exact / np.linalg.norm(exact, axis=1)[:, None]
    return carried


def _least_bend(places: Points) -> float:
    """The smallest radius of the circles through three neighbouring places some way apart; infinite when straight."""
    apart = max(1, len(places) // 100)
    a, b, c = places[: -2 * apart or None : apart], places[apart : -apart or None : apart], places[2 * apart :: apart]
    if len(c) == 0:
        return math.inf
    count = min(len(a), len(b), len(c))
    one, other, whole = b[:count] - a[:count], c[:count] - b[:count], c[:count] - a[:count]
    area = np.linalg.norm(np.cross(one, other), axis=1)
    sides = [np.linalg.norm(each, axis=1) for each in (one, other, whole)]
    bent = area > 1e-9 * sides[0] * sides[1]
    radii = (sides[0] * sides[1] * sides[2])[bent] / (2.0 * area[bent])
    return float(radii.min()) if radii.size else math.inf
