"""How do many threads share one transaction, so that one fsync serves them all?"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class GroupCommit(Generic[T, R]):
    """Whoever comes while nobody commits does so for all that wait; who comes meanwhile is served by the next round.

    ``commit`` takes what has gathered, in order, and returns as many outcomes; it must not raise.
    """

    def __init__(self, commit: Callable[[Sequence[T]], Sequence[R]]) -> None:
        """Begin with nothing waiting."""
        self._commit = commit
        self._waiting: deque[tuple[T, Callable[[R], None]]] = deque()
        self._committing = threading.Lock()

    def add(self, item: T, done: Callable[[R], None]) -> None:
        """Hand an item in; ``done`` is called with its outcome, on this thread or another."""
        self._waiting.append((item, done))
        # Whoever holds the lock looks again after letting go of it, so nothing is left lying.
        while self._waiting and self._committing.acquire(blocking=False):
            try:
                self._round()
            finally:
                self._committing.release()

    def _round(self) -> None:
        gathered = [self._waiting.popleft() for _ in range(len(self._waiting))]
        outcomes = self._commit([item for item, _ in gathered])
        for (_, done), outcome in zip(gathered, outcomes, strict=True):
            done(outcome)
