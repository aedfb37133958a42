"""What does each ray through a volume gather on its way to the eye? Compiled, on the CPU, with parallel rays.

Needs no screen, graphics card or system library. Rays leap over blocks in which nothing is seen, sample elsewhere by
linear interpolation every two steps, and every step where something is seen; light falls along the gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from reconstruction.geometry import Points
from reconstruction.render import Rgb
from reconstruction.resample import in_threads
from reconstruction.volume import Hu, Volume

Table = npt.NDArray[np.float32]
Blocks = npt.NDArray[np.int16]
LOWEST_HU, HIGHEST_HU = -2048, 4095
UNLIT_HU = -1400  # what is drawn below has no surface: it is a shadow, as bright from every side
RIM = 2  # voxels at every face in which nothing may be seen: gradients reach one beyond a sample's own eight
_BLOCK = 4  # voxels along a side of the blocks that rays leap over
_NOTHING_LEFT = 0.015  # of the light: what lies behind is not seen
_AMBIENT, _DIFFUSE, _GLOSS = 0.2, 0.8, 0.15
_SHADOW = np.float32(0.45)
_FAR = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """A transfer function: Hounsfield units -> opacity over ``depth_mm`` of tissue, and -> red, green, blue (0..1).

    Both are lines between the points given, and level beyond the first and the last. ``sure_hu``: the difference
    across two voxels from which on the gradient alone says how a surface lies; below, the one before it counts too.
    """

    opacity: Sequence[tuple[float, float]]
    colour: Sequence[tuple[float, tuple[float, float, float]]]
    depth_mm: float
    sure_hu: float

    def table(self, step_mm: float) -> Table:
        """Return red, green, blue and the opacity of one step, for each whole Hounsfield unit from LOWEST_HU on."""
        hu = np.arange(LOWEST_HU, HIGHEST_HU + 1)
        table = np.empty((hu.size, 4), dtype=np.float32)
        for channel in range(3):
            table[:, channel] = np.interp(hu, [p[0] for p in self.colour], [p[1][channel] for p in self.colour])
        over_depth = np.interp(hu, [p[0] for p in self.opacity], [p[1] for p in self.opacity])
        table[:, 3] = 1.0 - (1.0 - np.minimum(over_depth, 0.999)) ** (step_mm / self.depth_mm)
        return table


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    """A volume made ready for rays: its looks per step, and how many empty blocks lie round each block.

    A sample is taken at most every two steps of ``step_mm``. ``empty`` is 0 where something may be seen.
    """

    volume: Volume
    table: Table
    step_mm: float
    sure_hu: float
    empty: Blocks


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Camera:
    """Where to look from, in parallel projection: ``from_lps`` points from ``centre_lps_mm`` to the eye, both unit."""

    centre_lps_mm: Points
    from_lps: Points
    up_lps: Points
    reach_mm: float
    size: int


def set_scene(volume: Volume, looks: Looks, *, step_mm: float) -> Scene:
    """Make a volume ready for rays. Its outermost RIM voxels must be transparent; raises ValueError otherwise."""
    table = looks.table(step_mm)
    shape = tuple(-(-n // _BLOCK) for n in volume.hu.shape)
    low, high = np.empty(shape, dtype=np.int16), np.empty(shape, dtype=np.int16)
    in_threads(lambda span: _extremes(volume.hu, low, high, span), shape[0])
    seen = _any_seen(table, low, high)
    if _any_seen(table, *_faces(volume.hu)).any():
        raise ValueError(f"a volume to be cast needs a rim of {RIM} voxels in which nothing is seen")
    empty = np.full(shape, max(shape), dtype=np.int16)
    if seen.any():
        empty = ndimage.distance_transform_cdt(~seen, metric="chessboard").astype(np.int16)
    return Scene(volume=volume, table=table, step_mm=step_mm, sure_hu=looks.sure_hu, empty=empty)


def cast(scene: Scene, camera: Camera) -> Rgb:
    """Return the picture (size, size, 3) on black, its rows downwards, its columns to the viewer's right."""
    right = np.cross(-camera.from_lps, camera.up_lps)
    to_index = np.linalg.inv(scene.volume.geometry.affine[:3, :3])
    pixel_mm = camera.reach_mm / camera.size
    half_mm = (camera.reach_mm - pixel_mm) / 2.0
    corner = camera.centre_lps_mm + camera.from_lps * 2.0 * camera.reach_mm + (camera.up_lps - right) * half_mm
    moves = np.stack([-camera.up_lps * pixel_mm, right * pixel_mm, -camera.from_lps * scene.step_mm])
    rays = np.vstack([scene.volume.geometry.to_index(corner), moves @ to_index.T])
    light = camera.from_lps + 0.25 * camera.up_lps - 0.2 * right  # from a little above and to the left of the eye
    lit = np.vstack([to_index @ (light / np.linalg.norm(light)), to_index @ to_index.T])
    rgb = np.zeros((camera.size, camera.size, 3), dtype=np.uint8)
    rows = np.concatenate([np.arange(n, camera.size, 4) for n in range(4)])  # threads share the patient's middle
    in_threads(
        lambda span: _cast(
            scene.volume.hu, scene.empty, scene.table, (rays, lit, scene.sure_hu), rows[slice(*span)], rgb
        ),
        camera.size,
    )
    return rgb


