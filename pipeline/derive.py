"""Which pictures does a study get: reformats, projections and views in space of its best stacks, the summary page?"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.brain import brain_of
from pipeline.errors import SeriesBrokenOff
from pipeline.model import ExaminedStack, Finding, PictureOptions, Report, SurfaceTissue, TurnPreset
from pipeline.pictures import KeyPicture, key_pictures, summary_page
from pipeline.process import ReadStack, Source, refuse_unworkable, stack_again, straightened_stack
from reconstruction.assemble import Assembled, assemble, pixel_reader
from reconstruction.errors import ReconstructionError
from reconstruction.isotropic import Isotropic, isotropic
from reconstruction.planes import Planes
from reconstruction.project import standard
from reconstruction.render_3d import render_bone, render_turn
from reconstruction.render_grid import reduced
from reconstruction.surface import surface, to_stl
from reconstruction.volume import Volume

Rgb = npt.NDArray[np.uint8]
Language = Literal["en", "es"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Captured:
    """A picture without a plane: a 3D rendering of ``stack``, or the summary page (stack None)."""

    kind: Literal["render", "summary"]
    rgb: Rgb
    label: str
    stack: ExaminedStack | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StackPlanes:
    """Derived planes and the stack they were made from.

    A series may come in several: ``images_before`` counts those of its pictures that came already (0: a new series).
    """

    planes: Planes
    stack: ExaminedStack
    images_before: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StackTurn:
    """Renderings that turn round the patient, uint8 (frames, rows, columns, 3), and the stack they show."""

    preset: TurnPreset
    rgb: Rgb
    stack: ExaminedStack


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StackSurface:
    """The closed surface of a tissue as a binary STL file (LPS mm), and the stack it was made from."""

    tissue: SurfaceTissue
    stl: bytes
    stack: ExaminedStack


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """A sentence on what could not be made, and why."""

    text: str


Product = StackPlanes | StackTurn | StackSurface | Captured | Remark


class Sliced(Protocol):
    """What an isotropic series is cut from."""

    def slabs(self) -> Iterator[Planes]:
        """Yield its pictures from one end to the other, some at a time."""
        ...


def best_stacks(report: Report) -> tuple[tuple[ExaminedStack, ...], ...]:
    """List the stacks of each scan, the best first: with findings, then the finest slices, then the most.

    A scan is a frame of reference, or a series that names none. Pictures are made of the first that can be read.
    """
    scans: dict[str, list[ExaminedStack]] = {}
    for row in report.examined:
        if row.geometry is not None:
            scans.setdefault(row.geometry.frame_of_reference_uid or row.series_instance_uid, []).append(row)
    return tuple(tuple(sorted(rows, key=lambda row: _rank(row, report))) for rows in scans.values())


def derive(
    report: Report, sources: Mapping[str, Source], options: PictureOptions, *, language: Language, study_key: str
) -> Iterator[Product]:
    """Make the pictures of a Report one by one, the summary page last; what fails is a Remark.

    The one exception is SeriesBrokenOff: what was made so far must not be kept.

    ``sources`` are the instances by SOP Instance UID. Nothing that was yielded is kept: let a product go before the
    next is asked for, and no two stand in memory.
    """
    seen = _Seen()
    for rows in best_stacks(report):
        for made in _of_first_readable(rows, report, sources, options):
            seen.note(made)
            if not isinstance(made, KeyPicture):
                yield made
            del made
    page = summary_page(
        report, seen.keys, seen.renderings, language=language, study_key=study_key, notes=[r.text for r in seen.remarks]
    )
    yield Captured(kind="summary", rgb=page, label="summary")


_Made = Product | KeyPicture


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """What the summary page shows of that which was made."""

    keys: list[KeyPicture] = field(default_factory=list)
    renderings: list[Rgb] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)

    def note(self, made: _Made) -> None:
        match made:
            case KeyPicture():
                self.keys.append(made)
            case Captured(rgb=rgb):
                self.renderings.append(rgb)
            case Remark():
                self.remarks.append(made)


def _of_first_readable(
    rows: Sequence[ExaminedStack], report: Report, sources: Mapping[str, Source], options: PictureOptions
) -> Iterator[_Made]:
    """Picture the first stack of a scan that can be read; one that breaks off half-way is not followed by another."""
    for row in rows:
        failure = "no pictures"
        try:
            for made in _of_stack(row, report, sources, options):
                failure = "no further pictures"
                yield made
                del made
        except ReconstructionError as error:
            reason = str(error)
        except MemoryError:
            reason = "they do not fit into memory"
        else:
            return
        yield Remark(text=f"{_title(row)}: {failure}: {reason}")
        if failure != "no pictures":
            return


def _of_stack(
    row: ExaminedStack, report: Report, sources: Mapping[str, Source], options: PictureOptions
) -> Iterator[_Made]:
    stack = stack_again(row, sources)
    refuse_unworkable(stack)  # before anything is made of it: another stack of this scan may do
    acquired = assemble(stack, pixel_reader({uid: sources[uid].path for uid in row.instances}))
    keys = key_pictures(acquired.volume, _findings_in(row, report))
    cubes = _plan_of_cubes(acquired, row, options) if options.isotropic else None
    yield from keys
    if cubes is not None:
        yield from in_cubes(cubes, row)
    # The slices as acquired are used up here: whatever is made of them themselves has been made.
    read = straightened_stack(stack, acquired)
    del acquired, cubes
    small = reduced(read.working) if options.render or options.turn or options.surfaces else None
    yield from _planes(read, row, options)
    # A rendering is made by another process, which needs its own memory: the reduced grid is all that waits for it.
    del read
    if small is not None:
        yield from _in_space(small, row, options)


def _findings_in(row: ExaminedStack, report: Report) -> list[Finding]:
    return [f for f in report.findings if (f.series_instance_uid, f.stack) == (row.series_instance_uid, row.stack)]


def _plan_of_cubes(acquired: Assembled, row: ExaminedStack, options: PictureOptions) -> Isotropic:
    """Plan the isotropic series from the slices as acquired: values are interpolated once."""
    return isotropic(
        acquired.volume,
        slice_positions_mm=row.slice_positions_mm,
        spacing_mm=options.isotropic_mm or None,
        padding=acquired.padding,
    )


def in_cubes(plan: Sliced, row: ExaminedStack) -> Iterator[StackPlanes]:
    """Cut the isotropic series in batches. Raises SeriesBrokenOff where it cannot go on after the first."""
    before = 0
    slabs = plan.slabs()
    while (planes := _next_of(slabs, before)) is not None:
        count = len(planes.hu)
        yield StackPlanes(planes=planes, stack=row, images_before=before)
        before += count
        del planes


def _next_of(slabs: Iterator[Planes], before: int) -> Planes | None:
    try:
        return next(slabs, None)
    except (ReconstructionError, MemoryError) as error:
        if before:
            raise SeriesBrokenOff(before) from error
        raise


def _planes(read: ReadStack, row: ExaminedStack, options: PictureOptions) -> Iterator[StackPlanes]:
    for planes in standard(
        read.working,
        thickness_mm=options.mpr_thickness_mm,
        step_mm=options.mpr_step_mm,
        mpr=options.mpr,
        mip=options.mip,
        outside=read.outside,
    ):
        yield StackPlanes(planes=planes, stack=row)
        del planes


def _in_space(small: Volume, row: ExaminedStack, options: PictureOptions) -> Iterator[_Made]:
    """Make the views in space of a reduced grid; one that cannot be made is a Remark, and the others follow."""
    wanted: list[tuple[str, Callable[[], Sequence[_Made]]]] = []
    if options.render:
        wanted.append(("no 3D rendering", lambda: _stills(small, row)))
    turn = partial(_turn, small, row, options.turn_frames)
    wanted += [(f"no turning rendering ({each})", partial(turn, each)) for each in options.turn]
    wanted += [(f"no surface ({each})", partial(_surface, small, row, each)) for each in options.surfaces]
    for failure, make in wanted:
        try:
            yield from make()
        except ReconstructionError as error:
            yield Remark(text=f"{_title(row)}: {failure}: {error}")


def _stills(small: Volume, row: ExaminedStack) -> Sequence[_Made]:
    return [Captured(kind="render", rgb=r.rgb, label=r.label.replace(" ", "_"), stack=row) for r in render_bone(small)]


def _turn(small: Volume, row: ExaminedStack, frames: int, preset: TurnPreset) -> Sequence[_Made]:
    shown = brain_of(small) if preset == "brain" else None
    return [StackTurn(preset=preset, rgb=render_turn(small, preset, frames=frames, shown=shown).rgb, stack=row)]


def _surface(small: Volume, row: ExaminedStack, tissue: SurfaceTissue) -> Sequence[_Made]:
    return [StackSurface(tissue=tissue, stl=to_stl(surface(small, tissue)), stack=row)]


def _rank(row: ExaminedStack, report: Report) -> tuple[int, float, int]:
    shown = sum((f.series_instance_uid, f.stack) == (row.series_instance_uid, row.stack) for f in report.findings)
    return -shown, row.nominal_step_mm or math.inf, -len(row.instances)


def _title(row: ExaminedStack) -> str:
    return f"series {row.series_number if row.series_number is not None else '?'}, stack {row.stack}"
