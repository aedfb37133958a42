"""Rows, findings and Reports made by hand, and CT series written for one test."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from pipeline.model import (
    HEMORRHAGE,
    DetectorRun,
    DetectorStatus,
    ExaminedStack,
    Finding,
    Provenance,
    Report,
    Role,
    StudyStatus,
)
from reconstruction.geometry import Geometry
from reconstruction.volume import Mask

MakeRow = Callable[..., ExaminedStack]
MakeFinding = Callable[..., Finding]
MakeReport = Callable[..., Report]
WriteSeries = Callable[..., list[Path]]
Points = npt.NDArray[np.float64]


@pytest.fixture
def make_grid() -> Callable[..., Geometry]:
    """Return a maker of axial grids of 1 mm pixels: ``make_grid(z_mm=0.0, slices=20, step_mm=5.0, side=100)``."""
    return _grid


def _grid(
    *, z_mm: float = 0.0, slices: int = 20, step_mm: float = 5.0, side: int = 100, frame: str | None = "1.5"
) -> Geometry:
    affine = np.eye(4)[[2, 1, 0, 3]]
    affine[:3, 0] *= step_mm
    affine[:3, 3] = -(side - 1) / 2.0, -(side - 1) / 2.0, z_mm
    return Geometry(affine=affine, shape=(slices, side, side), frame_of_reference_uid=frame)


@pytest.fixture
def make_run() -> Callable[..., DetectorRun]:
    """Return a maker of detector runs: ``make_run("ran", name="hemorrhage", reason=None)``."""

    def make(status: DetectorStatus = "ran", *, name: str = "bright", reason: str | None = None) -> DetectorRun:
        return DetectorRun(name=name, version="1", looks_for=("hemorrhage",), status=status, reason=reason)

    return make


@pytest.fixture
def make_row(make_run: Callable[..., DetectorRun]) -> MakeRow:
    """Return a maker of rows of a Report; by default a volume in which one detector ran."""

    def make(series: str = "1.1", **changes: Any) -> ExaminedStack:
        values: dict[str, Any] = {
            "series_instance_uid": series,
            "series_number": 2,
            "series_description": "Head",
            "stack": 1,
            "role": Role.VOLUME,
            "instances": (f"{series}.1", f"{series}.2"),
            "reason": None,
            "detectors": (make_run(),),
            "geometry": _grid(),
        }
        return ExaminedStack(**(values | changes))

    return make


@pytest.fixture
def make_finding() -> MakeFinding:
    """Return a maker of findings; the region is a box of 3 x 4 x 5 voxels of the grid."""

    def make(series: str = "1.1", at: tuple[float, float, float] = (0.0, 0.0, 0.0), **changes: Any) -> Finding:
        bits = np.ones((3, 4, 5), dtype=np.bool_)
        bits[0, 0, 0] = False
        values: dict[str, Any] = {
            "kind": "hemorrhage",
            "subtype": "intraparenchymal",
            "code": HEMORRHAGE,
            "probability": 0.9,
            "region": Mask(bits=bits, origin_kji=(2, 3, 4), geometry=_grid()),
            "volume_ml": 0.3,
            "centroid_lps_mm": at,
            "detector": "bright",
            "series_instance_uid": series,
        }
        return Finding(**(values | changes))

    return make


@pytest.fixture
def make_report(make_row: MakeRow) -> MakeReport:
    """Return a maker of Reports; by default analysed, without findings."""

    def make(**changes: Any) -> Report:
        values: dict[str, Any] = {
            "study_instance_uid": "1.7",
            "study_digest": "d1",
            "status": StudyStatus.ANALYSED,
            "priority": None,
            "examined": (make_row(),),
            "findings": (),
            "provenance": Provenance(code_version="0", detector_versions={"bright": "1"}, settings_hash="s"),
        }
        return Report(**(values | changes))

    return make


@pytest.fixture
def write_series(tmp_path: Path) -> WriteSeries:
    """Return a writer of a CT series of 1 mm pixels: ``write_series(positions, hu_at, tilt_deg=0.0, **tags)``.

    ``positions`` are mm along the normal, ``hu_at`` maps LPS points (..., 3) to Hounsfield units; a tag of None is
    left out.
    """

    def write(
        positions: Sequence[float],
        hu_at: Callable[[Points], Points],
        *,
        tilt_deg: float = 0.0,
        series: int = 1,
        **tags: Any,
    ) -> list[Path]:
        drift = math.tan(math.radians(tilt_deg))
        paths = []
        for number, z in enumerate(positions, 1):
            origin = (-31.5, -31.5 + drift * (z - positions[len(positions) // 2]), z)
            dataset = _slice(origin, hu_at, **{"SeriesNumber": series, "InstanceNumber": number} | tags)
            paths.append(tmp_path / f"{series}-{dataset.InstanceNumber:03d}.dcm")
            dataset.save_as(paths[-1], enforce_file_format=True)
        return paths

    return write


def _slice(origin: tuple[float, float, float], hu_at: Callable[[Points], Points], **tags: Any) -> Dataset:
    rows, columns = np.meshgrid(np.arange(64), np.arange(64), indexing="ij")
    points = np.stack([columns + origin[0], rows + origin[1], np.full(rows.shape, origin[2])], axis=-1)
    dataset = Dataset()
    values: dict[str, Any] = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": f"2.25.9{tags['SeriesNumber']:03d}{tags['InstanceNumber']:04d}",
        "SeriesInstanceUID": f"2.25.8{tags['SeriesNumber']:03d}",
        "FrameOfReferenceUID": "2.25.5",
        "Modality": "CT",
        "Rows": 64,
        "Columns": 64,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "ImagePositionPatient": [f"{c:.6f}" for c in origin],
        "PixelSpacing": [1, 1],
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "PixelData": (np.rint(hu_at(points)) + 1024).astype("<i2").tobytes(),
    }
    for keyword, value in (values | tags).items():
        if value is not None:
            setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset
