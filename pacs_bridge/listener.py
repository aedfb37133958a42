"""Who may send, and how do the bytes get in: C-ECHO and C-STORE over pynetdicom.

Negotiation, release and abort are pynetdicom's; a data set is taken as it came, in the syntax its sender prefers.
"""

import json
import threading
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from socketserver import BaseServer
from typing import Any, Final

import structlog
from pynetdicom import AE, _config, evt
from pynetdicom.sop_class import Verification
from pynetdicom.transport import ThreadedAssociationServer

from pacs_bridge.intake import Intake, Received, StoreStatus
from pacs_bridge.transport import SOCKET_HANDLERS

CALLING_AE_NOT_RECOGNISED: Final = (1, 1, 3)
CALLED_AE_NOT_RECOGNISED: Final = (1, 1, 7)
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerOptions:
    """Where to listen and whom to let in.

    ``callers``: pairs of AE title and IP address; when there are none, whoever sends from this machine is let in.
    pynetdicom's own limits (10 associations, 16 KiB PDUs) are for trying things out, not for a hospital.
    """

    ae_title: str
    host: str = "127.0.0.1"
    port: int = 11112
    callers: Collection[tuple[str, str]] = ()
    maximum_associations: int = 64
    maximum_pdu_bytes: int = 256 * 1024
    acse_timeout_s: float = 30.0
    network_timeout_s: float = 120.0


class Listener:
    """Listens between `start` and `stop`; hands each instance to the intake and answers its status."""

    def __init__(self, options: ListenerOptions, intake: Intake) -> None:
        """Prepare to listen; nothing is bound yet."""
        self._options = options
        self._intake = intake
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """Return the port that is listened on, the actual one where the options say 0."""
        return int(self._server.server_address[1]) if self._server else self._options.port

    def start(self) -> None:
        """Bind and listen. Raises OSError when the address is not to be had."""
        # Process-wide in pynetdicom: every storage class and syntax is taken; its own loggers stay out of the way.
        _config.UNRESTRICTED_STORAGE_SERVICE = True
        _config.LOG_HANDLER_LEVEL = "none"
        address = (self._options.host, self._options.port)
        self._server = _entity(self._options).make_server(address, server_class=_Server, evt_handlers=self._handlers())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="listener", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening, abort what is open, and wait for it to end."""
        if self._server is None or self._thread is None:
            return
        self._server.close()
        self._thread.join()
        for association in list(self._server.active_associations):
            association.abort()
            association.join()
        self._server = self._thread = None

    def _handlers(self) -> list[tuple[Any, Callable[..., Any]]]:
        return [
            *SOCKET_HANDLERS,
            (evt.EVT_CONN_OPEN, _named),
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_C_STORE, self._stored),
            (evt.EVT_RELEASED, self._released),
            (evt.EVT_ABORTED, self._aborted),
        ]

    def _requested(self, event: Any) -> None:
        """Reject strangers before anything is negotiated; when judging fails, it is a stranger."""
        refusal: tuple[int, int, int] | None = CALLING_AE_NOT_RECOGNISED
        try:
            refusal = self._refusal(event.assoc.requestor)
        finally:
            if refusal:
                _reject(event.assoc, refusal)

    def _refusal(self, requestor: Any) -> tuple[int, int, int] | None:
        called = requestor.primitive.called_ae_title.strip()
        caller = requestor.primitive.calling_ae_title.strip()
        address = _plain(requestor.address)
        if not self._is_known(caller, address):
            _log.warning("caller_rejected", caller=caller, address=address, remedy=_lines_to_add(caller, address))
            return CALLING_AE_NOT_RECOGNISED
        if called != self._options.ae_title:
            _log.warning("called_title_rejected", caller=caller, called=called, remedy=_title(self._options.ae_title))
            return CALLED_AE_NOT_RECOGNISED
        return None

    def _is_known(self, caller: str, address: str) -> bool:
        if not self._options.callers:
            return ip_address(address).is_loopback
        return (caller, address) in {(title, _plain(known)) for title, known in self._options.callers}

    def _stored(self, event: Any) -> int:
        request = event.request
        received = Received(
            dataset=request.DataSet.getvalue() if request.DataSet else b"",
            transfer_syntax=str(event.context.transfer_syntax),
            sop_class_uid=str(request.AffectedSOPClassUID),
            calling_ae=event.assoc.requestor.ae_title.strip(),
            association=_name_of(event.assoc),
        )
        try:
            return int(self._intake.store(received))
        except Exception:  # noqa: BLE001 - the edge: whatever breaks, the sender must hear that nothing was kept
            _log.exception("store_failed", caller=received.calling_ae)
            return int(StoreStatus.PROCESSING_FAILURE)

    def _released(self, event: Any) -> None:
        self._intake.released(_name_of(event.assoc))

    def _aborted(self, event: Any) -> None:
        self._intake.aborted(_name_of(event.assoc))


class _Server(ThreadedAssociationServer):  # type: ignore[misc] # pynetdicom is not typed for us
    request_queue_size = 64
    daemon_threads = True

    def close(self) -> None:
        """Stop serving; pynetdicom's own `shutdown` looks for this server in its AE, which did not start it."""
        BaseServer.shutdown(self)
        self.server_close()


def _entity(options: ListenerOptions) -> Any:
    entity = AE(ae_title=options.ae_title)
    entity.add_supported_context(Verification)
    entity.maximum_associations = options.maximum_associations
    entity.maximum_pdu_size = options.maximum_pdu_bytes
    entity.acse_timeout = options.acse_timeout_s
    entity.dimse_timeout = options.network_timeout_s
    entity.network_timeout = options.network_timeout_s
    return entity


def _named(event: Any) -> None:
    event.assoc.ctriage_name = uuid.uuid4().hex


def _name_of(association: Any) -> str:
    return str(association.ctriage_name)


def _reject(association: Any, reason: tuple[int, int, int]) -> None:
    """Reject as pynetdicom's own negotiation does: `kill` waits until the answer has left."""
    association.acse.send_reject(*reason)
    association.kill()


def _plain(address: str) -> str:
    """Write an address in one way only; IPv4 inside IPv6 is IPv4."""
    parsed = ip_address(address)
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return str(mapped or parsed)


def _lines_to_add(caller: str, address: str) -> str:
    title, ip = json.dumps(caller), json.dumps(address)
    return f"to let it in, add to the settings:\n[[caller]]\nae_title = {title}\naddress = {ip}"


def _title(own: str) -> str:
    return f"the sender must call us {own}, or set listener.ae_title to the title it uses"
