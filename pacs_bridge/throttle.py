"""How fast may bytes leave? A token bucket: what was not used is saved for a second, what is owed is waited for."""

import threading
import time
from collections.abc import Callable
from typing import Final

BURST_S: Final = 1.0


class Throttle:
    """Lets through so many bytes a second at most, whoever sends them; threads share it.

    An object goes whole and may overdraw: whoever comes next waits until that is paid for.
    """

    def __init__(
        self,
        bytes_per_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        """Start with what a burst may take. ``wait`` is given seconds; raises ValueError where nothing would pass."""
        if bytes_per_s <= 0:
            raise ValueError(f"{bytes_per_s} bytes a second would let nothing through")
        self._bytes_per_s = bytes_per_s
        self._closed = threading.Event()
        self._clock, self._wait = clock, wait or self._closed.wait
        self._left = bytes_per_s * BURST_S
        self._at = clock()
        self._lock = threading.Lock()

    def take(self, size_bytes: int) -> None:
        """Return when so many bytes may go."""
        with self._lock:
            now = self._clock()
            self._left = min(self._left + (now - self._at) * self._bytes_per_s, self._bytes_per_s * BURST_S)
            self._at = now
            wait_s = max(0.0, -self._left / self._bytes_per_s)
            self._left -= size_bytes
        if wait_s:
            self._wait(wait_s)

    def close(self) -> None:
        """Let everybody through who waits: the service stops."""
        self._closed.set()
