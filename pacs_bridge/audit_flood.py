"""How does nobody fill the audit trail by knocking? The first refusals of a minute stand there, then their number."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from pacs_bridge.audit import AuditEvent, is_refusal, more_refusals

MOST_OF_A_KIND: Final = 3
WINDOW: Final = timedelta(minutes=1)
MOST_KINDS: Final = 200
"""Addresses and reasons told apart at a time: who makes up titles or addresses ends among "others"."""
_OTHERS: Final = ("several addresses", "other reasons")

_Kind = tuple[str, str]


@dataclass(slots=True)
class _Window:
    began_at: datetime
    refused: int = 0


@dataclass(slots=True, kw_only=True)
class Flood:
    """Counts refusals by address and reason; not for several threads at once."""

    _windows: dict[_Kind, _Window] = field(default_factory=dict)

    def lets_through(self, event: AuditEvent, *, now: datetime) -> bool:
        """Say whether an event is to be recorded by itself; one that is not has been counted."""
        if not is_refusal(event) or event.peer is None:
            return True
        kind = (event.peer.address, event.said)
        if kind not in self._windows and len(self._windows) >= MOST_KINDS:
            kind = _OTHERS
        window = self._windows.setdefault(kind, _Window(now))
        window.refused += 1
        return window.refused <= MOST_OF_A_KIND

    def over(self, now: datetime) -> list[AuditEvent]:
        """End the windows that have lasted a minute; return an event for each that had more than its share."""
        ended = {kind: each for kind, each in self._windows.items() if now - each.began_at >= WINDOW}
        for kind in ended:
            del self._windows[kind]
        return [
            more_refusals(address, reason=reason, times=each.refused - MOST_OF_A_KIND, at=now)
            for (address, reason), each in ended.items()
            if each.refused > MOST_OF_A_KIND
        ]
