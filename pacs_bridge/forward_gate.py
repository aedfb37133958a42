"""Which destinations do not answer, since when and why? Kept in memory to decide by, and in a table to be shown."""

from datetime import datetime
from random import Random

import structlog

from pacs_bridge.logs import without_uids
from scheduler.contact import IN_CONTACT, Contact, failed, room
from scheduler.database import Database, statements

_log = structlog.get_logger()


def forget_contacts(database: Database) -> None:
    """Forget who did not answer an earlier service: each start begins with a try."""
    with database.transaction() as connection:
        connection.execute(statements("pacs_bridge", "sql/forwards.sql")["forget_contacts"])


class DestinationGate:
    """Lets the jobs of one destination wait together while it does not answer (see scheduler.worker.Gate).

    For the worker's thread alone.
    """

    def __init__(self, destination: str, database: Database, random: Random) -> None:
        """Take the destination to be there."""
        self._destination = destination
        self._database = database
        self._random = random
        self._sql = statements("pacs_bridge", "sql/forwards.sql")
        self._contact = IN_CONTACT

    def room(self, running: int, now: datetime) -> int | None:
        """See Gate."""
        return room(self._contact, running=running, now=now)

    def answered(self) -> None:
        """See Gate."""
        if self._contact is not IN_CONTACT:
            self._contact = IN_CONTACT
            self._note("regain_contact")
            _log.info("destination answers again", destination=self._destination)

    def unanswered(self, reason: str, *, started_at: datetime, now: datetime) -> datetime | None:
        """See Gate."""
        before = self._contact
        self._contact = failed(before, without_uids(reason), started_at=started_at, now=now, random=self._random)
        if self._contact is not before:
            self._lost(self._contact)
        return self._contact.next_at if self._contact.is_away else None

    def _lost(self, contact: Contact) -> None:
        assert contact.since is not None
        assert contact.next_at is not None
        if contact.failures == 1:
            _log.warning("destination does not answer", destination=self._destination, reason=contact.reason)
        self._note(
            "lose_contact",
            at=contact.since.isoformat(),
            failures=contact.failures,
            next_at=contact.next_at.isoformat(),
            reason=contact.reason,
        )

    def _note(self, statement: str, **row: object) -> None:
        with self._database.transaction() as connection:
            connection.execute(self._sql[statement], {"destination": self._destination, **row})
