"""What do the SOP instances contain that ctriage makes? Told in the conformance statement, held to what is built.

In the words of PS3.2 (A.8.1): COPY is taken from the source images, AUTO is made by ctriage, FIXED never varies.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.model import KeptKind


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedObject:
    """One kind of SOP instance: its class, the kinds of results it is made for, and its own attributes.

    ``own`` tells by keyword where each value comes from, beside those of `COMMON` and `WHERE_KNOWN`.
    """

    name: str
    sop_class_uid: str
    kinds: Sequence[KeptKind]
    own: Mapping[str, str]


COMMON: Final[Mapping[str, str]] = {
    "PatientName": "COPY, empty where unknown",
    "PatientID": "COPY, empty where unknown",
    "PatientBirthDate": "COPY, empty where unknown",
    "PatientSex": "COPY, empty where unknown",
    "StudyInstanceUID": "COPY",
    "StudyDate": "COPY, empty where unknown",
    "StudyTime": "COPY, empty where unknown",
    "StudyID": "COPY, empty where unknown",
    "AccessionNumber": "COPY, empty where unknown",
    "ReferringPhysicianName": "COPY, empty where unknown",
    "SOPClassUID": "FIXED, as named above",
    "SOPInstanceUID": "AUTO: 2.25 and a UUIDv5 of what the object says; the same input gives the same UID",
    "SeriesInstanceUID": "AUTO, likewise",
    "SeriesNumber": "AUTO, 9001 and above",
    "SeriesDescription": "AUTO, in the language of the settings",
    "Modality": "FIXED, see the object",
    "InstanceNumber": "AUTO",
    "InstanceCreationDate": "AUTO, the wall clock of the source's time zone where it names one",
    "InstanceCreationTime": "AUTO, likewise",
    "SeriesDate": "AUTO, likewise",
    "SeriesTime": "AUTO, likewise",
    "ContentDate": "AUTO, likewise",
    "ContentTime": "AUTO, likewise",
    "Manufacturer": "FIXED: ctriage",
    "ManufacturerModelName": "FIXED: ctriage",
    "DeviceSerialNumber": "FIXED: 1",
    "SoftwareVersions": "AUTO, the version of ctriage",
}

WHERE_KNOWN: Final[Sequence[str]] = (
    "SpecificCharacterSet", "TimezoneOffsetFromUTC", "ContributingEquipmentSequence",
    "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "TypeOfPatientID", "PatientBirthTime",
    "OtherPatientIDs", "OtherPatientIDsSequence", "OtherPatientNames", "PatientMotherBirthName", "EthnicGroup",
    "PatientComments", "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
    "StudyDescription", "IssuerOfAccessionNumberSequence", "PhysiciansOfRecord",
    "NameOfPhysiciansReadingStudy", "RequestingService", "ProcedureCodeSequence", "ReferencedStudySequence",
    "AdmittingDiagnosesDescription", "PatientAge", "PatientSize", "PatientWeight", "MedicalAlerts", "Allergies",
    "SmokingStatus", "PregnancyStatus", "Occupation", "AdditionalPatientHistory", "AdmissionID",
)  # fmt: skip
"""Copied into every object where the source holds it; the character set as the source's, or ISO_IR 192."""

_LOSSY: Final = {
    "LossyImageCompressionMethod": "COPY",
    "LossyImageCompressionRatio": "COPY",
}
_IN_A_FRAME: Final = {
    "FrameOfReferenceUID": "COPY; AUTO from the Series Instance UID where the source has none",
    "PositionReferenceIndicator": "COPY, empty where unknown",
}
_MATRIX: Final = {
    "Rows": "AUTO",
    "Columns": "AUTO",
    "BitsAllocated": "AUTO",
    "BitsStored": "AUTO",
    "HighBit": "AUTO",
    "PixelRepresentation": "AUTO",
    "SamplesPerPixel": "AUTO",
    "PhotometricInterpretation": "AUTO",
    "PixelData": "AUTO",
}
_DERIVED: Final = {
    "DerivationDescription": "AUTO",
    "DerivationCodeSequence": "FIXED for each kind, of PS3.16 CID 7203",
    "SourceImageSequence": "AUTO, every source image",
}
_DOCUMENT: Final = {
    "ValueType": "FIXED: CONTAINER",
    "ContinuityOfContent": "AUTO",
    "ConceptNameCodeSequence": "FIXED",
    "ContentTemplateSequence": "FIXED",
    "ContentSequence": "AUTO",
    "CurrentRequestedProcedureEvidenceSequence": "AUTO, every image that is referred to",
    "ReferencedPerformedProcedureStepSequence": "FIXED: empty",
}
_CAPTURE: Final = {
    **_MATRIX,
    **_DERIVED,
    "ImageType": "FIXED: DERIVED\\SECONDARY",
    "ConversionType": "FIXED: SYN",
    "DateOfSecondaryCapture": "AUTO",
    "TimeOfSecondaryCapture": "AUTO",
    "SecondaryCaptureDeviceManufacturer": "FIXED: ctriage",
    "PatientOrientation": "FIXED: empty",
    "Laterality": "FIXED: empty",
    "ImageComments": "FIXED: not a medical device",
    "PlanarConfiguration": "FIXED: 0",
    "BurnedInAnnotation": "FIXED: NO",
    "LossyImageCompression": "COPY: 01 where any source image was compressed with loss",
    **_LOSSY,
}

