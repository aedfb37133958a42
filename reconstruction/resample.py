"""What would a tilted or uneven stack look like on a straight, even grid, and back again?"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numba
import numpy as np
import numpy.typing as npt

from reconstruction.errors import NotAVolume
from reconstruction.geometry import Geometry, Points
from reconstruction.volume import Bits, Hu, Mask, PackedBits, Volume

OUTSIDE_HU = -1024
MOST_VOXELS = 2**30
"""Of a grid held in memory whole: 3 GB with what marks the outside; twice a whole body of 2,000 slices."""

COARSEST_DEFAULT_MM = 1.0
MOST_A_SIDE = 2**16
_PLANES_AT_A_TIME = 32
_TO_THE_EDGE = 0.5  # a pixel reaches half a pixel beyond its centre
_SAME_PLANE = 1e-4  # the share of a step within which a plane is that of one slice alone


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Regularised:
    """A stack resampled to a straight, even, isotropic grid.

    ``max_distance_to_slice_mm`` is the farthest that an output voxel lies from the nearest acquired slice plane.
    """

    volume: Volume
    max_distance_to_slice_mm: float
    packed_outside: PackedBits

    @property
    def outside(self) -> Bits:
        """Mark (kji) the voxels that no acquired pixel covers, or that padding touches; they hold -1024. Made anew."""
        return self.packed_outside.slices()


def regularise(
    volume: Volume,
    *,
    slice_positions_mm: Sequence[float] | None = None,
    spacing_mm: float | None = None,
    padding: Bits | None = None,
    used: Callable[[int], object] = lambda _slices: None,
) -> Regularised:
    """Resample a stack as acquired to a straight, even, isotropic grid.

    The output's axes are the slice normal and the acquired in-plane axes; its extent covers every acquired slice,
    the sheared corners are ``outside``. Values are linear along the normal between the two neighbouring slices, each
    read where its own header puts it, and linear in plane: blended along a tilted axis, an edge that stands upright on
    the slices would waver by half the shear of a step. A voxel is ``outside`` where one of the two slices does not
    reach; nothing is extrapolated beyond the first and last slice. ``slice_positions_mm`` are distances
    from the first slice along the normal (None: even). The default spacing is min(1, max(pixel, step / 3)) mm, or
    between that and 1 mm what keeps the grid within MOST_VOXELS. ``padding`` (kji, True where the scanner measured
    nothing) is never interpolated. ``used`` is told, more and more, how many of the first slices nothing more is read
    of. Raises NotAVolume, also where the grid would be larger.
    """
    straight = held_whole(volume.geometry, slice_positions_mm=slice_positions_mm, spacing_mm=spacing_mm)
    try:
        hu, outside = _read_off_whole(straight, volume, padding, used)
    except MemoryError as error:
        spacing = straight.grid.spacing_mm[0]
        raise NotAVolume(_too_large(straight.grid, spacing, "does not fit into memory")) from error
    return Regularised(
        volume=Volume(hu=hu, geometry=straight.grid),
        max_distance_to_slice_mm=straight.max_distance_to_slice_mm,
        packed_outside=outside,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Straightened:
    """A straight, even, isotropic grid over a stack as acquired, and how its voxels are read off, whole or by parts.

    ``between`` holds for each plane the acquired slice below it and the weight of the one above, ``starts`` (plane, 2,
    2) where its first voxel lies on either of them and ``steps`` how far the next one is, in acquired rows and columns.
    """

    grid: Geometry
    max_distance_to_slice_mm: float
    between: tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]
    starts: Points
    steps: Points

    def read_off(
        self, volume: Volume, padding: Bits | None, origin_kji: tuple[int, int, int], shape: tuple[int, int, int]
    ) -> tuple[Hu, Bits]:
        """Resample the box of the grid that starts at ``origin_kji``; return its values and what lies outside."""
        hu = np.empty(shape, dtype=np.int16)
        return hu, self.read_into(hu, volume, padding, origin_kji)

    def read_into(self, hu: Hu, volume: Volume, padding: Bits | None, origin_kji: tuple[int, int, int]) -> Bits:
        """Fill ``hu`` with the box of the grid that starts at ``origin_kji``; return what lies outside."""
        if padding is not None and padding.shape != volume.hu.shape:
            raise NotAVolume(f"padding of shape {padding.shape} for pixels of {volume.hu.shape}")
        (k, j, i), count = origin_kji, hu.shape[0]
        hu.fill(OUTSIDE_HU)
        outside = np.ones(hu.shape, dtype=np.bool_)
        blocked = np.zeros((0, 0, 0), dtype=np.bool_) if padding is None else padding
        between = (self.between[0][k : k + count], self.between[1][k : k + count])
        in_plane = (self.starts[k : k + count] + np.array([j, i]) * self.steps, self.steps)
        in_threads(lambda span: _resample(volume.hu, blocked, between, in_plane, (hu, outside), span), count)
        return outside


def _read_off_whole(
    straight: Straightened, volume: Volume, padding: Bits | None, used: Callable[[int], object]
) -> tuple[Hu, PackedBits]:
    """Resample the whole grid, some planes at a time; return its values and what lies outside."""
    planes, rows, columns = straight.grid.shape
    hu = np.empty(straight.grid.shape, dtype=np.int16)
    outside = np.empty((planes, rows, -(-columns // 8)), dtype=np.uint8)
    for k in range(0, planes, _PLANES_AT_A_TIME):
        part = slice(k, k + _PLANES_AT_A_TIME)
        outside[part] = np.packbits(straight.read_into(hu[part], volume, padding, (k, 0, 0)), axis=-1)
        used(len(volume.hu) if part.stop >= planes else int(straight.between[0][part.stop]))
    return hu, PackedBits(packed=outside, columns=columns)


def held_whole(
    geometry: Geometry, *, slice_positions_mm: Sequence[float] | None = None, spacing_mm: float | None = None
) -> Straightened:
    """Lay the grid of ``regularise`` over a stack; no voxel is needed to refuse it. Raises NotAVolume."""
    spacing = spacing_mm
    if spacing is None:
        spacing = _fitting_spacing(geometry, positions_mm(geometry, slice_positions_mm))
    straight = straightened(geometry, slice_positions_mm=slice_positions_mm, spacing_mm=spacing)
    _refuse_too_large(straight.grid, spacing)
    return straight


def straightened(
    geometry: Geometry, *, slice_positions_mm: Sequence[float] | None = None, spacing_mm: float | None = None
) -> Straightened:
    """Lay a straight, even, isotropic grid over a stack; arguments and errors as for ``regularise``."""
    positions = positions_mm(geometry, slice_positions_mm)
    shear = _shear(geometry)
    spacing = _default_spacing(geometry, positions) if spacing_mm is None else spacing_mm
    _refuse_no_grid(geometry, spacing)
    grid, start = _straight_grid(geometry, positions, shear, spacing)
    along = start[0] + spacing * np.arange(grid.shape[0])
    pixel = np.array(geometry.spacing_mm[1:])
    lower, weight = _between(positions, along)
    both = np.minimum(np.stack([lower, lower + 1], axis=1), len(positions) - 1)
    return Straightened(
        grid=grid,
        max_distance_to_slice_mm=float(np.abs(along - _nearest(positions, along)).max()),
        between=(lower, weight),
        starts=(start[1:] - positions[both][..., None] * shear) / pixel,
        steps=spacing / pixel,
    )


def in_threads(task: Callable[[tuple[int, int]], object], count: int, *, threads: int = 2) -> None:
    """Run ``task`` on spans (first, end) that cover 0..count, in a few threads; for compiled code without the GIL.

    Not numba's own parallel loops: their default layer ends a process whose threads enter it together.
    """
    edges = [count * n // (2 * threads) for n in range(2 * threads + 1)]
    spans = [(a, b) for a, b in pairwise(edges) if b > a]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(task, spans))


def positions_mm(geometry: Geometry, slice_positions_mm: Sequence[float] | None = None) -> Points:
    """Return each slice's distance from the first along the normal; raise NotAVolume where they do not grow."""
    if slice_positions_mm is None:
        return np.arange(geometry.shape[0], dtype=np.float64) * geometry.slice_step_mm
    positions = np.asarray(slice_positions_mm, dtype=np.float64)
    if positions.shape != (geometry.shape[0],) or not bool((np.diff(positions) > 0).all()):
        raise NotAVolume("the slice positions do not grow from slice to slice")
    from_first: Points = positions - positions[0]
    return from_first


