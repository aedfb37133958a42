"""How is storage commitment answered: N-ACTION of callers, and N-EVENT-REPORT of peers that we have asked?

A request is kept, with the job that decides about it, before its caller hears Success: from then on it is reported,
whatever happens to this process.
"""

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_address, ip_network
from typing import Final

import structlog

from pacs_bridge.arrival import ExpectedInstances
from pacs_bridge.commitment import (
    INVALID_ARGUMENT,
    NOT_AUTHORISED,
    RESOURCE_LIMITATION,
    CommitmentRequest,
    Refused,
    declared_series,
    read_report,
    read_request,
)
from pacs_bridge.commitment_jobs import committing, decide_job, decide_key, relay_job, report_job, report_key
from pacs_bridge.commitments import Asking, Commitments, Held, arriving
from pacs_bridge.services import EventReport, ServiceAnswer, ServiceRequest
from pacs_bridge.settings import Caller, Commitment, Destination, Settings
from scheduler.database import Database
from scheduler.queue import Inbox

UNRECOGNISED_OPERATION: Final = 0x0211
_log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class Surroundings:
    """What storage commitment needs of pieces that are made after it.

    ``event_report``: send one over an association of the listener, False where that is not open any more. ``declare``:
    tell the arrival which images a series has. ``wake``: let the worker look for jobs. ``associations``: by AE title
    and address, the one over which a caller asked last.
    """

    event_report: Callable[[str, EventReport], bool] = lambda association, report: False
    declare: Callable[[ExpectedInstances], None] = lambda expected: None
    wake: Callable[[], None] = lambda: None
    associations: dict[tuple[str, str], str] = field(default_factory=dict)


def caller_of(settings: Settings, ae_title: str, address: str) -> Caller:
    """Return what the settings say of a sender; defaults where they name none, for only this machine is let in then."""
    named = [each for each in settings.caller if each.ae_title == ae_title and _is_in(address, each.address)]
    narrow_first = sorted(named, key=lambda each: ip_network(each.address).prefixlen, reverse=True)
    return next(iter(narrow_first), Caller(ae_title=ae_title or "UNNAMED", address=address))


def commitment_for(settings: Settings, ae_title: str, address: str) -> Commitment:
    """Return what a sender's storage commitment requests get."""
    return settings.commitment_of(caller_of(settings, ae_title, address))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ear:
    """Hears what peers report, over whichever association, and lets go on what waits for it."""

    commitments: Commitments
    database: Database
    queue: Inbox
    surroundings: Surroundings
    now: Callable[[], datetime]

    def hear(
        self, dataset: bytes, transfer_syntax: str, event_type_id: int | None, *, is_from: Callable[[str], bool]
    ) -> None:
        """Take note of a report; ``is_from`` says whether its sender is a destination. Raises Refused.

        A stranger learns nothing about which transactions there are.
        """
        report = read_report(dataset, transfer_syntax, event_type_id)
        commitment = self.commitments.transaction(report.transaction_uid)
        if commitment is None or not is_from(commitment.destination):
            raise Refused(INVALID_ARGUMENT, "no transaction of ours with this sender bears this UID")
        with self.database.transaction():
            self.commitments.hear(commitment, report)
            self.queue.hurry(commitment.job, now=self.now())
            if commitment.decided_by is not None:
                self.queue.hurry(commitment.decided_by, now=self.now())
        failed = sum(outcome != 0 for outcome in report.outcomes.values())
        _log.info("commitment_heard", peer=commitment.destination, instances=len(report.outcomes), failed=failed)
        self.surroundings.wake()


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentService:
    """The Service of Storage Commitment Push Model (see pacs_bridge.services)."""

    settings: Settings
    commitments: Commitments
    database: Database
    queue: Inbox
    ear: Ear
    surroundings: Surroundings
    now: Callable[[], datetime]

    def __call__(self, request: ServiceRequest) -> ServiceAnswer:
        """Answer; Success to an N-ACTION means that the request is kept and will be reported."""
        try:
            self._answer(request)
        except Refused as refused:
            return _refusal(request, refused)
        except (sqlite3.Error, OSError) as trouble:
            return _refusal(request, Refused(RESOURCE_LIMITATION, f"it cannot be kept: {trouble}"))
        return ServiceAnswer(status=0)

    def _answer(self, request: ServiceRequest) -> None:
        match request.kind:
            case "n_action":
                self._asked(request)
            case "n_event_report":
                self.ear.hear(
                    request.dataset,
                    request.transfer_syntax,
                    request.type_id,
                    is_from=lambda name: self._is_from(request, name),
                )
            case _:
                raise Refused(UNRECOGNISED_OPERATION, "storage commitment knows N-ACTION and N-EVENT-REPORT only")

    # ---- N-ACTION ---------------------------------------------------------------------------------------------------

    def _asked(self, request: ServiceRequest) -> None:
        mode = commitment_for(self.settings, request.calling_ae, request.address)
        asked, at = read_request(request), self.now()
        held = self.commitments.held([each.sop_instance_uid for each in asked.references])
        if mode == "off":  # what it lists is evidence of what it sends, all the same
            self._declare(asked, held, at)
            raise Refused(NOT_AUTHORISED, 'commitment is "off" for it: give its [[caller]] commitment "own" or "relay"')
        asking = Asking(caller=request.calling_ae, address=request.address, association=request.association, mode=mode)
        self.surroundings.associations[request.calling_ae, request.address] = request.association
        with self.database.transaction():
            self._follow_up(self.commitments.accept(asking, asked, at=at), at)
        _log.info("commitment_requested", caller=request.calling_ae, mode=mode, instances=len(asked.references))
        self._declare(asked, held, at)
        self.surroundings.wake()

    def _follow_up(self, number: int, at: datetime) -> None:
        """Queue what follows from a request; what its caller has not heard of earlier ones may go the same way."""
        request = self.commitments.request(number)
        if request.state == "open":
            if not self.queue.submit(decide_job(request), now=at):
                self.queue.hurry(decide_key(request), now=at)
            for destination in committing(self.settings) if request.asking.mode == "relay" else ():
                self.queue.submit(relay_job(request, destination), now=at)
        else:
            self.queue.submit(report_job(request), now=at)
        for earlier in self.commitments.unreported_of(request.asking):
            self.queue.hurry(report_key(earlier), now=at)

    def _declare(self, asked: CommitmentRequest, held: Mapping[str, Held], at: datetime) -> None:
        for expected in declared_series(asked, held, arriving(asked, held), at=at):
            self.surroundings.declare(expected)

    # ---- N-EVENT-REPORT ---------------------------------------------------------------------------------------------

    def _is_from(self, request: ServiceRequest, name: str) -> bool:
        """Say whether a report comes from a destination: by its AE title, or from its very address."""
        named = next((each for each in self.settings.destination if each.name == name), None)
        return named is not None and _is_peer(named, request)


def _is_peer(destination: Destination, request: ServiceRequest) -> bool:
    return request.calling_ae == destination.ae_title or request.address == destination.host


def _refusal(request: ServiceRequest, refused: Refused) -> ServiceAnswer:
    status, reason = f"0x{refused.status:04X}", refused.reason
    _log.warning("commitment_refused", caller=request.calling_ae, kind=request.kind, status=status, reason=reason)
    return ServiceAnswer(status=refused.status)


def _is_in(address: str, network: str) -> bool:
    return ip_address(address) in ip_network(network)
