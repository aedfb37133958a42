"""Which instances form one stack, in which order, and what is missing between them?"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from reconstruction.errors import NotAVolume
from reconstruction.geometry import Geometry
from reconstruction.headers import Header

MINIMUM_SLICES = 3
SAME_POSITION_MM = 0.01
SAME_SLICE_SHARE = 0.05
"""Two slices closer than this share of their thickness show the same anatomy."""

LONGEST_PATIENT_MM = 3000.0
WIDEST_IMAGE_MM = 2000.0
"""Beyond these a position or a spacing is a damaged number, and a grid over it would not fit into memory."""

DIRECTION_TOLERANCE = 1e-3
"""Largest difference of a direction cosine within a stack: 0.06 degrees."""

_SPECTRAL_OR_DERIVED = re.compile(
    r"LOCALIZER|MONO|KEV|VMI|VNC|IODINE|WATER|Z_?EFF|DENSITY|MATERIAL|MAT_|DE_|DET_|MPR|MIP|REFORMAT|PROJECTION"
)
"""Image Type values that name an energy, a material or a reformat: such slices never mix with others. Other values
vary slice by slice in real scans (GE writes ADD on some slices of one head)."""

_SCRAMBLED = "every slice names a frame of reference of its own; it is taken as not stated"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stack:
    """Slices that form one volume, ordered along the normal.

    ``geometry`` holds the shear of a tilted gantry; its k step is the mean one where slices are evenly spaced, else
    ``nominal_step_mm``. ``slice_positions_mm`` are distances along the normal from the first slice. ``gaps_mm``:
    neighbour distances that differ from the nominal by more than max(1 %, 0.02 mm), in order of position.
    """

    headers: tuple[Header, ...]
    geometry: Geometry
    slice_positions_mm: tuple[float, ...]
    nominal_step_mm: float
    gaps_mm: tuple[float, ...]
    notes: tuple[str, ...] = ()

    @property
    def even(self) -> bool:
        """Say whether all neighbours are the nominal distance apart."""
        return not self.gaps_mm


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Instances that form no volume, with the reason; ``repeats`` where they only repeat another stack's slices."""

    headers: tuple[Header, ...]
    reason: str
    repeats: bool = False


def stacks_of(headers: Iterable[Header]) -> tuple[Stack | Refused, ...]:
    """Tell the stacks of one series apart and order each; every instance ends in exactly one of them.

    One stack shares frame of reference, orientation, matrix, pixel spacing, kernel, energy or material and temporal
    position; acquisition number or time split only where positions repeat. The order of ``headers`` does not matter.
    Instances whose own place cannot be told are refused apart, so that one damaged header does not hide the others.
    Where every instance names a frame of reference of its own (some de-identifiers do that) none is taken as stated.
    """
    ordered = sorted(headers, key=_order)
    if scrambled := _frames_of_reference_are_scrambled(ordered):
        ordered = [replace(h, frame_of_reference_uid=None) for h in ordered]
    placed, misfits = _placed_and_misfits(ordered)
    results: list[Stack | Refused] = []
    for group in _groups(placed):
        results.extend(_split_repeats(group))
    results.extend(Refused(headers=tuple(members), reason=reason) for reason, members in misfits.items())
    return tuple(_noted(r, _SCRAMBLED) if scrambled and isinstance(r, Stack) else r for r in results)


def stack_of(headers: Sequence[Header]) -> Stack:
    """Order the slices of one stack; raises NotAVolume with the reason where they form none."""
    ordered = tuple(sorted(headers, key=_order))
    _refuse_mixed(ordered)
    row, column = _directions(ordered[0])
    normal = np.cross(row, column)
    origins = np.array([_position(h) for h in ordered])
    along = origins @ normal
    order = np.argsort(along, kind="stable")
    _refuse_too_few(along)
    return _build(tuple(ordered[int(n)] for n in order), origins[order], along[order] - along[order[0]])


