"""Which pictures does a study get: reformats, projections and renderings of its best stacks, and the summary page?"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.model import ExaminedStack, PictureOptions, Report
from pipeline.pictures import KeyPicture, key_pictures, summary_page
from pipeline.process import Source, read_stack, stack_again
from reconstruction.errors import ReconstructionError, RenderingUnavailable
from reconstruction.planes import Planes
from reconstruction.project import standard
from reconstruction.render_3d import render_bone
from reconstruction.render_grid import reduced
from reconstruction.volume import Bits, Volume

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
    """Derived planes and the stack they were made from."""

    planes: Planes
    stack: ExaminedStack


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """A sentence on what could not be made, and why."""

    text: str


Product = StackPlanes | Captured | Remark


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
    """Make the pictures of a Report one by one, the summary page last; what fails is a Remark, never an exception.

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
        what = "pictures"
        try:
            for made in _of_stack(row, report, sources, options):
                what = "further pictures"
                yield made
                del made
        except ReconstructionError as error:
            reason = str(error)
        except MemoryError:
            reason = "they do not fit into memory"
        else:
            return
        yield Remark(text=f"{_title(row)}: no {what}: {reason}")
        if what != "pictures":
            return


def _of_stack(
    row: ExaminedStack, report: Report, sources: Mapping[str, Source], options: PictureOptions
) -> Iterator[_Made]:
    grid, keys = _grid_and_keys(row, report, sources)
    small = reduced(grid.volume) if options.render else None
    yield from keys
    yield from _planes(grid, row, options)
    # A rendering is made by another process, which needs its own memory: the reduced grid is all that waits for it.
    del grid
    if small is not None:
        yield from _renderings(small, row)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Grid:
    """What is pictured, and (True in ``outside``, kji) where it holds no measurement."""

    volume: Volume
    outside: Bits | None


def _grid_and_keys(
    row: ExaminedStack, report: Report, sources: Mapping[str, Source]
) -> tuple[_Grid, tuple[KeyPicture, ...]]:
    """Return the grid to picture and the key pictures; the acquired volume is let go where it is another."""
    read = read_stack(stack_again(row, sources), {uid: sources[uid].path for uid in row.instances})
    findings = [f for f in report.findings if (f.series_instance_uid, f.stack) == (row.series_instance_uid, row.stack)]
    outside = read.acquired.padding if read.regularised is None else read.regularised.outside
    return _Grid(volume=read.working, outside=outside), tuple(key_pictures(read.acquired.volume, findings))


def _planes(grid: _Grid, row: ExaminedStack, options: PictureOptions) -> Iterator[StackPlanes]:
    for planes in standard(
        grid.volume,
        thickness_mm=options.mpr_thickness_mm,
        step_mm=options.mpr_step_mm,
        mpr=options.mpr,
        mip=options.mip,
        outside=grid.outside,
    ):
        yield StackPlanes(planes=planes, stack=row)
        del planes


def _renderings(volume: Volume, row: ExaminedStack) -> Iterator[Captured | Remark]:
    try:
        rendered = render_bone(volume)
    except RenderingUnavailable as error:
        yield Remark(text=f"{_title(row)}: no 3D rendering: {error.reason}")
        return
    for each in rendered:
        yield Captured(kind="render", rgb=each.rgb, label=each.label.replace(" ", "_"), stack=row)


def _rank(row: ExaminedStack, report: Report) -> tuple[int, float, int]:
    shown = sum((f.series_instance_uid, f.stack) == (row.series_instance_uid, row.stack) for f in report.findings)
    return -shown, row.nominal_step_mm or math.inf, -len(row.instances)


def _title(row: ExaminedStack) -> str:
    return f"series {row.series_number if row.series_number is not None else '?'}, stack {row.stack}"
