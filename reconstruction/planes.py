"""What is a stack of derived pictures with a place in the patient: reformatted slabs or projections?"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from reconstruction.errors import NotAVolume
from reconstruction.geometry import Points
from reconstruction.volume import Hu

Orientation = Literal["axial", "coronal", "sagittal", "oblique"]
PlanesKind = Literal["mpr", "mip", "minip", "isotropic"]


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
