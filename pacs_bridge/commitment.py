"""What is said in storage commitment (PS3.4 Annex J, Push Model), and what follows from what is known? Values only.

A request names instances; the answer is a report in which each of them is committed, or failed with a reason.
"""

import hashlib
import re
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from typing import Any, Final

from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pynetdicom.dsutils import decode

from pacs_bridge.arrival import ExpectedInstances
from pacs_bridge.elements import BIG_ENDIAN, DEFLATED, IMPLICIT_VR, elements_of
from pacs_bridge.errors import BridgeError, CannotUnderstand
from pacs_bridge.services import EventReport, ServiceRequest

PUSH_MODEL: Final = "1.2.840.10008.1.20.1"
PUSH_MODEL_INSTANCE: Final = "1.2.840.10008.1.20.1.1"
REQUEST_COMMITMENT: Final = 1
"""The only Action Type ID (PS3.4, J.3.2)."""
ALL_COMMITTED, SOME_FAILED = 1, 2
"""Event Type IDs (PS3.4, J.3.3)."""
MOST_REFERENCES: Final = 20_000
"""Twice the images of the largest examinations: reading more would keep the index from others for seconds."""

COMMITTED: Final = 0
PROCESSING_FAILURE: Final = 0x0110
NO_SUCH_INSTANCE: Final = 0x0112
CLASS_INSTANCE_CONFLICT: Final = 0x0119
CLASS_NOT_SUPPORTED: Final = 0x0122
DUPLICATE_TRANSACTION: Final = 0x0131
RESOURCE_LIMITATION: Final = 0x0213
HOPELESS: Final = frozenset((CLASS_INSTANCE_CONFLICT, CLASS_NOT_SUPPORTED))
"""Failure Reasons (PS3.3, C.14) that asking again does not change."""
REASONS: Final[Mapping[int, str]] = {
    PROCESSING_FAILURE: "processing failure",
    NO_SUCH_INSTANCE: "no such object instance",
    CLASS_INSTANCE_CONFLICT: "class and instance conflict",
    CLASS_NOT_SUPPORTED: "SOP class not supported",
    DUPLICATE_TRANSACTION: "duplicate transaction UID",
    RESOURCE_LIMITATION: "resource limitation",
}

# DIMSE statuses (PS3.7, Annex C.4 and C.5)
NO_SUCH_EVENT_TYPE: Final = 0x0113
INVALID_ARGUMENT: Final = 0x0115
NO_SUCH_ACTION_TYPE: Final = 0x0123
NOT_AUTHORISED: Final = 0x0124


