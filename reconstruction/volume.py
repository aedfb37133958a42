"""What is at each voxel: Hounsfield units, or belonging to a region."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from reconstruction.errors import NotAVolume
from reconstruction.geometry import Geometry

Hu = npt.NDArray[np.int16]
Bits = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Volume:
    """CT numbers on a grid: int16 Hounsfield units, axes kji. ``hu`` is made read-only."""

    hu: Hu
    geometry: Geometry

    def __post_init__(self) -> None:
        if self.hu.shape != self.geometry.shape:
            raise NotAVolume(f"pixels of shape {self.hu.shape} on a grid of {self.geometry.shape}")
        if self.hu.dtype != np.int16:
            raise NotAVolume(f"Hounsfield units are int16 here, not {self.hu.dtype}")
        self.hu.flags.writeable = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedBits:
    """What belongs to a region of a whole grid (kji), eight voxels a byte: as bools it takes half of a volume's room.

    ``packed`` is (slices, rows, bytes), as numpy packs along a row of ``columns`` voxels.
    """

    packed: npt.NDArray[np.uint8]
    columns: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return the grid's shape."""
        slices, rows, _ = self.packed.shape
        return slices, rows, self.columns

    def slices(self, first: int = 0, end: int | None = None) -> Bits:
        """Return the slices ``first`` up to ``end`` (None: to the last) as bools, made anew."""
        return np.unpackbits(self.packed[first:end], axis=-1, count=self.columns).view(np.bool_)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mask:
    """A region of a volume: a cropped bool array, where it starts in the volume's grid, and that whole grid.

    ``bits[k, j, i]`` belongs to voxel ``origin_kji + (k, j, i)`` of ``geometry``.
    """

    bits: Bits
    origin_kji: tuple[int, int, int]
    geometry: Geometry

    def __post_init__(self) -> None:
        ends = tuple(o + n for o, n in zip(self.origin_kji, self.bits.shape, strict=True))
        if min(self.origin_kji) < 0 or any(e > n for e, n in zip(ends, self.geometry.shape, strict=True)):
            raise NotAVolume("a mask reaches beyond its volume")
        self.bits.flags.writeable = False

    @classmethod
    def cropped_from(cls, full: Bits, geometry: Geometry) -> Self:
        """Crop a full-grid bool array to the box that holds its voxels; raises NotAVolume where it holds none."""
        if full.shape != geometry.shape:
            raise NotAVolume(f"a region of shape {full.shape} on a grid of {geometry.shape}")
        if not full.any():
            raise NotAVolume("an empty mask is no region")
        spans = [np.flatnonzero(full.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
        low = (int(spans[0][0]), int(spans[1][0]), int(spans[2][0]))
        box = tuple(slice(int(s[0]), int(s[-1]) + 1) for s in spans)
        return cls(bits=np.ascontiguousarray(full[box]), origin_kji=low, geometry=geometry)

    @property
    def voxel_count(self) -> int:
        """Number of voxels in the region."""
        return int(np.count_nonzero(self.bits))

    def full(self) -> Bits:
        """Return the region on the whole grid."""
        full = np.zeros(self.geometry.shape, dtype=np.bool_)
        k, j, i = self.origin_kji
        n, m, p = self.bits.shape
        full[k : k + n, j : j + m, i : i + p] = self.bits
        return full
