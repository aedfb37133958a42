"""Where does each slice of a series lie, as arrays, and which of them cannot be placed?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from reconstruction.errors import NotAVolume
from reconstruction.geometry import Points
from reconstruction.headers import Header

MINIMUM_SLICES = 3
MOST_ROWS_COLUMNS = 8192
WIDEST_IMAGE_MM = 2000.0
FARTHEST_MM = 10_000.0
"""Beyond these a spacing or a coordinate is a damaged number, and a grid over it would not fit into memory."""

DIRECTION_TOLERANCE = 1e-3
"""Largest difference of a direction cosine within a stack: 0.06 degrees."""

SPACING_TOLERANCE_MM = 1e-4
_ROTATION_TOLERANCE = 5e-3

_UNLIKE = np.array([1.0, 0.83, 0.61, 0.47, 0.29, 0.13])
"""Weights that tell directions apart by one number: directions that are alike have numbers that are."""

_NO_DIRECTIONS, _NO_PLACE, _NO_SPACING = (np.nan,) * 6, (np.nan,) * 3, (np.nan,) * 2

Which = npt.NDArray[np.intp]
Bits = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Placed:
    """Slices and, row by row, where their headers put them; NaN where a header says nothing.

    ``origins`` (n, 3): the centre of the first pixel, LPS mm. ``orientations`` (n, 6): row direction, then column
    direction. ``spacings`` (n, 2): mm between rows, between columns. ``frames``: the frame of reference of each, None
    where it is not stated or not to be believed.
    """

    headers: tuple[Header, ...]
    frames: tuple[str | None, ...]
    origins: Points
    orientations: Points
    spacings: Points

    @classmethod
    def of(cls, headers: Sequence[Header]) -> Self:
        """Collect what the headers say; frames of reference that differ in every slice are none."""
        frames = tuple(h.frame_of_reference_uid for h in headers)
        frames = (None,) * len(frames) if are_scrambled(frames) else frames
        origins = np.array([h.position_mm or _NO_PLACE for h in headers], dtype=np.float64).reshape(-1, 3)
        orientations = np.array([h.orientation or _NO_DIRECTIONS for h in headers], dtype=np.float64).reshape(-1, 6)
        spacings = np.array([h.pixel_spacing_mm or _NO_SPACING for h in headers], dtype=np.float64).reshape(-1, 2)
        return cls(headers=tuple(headers), frames=frames, origins=origins, orientations=orientations, spacings=spacings)

    def take(self, which: Which | Sequence[int]) -> Self:
        """Return the slices at these indices, in that order."""
        index = np.asarray(which, dtype=np.intp)
        return type(self)(
            headers=tuple(self.headers[n] for n in index.tolist()),
            frames=tuple(self.frames[n] for n in index.tolist()),
            origins=self.origins[index],
            orientations=self.orientations[index],
            spacings=self.spacings[index],
        )

    def same_plane(self, as_of: int, which: Which) -> Bits:
        """Say which slices share the orientation and pixel spacing of one (headers carry rounding)."""
        turned = np.abs(self.orientations[which] - self.orientations[as_of]).max(axis=1) <= DIRECTION_TOLERANCE
        spaced = np.abs(self.spacings[which] - self.spacings[as_of]).max(axis=1) <= SPACING_TOLERANCE_MM
        return np.asarray(turned & spaced)

    def planes(self) -> list[Which]:
        """Part the slices by plane, each with the first that it is like; who is like whom is looked for nearby only."""
        key = self.orientations @ _UNLIKE
        order = np.argsort(key, kind="stable")
        reach = DIRECTION_TOLERANCE * float(_UNLIKE.sum()) * 1.01
        low, high = (np.searchsorted(key[order], key + side).tolist() for side in (-reach, reach))
        homeless = np.ones(len(key), dtype=np.bool_)
        homes: list[Which] = []
        for n in range(len(key)):
            if homeless[n]:
                near = order[low[n] : high[n]]
                near = near[homeless[near]]
                near = np.sort(near[self.same_plane(n, near)])
                homeless[near] = False
                homes.append(near)
        return homes

    def along_mm(self) -> Points:
        """Return each slice's place along the normal of the first, in mm from the origin."""
        return np.asarray(self.origins @ np.cross(*directions(self.headers[0])))


