"""Does one patient, scanned straight, tilted, unevenly, reversed or feet first, come back as the same anatomy?

Steel beads at known places and the skin are looked for in the regularised volumes and compared with the patient's own
description, not with another scan: beads by their centre of mass, the skin along its normal in both directions.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from scipy.ndimage import gaussian_filter, label, map_coordinates, maximum_filter, minimum_filter

from benchmarks.figures import Result
from pipeline.phantom.canvas import Canvas, Image, Plane, Vector, ellipsoid
from pipeline.phantom.head import make_head
from pipeline.phantom.scan import Body, Scanned, ScanOptions, scan
from reconstruction.geometry import Geometry
from reconstruction.headers import Header
from reconstruction.resample import regularise
from reconstruction.slices import Stack, stack_of
from reconstruction.volume import Bits, Volume

BEADS_MM = tuple((x, y, z) for x in (-26.0, 27.0) for y in (-30.0, 29.0) for z in (-16.0, 15.0))
"""Eight landmarks round the middle of the body, LPS."""

BEAD_MM, JACKET_MM, BEAD_HU, DENSER_THAN_HU = 4.0, 15.0, 1900.0, 80.0
SKIN_HU = -500.0
CAVITY_MM = 14.0
"""The skin is what a cube of this side touches from outside: air cells of the mastoid and ear canals are open to the
air round the head, or not, by walls thinner than a slice."""

TRUTH_MM = 1.0
REACH_MM, MOST_POINTS = 6.0, 2500
"""How far from the skin its counterpart is looked for, each way."""

GE_HEAD = (*[4.0] * 14, *[7.0] * 9)
"""The distances of the slices of a GE head of the test data, whose lower part is scanned more finely."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Marked:
    """A body with steel beads in jackets of water at known places, in LPS mm."""

    body: Body
    beads_lps_mm: Vector

    @property
    def extent_lps_mm(self) -> tuple[Vector, Vector]:
        """Return the body's own box."""
        return self.body.extent_lps_mm

    @property
    def field_of_view_mm(self) -> float:
        """Return the body's own field of view."""
        return self.body.field_of_view_mm

    def sample(self, plane: Plane, edge_mm: float) -> tuple[Image, Image]:
        """Return HU with the beads painted in, and no lesion."""
        hu, fraction = self.body.sample(plane, edge_mm)
        canvas = straight_canvas(plane, hu, edge_mm)
        for x, y, z in self.beads_lps_mm.tolist():
            canvas.ellipsoid((x, y, z), (JACKET_MM,) * 3, 0.0)
            canvas.ellipsoid((x, y, z), (BEAD_MM,) * 3, BEAD_HU)
        return hu, fraction


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Egg:
    """A body that is drawn fast: soft tissue in a skin, both askew."""

    centre_mm: tuple[float, float, float] = (3.0, -11.0, 6.0)

    @property
    def extent_lps_mm(self) -> tuple[Vector, Vector]:
        """Return the box round it, with some air."""
        centre, half = np.array(self.centre_mm), np.array((68.0, 80.0, 55.0))
        return centre - half, centre + half

    @property
    def field_of_view_mm(self) -> float:
        """Return the side of the scanned square."""
        return 172.0

    def sample(self, plane: Plane, edge_mm: float) -> tuple[Image, Image]:
        """Return HU on a plane in LPS mm, and no lesion."""
        hu = np.full(plane.shape, -1000.0, dtype=np.float32)
        canvas = straight_canvas(plane, hu, edge_mm)
        leaning = replace(canvas, y=canvas.y + np.float32(0.15) * (canvas.z - np.float32(self.centre_mm[2])))
        for half, tissue in (((60.0, 72.0, 47.0), 40.0), ((54.0, 66.0, 41.0), 70.0)):
            leaning.paint(ellipsoid(leaning, self.centre_mm, half), tissue)
        return hu, np.zeros_like(hu)


def straight_canvas(plane: Plane, hu: Image, edge_mm: float) -> Canvas:
    """Return a canvas whose points lie where the plane puts them."""
    x, y, z = (plane.coordinate(axis) for axis in range(3))
    return Canvas(plane=plane, x=x, y=y, z=z, hu=hu, edge_mm=edge_mm)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """One way of scanning; ``turned`` in-plane axes that the scanner stored the other way round, of (rows, columns)."""

    name: str
    options: ScanOptions
    turned: tuple[bool, bool] = (False, False)


