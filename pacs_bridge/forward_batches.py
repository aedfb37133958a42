"""When do instances that are to be passed on leave, and how many together? Pure."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from pacs_bridge.forward_ledger import Unbatched

QUIET_S: Final = 1.5
LONGEST_WAIT_S: Final = 4.0
MOST_INSTANCES: Final = 64
MOST_BYTES: Final = 64 * 2**20
THROTTLED_S: Final = 10.0
"""A batch that is throttled is over after so long, so that flags need not wait behind it."""


def is_due(waiting: Unbatched, now: datetime) -> bool:
    """Say whether a study leaves: enough of it is here, nothing more comes, or its first instance has waited."""
    return (
        waiting.instances >= MOST_INSTANCES
        or now - waiting.last_at >= timedelta(seconds=QUIET_S)
        or now - waiting.first_at >= timedelta(seconds=LONGEST_WAIT_S)
    )


def most_bytes(throttle_mb_per_s: float) -> int:
    """Return how large a batch may be to a destination that is throttled so (0: it is not)."""
    return min(MOST_BYTES, int(throttle_mb_per_s * THROTTLED_S * 2**20)) if throttle_mb_per_s else MOST_BYTES


def cut(sizes: Sequence[tuple[int, int]], most_bytes: int) -> Iterator[list[int]]:
    """Part (instance, bytes) in order into batches of bounded number and size; one that is too large goes alone."""
    batch: list[int] = []
    left = most_bytes
    for instance, size_bytes in sizes:
        if batch and (size_bytes > left or len(batch) == MOST_INSTANCES):
            yield batch
            batch, left = [], most_bytes
        batch.append(instance)
        left -= size_bytes
    if batch:
        yield batch
