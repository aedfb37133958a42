"""What has come over a socket and is not used yet, and is its sender too slow?"""

import select
import socket
import ssl
import time
from collections.abc import Callable


class PeerGone(OSError):
    """The connection has ended, or its peer is cut off."""


class Pace:
    """Watches one message: who brings less than ``slowest_bytes_per_s`` on the average over ``grace_s`` is too slow."""

    __slots__ = ("_begun_at", "_bytes", "_clock", "_grace_s", "_slowest")

    def __init__(
        self, *, slowest_bytes_per_s: float, grace_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Watch nothing yet."""
        self._slowest = slowest_bytes_per_s
        self._grace_s = grace_s
        self._clock = clock
        self._begun_at: float | None = None
        self._bytes = 0

    def begin(self) -> None:
        """A message begins."""
        self._begun_at, self._bytes = self._clock(), 0

    def end(self) -> None:
        """The message is whole; what comes before the next one has all the time of an idle association."""
        self._begun_at = None

    def came(self, count: int) -> None:
        """Count bytes."""
        self._bytes += count

    def check(self) -> None:
        """Raise PeerGone where the message takes too long."""
        if self._begun_at is None:
            return
        elapsed_s = self._clock() - self._begun_at
        if elapsed_s > self._grace_s and self._bytes < self._slowest * elapsed_s:
            raise PeerGone(f"too slow: {self._bytes} bytes in {elapsed_s:.0f} s")


class Inbox:
    """A fixed buffer over a socket, so that a read takes whatever is there; the socket has a short time limit."""

    __slots__ = ("_buffer", "_end", "_is_given_up", "_pace", "_poll", "_socket", "_start", "_view")

    def __init__(self, raw: socket.socket, capacity: int, pace: Pace, is_given_up: Callable[[], bool]) -> None:
        """Take the socket over; nobody else may read from it. ``is_given_up`` ends a wait."""
        self._socket = raw
        self._pace = pace
        self._is_given_up = is_given_up
        self._buffer = bytearray(capacity)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._poll = select.poll()
        self._poll.register(raw, select.POLLIN)

    def __len__(self) -> int:
        """Count the bytes that wait."""
        return self._end - self._start

    def is_readable(self, within_s: float) -> bool:
        """Wait until bytes, or the end of the connection, are there."""
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return True
        return bool(self._poll.poll(within_s * 1000))

    def fill(self) -> None:
        """Take what is there; nothing where the system was mistaken. Raises PeerGone at the end of the connection."""
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == len(self._buffer):
            self._compact()
        try:
            count = self._socket.recv_into(self._view[self._end :])
        except (TimeoutError, ssl.SSLWantReadError):
            return
        except (OSError, ValueError) as broken:
            raise PeerGone("the connection broke") from broken
        if not count:
            raise PeerGone("the peer closed the connection")
        self._end += count
        self._pace.came(count)

    def need(self, count: int, until: float) -> memoryview:
        """Return the next ``count`` bytes, still unread; wait for them up to the monotonic instant ``until``.

        Raises PeerGone where they do not come. The bytes are valid up to the next call.
        """
        if count > len(self._buffer):
            raise PeerGone(f"{count} bytes at once are more than we hold")
        while len(self) < count:
            self._pace.check()
            if time.monotonic() > until or self._is_given_up():
                raise PeerGone("nothing came for too long")
            if self._start + count > len(self._buffer):
                self._compact()
            self.fill()
        return self._view[self._start : self._start + count]

    def drop(self, count: int) -> None:
        """Be done with the next ``count`` bytes."""
        self._start += count

    def take(self, count: int) -> bytes:
        """Return up to ``count`` bytes of those that wait, and be done with them."""
        taken = bytes(self._view[self._start : min(self._start + count, self._end)])
        self.drop(len(taken))
        return taken

    def _compact(self) -> None:
        waiting = self.__len__()
        self._buffer[:waiting] = self._buffer[self._start : self._end]
        self._start, self._end = 0, waiting
