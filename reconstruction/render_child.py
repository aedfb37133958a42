"""The child process that casts: FOLDER's hu.npy (int16, kji) and job.json become rgb.npy and timings.json.

Usage: python -m reconstruction.render_child FOLDER
"""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reconstruction.child import NO_MEMORY
from reconstruction.geometry import Geometry
from reconstruction.render import Rgb
from reconstruction.render_cast import Camera, Scene, cast, set_scene
from reconstruction.render_looks import PRESETS
from reconstruction.volume import Volume


def main(arguments: Sequence[str]) -> int:
    """Cast the job in a folder; return the process's exit status."""
    folder = Path(arguments[0])
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    try:
        frames, timings = render(np.load(folder / "hu.npy", mmap_mode="r"), job)
    except MemoryError:
        return NO_MEMORY
    np.save(folder / "rgb.npy", frames)
    (folder / "timings.json").write_text(json.dumps(timings), encoding="utf-8")
    return 0


def render(hu: Any, job: Mapping[str, Any]) -> tuple[Rgb, Mapping[str, Any]]:
    """Return one picture (view, rows, columns, 3) for each of the job's views, and the seconds each step took."""
    started = time.perf_counter()
    grid = Volume(hu=np.asarray(hu), geometry=Geometry(affine=np.array(job["affine"]), shape=hu.shape))
    looks = PRESETS[job["preset"]].looks(min(grid.geometry.spacing_mm))
    scene = set_scene(grid, looks, step_mm=job["step_mm"])
    ready = time.perf_counter()
    frames, seconds = np.empty((len(job["views"]), job["size"], job["size"], 3), dtype=np.uint8), []
    for n, view in enumerate(job["views"]):
        before = time.perf_counter()
        frames[n] = cast(scene, _camera(scene, job, view))
        seconds.append(time.perf_counter() - before)
    return frames, {"scene_s": ready - started, "frames_s": seconds}


def _camera(scene: Scene, job: Mapping[str, Any], view: Mapping[str, Any]) -> Camera:
    geometry = scene.volume.geometry
    return Camera(
        centre_lps_mm=geometry.to_mm([(n - 1) / 2.0 for n in geometry.shape]),
        from_lps=np.array(view["from_lps"], dtype=np.float64),
        up_lps=np.array(view["up_lps"], dtype=np.float64),
        reach_mm=job["reach_mm"],
        size=job["size"],
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
