"""What does a volume look like in a plane of any orientation, or in slabs parallel to it?"""

import itertools
import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from reconstruction.errors import ImpossibleView
from reconstruction.geometry import Geometry, Points
from reconstruction.line_kernels import Lines, read_rows
from reconstruction.planes import KIND_OF, Planes, Projection, Slab
from reconstruction.resample import in_threads
from reconstruction.volume import Bits, Hu, Volume

SINGLE = Slab(thickness_mm=0.0, step_mm=1.0, count=1)
"""One picture of what lies exactly in its plane."""

_MOST_PIXELS = 1 << 30  # 2 GiB of pictures
_LONGEST_SIDE = 8192
_NEAR = 1e-6  # mm
_HOW: dict[Projection, int] = {"mean": 0, "mip": 1, "minip": 2}  # as the kernels know them
_CORNERS = np.array(list(itertools.product((0, 1), repeat=3)), dtype=np.float64)
_EDGES = [(a, b) for a, b in itertools.combinations(range(8), 2) if np.abs(_CORNERS[a] - _CORNERS[b]).sum() == 1]
THICKEST_MM = 5000.0
"""A thicker slab is a slip: whatever lies in it is the whole volume anyhow."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plane:
    """A plane in the patient (LPS mm): a point in it, and the directions along a row and down a column of a picture.

    Directions are made unit vectors. Raises ImpossibleView where they are none or not at right angles.
    """

    centre_lps_mm: Points
    row_direction: Points
    column_direction: Points

    def __post_init__(self) -> None:
        for name in ("centre_lps_mm", "row_direction", "column_direction"):
            object.__setattr__(self, name, point(getattr(self, name), name.removesuffix("_lps_mm").replace("_", " ")))
        for name in ("row_direction", "column_direction"):
            object.__setattr__(self, name, _unit(getattr(self, name)))
        if abs(float(self.row_direction @ self.column_direction)) > 1e-4:
            raise ImpossibleView("the rows and columns of a plane are not at right angles")

    @classmethod
    def facing(cls, normal: npt.ArrayLike, centre_lps_mm: npt.ArrayLike) -> Self:
        """Return the plane across ``normal`` (either sign) whose pictures stand upright the radiological way.

        Nearest to axial: rows run towards the patient's left, columns to the back. Nearest to coronal or sagittal:
        columns run as straight to the feet as the plane allows, rows to the left (coronal) or to the back (sagittal).
        So right is on the left, anterior above or on the left, and the head above, as far as the plane leans.
        """
        n = _unit(point(normal, "normal"))
        along = np.abs(n)
        if along[2] >= along.max() - _NEAR:
            row = _within(n, (1.0, 0.0, 0.0))
            column = np.cross(n, row) * (1.0 if n[2] > 0 else -1.0)
        else:
            column = _within(n, (0.0, 0.0, -1.0))
            row = np.cross(column, n)
            axis = 0 if along[1] >= along[0] - _NEAR else 1
            row = row if row[axis] > 0 else -row
        return cls(centre_lps_mm=point(centre_lps_mm, "centre"), row_direction=row, column_direction=column)

    @property
    def normal(self) -> Points:
        """Unit vector row x column: where parallel pictures follow one another."""
        normal: Points = np.cross(self.row_direction, self.column_direction)
        return normal


def oblique(
    volume: Volume,
    plane: Plane,
    *,
    slab: Slab = SINGLE,
    pixel_mm: float | tuple[float, float] | None = None,
    size_mm: tuple[float, float] | None = None,
    outside: Bits | None = None,
) -> Planes:
    """Make pictures in and parallel to a plane of any orientation, of a straight or sheared (evenly spaced) volume.

    Frames lie ``slab.distance_mm`` apart about the plane along its ``normal``; ``slab.count`` None makes as many as
    the volume holds. Values are trilinear on the volume's own grid through its full affine; a slab is sampled at
    least once for every voxel it crosses. Nothing is extrapolated beyond the outermost voxel centres: there, and
    where ``outside`` (kji) has a share, a sample is none; it enters no mean and no extreme, and a pixel without any
    is -1024. ``pixel_mm`` is one spacing or (row, column) spacings, by default the smaller in-plane spacing;
    ``size_mm`` is (height, width) about the plane's centre, by default whatever covers the volume's cut. An uneven
    stack must come regularised. Raises ImpossibleView where the plane misses the volume or asks for too much.
    """
    hidden = seen(volume, outside)
    offsets = _offsets(volume.geometry, plane, slab)
    spacing = _spacings(volume.geometry, pixel_mm)
    reach = (offsets[0] - slab.thickness_mm / 2.0, offsets[-1] + slab.thickness_mm / 2.0)
    cut = _cut(volume.geometry, plane, reach)
    first, shape = _fitted(cut, spacing, size_mm)
    _refuse_too_large(len(offsets), shape)
    centres = plane.centre_lps_mm + offsets[:, None] * plane.normal
    origins = centres + first[0] * plane.column_direction + first[1] * plane.row_direction
    rows = origins[:, None] + (np.arange(shape[0]) * spacing[0])[:, None] * plane.column_direction
    across = np.broadcast_to(plane.row_direction * spacing[1], (rows.shape[0] * rows.shape[1], 3))
    deep = np.broadcast_to(plane.normal, across.shape)
    hu = read_lines(volume, hidden, (rows.reshape(-1, 3), across, deep), slab, shape[1])
    return Planes(
        hu=hu.reshape(len(offsets), *shape),
        origins_lps_mm=origins,
        row_direction=plane.row_direction.copy(),
        column_direction=plane.column_direction.copy(),
        pixel_spacing_mm=spacing,
        slice_thickness_mm=max(slab.thickness_mm, sample_mm(volume.geometry, plane.normal)),
        spacing_between_mm=slab.distance_mm if len(offsets) > 1 else None,
        orientation="oblique",
        kind=KIND_OF[slab.projection],
    )


def read_lines(volume: Volume, hidden: Bits, lines_mm: Lines, slab: Slab, pixels: int) -> Hu:
    """Read rows of ``pixels`` off a volume: (first pixel's place, step to the next, unit direction of depth), LPS mm.

    Each is (rows, 3). ``slab`` tells thickness and projection; ``hidden`` is what ``seen`` returned. Raises
    ImpossibleView for a slab so thick that reading it would take for ever.
    """
    starts, steps, deep = lines_mm
    if slab.thickness_mm > THICKEST_MM:
        raise ImpossibleView(f"a slab of {slab.thickness_mm:g} mm is thicker than any patient ({THICKEST_MM:.0f} mm)")
    inverse = np.linalg.inv(volume.geometry.affine[:3, :3])
    per_mm = deep @ inverse.T
    samples = max(1, math.ceil(slab.thickness_mm * float(np.abs(per_mm).max()) - 1e-6))
    depths = per_mm * (slab.thickness_mm / samples)
    begin = volume.geometry.to_index(starts) - depths * ((samples - 1) / 2.0)
    lines = tuple(np.ascontiguousarray(each) for each in (begin, steps @ inverse.T, depths))
    source = (np.ascontiguousarray(volume.hu), hidden)
    rows = np.empty((len(starts), pixels), dtype=np.int16)
    in_threads(lambda span: read_rows(source, lines, (samples, _HOW[slab.projection]), rows, span), len(rows))
    return rows


def seen(volume: Volume, outside: Bits | None) -> Bits:
    """Return what is hidden in a volume as the kernels know it: empty where nothing is."""
    if outside is not None and outside.shape != volume.hu.shape:
        raise ImpossibleView(f"outside of shape {outside.shape} for a volume of {volume.hu.shape}")
    nothing = outside is None or not outside.any()
    hidden = np.zeros((0, 0, 0), dtype=np.bool_) if outside is None or nothing else np.ascontiguousarray(outside).view()
    hidden.flags.writeable = False  # or the kernels would be compiled a second time
    return hidden


def point(place: npt.ArrayLike, name: str) -> Points:
    """Return three finite numbers as a point or direction; raise ImpossibleView, calling it ``name``."""
    try:
        values = np.array(place, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.shape != (3,) or not np.isfinite(values).all():
        raise ImpossibleView(f"the {name} is not three numbers")
    values.flags.writeable = False
    return values


def sample_mm(geometry: Geometry, direction: Points) -> float:
    """Return how thick one voxel is along a direction: what a picture without thickness shows at least."""
    return float(np.linalg.norm(geometry.affine[:3, :3].T @ direction))


def extent(geometry: Geometry) -> str:
    """Say where a volume lies, for people who asked for a place elsewhere: in other units, or in RAS."""
    low, high = (_corners(geometry).min(axis=0), _corners(geometry).max(axis=0))
    spans = (f"{axis} {a:.0f} to {b:.0f}" for axis, a, b in zip("xyz", low, high, strict=True))
    return f"which spans {', '.join(spans)} mm (LPS)"


def _unit(direction: Points) -> Points:
    length = float(np.linalg.norm(direction))
    if length < 1e-9:
        raise ImpossibleView("a direction has no length")
    unit: Points = direction / length
    unit.flags.writeable = False
    return unit


def _within(normal: Points, wanted: tuple[float, float, float]) -> Points:
    """The direction in a plane that is nearest to the one wanted."""
    direction = np.array(wanted)
    return _unit(direction - normal * float(normal @ direction))


def _offsets(geometry: Geometry, plane: Plane, slab: Slab) -> Points:
    """Where the frames lie along the normal, from the plane (mm)."""
    if slab.count is not None:
        middle = (slab.count - 1) / 2.0
        return (np.arange(slab.count, dtype=np.float64) - middle) * (slab.distance_mm if slab.count > 1 else 0.0)
    away = (_corners(geometry) - plane.centre_lps_mm) @ plane.normal
    low = math.ceil((float(away.min()) - _NEAR) / slab.distance_mm)
    high = math.floor((float(away.max()) + _NEAR) / slab.distance_mm)
    if high < low:
        raise ImpossibleView(f"no plane at these distances cuts the volume, {extent(geometry)}")
    return np.arange(low, high + 1, dtype=np.float64) * slab.distance_mm


def _corners(geometry: Geometry) -> Points:
    return geometry.to_mm(_CORNERS * (np.array(geometry.shape) - 1))


def _spacings(geometry: Geometry, pixel_mm: float | tuple[float, float] | None) -> tuple[float, float]:
    if pixel_mm is None:
        pixel_mm = min(geometry.spacing_mm[1:])
    spacing = (float(pixel_mm),) * 2 if isinstance(pixel_mm, int | float) else (float(pixel_mm[0]), float(pixel_mm[1]))
    if not all(math.isfinite(mm) and mm > 0 for mm in spacing):
        raise ImpossibleView("the pixels of a picture need a size of more than 0 mm")
    return spacing[0], spacing[1]


def _cut(geometry: Geometry, plane: Plane, reach: tuple[float, float]) -> Points:
    """Lowest and highest place (down, along) in the plane that the volume reaches between two depths."""
    from_centre = _corners(geometry) - plane.centre_lps_mm
    down, along, deep = (from_centre @ d for d in (plane.column_direction, plane.row_direction, plane.normal))
    found = []
    for a, b in _EDGES:
        shares = _clipped(float(deep[a]), float(deep[b]), reach)
        found += [(down[a] + t * (down[b] - down[a]), along[a] + t * (along[b] - along[a])) for t in shares]
    if not found:
        raise ImpossibleView(f"the plane does not cut the volume, {extent(geometry)}")
    return np.array([np.min(found, axis=0), np.max(found, axis=0)])


def _clipped(one: float, other: float, reach: tuple[float, float]) -> tuple[float, ...]:
    """The part (two shares of its length) of an edge from depth ``one`` to ``other`` that lies within reach."""
    low, high = reach[0] - _NEAR, reach[1] + _NEAR
    if abs(other - one) < _NEAR:
        return (0.0, 1.0) if low <= one <= high else ()
    shares = sorted(((reach[0] - one) / (other - one), (reach[1] - one) / (other - one)))
    slack = _NEAR / abs(other - one)
    if shares[0] > 1.0 + slack or shares[1] < -slack:
        return ()
    return min(max(shares[0], 0.0), 1.0), min(max(shares[1], 0.0), 1.0)


def _fitted(
    cut: Points, spacing: tuple[float, float], size_mm: tuple[float, float] | None
) -> tuple[Points, tuple[int, int]]:
    """Where the first pixel lies in the plane (down, along) and how many rows and columns there are."""
    pixel = np.array(spacing)
    if size_mm is None:
        count = np.floor((cut[1] - cut[0]) / pixel + 1e-6) + 1
        middle: Points = (cut[0] + cut[1]) / 2.0
    else:
        if not all(math.isfinite(mm) and mm > 0 for mm in size_mm):
            raise ImpossibleView("a picture needs a size of more than 0 mm")
        count, middle = np.maximum(np.rint(np.array(size_mm) / pixel), 1.0), np.zeros(2)
    if count.max() > _LONGEST_SIDE:
        raise ImpossibleView(f"pictures of more than {_LONGEST_SIDE} pixels a side are not made; choose larger pixels")
    first: Points = middle - (count - 1) / 2.0 * pixel
    return first, (int(count[0]), int(count[1]))


def _refuse_too_large(frames: int, shape: tuple[int, int]) -> None:
    if frames * shape[0] * shape[1] > _MOST_PIXELS:
        raise ImpossibleView(
            f"{frames} pictures of {shape[0]}x{shape[1]} pixels are more than 2 GiB; choose fewer, or larger pixels"
        )
