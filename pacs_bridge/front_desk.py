"""Who is let in, what do they hear, and what is noted of them? The driver's side of every receiver."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_address, ip_network
from typing import Final

import structlog

from pacs_bridge.audit import Auditor, Party, StudyShare, association_refused, instances_received, tls_refused
from pacs_bridge.intake import Intake
from pacs_bridge.receiving.desk import Answer, Asked, Entry, Refusal
from pacs_bridge.services import Service, ServiceAnswer, ServiceRequest
from pacs_bridge.store_status import StoreStatus

CALLING_AE_NOT_RECOGNISED: Final = Refusal(1, 1, 3)
CALLED_AE_NOT_RECOGNISED: Final = Refusal(1, 1, 7)
NO_REASON_GIVEN: Final = Refusal(1, 1, 1)
LOCAL_LIMIT_EXCEEDED: Final = Refusal(2, 3, 2)
SOP_CLASS_NOT_SUPPORTED: Final = 0x0122
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A sender that is let in: its title, its address or network, and whether over TLS only."""

    ae_title: str
    address: str
    tls: bool = False

    def covers(self, asked: Asked) -> bool:
        """Say whether title and address fit."""
        return self.ae_title == asked.calling_ae and ip_address(asked.address) in ip_network(self.address)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Whom to let in; with nobody known, whoever sends from this machine."""

    ae_title: str
    known: Collection[Known] = ()
    maximum_associations: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """Why an association is not let in, and what to do about it."""

    refusal: Refusal
    reason: str
    remedy: str


def judge(asked: Asked, admission: Admission, already_open: int) -> Rejected | None:
    """Decide on an association; None: it is let in."""
    fitting = [known for known in admission.known if known.covers(asked)]
    if not fitting and (admission.known or not ip_address(asked.address).is_loopback):
        reason = f"unknown caller {asked.calling_ae} from {asked.address}"
        return Rejected(refusal=CALLING_AE_NOT_RECOGNISED, reason=reason, remedy=_lines_to_add(asked))
    if fitting and not asked.tls and all(known.tls for known in fitting):
        reason = f"caller {asked.calling_ae} from {asked.address} spoke no TLS"
        remedy = "let it speak TLS to listener.tls_port, or take tls = true from its [[caller]]"
        return Rejected(refusal=NO_REASON_GIVEN, reason=reason, remedy=remedy)
    if asked.called_ae != admission.ae_title:
        reason = f"caller {asked.calling_ae} called us {asked.called_ae}"
        remedy = f"the sender must call us {admission.ae_title}, or set listener.ae_title to the title it uses"
        return Rejected(refusal=CALLED_AE_NOT_RECOGNISED, reason=reason, remedy=remedy)
    if already_open >= admission.maximum_associations:
        reason = f"{already_open} associations are open already"
        remedy = "look which sender leaves them open, or raise listener.maximum_associations"
        return Rejected(refusal=LOCAL_LIMIT_EXCEEDED, reason=reason, remedy=remedy)
    return None


@dataclass(slots=True, kw_only=True)
class _Visit:
    """What came over an association so far."""

    asked: Asked
    studies: dict[str, "_Brought"] = field(default_factory=dict)


@dataclass(slots=True)
class _Brought:
    patient_id: str
    sop_classes: Counter[str] = field(default_factory=Counter)


class ReceptionDesk:
    """Implements FrontDesk where the index is; threads may share it."""

    def __init__(
        self,
        admission: Admission,
        intake: Intake,
        *,
        services: Mapping[str, Service],
        audit: Auditor,
        now: Callable[[], datetime],
    ) -> None:
        """Begin with nobody in; ``services`` answer what is asked besides storing, by SOP class."""
        self._admission = admission
        self._intake = intake
        self._services = services
        self._audit = audit
        self._now = now
        self._lock = threading.Lock()
        self._visits: dict[str, _Visit] = {}

    @property
    def open_associations(self) -> int:
        """Count those that were let in and have not ended."""
        with self._lock:
            return len(self._visits)

    def opened(self, asked: Asked) -> Refusal | None:
        """See FrontDesk."""
        with self._lock:
            rejected = judge(asked, self._admission, len(self._visits))
            if rejected is None:
                self._visits[asked.association] = _Visit(asked=asked)
                return None
        _log.warning("association_rejected", reason=rejected.reason, remedy=rejected.remedy)
        caller = Party(name=asked.calling_ae, address=asked.address)
        self._audit(association_refused(caller, called=asked.called_ae, reason=rejected.reason, at=self._now()))
        return rejected.refusal

    def enter(self, entry: Entry, settle: Callable[[], None]) -> Answer:
        """See FrontDesk."""
        settle()
        answer: Future[Answer] = Future()
        self.enter_later(entry, answer.set_result)
        return answer.result()

    def enter_later(self, entry: Entry, done: Callable[[Answer], None]) -> None:
        """Enter an instance in the next round; ``done`` hears how it went."""

        def entered(answer: Answer) -> None:
            if answer.status is StoreStatus.SUCCESS:
                self._note(entry)
            done(answer)  # who hears it may release at once, and then all must have been noted

        self._intake.enter_later(entry, entered)

    def not_kept(self, calling_ae: str, answer: Answer) -> None:
        """See FrontDesk."""
        _log.warning("instance_refused", caller=calling_ae, status=f"0x{answer.status:04X}", reason=answer.comment)

    def closed(self, association: str, problem: str) -> None:
        """See FrontDesk."""
        with self._lock:
            visit = self._visits.pop(association, None)
        if visit is None:
            return
        try:
            if problem:
                asked = visit.asked
                _log.warning("association_broken_off", caller=asked.calling_ae, address=asked.address, reason=problem)
                self._intake.aborted(association)
            else:
                self._intake.released(association)
        finally:
            self._tell(visit, problem)  # a full disk may keep the end of a series from being noted, not what came

    def serve(self, request: ServiceRequest) -> ServiceAnswer:
        """See FrontDesk."""
        service = self._services.get(request.sop_class_uid)
        return service(request) if service else ServiceAnswer(status=SOP_CLASS_NOT_SUPPORTED)

    def turned_away(self, address: str, reason: str) -> None:
        """See FrontDesk."""
        _log.warning("connection_turned_away", address=address, reason=reason)
        if reason.startswith("TLS"):
            self._audit(tls_refused(address, reason=reason, at=self._now()))

    def _note(self, entry: Entry) -> None:
        with self._lock:
            visit = self._visits.get(entry.association)
            if visit is not None:
                facts = entry.facts
                brought = visit.studies.setdefault(facts.study_instance_uid, _Brought(facts.patient_id))
                brought.sop_classes[facts.sop_class_uid] += 1

    def _tell(self, visit: _Visit, problem: str) -> None:
        caller = Party(name=visit.asked.calling_ae, address=visit.asked.address)
        for study, brought in visit.studies.items():
            share = StudyShare(
                study_instance_uid=study,
                patient_id=brought.patient_id,
                study_key=self._intake.study_key(study),
                instances=tuple(brought.sop_classes.items()),
            )
            self._audit(instances_received(caller, share, at=self._now(), problem=problem))


def _lines_to_add(asked: Asked) -> str:
    title, ip = json.dumps(asked.calling_ae), json.dumps(asked.address)
    return f"to let it in, add to the settings:\n[[caller]]\nae_title = {title}\naddress = {ip}"
