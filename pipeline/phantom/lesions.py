"""What can be wrong with a digital head: a bleed in the brain, one below the dura, a depressed fracture."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from pipeline.phantom.blob import Blob, NoRoom, make_blob, solve
from pipeline.phantom.canvas import Canvas, Image, Place, Plane, Vector, ramp
from pipeline.phantom.placing import Pose
from pipeline.phantom.skull import Shell, Skull, measure, paint_bone

CLOT_IN_WOUND_HU = 58.0
TRIAL_MM = 2.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bleed:
    """An intraparenchymal bleed: an irregular clot inside the cavity, in the head's own mm."""

    blob: Blob
    threshold: float
    hu: float

    def paint(self, canvas: Canvas, shell: Shell, inside: Image) -> Image:
        """Paint the clot and return its filled fraction."""
        fraction = np.zeros_like(canvas.hu)
        centre, reach = _place(self.blob.centre_mm), 2.2 * self.blob.radius_mm
        part, window = canvas.near(centre, reach), canvas.plane.near(centre, reach + 8.0)
        if part is not None and window is not None:
            levels = self.blob.level(part.points())
            fraction[window] = self.blob.filled(levels, self.threshold) * ramp(shell.cavity[window], -1.0, -2.5)
            part.blend(fraction[window], self.hu)
        return fraction


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subdural:
    """A crescent of blood along the inner table round ``towards`` (a unit vector in the head's own axes)."""

    towards: Vector
    width: float
    thickness_mm: float
    hu: float

    def paint(self, canvas: Canvas, shell: Shell, inside: Image) -> Image:
        """Paint the crescent and return its filled fraction."""
        fraction = canvas.inside(crescent(canvas, shell, self, self.thickness_mm)) * inside
        canvas.blend(fraction, self.hu)
        return fraction


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fracture:
    """A piece of the vault broken out and pushed in by up to ``drop_mm``, with cracks running on from its corners.

    ``frame`` holds two tangents and the outward normal as rows; ``sides`` the (angle, distance in mm) of the broken
    edges round ``centre_mm``; ``cracks`` the (angle, length in mm). ``hinge``: the angle of the side pushed least.
    """

    centre_mm: Vector
    frame: Vector
    sides: tuple[tuple[float, float], ...]
    cracks: tuple[tuple[float, float], ...]
    drop_mm: float
    hinge: float

    def paint(self, canvas: Canvas, skull: Skull, shell: Shell) -> Image:
        """Break the bone; return the fraction of fragment, broken edges and cracks."""
        lesion = np.zeros_like(canvas.hu)
        part = canvas.near(_place(self.centre_mm), 60.0)
        window = canvas.plane.near(_place(self.centre_mm), 68.0)
        if part is None or window is None:
            return lesion
        local = _cut(shell, window)
        u, v = self._tangents(part)
        edge = _polygon(u, v, self.sides)
        lesion[window] = np.maximum(self._push_in(part, skull, local, edge, u, v), self._crack(part, local, edge, u, v))
        return lesion

    def _tangents(self, part: Canvas) -> tuple[Image, Image]:
        """Return both coordinates along the vault; far away where the normal points to the other side."""
        away = part.points() - self.centre_mm.astype(np.float32)
        u, v, up = (away @ axis.astype(np.float32) for axis in self.frame)
        return np.asarray(u + 500 * (up < -45)), np.asarray(v)

    def _push_in(self, part: Canvas, skull: Skull, shell: Shell, edge: Image, u: Image, v: Image) -> Image:
        slope = np.cos(self.hinge) * u + np.sin(self.hinge) * v
        push = np.float32(self.drop_mm) * np.clip(0.7 + slope * np.float32(0.025), 0.25, 1.0)
        part.paint(np.maximum(_bone(shell), edge), CLOT_IN_WOUND_HU)
        pushed = replace(shell, cavity=shell.cavity + push, bone=shell.bone + push)
        piece = replace(part, hu=part.hu.copy())
        paint_bone(piece, skull, pushed)
        fraction = part.inside(np.maximum(_bone(pushed), edge + np.float32(0.8)))
        part.blend(fraction, piece.hu)
        return fraction

    def _crack(self, part: Canvas, shell: Shell, edge: Image, u: Image, v: Image) -> Image:
        """Paint the broken edge and the cracks; return them with a millimetre on each side."""
        lines = np.abs(edge)
        for angle, length in self.cracks:
            along = np.cos(angle) * u + np.sin(angle) * v
            across = np.abs(np.cos(angle) * v - np.sin(angle) * u + 1.2 * np.sin(along * np.float32(0.35)))
            lines = np.minimum(lines, across + np.maximum(along - length, 0) + np.maximum(-edge, 0) + 99 * (along < 0))
        bone = _bone(shell)
        part.paint(np.asarray(np.maximum(bone, lines - np.float32(0.8)), dtype=np.float32), CLOT_IN_WOUND_HU)
        return part.inside(np.asarray(np.maximum(bone, lines - np.float32(1.8)), dtype=np.float32))


Lesion = Bleed | Subdural | Fracture


