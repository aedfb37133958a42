"""What does each rendering show, in which colours, and when is there nothing of it to be seen?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from reconstruction.render_cast import UNLIT_HU, Looks

PresetName = Literal["bone", "brain", "vessel"]
AIR_HU = -1024
GHOST_HU = -2000  # what takes the place of bone where bone is dimmed: on its far side of air, so that no edge shows


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A way to show a volume: what is seen from ``seen_from_hu`` on, at least ``least_ml`` of it.

    ``opacity`` is that of one voxel's length; from ``sure_hu`` across two voxels on, the gradient alone gives light.
    """

    name: PresetName
    seen_from_hu: int
    least_ml: float
    missing: str
    sure_hu: float
    opacity: tuple[tuple[float, float], ...]
    colour: tuple[tuple[float, tuple[float, float, float]], ...]

    def looks(self, voxel_mm: float) -> Looks:
        """Return the transfer function for a grid: thin sheets of one voxel show at any grid's spacing."""
        return Looks(opacity=self.opacity, colour=self.colour, depth_mm=voxel_mm, sure_hu=self.sure_hu)


BONE = Preset(
    name="bone",
    seen_from_hu=150,
    least_ml=0.05,
    missing="no bone in the image",
    sure_hu=400.0,
    opacity=((150, 0.0), (350, 0.4), (700, 0.9), (3071, 1.0)),
    colour=((150, (0.75, 0.50, 0.38)), (400, (0.93, 0.85, 0.72)), (1500, (1.0, 1.0, 0.95))),
)
BRAIN = Preset(
    name="brain",
    seen_from_hu=10,
    least_ml=20.0,
    missing="no brain in the region given",
    sure_hu=60.0,
    opacity=((8, 0.0), (25, 0.25), (35, 0.7), (3071, 0.9)),
    colour=(
        (10, (0.55, 0.45, 0.50)),
        (25, (0.80, 0.64, 0.60)),
        (42, (0.92, 0.80, 0.74)),
        (55, (0.90, 0.62, 0.55)),
        (65, (0.80, 0.15, 0.12)),
        (100, (0.75, 0.08, 0.08)),
        (150, (0.96, 0.93, 0.86)),
    ),
)
VESSEL = Preset(
    name="vessel",
    seen_from_hu=130,
    least_ml=1.0,
    missing="nothing as bright as contrast medium but bone",
    sure_hu=150.0,
    opacity=((GHOST_HU, 0.02), (UNLIT_HU, 0.0), (130, 0.0), (180, 0.25), (300, 0.7), (450, 0.9), (3071, 0.95)),
    colour=(
        (GHOST_HU, (0.66, 0.65, 0.62)),
        (UNLIT_HU, (0.66, 0.65, 0.62)),
        (130, (0.55, 0.10, 0.08)),
        (220, (0.85, 0.22, 0.15)),
        (450, (1.0, 0.72, 0.55)),
    ),
)
PRESETS: Mapping[str, Preset] = {preset.name: preset for preset in (BONE, BRAIN, VESSEL)}