def slice_shares_mm(positions: npt.ArrayLike, *, slice_thickness_mm: float | None = None) -> Points:
    """Return how much of the stack's normal each slice stands for.

    Half the distance to either neighbour; the first and last slice mirror their one half. Where neighbours are more
    than two thicknesses apart the gap between them was not scanned: each counts half its thickness there.
    """
    gaps = np.diff(np.asarray(positions, dtype=np.float64))
    if gaps.size == 0:
        return np.array([slice_thickness_mm or 1.0])
    halves = gaps / 2.0
    if slice_thickness_mm:
        halves = np.where(gaps > 2.0 * slice_thickness_mm, slice_thickness_mm / 2.0, halves)
    shares: Points = np.concatenate([halves[:1], halves]) + np.concatenate([halves, halves[-1:]])
    return shares


def region_volume_ml(
    region: Mask, *, slice_positions_mm: Sequence[float] | None = None, slice_thickness_mm: float | None = None
) -> float:
    """Measure a region on acquired slices in millilitres, each slice with its share of the axis."""
    shares = _region_shares(region, slice_positions_mm, slice_thickness_mm)
    _, row_mm, column_mm = region.geometry.spacing_mm
    return float(region.bits.sum(axis=(1, 2)) @ shares) * row_mm * column_mm / 1000.0


