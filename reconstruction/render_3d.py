"""What do bone, brain and vessels look like in space, from one side or turning round the patient?

Cast by ``render_cast`` from a reduced grid, in a child process: what it needs of memory ends with it.
"""

import json
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reconstruction.child import why_failed
from reconstruction.errors import RenderingUnavailable
from reconstruction.geometry import Points
from reconstruction.render import Rgb, lettered
from reconstruction.render_grid import LARGEST, prepared
from reconstruction.render_looks import BONE, GHOST_HU, PRESETS, Preset, PresetName
from reconstruction.volume import Mask, Volume

MOST_FRAMES, LEAST_SIZE, MOST_SIZE = 720, 64, 2048
_STEPS_PER_VOXEL = 2  # where something is seen; elsewhere a sample every voxel of the finest axis
_RIM_SHARE = 1.04


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A direction to look from: ``from_lps`` points from the patient's middle to the eye, ``up_lps`` upwards."""

    name: str
    from_lps: tuple[float, float, float]
    up_lps: tuple[float, float, float] = (0.0, 0.0, 1.0)


ANTERIOR = View(name="anterior", from_lps=(0.0, -1.0, 0.0))
LEFT = View(name="left lateral", from_lps=(1.0, 0.0, 0.0))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rendered:
    """One rendering: RGB (rows, columns, 3), lettered, and the name of its view."""

    rgb: Rgb
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Where the seconds of a rendering went.

    ``prepare_s``: reducing and cropping; ``process_s``: the child's start, imports and its way back;
    ``scene_s``: finding what is empty; ``frames_s``: casting each frame.
    """

    prepare_s: float
    process_s: float
    scene_s: float
    frames_s: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Turn:
    """A rendering that turns round the patient: ``rgb`` is (frames, rows, columns, 3), lettered, with a scale bar.

    Frame n looks from ``angles_deg[n]``: 0 anterior, 90 the patient's left, 180 posterior, 270 the right; the head is
    up. ``pixel_mm`` holds all over a frame (parallel projection). ``voxel_mm`` (k, j, i) is the grid that was cast,
    ``sample_mm`` the largest distance of samples along a ray.
    """

    preset: PresetName
    rgb: Rgb
    angles_deg: tuple[float, ...]
    pixel_mm: float
    voxel_mm: tuple[float, float, float]
    sample_mm: float
    timings: Timings


def render_bone(
    volume: Volume, views: Sequence[View] = (ANTERIOR, LEFT), *, size: int = 512, limit_s: float | None = None
) -> list[Rendered]:
    """Render the bone of a straight volume from each view, from a reduced grid, in a child process.

    Raises NothingToShow where there is no bone, RenderingUnavailable where the child fails or takes longer than
    ``limit_s`` (None: by the work there is), NotAVolume for a sheared volume.
    """
    made = _rendered(prepared_timed(volume, BONE), views, size, limit_s)
    return [
        Rendered(rgb=_lettered(rgb, view, made.pixel_mm, view.name), label=view.name)
        for rgb, view in zip(made.rgb, views, strict=True)
    ]


def render_turn(
    volume: Volume,
    preset: PresetName,
    *,
    frames: int = 36,
    size: int = 512,
    largest: int = LARGEST,
    shown: Mask | None = None,
) -> Turn:
    """Render a straight volume from ``frames`` directions round the patient's head-feet axis, anterior first.

    The eye moves from the front to the patient's left, back and right. "bone" needs nothing more; "brain" needs
    ``shown``, what is brain on the volume's grid; "vessel" shows what is as bright as contrast medium (130 HU and
    more) and dims dense bone to a shadow. Brightness alone tells them apart: spongy bone, thin ribs and organs full of
    contrast medium stay as bright as vessels, and a vessel that touches bone, or is denser than 350 HU over 1 mL, is
    dimmed with it. No more than ``largest``³ voxels are cast.
    Raises NothingToShow with the reason, RenderingUnavailable where the child fails or takes too long, or for a number
    or size of frames that is out of bounds, NotAVolume for a sheared volume or a region of another grid.
    """
    if preset not in PRESETS:
        raise RenderingUnavailable(f"{preset!r} is none of {', '.join(PRESETS)}")
    _refuse(frames, size)
    views = turning(frames)
    made = _rendered(prepared_timed(volume, PRESETS[preset], largest=largest, shown=shown), views, size, None)
    rgb = made.rgb
    for n, view in enumerate(views):
        rgb[n] = _lettered(rgb[n], view, made.pixel_mm, view.name)
    return Turn(
        preset=preset,
        rgb=rgb,
        angles_deg=tuple(360.0 * n / frames for n in range(frames)),
        pixel_mm=made.pixel_mm,
        voxel_mm=made.voxel_mm,
        sample_mm=min(made.voxel_mm),
        timings=made.timings,
    )


def turning(frames: int) -> tuple[View, ...]:
    """Return the views of a whole turn: anterior, then towards the patient's left."""
    turns = [2.0 * math.pi * n / frames for n in range(frames)]
    return tuple(View(name=f"{round(math.degrees(a))}°", from_lps=(math.sin(a), -math.cos(a), 0.0)) for a in turns)


