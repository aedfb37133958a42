"""From CT slices to volumes, reformats and renderings: ours side by side with dcm2niix, SimpleITK and others.

A digital torso of 512x512 pixels, in memory's own file system so that no disk is measured; every reader's voxels are
compared with those that were written, in the same run.
"""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks import body, linearity, reading, reformatting, rendering
from benchmarks.clock import others_percent, quietness
from benchmarks.ct_series import Anatomy, paint_torso, write_series
from benchmarks.figures import Bar, Result

BARS: dict[str, Bar] = {**reading.BARS, **reformatting.BARS, **rendering.BARS, **linearity.BARS, **body.BARS}
IN_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured: pixels a side, slices of each part, repetitions."""

    side: int
    painted: int
    slices: int
    compressed: int
    repetitions: int
    counts: tuple[int, ...]
    tilted: int
    frames: int
    picture: int


PLANS = {
    "toy": Plan(
        side=64,
        painted=10,
        slices=20,
        compressed=8,
        repetitions=2,
        counts=(10, 20, 40),
        tilted=20,
        frames=2,
        picture=96,
    ),
    "full": Plan(
        side=512,
        painted=100,
        slices=500,
        compressed=250,
        repetitions=5,
        counts=(100, 200, 500, 1000, 2000, 2900),
        tilted=1200,
        frames=12,
        picture=512,
    ),
}


def run(size: Literal["toy", "full"], out: Path | None = None) -> Result:
    """Measure all; pictures and the plot are left in ``out``, if given. Raises Differs where a reader's voxels do."""
    plan = PLANS[size]
    row, notes = quietness(others_percent())
    report = _Report(figures={}, rows=[row], notes=notes)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    _say("painting a torso")
    anatomy = paint_torso(side=plan.side, painted=plan.painted)
    with _folder() as folder:
        _read(plan, anatomy, folder, report)
    _show(plan, anatomy, report, out)
    with _folder() as folder:
        _grow(plan, anatomy, folder, report, out)
    return Result(name="reconstruct", figures=report.figures, rows=report.rows, bars=BARS, notes=report.notes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Report:
    """What has been measured so far."""

    figures: reading.Figures
    rows: reading.Rows
    notes: list[str]

    def add(self, measured: tuple[reading.Figures, reading.Rows], *notes: str) -> None:
        self.figures.update(measured[0])
        self.rows.extend(measured[1])
        self.notes.extend(notes)


def _read(plan: Plan, anatomy: Anatomy, folder: Path, report: _Report) -> None:
    _say(f"reading {plan.slices} slices, {plan.repetitions} times each way")
    series = reading.make_series(anatomy, plan.slices, folder / "series")
    figures, rows, notes = reading.measure_reading(series, folder, plan.repetitions)
    report.add((figures, rows), *notes)
    _say("decoding JPEG-LS and HTJ2K")
    report.add(reading.measure_codecs(anatomy, plan.compressed, folder))


def _show(plan: Plan, anatomy: Anatomy, report: _Report, out: Path | None) -> None:
    volume = anatomy.volume(plan.slices)
    _say("reformatting")
    report.add(reformatting.measure_reformats(volume, plan.repetitions))
    _say("rendering")
    report.add(rendering.measure_rendering(volume, frames=plan.frames, size=plan.picture, out=out))


def _grow(plan: Plan, anatomy: Anatomy, folder: Path, report: _Report, out: Path | None) -> None:
    slices = plan.counts[-1]
    _say(f"writing {slices} slices")
    write_series(anatomy, slices, folder / "body")
    _say("growing from few slices to many")
    figures, rows = linearity.measure_linearity(folder / "body", plan.counts, plan.side, out)
    report.add((figures, rows))
    _say("a whole body through ctriage process")
    report.add(body.measure_body(folder / "body", slices, plan.side, folder))
    _say(f"a body of {plan.tilted} tilted slices through ctriage process")
    shutil.rmtree(folder / "body")
    write_series(anatomy, plan.tilted, folder / "tilted", tilt_deg=10.0)
    report.add(body.measure_body(folder / "tilted", plan.tilted, plan.side, folder, name="tilted_body"))


@contextmanager
def _folder() -> Iterator[Path]:
    """Give a folder in memory, where there is one with room, and take it away at the end."""
    at = IN_MEMORY if IN_MEMORY.is_dir() and shutil.disk_usage(IN_MEMORY).free > 6 * 10**9 else None
    with tempfile.TemporaryDirectory(prefix="ctriage-reconstruct-", dir=at) as folder:
        yield Path(folder)


def _say(what: str) -> None:
    sys.stderr.write(what + "\n")
