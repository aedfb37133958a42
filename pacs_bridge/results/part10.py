"""What do all result objects share: patient, study, equipment, dates, and their Part-10 bytes?"""

from io import BytesIO
from typing import Any

from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from pacs_bridge.results.context import Context, wall_clock
from pacs_bridge.results.identifiers import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    MANUFACTURER,
    MODEL_NAME,
    result_uid,
)
from pacs_bridge.results.sources import IMAGE, copy_patient_and_study, settle_character_set
from pacs_bridge.results.tolerant import value_of
from pipeline.model import KeptKind, Report, ResultObject

SERIES_NUMBERS = {
    "sr": 9001, "key_objects": 9003, "rejection": 9004, "seg": 9010,
    "planes": 9100, "captures": 9300, "turns": 9320, "models": 9340,
}  # fmt: skip
_EQUIPMENT = ("Manufacturer", "InstitutionName", "StationName", "ManufacturerModelName", "DeviceSerialNumber")


def uid_of(report: Report, kind: str, index: int) -> str:
    """Name a result object or series of this Report."""
    return result_uid(report.provenance, report.study_instance_uid, report.study_digest, kind, index)


def series_uid_of(report: Report, kind: str, index: int = 1) -> str:
    """Name a series of results of this Report."""
    return uid_of(report, f"series:{kind}", index)


def stand_in(header: Dataset) -> Dataset:
    """Return what highdicom's constructors may see of a source: names and geometry, no patient.

    Real headers lack type 2 attributes and hold values that its checks refuse; patient and study are put in by
    ``dress``. The class is CT throughout, because highdicom looks modules up by it.
    """
    stub = name_of(header)
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
        setattr(stub, keyword, "")
    stub.StudyDate = stub.StudyTime = None
    stub.Modality = "CT"
    return stub


def name_of(header: Dataset) -> Dataset:
    """Return the UIDs of a source alone, of class CT as in ``stand_in``."""
    name = Dataset()
    name.SOPClassUID = CTImageStorage
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        setattr(name, keyword, str(header[keyword].value))
    return name


def stand_in_image(header: Dataset, frame_of_reference_uid: str) -> Dataset:
    """Return a stand-in that also holds the image's plane, in its stack's frame of reference."""
    stub = stand_in(header)
    for keyword in IMAGE:
        value = value_of(header, keyword)
        if value is not None:
            setattr(stub, keyword, value)
    if not isinstance(stub.get("SliceThickness"), float):
        stub.SliceThickness = None  # highdicom reads it without asking
    stub.FrameOfReferenceUID = frame_of_reference_uid
    return stub


def dress(dataset: Dataset, context: Context, report: Report) -> None:
    """Give an object its patient, study, equipment, dates and character set, replacing what a library put there."""
    source = context.sources.speaker(report)
    copy_patient_and_study(source, dataset)
    if not dataset.get("StudyInstanceUID"):
        dataset.StudyInstanceUID = report.study_instance_uid
    now = wall_clock(context.committed_at, source)
    for date in ("InstanceCreationDate", "ContentDate", "SeriesDate"):
        setattr(dataset, date, f"{now:%Y%m%d}")
    for time in ("InstanceCreationTime", "ContentTime", "SeriesTime"):
        setattr(dataset, time, f"{now:%H%M%S}")
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = MODEL_NAME
    dataset.DeviceSerialNumber = "1"
    dataset.SoftwareVersions = report.provenance.code_version
    _name_scanner(dataset, source)
    settle_character_set(dataset, source)


def _name_scanner(dataset: Dataset, source: Dataset) -> None:
    dataset.pop("ContributingEquipmentSequence", None)
    if not str(value_of(source, "Manufacturer") or "").strip():
        return
    scanner = Dataset()
    for keyword in _EQUIPMENT:
        if value := value_of(source, keyword):
            setattr(scanner, keyword, value)
    scanner.PurposeOfReferenceCodeSequence = [coded("109101", "DCM", "Acquisition Equipment")]
    dataset.ContributingEquipmentSequence = [scanner]


def coded(value: str, scheme: str, meaning: str) -> Dataset:
    """Return one item of a code sequence (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = scheme
    item.CodeMeaning = meaning
    return item


def reference(header: Dataset) -> Dataset:
    """Return one item that names a SOP instance."""
    item = Dataset()
    item.ReferencedSOPClassUID = str(header.SOPClassUID)
    item.ReferencedSOPInstanceUID = str(header.SOPInstanceUID)
    return item


def finished(dataset: Dataset, kind: KeptKind, index: int) -> ResultObject:
    """Write a dressed data set once: explicit VR little endian, Part 10."""
    return ResultObject(
        kind=kind,
        index=index,
        sop_instance_uid=str(dataset.SOPInstanceUID),
        sop_class_uid=str(dataset.SOPClassUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        part10=written(dataset),
        label=str(dataset.get("SeriesDescription") or ""),
    )


def written(dataset: Dataset) -> bytes:
    """Return the Part-10 file of a dressed data set."""
    meta: Any = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    dataset.file_meta = meta
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()
