"""A study's way from files to a Report: the page to read first.

``process_series`` turns the instances of one series into volumes, lets the detectors look at them and says what was
not looked at; ``assemble_report`` puts the results of all series of a study together. Both are pure but for reading
the files named; neither knows a queue or a network.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.model import (
    Declined,
    DetectorRun,
    DetectorStatus,
    ExaminedStack,
    Finding,
    Provenance,
    Report,
    Role,
    WorkingGrid,
)
from pipeline.ports import Detector
from pipeline.rules import NO_VOLUME, merged, priority_of, status_of, with_coverage
from pipeline.select import Selected, ct_instances, digest_of, role_of, select_series
from reconstruction.assemble import Assembled, assemble, pixel_reader
from reconstruction.errors import NotAVolume, NotDicom, ReconstructionError
from reconstruction.headers import Header
from reconstruction.multiframe import Frames, is_multi_frame, read_frames, together
from reconstruction.resample import (
    Regularised,
    held_whole,
    positions_mm,
    region_centroid_lps_mm,
    region_volume_ml,
    regularise,
    slice_points_mm,
    to_acquired,
)
from reconstruction.room import give_back
from reconstruction.slices import Refused, Stack, stack_of
from reconstruction.volume import Bits, Mask, PackedBits, Volume

STRAIGHT_WITHIN_DEG = 0.1
"""A stack whose axis leaves the slice normal by more than this is tilted."""

_NOT_CT_IMAGES = (Role.DOCUMENT, Role.NOT_CT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One instance of a series, of one image or of many frames: its header and the Part-10 file it stands in."""

    header: Header
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeriesResult:
    """What became of one series: a row per stack, the findings, and the seconds each step took.

    ``ct_instances`` are those that count for the study's digest.
    """

    series_instance_uid: str
    digest: str
    examined: tuple[ExaminedStack, ...]
    findings: tuple[Finding, ...]
    timings_s: Mapping[str, float]
    ct_instances: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReadStack:
    """A stack on the even, unsheared grid that detectors and reformats work on: the slices themselves, or resampled.

    ``outside`` (kji, on that grid) marks what holds no measurement; ``notes`` are those of the slices as acquired.
    """

    working: Volume
    outside: Bits | PackedBits | None
    regularised: Regularised | None
    notes: tuple[str, ...]


Watch = Callable[[str, int, int], object]
"""Told a step ("assembled" slices, "detectors"), how much of it is done and how much there is."""


def process_series(
    sources: Sequence[Source],
    detectors: Sequence[Detector],
    *,
    clock: Callable[[], float] = time.monotonic,
    watch: Watch = lambda _step, _done, _total: None,
) -> SeriesResult:
    """Examine every stack of one series with every detector; what cannot be read is a row with its reason."""
    timings = {"assemble": 0.0, "detect": 0.0}
    examined: list[ExaminedStack] = []
    findings: list[Finding] = []
    paths = {s.header.sop_instance_uid: s.path for s in sources}
    for selected in stacks_in(sources):
        row, found = _examine(selected, paths, detectors, (timings, clock), watch)
        examined.append(row)
        findings.extend(found)
    return SeriesResult(
        series_instance_uid=sources[0].header.series_instance_uid,
        digest=digest_of(paths),
        examined=tuple(examined),
        findings=tuple(findings),
        timings_s=timings,
        ct_instances=ct_instances(s.header for s in sources),
    )


def stacks_in(sources: Sequence[Source]) -> tuple[Selected, ...]:
    """Sort the instances of one series into stacks, frames of multi-frame instances told apart; no pixel is read."""
    frames = _frames(sources)
    return select_series(frames.headers, frames.refused)


def read_stack(
    stack: Stack, paths: Mapping[str, Path], *, on_progress: Callable[[int], object] = lambda _done: None
) -> ReadStack:
    """Assemble a stack and, where it is tilted or uneven, regularise it; raises ReconstructionError.

    ``on_progress`` is told how many slices are assembled.
    """
    return straightened_stack(stack, assemble(stack, pixel_reader(dict(paths)), on_progress=on_progress))


def straightened_stack(stack: Stack, acquired: Assembled) -> ReadStack:
    """Bring an assembled stack to its working grid. Raises ReconstructionError.

    The voxels of a tilted or uneven one are given back to the system while they are used: nobody may read ``acquired``
    afterwards. Else a whole body would stand in memory twice.
    """
    notes, padding = acquired.notes, acquired.padding
    if is_regular(stack):
        return ReadStack(working=acquired.volume, outside=padding, regularised=None, notes=notes)

    def used(slices: int) -> None:
        give_back(acquired.volume.hu, slices)
        if padding is not None:
            give_back(padding, slices)

    positions = None if stack.even else stack.slice_positions_mm
    made = regularise(acquired.volume, slice_positions_mm=positions, padding=padding, used=used)
    return ReadStack(working=made.volume, outside=made.packed_outside, regularised=made, notes=notes)


