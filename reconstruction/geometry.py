"""Where does a voxel lie in the patient?"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from reconstruction.errors import NotAVolume

Affine = npt.NDArray[np.float64]
Points = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Geometry:
    """A grid of voxels in the patient: index (k, j, i) -> LPS millimetres, shear allowed.

    ``affine`` is 4x4 and maps homogeneous (k, j, i, 1) of voxel centres to (x, y, z, 1) in the DICOM patient
    coordinate system (LPS, mm; PS3.3 C.7.6.2.1.1). k counts slices, j rows (down a column), i columns.
    ``frame_of_reference_uid`` None joins nothing. Raises NotAVolume when the affine is not finite or not invertible.
    """

    affine: Affine
    shape: tuple[int, int, int]
    frame_of_reference_uid: str | None = None

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise NotAVolume("the image geometry holds values that are no numbers")
        if abs(float(np.linalg.det(affine[:3, :3]))) < 1e-9:
            raise NotAVolume("the image axes do not span a volume")
        if min(self.shape) < 1:
            raise NotAVolume("the volume has no voxels")
        affine.flags.writeable = False
        object.__setattr__(self, "affine", affine)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxel centres along k, j and i; along k it includes the shear."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(lengths[0]), float(lengths[1]), float(lengths[2])

    @property
    def normal(self) -> Points:
        """Unit normal of the slice plane, pointing towards growing k."""
        normal: Points = np.cross(self.affine[:3, 2], self.affine[:3, 1])
        normal /= np.linalg.norm(normal)
        return normal if float(normal @ self.affine[:3, 0]) > 0 else -normal

    @property
    def slice_step_mm(self) -> float:
        """Distance of neighbouring slice planes, measured along the normal."""
        return float(self.normal @ self.affine[:3, 0])

    @property
    def tilt_deg(self) -> float:
        """Angle between the stack's axis and the slice normal, >= 0 (the gantry's tilt for CT)."""
        axis = self.affine[:3, 0] / np.linalg.norm(self.affine[:3, 0])
        sine = float(np.linalg.norm(np.cross(axis, self.normal)))
        return float(np.degrees(np.arctan2(sine, float(axis @ self.normal))))

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    def to_mm(self, kji: npt.ArrayLike) -> Points:
        """Map (..., 3) indices to LPS millimetres."""
        return np.asarray(kji, dtype=np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_index(self, lps_mm: npt.ArrayLike) -> Points:
        """Map (..., 3) LPS millimetres to fractional (k, j, i) indices."""
        inverse = np.linalg.inv(self.affine).astype(np.float64, copy=False)
        return np.asarray(lps_mm, dtype=np.float64) @ inverse[:3, :3].T + inverse[:3, 3]

    def cropped(self, origin_kji: tuple[int, int, int], shape: tuple[int, int, int]) -> Self:
        """Return the geometry of a box of this grid that starts at ``origin_kji``."""
        affine = self.affine.copy()
        affine[:3, 3] = self.to_mm(origin_kji)
        return type(self)(affine=affine, shape=shape, frame_of_reference_uid=self.frame_of_reference_uid)

    def agrees_with(self, other: "Geometry", *, within_mm: float) -> bool:
        """Say whether both grids have one shape and put every corner within ``within_mm`` of each other."""
        if self.shape != other.shape:
            return False
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape])).reshape(3, -1).T
        apart = np.linalg.norm(self.to_mm(corners) - other.to_mm(corners), axis=1)
        return bool(apart.max() <= within_mm)
