"""What lies along a needle's path from the skin to its target, and at which angles does it run?"""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from reconstruction.errors import ImpossibleView
from reconstruction.geometry import Geometry, Points
from reconstruction.oblique import Plane, extent, oblique, point, read_lines, seen
from reconstruction.planes import Planes, Slab
from reconstruction.volume import Bits, Hu, Volume

LONGEST_MM = 300.0
"""No biopsy needle is longer; a longer path is a slip of the mouse or of the frame of reference."""

MARK_EVERY_MM = 10.0
_SHORTEST_MM = 1.0
_UPRIGHT_PATH = 0.999  # a path within 2.6 degrees of head-feet has no plane near axial
_PROFILE_STEP_MM = 0.5
_THIN = Slab(thickness_mm=0.0, step_mm=1.0, count=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Angles:
    """A path's angles in degrees; from entry to target, in the patient (LPS), whatever way the patient lies.

    ``in_axial_plane_deg``: the path, seen in the axial plane, against the line from front to back. 0 runs straight
    to the back, positive turns to the patient's left (90 runs straight to the left), negative to the right, 180 runs
    straight to the front. ``from_vertical_deg`` is the same without side or sense, 0..90: what a level on the needle
    shows against the plumb line of a supine or prone patient. None for both where the path runs head-feet.
    ``craniocaudal_deg``: the path against the axial plane, -90..90, positive towards the head.
    ``gantry_tilt_deg``: how far the scan plane must be tilted about the patient's right-left axis to hold the whole
    path; None where no tilt below 90 does (gantries that tilt reach about 30). Positive: the plane rises towards the
    head from front to back; for a supine patient, head first, the gantry's top leans towards the feet. Philips writes
    this sign into Gantry/Detector Tilt (0018,1120), GE the other: go by the words.
    """

    in_axial_plane_deg: float | None
    from_vertical_deg: float | None
    craniocaudal_deg: float
    gantry_tilt_deg: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthMark:
    """A place on the path, ``depth_mm`` from the entry, and its (row, column) in the two planes."""

    depth_mm: float
    place_lps_mm: tuple[float, float, float]
    pixel: tuple[float, float]
    pixel_across: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NeedleView:
    """Two pictures at right angles that both hold the whole path from entry to target, and what it measures.

    ``near_axial`` is as near to an axial picture as the path allows (to a coronal one for a path straight head-feet);
    ``perpendicular`` holds the path and the first plane's normal. Both stand upright the radiological way.
    ``entry``, ``target`` and ``depths`` (each 10 mm) tell where they lie in both. ``profile_hu`` are the Hounsfield
    units along the path at ``profile_depth_mm`` from the entry, -1024 where nothing was measured.
    """

    near_axial: Planes
    perpendicular: Planes
    length_mm: float
    angles: Angles
    entry: DepthMark
    target: DepthMark
    depths: tuple[DepthMark, ...]
    profile_depth_mm: Points
    profile_hu: Hu


def needle_view(
    volume: Volume,
    entry_lps_mm: npt.ArrayLike,
    target_lps_mm: npt.ArrayLike,
    *,
    slab: Slab = _THIN,
    size_mm: tuple[float, float] | None = None,
    outside: Bits | None = None,
) -> NeedleView:
    """Show the straight path from an entry point to a target (LPS mm) in two oblique planes at right angles.

    ``slab`` gives thickness and projection of the pictures (its count is one), ``size_mm`` (height, width) about the
    middle of the path, by default the volume's whole cut; ``outside`` (kji) marks voxels that hold no measurement.
    Raises ImpossibleView where the two points are one, either lies outside the volume or is no three numbers, or the
    path is longer than 300 mm.
    """
    entry, target = point(entry_lps_mm, "entry point"), point(target_lps_mm, "target point")
    length = _length(volume.geometry, entry, target)
    direction: Points = (target - entry) / length
    one = replace(slab, count=1)
    normals = _normals(direction)
    near_axial, perpendicular = (
        oblique(volume, Plane.facing(n, (entry + target) / 2.0), slab=one, size_mm=size_mm, outside=outside)
        for n in normals
    )

    def mark(depth_mm: float) -> DepthMark:
        place = entry + direction * depth_mm
        x, y, z = (float(each) for each in place)
        pixels = (pixel_of(planes, place) for planes in (near_axial, perpendicular))
        return DepthMark(depth_mm=depth_mm, place_lps_mm=(x, y, z), pixel=next(pixels), pixel_across=next(pixels))

    depths, profile = _profile(volume, entry, direction, length, outside)
    return NeedleView(
        near_axial=near_axial,
        perpendicular=perpendicular,
        length_mm=length,
        angles=angles(direction),
        entry=mark(0.0),
        target=mark(length),
        depths=tuple(mark(MARK_EVERY_MM * n) for n in range(1, math.ceil(length / MARK_EVERY_MM - 1e-9))),
        profile_depth_mm=depths,
        profile_hu=profile,
    )


def angles(direction: npt.ArrayLike) -> Angles:
    """Return the angles of a direction from entry to target (LPS)."""
    along = point(direction, "direction of the path")
    length = float(np.linalg.norm(along))
    if length < 1e-9:
        raise ImpossibleView("the path has no direction")
    x, y, z = (float(each) / length for each in along)
    flat = math.hypot(x, y)
    upright = flat < math.sqrt(1.0 - _UPRIGHT_PATH**2)
    tilt = math.degrees(math.atan(z / y)) if abs(y) > 1e-9 else 0.0 if abs(z) < 1e-9 else None
    return Angles(
        in_axial_plane_deg=None if upright else math.degrees(math.atan2(x, y)),
        from_vertical_deg=None if upright else math.degrees(math.atan2(abs(x), abs(y))),
        craniocaudal_deg=math.degrees(math.atan2(z, flat)),
        gantry_tilt_deg=tilt,
    )


def pixel_of(planes: Planes, place_lps_mm: Points) -> tuple[float, float]:
    """Return the (row, column), fractional, of a place in the first frame, projected onto it."""
    away = place_lps_mm - planes.origins_lps_mm[0]
    row = float(away @ planes.column_direction) / planes.pixel_spacing_mm[0]
    return row, float(away @ planes.row_direction) / planes.pixel_spacing_mm[1]


def _length(geometry: Geometry, entry: Points, target: Points) -> float:
    for name, place in (("entry", entry), ("target", target)):
        index = geometry.to_index(place)
        if (index < -0.5).any() or (index > np.array(geometry.shape) - 0.5).any():
            raise ImpossibleView(f"the {name} point lies outside the volume, {extent(geometry)}")
    length = float(np.linalg.norm(target - entry))
    if length < _SHORTEST_MM:
        raise ImpossibleView("entry and target are the same point; a path needs two")
    if length > LONGEST_MM:
        raise ImpossibleView(f"a path of {length:.0f} mm is longer than any needle ({LONGEST_MM:.0f} mm)")
    return length


def _normals(direction: Points) -> tuple[Points, Points]:
    """Normals of the plane through the path that is nearest to axial, and of the one across it."""
    nearest = np.array([0.0, 0.0, 1.0]) if abs(direction[2]) < _UPRIGHT_PATH else np.array([0.0, 1.0, 0.0])
    first: Points = nearest - direction * float(direction @ nearest)
    return first, np.cross(direction, first)


def _profile(
    volume: Volume, entry: Points, direction: Points, length: float, outside: Bits | None
) -> tuple[Points, Hu]:
    count = math.floor(length / _PROFILE_STEP_MM + 1e-9) + 1
    step = direction * _PROFILE_STEP_MM
    aside = np.cross(direction, np.roll(np.abs(direction), 1) + 1.0)
    hu = read_lines(volume, seen(volume, outside), (entry[None], step[None], aside[None]), _THIN, count)[0]
    return np.arange(count, dtype=np.float64) * _PROFILE_STEP_MM, hu
