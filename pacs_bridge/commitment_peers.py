"""How is storage commitment spoken over an association of our own: to ask (N-ACTION), to tell (N-EVENT-REPORT)?

Asking, we are SCU. Telling, we are SCP though it is we who call, so the role is negotiated (PS3.7, D.3.3.4).
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from threading import Event
from typing import Any, Final

from pynetdicom import build_role, evt
from pynetdicom.dsutils import decode

from pacs_bridge.commitment import (
    CLASS_NOT_SUPPORTED,
    NO_SUCH_ACTION_TYPE,
    NOT_AUTHORISED,
    PUSH_MODEL,
    PUSH_MODEL_INSTANCE,
    REQUEST_COMMITMENT,
    CommitmentRequest,
    written_request,
)
from pacs_bridge.elements import IMPLICIT_VR
from pacs_bridge.sending.association import associated
from pacs_bridge.sending.peer import Peer, TimeLimits
from pacs_bridge.services import EventReport
from scheduler.errors import Permanent, Transient

RESPONSE_TIMEOUT_S: Final = 60.0
_LIMITS: Final = TimeLimits(response_s=RESPONSE_TIMEOUT_S)
_CONTEXTS: Final = ((PUSH_MODEL, IMPLICIT_VR),)
"""The transfer syntax that everybody speaks (PS3.5, 10.1)."""

Hear = Callable[[bytes, str, int], int]
"""(Event Information as it came, its transfer syntax, Event Type ID) -> the status that the peer hears."""
_LOOKS_EVERY_S: Final = 0.1
_Handlers = Sequence[tuple[Any, Callable[..., Any]]]
_NO_SUCH_CLASS: Final = 0x0118
_OFF: Final = (_NO_SUCH_CLASS, CLASS_NOT_SUPPORTED, NO_SUCH_ACTION_TYPE, NOT_AUTHORISED, 0x0211)
_NOT_AWAITED: Final = (0x0112, 0x0115)


@dataclass(frozen=True, slots=True, kw_only=True)
class Linger:
    """How long an association stays open for a report: at most so many seconds, or until all is heard elsewhere."""

    most_s: float
    is_over: Callable[[], bool] = lambda: False


def ask(peer: Peer, request: CommitmentRequest, *, calling_ae: str, hear: Hear, linger: Linger) -> None:
    """Ask a peer to commit, and leave it time to report on this very association.

    ``hear`` is called from another thread. Raises Transient or Permanent where the peer was not asked or did not agree.
    """
    reports = _Reports(hear=hear)
    refusal = Permanent(f"{peer} {_NOT_TAKEN}{_NO_COMMITMENT}")
    with _open(peer, calling_ae, refusal=refusal, evt_handlers=reports.handlers()) as association:
        information = decode(BytesIO(written_request(request)), True, True)  # noqa: FBT003 - pynetdicom's own
        answer, _ = association.send_n_action(information, REQUEST_COMMITMENT, PUSH_MODEL, PUSH_MODEL_INSTANCE)
        _agreed(peer, answer.get("Status"))
        until = time.monotonic() + linger.most_s
        while association.is_established and reports.may_come(until):
            if reports.answered.wait(_LOOKS_EVERY_S) or (not reports.under_way and linger.is_over()):
                return


@dataclass(slots=True, kw_only=True)
class _Reports:
    """Hears reports on an association of ours, and knows when the answer to one has left.

    pynetdicom would release between the two: the peer would never hear that its report has come.
    """

    hear: Hear
    under_way: bool = False
    is_heard: bool = False
    answered: Event = field(default_factory=Event)

    def handlers(self) -> _Handlers:
        return [(evt.EVT_N_EVENT_REPORT, self._came), (evt.EVT_PDU_SENT, self._sent)]

    def may_come(self, until: float) -> bool:
        return time.monotonic() < until + (RESPONSE_TIMEOUT_S if self.under_way else 0.0)

    def _came(self, event: Any) -> tuple[int, None]:
        self.under_way = True
        try:
            return self.hear(_information(event), str(event.context.transfer_syntax), int(event.event_type)), None
        finally:
            self.is_heard = True

    def _sent(self, event: Any) -> None:
        if self.is_heard:
            self.answered.set()


def tell(peer: Peer, report: EventReport, *, calling_ae: str) -> None:
    """Tell a caller what became of its request. Raises Transient where it could not be told, Permanent if it forgot."""
    role = build_role(PUSH_MODEL, scp_role=True)
    with _open(peer, calling_ae, refusal=Transient(f"{peer} {_NO_REPORT}"), ext_neg=[role]) as association:
        information = decode(BytesIO(report.dataset), True, True)  # noqa: FBT003 - pynetdicom's own
        answer, _ = association.send_n_event_report(
            information, report.event_type_id, report.sop_class_uid, report.sop_instance_uid
        )
    status = answer.get("Status")
    if status is None:
        raise Transient(f"{peer} did not answer the report within {RESPONSE_TIMEOUT_S:.0f} s, or broke off")
    if status in _NOT_AWAITED:
        raise Permanent(f"{peer} answered 0x{status:04X}: it waits for no such report any more")
    if status != 0:
        raise Transient(f"{peer} answered 0x{status:04X} to the report")


def _agreed(peer: Peer, status: int | None) -> None:
    if status is None:
        raise Transient(f"{peer} did not answer the request within {RESPONSE_TIMEOUT_S:.0f} s, or broke off")
    if status in _OFF:
        raise Permanent(f"{peer} answered 0x{status:04X}: {_NO_COMMITMENT}")
    if status != 0:
        raise Transient(f"{peer} answered 0x{status:04X}: it could not take the request")


_NO_COMMITMENT: Final = "it offers us no storage commitment: let it, or set commitment = false in its [[destination]]"
_NOT_TAKEN: Final = "does not take Storage Commitment: "
_NO_REPORT: Final = (
    f"{_NOT_TAKEN}let it accept reports about it (role selection: we are SCP), or set port = 0 in its [[caller]]"
)


@contextmanager
def _open(peer: Peer, calling_ae: str, *, refusal: Transient | Permanent, **more: Any) -> Iterator[Any]:
    """Open an association for storage commitment alone; ``refusal`` is raised where the peer does not take it."""
    with ExitStack() as stack:
        try:
            association = stack.enter_context(associated(peer, calling_ae, _CONTEXTS, _LIMITS, more=more))
        except Permanent as refused:
            raise refusal from refused
        yield association


def _information(event: Any) -> bytes:
    information = event.request.EventInformation
    return information.getvalue() if information else b""
