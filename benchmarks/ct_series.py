"""CT series for measurements: a torso's slices under headers as full as a scanner's, uncompressed or compressed."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import UID

from pipeline.phantom.patient import make_patient
from pipeline.phantom.scan import ScanOptions
from reconstruction.geometry import Geometry
from reconstruction.volume import Hu, Volume

INTERCEPT_HU = -1024
PIXEL_MM, STEP_MM = 0.78125, 0.6
EXPLICIT_LE = "1.2.840.10008.1.2.1"
JPEG_LS, HTJ2K = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.201"
ENCODERS: dict[str, Callable[[npt.NDArray[np.uint16]], bytes]] = {
    JPEG_LS: lambda pixels: bytes(imagecodecs.jpegls_encode(pixels)),
    HTJ2K: lambda pixels: bytes(imagecodecs.htj2k_encode(pixels, reversible=True)),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Anatomy:
    """Slices of a digital torso, as many as are asked for: the body comes again, mirrored, where it ends."""

    painted: Hu

    def slice_hu(self, k: int) -> Hu:
        """Return slice ``k``, blended between the two painted next to it."""
        last = len(self.painted) - 1
        at = abs((k / self._each + last) % (2 * last) - last)
        low = min(int(at), last - 1)
        weight = np.float32(at - low)
        mixed = self.painted[low] * (1 - weight) + self.painted[low + 1] * weight
        blended: Hu = np.rint(mixed).astype(np.int16)
        return blended

    def volume(self, slices: int) -> Volume:
        """Return ``slices`` of them, feet to head, STEP_MM apart."""
        rows = self.painted.shape[1]
        hu = np.empty((slices, rows, rows), dtype=np.int16)
        for k in range(slices):
            hu[k] = self.slice_hu(k)
        affine = np.eye(4)
        affine[:3, :3] = [[0, 0, self.pixel_mm], [0, self.pixel_mm, 0], [STEP_MM, 0, 0]]
        return Volume(hu=hu, geometry=Geometry(affine=affine, shape=hu.shape, frame_of_reference_uid="2.25.40"))

    @property
    def pixel_mm(self) -> float:
        """Return the side of a pixel: the scanned square is 400 mm wide."""
        return PIXEL_MM * 512.0 / int(self.painted.shape[1])

    @property
    def _each(self) -> float:
        return 3.0 / STEP_MM


def paint_torso(*, side: int, painted: int = 100) -> Anatomy:
    """Scan a digital torso: ``painted`` slices of 3 mm, ``side`` pixels wide."""
    options = ScanOptions(
        rows=side, columns=side, slice_count=painted, slice_step_mm=300.0 / painted, noise_hu=9.0, detail_mm=1.5
    )
    return Anatomy(painted=make_patient("torso", options=options).volume.hu)


def write_series(
    anatomy: Anatomy, slices: int, folder: Path, *, transfer_syntax: str = EXPLICIT_LE, tilt_deg: float = 0.0
) -> list[Path]:
    """Write slices as CT Image Storage files of 115 elements (22 private) before the pixels, feet to head.

    ``tilt_deg`` moves each slice's place towards the back, and nothing in it: the body is sheared, not turned.
    """
    folder.mkdir(parents=True)
    rows = anatomy.painted.shape[1]
    shared = _shared(rows, anatomy.pixel_mm)
    files = []
    for k in range(slices):
        stored = (anatomy.slice_hu(k).astype(np.int32) - INTERCEPT_HU).clip(0, 4095).astype(np.uint16)
        files.append(folder / f"IM{k:05d}")
        _write(shared, (k, tilt_deg), stored, files[-1], transfer_syntax)
    return files


def _write(
    shared: Dataset, place: tuple[int, float], stored: npt.NDArray[np.uint16], path: Path, transfer_syntax: str
) -> None:
    for keyword, value in _of_slice(*place, shared).items():
        setattr(shared, keyword, value)
    if transfer_syntax == EXPLICIT_LE:
        shared.PixelData = stored.tobytes()
    else:
        shared.PixelData = encapsulate([ENCODERS[transfer_syntax](stored)], has_bot=False)
    shared["PixelData"].VR = "OW" if transfer_syntax == EXPLICIT_LE else "OB"
    shared["PixelData"].is_undefined_length = transfer_syntax != EXPLICIT_LE
    shared.file_meta = FileMetaDataset()
    shared.file_meta.TransferSyntaxUID = UID(transfer_syntax)
    shared.save_as(path, enforce_file_format=True)


def _of_slice(k: int, tilt_deg: float, shared: Dataset) -> dict[str, object]:
    x = y = -shared.PixelSpacing[0] * shared.Rows / 2
    y += k * STEP_MM * math.tan(math.radians(tilt_deg))
    return {
        "SOPInstanceUID": f"2.25.5{k:06d}",
        "InstanceNumber": k + 1,
        "ImagePositionPatient": [f"{x:.4f}", f"{y:.4f}", f"{-300.0 + k * STEP_MM:.4f}"],
        "GantryDetectorTilt": f"{tilt_deg:g}",
        "SliceLocation": f"{-300.0 + k * STEP_MM:.4f}",
        "ContentTime": f"0930{k % 60:02d}.{k:06d}",
        "XRayTubeCurrent": 180 + k % 90,
        "SmallestImagePixelValue": 0,
    }


def _shared(rows: int, pixel_mm: float) -> Dataset:
    """Return what the headers of a scanner's series hold, in the same words for every slice."""
    shared = Dataset()
    for keyword, value in {**_STUDY, **_SERIES, **_SCAN}.items():
        setattr(shared, keyword, value)
    shared.Rows = shared.Columns = rows
    shared.PixelSpacing = [f"{pixel_mm:.6f}"] * 2
    shared.ReferencedStudySequence = Sequence([_reference("1.2.840.10008.3.1.2.3.1", "2.25.60")])
    shared.SourceImageSequence = Sequence([_reference("1.2.840.10008.5.1.4.1.1.2", f"2.25.61{n}") for n in range(2)])
    for group, creator in ((0x0019, "GEMS_ACQU_01"), (0x0043, "GEMS_PARM_01")):
        block = shared.private_block(group, creator, create=True)
        for n in range(9):
            block.add_new(0x10 + n, *_private(n))
        block.add_new(0x30, "SQ", Sequence([_reference("1.2.840.10008.1.1", f"2.25.7{n}") for n in range(2)]))
    return shared


