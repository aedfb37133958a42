"""How do bytes get over a socket that is ours for a while, and what does the peer answer?

The edge: sends without waiting where the socket takes what it is given; else waits for room and for the peer's word
at once, so that an abort in the middle of an object is heard.
"""

import select
import ssl
import time
from contextlib import suppress
from socket import socket
from typing import Final

from pacs_bridge.sending.commands import LONGEST_COMMAND, StoreResponse, read_store_response
from pacs_bridge.sending.errors import BrokenOff, TooSlow
from pacs_bridge.sending.pdu import LONGEST_RECEIVED, P_DATA_TF, Malformed, PduReader, Pdv
from pacs_bridge.sending.peer import TimeLimits

LONGEST_TLS_WRITE: Final = 64 * 1024
"""A TLS socket takes a write as a whole: shorter ones show whether the peer still takes anything."""
LONGEST_WRITE: Final = 1 << 30
_RECEIVED_AT_ONCE = 64 * 1024
_TRY_AGAIN = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Wire:
    """A connected socket between two messages, set to non-blocking; whoever lent it sets it back."""

    def __init__(self, connected: socket, limits: TimeLimits) -> None:
        """Take the socket over."""
        connected.settimeout(0)
        self._socket = connected
        self._limits = limits
        self._at_once = LONGEST_TLS_WRITE if isinstance(connected, ssl.SSLSocket) else LONGEST_WRITE
        self._reader = PduReader()
        self._poll = select.poll()
        self.is_inside_pdu = False
        """Whether a PDU has been sent in part only: then nothing can follow, no A-ABORT either."""

    @property
    def unread(self) -> bytes:
        """Return what the peer said and nobody has read: that is pynetdicom's business."""
        return bytes(self._reader.unread)

    def send(self, pdus: memoryview, deadline: float) -> None:
        """Send whole PDUs, until a moment of the monotonic clock. Raises BrokenOff, TooSlow, Malformed."""
        self.is_inside_pdu = True
        while pdus:
            try:
                pdus = pdus[self._socket.send(pdus[: self._at_once]) :]
            except _TRY_AGAIN:
                self._wait_for_room(deadline)
            except OSError as broken:
                self._hear_last_words()
                raise _broken_by(broken) from broken
        self.is_inside_pdu = False

    def response(self) -> StoreResponse:
        """Wait for the answer to a C-STORE. Raises BrokenOff, TooSlow, Malformed."""
        deadline = time.monotonic() + self._limits.response_s
        command = b""
        while True:
            for pdv in self._next_pdvs(deadline):
                command += pdv.fragment if pdv.is_command else b""
                if len(command) > LONGEST_COMMAND:
                    raise Malformed("an answer without end")
                if pdv.is_command and pdv.is_last:
                    return read_store_response(command)

    def _next_pdvs(self, deadline: float) -> list[Pdv]:
        while (pdvs := self._whole_pdu()) is None:
            if not self._receive() and not self._wait(select.POLLIN, deadline - time.monotonic()):
                raise TooSlow(f"did not answer within {self._limits.response_s:g} s")
        return pdvs

    def _whole_pdu(self) -> list[Pdv] | None:
        if self._reader.next_type() not in (None, P_DATA_TF):
            raise BrokenOff("broke the association off")
        return self._reader.next_p_data()

    def _wait_for_room(self, deadline: float) -> None:
        """Wait until the socket takes more, or the peer ends the association; anything else that it says is kept."""
        patience_s = min(self._limits.response_s, deadline - time.monotonic())
        said = self._wait(select.POLLIN | select.POLLOUT, patience_s)
        if not said:
            raise TooSlow(f"took nothing for {self._limits.response_s:g} s, or too little")
        if said & select.POLLIN and self._receive() and self._reader.next_type() != P_DATA_TF:
            raise BrokenOff("broke the association off in the middle of an object")

    def _wait(self, events: int, seconds: float) -> int:
        """Wait for what may happen on the socket; returns what did, 0 where nothing did in time."""
        if seconds <= 0:
            return 0
        self._poll.register(self._socket, events)
        happened = self._poll.poll(seconds * 1000)
        return happened[0][1] if happened else 0

    def _receive(self) -> bool:
        """Take what has arrived; says whether there was anything."""
        try:
            received = self._socket.recv(_RECEIVED_AT_ONCE)
        except _TRY_AGAIN:
            return False
        except OSError as broken:
            raise _broken_by(broken) from broken
        if not received:
            raise BrokenOff("closed the connection")
        self._reader.feed(received)
        if len(self._reader.unread) > 2 * LONGEST_RECEIVED:
            raise Malformed("far more than an answer")
        return True

    def _hear_last_words(self) -> None:
        """Take an A-ABORT that arrived before the connection broke: it tells more than the break."""
        with suppress(BrokenOff, Malformed):
            self._receive()


def _broken_by(error: OSError) -> BrokenOff:
    return BrokenOff(f"broke the connection ({error.strerror or type(error).__name__})")
