"""How a body lies on the table, and how it is bent."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from pipeline.phantom.canvas import Canvas, Plane, Vector
from pipeline.phantom.waves import Waves, make_waves


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pose:
    """A turn and a shift from the body's own axes to LPS mm, and a smooth bending of ``bend_mm`` along each axis."""

    turn: Vector
    shift_mm: Vector
    bend_mm: float
    bends: tuple[Waves, Waves, Waves]

    def canvas(self, plane: Plane, edge_mm: float) -> Canvas:
        """Return an empty canvas (air) for a plane in LPS mm."""
        return self.own_canvas(plane.moved(self.turn.T, self.shift_mm), edge_mm)

    def own_canvas(self, own: Plane, edge_mm: float) -> Canvas:
        """Return an empty canvas (air) for a plane in the body's own mm."""
        x, y, z = (own.coordinate(axis) + np.float32(self.bend_mm) * self.bends[axis].on(own) for axis in range(3))
        return Canvas(plane=own, x=x, y=y, z=z, hu=np.full(own.shape, -1000, dtype=np.float32), edge_mm=edge_mm)

    def to_lps(self, own_mm: Vector) -> Vector:
        """Map (..., 3) points of the body's own axes to LPS mm."""
        return np.asarray(own_mm @ self.turn.T + self.shift_mm)

    def to_own(self, lps_mm: Vector) -> Vector:
        """Map (..., 3) LPS mm to the body's own axes."""
        return np.asarray((lps_mm - self.shift_mm) @ self.turn)


def make_pose(rng: np.random.Generator, *, turn_deg: float, bend_mm: float, length_mm: float = 130.0) -> Pose:
    """Draw a pose turned a few degrees and shifted a few mm."""
    angles = rng.normal(0, turn_deg / 2, size=3).clip(-turn_deg, turn_deg)
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    shift = np.round(rng.normal(0, 4.0, size=3) + np.array([0.0, -20.0, 0.0]), 2)
    waves = (make_waves(rng, length_mm=length_mm), make_waves(rng, length_mm=length_mm))
    return Pose(turn=turn, shift_mm=shift, bend_mm=bend_mm, bends=(*waves, make_waves(rng, length_mm=length_mm)))
