"""What does a benchmark print? One object, the same for all."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A benchmark's figures (ratios to a peer are named ``ratio_to_<peer>``, larger is better) and its rows."""

    name: str
    figures: Mapping[str, float]
    rows: Sequence[Mapping[str, Any]]


def as_json(result: Result) -> dict[str, Any]:
    """Return the object that ``--json`` prints."""
    return {"name": result.name, "machine": machine(), "figures": dict(result.figures), "rows": list(result.rows)}


def as_text(result: Result) -> str:
    """Return the figures and rows for people."""
    about = machine()
    lines = [f"{result.name}, on {about['processor']}, {about['cores']} cores, {about['memory_gib']} GiB"]
    lines += [f"  {name:40s} {value:10.3f}" for name, value in result.figures.items()]
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


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _shown(value: object) -> str:
    return f"{value:10.3f}" if isinstance(value, float) else f"{value!s:>10s}"
