"""What does a volume look like from the front, the side and above: mean slabs (MPR) and maxima (MIP)?"""

import math
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from reconstruction.convert import axial_first, is_straight
from reconstruction.errors import NotAVolume
from reconstruction.geometry import Geometry, Points
from reconstruction.planes import Orientation, Planes, PlanesKind
from reconstruction.resample import in_threads
from reconstruction.volume import Hu, Volume

Floats = npt.NDArray[np.float32]
_SAME_SPACING = 1e-3  # mm; finer differences are header rounding


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reformats:
    """The standard derived pictures of one volume."""

    coronal: Planes
    sagittal: Planes
    mips: tuple[Planes, Planes, Planes]


def reformat(volume: Volume, *, thickness_mm: float = 3.0, step_mm: float = 3.0) -> Reformats:
    """Make coronal and sagittal mean slabs and the axial, coronal and sagittal maximum projection in one pass.

    Planes follow the volume's own axes. They are shown the radiological way whatever the order of storage: patient's
    right on the left of axial and coronal pictures, anterior on the left of sagittal ones, head up, anterior up on
    axial ones; pixels are square. Slabs lie exactly ``step_mm`` apart, pixels at their edges count by their share.
    Raises NotAVolume for a sheared volume: regularise it first.
    """
    if not is_straight(volume.geometry):
        raise NotAVolume("a sheared volume cannot be reformatted; regularise it first")
    source = axial_first(volume)
    _, row_mm, column_mm = source.geometry.spacing_mm
    front = _slabs(source.hu.shape[1], row_mm, thickness_mm, step_mm)
    side = _slabs(source.hu.shape[2], column_mm, thickness_mm, step_mm)
    means, maxima = _swept(source.hu, front, side)
    return Reformats(
        coronal=_mpr(source.geometry, means[0], front, "coronal"),
        sagittal=_mpr(source.geometry, means[1], side, "sagittal"),
        mips=(
            _mip(source.geometry, maxima[0][None], "axial"),
            _mip(source.geometry, maxima[1][None], "coronal"),
            _mip(source.geometry, maxima[2][None], "sagittal"),
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Slabs:
    """Equal slabs along one array axis, in voxels: ``low``..``high`` are edges, voxel n covers n - 0.5 .. n + 0.5."""

    low: Points
    high: Points
    thickness_mm: float
    step_mm: float

    @property
    def centres(self) -> Points:
        middle: Points = (self.low + self.high) / 2.0
        return middle


def _slabs(voxels: int, voxel_mm: float, thickness_mm: float, step_mm: float) -> _Slabs:
    """Fit slabs ``step_mm`` apart into the volume, evenly about its middle, none reaching outside."""
    thickness = min(max(thickness_mm / voxel_mm, 1.0), float(voxels))
    step = step_mm / voxel_mm
    count = math.floor((voxels - thickness) / step + 1e-6) + 1
    centres: Points = (voxels - 1) / 2.0 + (np.arange(count, dtype=np.float64) - (count - 1) / 2.0) * step
    return _Slabs(
        low=centres - thickness / 2.0,
        high=centres + thickness / 2.0,
        thickness_mm=thickness * voxel_mm,
        step_mm=step_mm,
    )


def _swept(hu: Hu, front: _Slabs, side: _Slabs) -> tuple[tuple[Floats, Floats], tuple[Hu, Hu, Hu]]:
    """Read every voxel once; return mean slabs (k, slab, pixel) and maxima (over k, over j, over i)."""
    slices, rows, columns = hu.shape
    coronal = np.empty((slices, len(front.low), columns), dtype=np.float32)
    sagittal = np.empty((slices, len(side.low), rows), dtype=np.float32)
    over_j, over_i = np.empty((slices, columns), dtype=np.int16), np.empty((slices, rows), dtype=np.int16)
    tops: list[Hu] = []

    def sweep(span: tuple[int, int]) -> None:
        top = np.full((rows, columns), np.iinfo(np.int16).min, dtype=np.int16)
        _sweep(hu, span, ((front.low, front.high), (side.low, side.high)), (coronal, sagittal), (top, over_j, over_i))
        tops.append(top)

    in_threads(sweep, slices)
    return (coronal, sagittal), (np.maximum.reduce(tops), over_j, over_i)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _sweep(
    hu: Hu,
    span: tuple[int, int],
    slabs: tuple[tuple[Points, Points], tuple[Points, Points]],
    means: tuple[Floats, Floats],
    maxima: tuple[Hu, Hu, Hu],
) -> None:
    (front_low, front_high), (side_low, side_high) = slabs
    coronal, sagittal = means
    over_k, over_j, over_i = maxima
    total = np.zeros(hu.shape[2] + 1, dtype=np.float64)
    for k in range(span[0], span[1]):
        over_j[k] = hu[k, 0]
        for j in range(hu.shape[1]):
            row = hu[k, j]
            for i in range(len(row)):
                over_k[j, i] = max(over_k[j, i], row[i])
                over_j[k, i] = max(over_j[k, i], row[i])
            over_i[k, j] = row.max()
            _mean_along(row, total, side_low, side_high, sagittal[k, :, j])
        for s in range(len(front_low)):
            _mean_across(hu[k], front_low[s], front_high[s], coronal[k, s])


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _mean_along(row: Hu, total: Points, low: Points, high: Points, mean: Floats) -> None:
    """Means of a row between fractional edges, from its running sum."""
    for i in range(len(row)):
        total[i + 1] = total[i] + row[i]
    for s in range(len(low)):
        mean[s] = (_running(total, high[s] + 0.5) - _running(total, low[s] + 0.5)) / (high[s] - low[s])


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _running(total: Points, edge: float) -> float:
    n = min(max(int(edge), 0), len(total) - 2)
    return float(total[n] + (edge - n) * (total[n + 1] - total[n]))


@numba.njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def _mean_across(picture: Hu, low: float, high: float, mean: Floats) -> None:
    """Mean of the rows between fractional edges."""
    mean[:] = 0.0
    for j in range(max(math.floor(low + 0.5), 0), min(math.ceil(high + 0.5), picture.shape[0])):
        share = np.float32(max(min(high, j + 0.5) - max(low, j - 0.5), 0.0) / (high - low))
        for i in range(len(mean)):
            mean[i] += share * picture[j, i]


def _mpr(geometry: Geometry, means: Floats, slabs: _Slabs, orientation: Orientation) -> Planes:
    """Show slab means (k, slab, pixel) as pictures, k resampled to the pixel's size."""
    across, along = (1, 2) if orientation == "coronal" else (2, 1)
    places, frames = _square(geometry, np.moveaxis(means, 1, 0), along)
    starts = np.zeros((len(frames), 3))
    starts[:, 0], starts[:, across] = places, slabs.centres
    layout = _Layout(axes=(0, along), spacing_mm=geometry.spacing_mm[along], thickness_mm=slabs.thickness_mm)
    return _shown(geometry, frames, starts, layout, (orientation, "mpr", slabs.step_mm))


def _mip(geometry: Geometry, maxima: Hu, orientation: Orientation) -> Planes:
    """Show one maximum projection; its plane stands in the middle of the volume."""
    down, across, along = {"axial": (1, 0, 2), "coronal": (0, 1, 2), "sagittal": (0, 2, 1)}[orientation]
    spacing = geometry.spacing_mm
    first, frames = _square(geometry, maxima, along, down=down)
    starts = np.zeros((1, 3))
    starts[0, down], starts[0, across] = first, (geometry.shape[across] - 1) / 2.0
    thickness = spacing[across] * geometry.shape[across]
    layout = _Layout(axes=(down, along), spacing_mm=spacing[along], thickness_mm=thickness)
    return _shown(geometry, frames, starts, layout, (orientation, "mip", None))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """Which array axes run down and along a picture, its pixel size and how thick a slab it stands for."""

    axes: tuple[int, int]
    spacing_mm: float
    thickness_mm: float


def _square(geometry: Geometry, frames: Floats | Hu, along: int, *, down: int = 0) -> tuple[float, Hu]:
    """Resample the rows of (frame, row, column) linearly to the column spacing.

    Returns the index along axis ``down`` of the first row, and int16 frames.
    """
    wanted, have = geometry.spacing_mm[along], geometry.spacing_mm[down]
    rows = frames.shape[1]
    if abs(wanted - have) < _SAME_SPACING * wanted / rows or rows == 1:
        return 0.0, _whole(frames)
    count = math.floor((rows - 1) * have / wanted + 1e-6) + 1
    first = ((rows - 1) - (count - 1) * wanted / have) / 2.0
    at = np.clip(first + np.arange(count) * (wanted / have), 0.0, rows - 1.0)
    lower = np.minimum(at.astype(np.intp), rows - 2)
    weight = (at - lower).astype(np.float32)[:, None]
    result = np.empty((len(frames), count, frames.shape[2]), dtype=np.int16)
    for frame, out in zip(frames, result, strict=True):
        out[:] = _whole(frame[lower] * (1 - weight) + frame[lower + 1] * weight)
    return first, result


def _whole(values: Floats | Hu) -> Hu:
    return np.ascontiguousarray(np.rint(values).astype(np.int16))


def _shown(
    geometry: Geometry,
    frames: Hu,
    starts: Points,
    layout: _Layout,
    what: tuple[Orientation, PlanesKind, float | None],
) -> Planes:
    """Flip pictures so that they read the radiological way and note where they then lie."""
    orientation, kind, step_mm = what
    down, along = (geometry.affine[:3, axis] / geometry.spacing_mm[axis] for axis in layout.axes)
    origins = geometry.to_mm(starts)
    if (down[1] if orientation == "axial" else -down[2]) < 0:
        origins = origins + down * layout.spacing_mm * (frames.shape[1] - 1)
        frames, down = frames[:, ::-1], -down
    if (along[1] if orientation == "sagittal" else along[0]) < 0:
        origins = origins + along * layout.spacing_mm * (frames.shape[2] - 1)
        frames, along = frames[:, :, ::-1], -along
    forward = np.cross(along, down)
    if len(frames) > 1 and float((origins[-1] - origins[0]) @ forward) < 0:
        frames, origins = frames[::-1], origins[::-1]
    return Planes(
        hu=np.ascontiguousarray(frames),
        origins_lps_mm=np.ascontiguousarray(origins),
        row_direction=np.array(along),
        column_direction=np.array(down),
        pixel_spacing_mm=(layout.spacing_mm, layout.spacing_mm),
        slice_thickness_mm=layout.thickness_mm,
        spacing_between_mm=step_mm if len(frames) > 1 else None,
        orientation=orientation,
        kind=kind,
    )
