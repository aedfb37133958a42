"""How does a derived DICOM picture look as PNG, for people without a DICOM viewer?"""

from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset

from reconstruction.planes import Orientation, Planes, PlanesKind
from reconstruction.render import BONE, MIP_BONE, Rgb, frame, picture

_ORIENTATIONS: tuple[Orientation, Orientation, Orientation] = ("sagittal", "coronal", "axial")


def write_png_beside(part10: Path) -> Path:
    """Write the picture of a Secondary Capture or derived CT file beside it; returns its path."""
    target = part10.with_suffix(".png")
    aside = target.with_name(f".{target.name}.part")
    try:
        Image.fromarray(picture_of(pydicom.dcmread(part10))).save(aside, format="PNG")
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)
    return target


def picture_of(dataset: Dataset) -> Rgb:
    """Show a derived object: RGB as it is; a derived CT frame in the bone window, lettered by its directions."""
    if int(dataset.SamplesPerPixel) == 3:
        return np.asarray(dataset.pixel_array, dtype=np.uint8)
    planes = _planes(dataset)
    return picture(frame(planes, 0), MIP_BONE if planes.kind == "mip" else BONE)


def _planes(dataset: Dataset) -> Planes:
    stored = np.asarray(dataset.pixel_array, dtype=np.float64)
    hu = stored * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    row, column = np.array(dataset.ImageOrientationPatient, dtype=float).reshape(2, 3)
    kind: PlanesKind = "mip" if "MIP" in dataset.ImageType else "mpr"
    normal = np.abs(np.cross(row, column))
    return Planes(
        hu=np.rint(hu).astype(np.int16)[None],
        origins_lps_mm=np.array([dataset.ImagePositionPatient], dtype=float),
        row_direction=row,
        column_direction=column,
        pixel_spacing_mm=(float(dataset.PixelSpacing[0]), float(dataset.PixelSpacing[1])),
        slice_thickness_mm=float(dataset.get("SliceThickness") or 1.0),
        spacing_between_mm=None,
        orientation=_ORIENTATIONS[int(normal.argmax())],
        kind=kind,
    )