def region_centroid_lps_mm(
    region: Mask, *, slice_positions_mm: Sequence[float] | None = None, slice_thickness_mm: float | None = None
) -> tuple[float, float, float]:
    """Return the centre of a region on acquired slices in LPS mm, each slice weighted with its share of the axis."""
    shares = _region_shares(region, slice_positions_mm, slice_thickness_mm)
    k, j, i = np.nonzero(region.bits)
    places = slice_points_mm(region.geometry, np.stack([k, j, i], axis=1) + region.origin_kji, slice_positions_mm)
    x, y, z = np.average(places, axis=0, weights=shares[k])
    return float(x), float(y), float(z)


def slice_points_mm(
    geometry: Geometry, kji: npt.ArrayLike, slice_positions_mm: Sequence[float] | None = None
) -> Points:
    """Map (..., 3) indices with whole k to LPS mm, also where the slices lie unevenly."""
    index = np.array(kji, dtype=np.float64)
    positions = positions_mm(geometry, slice_positions_mm)
    index[..., 0] = positions[index[..., 0].astype(np.intp)] / geometry.slice_step_mm
    return geometry.to_mm(index)


def to_acquired(region: Mask, acquired: Geometry, slice_positions_mm: Sequence[float] | None = None) -> Mask:
    """Carry a region of a working grid to the acquired slices by nearest sampling.

    A region that lies wholly between two slices goes to the nearer one: what was found is never lost. The result's
    ``geometry`` is ``acquired``. Raises NotAVolume where the region lies off the acquired slices.
    """
    positions = positions_mm(acquired, slice_positions_mm)
    box = _acquired_box(region, acquired, positions)
    bits = _sampled(region, acquired, positions, box)
    if not bits.any():
        bits = _carried(region, acquired, positions, box)
    if not bits.any():
        raise NotAVolume("a region lies off the acquired slices")
    cut = Mask.cropped_from(bits, acquired.cropped(box[0], bits.shape))
    k, j, i = (a + b for a, b in zip(box[0], cut.origin_kji, strict=True))
    return Mask(bits=cut.bits, origin_kji=(k, j, i), geometry=acquired)


def _shear(geometry: Geometry) -> Points:
    """In-plane drift (rows, columns) in mm for every mm along the normal."""
    axes = geometry.affine[:3, 1:3] / np.linalg.norm(geometry.affine[:3, 1:3], axis=0)
    drift: Points = axes.T @ geometry.affine[:3, 0] / geometry.slice_step_mm
    return np.where(np.abs(drift) < 1e-9, 0.0, drift)


