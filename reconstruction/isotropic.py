"""What does a stack look like as axial pictures of cubic voxels, when the whole of them would not fit into memory?"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from reconstruction.convert import axial_first, nearest_axes
from reconstruction.errors import NotAVolume
from reconstruction.geometry import Geometry
from reconstruction.planes import Planes
from reconstruction.resample import Straightened, straightened
from reconstruction.volume import Bits, Hu, Volume

SLAB_BYTES = 32 * 2**20
MOST_PIXELS_A_SIDE = 4096
"""A finer grid than this is a mistake in the spacing: no scanner resolves it, and one picture would be 32 MB."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Isotropic:
    """The plan of an isotropic volume: its grid, and how its pictures are made, some at a time.

    ``grid`` has axes kji as acquired (``regularise``'s own); ``max_distance_to_slice_mm`` is the farthest that one of
    its voxels lies from the nearest acquired slice plane. Nothing is resampled before ``slabs`` is asked.
    """

    grid: Geometry
    max_distance_to_slice_mm: float
    _volume: Volume
    _padding: Bits | None
    _straight: Straightened

    @property
    def pictures(self) -> Geometry:
        """Return the place of the pictures: k counts them from the feet up, j and i are their rows and columns."""
        order, ways = nearest_axes(self.grid), self._ways()
        affine = np.eye(4)
        affine[:3, :3] = self.grid.affine[:3, list(order)] * ways
        corner = [0.0, 0.0, 0.0]
        for axis, way in zip(order, ways, strict=True):
            corner[axis] = 0.0 if way > 0 else self.grid.shape[axis] - 1.0
        affine[:3, 3] = self.grid.to_mm(corner)
        k, j, i = (self.grid.shape[axis] for axis in order)
        return Geometry(affine=affine, shape=(k, j, i), frame_of_reference_uid=self.grid.frame_of_reference_uid)

    def slabs(self, slab_bytes: int = SLAB_BYTES) -> Iterator[Planes]:
        """Yield the pictures from one end to the other, as many at a time as fit into ``slab_bytes`` (at least one).

        Each is axial (or nearest to it), kind "isotropic", shown the radiological way: patient's right on the left,
        anterior up, the next picture nearer to the head. Voxels that no acquired pixel covers hold -1024 HU.
        """
        pictures = self.pictures
        frames, rows, columns = pictures.shape
        each = max(1, slab_bytes // (2 * rows * columns))
        for start in range(0, frames, each):
            span = (start, min(start + each, frames))
            yield _planes(self._pixels(span), pictures, span)

    def _ways(self) -> tuple[int, int, int]:
        """Return for each axis of the pictures whether it follows the grid's (1) or goes against it (-1)."""
        towards = self.grid.affine[:3, list(nearest_axes(self.grid))]
        down, along = (1 if towards[lps, n] >= 0 else -1 for n, lps in ((1, 1), (2, 0)))
        forward = np.cross(towards[:, 2] * along, towards[:, 1] * down)
        return 1 if float(forward @ towards[:, 0]) > 0 else -1, down, along

    def _pixels(self, span: tuple[int, int]) -> Hu:
        """Resample the pictures ``span`` (first, end) and turn them the way they are shown."""
        axis, ways = nearest_axes(self.grid)[0], self._ways()
        (first, end), count = span, self.grid.shape[axis]
        origin, shape = [0, 0, 0], list(self.grid.shape)
        origin[axis], shape[axis] = first if ways[0] > 0 else count - end, end - first
        box = ((origin[0], origin[1], origin[2]), (shape[0], shape[1], shape[2]))
        hu, _ = self._straight.read_off(self._volume, self._padding, *box)
        slab = axial_first(Volume(hu=hu, geometry=self.grid.cropped(*box))).hu
        return np.ascontiguousarray(slab[:: ways[0], :: ways[1], :: ways[2]])


def isotropic(
    volume: Volume,
    *,
    slice_positions_mm: Sequence[float] | None = None,
    spacing_mm: float | None = None,
    padding: Bits | None = None,
) -> Isotropic:
    """Plan the isotropic volume of a stack as acquired (tilted, uneven or straight), with values as ``regularise``'s.

    ``slice_positions_mm`` are distances from the first slice along the normal (None: even); the default spacing is
    min(1, max(pixel, step / 3)) mm; ``padding`` (kji) is never interpolated. The volume is held, not copied. Raises
    NotAVolume where the positions do not grow, or the spacing is none or too fine for a picture.
    """
    if spacing_mm is not None and not (math.isfinite(spacing_mm) and spacing_mm > 0):
        raise NotAVolume(f"a spacing of {spacing_mm:g} mm is none")
    _refuse_useless(volume.geometry, spacing_mm)
    straight = straightened(volume.geometry, slice_positions_mm=slice_positions_mm, spacing_mm=spacing_mm)
    return Isotropic(
        grid=straight.grid,
        max_distance_to_slice_mm=straight.max_distance_to_slice_mm,
        _volume=volume,
        _padding=padding,
        _straight=straight,
    )


def isotropic_slabs(
    volume: Volume,
    *,
    slice_positions_mm: Sequence[float] | None = None,
    spacing_mm: float | None = None,
    padding: Bits | None = None,
    slab_bytes: int = SLAB_BYTES,
) -> Iterator[Planes]:
    """Yield the axial pictures of ``isotropic`` in slabs: what ``Isotropic.slabs`` does, for who needs no more."""
    plan = isotropic(volume, slice_positions_mm=slice_positions_mm, spacing_mm=spacing_mm, padding=padding)
    return plan.slabs(slab_bytes)


def _refuse_useless(geometry: Geometry, spacing_mm: float | None) -> None:
    if spacing_mm is None:
        return
    side_mm = max(n * mm for n, mm in zip(geometry.shape[1:], geometry.spacing_mm[1:], strict=True))
    if side_mm / spacing_mm > MOST_PIXELS_A_SIDE:
        least = side_mm / MOST_PIXELS_A_SIDE
        raise NotAVolume(f"a spacing of {spacing_mm:g} mm is too fine for {side_mm:.0f} mm; take at least {least:.2g}")
    if 2.0 * spacing_mm > side_mm:
        raise NotAVolume(f"a spacing of {spacing_mm:g} mm leaves nothing of pictures of {side_mm:.0f} mm")


def _planes(hu: Hu, pictures: Geometry, span: tuple[int, int]) -> Planes:
    spacing = pictures.spacing_mm[0]
    return Planes(
        hu=hu,
        origins_lps_mm=pictures.to_mm([(frame, 0, 0) for frame in range(*span)]),
        row_direction=pictures.affine[:3, 2] / spacing,
        column_direction=pictures.affine[:3, 1] / spacing,
        pixel_spacing_mm=(spacing, spacing),
        slice_thickness_mm=spacing,
        spacing_between_mm=spacing if pictures.shape[0] > 1 else None,
        orientation="axial",
        kind="isotropic",
    )