@dataclass(eq=False)
class Refused(BridgeError):
    """A request or report that is answered with a failure; ``status`` is what its sender hears."""

    status: int
    reason: str

    def __str__(self) -> str:
        return f"0x{self.status:04X}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Reference:
    """One instance that is spoken of."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentRequest:
    """Somebody asks that these instances be kept (PS3.4, J.3.2.1.1); each is named once."""

    transaction_uid: str
    references: tuple[Reference, ...]

    @property
    def digest(self) -> str:
        """Tell requests apart that bear one Transaction UID: the order of the references does not matter."""
        lines = (f"{each.sop_class_uid} {each.sop_instance_uid}\n" for each in sorted(self.references))
        return hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentReport:
    """What became of a request (PS3.4, J.3.3.1.1): for each instance `COMMITTED` or its Failure Reason."""

    transaction_uid: str
    outcomes: Mapping[Reference, int]

    @property
    def event_type_id(self) -> int:
        """Return the type of the event."""
        return SOME_FAILED if any(self.outcomes.values()) else ALL_COMMITTED


# ---- reading --------------------------------------------------------------------------------------------------------


def read_request(request: ServiceRequest) -> CommitmentRequest:
    """Read an N-ACTION. Raises Refused with the status that says what is wrong with it."""
    if request.sop_instance_uid != PUSH_MODEL_INSTANCE:
        raise Refused(NO_SUCH_INSTANCE, "storage commitment has one instance, the well-known one")
    if request.type_id != REQUEST_COMMITMENT:
        raise Refused(NO_SUCH_ACTION_TYPE, "storage commitment has one action, number 1")
    content = _decoded(request.dataset, request.transfer_syntax)
    references = tuple(dict.fromkeys(_references(content, "ReferencedSOPSequence")))
    if not references:
        raise Refused(INVALID_ARGUMENT, "no instance is named in Referenced SOP Sequence")
    if len({each.sop_instance_uid for each in references}) < len(references):
        raise Refused(INVALID_ARGUMENT, "an instance is named with two SOP classes")
    return CommitmentRequest(transaction_uid=_uid(content, "TransactionUID"), references=references)


def read_report(dataset: bytes, transfer_syntax: str, event_type_id: int | None) -> CommitmentReport:
    """Read the Event Information of an N-EVENT-REPORT; what it names as failed counts as failed. Raises Refused."""
    if event_type_id not in (ALL_COMMITTED, SOME_FAILED):
        raise Refused(NO_SUCH_EVENT_TYPE, "storage commitment has the events 1 and 2")
    content = _decoded(dataset, transfer_syntax)
    outcomes = dict.fromkeys(_references(content, "ReferencedSOPSequence"), COMMITTED)
    outcomes.update(_failures(content))
    return CommitmentReport(transaction_uid=_uid(content, "TransactionUID"), outcomes=outcomes)


def _decoded(dataset: bytes, transfer_syntax: str) -> Dataset:
    """Decode after a check that costs little: nothing is cut off, and nothing nested without end."""
    try:
        elements_of(dataset, transfer_syntax)
        content: Dataset = decode(
            BytesIO(dataset),
            transfer_syntax == IMPLICIT_VR,
            transfer_syntax != BIG_ENDIAN,
            transfer_syntax in DEFLATED,
        )
    except (CannotUnderstand, *_UNREADABLE) as broken:
        raise Refused(INVALID_ARGUMENT, "its data set cannot be understood") from broken
    return content


_UNREADABLE: Final = (
    InvalidDicomError, EOFError, ValueError, KeyError, TypeError, AttributeError, NotImplementedError, struct.error,
    RecursionError, UnicodeError,
)  # fmt: skip
"""What pydicom raises for bytes that are no data set."""
_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)+")
"""Leading zeros are seen in the wild, and harmless here."""


def _references(content: Dataset, sequence: str) -> Iterator[Reference]:
    for item in _items(content, sequence):
        yield _reference(item)


def _failures(content: Dataset) -> Iterator[tuple[Reference, int]]:
    for item in _items(content, "FailedSOPSequence"):
        reason = _value(item, "FailureReason")
        # Failed without a reason is failed nevertheless.
        yield _reference(item), reason if isinstance(reason, int) and reason > 0 else PROCESSING_FAILURE


def _items(content: Dataset, sequence: str) -> Sequence[Dataset]:
    items = _value(content, sequence) or ()
    if not isinstance(items, Sequence) or isinstance(items, str | bytes):
        raise Refused(INVALID_ARGUMENT, f"{sequence} is no sequence")
    if len(items) > MOST_REFERENCES:
        raise Refused(RESOURCE_LIMITATION, f"more than {MOST_REFERENCES} instances are named: ask in parts")
    return items


def _reference(item: Dataset) -> Reference:
    return Reference(
        sop_class_uid=_uid(item, "ReferencedSOPClassUID"), sop_instance_uid=_uid(item, "ReferencedSOPInstanceUID")
    )


def _uid(content: Dataset, keyword: str) -> str:
    """Take a UID as its bytes: pydicom would make an element of each, which takes long, and log what is no UID."""
    raw = content.get_item(keyword).value if keyword in content else b""
    text = raw.decode("ascii", "replace") if isinstance(raw, bytes) else str(raw or "")
    text = text.strip(" \0")
    if len(text) > 64 or not _UID.fullmatch(text):
        raise Refused(INVALID_ARGUMENT, f"{keyword} is missing or is no UID")
    return text


def _value(content: Dataset, keyword: str) -> Any:
    try:
        return content.get(keyword)
    except _UNREADABLE as broken:
        raise Refused(INVALID_ARGUMENT, f"{keyword} cannot be understood") from broken


# ---- writing --------------------------------------------------------------------------------------------------------


def written_request(request: CommitmentRequest) -> bytes:
    """Encode Action Information in Implicit VR Little Endian."""
    return _element(0x0008, 0x1195, _padded(request.transaction_uid)) + _sequence(
        0x1199, map(_written, request.references)
    )


def written_report(report: CommitmentReport) -> EventReport:
    """Encode Event Information; each sequence only where it has items (type 1C)."""
    committed = [_written(each) for each, outcome in report.outcomes.items() if outcome == COMMITTED]
    failed = [
        _written(each) + _element(0x0008, 0x1197, struct.pack("<H", outcome))
        for each, outcome in report.outcomes.items()
        if outcome != COMMITTED
    ]
    return EventReport(
        sop_class_uid=PUSH_MODEL,
        sop_instance_uid=PUSH_MODEL_INSTANCE,
        event_type_id=report.event_type_id,
        dataset=_element(0x0008, 0x1195, _padded(report.transaction_uid))
        + (_sequence(0x1198, failed) if failed else b"")
        + (_sequence(0x1199, committed) if committed else b""),
    )


def _written(reference: Reference) -> bytes:
    return _element(0x0008, 0x1150, _padded(reference.sop_class_uid)) + _element(
        0x0008, 0x1155, _padded(reference.sop_instance_uid)
    )


def _sequence(number: int, items: Iterable[bytes]) -> bytes:
    return _element(0x0008, number, b"".join(_element(0xFFFE, 0xE000, item) for item in items))


def _element(group: int, number: int, value: bytes) -> bytes:
    return struct.pack("<HHL", group, number, len(value)) + value


def _padded(uid: str) -> bytes:
    text = uid.encode("ascii")
    return text + b"\0" * (len(text) % 2)


# ---- deciding -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentLimits:
    """How long is waited for what, in seconds, and how often a peer may fail what it has got before it is believed.

    ``patience_s``: for images that follow their own request; ``relay_s``: for a PACS to commit to what a caller asked,
    then the caller hears that it did not; ``linger_s``: on the association of a request, for a report on the same one;
    ``ask_again_s``: for a report, before the same is asked anew.
    """

    patience_s: float = 60.0
    relay_s: float = 6 * 3600.0
    linger_s: float = 5.0
    ask_again_s: float = 3600.0
    rounds: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What one peer has said of one instance: its latest outcome, None while there is none, and how often it failed.

    ``awaited``: the instance is still on its way there, so that a failure says nothing yet. ``given_up``: the peer is
    not asked any more.
    """

    outcome: int | None = None
    failures: int = 0
    awaited: bool = False
    given_up: bool = False

    def is_final(self, rounds: int) -> bool:
        """Say whether asking this peer again is useless."""
        if self.given_up or self.outcome is None:
            return self.given_up
        is_believed = self.failures >= rounds and not self.awaited
        return self.outcome in (COMMITTED, *HOPELESS) or is_believed


