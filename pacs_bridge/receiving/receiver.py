"""How does one process receive: pynetdicom's acceptor on sockets that may be shared with other processes."""

import socket
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from ipaddress import IPv6Address, ip_address
from socketserver import BaseServer
from typing import Any, Final

import structlog
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, _config, evt
from pynetdicom.dsutils import decode
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from pacs_bridge.archive_files import ArchiveFiles
from pacs_bridge.negotiation import supported_contexts, syntax_of_choice
from pacs_bridge.receiving.desk import Asked, FrontDesk, Refusal
from pacs_bridge.receiving.reporting import WholeMessages
from pacs_bridge.receiving.sink import Reception
from pacs_bridge.receiving.storing_socket import Bounds, StoringSocket
from pacs_bridge.receiving.strangers import Strangers, StrangersAllowed
from pacs_bridge.services import EventReport, ServiceAnswer, ServiceKind, ServiceRequest
from pacs_bridge.tls import TlsRefused, handshake

NOT_KNOWN: Final = Refusal(1, 1, 3)
"""Rejected permanently, by the service user: calling AE title not recognized."""
PROCESSING_FAILURE: Final = 0x0110
ACCEPT_LOOK_S: Final = 0.05
EXHAUSTED_S: Final = 0.2
TOO_MANY_STRANGERS: Final = "too many are connected without having asked for an association"
BROKEN_OFF: Final = "the connection broke off"
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverOptions:
    """How associations are accepted; pynetdicom's own limits are for trying things out, not for a hospital.

    ``services``: the SOP classes that are answered besides Verification and storage.
    """

    ae_title: str
    bounds: Bounds
    maximum_instance_bytes: int
    services: tuple[str, ...] = ()
    acse_timeout_s: float = 30.0
    strangers: StrangersAllowed = field(default_factory=StrangersAllowed)