def _build(headers: tuple[Header, ...], origins: npt.NDArray[np.float64], along: npt.NDArray[np.float64]) -> Stack:
    distances = np.diff(along)
    if bool((distances < SAME_POSITION_MM).any()):
        raise NotAVolume("several slices lie at the same position")
    nominal, gaps = _nominal_and_gaps(distances)
    axis = (origins[-1] - origins[0]) / along[-1]
    _refuse_scattered(origins, along, axis, headers[0])
    step = _mean_step(distances, nominal) if gaps else float(along[-1]) / len(distances)
    return Stack(
        headers=headers,
        geometry=_geometry(headers, origins[0], axis * step),
        slice_positions_mm=tuple(float(p) for p in along),
        nominal_step_mm=round(step, 6),
        gaps_mm=gaps,
        notes=_gap_notes(nominal, gaps),
    )


def _geometry(headers: tuple[Header, ...], origin: npt.NDArray[np.float64], k: npt.NDArray[np.float64]) -> Geometry:
    first = headers[0]
    row, column = _directions(first)
    between_rows, between_columns = _spacing(first)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = k, column * between_rows, row * between_columns
    affine[:3, 3] = origin
    shape = (len(headers), first.rows, first.columns)
    return Geometry(affine=affine, shape=shape, frame_of_reference_uid=first.frame_of_reference_uid)


def _nominal_and_gaps(distances: npt.NDArray[np.float64]) -> tuple[float, tuple[float, ...]]:
    rounded = [round(float(d), 2) for d in distances]
    counts = Counter(rounded)
    most = max(counts.values())
    nominal = min(value for value, count in counts.items() if count == most)
    tolerance = max(0.01 * nominal, 0.02)
    return nominal, tuple(r for r in rounded if abs(r - nominal) > tolerance + 1e-9)


def _mean_step(distances: npt.NDArray[np.float64], nominal: float) -> float:
    """Average the distances that are the nominal one: rounded to 0.01 mm, 0.625 mm would drift by 2.5 mm in 500."""
    return float(distances[np.abs(distances - nominal) <= 0.005 + 1e-9].mean())


def _gap_notes(nominal: float, gaps: tuple[float, ...]) -> tuple[str, ...]:
    missing = [gap for gap in gaps if gap > 1.5 * nominal and abs(gap / nominal - round(gap / nominal)) < 0.05]
    if len(missing) == len(gaps) and missing and len(missing) <= 3:
        count = sum(round(gap / nominal) - 1 for gap in missing)
        return (f"{count} slice(s) seem to be missing: {len(missing)} gap(s) of a multiple of {nominal:g} mm",)
    if gaps:
        return (f"slices are unevenly spaced: {len(gaps)} of the distances differ from {nominal:g} mm",)
    return ()


def _frames_of_reference_are_scrambled(headers: Sequence[Header]) -> bool:
    named = {h.frame_of_reference_uid for h in headers} - {None}
    return len(named) == len(headers) >= MINIMUM_SLICES


def _noted(stack: Stack, note: str) -> Stack:
    return replace(stack, notes=(*stack.notes, note))


def _order(header: Header) -> tuple[float, float, str, int]:
    """Give one order whatever order the slices came in."""
    number = header.instance_number if header.instance_number is not None else 1 << 40
    acquisition = header.acquisition_number if header.acquisition_number is not None else 1 << 40
    return acquisition, number, header.sop_instance_uid, header.frame or 0


def _placed_and_misfits(headers: Sequence[Header]) -> tuple[list[Header], dict[str, list[Header]]]:
    """Part the slices whose place in the patient is known from those that lack it, by what they lack."""
    placed: list[Header] = []
    misfits: dict[str, list[Header]] = defaultdict(list)
    for header in headers:
        try:
            _refuse_misplaced(header)
        except NotAVolume as error:
            misfits[error.reason].append(header)
        else:
            placed.append(header)
    return placed, misfits


def _refuse_misplaced(header: Header) -> None:
    _directions(header)
    _spacing(header)
    _position(header)