def cases(size: Literal["toy", "full"]) -> tuple[Case, ...]:
    """Return the ways in which the patient is scanned."""
    toy = size == "toy"
    pixels = 98 if toy else 256
    even = ScanOptions(
        rows=pixels,
        columns=pixels,
        slice_count=25 if toy else 34,
        slice_step_mm=5.0,
        noise_hu=0.0,
        cupping_hu=0.0,
        detail_mm=1.75 if toy else 0.9,
    )
    uneven = replace(even, slice_count=24, slice_step_mm=5.5, slice_thickness_mm=7.0, slice_offsets_mm=offsets(5.5))
    return (
        Case(name="straight, 5 mm", options=even),
        Case(name="tilted +18.5, 5 mm", options=replace(even, tilt_deg=18.5)),
        Case(name="tilted -18.5, 5 mm", options=replace(even, tilt_deg=-18.5)),
        Case(name="uneven, 4 and 7 mm", options=uneven),
        Case(name="tilted +18.5, uneven, 4 and 7 mm", options=replace(uneven, tilt_deg=18.5)),
        Case(
            name="feet first (columns reversed), tilted +18.5",
            options=replace(even, tilt_deg=18.5),
            turned=(False, True),
        ),
        Case(name="prone (rows and columns reversed), 5 mm", options=even, turned=(True, True)),
    )


def offsets(step_mm: float) -> tuple[float, ...]:
    """Return how far each slice of an uneven scan lies from its even place, along the normal."""
    along = np.concatenate([[0.0], np.cumsum(GE_HEAD)])
    along -= along.mean()
    even = (np.arange(len(along)) - (len(along) - 1) / 2) * step_mm
    return tuple((along - even).tolist())


def run(size: Literal["toy", "full"]) -> Result:
    """Scan the patient in every way; a share of 1 would be half a pixel in plane and half a slice along the normal."""
    body = patient(size)
    truth = described(body)
    rows = [{"scan": case.name, **measured(case, body, truth)} for case in cases(size)]
    worst = {name: max(float(row[name]) for row in rows) for name in rows[0] if name.endswith("share")}
    return Result(name="geometry", figures={f"worst_{name}": value for name, value in worst.items()}, rows=rows)


def patient(size: Literal["toy", "full"]) -> Marked:
    """Return the digital patient: an egg, or a head."""
    body: Body = Egg() if size == "toy" else make_head(np.random.default_rng([5, 1]))
    low, high = body.extent_lps_mm
    middle = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, (low[2] + high[2]) / 2])
    return Marked(body=body, beads_lps_mm=middle + np.array(BEADS_MM))


def described(body: Body) -> Volume:
    """Draw the body itself on a straight grid of 1 mm, without a scanner between."""
    low, high = body.extent_lps_mm
    count = ((high - low) / TRUTH_MM).astype(int) + 1
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, ::-1] * TRUTH_MM
    affine[:3, 3] = low
    hu = np.empty((int(count[2]), int(count[1]), int(count[0])), dtype=np.int16)
    across, down = np.array([TRUTH_MM, 0.0, 0.0]), np.array([0.0, TRUTH_MM, 0.0])
    for k in range(hu.shape[0]):
        origin = low + np.array([0.0, 0.0, k * TRUTH_MM])
        plane = Plane(origin_mm=origin, row_mm=down, column_mm=across, shape=(hu.shape[1], hu.shape[2]))
        hu[k] = np.rint(body.sample(plane, TRUTH_MM)[0])
    return Volume(hu=hu, geometry=Geometry(affine=affine, shape=hu.shape))


def measured(case: Case, body: Marked, truth: Volume) -> dict[str, Any]:
    """Scan, order, regularise; return how far beads and skin lie from where they are."""
    stack, acquired = scanned(case, body)
    result = regularise(acquired, slice_positions_mm=stack.slice_positions_mm)
    pixel, normal = max(acquired.geometry.spacing_mm[1:]), acquired.geometry.normal
    apart = np.array([bead(result.volume, place) - place for place in body.beads_lps_mm])
    along = np.abs(apart @ normal)
    in_plane = np.linalg.norm(apart - np.outer(apart @ normal, normal), axis=1)
    step = float(np.diff(stack.slice_positions_mm).max())
    allowed = Allowed(pixel_mm=pixel, step_mm=step, normal=normal)
    return {
        "pixel_mm": pixel,
        "widest_step_mm": step,
        "max_distance_to_slice_mm": result.max_distance_to_slice_mm,
        "beads_in_plane_mm": float(in_plane.max()),
        "beads_along_normal_mm": float(along.max()),
        "beads_share": float(max((in_plane / (pixel / 2)).max(), (along / (step / 2)).max())),
        **skin(result.volume, ~result.outside, truth, allowed),
    }


