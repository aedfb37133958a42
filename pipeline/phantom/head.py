"""A digital head: where it lies, how it is bent, and what it is made of."""

from dataclasses import dataclass

import numpy as np

from pipeline.phantom.brain import Brain, make_brain, paint_brain
from pipeline.phantom.canvas import Image, Plane, Vector
from pipeline.phantom.lesions import Bleed, Fracture, Lesion, Subdural
from pipeline.phantom.placing import Pose, make_pose
from pipeline.phantom.skull import Skull, make_skull, measure, paint_bone, paint_outside
from pipeline.phantom.skull_base import paint_base


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Head:
    """One head, at most one lesion in it. ``extent_lps_mm``: the (low, high) corners a scan may cover."""

    pose: Pose
    skull: Skull
    brain: Brain
    lesion: Lesion | None = None

    @property
    def extent_lps_mm(self) -> tuple[Vector, Vector]:
        """Return the box round the part that is scanned: from the skull's base to the vertex."""
        half = self.skull.half_mm
        low = np.array([-half[0] - 22.0, -half[1] - 32.0, -62.0])
        high = np.array([half[0] + 22.0, half[1] + 28.0, half[2] + 18.0])
        return low + self.pose.shift_mm, high + self.pose.shift_mm

    @property
    def field_of_view_mm(self) -> float:
        """Return the side of the scanned square."""
        return 235.0

    def sample(self, plane: Plane, edge_mm: float) -> tuple[Image, Image]:
        """Return HU and the lesion's filled fraction on a plane in LPS mm."""
        canvas = self.pose.canvas(plane, edge_mm)
        shell = measure(canvas, self.skull)
        paint_outside(canvas, self.skull, shell)
        paint_bone(canvas, self.skull, shell)
        paint_base(canvas, self.skull, shell)
        inside = paint_brain(canvas, self.brain, shell)
        match self.lesion:
            case Fracture():
                return canvas.hu, self.lesion.paint(canvas, self.skull, shell)
            case Bleed() | Subdural():
                return canvas.hu, self.lesion.paint(canvas, shell, inside)
        return canvas.hu, np.zeros_like(canvas.hu)


def make_head(rng: np.random.Generator) -> Head:
    """Draw one healthy head."""
    return Head(pose=make_pose(rng, turn_deg=3.5, bend_mm=1.6), skull=make_skull(rng), brain=make_brain(rng))
