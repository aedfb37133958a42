"""What does one stack become: an isotropic series, planes, curved and needle views, surfaces, turns, a NIfTI file?"""

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from pacs_bridge.reconstruct_output import ResultFolder
from pacs_bridge.reconstruct_source import Chosen
from pacs_bridge.results.context import Context
from pacs_bridge.results.derived import Reformat, build_derived_series
from pacs_bridge.results.secondary_capture import Capture, CaptureKind, build_capture
from pacs_bridge.results.texts import Language, say
from pipeline.model import Report, ResultObject
from pipeline.process import STRAIGHT_WITHIN_DEG
from reconstruction.assemble import Assembled, assemble, pixel_reader
from reconstruction.curved import Look, curved
from reconstruction.errors import ImpossibleView
from reconstruction.isotropic import isotropic
from reconstruction.needle import Angles, needle_view
from reconstruction.nifti import grid_of, to_nifti, write_slabs
from reconstruction.oblique import Plane, oblique
from reconstruction.planes import Orientation, Planes, Slab
from reconstruction.render import Window
from reconstruction.resample import regularise
from reconstruction.room import give_back
from reconstruction.view_pictures import ViewPicture, curved_picture, needle_pictures
from reconstruction.volume import Bits, Hu, Volume

Point = tuple[float, float, float]
Figures = dict[str, object]
Standard = Literal["axial", "coronal", "sagittal"]
NORMALS: dict[Standard, Point] = {"axial": (0.0, 0.0, 1.0), "coronal": (0.0, 1.0, 0.0), "sagittal": (1.0, 0.0, 0.0)}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Job:
    """A stack, what results say of it, and where they go."""

    chosen: Chosen
    context: Context
    report: Report
    folder: ResultFolder


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Even:
    """A stack as one evenly spaced volume (sheared where it was tilted), and which of its voxels hold no measurement.

    ``max_distance_to_slice_mm`` is None where the voxels are those acquired.
    """

    volume: Volume
    outside: Bits | None
    max_distance_to_slice_mm: float | None


def make_isotropic(job: Job, spacing_mm: float | None, *, nifti: bool) -> Figures:
    """Make an axial series of cubic voxels, slab by slab; ``spacing_mm`` None is as fine as the stack."""
    stack, read = job.chosen.stack, _read(job)
    positions = None if stack.even else stack.slice_positions_mm
    plan = isotropic(read.volume, slice_positions_mm=positions, spacing_mm=spacing_mm, padding=read.padding)
    pictures = plan.pictures
    refuse_too_much(math.prod(pictures.shape) * 2, job.folder.out)
    slabs = _written(job, plan.slabs(), pictures.shape[0])
    with job.folder.series("isotropic"):
        if nifti:
            job.folder.add_file("isotropic.nii.gz", "isotropic", lambda path: write_slabs(path, pictures, slabs))
        else:
            for _ in slabs:
                pass
    return {
        "shape_kji": list(pictures.shape),
        "spacing_mm": pictures.spacing_mm[0],
        "max_distance_to_slice_mm": plan.max_distance_to_slice_mm,
    }


def make_planes(job: Job, facing: Standard | Point, centre_lps_mm: Point | None, slab: Slab, *, nifti: bool) -> Figures:
    """Make parallel pictures of a standard orientation, or across any direction; the centre is the volume's if None."""
    even = straight_volume(job)
    centre = middle_of(even.volume) if centre_lps_mm is None else centre_lps_mm
    plane = Plane.facing(NORMALS[facing] if isinstance(facing, str) else facing, centre)
    with job.folder.busy("resampling"):
        planes = oblique(even.volume, plane, slab=slab, outside=even.outside)
    if isinstance(facing, str):
        orientation: Orientation = facing
        planes = replace(planes, orientation=orientation)
    _add_planes(job, planes)
    if nifti:
        grid = grid_of(planes)
        job.folder.add_file(f"{planes.kind}.nii.gz", planes.kind, lambda path: write_slabs(path, grid, (planes.hu,)))
    return {
        "images": len(planes.hu),
        "normal_lps": [float(x) for x in plane.normal],
        "centre_lps_mm": [float(x) for x in plane.centre_lps_mm],
        "thickness_mm": planes.slice_thickness_mm,
        "step_mm": planes.spacing_between_mm,
        "max_distance_to_slice_mm": even.max_distance_to_slice_mm,
    }


def make_curved(job: Job, points_lps_mm: Sequence[Point], look: Look, view: Window) -> Figures:
    """Make a curved reformat along a path: a picture, for no plane holds it."""
    even = straight_volume(job)
    with job.folder.busy("resampling"):
        made = curved(even.volume, points_lps_mm, look=look, outside=even.outside)
    job.folder.add_object("curved", _captured(job, "curved", 1, curved_picture(made, view)), picture=True)
    return {
        "length_mm": made.length_mm,
        "width_mm": made.hu.shape[1] * made.pixel_mm,
        "thickness_mm": made.thickness_mm,
        "least_bend_mm": made.least_bend_mm if math.isfinite(made.least_bend_mm) else None,
        "unrolling": made.unrolling,
        "max_distance_to_slice_mm": even.max_distance_to_slice_mm,
    }