def _any_seen(table: Table, low: npt.NDArray[np.int16], high: npt.NDArray[np.int16]) -> npt.NDArray[np.bool_]:
    """Say where any value between low and high has an opacity above 0."""
    counts = np.concatenate([[0], np.cumsum(table[:, 3] > 0)])
    first, last = (np.clip(each.astype(np.int32), LOWEST_HU, HIGHEST_HU) - LOWEST_HU for each in (low, high))
    seen: npt.NDArray[np.bool_] = counts[last + 1] > counts[first]
    return seen


def _faces(hu: Hu) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16]]:
    faces = [np.take(hu, n, axis=axis) for axis in range(3) for n in (*range(RIM), *range(-RIM, 0))]
    return np.array([f.min() for f in faces], dtype=np.int16), np.array([f.max() for f in faces], dtype=np.int16)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _extremes(hu: Hu, low: Blocks, high: Blocks, span: tuple[int, int]) -> None:
    """Find each block's smallest and largest value, the next block's first voxels included: samples lie between."""
    for k in range(span[0], span[1]):
        for j in range(low.shape[1]):
            for i in range(low.shape[2]):
                ends = ((k + 1) * _BLOCK + 1, (j + 1) * _BLOCK + 1, (i + 1) * _BLOCK + 1)
                low[k, j, i], high[k, j, i] = _range(hu, (k * _BLOCK, j * _BLOCK, i * _BLOCK), ends)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _range(hu: Hu, start: tuple[int, int, int], ends: tuple[int, int, int]) -> tuple[int, int]:
    low = high = hu[start]
    for k in range(start[0], min(ends[0], hu.shape[0])):
        for j in range(start[1], min(ends[1], hu.shape[1])):
            for i in range(start[2], min(ends[2], hu.shape[2])):
                value = hu[k, j, i]
                low, high = min(low, value), max(high, value)
    return low, high


@numba.njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def _cast(hu: Hu, empty: Blocks, table: Table, geometry: Any, rows: npt.NDArray[np.int64], rgb: Rgb) -> None:
    rays, lit, sure_hu = geometry
    step = (rays[3, 0], rays[3, 1], rays[3, 2])
    for row in rows:
        for column in range(rgb.shape[1]):
            k = rays[0, 0] + row * rays[1, 0] + column * rays[2, 0]
            j = rays[0, 1] + row * rays[1, 1] + column * rays[2, 1]
            i = rays[0, 2] + row * rays[1, 2] + column * rays[2, 2]
            red, green, blue = _gathered(hu, empty, table, ((k, j, i), step), lit, sure_hu)
            rgb[row, column, 0] = np.uint8(min(red, 1.0) * 255.0 + 0.5)
            rgb[row, column, 1] = np.uint8(min(green, 1.0) * 255.0 + 0.5)
            rgb[row, column, 2] = np.uint8(min(blue, 1.0) * 255.0 + 0.5)


