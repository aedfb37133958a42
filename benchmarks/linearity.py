"""Do seconds and memory grow in step with the slices? One process a size, its memory as the system counts it."""

import json
import subprocess
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import Bar
from benchmarks.reading import Figures, Rows
from benchmarks.service import MemorySampler, family

BARS = {"linear_exponent": Bar("<=", 1.1), "linear_memory_exponent": Bar("<=", 1.1)}
EVERY_S = 0.02


def measure_linearity(folder: Path, counts: Sequence[int], side: int, out: Path | None) -> tuple[Figures, Rows]:
    """Read the first slices of a folder, never seen, and reformat them, each number of slices in a process of its own.

    Exponents are fitted to seconds and to what a warm process grows by: 1 is linear. The plot goes to ``out``.
    """
    rows = [_one(folder, count, side) for count in counts]
    figures = {
        "linear_exponent": _exponent(rows, "seconds"),
        "linear_memory_exponent": _exponent(rows, "grown_mb"),
        "linear_ms_per_slice_most": 1000 * max(row["seconds"] / row["slices"] for row in rows),
        "linear_ms_per_slice_least": 1000 * min(row["seconds"] / row["slices"] for row in rows),
        "linear_memory_times_int16": rows[-1]["peak_mb"] / rows[-1]["int16_mb"],
    }
    if out is not None:
        (out / "linearity.svg").write_text(_svg(rows), encoding="utf-8")
        rows.append({"what": "plot", "path": str(out / "linearity.svg")})
    return figures, rows


def _one(folder: Path, count: int, side: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.one_series", "standard", str(folder), str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        with MemorySampler(lambda: family(process.pid), every_s=EVERY_S) as memory:
            process.stdin.write("\n")
            process.stdin.flush()
            line = process.stdout.readline()
    if not line:
        raise ChildProcessError(f"{count} slices: the process ended with {process.returncode}")
    spent = json.loads(line)
    return {
        "what": "linearity",
        "slices": count,
        "seconds": spent["read_s"] + spent["reformat_s"],
        **spent,
        "peak_mb": memory.peak_bytes / 1e6,
        "grown_mb": (memory.peak_bytes - memory.start_bytes) / 1e6,
        "int16_mb": 2e-6 * count * side**2,
    }


def _exponent(rows: Rows, key: str) -> float:
    """Fit value = a * slices ** b by least squares of the logarithms; return b."""
    slices = np.log([row["slices"] for row in rows])
    values = np.log([max(row[key], 1e-9) for row in rows])
    return float(np.polyfit(slices, values, 1)[0])


def _svg(rows: Rows) -> str:
    """Draw seconds and memory over slices, each beside the straight line through the origin and the largest size."""
    panels = "".join(_panel(rows, key, title, 60 + 460 * n) for n, (key, title) in enumerate(_PANELS))
    style = "font: 13px sans-serif"
    box = f'width="960" height="380" style="{style}; background: white"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box}>\n{panels}</svg>\n'


_PANELS = (("seconds", "seconds: never seen -> volume -> reformats"), ("peak_mb", "peak memory (PSS), MB"))


def _panel(rows: Rows, key: str, title: str, left: int) -> str:
    most_slices, most = max(row["slices"] for row in rows), max(row[key] for row in rows)
    points = [(left + 380 * row["slices"] / most_slices, 330 - 280 * row[key] / most, row) for row in rows]
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#06c"/>'
        f'<text x="{x - 8:.1f}" y="{y - 8:.1f}" text-anchor="end">{row[key]:.3g}</text>'
        f'<text x="{x:.1f}" y="346" text-anchor="middle" font-size="10">{row["slices"]}</text>\n'
        for x, y, row in points
    )
    last_x, last_y, _ = points[-1]
    line = f'<line x1="{left}" y1="330" x2="{last_x:.1f}" y2="{last_y:.1f}" stroke="#999" stroke-dasharray="4"/>'
    axes = f'<path d="M{left} 40V330H{left + 390}" fill="none" stroke="black"/>'
    caption = f'<text x="{left}" y="28">{escape(title)}</text><text x="{left + 170}" y="368">slices</text>'
    return f"{axes}{line}{caption}\n{dots}"
