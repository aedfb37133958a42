"""May the place that a lane leads to be asked now? Pure: what was heard of it in, whether to wait or to try out.

After a contact that failed, everybody waits; then one job tries the place out, and when it answers, all flows again.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Final

FIRST_WAIT_S: Final = 2.0
LONGEST_WAIT_S: Final = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """How a place has answered of late: ``failures`` in a row, since when, and when it is next to be asked and why.

    A single failure may be the doing of the job that met it; from the second on, the place is away.
    """

    failures: int = 0
    since: datetime | None = None
    next_at: datetime | None = None
    reason: str = ""

    @property
    def is_away(self) -> bool:
        """Say whether more than one job has found nobody there."""
        return self.failures > 1


IN_CONTACT: Final = Contact()


def room(contact: Contact, *, running: int, now: datetime) -> int | None:
    """Return how many more jobs may start: none while it waits, one to try the place out, None for as many as fit."""
    if contact.next_at is None:
        return None
    return 0 if running or now < contact.next_at else 1


def failed(contact: Contact, reason: str, *, started_at: datetime, now: datetime, random: Random) -> Contact:
    """Note that nobody answered. Jobs that were on their way already when contact was lost tell nothing new."""
    if contact.since is not None and started_at <= contact.since:
        return contact
    wait_s = min(FIRST_WAIT_S * 2.0 ** min(contact.failures, 32), LONGEST_WAIT_S) * random.uniform(0.5, 1.0)
    return Contact(
        failures=contact.failures + 1,
        since=contact.since or now,
        next_at=now + timedelta(seconds=wait_s),
        reason=reason,
    )
