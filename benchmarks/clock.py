"""What does a piece of work cost: seconds on the wall, and of processors, its child processes' included?"""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import psutil

T = TypeVar("T")
QUIET_PERCENT = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """``wall_s`` is what people wait; ``processor_s`` (user and system) hardly changes with what else is running."""

    wall_s: float
    processor_s: float


def spent_by(way: Callable[[], T]) -> tuple[T, Spent]:
    """Do it; return its result and what it cost."""
    before, started = os.times(), time.perf_counter()
    result = way()
    wall_s, after = time.perf_counter() - started, os.times()
    return result, Spent(wall_s=wall_s, processor_s=sum(after[:4]) - sum(before[:4]))


def two_core_control() -> float:
    """Return how much faster two threads do plain arithmetic than one: no decoder can gain more here and now."""
    values = np.arange(300_000, dtype=np.float64)

    def work(times: int) -> int:
        for _ in range(times):
            np.sqrt(values, out=np.empty_like(values))
        return times

    _, one = spent_by(lambda: [work(150), work(150)])
    with ThreadPoolExecutor(2) as pool:
        _, two = spent_by(lambda: list(pool.map(work, (150, 150))))
    return one.wall_s / two.wall_s


def others_percent(over_s: float = 1.0) -> float:
    """Return how busy the machine's processors are with others while we do nothing, in percent of all of them."""
    return psutil.cpu_percent(interval=over_s)


def quietness(percent: float) -> tuple[dict[str, Any], list[str]]:
    """Return a row that says how busy others keep the machine, and a note where that is too much to believe ratios."""
    row = {"what": "machine", "others_percent": percent, "load_average": os.getloadavg()[0]}
    if percent <= QUIET_PERCENT:
        return row, []
    return row, [f"a quiet machine: other programs kept {percent:.0f} % of it busy; what uses two cores suffers most"]
