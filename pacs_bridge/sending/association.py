"""How is an association opened with pynetdicom, and its socket borrowed for what pynetdicom is slow at?

While the socket is lent, pynetdicom's two threads wait: the reactor of the DUL in `BorrowableSocket.ready`, that of
the association at its own checkpoint. What the peer said and we did not read is read by pynetdicom afterwards.
"""

import select
import socket as sockets
import ssl
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from pydicom.uid import UID
from pynetdicom import AE, build_context, evt
from pynetdicom.transport import AssociationSocket

from pacs_bridge.sending.errors import BrokenOff
from pacs_bridge.sending.peer import Peer, TimeLimits
from pacs_bridge.sending.wire import Wire
from scheduler.errors import Permanent, Transient

_WAITING_IN_KERNEL_BYTES: Final = 256 * 1024
"""With more in its buffer, the kernel tells for minutes nothing of a slow line that goes on: a third must have left."""
MOST_CONTEXTS: Final = 128
"""PS3.8, 9.3.2.2: presentation context IDs are the odd numbers of one byte."""
_NO_MORE: Final[Mapping[str, Any]] = {}
Context = tuple[str, str]
"""A SOP class and a transfer syntax: each pair is proposed by itself, so that the peer answers for each."""


@contextmanager
def associated(
    peer: Peer, calling_ae: str, contexts: Sequence[Context], limits: TimeLimits, *, more: Mapping[str, Any] = _NO_MORE
) -> Iterator[Any]:
    """Open an association and release it at the end. Raises Transient or Permanent when there is none to be had.

    ``more``: further arguments of pynetdicom's ``AE.associate``, such as roles (``ext_neg``).
    """
    association = _associate(peer, calling_ae, contexts, limits, more)
    if not association.is_established:
        raise _why_not(association, peer, contexts)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def accepted(association: Any) -> dict[Context, int]:
    """Return the presentation context IDs that the peer accepted."""
    contexts = association.accepted_contexts
    return {(str(each.abstract_syntax), str(each.transfer_syntax[0])): each.context_id for each in contexts}


@contextmanager
def borrowed(association: Any, limits: TimeLimits) -> Iterator[Wire]:
    """Have an open association's socket for oneself. Raises BrokenOff when the peer has ended it already.

    Afterwards pynetdicom has it back, and hears what is left unread. Where an exception passes through, the association
    is over: released or aborted as the peer asked, else aborted; the connection is cut where a PDU was left in parts.
    """
    lent: BorrowableSocket = association.dul.socket
    association._reactor_checkpoint.clear()  # its idle timer would end what it cannot see
    wire = Wire(lent.lend(), limits)
    try:
        yield wire
    except BaseException:
        lent.take_back(wire.unread, cut=wire.is_inside_pdu)
        _end(association, limits)
        raise
    lent.take_back(wire.unread)
    if lent.has_news():  # the peer has not waited for us to take leave
        _hear(association)


class BorrowableSocket(AssociationSocket):  # type: ignore[misc] # pynetdicom is not typed for us
    """A socket of an association that can be lent, sends small messages at once, and never waits without end."""

    socket: Any

    def __init__(self, association: Any, address: Any) -> None:
        """Make a socket that is not connected yet."""
        super().__init__(association, address=address)
        self.socket.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
        self.socket.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NOTSENT_LOWAT, _WAITING_IN_KERNEL_BYTES)
        self.problem: OSError | None = None
        association.dul._run_loop_delay = 0  # it waits in `ready`, where it hears the peer at once
        self._is_lent = False
        self._parked, self._returned = threading.Event(), threading.Event()
        self._unread = bytearray()

    def lend(self) -> sockets.socket:
        """Return the connected socket as soon as pynetdicom keeps off it. Raises BrokenOff when there is none left."""
        self._parked.clear()
        self._returned.clear()
        self._is_lent = True
        while not self._parked.wait(0.1):
            if not self.assoc.dul.is_alive():
                break
        if self.socket is None or not self._parked.is_set():
            self.take_back(b"")
            raise BrokenOff("ended the association at once")
        connected: sockets.socket = self.socket
        return connected

    def take_back(self, unread: bytes, *, cut: bool = False) -> None:
        """Let pynetdicom have the socket again, and what was read from it and is none of the borrower's business."""
        self._unread += unread
        self.assoc.dul._idle_timer.restart()
        with suppress(OSError, AttributeError):
            self.socket.settimeout(self.assoc.acse_timeout)
            if cut:
                self.socket.shutdown(sockets.SHUT_RDWR)
        self._is_lent = False
        self._returned.set()

    @property
    def ready(self) -> bool:
        """Say whether there is something to read; while the socket is lent, wait until it comes back."""
        if self._is_lent:
            self._parked.set()
            self._returned.wait()
        return self.has_news(_LOOK_EVERY_S)

    def has_news(self, within_s: float = 0.0) -> bool:
        """Say whether there is something to read, or comes in time."""
        return bool(self._unread) or self._is_readable(within_s)

    def recv(self, nr_bytes: int) -> bytearray:
        """Read so many bytes, fewer where the connection ends before; a PDU must come within the ACSE's time limit."""
        received = self._unread[:nr_bytes]
        del self._unread[:nr_bytes]
        deadline = time.monotonic() + self.assoc.acse_timeout
        try:
            while len(received) < nr_bytes:
                self.socket.settimeout(max(0.001, deadline - time.monotonic()))
                part = self.socket.recv(min(nr_bytes - len(received), 65536))
                if not part:
                    break
                received += part
        except OSError as broken:
            self.problem = broken
            raise
        return received

    def connect(self, primitive: Any) -> None:
        """Connect as pynetdicom does; from then on nothing waits without end."""
        super().connect(primitive)
        if self.socket is not None:
            self.socket.settimeout(self.assoc.acse_timeout)

    def _is_readable(self, within_s: float) -> bool:
        if self.socket is None or not self._is_connected:
            time.sleep(within_s)
            return False
        if isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
            return True
        try:
            poll = select.poll()
            poll.register(self.socket, select.POLLIN)
            return bool(poll.poll(within_s * 1000))
        except (OSError, ValueError):
            self.event_queue.put("Evt17")  # the transport connection is closed
            return False

    def _shutdown_socket(self) -> None:
        """Close for good, also where the peer was faster; notes why a connection could not be made."""
        reason = sys.exc_info()[1]
        if self.problem is None and isinstance(reason, OSError):
            self.problem = reason
        if self.socket is not None:
            with suppress(OSError):
                self.socket.shutdown(sockets.SHUT_RDWR)
            self.socket.close()