def _groups(headers: Sequence[Header]) -> list[list[Header]]:
    """Group by what must be equal, then by direction within a tolerance (headers carry rounding)."""
    groups: dict[tuple[object, ...], list[list[Header]]] = defaultdict(list)
    for header in headers:
        alike = groups[_identity(header)]
        home = next((g for g in alike if _same_plane(g[0], header)), None)
        if home is None:
            alike.append([header])
        else:
            home.append(header)
    return [group for alike in groups.values() for group in alike]


def _identity(header: Header) -> tuple[object, ...]:
    return (
        header.frame_of_reference_uid,
        header.rows,
        header.columns,
        header.kernel,
        None if header.kvp is None or math.isnan(header.kvp) else header.kvp,
        header.rescale_type,
        header.temporal_position,
        header.stack_id,
        header.frame is None,
        frozenset(value for value in header.image_type if _SPECTRAL_OR_DERIVED.search(value)),
    )


def _same_plane(a: Header, b: Header) -> bool:
    return _close(a.orientation, b.orientation, DIRECTION_TOLERANCE) and _close(
        a.pixel_spacing_mm, b.pixel_spacing_mm, 1e-4
    )


def _close(a: Sequence[float] | None, b: Sequence[float] | None, tolerance: float) -> bool:
    if a is None or b is None:
        return a is b
    return bool(np.allclose(a, b, rtol=0, atol=tolerance, equal_nan=True))


def _split_repeats(group: Sequence[Header]) -> list[Stack | Refused]:
    try:
        stack = stack_of(group)
    except NotAVolume as error:
        passes = _passes(group)
        if len(passes) < 2:
            return [Refused(headers=tuple(group), reason=error.reason)]
        return [_stack_or_refused(part) for part in passes]
    return [_stack_or_refused(part) for part in _interleaved_passes(stack)] or [stack]


def _interleaved_passes(stack: Stack) -> list[list[Header]]:
    """Split passes over one range whose positions miss each other by a hair; [] where there is only one.

    A seam between two rotations may hold one such pair: only where most slices have a twin do positions repeat.
    """
    same = SAME_SLICE_SHARE * (stack.headers[0].slice_thickness_mm or 0.0)
    twins = int((np.diff(stack.slice_positions_mm) < same).sum())
    if 2.0 * twins < 0.8 * (len(stack.headers) - 1):
        return []
    return _by_pass(sorted(stack.headers, key=_order), _places(stack.headers, same))


def _stack_or_refused(part: Sequence[Header]) -> Stack | Refused:
    try:
        return stack_of(part)
    except NotAVolume as error:
        if len(part) < MINIMUM_SLICES:
            reason = f"{len(part)} slice(s) repeat positions of another stack of this series"
            return Refused(headers=tuple(part), reason=reason, repeats=True)
        return Refused(headers=tuple(part), reason=error.reason)


def _passes(group: Sequence[Header]) -> list[list[Header]]:
    """Split slices whose positions repeat: by acquisition, else by time, else by occurrence; [] where none can."""
    places = _places(group, SAME_POSITION_MM)
    if not MINIMUM_SLICES <= len(set(places.values())) < len(group):
        return []
    return _by_pass(group, places) or _by_occurrence(group, places)


def _by_pass(group: Sequence[Header], places: dict[Header, int]) -> list[list[Header]]:
    """Split by acquisition, else by time; [] where neither gives parts that are volumes without a repeated place."""
    for attribute in ("acquisition_number", "acquisition_time"):
        parts = _by(group, attribute)
        if len(parts) > 1 and all(len({places[h] for h in p}) == len(p) >= MINIMUM_SLICES for p in parts):
            return parts
    return []


def _by(group: Sequence[Header], attribute: str) -> list[list[Header]]:
    parts: dict[object, list[Header]] = defaultdict(list)
    for header in group:
        parts[getattr(header, attribute)].append(header)
    return list(parts.values())


def _by_occurrence(group: Sequence[Header], places: dict[Header, int]) -> list[list[Header]]:
    seen: Counter[int] = Counter()
    parts: dict[int, list[Header]] = defaultdict(list)
    for header in group:
        place = places[header]
        parts[seen[place]].append(header)
        seen[place] += 1
    return list(parts.values())


