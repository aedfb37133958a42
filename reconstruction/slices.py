"""Which instances form one stack, in which order, and what is missing between them?"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from reconstruction.contradictions import contradictions
from reconstruction.errors import NotAVolume
from reconstruction.geometry import Geometry, Points
from reconstruction.headers import Header
from reconstruction.placing import MINIMUM_SLICES, Placed, Which, directions, faults

SAME_POSITION_MM = 0.01
SAME_SLICE_SHARE = 0.05
"""Two slices closer than this share of their thickness show the same anatomy."""

LONGEST_PATIENT_MM = 3000.0
"""Beyond this a position is a damaged number, and a grid over it would not fit into memory."""

ON_THE_LINE_SHARE = 0.8
"""Where at least this share of the slices lies on one line, those beside it are damaged, not the stack."""

_SPECTRAL_OR_DERIVED = re.compile(
    r"LOCALIZER|MONO|KEV|VMI|VNC|IODINE|WATER|Z_?EFF|DENSITY|MATERIAL|MAT_|DE_|DET_|MPR|MIP|REFORMAT|PROJECTION"
)
"""Image Type values that name an energy, a material or a reformat: such slices never mix with others. Other values
vary slice by slice in real scans (GE writes ADD on some slices of one head)."""

_SCRAMBLED = "every slice names a frame of reference of its own; it is taken as not stated"
_MIXED = "slices of different orientation or pixel spacing"


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
        """Say whether the geometry puts every slice where it is: no gap, and no drift of the small differences."""
        return not self.gaps_mm and _drift_mm(np.array(self.slice_positions_mm)) <= _tolerance_mm(self.nominal_step_mm)


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
    Where every instance names a frame of reference of its own (some de-identifiers do that) none is taken as stated;
    where a few name none and the rest share one, it is theirs too (PS3.3 C.7.4.1.1.1: a series has a single one).
    """
    slices = Placed.of(sorted(headers, key=_order))
    damaged = faults(slices)
    misfits: dict[str, list[Header]] = defaultdict(list)
    for n, reason in damaged.items():
        misfits[reason].append(slices.headers[n])
    usable = slices.take([n for n in range(len(slices.headers)) if n not in damaged]) if damaged else slices
    results = [result for group in _groups(usable) for result in _split_repeats(group)]
    results.extend(Refused(headers=tuple(members), reason=reason) for reason, members in misfits.items())
    return tuple(results)


def stack_of(headers: Sequence[Header]) -> Stack:
    """Order the slices of one stack; raises NotAVolume with the reason where they form none."""
    return _stack(Placed.of(sorted(headers, key=_order)))


def _stack(slices: Placed) -> Stack:
    _refuse_mixed(slices)
    along = slices.along_mm()
    order = np.argsort(along, kind="stable")
    _refuse_too_few(along)
    return _build(slices.take(order), along[order] - along[order[0]])


def _build(slices: Placed, along: Points) -> Stack:
    distances, origins = np.diff(along), slices.origins
    if bool((distances < SAME_POSITION_MM).any()):
        raise NotAVolume("several slices lie at the same position")
    nominal, gaps = _nominal_and_gaps(distances)
    axis = (origins[-1] - origins[0]) / along[-1]
    _refuse_scattered(slices, along, axis)
    step = _mean_step(distances, nominal) if gaps else float(along[-1]) / len(distances)
    notes = _gap_notes(nominal, gaps) or _drift_notes(along, step)
    headers, frame_notes = _with_frame(slices)
    geometry = _geometry(slices, axis * step)
    steps = along / geometry.slice_step_mm if notes else np.arange(len(along), dtype=np.float64)
    return Stack(
        headers=headers,
        geometry=geometry,
        slice_positions_mm=tuple(along.tolist()),
        nominal_step_mm=round(step, 6),
        gaps_mm=gaps,
        notes=(*notes, *frame_notes, *contradictions(slices, geometry, steps)),
    )