@numba.njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def _gathered(hu: Hu, empty: Blocks, table: Table, ray: Any, lit: Points, sure_hu: float) -> Any:
    """Follow one ray through the box; where the gradient says nothing the light of the surface before it is kept."""
    start, step = ray
    n, last = _through(hu.shape, start, step)
    sums = (np.float32(0.0), np.float32(0.0), np.float32(0.0))
    left, before, fine = np.float32(1.0), np.float32(0.7), 0
    while n <= last and left > _NOTHING_LEFT:
        k, j, i = start[0] + n * step[0], start[1] + n * step[1], start[2] + n * step[2]
        alone = empty[int(k) // _BLOCK, int(j) // _BLOCK, int(i) // _BLOCK]
        if alone > 0:
            n += _leap(alone, (k, j, i), step)
            continue
        value = _looked_up(_at(hu, k, j, i), table.shape[0])
        opacity = table[value, 3]
        if opacity == 0.0:
            fine = max(fine - 1, 0)
            n += 1.0 if fine else 2.0
            continue
        if fine == 0:  # one step was left out: go back to it, once
            n, fine = n - 1.0, 2
            continue
        fine = 2
        before = _SHADOW if value < UNLIT_HU - LOWEST_HU else _facing(hu, (k, j, i), lit, (before, sure_hu))
        sums = _added(sums, table[value], left * opacity, before)
        left *= np.float32(1.0) - opacity
        n += 1.0
    return sums


@numba.njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def _added(sums: Any, colour: Table, share: float, facing: float) -> Any:
    light = np.float32(_AMBIENT + _DIFFUSE * facing)
    gloss = np.float32(_GLOSS * facing**16)
    return (
        sums[0] + share * (colour[0] * light + gloss),
        sums[1] + share * (colour[1] * light + gloss),
        sums[2] + share * (colour[2] * light + gloss),
    )


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _through(shape: tuple[int, int, int], start: Any, step: Any) -> tuple[float, float]:
    """Return the first and the last step within the voxels' centres, less the rim's outermost ones."""
    first, last = 1.0, _FAR
    for axis in range(3):
        low, high = 1.0, shape[axis] - 2.001
        if abs(step[axis]) > 1e-9:
            one, other = (low - start[axis]) / step[axis], (high - start[axis]) / step[axis]
            first, last = max(first, min(one, other)), min(last, max(one, other))
        elif start[axis] < low or start[axis] > high:
            last = -1.0
    return np.ceil(first) + 1.0, last


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _leap(alone: int, place: Any, step: Any) -> Any:
    """Return how many steps lead out of the cube of empty blocks round a place."""
    steps = _FAR
    for axis in range(3):
        block = int(place[axis]) // _BLOCK
        if step[axis] > 1e-9:
            steps = min(steps, ((block + alone) * _BLOCK - place[axis]) / step[axis])
        elif step[axis] < -1e-9:
            steps = min(steps, ((block - alone + 1) * _BLOCK - place[axis]) / step[axis])
    return max(1.0, np.ceil(steps))


@numba.njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def _looked_up(value: Any, size: int) -> int:
    return min(max(int(value + np.float32(0.5 - LOWEST_HU)), 0), size - 1)


@numba.njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def _at(hu: Hu, k: float, j: float, i: float) -> Any:
    """Interpolate linearly between the eight voxels round a place inside the rim."""
    z, y, x = int(k), int(j), int(i)
    c, b, a = np.float32(k - z), np.float32(j - y), np.float32(i - x)
    one = np.float32(1.0)
    front = hu[z, y, x] * (one - a) + hu[z, y, x + 1] * a
    front_down = hu[z, y + 1, x] * (one - a) + hu[z, y + 1, x + 1] * a
    back = hu[z + 1, y, x] * (one - a) + hu[z + 1, y, x + 1] * a
    back_down = hu[z + 1, y + 1, x] * (one - a) + hu[z + 1, y + 1, x + 1] * a
    return (front * (one - b) + front_down * b) * (one - c) + (back * (one - b) + back_down * b) * c


@numba.njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def _facing(hu: Hu, place: Any, lit: Points, memory: Any) -> Any:
    """Return how squarely the surface at a place faces the light, 0..1.

    A gradient g over index is to_index.T @ g in LPS, so that its product with the light is g @ (to_index @ light), and
    its length the root of g @ (to_index @ to_index.T) @ g.
    """
    k, j, i = place
    light, metric = lit[0], lit[1:]
    before, sure_hu = memory
    a = _at(hu, k + 1.0, j, i) - _at(hu, k - 1.0, j, i)
    b = _at(hu, k, j + 1.0, i) - _at(hu, k, j - 1.0, i)
    c = _at(hu, k, j, i + 1.0) - _at(hu, k, j, i - 1.0)
    square = a * (metric[0, 0] * a + 2.0 * metric[0, 1] * b) + b * (metric[1, 1] * b + 2.0 * metric[1, 2] * c)
    square += c * (metric[2, 2] * c + 2.0 * metric[0, 2] * a)
    facing = abs(a * light[0] + b * light[1] + c * light[2]) / np.sqrt(square + 1e-12)
    sure = min(np.sqrt(a * a + b * b + c * c) / sure_hu, 1.0)
    return np.float32(sure * facing + (1.0 - sure) * before)
