"""Which pictures does a study get: reformats, projections and renderings of its best stacks, and the summary page?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.model import ExaminedStack, PictureOptions, Report
from pipeline.pictures import KeyPicture, key_pictures, summary_page
from pipeline.process import read_stack
from reconstruction.errors import ReconstructionError, RenderingUnavailable
from reconstruction.headers import read_header
from reconstruction.planes import Planes
from reconstruction.project import reformat
from reconstruction.render_3d import Rendered, render_bone
from reconstruction.slices import Stack, stack_of
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
    """Derived planes and the stack they were made from."""

    planes: Planes
    stack: ExaminedStack


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pictures:
    """All pictures of one Report; ``notes`` say what could not be made, and why."""

    planes: tuple[StackPlanes, ...]
    captures: tuple[Captured, ...]
    notes: tuple[str, ...]


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
    report: Report, paths: Mapping[str, Path], options: PictureOptions, *, language: Language, study_key: str
) -> Pictures:
    """Make the pictures of a Report from the files of its instances; what fails is a note, never an exception."""
    planes: list[StackPlanes] = []
    captures: list[Captured] = []
    keys: list[KeyPicture] = []
    notes: list[str] = []
    for rows in best_stacks(report):
        made = _of_first_readable(rows, report, paths, options)
        planes.extend(made.planes)
        captures.extend(made.captures)
        keys.extend(made.keys)
        notes.extend(made.notes)
    renderings = [c.rgb for c in captures]
    page = summary_page(report, keys, renderings, language=language, study_key=study_key, notes=notes)
    captures.append(Captured(kind="summary", rgb=page, label="summary"))
    return Pictures(planes=tuple(planes), captures=tuple(captures), notes=tuple(notes))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Made:
    planes: tuple[StackPlanes, ...] = ()
    captures: tuple[Captured, ...] = ()
    keys: tuple[KeyPicture, ...] = ()
    notes: tuple[str, ...] = ()


def _of_first_readable(
    rows: Sequence[ExaminedStack], report: Report, paths: Mapping[str, Path], options: PictureOptions
) -> _Made:
    notes: list[str] = []
    for row in rows:
        try:
            made = _of_stack(row, report, paths, options)
        except ReconstructionError as error:
            notes.append(f"{_title(row)}: no pictures: {error}")
        except MemoryError:
            notes.append(f"{_title(row)}: no pictures: they do not fit into memory")
        else:
            return replace(made, notes=(*notes, *made.notes))
    return _Made(notes=tuple(notes))


def _of_stack(row: ExaminedStack, report: Report, paths: Mapping[str, Path], options: PictureOptions) -> _Made:
    working, keys = _working_and_keys(row, report, paths)
    planes = _planes(working, row, options)
    renderings, notes = _renderings(working, row) if options.render else ((), ())
    captures = (Captured(kind="render", rgb=r.rgb, label=r.label.replace(" ", "_"), stack=row) for r in renderings)
    return _Made(planes=planes, captures=tuple(captures), keys=keys, notes=notes)


def _working_and_keys(
    row: ExaminedStack, report: Report, paths: Mapping[str, Path]
) -> tuple[Volume, tuple[KeyPicture, ...]]:
    """Return the grid to picture and the key pictures; the acquired volume is let go before anything is rendered."""
    read = read_stack(_stack(row, paths), paths)
    findings = [f for f in report.findings if (f.series_instance_uid, f.stack) == (row.series_instance_uid, row.stack)]
    return read.working, tuple(key_pictures(read.acquired.volume, findings))


def _stack(row: ExaminedStack, paths: Mapping[str, Path]) -> Stack:
    """Order a stack anew; what its slices share was settled when it was examined (some name a frame each)."""
    frame = row.geometry.frame_of_reference_uid if row.geometry else None
    headers = [replace(read_header(paths[uid]), frame_of_reference_uid=frame) for uid in row.instances]
    return stack_of(headers)


def _planes(volume: Volume, row: ExaminedStack, options: PictureOptions) -> tuple[StackPlanes, ...]:
    if not (options.mpr or options.mip):
        return ()
    made = reformat(volume, thickness_mm=options.mpr_thickness_mm, step_mm=options.mpr_step_mm)
    wanted: Sequence[Planes] = (
        *((made.coronal, made.sagittal) if options.mpr else ()),
        *(made.mips if options.mip else ()),
    )
    return tuple(StackPlanes(planes=planes, stack=row) for planes in wanted)


def _renderings(volume: Volume, row: ExaminedStack) -> tuple[tuple[Rendered, ...], tuple[str, ...]]:
    try:
        return tuple(render_bone(volume)), ()
    except RenderingUnavailable as error:
        return (), (f"{_title(row)}: no 3D rendering: {error.reason}",)


def _rank(row: ExaminedStack, report: Report) -> tuple[int, float, int]:
    shown = sum((f.series_instance_uid, f.stack) == (row.series_instance_uid, row.stack) for f in report.findings)
    return -shown, row.nominal_step_mm or math.inf, -len(row.instances)


def _title(row: ExaminedStack) -> str:
    return f"series {row.series_number if row.series_number is not None else '?'}, stack {row.stack}"
