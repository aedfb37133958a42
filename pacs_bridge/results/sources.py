"""What do the source headers say of patient and study, and how does that text travel unchanged?"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
from pydicom import config
from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from pacs_bridge.results.errors import MissingHeaders
from pacs_bridge.results.tolerant import badly_written, element_of, value_of
from pipeline.model import ExaminedStack, Report, Role
from reconstruction.headers import Header

# Type 2 attributes of the Patient and General Study modules (PS3.3 C.7.1.1, C.7.2.1): present, empty where unknown
_ALWAYS = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber",
)  # fmt: skip
_WHERE_PRESENT = (
    "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "TypeOfPatientID", "PatientBirthTime",
    "OtherPatientIDs", "OtherPatientIDsSequence", "OtherPatientNames", "PatientMotherBirthName", "EthnicGroup",
    "PatientComments", "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
    "StudyInstanceUID", "StudyDescription", "IssuerOfAccessionNumberSequence", "PhysiciansOfRecord",
    "NameOfPhysiciansReadingStudy", "RequestingService", "ProcedureCodeSequence", "ReferencedStudySequence",
    "AdmittingDiagnosesDescription", "PatientAge", "PatientSize", "PatientWeight", "MedicalAlerts", "Allergies",
    "SmokingStatus", "PregnancyStatus", "Occupation", "AdditionalPatientHistory", "AdmissionID",
    "TimezoneOffsetFromUTC",
)  # fmt: skip
# What derived images inherit, and what places an image in the patient
ACQUISITION = (
    "KVP", "AcquisitionNumber", "PatientPosition", "BodyPartExamined", "ContrastBolusAgent", "ConvolutionKernel",
    "PositionReferenceIndicator", "AcquisitionDate", "AcquisitionTime", "WindowCenter", "WindowWidth", "ProtocolName",
    "Laterality",
)  # fmt: skip
IMAGE = (
    "Rows", "Columns", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
    "PositionReferenceIndicator",
)  # fmt: skip
_LOSSY = ("LossyImageCompressionRatio", "LossyImageCompressionMethod")
_NAMES = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
_TEXT = {"LO", "LT", "PN", "SH", "ST", "UC", "UT"}
_DEFAULT = {"", "ISO_IR 6"}
# Single-valued character sets without code extensions (PS3.3 C.12.1.1.2): what they can carry, Python can tell
_SIMPLE = {
    "ISO_IR 100", "ISO_IR 101", "ISO_IR 109", "ISO_IR 110", "ISO_IR 126", "ISO_IR 127", "ISO_IR 138", "ISO_IR 144",
    "ISO_IR 148", "ISO_IR 166", "ISO_IR 192", "GB18030", "GBK",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SourceHeaders:
    """What results say of a study's source instances, by SOP Instance UID.

    ``datasets`` are the data sets (without pixels), read when they are asked for: hundreds of slices are only named,
    few speak. One that cannot be read is absent. ``headers`` tell the names without reading; of an instance that has
    none the data set tells them.
    """

    datasets: Mapping[str, Dataset]
    headers: Mapping[str, Header] = field(default_factory=dict)

    def of(self, instances: Sequence[str]) -> Sequence[Dataset]:
        """Return the data sets of these instances in their order, each read once asked for; raises MissingHeaders."""
        self._refuse_missing(instances)
        return _WhenAsked(instances, self._dataset)

    def names(self, instances: Sequence[str]) -> list[Dataset]:
        """Return for each of these instances the UIDs by which documents name it; raises MissingHeaders."""
        self._refuse_missing(instances)
        return [_name(self._header(uid)) for uid in instances]

    def referable(self, instances: Sequence[str]) -> list[Dataset]:
        """Return the names of those of these instances that a document can refer to; raises MissingHeaders."""
        return [name for name in self.names(instances) if can_be_referred_to(name)]

    def class_and_name(self, instance: str) -> tuple[str, str] | None:
        """Return the SOP class and instance UID of one instance, None where a document cannot refer to it.

        Raises MissingHeaders.
        """
        self._refuse_missing((instance,))
        uids = _uids(self._header(instance))
        return (uids[0], uids[1]) if all(uids) else None

    def lossy(self, instances: Sequence[str]) -> list[Dataset]:
        """Return the data set of the first of these instances that was compressed with loss, as ``copy_lossy_history``
        takes it; raises MissingHeaders."""
        self._refuse_missing(instances)
        lossy = next((uid for uid in instances if self._header(uid).is_lossy), None)
        return [] if lossy is None else [self._dataset(lossy)]

    def evidence(self, report: Report) -> list[Dataset]:
        """Return the names of every instance the Report examined or set aside, by series and in slice order.

        Instances that lack a name are left out. Raises MissingHeaders where none is left.
        """
        stacks = sorted(report.examined, key=lambda stack: (stack.series_instance_uid, stack.stack))
        named = dict.fromkeys(uid for stack in stacks for uid in stack.instances)
        names = self.referable(tuple(named) or sorted(self.datasets))
        if not names:
            raise MissingHeaders(max(1, len(named)))
        return names

    def speaker(self, report: Report) -> Dataset:
        """Return the data set that speaks for patient and study: the first slice of the first volume, else any.

        Where none can be read it is the names of the first. Raises MissingHeaders.
        """
        stacks = _volumes_first(report.examined)
        first = [uid for stack in stacks for uid in stack.instances[:1]] or sorted(self.datasets)[:1]
        if not first:
            raise MissingHeaders(1)
        readable = (dataset for uid in first if (dataset := self.datasets.get(uid)) is not None)
        speaker = next(readable, None)
        return self.names(first[:1])[0] if speaker is None else speaker

    def carried(self, report: Report) -> list[Dataset]:
        """Return the data sets of which results carry values: each stack's first, those with findings, the lossy."""
        stacks = {(stack.series_instance_uid, stack.stack): stack.instances for stack in report.examined}
        wanted = [uid for instances in stacks.values() for uid in instances[:1]]
        for finding in report.findings:
            instances = stacks.get((finding.series_instance_uid, finding.stack), ())
            shown = (finding.region.origin_kji[0] + k for k in np.flatnonzero(finding.region.bits.any(axis=(1, 2))))
            wanted.extend(instances[k] for k in shown if k < len(instances))
        lossy = [each for instances in stacks.values() for each in self.lossy(instances)]
        return [*self.of(tuple(dict.fromkeys(wanted))), *lossy]

    def _refuse_missing(self, instances: Sequence[str]) -> None:
        missing = {uid for uid in instances if uid not in self.headers and uid not in self.datasets}
        if missing:
            raise MissingHeaders(len(missing))

    def _header(self, uid: str) -> Header:
        return self.headers.get(uid) or Header.from_dataset(self.datasets[uid], "")

    def _dataset(self, uid: str) -> Dataset:
        dataset = self.datasets.get(uid)
        return _name(self._header(uid)) if dataset is None else dataset


