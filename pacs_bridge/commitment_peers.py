"""How is storage commitment spoken over an association of our own: to ask (N-ACTION), to tell (N-EVENT-REPORT)?

Asking, we are SCU. Telling, we are SCP though it is we who call, so the role is negotiated (PS3.7, D.3.3.4).
"""

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from threading import Event
from typing import Any, Final

from pynetdicom import AE, build_context, build_role, evt
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
from pacs_bridge.send import Peer
from pacs_bridge.services import EventReport
from pacs_bridge.transport import SOCKET_HANDLERS
from scheduler.errors import Permanent, Transient

CONNECTION_TIMEOUT_S: Final = 10.0
ACSE_TIMEOUT_S: Final = 30.0
RESPONSE_TIMEOUT_S: Final = 60.0

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
    heard = Event()

    def report_came(event: Any) -> tuple[int, None]:
        try:
            return hear(_information(event), str(event.context.transfer_syntax), int(event.event_type)), None
        finally:
            heard.set()

    handlers = [(evt.EVT_N_EVENT_REPORT, report_came)]
    with _associated(
        peer, calling_ae, handlers=handlers, refusal=Permanent(f"{peer} {_NOT_TAKEN}{_NO_COMMITMENT}")
    ) as association:
        information = decode(BytesIO(written_request(request)), True, True)  # noqa: FBT003 - pynetdicom's own
        answer, _ = association.send_n_action(information, REQUEST_COMMITMENT, PUSH_MODEL, PUSH_MODEL_INSTANCE)
        _agreed(peer, answer.get("Status"))
        until = time.monotonic() + linger.most_s
        while association.is_established and time.monotonic() < until:
            if heard.wait(_LOOKS_EVERY_S) or linger.is_over():
                return


def tell(peer: Peer, report: EventReport, *, calling_ae: str) -> None:
    """Tell a caller what became of its request. Raises Transient where it could not be told, Permanent if it forgot."""
    role = build_role(PUSH_MODEL, scp_role=True)
    with _associated(peer, calling_ae, roles=[role], refusal=Transient(f"{peer} {_NO_REPORT}")) as association:
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
def _associated(
    peer: Peer, calling_ae: str, *, refusal: Transient | Permanent, handlers: _Handlers = (), roles: Sequence[Any] = ()
) -> Iterator[Any]:
    """Open an association for storage commitment alone and release it at the end. Raises Transient or Permanent."""
    try:
        association = _entity(calling_ae).associate(
            peer.host,
            peer.port,
            contexts=[build_context(PUSH_MODEL)],
            ae_title=peer.ae_title,
            ext_neg=list(roles),
            tls_args=_tls_of(peer),
            evt_handlers=[*SOCKET_HANDLERS, *handlers],
        )
    except socket.gaierror as unknown:
        raise Transient(f"{peer} cannot be found: {unknown.strerror}; check its host name") from unknown
    if not association.is_established:
        raise _why_not(association, peer, refusal)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def _entity(calling_ae: str) -> Any:
    entity = AE(ae_title=calling_ae)
    entity.connection_timeout = CONNECTION_TIMEOUT_S
    entity.acse_timeout = ACSE_TIMEOUT_S
    entity.dimse_timeout = RESPONSE_TIMEOUT_S
    entity.network_timeout = RESPONSE_TIMEOUT_S
    return entity


def _tls_of(peer: Peer) -> Any:
    context = getattr(peer, "tls", None)
    return None if context is None else (context, getattr(peer, "tls_name", None) or peer.host)


def _why_not(association: Any, peer: Peer, refusal: Transient | Permanent) -> Transient | Permanent:
    if association.is_rejected:
        return Transient(f"{peer} rejected us: enter our AE title and address there, or correct its own here")
    if association.rejected_contexts and not association.accepted_contexts:
        return refusal
    return Transient(f"no association with {peer}: nobody listens there, or it does not answer; check host and port")


def _information(event: Any) -> bytes:
    information = event.request.EventInformation
    return information.getvalue() if information else b""