class _Entity(AE):  # type: ignore[misc] # pynetdicom is not typed for us
    def _create_socket(self, assoc: Any, address: Any, tls_args: Any) -> BorrowableSocket:
        lendable = BorrowableSocket(assoc, address)
        lendable.tls_args = tls_args
        return lendable


def _associate(
    peer: Peer, calling_ae: str, contexts: Sequence[Context], limits: TimeLimits, more: Mapping[str, Any]
) -> Any:
    entity = _Entity(ae_title=calling_ae)
    entity.connection_timeout = limits.connection_s
    entity.acse_timeout = limits.acse_s
    entity.dimse_timeout = limits.response_s
    entity.network_timeout = limits.response_s
    try:
        return entity.associate(
            peer.host,
            peer.port,
            contexts=[build_context(sop_class, syntax) for sop_class, syntax in contexts],
            ae_title=peer.ae_title,
            evt_handlers=[(evt.EVT_RELEASED, _let_it_close), *more.get("evt_handlers", ())],
            tls_args=_tls_args(peer),
            **{name: value for name, value in more.items() if name != "evt_handlers"},
        )
    except OSError as unknown:
        raise Transient(f"{peer} cannot be found: {unknown.strerror}; check its host name") from unknown


def _tls_args(peer: Peer) -> tuple[ssl.SSLContext, str] | None:
    name = peer.tls_name or peer.host
    try:
        name.encode("idna")
    except UnicodeError as unusable:  # Python's ssl would leave the socket open
        raise Transient(f"no TLS with {peer} (its certificate cannot name {name!r}): correct that name") from unusable
    return (peer.tls, name) if peer.tls else None


def _let_it_close(event: Any) -> None:
    """Wait for the connection to be closed: pynetdicom, which looks too early, would look again after 10 ms only."""
    end = time.monotonic() + 0.01
    while event.assoc.dul.state_machine.current_state != "Sta1" and time.monotonic() < end:
        time.sleep(0.0001)


def _hear(association: Any) -> None:
    """Let pynetdicom do what the peer asked for last, if it did."""
    association._reactor_checkpoint.set()
    association.join(_HEARD_WITHIN_S)


def _end(association: Any, limits: TimeLimits) -> None:
    """End an association as the peer asked last, and abort where it asked for nothing."""
    _hear(association)
    if association.is_alive() and association.is_established:
        association.abort()
    association.join(limits.acse_s)


_HEARD_WITHIN_S = 0.2
_LOOK_EVERY_S = 0.001


def _why_not(association: Any, peer: Peer, contexts: Sequence[Context]) -> Transient | Permanent:
    answer, problem = association.acceptor.primitive, association.dul.socket.problem
    if association.is_rejected:
        # Transient even where the peer says "permanent": so it answers until somebody has entered our AE title there.
        why = "for now" if answer is None else answer.reason_str
        return Transient(f"{peer} rejected us ({why}): enter our AE title and address there, or correct its own here")
    if association.rejected_contexts and not association.accepted_contexts:
        return Permanent(refused(peer, contexts))
    if isinstance(problem, ssl.SSLError):
        why = getattr(problem, "verify_message", "") or getattr(problem, "reason", None) or str(problem)
        return Transient(f"no TLS with {peer} ({why}): check the certificates of both sides, and the name in its own")
    return Transient(f"no association with {peer}: nobody listens there, or it does not answer; check host and port")


def refused(peer: Peer, contexts: Sequence[Context]) -> str:
    """Say that a peer does not take these, and the remedy."""
    named = "; ".join(f"{UID(sop_class).name} in {UID(syntax).name}" for sop_class, syntax in contexts)
    return f"{peer} does not take {named}: let it accept these, or do not send them there"
