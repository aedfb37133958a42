"""What does a volume look like from the front, the side and above: slabs (mean, MIP, MinIP) and whole maxima?"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from reconstruction.convert import axial_first, is_straight
from reconstruction.errors import ImpossibleView, NotAVolume
from reconstruction.geometry import Geometry, Points
from reconstruction.planes import KIND_OF, Orientation, Planes, PlanesKind, Projection, Slab
from reconstruction.resample import in_threads
from reconstruction.slab_kernels import fill, maxima
from reconstruction.volume import Bits, Hu, PackedBits, Volume

Edges = tuple[Points, Points]
_ROWS_AT_A_TIME = 64  # of what is outside no more is spread at once than lies between these
_SAME_SPACING = 1e-3  # mm; finer differences are header rounding
_AXES = {"axial": (1, 0, 2), "coronal": (0, 1, 2), "sagittal": (0, 2, 1)}  # which array axis runs down, across, along
_HOW: dict[Projection, int] = {"mean": 0, "mip": 1, "minip": 2}  # as the kernels know them


def standard(
    volume: Volume,
    *,
    thickness_mm: float = 3.0,
    step_mm: float = 3.0,
    mpr: bool = True,
    mip: bool = True,
    outside: Bits | PackedBits | None = None,
) -> Iterator[Planes]:
    """Yield coronal and sagittal mean slabs (``mpr``), then axial, coronal and sagittal maxima (``mip``).

    Each is made when it is asked for; beside the volume only its own int16 pixels and a few rows are held. Planes
    follow the volume's own axes. They are shown the radiological way whatever the order of storage: patient's right
    on the left of axial and coronal pictures, anterior on the left of sagittal ones, head up, anterior up on axial
    ones; pixels are square. Slabs lie exactly ``step_mm`` apart, pixels at their edges count by their share.
    ``outside`` (kji, as Regularised has it; packed it takes less room) marks voxels that hold no measurement: they do
    not count. Raises
    NotAVolume for a sheared volume (regularise it first), ImpossibleView for a thickness or step that is none.
    """
    slab = Slab(thickness_mm=thickness_mm, step_mm=step_mm)
    source, hidden = _upright(volume, outside)

    def each() -> Iterator[Planes]:
        if mpr:
            yield _slabs(source, hidden, "coronal", slab)
            yield _slabs(source, hidden, "sagittal", slab)
        if mip:
            yield from _mips(source)

    return each()


def slabs(volume: Volume, orientation: Orientation, *, slab: Slab, outside: Bits | PackedBits | None = None) -> Planes:
    """Make axial, coronal or sagittal slabs of any thickness: their mean, maximum (MIP) or minimum (MinIP).

    As in ``standard``; a slab is at least one voxel thick. Means weigh pixels at a slab's edges by their share;
    maxima and minima take the pixels whose centres lie in the slab. Where pictures are resampled along their rows'
    order, that is linear between projected slices. Voxels that ``outside`` (kji) marks never count (or the -1024 of a
    regularised grid's corners would win every MinIP); a pixel without any other shows -1024.
    """
    if orientation not in _AXES:
        raise ImpossibleView(f"{orientation} slabs do not follow a volume's axes")
    source, hidden = _upright(volume, outside)
    return _slabs(source, hidden, orientation, slab)


_Hidden = Bits | PackedBits


def _upright(volume: Volume, outside: _Hidden | None) -> tuple[Volume, _Hidden]:
    """The volume with axes head-feet, front-back, right-left, and what is hidden in it (empty: nothing)."""
    if not is_straight(volume.geometry):
        raise NotAVolume("a sheared volume cannot be reformatted; regularise it first")
    source = axial_first(volume)
    if outside is not None and outside.shape != volume.hu.shape:
        raise NotAVolume(f"outside of shape {outside.shape} for a volume of {volume.hu.shape}")
    if outside is None or not (outside.packed if isinstance(outside, PackedBits) else outside).any():
        return source, np.zeros((0, 0, 0), dtype=np.bool_)
    before, after = (v.geometry.affine[:3, :3].T for v in (volume, source))
    order = [next(n for n in range(3) if np.array_equal(before[n], axis)) for axis in after]
    if isinstance(outside, PackedBits):
        if order == [0, 1, 2]:
            return source, outside
        outside = outside.slices()
    return source, np.ascontiguousarray(outside.transpose(order))


def _read_only(bits: Bits) -> Bits:
    """Return a view that cannot be written, or the kernels would be compiled a second time."""
    view = bits.view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _View:
    """How pictures of one orientation read the array.

    ``axes`` run down, across and along them; ``rows`` is the place of each row, top first, along the first;
    ``starts`` is the index (kji) of each frame's first pixel.
    """

    axes: tuple[int, int, int]
    rows: Points
    starts: Points
    row_direction: Points
    column_direction: Points
    backwards: bool


def _slabs(source: Volume, hidden: _Hidden, orientation: Orientation, slab: Slab) -> Planes:
    """Read the voxels once, straight into the pictures: each pixel is rounded once."""
    across = _AXES[orientation][1]
    low, high = _edges(source.geometry, across, slab)
    view = _view(source.geometry, orientation, (low + high) / 2.0)
    if view.starts[0, across] > view.starts[-1, across]:
        low, high = low[::-1].copy(), high[::-1].copy()
    hu = np.empty((len(low), len(view.rows), source.geometry.shape[view.axes[2]]), dtype=np.int16)
    layout = (across, _HOW[slab.projection], view.backwards)
    for span, first, cut in _parts(source.hu, hidden, view):
        _fill_rows(cut, (view.rows - first, low, high), layout, hu, span)
    thickness = float(high[0] - low[0]) * source.geometry.spacing_mm[across]
    step = slab.distance_mm if len(low) > 1 else None
    return _planes(source.geometry, view, hu, (thickness, step), (orientation, KIND_OF[slab.projection]))


def _parts(hu: Hu, hidden: _Hidden, view: _View) -> Iterator[tuple[tuple[int, int], int, tuple[Hu, Bits]]]:
    """Yield picture rows (first, end), the first slice that they need, and the slices with what is hidden in them.

    All at once, unless what is hidden is packed: then it is spread for some rows at a time.
    """
    rows = view.rows
    if not isinstance(hidden, PackedBits) or view.axes[0] != 0:
        spread = hidden.slices() if isinstance(hidden, PackedBits) else hidden
        yield (0, len(rows)), 0, (hu, _read_only(spread))
        return
    for start in range(0, len(rows), _ROWS_AT_A_TIME):
        some = rows[start : start + _ROWS_AT_A_TIME]
        first, end = min(int(some.min()), max(len(hu) - 2, 0)), min(int(some.max()) + 2, len(hu))
        yield (start, start + len(some)), first, (hu[first:end], _read_only(hidden.slices(first, end)))


def _fill_rows(
    source: tuple[Hu, Bits],
    places: tuple[Points, Points, Points],
    layout: tuple[int, int, bool],
    pictures: Hu,
    rows: tuple[int, int],
) -> None:
    """Fill some rows of every picture, in threads."""
    first, end = rows
    in_threads(lambda span: fill(source, places, layout, pictures, (first + span[0], first + span[1])), end - first)


def _mips(source: Volume) -> Iterator[Planes]:
    """Show maxima through the whole volume, each plane in its middle; what is outside holds air and never wins."""
    orientations: tuple[Orientation, ...] = ("axial", "coronal", "sagittal")
    for orientation, top in zip(orientations, _maxima(source.hu), strict=True):
        yield _mip(source.geometry, top, orientation)


def _mip(geometry: Geometry, top: Hu, orientation: Orientation) -> Planes:
    across = _AXES[orientation][1]
    view = _view(geometry, orientation, np.array([(geometry.shape[across] - 1) / 2.0]))
    thickness = geometry.spacing_mm[across] * geometry.shape[across]
    lower = np.minimum(view.rows.astype(np.intp), max(len(top) - 2, 0))
    weight = (view.rows - lower)[:, None]
    above = top[np.minimum(lower + 1, len(top) - 1)]
    hu = np.rint(top[lower] * (1.0 - weight) + above * weight).astype(np.int16)[None]
    shown = np.ascontiguousarray(hu[:, :, ::-1] if view.backwards else hu)
    return _planes(geometry, view, shown, (thickness, None), (orientation, "mip"))


def _maxima(hu: Hu) -> tuple[Hu, Hu, Hu]:
    """Read every voxel once; return the maxima over k, over j and over i."""
    slices, rows, columns = hu.shape
    over_j, over_i = np.empty((slices, columns), dtype=np.int16), np.empty((slices, rows), dtype=np.int16)
    tops: list[Hu] = []

    def sweep(span: tuple[int, int]) -> None:
        top = np.full((rows, columns), np.iinfo(np.int16).min, dtype=np.int16)
        maxima(hu, span, (top, over_j, over_i))
        tops.append(top)

    in_threads(sweep, slices)
    return np.maximum.reduce(tops), over_j, over_i


def _edges(geometry: Geometry, across: int, slab: Slab) -> Edges:
    """Fit slabs into the volume, evenly about its middle, none reaching outside.

    In voxels: voxel n covers n - 0.5 .. n + 0.5.
    """
    voxels, voxel_mm = geometry.shape[across], geometry.spacing_mm[across]
    thickness = min(max(slab.thickness_mm / voxel_mm, 1.0), float(voxels))
    step = slab.distance_mm / voxel_mm
    room = 1 if slab.count == 1 else math.floor((voxels - thickness) / step + 1e-6) + 1
    count = room if slab.count is None else slab.count
    if count > room:
        raise ImpossibleView(f"{count} slabs do not fit into the volume; there is room for {room}")
    steps = (np.arange(count, dtype=np.float64) - (count - 1) / 2.0) * (step if count > 1 else 0.0)
    centres: Points = (voxels - 1) / 2.0 + steps
    return centres - thickness / 2.0, centres + thickness / 2.0


def _view(geometry: Geometry, orientation: Orientation, centres: Points) -> _View:
    """Choose directions the radiological way, frames following one another along row x column."""
    down, across, along = _AXES[orientation]
    unit = geometry.affine[:3, :3] / np.array(geometry.spacing_mm)
    upwards = (unit[1, down] if orientation == "axial" else -unit[2, down]) < 0
    backwards = bool((unit[1, along] if orientation == "sagittal" else unit[0, along]) < 0)
    rows = _rows(geometry, down, along)
    rows = rows[::-1].copy() if upwards else rows
    column_direction = -unit[:, down] if upwards else unit[:, down].copy()
    row_direction = -unit[:, along] if backwards else unit[:, along].copy()
    behind = float(np.cross(row_direction, column_direction) @ unit[:, across]) < 0
    starts = np.zeros((len(centres), 3))
    starts[:, down], starts[:, across] = rows[0], centres[::-1] if behind else centres
    starts[:, along] = geometry.shape[along] - 1 if backwards else 0
    return _View(
        axes=(down, across, along),
        rows=rows,
        starts=starts,
        row_direction=row_direction,
        column_direction=column_direction,
        backwards=backwards,
    )


def _rows(geometry: Geometry, down: int, along: int) -> Points:
    """Places along axis ``down``, as far apart as the pixels of axis ``along``, about its middle."""
    wanted, have, count = geometry.spacing_mm[along], geometry.spacing_mm[down], geometry.shape[down]
    if abs(wanted - have) < _SAME_SPACING * wanted / count or count == 1:
        return np.arange(count, dtype=np.float64)
    number = math.floor((count - 1) * have / wanted + 1e-6) + 1
    first = ((count - 1) - (number - 1) * wanted / have) / 2.0
    places: Points = np.clip(first + np.arange(number, dtype=np.float64) * (wanted / have), 0.0, count - 1.0)
    return places


def _planes(
    geometry: Geometry,
    view: _View,
    hu: Hu,
    size_mm: tuple[float, float | None],
    what: tuple[Orientation, PlanesKind],
) -> Planes:
    spacing = geometry.spacing_mm[view.axes[2]]
    return Planes(
        hu=hu,
        origins_lps_mm=geometry.to_mm(view.starts),
        row_direction=view.row_direction,
        column_direction=view.column_direction,
        pixel_spacing_mm=(spacing, spacing),
        slice_thickness_mm=size_mm[0],
        spacing_between_mm=size_mm[1],
        orientation=what[0],
        kind=what[1],
    )