class _WhenAsked(Sequence[Dataset]):
    """Data sets that are looked up one by one."""

    def __init__(self, instances: Sequence[str], look_up: Callable[[str], Dataset]) -> None:
        self._instances = tuple(instances)
        self._look_up = look_up

    def __len__(self) -> int:
        return len(self._instances)

    @overload
    def __getitem__(self, place: int) -> Dataset: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Dataset]: ...
    def __getitem__(self, place: int | slice) -> Dataset | Sequence[Dataset]:
        if isinstance(place, slice):
            return _WhenAsked(self._instances[place], self._look_up)
        return self._look_up(self._instances[place])


def _name(header: Header) -> Dataset:
    """Return a data set of the UIDs alone; one that the header lacks is absent."""
    name = Dataset()
    for keyword, uid in zip(_NAMES, _uids(header), strict=True):
        if uid:
            setattr(name, keyword, uid)
    return name


def _uids(header: Header) -> tuple[str, str, str, str]:
    return header.sop_class_uid, header.sop_instance_uid, header.series_instance_uid, header.study_instance_uid


def _volumes_first(stacks: Sequence[ExaminedStack]) -> list[ExaminedStack]:
    return sorted(stacks, key=lambda stack: (stack.role is not Role.VOLUME, stack.series_instance_uid, stack.stack))


def can_be_referred_to(header: Dataset) -> bool:
    """Say whether an instance names itself, its class, its series and its study (PS3.3 C.17.2.1)."""
    return all(value_of(header, keyword) for keyword in _NAMES)


def badly_written_attributes(speaker: Dataset, headers: Sequence[Dataset]) -> list[str]:
    """Name what results would carry of these headers but cannot, because its value is none of its type."""
    found = {name for keyword in (*_ALWAYS, *_WHERE_PRESENT) for name in badly_written(speaker, keyword)}
    carried = list(dict.fromkeys((*ACQUISITION, *IMAGE, *_LOSSY)))
    return sorted(found.union(*(badly_written(header, keyword) for header in headers for keyword in carried)))