class Receiver:
    """Accepts between `start` and `stop` on sockets that are bound already; ``tls`` for those that speak it."""

    def __init__(self, options: ReceiverOptions, files: ArchiveFiles, desk: FrontDesk) -> None:
        """Prepare to accept."""
        self._options = options
        self._files = files
        self._desk = desk
        self._servers: list[tuple[_Server, threading.Thread]] = []
        self._associations: dict[str, Any] = {}

    def start(
        self,
        sockets: Sequence[tuple[socket.socket, ssl.SSLContext | None]],
        *,
        on_ended: Callable[[], object] = lambda: None,
    ) -> None:
        """Accept on each of these sockets; ``on_ended`` is called where that ends before `stop`."""
        # Process-wide in pynetdicom: every storage class and syntax is taken; its own loggers stay out of the way.
        _config.UNRESTRICTED_STORAGE_SERVICE = True
        _config.LOG_HANDLER_LEVEL = "none"
        for listening, context in sockets:
            server = _Server(self, listening, context)
            thread = threading.Thread(target=_accept, args=(server, on_ended), name="accept", daemon=True)
            thread.start()
            self._servers.append((server, thread))

    def stop(self) -> None:
        """Stop accepting, abort what is open, and wait for it to end."""
        for server, thread in self._servers:
            server.is_stopping = True
            BaseServer.shutdown(server)
            thread.join()
        for server, _ in self._servers:
            for association in list(server.active_associations):
                association.abort()
                association.join()
            server.server_close()
        self._servers = []

    def event_report(self, association: str, report: EventReport) -> bool:
        """Send an N-EVENT-REPORT over an association if it is open; say whether the peer has taken it."""
        open_one = self._associations.get(association)
        if open_one is None:
            return False
        try:
            return bool(open_one.ctriage_storing.reports.send(report))
        except (ValueError, RuntimeError):
            return False

    # ---- what the server asks for -----------------------------------------------------------------------------------

    def entity(self) -> Any:
        """Describe us to pynetdicom."""
        entity = AE(ae_title=self._options.ae_title)
        for each in supported_contexts(self._options.services):
            roles = {"scu_role": each.scu, "scp_role": each.scp} if each.scp else {}
            entity.add_supported_context(each.sop_class_uid, list(each.transfer_syntaxes), **roles)
        entity.maximum_associations = 10**6  # the front desk counts, over all receivers
        entity.maximum_pdu_size = self._options.bounds.maximum_pdu_bytes
        entity.acse_timeout = self._options.acse_timeout_s
        entity.dimse_timeout = entity.network_timeout = self._options.bounds.idle_s
        return entity

    def handlers(self) -> list[tuple[Any, Callable[..., Any]]]:
        """Name what pynetdicom is to call."""
        return [
            (evt.EVT_CONN_CLOSE, self._disconnected),
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_RELEASED, self._released),
            (evt.EVT_ABORTED, self._aborted),
            (evt.EVT_N_ACTION, self._n_action),
            (evt.EVT_N_CREATE, self._n_create),
            (evt.EVT_N_EVENT_REPORT, self._n_event_report),
            (evt.EVT_N_SET, self._n_set),
        ]

    @property
    def strangers_allowed(self) -> StrangersAllowed:
        """Return how many may be connected without an association."""
        return self._options.strangers

    def storing_socket(self, association: Any, raw: socket.socket) -> StoringSocket:
        """Put the socket of an association under our care."""
        return StoringSocket(association, raw, self._options.bounds, self._reception)

    def turned_away(self, address: str, reason: str) -> None:
        """Tell of a connection that came to nothing."""
        self._desk.turned_away(plain_address(address), reason)

    # ---- associations -----------------------------------------------------------------------------------------------

    def _requested(self, event: Any) -> None:
        """Reject strangers before anything is negotiated; when judging fails, it is a stranger."""
        refusal: Refusal | None = NOT_KNOWN
        association = event.assoc
        association.ctriage_name = uuid.uuid4().hex
        try:
            refusal = self._desk.opened(_asked(association))
        finally:
            if refusal is None:
                _propose_our_choice(association)
                self._associations[association.ctriage_name] = association
                association._server.strangers.leave(association.ctriage_peer)
            else:
                association.acse.send_reject(*refusal)
                association.kill()  # waits until the answer has left

    def _reception(self, association: Any) -> Reception:
        return Reception(
            files=self._files,
            desk=self._desk,
            calling_ae=association.requestor.ae_title.strip(),
            association=association.ctriage_name,
            maximum_instance_bytes=self._options.maximum_instance_bytes,
        )

    def _released(self, event: Any) -> None:
        self._closed(event.assoc, "")

    def _aborted(self, event: Any) -> None:
        self._closed(event.assoc, event.assoc.ctriage_storing.ended_because or BROKEN_OFF)

    def _disconnected(self, event: Any) -> None:
        """Give the file descriptor back: pynetdicom does not where its `shutdown` fails because the peer was faster."""
        association = event.assoc
        association._server.strangers.leave(association.ctriage_peer)
        with suppress(OSError):
            association.ctriage_socket.close()
        if not hasattr(association, "ctriage_name"):
            reason = association.ctriage_storing.ended_because or "it asked for no association"
            self._desk.turned_away(plain_address(association.requestor.address), reason)
            association.dul.to_user_queue.put(None)  # else its thread would wait for a request until the time limit

    def _closed(self, association: Any, problem: str) -> None:
        association.ctriage_storing.reports.ended()
        name = getattr(association, "ctriage_name", "")
        if self._associations.pop(name, None) is not None:
            self._desk.closed(name, problem)

    def close_the_dead(self) -> None:
        """Take note of associations that have ended without a word of pynetdicom's, whatever the reason."""
        for association in [each for each in list(self._associations.values()) if not each.is_alive()]:
            self._closed(association, association.ctriage_storing.ended_because or BROKEN_OFF)

    # ---- normalised services ----------------------------------------------------------------------------------------

    def _n_action(self, event: Any) -> tuple[int, Dataset | None]:
        """Ask for an action; what it leads to may be reported before pynetdicom has sent the answer: that must wait."""
        request = event.request
        event.assoc.dimse.has_answered.clear()
        answer = self._served(
            event,
            "n_action",
            (request.RequestedSOPClassUID, request.RequestedSOPInstanceUID, request.ActionTypeID),
            request.ActionInformation,
        )
        return answer.status, _decoded(answer, event)

    def _n_create(self, event: Any) -> tuple[int, Dataset | None]:
        request = event.request
        named = (request.AffectedSOPClassUID, request.AffectedSOPInstanceUID, None)
        answer = self._served(event, "n_create", named, request.AttributeList)
        made = _decoded(answer, event)
        if answer.sop_instance_uid and not request.AffectedSOPInstanceUID:
            # pynetdicom moves it from here into the answer's command set (PS3.7, 10.1.5.1.4).
            made = made or Dataset()
            made.AffectedSOPInstanceUID = answer.sop_instance_uid
        return answer.status, made

    def _n_set(self, event: Any) -> tuple[int, Dataset | None]:
        request = event.request
        named = (request.RequestedSOPClassUID, request.RequestedSOPInstanceUID, None)
        answer = self._served(event, "n_set", named, request.ModificationList)
        return answer.status, _decoded(answer, event)

    def _n_event_report(self, event: Any) -> tuple[int, Dataset | None]:
        request = event.request
        named = (request.AffectedSOPClassUID, request.AffectedSOPInstanceUID, request.EventTypeID)
        answer = self._served(event, "n_event_report", named, request.EventInformation)
        return answer.status, None

    def _served(
        self, event: Any, kind: ServiceKind, named: tuple[Any, Any, int | None], dataset: BytesIO | None
    ) -> ServiceAnswer:
        sop_class, sop_instance, type_id = named
        request = ServiceRequest(
            kind=kind,
            sop_class_uid=str(sop_class or ""),
            sop_instance_uid=str(sop_instance or ""),
            type_id=type_id,
            dataset=dataset.getvalue() if dataset else b"",
            transfer_syntax=str(event.context.transfer_syntax),
            calling_ae=event.assoc.requestor.ae_title.strip(),
            address=plain_address(event.assoc.requestor.address),
            association=event.assoc.ctriage_name,
        )
        try:
            return self._desk.serve(request)
        except Exception:  # noqa: BLE001 - the edge: whatever breaks, the peer must hear that nothing was done
            _log.exception("service_failed", kind=kind, caller=request.calling_ae)
            return ServiceAnswer(status=PROCESSING_FAILURE)


