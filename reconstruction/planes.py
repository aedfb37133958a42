"""What is a stack of derived pictures with a place in the patient: reformatted slabs or projections?"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from reconstruction.errors import ImpossibleView, NotAVolume
from reconstruction.geometry import Points
from reconstruction.volume import Hu

Orientation = Literal["axial", "coronal", "sagittal", "oblique"]
PlanesKind = Literal["mpr", "mip", "minip", "isotropic"]
Projection = Literal["mean", "mip", "minip"]
KIND_OF: dict[Projection, PlanesKind] = {"mean": "mpr", "mip": "mip", "minip": "minip"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Slab:
    """How thick parallel pictures are, how far apart they lie (mm), how many, and what of a slab each pixel shows.

    A thickness below one voxel shows a single sample. ``step_mm`` None puts slab beside slab (a slab without
    thickness needs a step); ``count`` None asks for as many as the volume holds. Raises ImpossibleView.
    """

    thickness_mm: float = 3.0
    step_mm: float | None = None
    count: int | None = None
    projection: Projection = "mean"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.thickness_mm) and self.thickness_mm >= 0):
            raise ImpossibleView(f"a slab cannot be {self.thickness_mm:g} mm thick")
        if self.count is not None and self.count < 1:
            raise ImpossibleView(f"{self.count} pictures cannot be made")
        if self.count != 1 and not (math.isfinite(self.distance_mm) and self.distance_mm > 0):
            raise ImpossibleView("parallel pictures need a distance of more than 0 mm between them")
        if self.projection not in KIND_OF:
            raise ImpossibleView(f"no such projection: {self.projection} (there are {', '.join(KIND_OF)})")

    @property
    def distance_mm(self) -> float:
        """Distance of neighbouring pictures."""
        return self.thickness_mm if self.step_mm is None else self.step_mm


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Planes:
    """Parallel pictures in Hounsfield units, ready to be shown the radiological way, each with its place (LPS mm).

    ``hu`` is (frames, rows, columns); ``origins_lps_mm`` (frames, 3) is the centre of each frame's first pixel;
    ``row_direction`` points along a row (growing column index), ``column_direction`` down a column (growing row
    index), as DICOM's Image Orientation (Patient) (PS3.3 C.7.6.2.1.1); ``pixel_spacing_mm`` is (row, column) spacing.
    ``spacing_between_mm`` is None for a single frame.
    """

    hu: Hu
    origins_lps_mm: Points
    row_direction: Points
    column_direction: Points
    pixel_spacing_mm: tuple[float, float]
    slice_thickness_mm: float
    spacing_between_mm: float | None
    orientation: Orientation
    kind: PlanesKind

    def __post_init__(self) -> None:
        if self.hu.ndim != 3 or self.hu.dtype != np.int16 or self.origins_lps_mm.shape != (len(self.hu), 3):
            raise NotAVolume("derived pictures need int16 frames and one origin for each")
        if abs(float(self.row_direction @ self.column_direction)) > 1e-4:
            raise NotAVolume("the rows and columns of derived pictures are not at right angles")
        for array in (self.hu, self.origins_lps_mm, self.row_direction, self.column_direction):
            array.flags.writeable = False

    def to_mm(self, frame: int, row: float, column: float) -> Points:
        """Map a pixel (fractional row and column allowed) to LPS millimetres."""
        down = self.column_direction * (row * self.pixel_spacing_mm[0])
        along = self.row_direction * (column * self.pixel_spacing_mm[1])
        place: Points = self.origins_lps_mm[frame] + down + along
        return place