def _places(group: Sequence[Header], within_mm: float) -> dict[Header, int]:
    """Number the slice planes along the normal; neighbours closer than ``within_mm`` share one."""
    normal = np.cross(*_directions(group[0]))
    along = {header: float(normal @ _position(header)) for header in group}
    ordered = sorted(group, key=along.__getitem__)
    steps = np.diff([along[header] for header in ordered], prepend=along[ordered[0]])
    return dict(zip(ordered, np.cumsum(steps >= within_mm).tolist(), strict=True))


def _position(header: Header) -> npt.NDArray[np.float64]:
    if header.position_mm is None:
        raise NotAVolume("a slice has no Image Position (Patient)")
    position = np.array(header.position_mm)
    if not np.isfinite(position).all():
        raise NotAVolume("a slice's Image Position (Patient) holds values that are no numbers")
    return position


def _directions(header: Header) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    if header.orientation is None:
        raise NotAVolume("a slice has no Image Orientation (Patient)")
    row, column = np.array(header.orientation[:3]), np.array(header.orientation[3:])
    unit = all(abs(float(np.linalg.norm(v)) - 1) < 5e-3 for v in (row, column))
    if not unit or abs(float(row @ column)) > 5e-3:
        raise NotAVolume("the Image Orientation (Patient) is no rotation")
    row /= np.linalg.norm(row)
    column -= row * float(row @ column)
    return row, column / np.linalg.norm(column)


def _spacing(header: Header) -> tuple[float, float]:
    spacing = header.pixel_spacing_mm
    if spacing is None:
        raise NotAVolume("a slice has no Pixel Spacing")
    if not all(np.isfinite(s) and s > 0 for s in spacing):
        raise NotAVolume(f"a Pixel Spacing of {spacing[0]:g} x {spacing[1]:g} mm is none")
    if max(header.rows * spacing[0], header.columns * spacing[1]) > WIDEST_IMAGE_MM:
        raise NotAVolume(f"a Pixel Spacing of {spacing[0]:g} x {spacing[1]:g} mm is too wide for a patient")
    return spacing


def _refuse_mixed(headers: tuple[Header, ...]) -> None:
    if len(headers) < MINIMUM_SLICES:
        raise NotAVolume(f"{len(headers)} slice(s): fewer than {MINIMUM_SLICES} are no volume")
    first = headers[0]
    if any((h.rows, h.columns) != (first.rows, first.columns) for h in headers):
        raise NotAVolume("slices of different matrix sizes")
    if any(h.frame_of_reference_uid != first.frame_of_reference_uid for h in headers):
        raise NotAVolume("slices of different frames of reference")
    for header in headers:
        _directions(header)
        _spacing(header)
        if not _same_plane(first, header):
            raise NotAVolume("slices of different orientation or pixel spacing")


def _refuse_too_few(along: npt.NDArray[np.float64]) -> None:
    distinct = 1 + int((np.diff(np.sort(along)) >= SAME_POSITION_MM).sum())
    if distinct == 1:
        raise NotAVolume(f"all {len(along)} slices lie at the same position")
    if distinct < MINIMUM_SLICES:
        raise NotAVolume(f"only {distinct} slice positions: fewer than {MINIMUM_SLICES} are no volume")
    if float(np.ptp(along)) > LONGEST_PATIENT_MM:
        raise NotAVolume(f"slices lie up to {float(np.ptp(along)):.0f} mm apart; no patient is that long")


def _refuse_scattered(
    origins: npt.NDArray[np.float64], along: npt.NDArray[np.float64], axis: npt.NDArray[np.float64], first: Header
) -> None:
    """Slices of one gantry pass lie along one line; half a pixel is left for rounding."""
    apart = np.linalg.norm(origins - (origins[0] + along[:, None] * axis), axis=1)
    if float(apart.max()) > max(0.5 * min(_spacing(first)), 0.2):
        raise NotAVolume(f"slices are shifted sideways against each other, by up to {float(apart.max()):.1f} mm")