class _Server(ThreadedAssociationServer):  # type: ignore[misc] # pynetdicom is not typed for us
    """Accepts on a socket that is bound already, in several processes at once."""

    daemon_threads = True
    socket: Any

    def __init__(self, receiver: Receiver, listening: socket.socket, context: ssl.SSLContext | None) -> None:
        self.receiver = receiver
        self.strangers = Strangers(receiver.strangers_allowed)
        self.is_stopping = False
        self._listening = listening
        self._tls = context
        entity = receiver.entity()
        super().__init__(
            entity,
            listening.getsockname(),
            entity.ae_title,
            entity.supported_contexts,
            evt_handlers=receiver.handlers(),
            request_handler=_Handler,
        )

    def server_bind(self) -> None:
        self.socket.close()
        self._listening.setblocking(False)  # noqa: FBT003 - the socket's interface; another process may be faster
        self.socket = self._listening
        self.server_address = self.socket.getsockname()

    def server_activate(self) -> None:
        """It listens already."""

    def server_close(self) -> None:
        """The socket belongs to whoever bound it."""

    def service_actions(self) -> None:
        super().service_actions()
        try:
            self.receiver.close_the_dead()
        except Exception:  # noqa: BLE001 - the edge: whatever the front desk cannot note, others want to be let in
            _log.exception("front_desk_failed", what="closed")

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            accepted, address = self.socket.accept()
        except (BlockingIOError, ConnectionError):
            raise  # another process was faster, or the peer has gone
        except OSError:
            time.sleep(EXHAUSTED_S)  # no descriptor is left: who waits would have us ask again at once
            raise
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return accepted, address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Let a connection in, unless too many ask for nothing."""
        if self.strangers.enter(client_address):
            return True
        if self.strangers.is_to_be_told():
            self.receiver.turned_away(client_address[0], TOO_MANY_STRANGERS)
        return False

    def secured(self, accepted: socket.socket) -> socket.socket:
        """Shake hands where TLS is to be spoken, on the connection's own thread and within a time limit."""
        return accepted if self._tls is None else handshake(accepted, self._tls)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing on standard error: what was wrong has been told."""
        self.strangers.leave(client_address)


def _accept(server: _Server, on_ended: Callable[[], object]) -> None:
    try:
        server.serve_forever(ACCEPT_LOOK_S)
    finally:
        if not server.is_stopping:
            on_ended()


class _Handler(RequestHandler):  # type: ignore[misc] # pynetdicom is not typed for us
    """Makes an association of a connection."""

    request: socket.socket

    def handle(self) -> None:
        try:
            self.request = self.server.secured(self.request)
        except TlsRefused as refused:
            self.server.strangers.leave(self.client_address)
            self.server.receiver.turned_away(self.client_address[0], str(refused))
            return
        super().handle()

    def _create_association(self) -> Any:
        association = super()._create_association()
        plain = association.dul.socket
        association.dul.socket = None
        association.dul.event_queue.get_nowait()  # the plain socket's "connected", which ours says again
        association.dimse = WholeMessages(association)
        association.ctriage_socket, association.ctriage_peer = plain.socket, self.client_address
        association.ctriage_storing = self.server.receiver.storing_socket(association, plain.socket)
        association.set_socket(association.ctriage_storing)
        return association


def plain_address(address: str) -> str:
    """Write an address in one way only; IPv4 inside IPv6 is IPv4."""
    parsed = ip_address(address.partition("%")[0])
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return str(mapped or parsed)


def _propose_our_choice(association: Any) -> None:
    """Put the transfer syntax that we want first: pynetdicom accepts the first for storage."""
    for context in association.requestor.primitive.presentation_context_definition_list:
        if context.transfer_syntax:
            choice = syntax_of_choice(context.transfer_syntax)
            context.transfer_syntax = [choice, *(each for each in context.transfer_syntax if each != choice)]


def _asked(association: Any) -> Asked:
    request = association.requestor.primitive
    return Asked(
        association=association.ctriage_name,
        calling_ae=request.calling_ae_title.strip(),
        called_ae=request.called_ae_title.strip(),
        address=plain_address(association.requestor.address),
        tls=isinstance(association.dul.socket.socket, ssl.SSLSocket),
    )


def _decoded(answer: ServiceAnswer, event: Any) -> Dataset | None:
    """Read an answer's data set, which pynetdicom encodes again."""
    if not answer.dataset:
        return None
    syntax = UID(event.context.transfer_syntax)
    read: Dataset = decode(BytesIO(answer.dataset), syntax.is_implicit_VR, syntax.is_little_endian)
    return read