def own_outcome(reference: Reference, *, held_class: str | None, has_file: bool) -> int:
    """Judge what this archive is asked to keep: the class it holds the instance as, None where it holds none."""
    if held_class is None:
        return NO_SUCH_INSTANCE
    if held_class != reference.sop_class_uid:
        return CLASS_INSTANCE_CONFLICT
    return COMMITTED if has_file else PROCESSING_FAILURE


def keepers(named: Collection[str], passed_on_to: Collection[str]) -> frozenset[str]:
    """Name who must keep an instance before its caller may delete it: who is to keep it of those it is passed on to.

    Where rules pass it on to none of them, whoever sends it there is not known here, so all of them must.
    """
    return frozenset(named).intersection(passed_on_to) or frozenset(named)


def relayed_outcome(said: Sequence[Said], *, rounds: int, is_due: bool) -> int | None:
    """Judge what peers are asked to keep: all of them have to; None while all may still take it on.

    One that fails it for good is enough for a failure. When the time is over, what was failed last is passed on, and
    silence is a processing failure.
    """
    missing = [each for each in said if each.outcome != COMMITTED]
    if said and not missing:
        return COMMITTED
    final = missing if is_due else [each for each in missing if each.is_final(rounds)]
    if said and not final:
        return None
    return next((each.outcome for each in final if each.outcome is not None), PROCESSING_FAILURE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Where the index holds an instance of a CT series that is still being received."""

    study: str
    series: str
    reference: Reference


def declared_series(
    request: CommitmentRequest, held: Collection[str], arriving: Sequence[Placed], *, at: datetime
) -> tuple[ExpectedInstances, ...]:
    """Tell what a request declares of series that are arriving: a sender asks for what it has sent, or is sending.

    ``held``: the UIDs that the archive has. What it has not got yet has no series; only a request about a single series
    tells where it belongs, and only if it is of the same SOP class. Else a request with gaps declares nothing.
    """
    missing = [each for each in request.references if each.sop_instance_uid not in held]
    series: dict[tuple[str, str], set[str]] = {}
    for each in arriving:
        series.setdefault((each.study, each.series), set()).add(each.reference.sop_instance_uid)
    classes = {each.reference.sop_class_uid for each in arriving}
    to_come = {each.sop_instance_uid for each in missing if each.sop_class_uid in classes}
    if to_come and len(series) != 1:
        return ()
    return tuple(
        ExpectedInstances(study=study, series=uid, sop_instance_uids=frozenset(named | to_come), at=at)
        for (study, uid), named in series.items()
    )


def worded(failures: Mapping[Reference, int]) -> str:
    """Word failures for people, without UIDs: how many, and for which reasons."""
    reasons = sorted(set(failures.values()))
    named = ", ".join(f"0x{reason:04X} {REASONS.get(reason, 'a reason of its own')}" for reason in reasons)
    return f"{len(failures)} {'object' if len(failures) == 1 else 'objects'} ({named})"