def make_needle(job: Job, ends_lps_mm: tuple[Point, Point], slab: Slab, view: Window) -> Figures:
    """Make the two planes along a needle's path from entry to target: derived CT, and pictures with the path drawn."""
    even = straight_volume(job)
    made = needle_view(even.volume, *ends_lps_mm, slab=slab, outside=even.outside)
    with job.folder.series("needle"):
        for number, planes in enumerate((made.near_axial, made.perpendicular), start=1):
            reformat = Reformat(planes=planes, stack=job.chosen.row, images_before=number - 1, kind="needle")
            images = build_derived_series(job.context, job.report, reformat, 1)
            job.folder.add_images("needle", images, 2, lambda _: False)
    remarks = _angles_said(made.angles, job.context.language)
    for number, picture in enumerate(needle_pictures(made, view, remarks=remarks), start=1):
        job.folder.add_object(f"needle_{number}", _captured(job, "needle", number, picture), picture=True)
    return {
        "length_mm": made.length_mm,
        "angles": asdict(made.angles),
        "max_distance_to_slice_mm": even.max_distance_to_slice_mm,
    }


def refuse_too_much(bytes_written: int, out: Path) -> None:
    """Refuse what the disk of ``out`` cannot hold before it is begun. Raises ImpossibleView."""
    free = shutil.disk_usage(out).free
    if bytes_written > free:
        raise ImpossibleView(f"this would be {bytes_written / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free in {out}")


def _angles_said(angles: Angles, language: Language) -> tuple[str, str]:
    """Say of each picture of a needle the angle that shows in it; the first has none where the path runs head-feet."""
    sideways, climb = angles.from_vertical_deg, angles.craniocaudal_deg
    seen = "" if sideways is None else say("needle.from_ap", language, angle=f"{sideways:.0f}")
    return seen, say("needle.to_head" if climb >= 0 else "needle.to_feet", language, angle=f"{abs(climb):.0f}")


def make_nifti(job: Job) -> Figures:
    """Write the volume as acquired, shear and all; an uneven stack, which no affine can hold, on its regular grid."""
    even = even_volume(job)
    with job.folder.busy("writing"):
        job.folder.add_file("volume.nii.gz", "nifti", lambda path: to_nifti(even.volume, path))
    geometry = even.volume.geometry
    return {
        "shape_kji": list(geometry.shape),
        "spacing_mm": list(geometry.spacing_mm),
        "tilt_deg": geometry.tilt_deg,
        "max_distance_to_slice_mm": even.max_distance_to_slice_mm,
    }


def straight_volume(job: Job) -> Even:
    """Read the stack; a tilted or uneven one is resampled to a straight, even grid. Raises ReconstructionError."""
    stack = job.chosen.stack
    if stack.even and stack.geometry.tilt_deg <= STRAIGHT_WITHIN_DEG:
        return _as_acquired(_read(job))
    return _regular(job)


def even_volume(job: Job) -> Even:
    """Read the stack, its shear kept; an uneven one is resampled to a regular grid. Raises ReconstructionError."""
    return _as_acquired(_read(job)) if job.chosen.stack.even else _regular(job)


def _as_acquired(read: Assembled) -> Even:
    return Even(volume=read.volume, outside=read.padding, max_distance_to_slice_mm=None)


def _regular(job: Job) -> Even:
    stack, read = job.chosen.stack, _read(job)
    positions = None if stack.even else stack.slice_positions_mm
    with job.folder.busy("evening out"):
        volume, padding = read.volume, read.padding
        made = regularise(
            volume, slice_positions_mm=positions, padding=padding, used=lambda slices: give_back(volume.hu, slices)
        )
    return Even(volume=made.volume, outside=made.outside, max_distance_to_slice_mm=made.max_distance_to_slice_mm)


def _read(job: Job) -> Assembled:
    with job.folder.busy("assembling"):
        return assemble(job.chosen.stack, pixel_reader(job.chosen.paths))


def middle_of(volume: Volume) -> Point:
    """Return the centre of a volume in LPS mm."""
    x, y, z = volume.geometry.to_mm((np.array(volume.hu.shape) - 1) / 2.0)
    return float(x), float(y), float(z)


def _written(job: Job, slabs: Iterator[Planes], total: int) -> Iterator[Hu]:
    """Write the images of each slab as it comes and pass its voxels on; the middle image is drawn."""
    before = 0
    for planes in slabs:
        reformat = Reformat(planes=planes, stack=job.chosen.row, images_before=before)
        images = build_derived_series(job.context, job.report, reformat, 1)
        job.folder.add_images("isotropic", images, total, _only(total // 2 + 1))
        before += len(planes.hu)
        yield planes.hu


def _add_planes(job: Job, planes: Planes) -> None:
    reformat = Reformat(planes=planes, stack=job.chosen.row)
    images = build_derived_series(job.context, job.report, reformat, 1)
    with job.folder.series(planes.kind):
        job.folder.add_images(planes.kind, images, len(planes.hu), lambda _: True)


def _captured(job: Job, kind: CaptureKind, number: int, picture: ViewPicture) -> ResultObject:
    spacing = (picture.pixel_mm, picture.pixel_mm)
    capture = Capture(kind=kind, rgb=picture.rgb, burned_in="NO", stack=job.chosen.row, pixel_spacing_mm=spacing)
    return build_capture(job.context, job.report, capture, number)


def _only(number: int) -> Callable[[int], bool]:
    return lambda index: index == number