def scanned(case: Case, body: Marked) -> tuple[Stack, Volume]:
    """Scan the body and go the way of a series from a scanner: headers in any order, a stack, its volume."""
    made = _scan(body, case.options)
    spacing = made.volume.geometry.spacing_mm[1:]
    row, column = (made.volume.geometry.affine[:3, a] / made.volume.geometry.spacing_mm[a] for a in (2, 1))
    hu, origins = made.volume.hu, made.positions_lps_mm
    if case.turned[0]:
        hu, origins, column = hu[:, ::-1], origins + column * spacing[0] * (hu.shape[1] - 1), -column
    if case.turned[1]:
        hu, origins, row = hu[:, :, ::-1], origins + row * spacing[1] * (hu.shape[2] - 1), -row
    headers = [
        Header(
            sop_instance_uid=str(n),
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            series_instance_uid="1",
            modality="CT",
            instance_number=n,
            rows=hu.shape[1],
            columns=hu.shape[2],
            orientation=(*row.tolist(), *column.tolist()),
            position_mm=(*origin.tolist(),),
            pixel_spacing_mm=(spacing[0], spacing[1]),
            tilt_tag_deg=case.options.tilt_deg,
        )
        for n, origin in enumerate(origins)
    ]
    stack = stack_of(list(np.random.default_rng(2).permutation(np.array(headers, dtype=object))))
    order = [int(header.sop_instance_uid) for header in stack.headers]
    return stack, Volume(hu=np.ascontiguousarray(hu[order]), geometry=stack.geometry)


@lru_cache(maxsize=8)
def _scan(body: Marked, options: ScanOptions) -> Scanned:
    return scan(body, options, np.random.default_rng(1))


def bead(volume: Volume, place: Vector) -> Vector:
    """Return the centre of mass of what is denser than tissue round a place."""
    reach = int(np.ceil((JACKET_MM - 2.0) / volume.geometry.spacing_mm[0]))
    middle = np.rint(volume.geometry.to_index(place)).astype(int)
    box = tuple(slice(max(m - reach, 0), m + reach + 1) for m in middle)
    kji = np.stack(np.meshgrid(*[np.arange(s.start, s.stop) for s in box], indexing="ij"), axis=-1)
    points, mass = volume.geometry.to_mm(kji), np.clip(volume.hu[box].astype(float) - DENSER_THAN_HU, 0, None)
    mass *= np.linalg.norm(points - place, axis=-1) < JACKET_MM - 2.0
    return np.asarray((points * mass[..., None]).sum(axis=(0, 1, 2)) / mass.sum())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Allowed:
    """How far a surface may lie from its place: half a pixel in plane, half the widest step along the normal."""

    pixel_mm: float
    step_mm: float
    normal: Vector

    def along(self, directions: Vector) -> Vector:
        """Return the farthest that a surface facing that way is moved by a shift within those bounds, in mm."""
        upright = np.abs(directions @ self.normal)
        return np.asarray(0.5 * self.step_mm * upright + 0.5 * self.pixel_mm * np.sqrt(np.clip(1 - upright**2, 0, 1)))


def skin(made: Volume, seen: Bits, truth: Volume, allowed: Allowed) -> dict[str, float]:
    """Measure the skin of the regularised volume from the truth's and the truth's from it, along its normals."""
    distances, shares = [], []
    for one, other in ((made, truth), (truth, made)):
        points, directions = surface_points(one, seen) if one is made else _whole_surface(one)
        points, directions = within(other, np.ones(other.hu.shape, dtype=np.bool_), points, directions)
        points, directions = within(made, seen, points, directions)
        distance = crossing_mm(other, points, directions)
        distances.append(distance)
        shares.append(distance / allowed.along(directions))
    distance, share = np.concatenate(distances), np.concatenate(shares)
    return {
        "skin_points": float(len(distance)),
        "skin_p95_mm": float(np.percentile(distance, 95)),
        "skin_max_mm": float(distance.max()),
        "skin_p95_share": float(np.percentile(share, 95)),
        "skin_max_share": float(share.max()),
    }