def prepared_timed(volume: Volume, preset: Preset, *, largest: int = LARGEST, shown: Mask | None = None) -> "_Prepared":
    """Prepare the grid of a preset (``render_grid.prepared``) and note how long that took."""
    started = time.perf_counter()
    grid = prepared(volume, preset, largest=largest, shown=shown)
    return _Prepared(grid=grid, preset=preset, seconds=time.perf_counter() - started)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Prepared:
    grid: Volume
    preset: Preset
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Made:
    rgb: Rgb
    pixel_mm: float
    voxel_mm: tuple[float, float, float]
    timings: Timings


def _refuse(frames: int, size: int) -> None:
    if not 1 <= frames <= MOST_FRAMES:
        raise RenderingUnavailable(f"a turn of {frames} frames: 1 to {MOST_FRAMES} can be made")
    if not LEAST_SIZE <= size <= MOST_SIZE:
        raise RenderingUnavailable(f"a picture of {size} pixels: {LEAST_SIZE} to {MOST_SIZE} can be made")


def _rendered(ready: _Prepared, views: Sequence[View], size: int, limit_s: float | None) -> _Made:
    """Let the child cast; raises RenderingUnavailable where it does not come to its end."""
    geometry = ready.grid.geometry
    reach_mm = _reach_mm(ready, views)
    limit = _limit_s(ready.grid, len(views), size) if limit_s is None else limit_s
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="ctriage-render-") as name:
        folder = Path(name)
        np.save(folder / "hu.npy", ready.grid.hu)
        (folder / "job.json").write_text(json.dumps(_job(ready, views, reach_mm, size)), encoding="utf-8")
        reason = why_failed("reconstruction.render_child", folder, limit_s=limit)
        if reason is not None:
            raise RenderingUnavailable(f"the rendering failed: {reason}")
        rgb = np.load(folder / "rgb.npy")
        inside = json.loads((folder / "timings.json").read_text(encoding="utf-8"))
    casting = inside["scene_s"] + sum(inside["frames_s"])
    timings = Timings(
        prepare_s=ready.seconds,
        process_s=time.perf_counter() - started - casting,
        scene_s=inside["scene_s"],
        frames_s=tuple(inside["frames_s"]),
    )
    return _Made(rgb=rgb, pixel_mm=reach_mm / size, voxel_mm=geometry.spacing_mm, timings=timings)


def _job(ready: _Prepared, views: Sequence[View], reach_mm: float, size: int) -> dict[str, Any]:
    geometry = ready.grid.geometry
    return {
        "affine": geometry.affine.tolist(),
        "preset": ready.preset.name,
        "step_mm": min(geometry.spacing_mm) / _STEPS_PER_VOXEL,
        "reach_mm": reach_mm,
        "size": size,
        "views": [{"from_lps": view.from_lps, "up_lps": view.up_lps} for view in views],
    }


def _limit_s(grid: Volume, frames: int, size: int) -> float:
    """Many times what it takes alone on two cores: a minute, and more for many voxels and rays."""
    return 60.0 + grid.hu.size / 2e6 + 4.0 * frames * (size / 512.0) ** 2


def _reach_mm(ready: _Prepared, views: Sequence[View]) -> float:
    """How many mm a square picture spans so that all that is seen fits into every view, with a small rim."""
    geometry = ready.grid.geometry
    drawn = np.argwhere(_outer(ready.grid, ready.preset))
    places = geometry.to_mm(drawn) - geometry.to_mm([(n - 1) / 2.0 for n in geometry.shape])
    half_voxel = float(np.linalg.norm(geometry.spacing_mm)) / 2.0
    sides = np.array([side for view in views for side in (_right(view), np.array(view.up_lps))])
    farthest = max(float(np.abs(places @ side).max()) for side in sides)
    return 2.0 * _RIM_SHARE * (farthest + half_voxel)


def _outer(grid: Volume, preset: Preset) -> Any:
    """The first and the last drawn voxel of each row of voxels: nothing drawn lies farther out than these."""
    outer = np.zeros(grid.hu.shape, dtype=np.bool_)
    for k, flat in enumerate(grid.hu):
        drawn = (flat > preset.seen_from_hu) | (flat == GHOST_HU)
        rows = np.flatnonzero(drawn.any(axis=1))
        outer[k, rows, drawn[rows].argmax(axis=1)] = True
        outer[k, rows, drawn.shape[1] - 1 - drawn[rows, ::-1].argmax(axis=1)] = True
    return outer


def _right(view: View) -> Points:
    right: Points = np.cross(-np.array(view.from_lps), np.array(view.up_lps))
    return right


def _lettered(rgb: Rgb, view: View, pixel_mm: float, caption: str) -> Rgb:
    return lettered(rgb, _right(view), -np.array(view.up_lps), pixel_mm=pixel_mm, caption=caption)
