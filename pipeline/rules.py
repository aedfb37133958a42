"""What do the rows of all series say about the study: which scan covers which, which lesion is which, how urgent?"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import reduce

import numpy as np

from pipeline.model import DetectorRun, ExaminedStack, Finding, Priority, Role, StudyStatus
from reconstruction.geometry import Geometry, Points

COVERED_SHARE = 0.9
"""A stack is covered when another one of the same scan spans at least this share of its length."""

FIELD_SHARE = 0.7
"""... and at least this share of its field of view: two reconstructions of one head may be cut a little differently."""

AS_THIN_WITHIN = 0.01
"""... and its slices are no farther apart, give or take this share, where the other was not looked at."""

FIELD_SAMPLES = 20
SAME_LESION_MM = 5.0

NO_VOLUME = "no volume"
"""Begins a detector's reason where it was never asked, because there was nothing to show it."""

_PRIORITY_OF_KIND = {"hemorrhage": Priority.STAT, "fracture": Priority.URGENT}


def with_coverage(rows: Sequence[ExaminedStack]) -> tuple[ExaminedStack, ...]:
    """Name, for each volume that nothing ran on, the analysed stack of the same scan that covers it, if any."""
    analysed = [row for row in rows if row.analysed]
    return tuple(_covered(row, analysed) if row.role is Role.VOLUME and not row.analysed else row for row in rows)


def status_of(rows: Iterable[ExaminedStack]) -> StudyStatus:
    """Say how much of a study was read; roles other than volume do not count."""
    volumes = [row for row in rows if row.role is Role.VOLUME]
    read = [row for row in volumes if row.analysed or row.covered_by is not None]
    if not any(row.analysed for row in volumes):
        return StudyStatus.NOT_ANALYSED
    return StudyStatus.ANALYSED if len(read) == len(volumes) else StudyStatus.PARTLY_ANALYSED


def priority_of(status: StudyStatus, rows: Sequence[ExaminedStack], findings: Sequence[Finding]) -> Priority | None:
    """Say how soon a person should look.

    A finding raises the priority whatever else was not looked at, one of a kind we do not know to urgent; without
    findings a study is routine only when it was read whole, every detector ran somewhere on it and none failed
    anywhere, else unknown (None), which sorts above routine.
    """
    raised = {_PRIORITY_OF_KIND.get(finding.kind, Priority.URGENT) for finding in findings}
    for priority in (Priority.STAT, Priority.URGENT):
        if priority in raised:
            return priority
    return Priority.ROUTINE if status is StudyStatus.ANALYSED and _all_due_ran(rows) else None


def merged(findings: Sequence[Finding], rows: Sequence[ExaminedStack]) -> tuple[Finding, ...]:
    """Make one finding of the same lesion seen in several series of one frame of reference.

    The surest sighting measures; the others are listed in ``also_seen_in``. Order: surest first.
    """
    frames = {(row.series_instance_uid, row.stack): _frame_of_reference(row) for row in rows}
    ordered = sorted(findings, key=lambda f: (-f.probability, f.series_instance_uid, f.stack, f.centroid_lps_mm))

    def add(kept: tuple[Finding, ...], finding: Finding) -> tuple[Finding, ...]:
        for n, other in enumerate(kept):
            place = (finding.series_instance_uid, finding.stack)
            # Two findings of one stack are two lesions: the second must not vanish in what the first was merged into.
            if place not in other.also_seen_in and _same_lesion(other, finding, frames):
                return (*kept[:n], replace(other, also_seen_in=(*other.also_seen_in, place)), *kept[n + 1 :])
        return (*kept, finding)

    return reduce(add, ordered, ())


def _all_due_ran(rows: Sequence[ExaminedStack]) -> bool:
    due = {run.name for row in rows for run in row.detectors}
    ran = {run.name for row in rows for run in row.detectors if run.status == "ran"}
    failed = any(run.status == "failed" for row in rows for run in row.detectors)
    return due == ran and not failed


def _covered(row: ExaminedStack, analysed: Sequence[ExaminedStack]) -> ExaminedStack:
    better = next((other for other in analysed if _covers(other, row)), None)
    if better is None:
        return row
    reason = f"covered by series {better.series_number}, stack {better.stack} of the same scan; {row.reason}"
    return replace(row, covered_by=(better.series_instance_uid, better.stack), reason=reason)