def make_bleed(
    rng: np.random.Generator, *, pose: Pose, skull: Skull, centre_mm: Vector, volume_ml: float, hu: float
) -> Bleed:
    """Draw a clot of ``volume_ml`` round ``centre_mm`` (the head's own axes); raises NoRoom outside the brain."""
    blob = make_blob(rng, centre_mm=centre_mm, volume_ml=volume_ml)
    trial = list(_trial_canvases(pose, centre_mm, 2.2 * blob.radius_mm))
    room = np.stack([ramp(measure(canvas, skull).cavity, -1.0, -2.5) for canvas in trial])
    levels = np.stack([blob.level(canvas.points()) for canvas in trial])
    wanted = volume_ml * 1000.0 / TRIAL_MM**3
    threshold = solve(lambda t: float((blob.filled(levels, t) * room).sum(dtype=np.float64)), wanted, most=2.0)
    if threshold is None:
        raise NoRoom(f"the brain around the centre given has no room for {volume_ml:g} mL")
    return Bleed(blob=blob, threshold=threshold, hu=hu)


def make_subdural(rng: np.random.Generator, *, pose: Pose, skull: Skull, volume_ml: float, hu: float) -> Subdural:
    """Draw a crescent of ``volume_ml`` over one hemisphere."""
    side = rng.choice([-1.0, 1.0])
    towards = np.array([side, rng.uniform(-0.5, 0.5), rng.uniform(0.15, 0.55)])
    draft = Subdural(
        towards=towards / np.linalg.norm(towards), width=float(rng.uniform(0.75, 0.95)), thickness_mm=0.0, hu=hu
    )
    trial = [(c, measure(c, skull)) for c in _trial_canvases(pose, np.zeros(3), 96.0, step_mm=3.0)]

    def amount(thickness_mm: float) -> float:
        return sum(float(c.inside(crescent(c, s, draft, thickness_mm)).sum()) for c, s in trial)

    thickness = solve(amount, volume_ml * 1000.0 / 27.0, most=30.0)
    if thickness is None:
        raise NoRoom(f"no crescent holds {volume_ml:g} mL")
    return replace(draft, thickness_mm=thickness)


def make_fracture(rng: np.random.Generator, *, skull: Skull, towards: Vector, drop_mm: float) -> Fracture:
    """Draw a depressed fracture where the unit vector ``towards`` (the head's own axes) meets the vault."""
    radius = 1.0 / np.linalg.norm(towards / np.asarray(skull.half_mm))
    aside = np.cross(towards, [0.0, 0.0, 1.0])
    aside /= np.linalg.norm(aside)
    angles = np.sort(np.linspace(0, 2 * np.pi, 6, endpoint=False) + rng.uniform(-0.3, 0.3, size=6))
    reach = rng.uniform(11.0, 16.0, size=6)
    cracks = tuple((float(a + np.pi / 6), float(rng.uniform(28, 45))) for a in rng.choice(angles, 3, replace=False))
    return Fracture(
        centre_mm=towards * (radius + skull.thickness_mm / 2),
        frame=np.stack([aside, np.cross(towards, aside), towards]),
        sides=tuple(zip(angles.tolist(), reach.tolist(), strict=True)),
        cracks=cracks,
        drop_mm=drop_mm,
        hinge=float(rng.uniform(0, 2 * np.pi)),
    )


def crescent(canvas: Canvas, shell: Shell, subdural: Subdural, thickness_mm: float) -> Image:
    """Return the distance to a crescent of that greatest thickness below the dura."""
    points = canvas.points()
    length = np.linalg.norm(points, axis=-1) + np.float32(1e-3)
    near = (points @ subdural.towards.astype(np.float32)) / length
    share = ramp(near, float(np.cos(subdural.width * 1.25)), float(np.cos(subdural.width * 0.35)))
    deep = shell.cavity + np.float32(0.8)
    return np.asarray(np.maximum(deep, -deep - np.float32(thickness_mm) * share + 3 * (share < 0.02)))


def _place(point: Vector) -> Place:
    return float(point[0]), float(point[1]), float(point[2])


def _bone(shell: Shell) -> Image:
    return np.maximum(shell.bone, -shell.cavity)


def _cut(shell: Shell, window: tuple[slice, slice]) -> Shell:
    return Shell(
        cavity=shell.cavity[window],
        bone=shell.bone[window],
        skin=shell.skin[window],
        thickness=shell.thickness[window],
        dome=shell.dome[window],
    )


def _polygon(u: Image, v: Image, sides: tuple[tuple[float, float], ...]) -> Image:
    distances = [np.cos(angle) * u + np.sin(angle) * v - reach for angle, reach in sides]
    return np.asarray(np.max(distances, axis=0), dtype=np.float32)


def _trial_canvases(pose: Pose, centre: Vector, reach_mm: float, step_mm: float = TRIAL_MM) -> Iterator[Canvas]:
    """Yield level planes of the head's own axes round a point, for measuring volumes before anything is scanned."""
    count = int(np.ceil(2 * reach_mm / step_mm))
    for z in (np.arange(count) - (count - 1) / 2) * step_mm:
        origin = centre + np.array([-(count - 1) / 2 * step_mm, -(count - 1) / 2 * step_mm, z])
        plane = Plane(
            origin_mm=origin,
            row_mm=np.array([0.0, step_mm, 0.0]),
            column_mm=np.array([step_mm, 0.0, 0.0]),
            shape=(count, count),
        )
        yield pose.own_canvas(plane, step_mm)