def _with_frame(slices: Placed) -> tuple[tuple[Header, ...], tuple[str, ...]]:
    """Give slices that name no frame of reference the one that was settled, and say what was settled."""
    settled = slices.frames[0]
    if settled is None:
        scrambled = slices.headers[0].frame_of_reference_uid is not None
        return slices.headers, (_SCRAMBLED,) if scrambled else ()
    nameless = sum(h.frame_of_reference_uid is None for h in slices.headers)
    if not nameless:
        return slices.headers, ()
    named = (h if h.frame_of_reference_uid else replace(h, frame_of_reference_uid=settled) for h in slices.headers)
    return tuple(named), (f"{nameless} slice(s) name no frame of reference; the one of the series is taken",)


def _geometry(slices: Placed, k: Points) -> Geometry:
    first = slices.headers[0]
    row, column = directions(first)
    between_rows, between_columns = slices.spacings[0]
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = k, column * between_rows, row * between_columns
    affine[:3, 3] = slices.origins[0]
    shape = (len(slices.headers), first.rows, first.columns)
    return Geometry(affine=affine, shape=shape, frame_of_reference_uid=slices.frames[0])


def _nominal_and_gaps(distances: Points) -> tuple[float, tuple[float, ...]]:
    rounded = [round(d, 2) for d in distances.tolist()]
    counts = Counter(rounded)
    most = max(counts.values())
    nominal = min(value for value, count in counts.items() if count == most)
    tolerance = _tolerance_mm(nominal)
    return nominal, tuple(r for r in rounded if abs(r - nominal) > tolerance + 1e-9)


def _tolerance_mm(step_mm: float) -> float:
    return max(0.01 * step_mm, 0.02)


def _mean_step(distances: Points, nominal: float) -> float:
    """Average the distances that are the nominal one: rounded to 0.01 mm, 0.625 mm would drift by 2.5 mm in 500."""
    return float(distances[np.abs(distances - nominal) <= 0.005 + 1e-9].mean())


def _drift_mm(positions: Points) -> float:
    """How far a slice lies from where an even grid from the first to the last slice would put it."""
    even = np.linspace(0.0, positions[-1], len(positions))
    return float(np.abs(positions - even).max())


def _gap_notes(nominal: float, gaps: tuple[float, ...]) -> tuple[str, ...]:
    missing = [gap for gap in gaps if gap > 1.5 * nominal and abs(gap / nominal - round(gap / nominal)) < 0.05]
    if len(missing) == len(gaps) and missing and len(missing) <= 3:
        count = sum(round(gap / nominal) - 1 for gap in missing)
        return (f"{count} slice(s) seem to be missing: {len(missing)} gap(s) of a multiple of {nominal:g} mm",)
    if gaps:
        return (f"slices are unevenly spaced: {len(gaps)} of the distances differ from {nominal:g} mm",)
    return ()


def _drift_notes(positions: Points, step: float) -> tuple[str, ...]:
    drift = _drift_mm(positions)
    if drift <= _tolerance_mm(step):
        return ()
    return (f"small differences of the slice distances add up to {drift:.2f} mm",)


def _order(header: Header) -> tuple[int, int, str, int]:
    """Give one order whatever order the slices came in."""
    number = header.instance_number if header.instance_number is not None else 1 << 40
    acquisition = header.acquisition_number if header.acquisition_number is not None else 1 << 40
    return acquisition, number, header.sop_instance_uid, header.frame or 0


def _groups(slices: Placed) -> Iterator[Placed]:
    """Group by what must be equal, then by direction within a tolerance (headers carry rounding)."""
    one_frame = len(set(slices.frames) - {None}) == 1
    alike: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for n, header in enumerate(slices.headers):
        alike[(None if one_frame else slices.frames[n], *_identity(header))].append(n)
    for members in alike.values():
        for group in _by_plane(slices.take(members)):
            yield from _by_frame(group) if one_frame else (group,)


def _identity(header: Header) -> tuple[object, ...]:
    return (
        header.rows,
        header.columns,
        header.kernel,
        None if header.kvp is None or math.isnan(header.kvp) else header.kvp,
        header.rescale_type,
        header.temporal_position,
        header.stack_id,
        header.frame is None,
        _kinds(header.image_type),
    )


