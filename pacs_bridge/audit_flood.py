"""How does nobody fill the audit trail by knocking? The first refusals of a minute stand there, then their number."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from pacs_bridge.audit import AuditEvent, is_refusal, more_refusals

MOST_IN_A_WINDOW: Final = 20
WINDOW: Final = timedelta(minutes=1)
MOST_ADDRESSES: Final = 10_000


@dataclass(slots=True)
class _Window:
    began_at: datetime
    refused: int = 0


@dataclass(slots=True, kw_only=True)
class Flood:
    """Counts refusals by address; not for several threads at once."""

    _windows: dict[str, _Window] = field(default_factory=dict)

    def lets_through(self, event: AuditEvent, *, now: datetime) -> bool:
        """Say whether an event is to be recorded by itself; one that is not has been counted."""
        if not is_refusal(event) or event.peer is None:
            return True
        address = event.peer.address if len(self._windows) < MOST_ADDRESSES else ""
        window = self._windows.setdefault(address, _Window(now))
        window.refused += 1
        return window.refused <= MOST_IN_A_WINDOW

    def over(self, now: datetime) -> list[AuditEvent]:
        """End the windows that have lasted a minute; return an event for each that had more than its share."""
        ended = {address: each for address, each in self._windows.items() if now - each.began_at >= WINDOW}
        for address in ended:
            del self._windows[address]
        return [
            more_refusals(address or "many addresses", times=each.refused - MOST_IN_A_WINDOW, at=now)
            for address, each in ended.items()
            if each.refused > MOST_IN_A_WINDOW
        ]
