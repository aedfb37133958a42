"""How does a volume look with its axes turned to superior, posterior and left, at about one millimetre?"""

from dataclasses import dataclass
from itertools import product
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from reconstruction.geometry import Geometry
from reconstruction.volume import Bits, Hu

Floats = npt.NDArray[np.float32]
Spacing = tuple[float, float, float]
Box = tuple[slice, slice, slice]


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
    """Hounsfield units averaged over blocks of voxels, axes superior, posterior, left; spacing at least ``at_least``.

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


def stand_upright(hu: Hu, geometry: Geometry, *, thickness_mm: float | None = None, about_mm: float = 1.0) -> Upright:
    """Turn a volume upright and average whole blocks of voxels to a spacing of about ``about_mm``.

    ``thickness_mm`` is that of the slices as acquired, where it is known.
    """
    turn = Turn.of(geometry)
    spacing = turn.spacing_mm(geometry)
    turned = turn.apply(hu)
    wanted = [max(1, round(about_mm / mm)) for mm in spacing]
    first, second, third = (min(f, n) for f, n in zip(wanted, turned.shape, strict=True))
    factors = (first, second, third)
    coarse = (spacing[0] * first, spacing[1] * second, spacing[2] * third)
    return Upright(
        hu=block_mean(turned, factors),
        spacing_mm=coarse,
        factors=factors,
        turn=turn,
        geometry=geometry,
        slice_mm=max(coarse[0], thickness_mm or 0.0),
    )


def block_mean(values: npt.NDArray[Any], factors: tuple[int, int, int]) -> Floats:
    """Average blocks of ``factors`` voxels; an incomplete last block is left out."""
    total = np.zeros(_whole(values, factors), dtype=np.float32)
    for start in product(*(range(f) for f in factors)):
        total += _every(values, start, factors)
    return total / np.float32(np.prod(factors))


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