def _default_spacing(geometry: Geometry, positions: Points) -> float:
    pixel = min(geometry.spacing_mm[1:])
    step = float(np.median(np.diff(positions))) if len(positions) > 1 else pixel
    return min(1.0, max(pixel, step / 3.0))


def _fitting_spacing(geometry: Geometry, positions: Points) -> float:
    """Return the default spacing, or a coarser one of at most 1 mm where only that keeps the grid small enough."""
    spacing = _default_spacing(geometry, positions)
    low, high = _extent(geometry, positions, _shear(geometry))
    volume_mm3 = float(np.prod(high - low + COARSEST_DEFAULT_MM))
    return float(min(COARSEST_DEFAULT_MM, max(spacing, (volume_mm3 / MOST_VOXELS) ** (1 / 3))))


def _refuse_no_grid(geometry: Geometry, spacing: float) -> None:
    if not (math.isfinite(spacing) and spacing > 0):
        raise NotAVolume(f"a spacing of {spacing:g} mm is none")
    rows, columns = geometry.affine[:3, 1], geometry.affine[:3, 2]
    if abs(float(rows @ columns)) > 1e-3 * float(np.linalg.norm(rows) * np.linalg.norm(columns)):
        raise NotAVolume("the rows and columns of the slices are not at right angles")


def _refuse_too_large(grid: Geometry, spacing: float) -> None:
    if (voxels := math.prod(grid.shape)) > MOST_VOXELS:
        fitting = math.ceil(100 * spacing * (voxels / MOST_VOXELS) ** (1 / 3)) / 100
        raise NotAVolume(_too_large(grid, spacing, f"is too large to be held; take {fitting:g} mm or more"))


def _too_large(grid: Geometry, spacing: float, why: str) -> str:
    k, j, i = grid.shape
    return f"a straight grid of {k} x {j} x {i} voxels of {spacing:g} mm {why}"


def _extent(geometry: Geometry, positions: Points, shear: Points) -> tuple[Points, Points]:
    """Return the low and the high corner of all voxel centres, mm along (normal, rows, columns) from the first."""
    drifts = positions[[0, -1], None] * shear
    reach = (np.array(geometry.shape[1:]) - 1) * geometry.spacing_mm[1:]
    low = np.concatenate([positions[:1], drifts.min(axis=0)])
    return low, np.concatenate([positions[-1:], drifts.max(axis=0) + reach])


def _straight_grid(geometry: Geometry, positions: Points, shear: Points, spacing: float) -> tuple[Geometry, Points]:
    """The output's geometry, and where it starts in mm along (normal, rows, columns) from the first voxel's centre."""
    low, high = _extent(geometry, positions, shear)
    if float((high - low).max()) / spacing >= MOST_A_SIDE:
        raise NotAVolume(
            f"a spacing of {spacing:g} mm is too fine for slices that reach over {(high - low).max():.0f} mm"
        )
    count = np.floor((high - low) / spacing + 1e-6).astype(int) + 1
    start: Points = low + (high - low - (count - 1) * spacing) / 2.0
    in_plane = geometry.affine[:3, 1:3] / np.linalg.norm(geometry.affine[:3, 1:3], axis=0)
    axes = np.column_stack([geometry.normal, in_plane])
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    affine[:3, 3] = geometry.affine[:3, 3] + axes @ start
    shape = (int(count[0]), int(count[1]), int(count[2]))
    return Geometry(affine=affine, shape=shape, frame_of_reference_uid=geometry.frame_of_reference_uid), start


def _nearest(positions: Points, along: Points) -> Points:
    """Return for each place along the normal that of the nearest slice."""
    nearest: Points = positions[np.searchsorted((positions[1:] + positions[:-1]) / 2.0, along)]
    return nearest