def copy_patient_and_study(source: Dataset, target: Dataset) -> None:
    """Give ``target`` the source's patient and study attributes, decoded; what cannot be read is left out.

    Values are neither checked nor mended.
    """
    for keyword in _ALWAYS:
        if not copy_attribute(source, target, keyword):
            tag = tag_for_keyword(keyword)
            assert tag is not None
            target[tag] = DataElement(tag, dictionary_VR(tag), None)
    for keyword in _WHERE_PRESENT:
        copy_attribute(source, target, keyword)


def copy_attribute(source: Dataset, target: Dataset, keyword: str) -> bool:
    """Give ``target`` an attribute of the source where it can be read, and say whether it could."""
    element = element_of(source, keyword)
    if element is not None:
        target[element.tag] = _copied(element)
    return element is not None


def _copied(element: DataElement) -> DataElement:
    value = element.value
    if element.VR == "SQ":
        value = [_copied_item(item) for item in value]
    elif element.VR == "PN" and value:
        # A PersonName remembers its bytes and their encoding; the text alone travels, to be encoded anew
        value = str(value) if element.VM == 1 else [str(name) for name in value]
    return DataElement(element.tag, element.VR, value, validation_mode=config.IGNORE)


def _copied_item(item: Dataset) -> Dataset:
    copy = Dataset()
    for tag in sorted(item.keys()):
        element = element_of(item, tag)
        if element is not None and element.keyword != "SpecificCharacterSet":
            copy[element.tag] = _copied(element)
    return copy


def declared_character_set(source: Dataset) -> tuple[str, ...]:
    """Return the values of Specific Character Set; empty where none is declared."""
    value = value_of(source, "SpecificCharacterSet")
    values = [value] if value is None or isinstance(value, str) else list(value)
    return tuple(str(v or "").strip() for v in values) if value else ()


def has_undeclared_latin(source: Dataset) -> bool:
    """Say whether patient or study text holds bytes of 0x80 and above that no declared character set explains."""
    if not _is_default(declared_character_set(source)):
        return False
    spoken = Dataset()
    copy_patient_and_study(source, spoken)
    return not all(text.isascii() for text in texts_of(spoken))


def settle_character_set(target: Dataset, source: Dataset) -> None:
    """Declare a character set that carries every text of ``target``: the source's own where it can, else ISO_IR 192."""
    everything = "".join(set(texts_of(target)))
    for candidate in _candidates(source):
        if _carries(candidate, everything):
            _declare(target, candidate)
            return
    _declare(target, "ISO_IR 192")


def _declare(target: Dataset, character_set: str) -> None:
    if character_set:
        target.SpecificCharacterSet = character_set
    else:
        target.pop("SpecificCharacterSet", None)


def _candidates(source: Dataset) -> list[str]:
    declared = declared_character_set(source)
    if _is_default(declared):
        return ["", "ISO_IR 100"] if has_undeclared_latin(source) else [""]
    return [declared[0]] if len(declared) == 1 and declared[0] in _SIMPLE else []


def _is_default(declared: tuple[str, ...]) -> bool:
    return len(declared) <= 1 and set(declared) <= _DEFAULT


def _carries(character_set: str, text: str) -> bool:
    codec = python_encoding[character_set] if character_set else "ascii"
    try:
        text.encode(codec)
    except UnicodeEncodeError:
        return False
    return True


def texts_of(dataset: Dataset) -> Iterator[str]:
    """Yield every text of a data set that its character set has to carry, sequences included."""
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from texts_of(item)
        elif element.VR in _TEXT and element.value:
            yield from (str(value) for value in _values(element))


def _values(element: DataElement) -> Sequence[object]:
    return [element.value] if element.VM == 1 else element.value


def copy_lossy_history(sources: Sequence[Dataset], target: Dataset) -> None:
    """Say that pixels were once compressed with loss where any source says so (PS3.3 C.7.6.1.1.5)."""
    lossy = next((source for source in sources if value_of(source, "LossyImageCompression") == "01"), None)
    target.LossyImageCompression = "00" if lossy is None else "01"
    if lossy is not None:
        for keyword in _LOSSY:
            copy_attribute(lossy, target, keyword)