CREATED: Final[Sequence[CreatedObject]] = (
    CreatedObject(
        name="Triage report (SR document, TID 1500)",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34",
        kinds=("sr",),
        own={
            **_DOCUMENT,
            "CodingSchemeIdentificationSequence": "FIXED: 99CTRIAGE and its UID",
            "PerformedProcedureCodeSequence": "FIXED: empty",
            "CompletionFlag": "AUTO: PARTIAL unless every stack was read",
            "CompletionFlagDescription": "AUTO, what was not read",
            "VerificationFlag": "FIXED: UNVERIFIED",
            "PreliminaryFlag": "FIXED: PRELIMINARY",
            "PredecessorDocumentsSequence": "AUTO, in a version that supersedes another",
        },
    ),
    CreatedObject(
        name="Segmentation of findings",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4",
        kinds=("seg",),
        own={
            **_MATRIX,
            **_IN_A_FRAME,
            "ImageType": "FIXED: DERIVED\\PRIMARY",
            "SegmentationType": "FIXED: BINARY",
            "SegmentSequence": "AUTO, a segment for each finding",
            "SegmentsOverlap": "AUTO",
            "NumberOfFrames": "AUTO; frames lie on the acquired slices",
            "DimensionOrganizationSequence": "AUTO",
            "DimensionIndexSequence": "AUTO",
            "DimensionOrganizationType": "AUTO",
            "SharedFunctionalGroupsSequence": "AUTO",
            "PerFrameFunctionalGroupsSequence": "AUTO",
            "ReferencedSeriesSequence": "AUTO",
            "SourceImageSequence": "AUTO",
            "ContentLabel": "FIXED: FINDINGS",
            "ContentDescription": "FIXED: not a medical device",
            "PresentationLUTShape": "FIXED: IDENTITY",
            "LossyImageCompression": "COPY",
            **_LOSSY,
        },
    ),
    CreatedObject(
        name="Key images",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.88.59",
        kinds=("key_objects",),
        own={**_DOCUMENT, "ConceptNameCodeSequence": "FIXED: (113000, DCM, Of Interest)"},
    ),
    CreatedObject(
        name="Rejection note (IHE IOCM)",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.88.59",
        kinds=("rejection",),
        own={**_DOCUMENT, "ConceptNameCodeSequence": "FIXED: (113001, DCM, Rejected for Quality Reasons)"},
    ),
    CreatedObject(
        name="Derived CT image (reformats, projections, isotropic series)",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        kinds=("mpr", "mip", "minip", "isotropic"),
        own={
            **_MATRIX,
            **_IN_A_FRAME,
            **_DERIVED,
            "ImageType": "FIXED for each kind: DERIVED\\SECONDARY\\REFORMATTED\\MPR, MIP, MINIP or RESAMPLED",
            "ImagePositionPatient": "AUTO",
            "ImageOrientationPatient": "AUTO",
            "PixelSpacing": "AUTO",
            "SliceThickness": "AUTO",
            "SpacingBetweenSlices": "AUTO",
            "RescaleIntercept": "AUTO",
            "RescaleSlope": "AUTO",
            "RescaleType": "FIXED: HU",
            "KVP": "COPY, empty where unknown",
            "AcquisitionNumber": "COPY, empty where unknown",
            "PatientPosition": "COPY, empty where unknown",
            **dict.fromkeys(
                (
                    "WindowCenter",
                    "WindowWidth",
                    "BodyPartExamined",
                    "ContrastBolusAgent",
                    "ConvolutionKernel",
                    "AcquisitionDate",
                    "AcquisitionTime",
                    "ProtocolName",
                    "Laterality",
                ),
                "COPY where known",
            ),
            "ImageComments": "FIXED: not a medical device",
            "BurnedInAnnotation": "FIXED: NO",
            "LossyImageCompression": "COPY: 01 where any source image was compressed with loss",
            **_LOSSY,
        },
    ),
    CreatedObject(
        name="Turning 3D rendering",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.7.4",
        kinds=("render",),
        own={
            **_CAPTURE,
            "NumberOfFrames": "AUTO",
            "FrameTime": "AUTO",
            "FrameIncrementPointer": "FIXED: FrameTime",
            "CineRate": "AUTO",
            "RecommendedDisplayFrameRate": "AUTO",
            "PreferredPlaybackSequencing": "FIXED: 0",
        },
    ),
    CreatedObject(
        name="Picture (3D rendering, curved reformat, needle view, summary page)",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.7",
        kinds=("curved", "needle", "render", "summary"),
        own=_CAPTURE,
    ),
    CreatedObject(
        name="Surface model",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.104.3",
        kinds=("surface",),
        own={
            **_IN_A_FRAME,
            "AcquisitionDateTime": "COPY, empty where unknown",
            "BurnedInAnnotation": "FIXED: NO",
            "ConceptNameCodeSequence": "AUTO",
            "ContentDescription": "FIXED: not a medical device",
            "DocumentClassCodeSequence": "FIXED",
            "DocumentTitle": "AUTO",
            "EncapsulatedDocument": "AUTO, binary STL in patient coordinates",
            "EncapsulatedDocumentLength": "AUTO",
            "MIMETypeOfEncapsulatedDocument": "FIXED: model/stl",
            "MeasurementUnitsCodeSequence": "FIXED: (mm, UCUM)",
            "ModelMirroring": "FIXED: NO",
            "ModelModification": "FIXED: NO",
            "ReferencedSeriesSequence": "AUTO",
            "SourceInstanceSequence": "AUTO",
        },
    ),
)
"""Every kind of object that is made for a Report."""
