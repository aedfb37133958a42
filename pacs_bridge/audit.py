"""What happened that somebody may have to answer for: events, as values and as DICOM audit messages (PS3.15, A.5).

A receiver makes events where they happen and hands them to the driver, whose trail keeps them. Here, and nowhere else
but in the index, patients may be named.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_address
from typing import Any, Final, Literal

Action = Literal["C", "R", "U", "D", "E"]
"""EventActionCode: create, read, update, delete, execute."""

LONGEST_TEXT: Final = 512
SUCCESS: Final = 0
MINOR_FAILURE: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """A coded concept: of PS3.16, Annex D (DCM), or of IHE."""

    value: str
    meaning: str
    scheme: str = "DCM"


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """Somebody who took part besides ourselves: an AE, or a person named as the operating system does.

    ``address``: the IP address or host name; empty where it is not known.
    """

    name: str
    address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyShare:
    """What of one study, and of one patient in it, was concerned.

    ``instances``: pairs of SOP Class UID and count; of results the kinds are told by their SOP classes too.
    """

    study_instance_uid: str
    patient_id: str = ""
    study_key: str = ""
    instances: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """One more thing to say of what an event is about."""

    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One event of PS3.15, A.5.3. Made by the functions below, which know what each kind has to say.

    ``at``: an aware instant. ``outcome``: 0 success, 4 a failure; ``said`` explains it. ``peer`` took
    part in the role ``peer_role``, we in ``our_role``. ``alert``: of a security alert, what it is about.
    """

    at: datetime
    event: Code
    action: Action = "E"
    outcome: int = SUCCESS
    said: str = ""
    kind: Code | None = None
    peer: Party | None = None
    peer_role: Code | None = None
    our_role: Code | None = None
    study: StudyShare | None = None
    alert: str = ""
    details: tuple[Detail, ...] = field(default=())


Auditor = Callable[[AuditEvent], None]
"""Takes an event for the trail; returns at once and never raises."""


def unheard(event: AuditEvent) -> None:
    """Keep no trail: an Auditor for where nobody asks."""


SOURCE: Final = Code(value="110153", meaning="Source Role ID")
TAKER: Final = Code(value="110152", meaning="Destination Role ID")
_APPLICATION: Final = Code(value="110150", meaning="Application")
_ACTIVITY: Final = Code(value="110100", meaning="Application Activity")
_LOG_USED: Final = Code(value="110101", meaning="Audit Log Used")
_ACCESSED: Final = Code(value="110103", meaning="DICOM Instances Accessed")
_TRANSFERRED: Final = Code(value="110104", meaning="DICOM Instances Transferred")
_DELETED: Final = Code(value="110105", meaning="DICOM Study Deleted")
_ALERT: Final = Code(value="110113", meaning="Security Alert")
_START: Final = Code(value="110120", meaning="Application Start")
_STOP: Final = Code(value="110121", meaning="Application Stop")
_NODE_AUTHENTICATION: Final = Code(value="110126", meaning="Node Authentication")
_SECURITY_CONFIGURATION: Final = Code(value="110129", meaning="Security Configuration")
_RECORDING_STOPPED: Final = Code(value="110133", meaning="Audit Recording Stopped")
_RECORDING_STARTED: Final = Code(value="110134", meaning="Audit Recording Started")
_COMMITMENT: Final = Code(value="RAD-10", meaning="Storage Commitment", scheme="IHE Transactions")


# ---- the service ----------------------------------------------------------------------------------------------------


def service_started(*, at: datetime) -> AuditEvent:
    """Say that the service began to listen (A.5.3.1)."""
    return AuditEvent(at=at, event=_ACTIVITY, kind=_START, our_role=_APPLICATION)


def service_stopped(*, at: datetime, problem: str = "") -> AuditEvent:
    """Say that the service ended; ``problem`` when it did not on request."""
    return AuditEvent(
        at=at, event=_ACTIVITY, kind=_STOP, our_role=_APPLICATION, said=problem, outcome=_outcome(problem)
    )


def settings_in_force(settings_hash: str, *, at: datetime) -> AuditEvent:
    """Say with which settings the service runs (A.5.3.11): whom it lets in stands there."""
    return _alert(_SECURITY_CONFIGURATION, "settings", at=at, details=(Detail(name="hash", value=settings_hash),))


# ---- who was not let in ---------------------------------------------------------------------------------------------


def association_refused(caller: Party, *, called: str, reason: str, at: datetime) -> AuditEvent:
    """Say that a caller was turned away: unknown, called us by another title, in clear where TLS is asked for."""
    about = f"{caller.name}@{caller.address}"
    details = (Detail(name="called AE title", value=called),)
    return _alert(_NODE_AUTHENTICATION, about, at=at, peer=caller, problem=reason, details=details)


def tls_refused(address: str, *, reason: str, at: datetime) -> AuditEvent:
    """Say that a TLS handshake failed, whoever's fault it was; no AE title is known by then."""
    return _alert(_NODE_AUTHENTICATION, address, at=at, peer=Party(name=address, address=address), problem=reason)