@lru_cache(maxsize=1024)
def _kinds(image_type: tuple[str, ...]) -> frozenset[str]:
    return frozenset(value for value in image_type if _SPECTRAL_OR_DERIVED.search(value))


def _by_plane(slices: Placed) -> list[Placed]:
    """Part the slices by their planes; where no plane has enough of them for a stack, they are left together."""
    homes = slices.planes()
    if len(slices.headers) >= MINIMUM_SLICES > max(len(home) for home in homes):
        return [slices]
    return [slices.take(home) for home in homes]


def _by_frame(group: Placed) -> list[Placed]:
    """Join the few slices that name no frame of reference with the rest where they fill places of their own.

    A series has a single frame of reference (PS3.3 C.7.4.1.1.1); a second pass over the same places stays apart.
    """
    named = np.array([frame is not None for frame in group.frames])
    if named.all() or not named.any():
        return [group]
    joined = replace(group, frames=(group.frames[int(np.argmax(named))],) * len(named))
    if named.sum() > len(named) / 2 and len(set(_places(joined, SAME_POSITION_MM).tolist())) == len(named):
        return [joined]
    parts = [np.flatnonzero(named), np.flatnonzero(~named)]
    return [group.take(part) for part in sorted(parts, key=lambda part: int(part[0]))]


def _split_repeats(group: Placed) -> list[Stack | Refused]:
    try:
        stack = _stack(group)
    except NotAVolume as error:
        return _parted(group, error.reason)
    return [_stack_or_refused(part) for part in _interleaved_passes(group, stack)] or [stack]


def _parted(group: Placed, reason: str) -> list[Stack | Refused]:
    """Make what can be made of slices that are no stack together, for a reason."""
    refused = Refused(headers=group.headers, reason=reason)
    if reason == _MIXED or len(group.headers) < MINIMUM_SLICES:
        return [refused]
    passes = _passes(group)
    if len(passes) > 1:
        return [_stack_or_refused(part) for part in passes]
    return _without_strays(group) or [refused]


def _without_strays(group: Placed) -> list[Stack | Refused]:
    """Set the few slices apart whose positions lead away from where the others lie; [] where they are no few."""
    away = _away_mm(group)
    stray = away > _sideways_mm(group)
    if not 0 < int(stray.sum()) <= (1 - ON_THE_LINE_SHARE) * len(stray):
        return []
    rest = _stack_or_refused(group.take(np.flatnonzero(~stray)))
    strays = tuple(h for h, is_stray in zip(group.headers, stray.tolist(), strict=True) if is_stray)
    reason = f"{len(strays)} slice(s) lie away from the line of the others, by up to {float(away[stray].max()):.1f} mm"
    return [rest, Refused(headers=strays, reason=reason)] if isinstance(rest, Stack) else []


def _away_mm(group: Placed) -> Points:
    """How far each slice lies from the line on which most lie, or beyond the longest patient round its middle."""
    along = group.along_mm()
    order = np.argsort(along, kind="stable")
    half = len(order) // 2
    low, high = order[:-half], order[half:]
    far = along[high] - along[low] >= SAME_POSITION_MM
    if not far.any():
        return np.zeros(len(order))
    slopes = (group.origins[high] - group.origins[low])[far] / (along[high] - along[low])[far, None]
    beside = group.origins - along[:, None] * np.median(slopes, axis=0)
    sideways = np.linalg.norm(beside - np.median(beside, axis=0), axis=1)
    from_middle = np.abs(along - np.median(along))
    return np.asarray(np.where(from_middle > LONGEST_PATIENT_MM, np.maximum(from_middle, sideways), sideways))


def _interleaved_passes(group: Placed, stack: Stack) -> list[Placed]:
    """Split passes over one range whose positions miss each other by a hair; [] where there is only one.

    A seam between two rotations may hold one such pair: only where most slices have a twin do positions repeat.
    """
    same = SAME_SLICE_SHARE * (stack.headers[0].slice_thickness_mm or 0.0)
    twins = int((np.diff(stack.slice_positions_mm) < same).sum())
    if 2.0 * twins < 0.8 * (len(stack.headers) - 1):
        return []
    return _by_pass(group, _places(group, same))