def is_regular(stack: Stack) -> bool:
    """Say whether the slices as acquired are an even, unsheared grid."""
    return stack.even and stack.geometry.tilt_deg <= STRAIGHT_WITHIN_DEG


def refuse_unworkable(stack: Stack) -> None:
    """Raise NotAVolume where no working grid of a stack could be held; no pixel is read."""
    if not is_regular(stack):
        held_whole(stack.geometry, slice_positions_mm=None if stack.even else stack.slice_positions_mm)


def stack_again(row: ExaminedStack, sources: Mapping[str, Source]) -> Stack:
    """Order a stack of a Report anew, from its instances by SOP Instance UID; raises ReconstructionError.

    What its slices share was settled when it was examined, such as a frame of reference that each names for itself.
    """
    shared = row.geometry.frame_of_reference_uid if row.geometry else None
    frames = _frames([sources[uid] for uid in dict.fromkeys(row.instances) if uid in sources])
    headers = {(header.sop_instance_uid, header.frame or 0): header for header in frames.headers}
    names = tuple(zip(row.instances, row.frames or (0,) * len(row.instances), strict=True))
    if not headers.keys() >= set(names):
        raise NotAVolume(next((part.reason for part in frames.refused), "a slice cannot be found again"))
    return stack_of([replace(headers[name], frame_of_reference_uid=shared) for name in names])


def assemble_report(
    study_instance_uid: str, results: Sequence[SeriesResult], provenance: Provenance, *, notes: Sequence[str] = ()
) -> Report:
    """Put the results of a study's series together: one row per stack, each lesion once, status and priority."""
    rows = tuple(row for result in results for row in result.examined)
    rows = with_coverage(tuple(sorted(rows, key=_series_order)))
    findings = merged([finding for result in results for finding in result.findings], rows)
    status = status_of(rows)
    return Report(
        study_instance_uid=study_instance_uid,
        study_digest=digest_of(uid for result in results for uid in result.ct_instances),
        status=status,
        priority=priority_of(status, rows, findings),
        examined=rows,
        findings=findings,
        provenance=provenance,
        notes=tuple(notes),
    )


def _frames(sources: Sequence[Source]) -> Frames:
    """Tell the frames of multi-frame instances apart; an instance where that fails is refused alone."""
    headers: list[Header] = []
    frames: list[Header] = []
    refused: list[Refused] = []
    for source in sources:
        if not is_multi_frame(source.header) or role_of(source.header)[0] in _NOT_CT_IMAGES:
            headers.append(source.header)
            continue
        found = _frames_of_one(source)
        frames.extend(found.headers)
        refused.extend(found.refused)
    refused.sort(key=lambda part: (part.headers[0].sop_instance_uid, part.reason))
    return Frames(headers=(*headers, *together(frames)), refused=tuple(refused))


def _frames_of_one(source: Source) -> Frames:
    try:
        return read_frames(source.path, source.header)
    except NotDicom as error:
        reason = error.reason
    except MemoryError:
        reason = "its frames do not fit into memory"
    return Frames(refused=(Refused(headers=(source.header,), reason=reason),))


def _series_order(row: ExaminedStack) -> tuple[int, str, int]:
    number = row.series_number if row.series_number is not None else 1 << 31
    return number, row.series_instance_uid, row.stack


def _examine(
    selected: Selected,
    paths: Mapping[str, Path],
    detectors: Sequence[Detector],
    meter: tuple[dict[str, float], Callable[[], float]],
    watch: Watch,
) -> tuple[ExaminedStack, list[Finding]]:
    row, (timings, clock) = selected.row, meter
    if selected.stack is None:
        return _unread(row, row.reason or "", detectors), []
    slices = len(row.instances)
    watch("assembled", 0, slices)
    try:
        with _timed(timings, "assemble", clock):
            read = read_stack(selected.stack, paths, on_progress=lambda done: watch("assembled", done, slices))
    except ReconstructionError as error:
        return _unread(row, str(error), detectors), []
    except MemoryError:
        return _unread(row, "its volume does not fit into memory", detectors), []
    row = replace(row, notes=read.notes, working_grid=_working_grid(read))
    working = read.working
    del read  # what is outside: detectors need the memory
    with _timed(timings, "detect", clock):
        looked = [_look(detector, working, row) for detector in _watched(detectors, watch)]
    runs = tuple(each.run for each in looked)
    reason = None if any(run.status == "ran" for run in runs) else _why_not_analysed(runs)
    notes = (*row.notes, *(note for each in looked for note in each.notes))
    return replace(row, detectors=runs, reason=reason, notes=notes), [f for each in looked for f in each.findings]


def _watched(detectors: Sequence[Detector], watch: Watch) -> Iterator[Detector]:
    for done, detector in enumerate(detectors):
        watch("detectors", done, len(detectors))
        yield detector
    watch("detectors", len(detectors), len(detectors))


def _unread(row: ExaminedStack, reason: str, detectors: Sequence[Detector]) -> ExaminedStack:
    """Name every detector that would have looked at a volume, so that its absence is seen."""
    if row.role is not Role.VOLUME:
        return row
    runs = tuple(_run(detector, "declined", f"{NO_VOLUME}: {reason}") for detector in detectors)
    return replace(row, reason=reason, detectors=runs)