def _covers(other: ExaminedStack, row: ExaminedStack) -> bool:
    """Say whether ``other`` shows the same part of the patient, and what can be seen on it is no less."""
    return _same_scan(other, row) and (_as_thin(other, row) or _declined_for_another(other, row))


def _as_thin(other: ExaminedStack, row: ExaminedStack) -> bool:
    """Say whether ``other`` has slices as close: a fine crack that 0.6 mm shows is not to be seen in 5 mm."""
    return _step_mm(other) <= (1.0 + AS_THIN_WITHIN) * _step_mm(row)


def _declined_for_another(other: ExaminedStack, row: ExaminedStack) -> bool:
    """Say whether every detector looked at ``row`` and chose ``other``: a sharp kernel is not for bleeds."""
    chose = {run.name for run in row.detectors if run.status == "declined" and not _was_unread(run)}
    ran = {run.name for run in other.detectors if run.status == "ran"}
    return bool(chose) and len(chose) == len(row.detectors) and chose <= ran


def _was_unread(run: DetectorRun) -> bool:
    return (run.reason or "").startswith(NO_VOLUME)


def _step_mm(row: ExaminedStack) -> float:
    assert row.geometry is not None
    return row.nominal_step_mm if row.nominal_step_mm is not None else row.geometry.slice_step_mm


def _same_scan(other: ExaminedStack, row: ExaminedStack) -> bool:
    """Say whether two stacks show the same part of the patient: frame of reference, length and field of view."""
    if other.geometry is None or row.geometry is None or _frame_of_reference(row) is None:
        return False
    if _frame_of_reference(other) != _frame_of_reference(row):
        return False
    normal = row.geometry.normal
    low, high = _extent(row, normal)
    other_low, other_high = _extent(other, normal)
    overlap = min(high, other_high) - max(low, other_low)
    return overlap >= COVERED_SHARE * (high - low) and _sees_as_wide(other.geometry, row.geometry)


def _sees_as_wide(other: Geometry, geometry: Geometry) -> bool:
    """Say whether most of the middle slice lies inside the other field of view: an ear does not cover a head."""
    sides = np.linspace(-0.5, 0.5, 2 * FIELD_SAMPLES + 1)[1::2]
    share = np.stack(np.meshgrid([0.0], sides, sides, indexing="ij"), axis=-1).reshape(-1, 3)
    middle, shape = (np.array(geometry.shape) - 1) / 2.0, np.array(geometry.shape)
    index = other.to_index(geometry.to_mm(middle + share * shape))[:, 1:]
    inside = ((index >= -0.5) & (index <= np.array(other.shape[1:]) - 0.5)).all(axis=1)
    return bool(inside.mean() >= FIELD_SHARE)


def _extent(row: ExaminedStack, normal: Points) -> tuple[float, float]:
    assert row.geometry is not None
    length = row.slice_positions_mm[-1] if row.slice_positions_mm else None
    steps = length / row.geometry.slice_step_mm if length is not None else row.geometry.shape[0] - 1
    _, rows, columns = row.geometry.shape
    middle = ((rows - 1) / 2.0, (columns - 1) / 2.0)
    ends = row.geometry.to_mm([(0, *middle), (steps, *middle)]) @ normal
    return float(ends.min()), float(ends.max())


def _frame_of_reference(row: ExaminedStack) -> str | None:
    return None if row.geometry is None else row.geometry.frame_of_reference_uid


def _same_lesion(a: Finding, b: Finding, frames: dict[tuple[str, int], str | None]) -> bool:
    place_a, place_b = (a.series_instance_uid, a.stack), (b.series_instance_uid, b.stack)
    frame = frames.get(place_a)
    if a.kind != b.kind or place_a == place_b or frame is None or frame != frames.get(place_b):
        return False
    reach = max(SAME_LESION_MM, _radius_mm(a), _radius_mm(b))
    return math.dist(a.centroid_lps_mm, b.centroid_lps_mm) <= reach


def _radius_mm(finding: Finding) -> float:
    """Radius of the ball of the same volume."""
    return float((3000.0 * (finding.volume_ml or 0.0) / (4.0 * math.pi)) ** (1.0 / 3.0))