def are_scrambled(frames: Sequence[str | None]) -> bool:
    """Say whether every slice names a frame of reference of its own: some de-identifiers do that."""
    return len(set(frames) - {None}) == len(frames) >= MINIMUM_SLICES


def directions(header: Header) -> tuple[Points, Points]:
    """Return a slice's row and column direction, made orthogonal unit vectors; raises NotAVolume."""
    if (orientation := header.orientation) is None or not _is_rotation(np.array([orientation]))[0]:
        raise NotAVolume(_fault_of_orientation(header))
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    row /= np.linalg.norm(row)
    column -= row * float(row @ column)
    return row, column / np.linalg.norm(column)


def faults(slices: Placed) -> dict[int, str]:
    """Name, by index, what keeps a slice from having a place in the patient."""
    with np.errstate(all="ignore"):
        turned = _is_rotation(slices.orientations)
        spaced, sited = _is_spacing(slices), (np.abs(slices.origins) <= FARTHEST_MM).all(axis=1)
    return {
        n: _fault(slices.headers[n], bool(turned[n]), bool(spaced[n])) for n in _indices(~(turned & spaced & sited))
    }


def _indices(bits: Bits) -> list[int]:
    return [int(n) for n in np.flatnonzero(bits)]


def _is_rotation(orientations: Points) -> Bits:
    with np.errstate(all="ignore"):
        rows, columns = orientations[:, :3], orientations[:, 3:]
        lengths = np.sqrt(np.stack([(rows**2).sum(axis=1), (columns**2).sum(axis=1)]))
        unit = (np.abs(lengths - 1) < _ROTATION_TOLERANCE).all(axis=0)
        return np.asarray(unit & (np.abs((rows * columns).sum(axis=1)) <= _ROTATION_TOLERANCE))


def _is_spacing(slices: Placed) -> Bits:
    matrix = np.array([(h.rows, h.columns) for h in slices.headers]).reshape(-1, 2)
    sides = (slices.spacings * matrix).max(axis=1)
    return np.asarray((slices.spacings > 0).all(axis=1) & (sides <= WIDEST_IMAGE_MM))


def _fault(header: Header, turned: bool, spaced: bool) -> str:  # noqa: FBT001 - what was found, not a mode
    if not turned:
        return _fault_of_orientation(header)
    return _fault_of_position(header) if spaced else _fault_of_spacing(header)


def _fault_of_orientation(header: Header) -> str:
    if header.orientation is None:
        return "a slice has no Image Orientation (Patient)"
    return "the Image Orientation (Patient) is no rotation"


def _fault_of_spacing(header: Header) -> str:
    spacing = header.pixel_spacing_mm
    if spacing is None:
        return "a slice has no Pixel Spacing"
    stated = f"a Pixel Spacing of {spacing[0]:g} x {spacing[1]:g} mm"
    if not all(np.isfinite(s) and s > 0 for s in spacing):
        return f"{stated} is none"
    if max(header.rows, header.columns) > MOST_ROWS_COLUMNS:
        return f"{header.rows}x{header.columns} pixels announced; no CT image is that large"
    return f"{stated} is too wide for a patient"


def _fault_of_position(header: Header) -> str:
    if header.position_mm is None:
        return "a slice has no Image Position (Patient)"
    if not np.isfinite(header.position_mm).all():
        return "a slice's Image Position (Patient) holds values that are no numbers"
    return f"a slice's Image Position (Patient) lies more than {FARTHEST_MM / 1000:.0f} m from the origin"
