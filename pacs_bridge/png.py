"""How does a derived DICOM picture look as PNG, for people without a DICOM viewer?"""

from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset

from reconstruction.planes import Orientation, Planes, PlanesKind
from reconstruction.render import BONE, LUNG, MIP_BONE, Rgb, Window, frame, picture

_ORIENTATIONS: tuple[Orientation, Orientation, Orientation] = ("sagittal", "coronal", "axial")
_KINDS: dict[str, PlanesKind] = {"MIP": "mip", "MINIP": "minip", "RESAMPLED": "isotropic"}
_VIEWS: dict[PlanesKind, Window] = {"mpr": BONE, "mip": MIP_BONE, "minip": LUNG, "isotropic": BONE}
_PALETTE = 256


def write_png_beside(part10: Path) -> Path:
    """Write the picture of a Secondary Capture or derived CT file beside it; returns its path.

    One of several frames moves: viewers that know animated PNG (browsers do) play it, others show the first.
    """
    return write_png(pydicom.dcmread(part10), part10.with_suffix(".png"))


def write_png(dataset: Dataset, target: Path, view: Window | None = None) -> Path:
    """Write what ``picture_of`` makes of a derived object as ``target``, whole or not at all; returns the path."""
    aside = target.with_name(f".{target.name}.part")
    try:
        if int(dataset.get("NumberOfFrames") or 1) > 1:
            _save_moving(dataset, aside)
        else:
            Image.fromarray(picture_of(dataset, view)).save(aside, format="PNG")
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)
    return target


def picture_of(dataset: Dataset, view: Window | None = None) -> Rgb:
    """Show a derived object: RGB as it is (of several frames the first); a derived CT frame lettered by its directions.

    CT is shown in ``view``, by default in a bone window, minima in a lung window.
    """
    if int(dataset.SamplesPerPixel) == 3:
        rgb = np.asarray(dataset.pixel_array, dtype=np.uint8)
        return rgb[0] if rgb.ndim == 4 else rgb
    planes = _planes(dataset)
    return picture(frame(planes, 0), view or _VIEWS[planes.kind])


def _save_moving(dataset: Dataset, target: Path) -> None:
    """Write the frames as animated PNG in 256 colours, a third of the size; the DICOM object keeps them all."""
    rgb = np.asarray(dataset.pixel_array, dtype=np.uint8)
    first, *rest = [Image.fromarray(each).quantize(_PALETTE, method=Image.Quantize.FASTOCTREE) for each in rgb]
    duration_ms = round(float(dataset.get("FrameTime") or 100.0))
    first.save(target, format="PNG", save_all=True, append_images=rest, duration=duration_ms, loop=0)


def _planes(dataset: Dataset) -> Planes:
    stored = np.asarray(dataset.pixel_array, dtype=np.float64)
    hu = stored * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    row, column = np.array(dataset.ImageOrientationPatient, dtype=float).reshape(2, 3)
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
        kind=_KINDS.get(str(dataset.ImageType[-1]), "mpr"),
    )