def more_refusals(address: str, *, reason: str, times: int, at: datetime) -> AuditEvent:
    """Say how many more times an address was refused, for one reason, than is recorded one by one."""
    problem = f"{times} more times within a minute: {reason}"
    return _alert(_NODE_AUTHENTICATION, address, at=at, peer=Party(name=address, address=address), problem=problem)


def is_refusal(event: AuditEvent) -> bool:
    """Say whether somebody was not let in."""
    return event.kind == _NODE_AUTHENTICATION


# ---- instances that came and went -----------------------------------------------------------------------------------


def instances_received(caller: Party, share: StudyShare, *, at: datetime, problem: str = "") -> AuditEvent:
    """Say what of one study came over one association (A.5.3.7), once it is released or broken off (``problem``)."""
    return _transfer(share, at=at, peer=caller, peer_role=SOURCE, problem=problem)


def instances_sent(destination: Party, share: StudyShare, *, at: datetime, problem: str = "") -> AuditEvent:
    """Say what a destination has taken (A.5.3.7); with ``problem``, what it was meant to take."""
    return _transfer(share, at=at, peer=destination, peer_role=TAKER, problem=problem)


def commitment_given(asker: Party, share: StudyShare, *, at: datetime, problem: str = "") -> AuditEvent:
    """Say that we have promised a caller to keep instances; with ``problem``, that we have not.

    What was promised and what was not are two events (A.5.2): nothing is half a success.
    """
    return _commitment(asker, SOURCE, share, at=at, problem=problem)


def commitment_taken(destination: Party, share: StudyShare, *, at: datetime, problem: str = "") -> AuditEvent:
    """Say that a destination has promised us to keep instances; with ``problem``, that it has not."""
    return _commitment(destination, TAKER, share, at=at, problem=problem)


# ---- an administrator's decisions -----------------------------------------------------------------------------------


def conflict_accepted(person: Party, share: StudyShare, *, what: str, at: datetime) -> AuditEvent:
    """Say who accepted which conflict: two contents of one instance, two patients in one study."""
    details = (Detail(name="conflict accepted", value=what),)
    return AuditEvent(at=at, event=_ACCESSED, action="U", peer=person, study=share, details=details)


def study_deleted(share: StudyShare, *, why: str, at: datetime) -> AuditEvent:
    """Say that a study's images were removed from this archive (A.5.3.5), and by which rule."""
    details = (Detail(name="rule", value=why),)
    return AuditEvent(at=at, event=_DELETED, action="D", our_role=_APPLICATION, study=share, details=details)


# ---- the trail itself -----------------------------------------------------------------------------------------------


def trail_begins(*, at: datetime, details: Mapping[str, str]) -> AuditEvent:
    """Say that records are kept from here on, and what stood before that is no record (A.5.3.11)."""
    return _alert(_RECORDING_STARTED, "audit trail", at=at, details=_details(details))


def trail_had_a_gap(*, at: datetime, lost: int, reason: str) -> AuditEvent:
    """Say that events could not be kept, and how many."""
    details = (Detail(name="events lost", value=str(lost)),)
    return _alert(_RECORDING_STOPPED, "audit trail", at=at, problem=reason, details=details)


def trail_shortened(*, at: datetime, details: Mapping[str, str]) -> AuditEvent:
    """Say that old records were removed by the settings (A.5.3.2), and where the chain goes on."""
    return AuditEvent(at=at, event=_LOG_USED, action="D", our_role=_APPLICATION, details=_details(details))


# ---- as a message ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSource:
    """Who keeps the trail: our AE title, and the name of this machine."""

    ae_title: str
    machine: str
    process_id: int


def message_of(event: AuditEvent, source: AuditSource) -> dict[str, Any]:
    """Return the audit message (PS3.15, A.5.1): elements and attributes as keys, what may be repeated as a list."""
    message = {
        "EventIdentification": _identification(event),
        "ActiveParticipant": _participants(event, source),
        "AuditSourceIdentification": {
            "AuditSourceID": f"{source.ae_title}@{source.machine}",
            "AuditSourceTypeCode": [{"csd-code": "4"}],  # an application server
        },
        "ParticipantObjectIdentification": _objects(event),
    }
    clipped: dict[str, Any] = _clipped(message)
    return clipped


