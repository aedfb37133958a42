"""How many may be connected without having asked for an association? Each costs threads and a descriptor."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

TELL_EVERY_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StrangersAllowed:
    """How many at a time on one port of one process: in all, from one address, and for how long they count.

    A hospital's senders ask within milliseconds, and as many as may store at a time may come at the same moment from
    one address. ``count_s`` is above all time limits of a connection, should an end of one go unnoticed.
    """

    at_most: int = 256
    from_one_address: int = 96
    count_s: float = 300.0


class Strangers:
    """Those who are connected and have asked for nothing yet; threads may share it."""

    def __init__(self, allowed: StrangersAllowed, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nobody connected."""
        self._allowed = allowed
        self._clock = clock
        self._lock = threading.Lock()
        self._since: dict[Any, float] = {}
        self._told_at = -TELL_EVERY_S

    def __len__(self) -> int:
        """Count them."""
        return len(self._since)

    def enter(self, peer: tuple[Any, ...]) -> bool:
        """Count a connection from ``peer`` (address, port, ...), if there is room; say so."""
        now = self._clock()
        with self._lock:
            if not self._has_room(peer[0]):
                self._forget(now)
                if not self._has_room(peer[0]):
                    return False
            self._since[peer] = now
        return True

    def leave(self, peer: tuple[Any, ...]) -> None:
        """Do not count a connection any more: it has its association, or has ended."""
        with self._lock:
            self._since.pop(peer, None)

    def is_to_be_told(self) -> bool:
        """Say whether it is time to tell again that there was no room."""
        now = self._clock()
        with self._lock:
            if now - self._told_at < TELL_EVERY_S:
                return False
            self._told_at = now
        return True

    def _has_room(self, address: Any) -> bool:
        if len(self._since) >= self._allowed.at_most:
            return False
        return [peer[0] for peer in self._since].count(address) < self._allowed.from_one_address

    def _forget(self, now: float) -> None:
        for peer in [peer for peer, since in self._since.items() if now - since > self._allowed.count_s]:
            del self._since[peer]
