"""How are slabs along an array's axes averaged, or their extremes taken, at the speed of memory?

Compiled loops without the GIL. ``source`` is (hu, hidden), both kji; an empty ``hidden`` hides nothing. ``places`` is
(rows, low, high): where each picture row lies along k (j where slabs lie across k), and the slabs' edges along the
axis across, in voxels, voxel n covering n - 0.5 .. n + 0.5. ``layout`` is (the axis across, projection: 0 mean,
1 maximum, 2 minimum, columns are written backwards). Pictures are (slab, row, column). A cut is what one row needs of
the volume: a slice, or one row of all slices.
"""

import math

import numba
import numpy as np
import numpy.typing as npt

from reconstruction.geometry import Points
from reconstruction.resample import OUTSIDE_HU
from reconstruction.volume import Bits, Hu

Floats = npt.NDArray[np.float32]
Places = tuple[Points, Points, Points]
_MEAN, _MAXIMUM = 0, 1
_BLOCK = 32
_HALF = np.float32(0.5)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def fill(
    source: tuple[Hu, Bits], places: Places, layout: tuple[int, int, bool], pictures: Hu, span: tuple[int, int]
) -> None:
    """Fill rows ``span`` of every picture; a row blends two neighbouring cuts, each projected once."""
    hu, hidden = source
    rows, low, high = places
    axis, how, backwards = layout
    cuts = hu.shape[1] if axis == 0 else hu.shape[0]
    masked = hidden.size > 0
    values = np.empty((2, len(low), pictures.shape[2]), dtype=np.float32)
    cover = np.empty((2, len(low) if masked else 1, pictures.shape[2]), dtype=np.float32)
    turned = np.empty((1, hu.shape[2], hu.shape[1]) if axis == 2 else (1, 1, 1), dtype=np.int16)
    away = np.empty((1, hu.shape[2], hu.shape[1]) if axis == 2 and masked else (1, 1, 1), dtype=np.bool_)
    held = np.full(2, -1)
    for r in range(span[0], span[1]):
        first = min(int(rows[r]), max(cuts - 2, 0))
        weight = np.float32(rows[r] - first)
        for k in range(first, min(first + 2, cuts)):
            if held[k % 2] == k or (k > first and weight == 0):
                continue
            held[k % 2] = k
            if axis == 2:
                _turn(hu[k], turned[0])
                if masked:
                    _turn(hidden[k], away[0])
                _project((turned, away), (0, 1, how, masked), (low, high), values[k % 2], cover[k % 2])
            else:
                _project((hu, hidden), (k, axis, how, masked), (low, high), values[k % 2], cover[k % 2])
        _write(values, cover, (first, weight, masked), (r, backwards), pictures)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def maxima(hu: Hu, span: tuple[int, int], found: tuple[Hu, Hu, Hu]) -> None:
    """Raise the maxima over k by slices ``span``, and set those over j and over i of these slices."""
    over_k, over_j, over_i = found
    for k in range(span[0], span[1]):
        over_j[k] = hu[k, 0]
        front = over_j[k]
        for j in range(hu.shape[1]):
            row, top = hu[k, j], over_k[j]
            for i in range(len(row)):
                top[i] = max(top[i], row[i])
            for i in range(len(row)):
                front[i] = max(front[i], row[i])
            highest = row[0]
            for i in range(len(row)):
                highest = max(highest, row[i])
            over_i[k, j] = highest


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _turn(picture: npt.NDArray[np.generic], turned: npt.NDArray[np.generic]) -> None:
    """Transpose block by block, so that slabs across i are sums of whole rows too."""
    rows, columns = picture.shape
    for j0 in range(0, rows, _BLOCK):
        for i0 in range(0, columns, _BLOCK):
            for i in range(i0, min(i0 + _BLOCK, columns)):
                for j in range(j0, min(j0 + _BLOCK, rows)):
                    turned[i, j] = picture[j, i]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _project(
    source: tuple[Hu, Bits],
    what: tuple[int, int, int, bool],
    edges: tuple[Points, Points],
    values: Floats,
    cover: Floats,
) -> None:
    """Project one cut between every slab's edges."""
    hu, hidden = source
    k, axis, how, masked = what
    low, high = edges
    for s in range(len(low)):
        if masked:
            _hidden_across(hu, hidden, (k, axis == 0, how), (low[s], high[s]), values[s], cover[s])
        elif how == _MEAN:
            _mean_across(hu, (k, axis == 0), (low[s], high[s]), values[s])
        else:
            _extreme_across(hu, (k, axis == 0, how), (low[s], high[s]), values[s])


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _write(
    values: Floats, cover: Floats, between: tuple[int, float, bool], where: tuple[int, bool], pictures: Hu
) -> None:
    """Blend two projected slices and round once into a row of every picture."""
    first, weight, masked = between
    r, backwards = where
    a, b = first % 2, (first + 1) % 2
    for s in range(len(pictures)):
        row = pictures[s, r]
        if masked:
            _blend_covered((values[a, s], values[b, s]), (cover[a, s], cover[b, s]), weight, row)
        elif weight == 0:
            for i in range(len(row)):
                row[i] = np.int16(np.rint(values[a, s, i]))
        else:
            one, other = values[a, s], values[b, s]
            for i in range(len(row)):
                row[i] = np.int16(np.rint(one[i] + weight * (other[i] - one[i])))
        if backwards:
            row[:] = row[::-1].copy()


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _blend_covered(values: tuple[Floats, Floats], cover: tuple[Floats, Floats], weight: float, row: Hu) -> None:
    """Blend what is covered; where the nearer slice is not, the pixel is outside."""
    for i in range(len(row)):
        one = (np.float32(1) - weight) * cover[0][i]
        other = weight * cover[1][i] if weight > 0 else np.float32(0)
        if one + other < _HALF:
            row[i] = OUTSIDE_HU
        elif other == 0:
            row[i] = np.int16(np.rint(values[0][i]))
        elif one == 0:
            row[i] = np.int16(np.rint(values[1][i]))
        else:
            row[i] = np.int16(np.rint((one * values[0][i] + other * values[1][i]) / (one + other)))


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _first(low: float) -> int:
    """The first voxel that a slab takes whole for an extreme: its centre lies in it."""
    return max(math.ceil(low - 1e-6), 0)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _end(high: float, voxels: int) -> int:
    return min(math.floor(high + 1e-6) + 1, voxels)


