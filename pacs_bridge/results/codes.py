"""Which coded concepts do the results use?"""

from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset

from pacs_bridge.results.identifiers import CODING_SCHEME_UID
from pacs_bridge.results.texts import Language
from pipeline.model import HEMORRHAGE, SKULL_FRACTURE, Code

PRIVATE = "99CTRIAGE"
_KINDS = {"hemorrhage": HEMORRHAGE, "fracture": SKULL_FRACTURE}
_LANGUAGES = {"en": ("en", "English"), "es": ("es", "Spanish")}


def concept(code: Code) -> CodedConcept:
    """Turn our Code into highdicom's."""
    return CodedConcept(code.value, code.scheme, code.meaning[:64])


def dcm(value: str, meaning: str) -> CodedConcept:
    """Return a concept of PS3.16 Annex D."""
    return CodedConcept(value, "DCM", meaning)


def sct(value: str, meaning: str) -> CodedConcept:
    """Return a SNOMED CT concept."""
    return CodedConcept(value, "SCT", meaning)


def private(value: str, meaning: str) -> CodedConcept:
    """Return a concept of our own scheme, which the object then has to identify."""
    return CodedConcept(value, PRIVATE, meaning)


def kind_concept(kind: str) -> CodedConcept:
    """Return the concept for a kind of finding that a detector looks for."""
    known = _KINDS.get(kind)
    return concept(known) if known else private(kind.upper()[:16], kind[:64])


def language_concept(language: Language) -> CodedConcept:
    """Return the RFC 5646 tag of the language people read (CID 5000)."""
    tag, meaning = _LANGUAGES[language]
    return CodedConcept(tag, "RFC5646", meaning)


REPORT = dcm("126000", "Imaging Measurement Report")
IMAGING_MEASUREMENTS = dcm("126010", "Imaging Measurements")
# TID 1500 row 12
QUALITATIVE_EVALUATIONS = CodedConcept("C0034375", "UMLS", "Qualitative Evaluations")
CT = sct("77477000", "Computed tomography")
PROCEDURE_REPORTED = dcm("121058", "Procedure reported")
CERTAINTY = dcm("111012", "Certainty of Finding")
CENTER = dcm("111010", "Center")
COMMENT = dcm("121106", "Comment")
VOLUME = sct("118565006", "Volume")
SOURCE = sct("260753009", "Source")
MORPHOLOGICALLY_ABNORMAL = sct("49755003", "Morphologically Abnormal Structure")
NOT_DETECTED = sct("260415000", "Not detected")
PERCENT = CodedConcept("%", "UCUM", "percent")
MILLILITRE = CodedConcept("mL", "UCUM", "milliliter")
OF_INTEREST = dcm("113000", "Of Interest")
REJECTED_FOR_QUALITY = dcm("113001", "Rejected for Quality Reasons")
MORPHOLOGICAL_OPERATIONS = dcm("123104", "Morphological Operations")
STUDY_STATUS = private("STATUS", "Study status")
PRIORITY = private("PRIORITY", "Priority")
NOT_ANALYSED = private("NOT_ANALYSED", "NOT ANALYSED")
CHANGES = private("CHANGES", "Changes since the earlier version")
SUBTYPE = private("SUBTYPE", "Subtype of finding")
ALSO_SEEN = private("ALSO_SEEN", "Same finding in other series")


def scheme_identification() -> list[Dataset]:
    """Return the Coding Scheme Identification Sequence for our private scheme (PS3.3 C.12.1.1.1)."""
    item = Dataset()
    item.CodingSchemeDesignator = PRIVATE
    item.CodingSchemeUID = CODING_SCHEME_UID
    item.CodingSchemeName = "ctriage concepts"
    item.CodingSchemeResponsibleOrganization = "ctriage"
    return [item]