def _stack_or_refused(part: Placed) -> Stack | Refused:
    try:
        return _stack(part)
    except NotAVolume as error:
        if (count := len(part.headers)) < MINIMUM_SLICES:
            reason = f"{count} slice(s) repeat positions of another stack of this series"
            return Refused(headers=part.headers, reason=reason, repeats=True)
        return Refused(headers=part.headers, reason=error.reason)


def _passes(group: Placed) -> list[Placed]:
    """Split slices whose positions repeat: by acquisition, else by time, else by occurrence; [] where none can."""
    places = _places(group, SAME_POSITION_MM)
    if not MINIMUM_SLICES <= len(np.unique(places)) < len(places):
        return []
    return _by_pass(group, places) or [group.take(part) for part in _by_occurrence(places)]


def _by_pass(group: Placed, places: Which) -> list[Placed]:
    """Split by acquisition, else by time; [] where neither gives parts that are volumes without a repeated place."""
    for attribute in ("acquisition_number", "acquisition_time"):
        parts = _by(group, attribute)
        if len(parts) > 1 and all(len(np.unique(places[p])) == len(p) >= MINIMUM_SLICES for p in parts):
            return [group.take(part) for part in parts]
    return []


def _by(group: Placed, attribute: str) -> list[list[int]]:
    parts: dict[object, list[int]] = defaultdict(list)
    for n, header in enumerate(group.headers):
        parts[getattr(header, attribute)].append(n)
    return list(parts.values())


def _by_occurrence(places: Which) -> list[list[int]]:
    seen: Counter[int] = Counter()
    parts: dict[int, list[int]] = defaultdict(list)
    for n, place in enumerate(places.tolist()):
        parts[seen[place]].append(n)
        seen[place] += 1
    return list(parts.values())


def _places(group: Placed, within_mm: float) -> Which:
    """Number each slice's plane along the normal; neighbours closer than ``within_mm`` share one."""
    along = group.along_mm()
    order = np.argsort(along, kind="stable")
    places = np.empty(len(order), dtype=np.intp)
    places[order] = np.cumsum(np.diff(along[order], prepend=along[order[0]]) >= within_mm)
    return places


def _refuse_mixed(slices: Placed) -> None:
    count, first = len(slices.headers), slices.headers[:1]
    if count < MINIMUM_SLICES:
        raise NotAVolume(f"{count} slice(s): fewer than {MINIMUM_SLICES} are no volume")
    if any((h.rows, h.columns) != (first[0].rows, first[0].columns) for h in slices.headers):
        raise NotAVolume("slices of different matrix sizes")
    if len(set(slices.frames)) > 1:
        raise NotAVolume("slices of different frames of reference")
    for reason in faults(slices).values():
        raise NotAVolume(reason)
    if not slices.same_plane(0, np.arange(count)).all():
        raise NotAVolume(_MIXED)


def _refuse_too_few(along: Points) -> None:
    distinct = 1 + int((np.diff(np.sort(along)) >= SAME_POSITION_MM).sum())
    if distinct == 1:
        raise NotAVolume(f"all {len(along)} slices lie at the same position")
    if distinct < MINIMUM_SLICES:
        raise NotAVolume(f"only {distinct} slice positions: fewer than {MINIMUM_SLICES} are no volume")
    if float(np.ptp(along)) > LONGEST_PATIENT_MM:
        raise NotAVolume(f"slices lie up to {float(np.ptp(along)):.0f} mm apart; no patient is that long")


def _refuse_scattered(slices: Placed, along: Points, axis: Points) -> None:
    """Slices of one gantry pass lie along one line."""
    apart = np.linalg.norm(slices.origins - (slices.origins[0] + along[:, None] * axis), axis=1)
    if float(apart.max()) > _sideways_mm(slices):
        raise NotAVolume(f"slices are shifted sideways against each other, by up to {float(apart.max()):.1f} mm")


def _sideways_mm(slices: Placed) -> float:
    """Half a pixel is left for rounding."""
    return max(0.5 * float(slices.spacings[0].min()), 0.2)
