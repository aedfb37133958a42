"""Headers, stacks, findings and Reports made by hand, for tests of results and of whatever carries them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from pacs_bridge.results.context import Context
from pacs_bridge.results.sources import SourceHeaders
from pipeline.model import (
    HEMORRHAGE,
    DetectorRun,
    ExaminedStack,
    Finding,
    Priority,
    Provenance,
    Report,
    Role,
    StudyStatus,
)
from reconstruction.geometry import Geometry
from reconstruction.volume import Mask

COMMITTED_AT = datetime(2026, 11, 22, 3, 4, 5, tzinfo=UTC)
PROVENANCE = Provenance(
    code_version="0.1.0", detector_versions={"hemorrhage": "1.0", "skull_fracture": "2.0"}, settings_hash="abc"
)
RAN = (
    DetectorRun(name="hemorrhage", version="1.0", looks_for=("hemorrhage",), status="ran"),
    DetectorRun(name="skull_fracture", version="2.0", looks_for=("fracture",), status="ran"),
)
STUDY_UID = "2.25.1001"
SERIES_UID = "2.25.2001"


def ct_header(k: int, **changes: object) -> Dataset:
    """Make the header of slice ``k`` of an axial head series; a change to None removes the attribute."""
    header = Dataset()
    values: dict[str, object] = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": f"2.25.3{k:04d}",
        "StudyInstanceUID": STUDY_UID,
        "SeriesInstanceUID": SERIES_UID,
        "FrameOfReferenceUID": "2.25.4001",
        "PatientName": "Doe^Jane",
        "PatientID": "MRN1",
        "PatientBirthDate": "19700102",
        "PatientSex": "F",
        "StudyDate": "20261121",
        "StudyTime": "230000",
        "AccessionNumber": "A1",
        "StudyID": "S1",
        "ReferringPhysicianName": "",
        "Modality": "CT",
        "Manufacturer": "ACME",
        "SeriesNumber": 2,
        "SeriesDescription": "Head 5mm",
        "Rows": 64,
        "Columns": 48,
        "PixelSpacing": [0.5, 0.5],
        "SliceThickness": 5,
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "ImagePositionPatient": [-12, -16, 5 * k],
        "InstanceNumber": k + 1,
    }
    for keyword, value in (values | changes).items():
        if value is not None:
            setattr(header, keyword, value)
    return header


def ct_headers(count: int = 8, **changes: object) -> list[Dataset]:
    """Make the headers of an axial head series, in slice order."""
    return [ct_header(k, **changes) for k in range(count)]


def write_badly(header: Dataset, keyword: str, text: str) -> None:
    """Put undecoded text into a header as a file would bring it: reading it raises where it is none of its type."""
    tag = tag_for_keyword(keyword)
    assert tag is not None
    value = text.encode()
    header[tag] = RawDataElement(
        Tag(tag), dictionary_VR(tag), len(value), value, 0, is_implicit_VR=False, is_little_endian=True
    )


def reread(header: Dataset) -> Dataset:
    """Write a header to bytes and read it again, as it would come from a file."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = header.SOPClassUID
    meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta = meta
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, header, enforce_file_format=True)
    buffer.seek(0)
    return pydicom.dcmread(buffer)


def geometry_of(headers: Sequence[Dataset]) -> Geometry:
    """Return a stack's grid as acquired, from its first and last slice."""
    first, last = headers[0], headers[-1]
    along, down = np.array(first.ImageOrientationPatient, dtype=float).reshape(2, 3)
    start, end = (np.array(h.ImagePositionPatient, dtype=float) for h in (first, last))
    affine = np.eye(4)
    affine[:3, 0] = (end - start) / (len(headers) - 1)
    affine[:3, 1] = down * float(first.PixelSpacing[0])
    affine[:3, 2] = along * float(first.PixelSpacing[1])
    affine[:3, 3] = start
    frame = first.get("FrameOfReferenceUID")
    return Geometry(affine=affine, shape=(len(headers), first.Rows, first.Columns), frame_of_reference_uid=frame)


def stack_of(headers: Sequence[Dataset], role: Role = Role.VOLUME, reason: str | None = None) -> ExaminedStack:
    """Return a stack of these slices: both detectors ran, or none where a reason is given."""
    first = headers[0]
    number = first.get("SeriesNumber")
    return ExaminedStack(
        series_instance_uid=str(first.SeriesInstanceUID),
        series_number=None if number is None else int(number),
        series_description=str(first.get("SeriesDescription") or ""),
        stack=1,
        role=role,
        instances=tuple(str(h.SOPInstanceUID) for h in headers),
        reason=reason,
        detectors=() if reason else RAN,
        geometry=geometry_of(headers) if role is Role.VOLUME else None,
    )


def blob(stack: ExaminedStack, center: tuple[int, int, int], radius: int = 9, **changes: Any) -> Finding:
    """Return a hemorrhage that is an ellipsoid of voxels, a third as deep in slices as it is wide in pixels."""
    assert stack.geometry is not None
    axes = [
        (np.arange(n) - c) / s
        for n, c, s in zip(stack.geometry.shape, center, (radius / 3, radius, radius), strict=True)
    ]
    distance = axes[0][:, None, None] ** 2 + axes[1][None, :, None] ** 2 + axes[2][None, None, :] ** 2
    region = Mask.cropped_from(np.asarray(distance <= 1), stack.geometry)
    x, y, z = (float(v) for v in stack.geometry.to_mm(center))
    values: dict[str, Any] = {
        "kind": "hemorrhage",
        "subtype": "intraparenchymal",
        "code": HEMORRHAGE,
        "probability": 0.93,
        "region": region,
        "volume_ml": region.voxel_count * stack.geometry.voxel_ml,
        "centroid_lps_mm": (x, y, z),
        "detector": "hemorrhage",
        "series_instance_uid": stack.series_instance_uid,
        "stack": stack.stack,
    }
    return Finding(**(values | changes))


def report_of(stacks: Sequence[ExaminedStack], findings: Sequence[Finding] = (), **changes: Any) -> Report:
    """Return a Report of these stacks: analysed where any is a volume."""
    looked = any(stack.analysed for stack in stacks)
    values: dict[str, Any] = {
        "study_instance_uid": STUDY_UID,
        "study_digest": "d1",
        "status": StudyStatus.ANALYSED if looked else StudyStatus.NOT_ANALYSED,
        "priority": Priority.STAT if findings else None,
        "examined": tuple(stacks),
        "findings": tuple(findings),
        "provenance": PROVENANCE,
    }
    return Report(**(values | changes))


def context_of(headers: Sequence[Dataset], **changes: Any) -> Context:
    """Return a Context over these headers, committed at a fixed instant."""
    sources = SourceHeaders(datasets={str(h.SOPInstanceUID): h for h in headers})
    values: dict[str, Any] = {"sources": sources, "committed_at": COMMITTED_AT}
    return Context(**(values | changes))
