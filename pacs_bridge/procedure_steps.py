"""What does a scanner say of its procedure step (MPPS), and which instances does it declare? Pure.

PS3.4 F.7.2. Of what Table F.7.2-1 requires, that is checked without which a step means nothing to us: the attributes of
type 1. Missing ones of type 2 are let pass, as many scanners leave them out; what N-SET may not change stays as it was.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import IntEnum
from io import BytesIO
from typing import Final, Literal, get_args

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from pacs_bridge.arrival import ExpectedInstances
from pacs_bridge.elements import BIG_ENDIAN, IMPLICIT_VR, elements_of
from pacs_bridge.errors import BridgeError, CannotUnderstand
from pacs_bridge.instance import is_uid
from pacs_bridge.results.tolerant import value_of

MODALITY_PERFORMED_PROCEDURE_STEP: Final = "1.2.840.10008.3.1.2.3.3"
StepStatus = Literal["IN PROGRESS", "COMPLETED", "DISCONTINUED"]
STATUSES: Final[tuple[StepStatus, ...]] = get_args(StepStatus)

_AT_CREATION: Final = (
    "ScheduledStepAttributesSequence", "PerformedProcedureStepID", "PerformedStationAETitle",
    "PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime", "PerformedProcedureStepStatus", "Modality",
)  # fmt: skip
_AT_THE_END: Final = ("PerformedProcedureStepEndDate", "PerformedProcedureStepEndTime")


class StepAnswer(IntEnum):
    """The statuses that we answer (PS3.7 Annex C; PS3.4 F.7.2.1.3, F.7.2.2.3)."""

    SUCCESS = 0x0000
    INVALID_VALUE = 0x0106
    PROCESSING_FAILURE = 0x0110
    DUPLICATE = 0x0111
    UNKNOWN_INSTANCE = 0x0112
    INVALID_INSTANCE = 0x0117
    MISSING_ATTRIBUTE = 0x0120
    MISSING_VALUE = 0x0121
    NOT_AUTHORISED = 0x0124
    NO_SUCH_OPERATION = 0x0211
    NO_RESOURCES = 0x0213


@dataclass(eq=False)
class StepRefused(BridgeError):
    """A request on a procedure step that cannot be followed: the status the peer hears, and the reason for the log."""

    status: StepAnswer
    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class PerformedSeries:
    """One item of the Performed Series Sequence: its images, and its other composite objects, by UID."""

    series_instance_uid: str
    images: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcedureStep:
    """What we keep of a step: its state, the studies it belongs to, what was made; ``ended``: its end has an instant.

    More studies than one: a group of requested procedures, of which the images name one.
    """

    status: StepStatus
    modality: str
    studies: tuple[str, ...]
    series: tuple[PerformedSeries, ...] = ()
    ended: bool = False


def attributes_of(dataset: bytes, transfer_syntax: str) -> Dataset:
    """Read a data set as it came over the network; raises StepRefused where it is none."""
    try:
        content = elements_of(dataset, transfer_syntax).content
        return read_dataset(
            BytesIO(content),
            is_implicit_VR=transfer_syntax == IMPLICIT_VR,
            is_little_endian=transfer_syntax != BIG_ENDIAN,
        )
    except (CannotUnderstand, EOFError, LookupError, OSError, RuntimeError, ValueError) as broken:
        raise StepRefused(StepAnswer.PROCESSING_FAILURE, f"the data set cannot be read: {broken}") from broken


def created(attributes: Dataset) -> ProcedureStep:
    """Return the step that N-CREATE begins; raises StepRefused."""
    _require(attributes, _AT_CREATION)
    studies = _items(attributes, "ScheduledStepAttributesSequence")
    for item in studies:
        _require(item, ("StudyInstanceUID",))
    if _status(attributes) != "IN PROGRESS":
        raise StepRefused(StepAnswer.INVALID_VALUE, "a step begins IN PROGRESS")
    step = ProcedureStep(
        status="IN PROGRESS",
        modality=_text(attributes, "Modality"),
        studies=tuple(dict.fromkeys(_uid(item, "StudyInstanceUID") for item in studies)),
    )
    return _with_results(step, attributes)


def changed(before: ProcedureStep, change: Dataset) -> ProcedureStep:
    """Return the step after N-SET; raises StepRefused: one that has ended does not change any more."""
    if before.status != "IN PROGRESS":
        raise StepRefused(StepAnswer.PROCESSING_FAILURE, f"the step is {before.status} and may no longer be updated")
    status = _status(change) if "PerformedProcedureStepStatus" in change else before.status
    after = _with_results(replace(before, status=status), change)
    if status == "COMPLETED":
        _require_end(after)
    return after


def lists_of(step: ProcedureStep, at: datetime) -> Iterator[ExpectedInstances]:
    """Yield what an ended step declares; nothing while it is in progress, for more may be made.

    What a DISCONTINUED step names is evidence where all of it is there, but nothing is waited for: nobody knows how
    much of it will be sent. Nor is waited for what is no image, no CT, or may belong to another study of a group.
    """
    if step.status == "IN PROGRESS":
        return
    awaited = step.status == "COMPLETED" and step.modality == "CT" and len(step.studies) == 1
    for study in step.studies:
        for series in step.series:
            for names, waits in ((series.images, awaited), (series.others, False)):
                if names:
                    yield ExpectedInstances(
                        study=study,
                        series=series.series_instance_uid,
                        sop_instance_uids=names,
                        at=at,
                        whole=True,
                        awaited=waits,
                    )


def _with_results(step: ProcedureStep, attributes: Dataset) -> ProcedureStep:
    """Take over what was made so far: N-SET replaces a sequence as a whole."""
    ended = step.ended or all(_text(attributes, name) for name in _AT_THE_END)
    if "PerformedSeriesSequence" not in attributes:
        return replace(step, ended=ended)
    series = tuple(_series(item) for item in _items(attributes, "PerformedSeriesSequence"))
    return replace(step, ended=ended, series=series)


def _series(item: Dataset) -> PerformedSeries:
    _require(item, ("SeriesInstanceUID",))
    return PerformedSeries(
        series_instance_uid=_uid(item, "SeriesInstanceUID"),
        images=_referenced(item, "ReferencedImageSequence"),
        others=_referenced(item, "ReferencedNonImageCompositeSOPInstanceSequence"),
    )


def _referenced(series: Dataset, keyword: str) -> frozenset[str]:
    return frozenset(_uid(item, "ReferencedSOPInstanceUID") for item in _items(series, keyword))


def _require_end(step: ProcedureStep) -> None:
    """Table F.7.2-1, final state: a completed step has an end, and at least one series, empty or not."""
    if not step.ended:
        raise StepRefused(StepAnswer.MISSING_ATTRIBUTE, f"a completed step has {' and '.join(_AT_THE_END)}")
    if not step.series:
        raise StepRefused(StepAnswer.MISSING_ATTRIBUTE, "a completed step has an item in PerformedSeriesSequence")


def _require(attributes: Dataset, keywords: Sequence[str]) -> None:
    for keyword in keywords:
        if keyword not in attributes:
            raise StepRefused(StepAnswer.MISSING_ATTRIBUTE, f"{keyword} is missing")
        if not (_items(attributes, keyword) or _text(attributes, keyword)):
            raise StepRefused(StepAnswer.MISSING_VALUE, f"{keyword} has no value")


def _status(attributes: Dataset) -> StepStatus:
    text = _text(attributes, "PerformedProcedureStepStatus")
    for status in STATUSES:
        if status == text:
            return status
    raise StepRefused(StepAnswer.INVALID_VALUE, f"PerformedProcedureStepStatus is none of {', '.join(STATUSES)}")


def _items(attributes: Dataset, keyword: str) -> Sequence[Dataset]:
    value = _value(attributes, keyword)
    return [item for item in value if isinstance(item, Dataset)] if isinstance(value, Sequence) else []


def _uid(attributes: Dataset, keyword: str) -> str:
    uid = _text(attributes, keyword)
    if not is_uid(uid):
        raise StepRefused(StepAnswer.INVALID_VALUE, f"a value of {keyword} is no UID")
    return uid


def _text(attributes: Dataset, keyword: str) -> str:
    value = _value(attributes, keyword)
    return value.strip("\0 ") if isinstance(value, str) else ""


def _value(attributes: Dataset, keyword: str) -> object:
    try:
        return value_of(attributes, keyword)
    except (EOFError, OSError):  # a sequence that ends in the middle of an item
        return None
