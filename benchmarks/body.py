"""Whole bodies through `ctriage process`, straight and tilted: memory of all processes, and seconds of each stage."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import Bar
from benchmarks.reading import Differs, Figures, Rows
from benchmarks.service import MemorySampler, family

BARS = {
    "whole_body_memory_times_int16": Bar("<=", 2.5),
    "tilted_body_memory_times_int16": Bar("<=", 2.5),
}
EVERY_S = 0.1


def measure_body(
    folder: Path, slices: int, side: int, scratch: Path, *, name: str = "whole_body"
) -> tuple[Figures, Rows]:
    """Process one series offline, with its isotropic series and the default pictures; raises Differs if unread.

    Figures begin with ``name``.
    """
    int16_bytes = 2 * slices * side**2
    command = [sys.executable, "-m", "pacs_bridge", "process", str(folder), "--out", str(scratch / "out"), "--json"]
    command += ["--set", "outputs.isotropic=true"]
    started = time.perf_counter()
    with (scratch / "process.log").open("w") as log, (scratch / "process.json").open("w") as printed:
        process = subprocess.Popen(command, stdout=printed, stderr=log, cwd=scratch)
        with MemorySampler(lambda: family(process.pid), every_s=EVERY_S) as memory:
            process.wait()
    seconds = time.perf_counter() - started
    study = _study(scratch / "process.json", scratch / "process.log", slices)
    figures = {
        f"{name}_memory_times_int16": memory.peak_bytes / int16_bytes,
        f"{name}_peak_mb": memory.peak_bytes / 1e6,
        f"{name}_s": seconds,
        **{f"{name}_{stage}_s": spent for stage, spent in study["timings_s"].items()},
    }
    kinds = [output["kind"] for output in study["outputs"]]
    made = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    return figures, [
        {"what": name.replace("_", " "), "slices": slices, "int16_mb": int16_bytes / 1e6, **figures, "made": made}
    ]


def _study(printed: Path, log: Path, slices: int) -> dict[str, Any]:
    """Return the one study's entry; a run that read nothing says nothing about memory."""
    try:
        (study,) = json.loads(printed.read_text())["studies"]
    except (ValueError, KeyError) as error:
        raise Differs(f"ctriage process printed no study: {log.read_text()[-800:]}") from error
    volumes = [row for row in study["series"] if row["role"] == "volume" and row["geometry"] is not None]
    if [row["geometry"]["shape_kji"][0] for row in volumes] != [slices]:
        raise Differs(f"the body was not read as one volume: {study['status']}, {study.get('reason')}")
    entry: dict[str, Any] = study
    return entry
