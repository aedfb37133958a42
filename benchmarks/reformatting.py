"""Coronal and sagittal slabs and three maxima of one volume: ours, and SimpleITK's resampling onto the same places.

SimpleITK has no mean slab: it resamples three linear samples a slab (1 mm apart in 3 mm) onto square pixels, on all
cores, and BinShrink averages them; maxima are its projections, resampled to square pixels. ``thin`` leaves the
averaging out: one linear sample a slab, which is less than was asked for.
"""

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
import SimpleITK as sitk

from benchmarks.clock import spent_by
from benchmarks.figures import Bar
from benchmarks.reading import Differs, Figures, Rows
from reconstruction.convert import to_sitk
from reconstruction.geometry import Points
from reconstruction.planes import Planes
from reconstruction.project import standard
from reconstruction.volume import Volume

BARS = {"reformat_ratio_to_simpleitk": Bar(">=", 4.0)}
SAMPLES_A_SLAB = 3
ALIKE_HU = 8.0
"""So far two ways of averaging a noisy slab may lie apart, in the mean over all pixels."""


def measure_reformats(volume: Volume, repetitions: int) -> tuple[Figures, Rows]:
    """Time both, one after the other and all again. Raises Differs where their pictures do."""
    image, ours = to_sitk(volume), list(standard(volume))
    _refuse_difference(ours, _simpleitk(image, ours, SAMPLES_A_SLAB))
    rows: Rows = []
    ways: dict[str, Callable[[], Any]] = {
        "ours": lambda: [planes.hu.shape for planes in standard(volume)],
        "simpleitk": lambda: _simpleitk(image, ours, SAMPLES_A_SLAB),
        "simpleitk_thin": lambda: _simpleitk(image, ours, 1),
    }
    for repetition in range(repetitions):
        row: dict[str, Any] = {"what": "reformats", "slices": len(volume.hu), "repetition": repetition + 1}
        for name, way in ways.items():
            _, spent = spent_by(way)
            row[f"{name}_s"], row[f"{name}_processor_s"] = spent.wall_s, spent.processor_s
        rows.append(row)
    times = {name: median([row[f"{name}_s"] for row in rows]) for name in ways}
    figures = {f"reformat_{name}_s": seconds for name, seconds in times.items()}
    figures["reformat_ratio_to_simpleitk"] = times["simpleitk"] / times["ours"]
    figures["reformat_ratio_to_simpleitk_thin"] = times["simpleitk_thin"] / times["ours"]
    return figures, rows


def _simpleitk(image: sitk.Image, like: Sequence[Planes], samples: int) -> list[sitk.Image]:
    """Make the same five series in the places of ``like``."""
    return [_slabs(image, planes, samples) if planes.kind == "mpr" else _maximum(image, planes) for planes in like]


def _slabs(image: sitk.Image, planes: Planes, samples: int) -> sitk.Image:
    """Resample ``samples`` planes for each slab and average them."""
    step = (planes.spacing_between_mm or planes.slice_thickness_mm) / samples
    start = planes.origins_lps_mm[0] - _normal(planes) * step * (samples - 1) / 2
    frames, rows, columns = planes.hu.shape
    fine = _resampled(image, planes, (columns, rows, frames * samples), (start, step))
    return sitk.BinShrink(fine, [1, 1, samples]) if samples > 1 else fine


def _maximum(image: sitk.Image, planes: Planes) -> sitk.Image:
    """Project along the image's axis that the picture looks along, and make its pixels square."""
    across = int(np.abs(np.array(image.GetDirection()).reshape(3, 3).T @ _normal(planes)).argmax())
    flat = sitk.MaximumProjection(image, across)
    _, rows, columns = planes.hu.shape
    middle = np.array(flat.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in flat.GetSize()]))
    start = planes.origins_lps_mm[0] + _normal(planes) * float((middle - planes.origins_lps_mm[0]) @ _normal(planes))
    return _resampled(flat, planes, (columns, rows, 1), (start, planes.slice_thickness_mm))


def _resampled(
    image: sitk.Image, planes: Planes, size: tuple[int, int, int], from_: tuple[Points, float]
) -> sitk.Image:
    """Resample linearly onto the rows and columns of ``planes``, from an origin on, so far apart."""
    axes = np.column_stack([planes.row_direction, planes.column_direction, _normal(planes)])
    origin, step_mm = from_
    spacing = (planes.pixel_spacing_mm[1], planes.pixel_spacing_mm[0], step_mm)
    return sitk.Resample(
        image, size, sitk.Transform(), sitk.sitkLinear, origin.tolist(), spacing, axes.ravel().tolist(), -1024
    )


def _normal(planes: Planes) -> Points:
    normal: Points = np.cross(planes.row_direction, planes.column_direction)
    return normal


def _refuse_difference(ours: Sequence[Planes], theirs: Sequence[sitk.Image]) -> None:
    for planes, image in zip(ours, theirs, strict=True):
        other = sitk.GetArrayViewFromImage(image)
        if other.shape != planes.hu.shape:
            raise Differs(f"{planes.orientation} {planes.kind}: {other.shape} pictures against {planes.hu.shape}")
        apart = float(np.abs(planes.hu.astype(np.float32) - other).mean())
        if apart > ALIKE_HU:
            raise Differs(f"{planes.orientation} {planes.kind}: {apart:.1f} HU apart in the mean")
