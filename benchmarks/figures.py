"""What does a benchmark print? One object, the same for all."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Bar:
    """What a figure is held against: at least (>=) or at most (<=) so much."""

    way: Literal[">=", "<="]
    value: float

    def met_by(self, figure: float) -> bool:
        """Say whether a figure holds."""
        return figure >= self.value if self.way == ">=" else figure <= self.value

    def __str__(self) -> str:
        return f"{self.way} {self.value:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A benchmark's figures (ratios to a peer are named ``ratio_to_<peer>``, larger is better) and its rows.

    ``bars`` are what some figures are held against, ``notes`` what could not be measured, and why, ``violations`` what
    was proven wrong, each with its story.
    """

    name: str
    figures: Mapping[str, float]
    rows: Sequence[Mapping[str, Any]]
    bars: Mapping[str, Bar] = field(default_factory=dict)
    notes: Sequence[str] = ()
    violations: Sequence[str] = ()


def as_json(result: Result) -> dict[str, Any]:
    """Return the object that ``--json`` prints; bars, notes and violations only where there are some."""
    bars = {
        name: {"bar": str(bar), "met": bar.met_by(result.figures[name])}
        for name, bar in result.bars.items()
        if name in result.figures
    }
    printed = {"name": result.name, "machine": machine(), "figures": dict(result.figures), "rows": list(result.rows)}
    more = {"bars": bars, "notes": list(result.notes), "violations": list(result.violations)}
    return {**printed, **{name: each for name, each in more.items() if each}}


def as_text(result: Result) -> str:
    """Return the figures and rows for people."""
    about = machine()
    lines = [f"{result.name}, on {about['processor']}, {about['cores']} cores, {about['memory_gib']} GiB"]
    lines += [f"  {name:40s} {value:10.3f}{_beside(result, name)}" for name, value in result.figures.items()]
    lines += [f"  not measured: {note}" for note in result.notes]
    lines += [f"  VIOLATION: {each}" for each in result.violations]
    for row in result.rows:
        lines.append("")
        lines += [f"  {name:40s} {_shown(value)}" for name, value in row.items()]
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """Describe where the figures were measured."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30),
        "python": platform.python_version(),
        "system": platform.system(),
    }


def _beside(result: Result, name: str) -> str:
    bar = result.bars.get(name)
    if bar is None:
        return ""
    return f"   {bar!s:8s} {'met' if bar.met_by(result.figures[name]) else 'NOT MET'}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _shown(value: object) -> str:
    return f"{value:10.3f}" if isinstance(value, float) else f"{value!s:>10s}"
