"""Who reads from an association's socket: C-STORE is ours, everything else goes on to pynetdicom.

pynetdicom asks its socket whether there is something to read. While an association is established, this one answers
after having received, kept and answered every instance that came; what is not part of a C-STORE it hands over byte for
byte. Meanwhile pynetdicom's own thread for the association, which would look a thousand times a second, is paused.
"""

import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from pynetdicom.transport import AssociationSocket

from pacs_bridge.errors import BrokenProtocol
from pacs_bridge.receiving.command import N_EVENT_REPORT_RSP, RESPONSE, store_response
from pacs_bridge.receiving.desk import Answer
from pacs_bridge.receiving.inbox import Inbox, Pace, PeerGone
from pacs_bridge.receiving.pdv import Messages, Pdv, Step, pdvs_of
from pacs_bridge.receiving.reporting import Reports
from pacs_bridge.receiving.sink import InstanceSink, Reception
from pacs_bridge.store_status import StoreStatus

P_DATA: Final = 0x04
PDU_HEADER_BYTES: Final = 6
DATA_TRANSFER: Final = "Sta6"
"""The state of pynetdicom's state machine (PS3.8, 9.2) in which messages come."""
MAX_CONTROL_PDU_BYTES: Final = 1 << 20
"""A-ASSOCIATE-RQ with all its 128 presentation contexts stays far below."""
LOOK_EVERY_S: Final = 0.1
LEFT_ALONE_S: Final = 2.0
"""How long pynetdicom has to answer a request of another kind before its thread is paused again."""
SOCKET_LIMIT_S: Final = 1.0
MOST_BESIDE_BYTES: Final = 8 * 2**20
"""A data set that is no instance is held in memory: as a list of instances, one of this size names fifty thousand."""
TLS_HANDSHAKE: Final = b"\x16"
SPOKE_TLS: Final = "it spoke TLS at the port for clear text; TLS is spoken at listener.tls_port"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a sender may do to us."""

    maximum_pdu_bytes: int
    idle_s: float
    slowest_bytes_per_s: float


class StoringSocket(AssociationSocket):  # type: ignore[misc] # pynetdicom is not typed for us
    """Implements pynetdicom's AssociationSocket for an acceptor; used by the thread of its upper layer alone."""

    def __init__(
        self, association: Any, raw: socket.socket, bounds: Bounds, reception_of: Callable[[Any], Reception]
    ) -> None:
        """Take over a connected socket; ``reception_of`` is asked once the association is established."""
        super().__init__(association, client_socket=raw)
        raw.settimeout(SOCKET_LIMIT_S)
        self._bounds = bounds
        self._reception_of = reception_of
        self._reception: Reception | None = None
        self._pace = Pace(slowest_bytes_per_s=bounds.slowest_bytes_per_s, grace_s=bounds.idle_s)
        self._inbox = Inbox(raw, 2 * (bounds.maximum_pdu_bytes + PDU_HEADER_BYTES), self._pace, self._is_given_up)
        self._messages = Messages()
        self._sink: InstanceSink | None = None
        self._command_parts: list[bytes] = []
        self._for_pynetdicom = bytearray()
        self._left_alone_until = 0.0
        self._beside_bytes = 0
        self._must_speak = False
        self.reports = Reports(association)
        self.ended_because = ""
        """Why the connection was given up, where that was our decision."""

    # ---- what pynetdicom calls --------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Say whether there is something for pynetdicom to read, after having received what is not for it."""
        if self._for_pynetdicom:
            return True
        if self.socket is None or self.assoc.dul.state_machine.current_state != DATA_TRANSFER:
            return bool(len(self._inbox)) or bool(super().ready)
        if self._is_speaking():
            return False
        try:
            return self._receive()
        except BrokenProtocol as broken:
            self._end("Evt19", str(broken))  # an invalid PDU: pynetdicom aborts
        except PeerGone as gone:
            self._end("Evt17", str(gone))  # the transport connection is closed
        return False

    def recv(self, nr_bytes: int) -> bytearray:
        """Give pynetdicom what it asks for; less where the peer ends, is silent too long or announces too much.

        Raising would have pynetdicom tell of an error, with its traceback, at each refused caller that hangs up.
        """
        if self._for_pynetdicom:
            taken = self._for_pynetdicom[:nr_bytes]
            del self._for_pynetdicom[:nr_bytes]
            return taken
        until = time.monotonic() + self._bounds.idle_s
        taken = bytearray()
        with suppress(PeerGone):
            while len(taken) < nr_bytes <= MAX_CONTROL_PDU_BYTES:
                self._inbox.need(1, until)
                taken += self._inbox.take(nr_bytes - len(taken))
        if taken[:1] == TLS_HANDSHAKE and nr_bytes == PDU_HEADER_BYTES:
            self.ended_because = self.ended_because or SPOKE_TLS
        return taken

    def send(self, bytestream: bytes) -> None:
        """Send what pynetdicom has to say; when that was an answer, its thread may rest again."""
        super().send(bytestream)
        if bytestream[:1] == bytes([P_DATA]):
            self._left_alone_until = 0.0

    def close(self) -> None:
        """Close, and drop an instance that was under way."""
        self._drop()
        super().close()

    # ---- receiving --------------------------------------------------------------------------------------------------

    def _receive(self) -> bool:
        """Receive until pynetdicom is needed; say whether there is something for it to read."""
        while self._has_bytes():
            header = self._inbox.need(PDU_HEADER_BYTES, time.monotonic() + self._bounds.idle_s)
            if header[0] != P_DATA:
                self._drop()  # an instance that was under way: whatever this is, nothing more of it comes
                self._resume()
                return True
            self._take_pdu(int.from_bytes(header[2:PDU_HEADER_BYTES], "big"))
            if self._for_pynetdicom:
                return True
            if self._must_speak:
                self._must_speak = False
                return False
        return False

    def _has_bytes(self) -> bool:
        """Wait for bytes; False when pynetdicom has something else to do."""
        while not len(self._inbox):
            paused = self._pause()
            if self._inbox.is_readable(LOOK_EVERY_S if paused else 0):
                self._inbox.fill()
            elif not paused or self._is_pynetdicom_needed():
                return False
            self._pace.check()
        return True

    def _take_pdu(self, length: int) -> None:
        if length > self._bounds.maximum_pdu_bytes:
            raise BrokenProtocol(f"a P-DATA-TF PDU of {length} bytes, more than was agreed")
        if self._messages.is_idle:
            self._pace.begin()
        whole = PDU_HEADER_BYTES + length
        payload = self._inbox.need(whole, time.monotonic() + self._bounds.idle_s)[PDU_HEADER_BYTES:]
        for pdv in pdvs_of(payload):
            self._take(pdv)
        self._inbox.drop(whole)
        if self._messages.is_idle:
            self._pace.end()
        self.assoc.dul._idle_timer.restart()

    def _take(self, pdv: Pdv) -> None:
        step = self._messages.take(pdv)
        if step is Step.PART_OF_COMMAND:
            self._command_parts.append(bytes(pdv.raw))
        elif step is Step.COMMAND:
            self._take_command(pdv)
        elif self._sink is None:
            self._take_beside(pdv)
        else:
            self._sink.write(pdv.fragment)
            if step is Step.DATASET:
                self._answer(self._sink.finish(), pdv.context_id)
                self._sink = None

    def _take_beside(self, pdv: Pdv) -> None:
        """Take a fragment of a data set that is no instance; what comes with the answer to a report is dropped."""
        self._beside_bytes += len(pdv.raw)
        if self._beside_bytes > MOST_BESIDE_BYTES:
            raise BrokenProtocol(f"a data set of more than {MOST_BESIDE_BYTES // 2**20} MB that is no instance")
        if self._messages.command.field != N_EVENT_REPORT_RSP:
            self._pass_on(pdv.raw)

    def _take_command(self, last: Pdv) -> None:
        """Begin a C-STORE; whatever else it is goes on to who is asked, or has asked."""
        command = self._messages.command
        parts, self._command_parts = self._command_parts, []
        if command.field == N_EVENT_REPORT_RSP:
            self._beside_bytes = 0
            self.reports.heard(command.message_id, command.status)
            return
        if not command.is_store:
            self._take_other_command([*parts, last.raw])
            return
        context = self.assoc._accepted_cx.get(last.context_id)
        if context is None:
            raise BrokenProtocol("a presentation context that was not accepted")
        if not command.has_dataset:
            self._answer(Answer(StoreStatus.CANNOT_UNDERSTAND, "no data set"), last.context_id)
            return
        self._reception = self._reception or self._reception_of(self.assoc)
        self._sink = InstanceSink(self._reception, command, str(context.transfer_syntax[0]))

    def _take_other_command(self, parts: Sequence[bytes | memoryview]) -> None:
        self._beside_bytes = 0
        for part in parts:
            self._pass_on(part)
        if not self._messages.command.field & RESPONSE:
            self._left_alone_until = time.monotonic() + LEFT_ALONE_S
            self._resume()

    def _answer(self, answer: Answer, context_id: int) -> None:
        response = store_response(self._messages.command, context_id, answer.status, answer.comment)
        try:
            self.socket.sendall(response)
        except (OSError, ValueError, AttributeError) as broken:
            raise PeerGone("the peer does not take our answer") from broken
        self._must_speak = bool(self.assoc.dul.to_provider_queue.queue)  # or it would wait as long as instances come

    def _pass_on(self, raw: bytes | memoryview) -> None:
        """Hand a presentation data value to pynetdicom, as a PDU of its own."""
        self._for_pynetdicom += bytes((P_DATA, 0)) + len(raw).to_bytes(4, "big") + raw

    # ---- pynetdicom's threads ---------------------------------------------------------------------------------------

    def _pause(self) -> bool:
        """Let pynetdicom's thread rest, unless it has a request to answer; say whether it rests."""
        if self.assoc.dimse.msg_queue.queue:
            self._resume()  # the request may have come long after it was announced
            return False
        if time.monotonic() < self._left_alone_until:
            return False
        self.assoc._reactor_checkpoint.clear()
        return True

    def _resume(self) -> None:
        self.assoc._reactor_checkpoint.set()

    def _is_speaking(self) -> bool:
        """Say whether fragments of a message wait to be sent, perhaps after others of it: no answer may mix with it."""
        with self.assoc.dimse.turn:
            return bool(self.assoc.dul.to_provider_queue.queue)

    def _is_given_up(self) -> bool:
        return bool(self.assoc._kill or self.assoc.dul._kill_thread)

    def _is_pynetdicom_needed(self) -> bool:
        """Say whether something waits to be sent, or the association is to end."""
        upper_layer = self.assoc.dul
        if upper_layer.idle_timer_expired() or self._is_given_up():
            self._left_alone_until = time.monotonic() + LEFT_ALONE_S
            self._resume()
            return True
        return bool(upper_layer.to_provider_queue.queue or upper_layer.event_queue.queue)

    def _end(self, event: str, reason: str) -> None:
        self.ended_because = reason
        self._drop()
        self.event_queue.put(event)
        self._left_alone_until = time.monotonic() + LEFT_ALONE_S
        self._resume()

    def _drop(self) -> None:
        if self._sink is not None:
            self._sink.abandon()
            self._sink = None
