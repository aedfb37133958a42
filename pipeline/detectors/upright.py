"""How does a volume look with its axes turned to superior, posterior and left, at about one millimetre?"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from reconstruction.geometry import Geometry
from reconstruction.volume import Bits, Hu, Mask

Floats = npt.NDArray[np.float32]
Spacing = tuple[float, float, float]
Box = tuple[slice, slice, slice]

SLAB_VOXELS = 1 << 23
"""So many voxels of a volume are averaged at a time: a whole body in floats would be twice as large as it came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """The permutation and flips that take kji to axes nearest superior, posterior and left (never a resampling)."""

    order: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    @classmethod
    def of(cls, geometry: Geometry) -> Self:
        """Find the turn for a grid, from its affine alone."""
        unit = geometry.affine[:3, :3] / np.linalg.norm(geometry.affine[:3, :3], axis=0)
        best = max(_PERMUTATIONS, key=lambda order: sum(abs(float(unit[2 - n, a])) for n, a in enumerate(order)))
        flips = tuple(bool(unit[2 - n, a] < 0) for n, a in enumerate(best))
        return cls(order=best, flips=(flips[0], flips[1], flips[2]))

    def apply(self, kji: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """View a kji array upright."""
        return kji.transpose(self.order)[self._steps()]

    def undo(self, upright: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """View an upright array as kji."""
        return upright[self._steps()].transpose(tuple(int(n) for n in np.argsort(self.order)))

    def mask(self, bits: Bits, origin: tuple[int, int, int], geometry: Geometry) -> Mask:
        """Return the region of ``geometry`` whose upright voxels from ``origin`` on are ``bits``; at least one is."""
        box = box_of(bits)
        part = bits[box]
        start = [0, 0, 0]
        for axis, flip, first, side, count in zip(self.order, self.flips, origin, box, part.shape, strict=True):
            low = first + side.start
            start[axis] = geometry.shape[axis] - low - count if flip else low
        return Mask(
            bits=np.ascontiguousarray(self.undo(part)), origin_kji=(start[0], start[1], start[2]), geometry=geometry
        )

    def spacing_mm(self, geometry: Geometry) -> Spacing:
        """Spacing along superior, posterior and left."""
        along = geometry.spacing_mm
        return along[self.order[0]], along[self.order[1]], along[self.order[2]]

    def _steps(self) -> tuple[slice, slice, slice]:
        first, second, third = (slice(None, None, -1 if flip else 1) for flip in self.flips)
        return first, second, third


_PERMUTATIONS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Upright:
    """Hounsfield units averaged over blocks of voxels, axes superior, posterior, left; spacing about that asked for.

    ``factors`` says how many voxels of the turned grid make one of these along each axis, ``origin`` where its first
    voxel lies among all such blocks. ``slice_mm`` is how thick a slice truly is along superior: a grid finer than the
    slices it was made from sees no more than they did.
    """

    hu: Floats
    spacing_mm: Spacing
    factors: tuple[int, int, int]
    turn: Turn
    geometry: Geometry
    origin: tuple[int, int, int] = (0, 0, 0)
    slice_mm: float = 0.0

    @property
    def voxel_ml(self) -> float:
        """Volume of one averaged voxel in millilitres."""
        return float(np.prod(self.spacing_mm)) / 1000.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Standing:
    """A volume turned upright whose blocks of voxels are averaged where they are asked for; see ``Upright``."""

    turned: Hu
    spacing_mm: Spacing
    factors: tuple[int, int, int]
    turn: Turn
    geometry: Geometry
    slice_mm: float

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of whole blocks along each axis."""
        first, second, third = _whole(self.turned, self.factors)
        return first, second, third

    @property
    def hu(self) -> Floats:
        """Average all blocks."""
        return block_mean(self.turned, self.factors)

    def part(self, box: Box) -> Upright:
        """Average the blocks of ``box`` (whole numbers, within ``shape``)."""
        first, second, third = (int(side.start) for side in box)
        return Upright(
            hu=block_mean(self.turned[finer(box, self.factors)], self.factors),
            spacing_mm=self.spacing_mm,
            factors=self.factors,
            turn=self.turn,
            geometry=self.geometry,
            origin=(first, second, third),
            slice_mm=self.slice_mm,
        )

    def slabs(self, multiple: int) -> Iterator[tuple[int, Floats]]:
        """Yield all blocks from the feet up, some layers at a time, and which is the first.

        All but the last have a multiple of ``multiple`` layers, and there is none with fewer.
        """
        layers, rows, columns = self.shape
        voxels = multiple * int(np.prod(self.factors)) * rows * columns
        each = multiple * max(1, SLAB_VOXELS // max(1, voxels))
        starts = list(range(0, max(1, layers // multiple) * multiple, each))
        for start, end in zip(starts, [*starts[1:], layers], strict=True):
            box = (slice(start, end), slice(0, rows), slice(0, columns))
            yield start, block_mean(self.turned[finer(box, self.factors)], self.factors)


def stand_upright(hu: Hu, geometry: Geometry, *, thickness_mm: float | None = None, about_mm: float = 1.0) -> Standing:
    """Turn a volume upright, to be averaged over whole blocks of voxels to a spacing of about ``about_mm``.

    ``thickness_mm`` is that of the slices as acquired, where it is known.
    """
    turn = Turn.of(geometry)
    spacing = turn.spacing_mm(geometry)
    turned = turn.apply(hu)
    wanted = [max(1, round(about_mm / mm)) for mm in spacing]
    first, second, third = (min(f, n) for f, n in zip(wanted, turned.shape, strict=True))
    coarse = (spacing[0] * first, spacing[1] * second, spacing[2] * third)
    return Standing(
        turned=turned,
        spacing_mm=coarse,
        factors=(first, second, third),
        turn=turn,
        geometry=geometry,
        slice_mm=max(coarse[0], thickness_mm or 0.0),
    )


def box_of(bits: Bits) -> Box:
    """Return the smallest box that holds all of a region; there must be one."""
    spans = [np.flatnonzero(bits.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    first, second, third = (slice(int(span[0]), int(span[-1]) + 1) for span in spans)
    return first, second, third


def wider(box: Box, reach: tuple[int, int, int], shape: tuple[int, ...]) -> Box:
    """Widen a box by so many voxels on all sides, within ``shape``."""
    ends = zip(box, reach, shape, strict=True)
    first, second, third = (slice(max(0, s.start - r), min(n, s.stop + r)) for s, r, n in ends)
    return first, second, third


def finer(box: Box, factors: tuple[int, int, int]) -> Box:
    """Return the voxels that the blocks of a box are made of."""
    first, second, third = (slice(s.start * f, s.stop * f) for s, f in zip(box, factors, strict=True))
    return first, second, third


def block_mean(values: npt.NDArray[Any], factors: tuple[int, int, int]) -> Floats:
    """Average blocks of ``factors`` voxels; an incomplete last block is left out."""
    total = np.zeros(_whole(values, factors), dtype=np.float32)
    for start in product(*(range(f) for f in factors)):
        total += _every(values, start, factors)
    total /= np.float32(np.prod(factors))
    return total


def block_any(bits: Bits, factors: tuple[int, int, int]) -> Bits:
    """Say where a block holds any voxel."""
    found = np.zeros(_whole(bits, factors), dtype=np.bool_)
    for start in product(*(range(f) for f in factors)):
        found |= _every(bits, start, factors)
    return found


def thickened(bits: Bits, reach_mm: float, spacing_mm: Spacing) -> Bits:
    """Widen a region by boxes of half side ``reach_mm``: quicker than by balls."""
    sides = [2 * int(reach_mm / mm) + 1 for mm in spacing_mm]
    return np.asarray(ndimage.maximum_filter(bits, size=sides), dtype=np.bool_)


def spread(bits: npt.NDArray[Any], factors: tuple[int, int, int], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Repeat each voxel over its block and fill up to ``shape`` with zeros: the way back from blocks."""
    for axis, factor in enumerate(factors):
        bits = np.repeat(bits, factor, axis=axis) if factor > 1 else bits
    return np.pad(bits, [(0, max(0, n - m)) for n, m in zip(shape, bits.shape, strict=True)])[
        tuple(slice(0, n) for n in shape)
    ]


def _whole(values: npt.NDArray[Any], factors: tuple[int, int, int]) -> tuple[int, ...]:
    return tuple(n // f for n, f in zip(values.shape, factors, strict=True))


def _every(values: npt.NDArray[Any], start: tuple[int, ...], factors: tuple[int, int, int]) -> npt.NDArray[Any]:
    whole = _whole(values, factors)
    return values[tuple(slice(s, n * f, f) for s, n, f in zip(start, whole, factors, strict=True))]