def surface_points(volume: Volume, seen: Bits) -> tuple[Vector, Vector]:
    """Return places on the skin, between two neighbouring voxels of which one is air round the body, and its normal."""
    air = volume.hu < SKIN_HU
    outer = _air_round_the_body(air, volume.geometry)
    found = []
    for axis in range(3):
        low, high = (tuple(np.moveaxis(bits, axis, 0)[part] for bits in (outer, air, seen)) for part in _NEIGHBOURS)
        at = np.argwhere(((low[0] & ~high[1]) | (high[0] & ~low[1])) & low[2] & high[2])
        values = np.moveaxis(volume.hu, axis, 0)
        a, b = (values[part][tuple(at.T)].astype(float) for part in _NEIGHBOURS)
        index = at.astype(float)
        index[:, 0] += (SKIN_HU - a) / (b - a)
        order = [axis, *[n for n in range(3) if n != axis]]
        found.append(index[:, np.argsort(order)])
    chosen = np.random.default_rng(0).permutation(np.concatenate(found))[:MOST_POINTS]
    points = volume.geometry.to_mm(chosen)
    return points, directions_at(volume, points)


_NEIGHBOURS = (slice(None, -1), slice(1, None))


def _air_round_the_body(air: Bits, geometry: Geometry) -> Bits:
    """Return the air from outside, as far as a cube of CAVITY_MM enters."""
    found, count = label(air)
    is_outer = np.zeros(count + 1, dtype=np.bool_)
    is_outer[found[:, [0, -1]][:, :, [0, -1]]] = True
    outer = is_outer[found] & air
    side = round(CAVITY_MM / geometry.spacing_mm[0]) | 1
    return np.asarray(maximum_filter(minimum_filter(outer, size=side), size=side) & outer)


@lru_cache(maxsize=1)
def _whole_surface(volume: Volume) -> tuple[Vector, Vector]:
    return surface_points(volume, np.ones(volume.hu.shape, dtype=np.bool_))


def directions_at(volume: Volume, points: Vector) -> Vector:
    """Return the unit direction in which the volume grows denser at these places."""
    soft = gaussian_filter(volume.hu, 2.0, output=np.float32, truncate=2.5)
    field = Field(values=soft, geometry=volume.geometry)
    slopes = [field.at(points + step) - field.at(points - step) for step in np.eye(3)]
    slope = np.stack(slopes, axis=1)
    return np.asarray(slope / np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-6))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Field:
    """Values that can be read between voxels."""

    values: np.ndarray[Any, np.dtype[np.float32]]
    geometry: Geometry

    def at(self, points: Vector) -> Vector:
        """Read linearly; beyond the grid the nearest voxel's value."""
        index = np.moveaxis(self.geometry.to_index(points), -1, 0)
        return np.asarray(map_coordinates(self.values, index, order=1, mode="nearest"), dtype=np.float64)


def within(volume: Volume, seen: Bits, points: Vector, directions: Vector) -> tuple[Vector, Vector]:
    """Keep the places round which the volume was seen, as far as a counterpart is looked for."""
    field = Field(values=seen.astype(np.float32), geometry=volume.geometry)
    inside = np.ones(len(points), dtype=np.bool_)
    for reach in (-REACH_MM, 0.0, REACH_MM):
        places = points + reach * directions
        index = volume.geometry.to_index(places)
        inside &= ((index >= 0) & (index <= np.array(volume.geometry.shape) - 1)).all(axis=-1)
        inside &= field.at(places) > 0.99
    return points[inside], directions[inside]


def crossing_mm(volume: Volume, points: Vector, directions: Vector) -> Vector:
    """Return how far along each direction the skin lies, either way; REACH_MM where it is not found."""
    along = np.arange(-REACH_MM, REACH_MM + 0.05, 0.1)
    field = Field(values=volume.hu.astype(np.float32), geometry=volume.geometry)
    values = field.at(points[:, None] + along[None, :, None] * directions[:, None])
    rising = (values[:, :-1] < SKIN_HU) & (values[:, 1:] >= SKIN_HU)
    share = (SKIN_HU - values[:, :-1]) / np.where(rising, values[:, 1:] - values[:, :-1], 1.0)
    places = np.where(rising, np.abs(along[None, :-1] + 0.1 * share), REACH_MM)
    return np.asarray(places.min(axis=1))
