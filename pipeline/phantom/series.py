"""A digital patient as a DICOM CT series, with truth.json and the truth's masks beside it."""

import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from pipeline.model import Finding
from pipeline.phantom.canvas import Vector
from pipeline.phantom.patient import Patient

MANUFACTURER = "Digital phantom"
IMPLEMENTATION_UID = UID("2.25.305271034411872690415062410394527128493")
INTERCEPT_HU = -1024
TRUTH = "truth.json"

_ROOT = uuid.UUID("6f1f2f86-6d3d-4c55-9a3c-7f0f5b4c2a10")
_NAMES = ("Muñoz Peña^José Ángel", "Ibáñez Núñez^María Belén", "Güemes Ordóñez^Íñigo", "Castañeda Avilés^Begoña")
_TEXTS = {
    "en": {"head": "Head CT without contrast", "torso": "CT of chest and upper abdomen"},
    "es": {"head": "TC de cráneo sin contraste", "torso": "TC de tórax y abdomen superior"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenSeries:
    """What ``write_series`` left in ``folder``: the instances in slice order (feet to head), and the truth."""

    folder: Path
    files: tuple[Path, ...]
    truth: Path


def write_series(
    patient: Patient,
    folder: Path,
    *,
    patient_name: str | None = None,
    patient_id: str | None = None,
    acquired_at: datetime = datetime(2026, 1, 15, 9, 30, tzinfo=UTC),
    language: str = "en",
) -> WrittenSeries:
    """Write one CT Image Storage file a slice (PS3.3 A.3), truth.json and mask_N.npz into ``folder``.

    ``patient_name`` in DICOM's form (family^given); a fictive one is taken by seed. Unique identifiers follow from
    kind, seed, options and wish alone, so that writing twice gives the same bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shared = _shared(patient, acquired_at, language)
    shared.PatientName = patient_name or _NAMES[patient.seed % len(_NAMES)]
    shared.PatientID = patient_id or f"PHANTOM-{patient.kind.upper()}-{patient.seed}"
    shared.SpecificCharacterSet = _character_set(str(shared.PatientName) + shared.PatientID)
    files = tuple(_write_slice(patient, k, shared, folder) for k in range(patient.volume.geometry.shape[0]))
    return WrittenSeries(folder=folder, files=files, truth=_write_truth(patient, folder))


def uid_of(patient: Patient, what: str) -> str:
    """Return the patient's unique identifier for ``what`` (study, series, frame, or an instance)."""
    identity = f"{patient.kind}|{patient.seed}|{patient.options!r}|{patient.wish!r}|{what}"
    return f"2.25.{uuid.uuid5(_ROOT, identity).int}"


def _character_set(text: str) -> str:
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return "ISO_IR 192"
    return "ISO_IR 100"


def _shared(patient: Patient, acquired_at: datetime, language: str) -> Dataset:
    """Return the attributes that all instances share (PS3.3 C.7, C.8.2)."""
    shared = Dataset()
    for module in (_study_module, _series_module):
        for keyword, value in module(patient, acquired_at, language).items():
            setattr(shared, keyword, value)
    for keyword, value in _image_module(patient).items():
        setattr(shared, keyword, value)
    return shared


def _study_module(patient: Patient, acquired_at: datetime, language: str) -> dict[str, Any]:
    day, time = acquired_at.strftime("%Y%m%d"), acquired_at.strftime("%H%M%S")
    return {
        "SOPClassUID": CTImageStorage,
        "StudyDate": day,
        "SeriesDate": day,
        "AcquisitionDate": day,
        "ContentDate": day,
        "StudyTime": time,
        "SeriesTime": time,
        "AcquisitionTime": time,
        "ContentTime": time,
        "AccessionNumber": f"PH{uuid.uuid5(_ROOT, uid_of(patient, 'accession')).hex[:10].upper()}",
        "ReferringPhysicianName": "",
        "StudyDescription": _TEXTS.get(language, _TEXTS["en"])[_part(patient)],
        "PatientBirthDate": f"{1940 + patient.seed % 50}0401",
        "PatientSex": "O",
        "PatientAge": f"{acquired_at.year - 1940 - patient.seed % 50:03d}Y",
        "StudyInstanceUID": uid_of(patient, "study"),
        "StudyID": "1",
    }


def _series_module(patient: Patient, acquired_at: datetime, language: str) -> dict[str, Any]:
    return {
        "Modality": "CT",
        "Manufacturer": MANUFACTURER,
        "ManufacturerModelName": "Analytic body",
        "DeviceSerialNumber": "0",
        "SoftwareVersions": "1",
        "SeriesInstanceUID": uid_of(patient, "series"),
        "SeriesNumber": 2,
        "SeriesDescription": f"{patient.kind} {patient.thickness_mm:.4g} mm {patient.options.kernel}",
        "ProtocolName": _TEXTS.get(language, _TEXTS["en"])[_part(patient)],
        "BodyPartExamined": "HEAD" if _part(patient) == "head" else "CHEST",
        "PatientPosition": "HFS",
        "FrameOfReferenceUID": uid_of(patient, "frame"),
        "PositionReferenceIndicator": "",
        "ContentQualification": "RESEARCH",
    }


def _image_module(patient: Patient) -> dict[str, Any]:
    geometry = patient.volume.geometry
    row, column = (geometry.affine[:3, a] / geometry.spacing_mm[a] for a in (1, 2))
    return {
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "AcquisitionNumber": 1,
        "KVP": "120",
        "XRayTubeCurrent": round(200 * patient.options.dose),
        "ExposureTime": 500,
        "GantryDetectorTilt": _ds(patient.options.tilt_deg),
        "ConvolutionKernel": patient.options.kernel,
        "SliceThickness": _ds(patient.thickness_mm),
        "ReconstructionDiameter": _ds(geometry.spacing_mm[2] * max(geometry.shape[1:])),
        "ImageOrientationPatient": [_ds(v) for v in (*column, *row)],
        "PixelSpacing": [_ds(geometry.spacing_mm[1]), _ds(geometry.spacing_mm[2])],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": geometry.shape[1],
        "Columns": geometry.shape[2],
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "RescaleIntercept": str(INTERCEPT_HU),
        "RescaleSlope": "1",
        "RescaleType": "HU",
        "WindowCenter": "40",
        "WindowWidth": "80" if _part(patient) == "head" else "400",
    }


def _write_slice(patient: Patient, k: int, shared: Dataset, folder: Path) -> Path:
    image = Dataset()
    image.update(shared)
    image.SOPInstanceUID = uid_of(patient, f"instance {k}")
    image.InstanceNumber = k + 1
    position = patient.positions_lps_mm[k]
    image.ImagePositionPatient = [_ds(v) for v in position]
    image.SliceLocation = _ds(float(position @ patient.volume.geometry.normal))
    stored = (patient.volume.hu[k].astype(np.int32) - INTERCEPT_HU).astype("<u2")
    image.PixelData = stored.tobytes()
    image.file_meta = _file_meta(image)
    path = folder / f"slice_{k + 1:04d}.dcm"
    image.save_as(path, enforce_file_format=True)
    return path


def _file_meta(image: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_UID
    meta.ImplementationVersionName = "DIGITAL_PHANTOM"
    return meta


def _write_truth(patient: Patient, folder: Path) -> Path:
    truth = {
        "seed": patient.seed,
        "kind": patient.kind,
        "study_instance_uid": uid_of(patient, "study"),
        "series_instance_uid": uid_of(patient, "series"),
        "findings": [_write_finding(finding, n, folder) for n, finding in enumerate(patient.findings, start=1)],
    }
    path = folder / TRUTH
    path.write_text(json.dumps(truth, indent=2) + "\n", encoding="utf-8")
    return path


def _write_finding(finding: Finding, number: int, folder: Path) -> dict[str, Any]:
    """Write the mask (bits, origin_kji, affine, shape; k counts slices in the order of their files)."""
    name = f"mask_{number}.npz"
    region = finding.region
    np.savez_compressed(
        folder / name,
        bits=region.bits,
        origin_kji=np.array(region.origin_kji),
        affine_kji_to_lps_mm=region.geometry.affine,
        shape_kji=np.array(region.geometry.shape),
    )
    return {
        "kind": finding.kind,
        "subtype": finding.subtype,
        "code": {"scheme": finding.code.scheme, "value": finding.code.value, "meaning": finding.code.meaning},
        "probability": finding.probability,
        "volume_ml": None if finding.volume_ml is None else round(finding.volume_ml, 3),
        "centroid_lps_mm": [round(v, 2) for v in finding.centroid_lps_mm],
        "detector": finding.detector,
        "mask": name,
    }


def _part(patient: Patient) -> str:
    return "torso" if patient.kind == "torso" else "head"


def _ds(value: float | Vector) -> str:
    """Return a decimal string (at most 16 characters, PS3.5 6.2)."""
    return f"{float(value):.8f}".rstrip("0").rstrip(".")[:16] if value else "0"