def _working_grid(read: ReadStack) -> WorkingGrid | None:
    if read.regularised is None:
        return None
    return WorkingGrid(
        geometry=read.regularised.volume.geometry,
        max_distance_to_slice_mm=read.regularised.max_distance_to_slice_mm,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Looked:
    """What one detector made of a stack; ``notes`` name the findings whose place is not what it said."""

    run: DetectorRun
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()


def _look(detector: Detector, volume: Volume, row: ExaminedStack) -> _Looked:
    try:
        if reason := detector.declines(row.acquisition):
            return _Looked(run=_run(detector, "declined", reason))
        result = detector(volume, row.acquisition)
        if isinstance(result, Declined):
            return _Looked(run=_run(detector, "declined", result.reason))
        placed = [_placed(finding, row) for finding in result]
    # A plug-in may fail in any way; the others still run, and the Report shows this one as failed.
    except Exception as error:  # noqa: BLE001
        return _Looked(run=_run(detector, "failed", f"{type(error).__name__}: {error}"))
    notes = tuple(f"{detector.name}: {note}" for _, note in placed if note)
    return _Looked(run=_run(detector, "ran", None), findings=tuple(f for f, _ in placed), notes=notes)


def _run(detector: Detector, status: DetectorStatus, reason: str | None) -> DetectorRun:
    return DetectorRun(
        name=detector.name,
        version=detector.version,
        looks_for=tuple(detector.looks_for),
        status=status,
        reason=reason,
    )


def _why_not_analysed(runs: Sequence[DetectorRun]) -> str:
    if not runs:
        return "no detector is switched on"
    return "; ".join(f"{run.name}: {run.reason}" for run in runs)


def _placed(finding: Finding, row: ExaminedStack) -> tuple[Finding, str | None]:
    """Carry a finding to the slices as acquired; where that fails it is shown at the nearest voxel, with a note.

    It is not dropped, nor are its neighbours: a positive that is a little off its place still brings a reader.
    """
    try:
        return _on_acquired_slices(finding, row), None
    except (ReconstructionError, ValueError) as error:
        note = f"a finding ({finding.kind}) is shown at the nearest voxel, without its size: {error}"
        return _at_nearest_voxel(finding, row), note


def _at_nearest_voxel(finding: Finding, row: ExaminedStack) -> Finding:
    """Shrink a finding to the acquired voxel nearest to the middle of its region; no volume is claimed for that."""
    geometry, region = row.geometry, finding.region
    assert geometry is not None
    inside = np.argwhere(region.bits).mean(axis=0) if region.bits.any() else (np.array(region.bits.shape) - 1) / 2.0
    middle = region.geometry.to_mm(inside + region.origin_kji)
    positions = positions_mm(geometry, row.slice_positions_mm)
    along = float(geometry.to_index(middle)[0]) * geometry.slice_step_mm
    k = int(np.abs(positions - along).argmin())
    j, i = np.rint(geometry.to_index(middle + (positions[k] - along) * geometry.normal)[1:])
    kji = (k, *(int(np.clip(n, 0, size - 1)) for n, size in zip((j, i), geometry.shape[1:], strict=True)))
    x, y, z = slice_points_mm(geometry, kji, row.slice_positions_mm)
    return replace(
        finding,
        region=Mask(bits=np.ones((1, 1, 1), dtype=np.bool_), origin_kji=(kji[0], kji[1], kji[2]), geometry=geometry),
        volume_ml=None,
        centroid_lps_mm=(float(x), float(y), float(z)),
        series_instance_uid=row.series_instance_uid,
        stack=row.stack,
    )


def _on_acquired_slices(finding: Finding, row: ExaminedStack) -> Finding:
    """Carry a finding to the slices as acquired and measure it there, each slice with its share of the axis."""
    assert row.geometry is not None
    region, positions = finding.region, row.slice_positions_mm
    given = row.geometry if row.working_grid is None else row.working_grid.geometry
    if not region.geometry.agrees_with(given, within_mm=1e-3):
        raise ValueError("a finding's region does not lie on the grid that was given")
    if row.working_grid is not None:
        region = to_acquired(region, row.geometry, positions)
    thickness = row.acquisition.slice_thickness_mm
    measured = region_volume_ml(region, slice_positions_mm=positions, slice_thickness_mm=thickness)
    return replace(
        finding,
        region=region,
        volume_ml=None if finding.volume_ml is None else measured,
        centroid_lps_mm=region_centroid_lps_mm(region, slice_positions_mm=positions, slice_thickness_mm=thickness),
        series_instance_uid=row.series_instance_uid,
        stack=row.stack,
    )


@contextmanager
def _timed(timings: dict[str, float], step: str, clock: Callable[[], float]) -> Iterator[None]:
    start = clock()
    yield
    timings[step] = timings.get(step, 0.0) + clock() - start
