"""A line that flips bits: TCP from a sender to a receiver, with one byte damaged, and a record of what went through."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.service import wait_until

_DATA, _COMMAND, _LAST = 0x04, 0x01, 0x02


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """Which byte of what the sender says is damaged (from 0), and the bits that change."""

    at: int
    mask: int


class FlippingLine:
    """Carries one connection to ``target``; what reached the receiver's socket is kept."""

    def __init__(self, target: tuple[str, int], flip: Flip) -> None:
        """Listen on a free port of the loopback interface; `close` ends it."""
        self._target = target
        self._flip = flip
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.forwarded = bytearray()
        self._threads = [threading.Thread(target=self._carry, daemon=True)]
        self._threads[0].start()

    @property
    def address(self) -> tuple[str, int]:
        """Return where the sender connects to."""
        return ("127.0.0.1", int(self._listening.getsockname()[1]))

    @property
    def has_flipped(self) -> bool:
        """Say whether so much was sent that the damage was done."""
        return len(self.forwarded) > self._flip.at

    def close(self) -> None:
        """Wait until both ends have hung up."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        wait_until(lambda: not any(each.is_alive() for each in self._threads), within_s=60, what="a line to close")

    def _carry(self) -> None:
        try:
            sender, _ = self._listening.accept()
        except OSError:
            return
        with sender:
            try:
                receiver = socket.create_connection(self._target, timeout=30)
            except OSError:
                return
            with receiver:
                receiver.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                back = threading.Thread(target=_pump, args=(receiver, sender), daemon=True)
                self._threads.append(back)
                back.start()
                self._forward(sender, receiver)
                back.join()

    def _forward(self, sender: socket.socket, receiver: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while some := sender.recv(65536):
                damaged = self._damaged(some)
                self.forwarded += damaged  # before it is sent: what is answered has been recorded
                receiver.sendall(damaged)
        with contextlib.suppress(OSError):
            receiver.shutdown(socket.SHUT_WR)

    def _damaged(self, some: bytes) -> bytes:
        at = self._flip.at - len(self.forwarded)
        if not 0 <= at < len(some):
            return some
        return some[:at] + bytes([some[at] ^ self._flip.mask]) + some[at + 1 :]


def _pump(receiver: socket.socket, sender: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while some := receiver.recv(65536):
            sender.sendall(some)
    # A receiver that hangs up ends the sender's side too, whatever it is doing.
    for end in (sender, receiver):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def flipping(target: tuple[str, int], flip: Flip) -> Iterator[FlippingLine]:
    """Give a line until the block ends; what it recorded can be read afterwards."""
    line = FlippingLine(target, flip)
    try:
        yield line
    finally:
        line.close()


def datasets_in(stream: bytes) -> list[bytes]:
    """Return the data sets that are whole in what was sent over an association (PS3.8, 9.3.5), up to where it breaks.

    A reader of its own, not the service's: it tells what a receiver may have understood.
    """
    found, dataset = [], bytearray()
    for control, fragment in _fragments(stream):
        if control & _COMMAND:
            continue
        dataset += fragment
        if control & _LAST:
            found.append(bytes(dataset))
            dataset.clear()
    return found


def _fragments(stream: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 6 <= len(stream):
        kind, length = struct.unpack_from(">BxL", stream, at)
        payload = stream[at + 6 : at + 6 + length]
        at += 6 + length
        if kind == _DATA and len(payload) == length:
            yield from _values(payload)


def _values(payload: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 6 <= len(payload):
        (length,) = struct.unpack_from(">L", payload, at)
        if length < 2:
            return
        yield payload[at + 5], payload[at + 6 : at + 4 + length]
        at += 4 + length
