"""Volume renderings on the CPU: seconds a frame, and until the first."""

from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from benchmarks.figures import Bar
from benchmarks.reading import Differs, Figures, Rows
from reconstruction.render_3d import Turn, render_turn
from reconstruction.render_grid import LARGEST
from reconstruction.render_looks import PresetName
from reconstruction.volume import Volume

BARS = {"render_frame_s": Bar("<=", 0.5), "render_first_frame_s": Bar("<=", 15.0)}
LEAST_SHOWN = 0.02
"""A rendering in which fewer of the pixels are lit shows nothing."""


def measure_rendering(volume: Volume, *, frames: int, size: int, out: Path | None) -> tuple[Figures, Rows]:
    """Turn round the patient: every voxel cast as it is, and on the service's reduced grid; bone and vessels.

    ``render_frame_s`` and ``render_first_frame_s`` are the unreduced bone's. Pictures go to ``out``, if given. Raises
    Differs where a frame is blank or does not turn.
    """
    figures: Figures = {}
    rows: Rows = []
    presets: tuple[tuple[PresetName, bool], ...] = (("bone", False), ("bone", True), ("vessel", True))
    for preset, is_reduced in presets:
        turn = render_turn(
            volume, preset, frames=frames, size=size, largest=LARGEST if is_reduced else max(volume.hu.shape)
        )
        _refuse_blank(turn)
        name = f"render_{preset}_reduced" if is_reduced else "render"
        measured = _seconds(turn)
        figures[f"{name}_frame_s"], figures[f"{name}_first_frame_s"] = measured["frame_s"], measured["first_frame_s"]
        voxel = " x ".join(f"{mm:.2f}" for mm in turn.voxel_mm)
        rows.append({"what": name, "preset": preset, "voxel_mm": voxel, "sample_mm": turn.sample_mm, **measured})
        if out is not None:
            Image.fromarray(turn.rgb[0]).save(out / f"{name}.png")
    return figures, rows


def _seconds(turn: Turn) -> dict[str, float]:
    spent = turn.timings
    before = spent.prepare_s + spent.process_s + spent.scene_s
    return {
        "frame_s": median(spent.frames_s),
        "first_frame_s": before + spent.frames_s[0],
        "prepare_s": spent.prepare_s,
        "process_s": spent.process_s,
        "scene_s": spent.scene_s,
        "frames": len(spent.frames_s),
    }


def _refuse_blank(turn: Turn) -> None:
    if any(float((frame.max(axis=2) > 40).mean()) < LEAST_SHOWN for frame in turn.rgb):
        raise Differs(f"{turn.preset}: a frame shows nothing")
    if len(turn.rgb) > 1 and np.array_equal(turn.rgb[0], turn.rgb[1]):
        raise Differs(f"{turn.preset}: two frames of a turn are the same")