def _private(n: int) -> tuple[str, object]:
    values: tuple[tuple[str, object], ...] = (("LO", "HELICAL 0.98"), ("DS", "984.375"), ("SL", -17), ("FD", 0.6))
    return values[n % 4] if n != 8 else ("OB", bytes(512))


def _reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
    return item


_STUDY: dict[str, object] = {
    "SpecificCharacterSet": "ISO_IR 100", "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    "InstanceCreationDate": "20260115", "InstanceCreationTime": "093000", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
    "StudyDate": "20260115", "SeriesDate": "20260115", "AcquisitionDate": "20260115", "ContentDate": "20260115",
    "StudyTime": "092800", "SeriesTime": "092900", "AcquisitionTime": "092930", "AccessionNumber": "B0001",
    "Modality": "CT", "Manufacturer": "Digital phantom", "InstitutionName": "Benchmark",
    "InstitutionAddress": "None", "ReferringPhysicianName": "Peña^Íñigo", "StationName": "CT01",
    "StudyDescription": "CT WHOLE BODY", "SeriesDescription": "0.6 mm STANDARD",
    "InstitutionalDepartmentName": "Radiology", "ManufacturerModelName": "Analytic body",
    "PatientName": "Muñoz^Benchmark", "PatientID": "BENCH-1", "PatientBirthDate": "19700401", "PatientSex": "O",
    "PatientAge": "055Y", "PatientWeight": "72", "AdditionalPatientHistory": "none", "StudyInstanceUID": "2.25.10",
    "SeriesInstanceUID": "2.25.20", "StudyID": "1", "SeriesNumber": 2, "AcquisitionNumber": 1,
}  # fmt: skip
_SERIES: dict[str, object] = {
    "ScanOptions": "HELICAL MODE", "SliceThickness": "0.6", "KVP": "120", "DataCollectionDiameter": "500",
    "DeviceSerialNumber": "0", "SoftwareVersions": "1", "ProtocolName": "Whole body",
    "ReconstructionDiameter": "400", "DistanceSourceToDetector": "1099.3", "DistanceSourceToPatient": "626",
    "GantryDetectorTilt": "0", "TableHeight": "150", "RotationDirection": "CW", "ExposureTime": 500,
    "Exposure": 90, "FilterType": "BODY FILTER", "GeneratorPower": 24000, "FocalSpots": "0.7",
    "ConvolutionKernel": "STANDARD", "PatientPosition": "HFS", "RevolutionTime": 0.5,
    "SingleCollimationWidth": 0.625, "TotalCollimationWidth": 160.0, "TableSpeed": 157.5,
    "SpiralPitchFactor": 0.984, "CTDIvol": 9.8, "DateOfLastCalibration": "20260101",
}  # fmt: skip
_SCAN: dict[str, object] = {
    "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"], "FrameOfReferenceUID": "2.25.40",
    "PositionReferenceIndicator": "SN", "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2",
    "BitsAllocated": 16, "BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0, "WindowCenter": "40",
    "WindowWidth": "400", "RescaleIntercept": str(INTERCEPT_HU), "RescaleSlope": "1", "RescaleType": "HU",
    "RequestedProcedureDescription": "CT", "PerformedProcedureStepStartDate": "20260115",
    "PerformedProcedureStepStartTime": "092900", "PerformedProcedureStepID": "PPS1", "RequestedProcedureID": "RP1",
}  # fmt: skip


def each_slice(anatomy: Anatomy, slices: int) -> Iterator[Hu]:
    """Yield what a right reader must return, slice by slice."""
    for k in range(slices):
        yield anatomy.slice_hu(k).clip(INTERCEPT_HU, 4095 + INTERCEPT_HU)
