"""How are rows of pixels that run anywhere through a volume read off, at the speed of memory?

Compiled loops without the GIL, for pictures in any plane and along any curve. A row of pixels is a straight line in
index space (kji), and so is what lies in front of and behind each of its pixels: sample s of pixel c of row r lies
at ``starts[r] + c * steps[r] + s * depths[r]``. Values are trilinear; a sample off the voxels' centres' box, or one
that a hidden voxel has a share in, is none.
"""

import math

import numba
import numpy as np
import numpy.typing as npt

from reconstruction.geometry import Points
from reconstruction.resample import OUTSIDE_HU
from reconstruction.volume import Bits, Hu

Floats = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int32]
Lines = tuple[Points, Points, Points]
_MEAN, _MAXIMUM = 0, 1
_SLACK = 1e-4  # voxels; what rounding may put outside is still on the edge


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def read_rows(source: tuple[Hu, Bits], lines: Lines, what: tuple[int, int], rows: Hu, span: tuple[int, int]) -> None:
    """Fill rows ``span``; ``source`` is (hu, hidden: empty where nothing is), ``what`` (samples, projection).

    Projections are 0 mean, 1 maximum and 2 minimum of the samples inside; pixels without one become -1024.
    """
    hu, hidden = source
    starts, steps, depths = lines
    samples, how = what
    values = np.empty(rows.shape[1], dtype=np.float32)
    counts = np.empty(rows.shape[1], dtype=np.int32)
    found = np.empty(rows.shape[1], dtype=np.float32)
    inside = np.ones(rows.shape[1], dtype=np.bool_)
    at = np.empty(3)
    for r in range(span[0], span[1]):
        values[:] = 0.0
        counts[:] = 0
        for s in range(samples):
            for axis in range(3):
                at[axis] = starts[r, axis] + s * depths[r, axis]
            reach = _reach(hu.shape, at, steps[r], rows.shape[1])
            _gather(hu, (at, steps[r]), reach, found)
            if hidden.size > 0:
                _see(hidden, (at, steps[r]), reach, inside)
            _combine(found, inside, (reach[0], reach[1], how), values, counts)
        _finish(values, counts, how, rows[r])


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _reach(shape: tuple[int, int, int], at: Points, step: Points, pixels: int) -> tuple[int, int]:
    """The first pixel inside the volume, and the one behind the last."""
    low, high = 0.0, pixels - 1.0
    for axis in range(3):
        near, far = -_SLACK - at[axis], shape[axis] - 1 + _SLACK - at[axis]
        if abs(step[axis]) < 1e-12:
            if near > 0 or far < 0:
                return 0, 0
            continue
        one, other = near / step[axis], far / step[axis]
        low, high = max(low, min(one, other)), min(high, max(one, other))
    first, end = math.ceil(low), math.floor(high) + 1
    return (first, end) if end > first else (0, 0)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _strides(shape: tuple[int, int, int]) -> tuple[tuple[int, int, int], tuple[np.uint64, np.uint64, np.uint64]]:
    """For each axis the last voxel that has a neighbour, and how far on in memory that is; unsigned, to index fast."""
    k, j, i = shape
    last = (max(k - 2, 0), max(j - 2, 0), max(i - 2, 0))
    return last, (np.uint64(j * i if k > 1 else 0), np.uint64(i if j > 1 else 0), np.uint64(1 if i > 1 else 0))


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _gather(hu: Hu, line: tuple[Points, Points], reach: tuple[int, int], found: Floats) -> None:
    """Read pixels ``reach`` of one line, trilinearly."""
    at, step = line
    flat = hu.reshape(-1)
    (k_last, j_last, i_last), (k_on, j_on, i_on) = _strides(hu.shape)
    slice_size, row_size = np.uint64(hu.shape[1] * hu.shape[2]), np.uint64(hu.shape[2])
    for c in range(reach[0], reach[1]):
        z, y, x = at[0] + c * step[0], at[1] + c * step[1], at[2] + c * step[2]
        k, j, i = min(int(z), k_last), min(int(y), j_last), min(int(x), i_last)
        w, v, u = np.float32(z - k), np.float32(y - j), np.float32(x - i)
        n = np.uint64(k) * slice_size + np.uint64(j) * row_size + np.uint64(i)
        near = _bilinear(flat, n, (j_on, i_on), (v, u))
        far = _bilinear(flat, n + k_on, (j_on, i_on), (v, u))
        found[c] = near + w * (far - near)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _bilinear(
    flat: Hu, n: np.uint64, on: tuple[np.uint64, np.uint64], weights: tuple[np.float32, np.float32]
) -> np.float32:
    one, two = np.float32(flat[n]), np.float32(flat[n + on[1]])
    three, four = np.float32(flat[n + on[0]]), np.float32(flat[n + on[0] + on[1]])
    above = one + weights[1] * (two - one)
    below = three + weights[1] * (four - three)
    return above + weights[0] * (below - above)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _see(hidden: Bits, line: tuple[Points, Points], reach: tuple[int, int], inside: Bits) -> None:
    """Say of each pixel of a line whether no hidden voxel has a share in it."""
    at, step = line
    (k_last, j_last, i_last), _ = _strides(hidden.shape)
    for c in range(reach[0], reach[1]):
        z, y, x = at[0] + c * step[0], at[1] + c * step[1], at[2] + c * step[2]
        k, j, i = min(int(z), k_last), min(int(y), j_last), min(int(x), i_last)
        inside[c] = not _touches(hidden, (k, j, i), (z - k, y - j, x - i))


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _touches(hidden: Bits, cell: tuple[int, int, int], weights: tuple[float, float, float]) -> bool:
    for corner in range(8):
        dk, dj, di = corner // 4, corner // 2 % 2, corner % 2
        share = (weights[0] if dk else 1 - weights[0]) * (weights[1] if dj else 1 - weights[1])
        share *= weights[2] if di else 1 - weights[2]
        if share > _SLACK and hidden[cell[0] + dk, cell[1] + dj, cell[2] + di]:
            return True
    return False


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _combine(found: Floats, inside: Bits, what: tuple[int, int, int], values: Floats, counts: Counts) -> None:
    """Take the samples that are inside into a row's sums, maxima or minima."""
    first, end, how = what
    for c in range(first, end):
        if not inside[c]:
            continue
        if how == _MEAN:
            values[c] += found[c]
        elif counts[c] == 0:
            values[c] = found[c]
        elif how == _MAXIMUM:
            values[c] = max(values[c], found[c])
        else:
            values[c] = min(values[c], found[c])
        counts[c] += 1


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _finish(values: Floats, counts: Counts, how: int, row: Hu) -> None:
    """Round each pixel once."""
    for c in range(len(row)):
        if counts[c] == 0:
            row[c] = OUTSIDE_HU
        elif how == _MEAN:
            row[c] = np.int16(np.rint(values[c] / counts[c]))
        else:
            row[c] = np.int16(np.rint(values[c]))