def _between(positions: Points, along: Points) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """For each place along the normal the acquired slice below it, and the weight of the one above."""
    if len(positions) == 1:
        return np.zeros(len(along), dtype=np.intp), np.zeros(len(along), dtype=np.float32)
    lower = np.clip(np.searchsorted(positions, along, side="right") - 1, 0, len(positions) - 2)
    weight = (along - positions[lower]) / (positions[lower + 1] - positions[lower])
    return lower, np.clip(weight, 0.0, 1.0).astype(np.float32)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _resample(
    source: Hu,
    padding: Bits,
    between: tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]],
    in_plane: tuple[Points, Points],
    result: tuple[Hu, Bits],
    span: tuple[int, int],
) -> None:
    """Fill slices ``span`` of ``result`` (hu, outside): blend two rows of each neighbouring slice, read off both."""
    lower, weight = between
    starts, steps = in_plane
    hu, outside = result
    columns = source.shape[2]
    for k in range(span[0], span[1]):
        rows = np.empty((2, columns), dtype=np.float32)
        bad = np.zeros((2, columns), dtype=np.bool_)
        w = weight[k]
        first, last = (1 if w > 1 - _SAME_PLANE else 0), (0 if w < _SAME_PLANE else 1)
        for j in range(hu.shape[1]):
            covered = True
            for n in range(first, last + 1):
                a = min(lower[k] + n, source.shape[0] - 1)
                y = starts[k, n, 0] + j * steps[0]
                covered = covered and _blend_rows(source, padding, (a, y), rows[n], bad[n])
            if covered and first == last:
                _read_off(rows[first], bad[first], (starts[k, first, 1], steps[1]), hu[k, j], outside[k, j])
            elif covered:
                _read_off_both(rows, bad, (starts[k, :, 1], steps[1], w), hu[k, j], outside[k, j])


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _blend_rows(source: Hu, padding: Bits, place: tuple[int, float], row: npt.NDArray[np.float32], bad: Bits) -> bool:
    """Blend the two rows round y of a slice, mark what padding touches; say whether the slice reaches so far."""
    a, y = place
    rows, columns = source.shape[1:]
    if y < -_TO_THE_EDGE or y > rows - _TO_THE_EDGE:
        return False
    y = min(max(y, 0.0), rows - 1.0)
    y0 = min(int(y), max(rows - 2, 0))
    y1 = min(y0 + 1, rows - 1)
    v = np.float32(y - y0)
    u = np.float32(1) - v
    for i in range(columns):
        row[i] = u * source[a, y0, i] + v * source[a, y1, i]
    if padding.size > 0:
        for i in range(columns):
            bad[i] = (u > 0 and padding[a, y0, i]) or (v > 0 and padding[a, y1, i])
    return True


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _read_off(row: npt.NDArray[np.float32], bad: Bits, columns: tuple[float, float], hu: Hu, outside: Bits) -> None:
    """Read a row linearly at start + n * step; round to whole Hounsfield units."""
    start, step = columns
    last = len(row) - 1
    for i in range(len(hu)):
        x = start + i * step
        if x < -_TO_THE_EDGE or x > last + _TO_THE_EDGE:
            continue
        x = min(max(x, 0.0), float(last))
        x0 = min(int(x), max(last - 1, 0))
        x1 = min(x0 + 1, last)
        u = np.float32(x - x0)
        if bad[x0] or (u > 0 and bad[x1]):
            continue
        hu[i] = np.int16(math.floor(row[x0] + u * (row[x1] - row[x0]) + np.float32(0.5)))
        outside[i] = False


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _read_off_both(
    rows: npt.NDArray[np.float32], bad: Bits, columns: tuple[Points, float, float], hu: Hu, outside: Bits
) -> None:
    """Read both slices' rows, each from its own start, and blend them; a voxel that one does not cover is outside."""
    starts, step, w = columns
    last = rows.shape[1] - 1
    for i in range(len(hu)):
        x, z = starts[0] + i * step, starts[1] + i * step
        if min(x, z) < -_TO_THE_EDGE or max(x, z) > last + _TO_THE_EDGE:
            continue
        x, z = min(max(x, 0.0), float(last)), min(max(z, 0.0), float(last))
        x0, z0 = min(int(x), max(last - 1, 0)), min(int(z), max(last - 1, 0))
        x1, z1 = min(x0 + 1, last), min(z0 + 1, last)
        u, t = np.float32(x - x0), np.float32(z - z0)
        if bad[0, x0] or bad[1, z0] or (u > 0 and bad[0, x1]) or (t > 0 and bad[1, z1]):
            continue
        below = rows[0, x0] + u * (rows[0, x1] - rows[0, x0])
        above = rows[1, z0] + t * (rows[1, z1] - rows[1, z0])
        hu[i] = np.int16(math.floor(below + w * (above - below) + np.float32(0.5)))
        outside[i] = False