@numba.njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def _mean_across(hu: Hu, what: tuple[int, bool], edges: tuple[float, float], result: Floats) -> None:
    """Average the rows between fractional edges of one slice (or the same row of several slices)."""
    k, over_k = what
    low, high = edges
    result[:] = 0.0
    for j in range(max(math.floor(low + 0.5), 0), min(math.ceil(high + 0.5), hu.shape[0] if over_k else hu.shape[1])):
        row = hu[j, k] if over_k else hu[k, j]
        share = np.float32(max(min(high, j + 0.5) - max(low, j - 0.5), 0.0) / (high - low))
        for i in range(len(result)):
            result[i] += share * np.float32(row[i])


@numba.njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def _extreme_across(hu: Hu, what: tuple[int, bool, int], edges: tuple[float, float], result: Floats) -> None:
    """Take the highest or lowest of the rows whose middles lie between the edges."""
    k, over_k, how = what
    begin = _first(edges[0])
    row = hu[begin, k] if over_k else hu[k, begin]
    for i in range(len(result)):
        result[i] = np.float32(row[i])
    for j in range(begin + 1, _end(edges[1], hu.shape[0] if over_k else hu.shape[1])):
        row = hu[j, k] if over_k else hu[k, j]
        if how == _MAXIMUM:
            for i in range(len(result)):
                result[i] = max(result[i], np.float32(row[i]))
        else:
            for i in range(len(result)):
                result[i] = min(result[i], np.float32(row[i]))


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _hidden_across(
    hu: Hu, hidden: Bits, what: tuple[int, bool, int], edges: tuple[float, float], result: Floats, cover: Floats
) -> None:
    """As the two above, of the voxels that are not hidden; ``cover`` is 1 where there was one."""
    k, over_k, how = what
    low, high = edges
    voxels = hu.shape[0] if over_k else hu.shape[1]
    result[:] = 0.0
    cover[:] = 0.0
    for j in range(max(math.floor(low + 0.5), 0), min(math.ceil(high + 0.5), voxels)):
        row, away = (hu[j, k], hidden[j, k]) if over_k else (hu[k, j], hidden[k, j])
        share = np.float32(_share(low, high, j, how))
        if share <= 0:
            continue
        for i in range(len(result)):
            if not away[i]:
                _add(row[i], share, how, i, result, cover)
    _settle(how, result, cover)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _share(low: float, high: float, voxel: int, how: int) -> float:
    """How much of a slab a voxel is; for an extreme, whether its centre lies in the slab."""
    if how == _MEAN:
        return max(min(high, voxel + 0.5) - max(low, voxel - 0.5), 0.0) / (high - low)
    return 1.0 if _first(low) <= voxel < _end(high, voxel + 1) else 0.0


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _add(value: int, share: float, how: int, at: int, result: Floats, cover: Floats) -> None:
    if how == _MEAN:
        result[at] += share * np.float32(value)
        cover[at] += share
        return
    if how == _MAXIMUM:
        result[at] = max(result[at], np.float32(value)) if cover[at] > 0 else np.float32(value)
    else:
        result[at] = min(result[at], np.float32(value)) if cover[at] > 0 else np.float32(value)
    cover[at] = 1.0


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _settle(how: int, result: Floats, cover: Floats) -> None:
    """Turn sums into means; a mean of a sliver counts as covered like any other."""
    for i in range(len(result)):
        if cover[i] > 0:
            if how == _MEAN:
                result[i] /= cover[i]
            cover[i] = 1.0
