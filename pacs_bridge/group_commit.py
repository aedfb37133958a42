"""How do many threads share one transaction, so that one fsync serves them all?"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

MOST_ROUNDS: Final = 4
"""A round serves whoever came with us; the second, who came meanwhile. More are for whom nobody waits."""
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
        if not self._served(MOST_ROUNDS):
            # This thread has other things to do, such as reading what its own receiver asks.
            threading.Thread(target=self._serve_all, name="group-commit").start()

    def _serve_all(self) -> None:
        while not self._served(MOST_ROUNDS):
            pass

    def _served(self, most_rounds: int) -> bool:
        """Commit for those who wait, unless another thread does; say whether nobody is left to whom we owe a round."""
        # Whoever holds the lock looks again after letting go of it, so nothing is left lying.
        while self._waiting and self._committing.acquire(blocking=False):
            if not most_rounds:
                self._committing.release()
                return False
            most_rounds -= 1
            try:
                self._round()
            finally:
                self._committing.release()
        return True

    def _round(self) -> None:
        gathered = [self._waiting.popleft() for _ in range(len(self._waiting))]
        outcomes = self._commit([item for item, _ in gathered])
        for (_, done), outcome in zip(gathered, outcomes, strict=True):
            done(outcome)
