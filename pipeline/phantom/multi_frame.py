"""A CT series as one multi-frame instance: Enhanced CT, or Legacy Converted Enhanced CT as highdicom converts it.

For tests: the Enhanced CT holds the functional groups that a reader needs, not all that the standard asks of a scanner.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import RLELosslessEncoder
from pydicom.uid import UID, EnhancedCTImageStorage

from pipeline.phantom.series import IMPLEMENTATION_UID

Encode = Callable[[npt.NDArray[np.uint16]], bytes]

EXPLICIT_LE = "1.2.840.10008.1.2.1"
JPEG_LS = "1.2.840.10008.1.2.4.80"
JPEG_2000 = "1.2.840.10008.1.2.4.90"
HTJ2K = "1.2.840.10008.1.2.4.201"
RLE = "1.2.840.10008.1.2.5"

_ENCODERS: Mapping[str, Encode] = {
    JPEG_LS: lambda image: bytes(imagecodecs.jpegls_encode(image)),
    JPEG_2000: lambda image: bytes(imagecodecs.jpeg2k_encode(image, codecformat="j2k", reversible=True, level=0)),
    HTJ2K: lambda image: bytes(imagecodecs.htj2k_encode(image, reversible=True)),
    RLE: lambda image: _run_lengths(image),
}
_STUDY = (
    "SpecificCharacterSet", "StudyDate", "SeriesDate", "ContentDate", "StudyTime", "SeriesTime", "ContentTime",
    "AccessionNumber", "ReferringPhysicianName", "StudyDescription", "PatientName", "PatientID", "PatientBirthDate",
    "PatientSex", "PatientAge", "StudyInstanceUID", "StudyID", "Modality", "Manufacturer", "ManufacturerModelName",
    "DeviceSerialNumber", "SoftwareVersions", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "ProtocolName",
    "BodyPartExamined", "PatientPosition", "FrameOfReferenceUID", "PositionReferenceIndicator", "ContentQualification",
    "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "PixelPaddingValue",
)  # fmt: skip
_GROUPS: Mapping[str, Mapping[str, str]] = {
    "PlanePositionSequence": {"ImagePositionPatient": "ImagePositionPatient"},
    "PlaneOrientationSequence": {"ImageOrientationPatient": "ImageOrientationPatient"},
    "PixelMeasuresSequence": {"PixelSpacing": "PixelSpacing", "SliceThickness": "SliceThickness"},
    "PixelValueTransformationSequence": {
        "RescaleIntercept": "RescaleIntercept",
        "RescaleSlope": "RescaleSlope",
        "RescaleType": "RescaleType",
    },
    "CTImageFrameTypeSequence": {"FrameType": "ImageType"},
    "CTReconstructionSequence": {"ConvolutionKernel": "ConvolutionKernel"},
    "CTXRayDetailsSequence": {"KVP": "KVP"},
    "CTAcquisitionDetailsSequence": {"GantryDetectorTilt": "GantryDetectorTilt"},
    "FrameVOILUTSequence": {"WindowCenter": "WindowCenter", "WindowWidth": "WindowWidth"},
}
"""Which functional group holds which attribute of a single-frame image (PS3.3 A.38.1.4)."""


def write_enhanced(
    files: Sequence[Path],
    target: Path,
    *,
    transfer_syntax_uid: str = EXPLICIT_LE,
    stack_ids: Sequence[str] | None = None,
) -> Path:
    """Write single-frame CT files as one Enhanced CT, a frame each in the order given.

    Groups in which all frames agree are shared. ``stack_ids`` names the stack of each frame; by default all are one.
    """
    enhanced = enhanced_ct([dcmread(path) for path in files], stack_ids=stack_ids)
    enhanced.file_meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    if encode := _ENCODERS.get(transfer_syntax_uid):
        images = np.frombuffer(enhanced.PixelData, "<u2").reshape(-1, enhanced.Rows, enhanced.Columns)
        enhanced.PixelData = encapsulate([encode(image) for image in images])
    enhanced["PixelData"].VR = "OB" if encode else "OW"
    enhanced.save_as(target, enforce_file_format=True)
    return target


def enhanced_ct(images: Sequence[Dataset], *, stack_ids: Sequence[str] | None = None) -> Dataset:
    """Join single-frame CT images of 16 bits, uncompressed, into one Enhanced CT data set."""
    first, stacks = images[0], stack_ids or ["1"] * len(images)
    enhanced = _with(first, {keyword: keyword for keyword in _STUDY})
    enhanced.SOPClassUID, enhanced.SOPInstanceUID = EnhancedCTImageStorage, f"{first.SOPInstanceUID}.1"[:64]
    enhanced.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    enhanced.InstanceNumber, enhanced.NumberOfFrames = 1, len(images)
    enhanced.AcquisitionDateTime = f"{first.get('AcquisitionDate', '20260101')}{first.get('AcquisitionTime', '090000')}"
    enhanced.update(_dimensions(str(enhanced.SOPInstanceUID)))
    groups = [_groups_of(image) for image in images]
    shared = {name: groups[0][name] for name in groups[0] if all(each.get(name) == groups[0][name] for each in groups)}
    enhanced.SharedFunctionalGroupsSequence = [_item(shared)]
    places = _places_in_stack(images, stacks)
    enhanced.PerFrameFunctionalGroupsSequence = [
        _item({name: item for name, item in each.items() if name not in shared} | {"FrameContentSequence": content})
        for each, content in zip(groups, map(_content, images, stacks, places), strict=True)
    ]
    enhanced.PixelData = b"".join(image.PixelData for image in images)
    enhanced.file_meta = FileMetaDataset()
    enhanced.file_meta.ImplementationClassUID = IMPLEMENTATION_UID
    return enhanced


def legacy_converted_ct(images: Sequence[Dataset], *, transfer_syntax_uid: str = EXPLICIT_LE) -> Dataset:
    """Convert single-frame CT images to one Legacy Converted Enhanced CT, with highdicom."""
    from highdicom.legacy import LegacyConvertedEnhancedCTImage

    converted: Dataset = LegacyConvertedEnhancedCTImage(
        images,
        series_instance_uid=f"{images[0].SeriesInstanceUID}.1"[:64],
        series_number=int(images[0].SeriesNumber) + 100,
        sop_instance_uid=f"{images[0].SOPInstanceUID}.2"[:64],
        instance_number=1,
        transfer_syntax_uid=transfer_syntax_uid,
    )
    return converted


def _run_lengths(image: npt.NDArray[np.uint16]) -> bytes:
    return RLELosslessEncoder.encode(
        image,
        rows=image.shape[0],
        columns=image.shape[1],
        samples_per_pixel=1,
        number_of_frames=1,
        bits_allocated=16,
        bits_stored=16,
        pixel_representation=0,
        photometric_interpretation="MONOCHROME2",
    )


def _with(source: Dataset, keywords: Mapping[str, str]) -> Dataset:
    item = Dataset()
    for keyword, name in keywords.items():
        if name in source:
            setattr(item, keyword, source[name].value)
    return item


def _groups_of(image: Dataset) -> dict[str, Dataset]:
    groups = {name: _with(image, keywords) for name, keywords in _GROUPS.items()}
    return {name: item for name, item in groups.items() if len(item)}


def _item(groups: Mapping[str, Dataset]) -> Dataset:
    item = Dataset()
    for name, group in groups.items():
        setattr(item, name, [group])
    return item


def _content(image: Dataset, stack_id: str, place: tuple[int, int]) -> Dataset:
    content = Dataset()
    content.FrameAcquisitionNumber = int(image.get("AcquisitionNumber") or 1)
    content.StackID = stack_id
    content.InStackPositionNumber = place[1]
    content.DimensionIndexValues = list(place)
    if (time := image.get("TemporalPositionIdentifier")) is not None:
        content.TemporalPositionIndex = int(time)
    return content


def _places_in_stack(images: Sequence[Dataset], stacks: Sequence[str]) -> list[tuple[int, int]]:
    """Number stacks and, within each, the slices by their place along the normal, both from 1."""
    names = sorted(set(stacks))
    along = [_along_mm(image) for image in images]
    order = sorted(range(len(images)), key=lambda n: (stacks[n], along[n]))
    places: dict[int, tuple[int, int]] = {}
    counts = dict.fromkeys(names, 0)
    for n in order:
        counts[stacks[n]] += 1
        places[n] = names.index(stacks[n]) + 1, counts[stacks[n]]
    return [places[n] for n in range(len(images))]


def _along_mm(image: Dataset) -> float:
    if not image.get("ImagePositionPatient") or not image.get("ImageOrientationPatient"):
        return 0.0
    row, column = np.array(image.ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
    return float(np.cross(row, column) @ np.array(image.ImagePositionPatient, dtype=np.float64))


def _dimensions(name: str) -> Dataset:
    """Say that frames are indexed by Stack ID and In-Stack Position Number (PS3.3 C.7.6.17)."""
    organisation = Dataset()
    organisation.DimensionOrganizationUID = f"{name}.3"[:64]
    indexed: list[Any] = []
    for pointer in (0x00209056, 0x00209057):
        index = Dataset()
        index.DimensionOrganizationUID = organisation.DimensionOrganizationUID
        index.DimensionIndexPointer = pointer
        index.FunctionalGroupPointer = 0x00209111
        indexed.append(index)
    dimensions = Dataset()
    dimensions.DimensionOrganizationSequence = [organisation]
    dimensions.DimensionIndexSequence = indexed
    return dimensions