def _region_shares(
    region: Mask, slice_positions_mm: Sequence[float] | None, slice_thickness_mm: float | None
) -> Points:
    positions = positions_mm(region.geometry, slice_positions_mm)
    shares = slice_shares_mm(positions, slice_thickness_mm=slice_thickness_mm)
    if len(positions) == 1 and slice_thickness_mm is None:
        shares = np.array([region.geometry.slice_step_mm])
    start = region.origin_kji[0]
    return shares[start : start + region.bits.shape[0]]


_Box = tuple[tuple[int, int, int], tuple[int, int, int]]


def _acquired_box(region: Mask, acquired: Geometry, positions: Points) -> _Box:
    """First index and end of the acquired voxels that a region can touch; at least its nearest slices."""
    ends = [(o - 0.5, o + n - 0.5) for o, n in zip(region.origin_kji, region.bits.shape, strict=True)]
    corners = np.array(np.meshgrid(*ends)).reshape(3, -1).T
    index = acquired.to_index(region.geometry.to_mm(corners))
    along = np.interp(index[:, 0] * acquired.slice_step_mm, positions, np.arange(len(positions)))
    index[:, 0] = along
    low = np.clip(np.floor(index.min(axis=0)).astype(int) - 1, 0, np.array(acquired.shape) - 1)
    high = np.clip(np.ceil(index.max(axis=0)).astype(int) + 2, low + 1, acquired.shape)
    return (int(low[0]), int(low[1]), int(low[2])), (int(high[0]), int(high[1]), int(high[2]))


def _sampled(region: Mask, acquired: Geometry, positions: Points, box: _Box) -> Bits:
    """For each acquired voxel in the box: does the nearest voxel of the working grid belong to the region?"""
    (k0, j0, i0), (k1, j1, i1) = box
    bits = np.zeros((k1 - k0, j1 - j0, i1 - i0), dtype=np.bool_)
    rows, columns = np.meshgrid(np.arange(j0, j1), np.arange(i0, i1), indexing="ij")
    for k in range(k0, k1):
        steps = np.full(rows.shape, positions[k] / acquired.slice_step_mm)
        places = acquired.to_mm(np.stack([steps, rows, columns], axis=-1))
        bits[k - k0] = _belongs(region, np.floor(region.geometry.to_index(places) + 0.5).astype(int))
    return bits


def _belongs(region: Mask, kji: npt.NDArray[np.int_]) -> Bits:
    local = kji - region.origin_kji
    inside: Bits = np.asarray(((local >= 0) & (local < region.bits.shape)).all(axis=-1))
    safe = np.where(inside[..., None], local, 0)
    found: Bits = np.asarray(region.bits[safe[..., 0], safe[..., 1], safe[..., 2]] & inside)
    return found


def _carried(region: Mask, acquired: Geometry, positions: Points, box: _Box) -> Bits:
    """Put each voxel of the region on its nearest acquired slice, straight along the normal."""
    points = region.geometry.to_mm(np.argwhere(region.bits) + region.origin_kji)
    along = acquired.to_index(points)[:, 0] * acquired.slice_step_mm
    k = np.abs(along[:, None] - positions[None, :]).argmin(axis=1)
    on_slice = points + (positions[k] - along)[:, None] * acquired.normal
    index = np.floor(acquired.to_index(on_slice) + 0.5).astype(int)
    index[:, 0] = k
    low, high = np.array(box[0]), np.array(box[1])
    kept = (index[((index >= low) & (index < high)).all(axis=1)] - low).T
    bits = np.zeros(tuple(high - low), dtype=np.bool_)
    bits[kept[0], kept[1], kept[2]] = True
    return bits