def _clipped(value: Any) -> Any:
    """Shorten endless texts, and let what a header holds instead of a text be one: some of them are a stranger's."""
    if isinstance(value, dict):
        return {name: _clipped(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_clipped(each) for each in value]
    return value if isinstance(value, bool) else str(value)[:LONGEST_TEXT]


def _identification(event: AuditEvent) -> dict[str, Any]:
    identification: dict[str, Any] = {
        "EventID": _coded(event.event),
        "EventActionCode": event.action,
        "EventDateTime": event.at.isoformat(),
        "EventOutcomeIndicator": str(event.outcome),
    }
    if event.kind:
        identification["EventTypeCode"] = [_coded(event.kind)]
    if event.said:
        identification["EventOutcomeDescription"] = event.said
    return identification


def _participants(event: AuditEvent, source: AuditSource) -> list[dict[str, Any]]:
    ours = {
        "UserID": str(source.process_id),
        "AlternativeUserID": f"AETITLE={source.ae_title}",
        **_access_point(source.machine),
        "UserIsRequestor": event.peer is None or event.peer_role == TAKER,
        **({"RoleIDCode": [_coded(event.our_role)]} if event.our_role else {}),
    }
    return [ours] if event.peer is None else [ours, _peer(event, event.peer)]


def _peer(event: AuditEvent, peer: Party) -> dict[str, Any]:
    return {
        "UserID": peer.name,
        **({"AlternativeUserID": f"AETITLE={peer.name}"} if event.peer_role else {}),
        **_access_point(peer.address),
        "UserIsRequestor": event.peer_role != TAKER,
        **({"RoleIDCode": [_coded(event.peer_role)]} if event.peer_role else {}),
    }


def _access_point(address: str) -> dict[str, Any]:
    """Name a network access point: type 2 is an IP address, 1 a machine's name (A.5.1)."""
    if not address:
        return {}
    return {"NetworkAccessPointID": address, "NetworkAccessPointTypeCode": "2" if _is_numeric(address) else "1"}


def _is_numeric(address: str) -> bool:
    try:
        ip_address(address)
    except ValueError:
        return False
    return True


def _objects(event: AuditEvent) -> list[dict[str, Any]]:
    if event.study is not None:
        return _study_objects(event.study, event.details)
    if event.alert or event.details:
        return [_alert_object(event)]
    return []


def _study_objects(share: StudyShare, details: Sequence[Detail]) -> list[dict[str, Any]]:
    study = {
        "ParticipantObjectTypeCode": "2",  # a system object
        "ParticipantObjectTypeCodeRole": "3",  # a report
        "ParticipantObjectIDTypeCode": _coded(Code(value="110180", meaning="Study Instance UID")),
        "ParticipantObjectID": share.study_instance_uid,
        "ParticipantObjectName": share.study_key,  # the schema wants a name: what logs and commands call the study
        "ParticipantObjectDetail": _as_details(details),
        "ParticipantObjectDescription": {
            "SOPClass": [{"UID": uid, "NumberOfInstances": str(count)} for uid, count in share.instances]
        },
    }
    patient = {
        "ParticipantObjectTypeCode": "1",  # a person
        "ParticipantObjectTypeCodeRole": "1",  # the patient
        "ParticipantObjectIDTypeCode": _coded(Code(value="2", meaning="Patient Number", scheme="RFC-3881")),
        "ParticipantObjectID": share.patient_id,
        "ParticipantObjectName": "",  # it wants one; who has the right to know it finds it by the number
    }
    return [study, patient] if share.patient_id else [study]


def _alert_object(event: AuditEvent) -> dict[str, Any]:
    return {
        "ParticipantObjectTypeCode": "2",
        "ParticipantObjectTypeCodeRole": "13",  # a security resource
        "ParticipantObjectIDTypeCode": _coded(Code(value="110182", meaning="Node ID")),
        "ParticipantObjectID": event.alert or "audit trail",
        "ParticipantObjectName": event.alert or "audit trail",
        "ParticipantObjectDetail": _as_details(event.details),
    }


def _as_details(details: Sequence[Detail]) -> list[dict[str, str]]:
    return [{"type": each.name, "value": each.value} for each in details]


def _coded(code: Code) -> dict[str, str]:
    return {"csd-code": code.value, "codeSystemName": code.scheme, "originalText": code.meaning}


# ---- making events --------------------------------------------------------------------------------------------------


def _alert(
    kind: Code,
    about: str,
    *,
    at: datetime,
    peer: Party | None = None,
    problem: str = "",
    details: tuple[Detail, ...] = (),
) -> AuditEvent:
    return AuditEvent(
        at=at,
        event=_ALERT,
        kind=kind,
        outcome=_outcome(problem),
        said=problem,
        peer=peer,
        alert=about,
        details=details,
    )


def _transfer(share: StudyShare, *, at: datetime, peer: Party, peer_role: Code, problem: str = "") -> AuditEvent:
    return AuditEvent(
        at=at,
        event=_TRANSFERRED,
        action="C",
        outcome=_outcome(problem),
        said=problem,
        peer=peer,
        peer_role=peer_role,
        our_role=TAKER if peer_role == SOURCE else SOURCE,
        study=share,
    )


def _commitment(peer: Party, peer_role: Code, share: StudyShare, *, at: datetime, problem: str) -> AuditEvent:
    return AuditEvent(
        at=at,
        event=_ACCESSED,
        action="R",
        kind=_COMMITMENT,
        outcome=_outcome(problem),
        said=problem,
        peer=peer,
        peer_role=peer_role,
        our_role=TAKER if peer_role == SOURCE else SOURCE,
        study=share,
    )


def _details(values: Mapping[str, str]) -> tuple[Detail, ...]:
    return tuple(Detail(name=name, value=value) for name, value in values.items())


def _outcome(problem: str) -> int:
    return MINOR_FAILURE if problem else SUCCESS
