"""What does a receiver need from the one process that owns the index?"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from pacs_bridge.archive import StoredFile
from pacs_bridge.instance import InstanceFacts
from pacs_bridge.services import ServiceAnswer, ServiceRequest
from pacs_bridge.store_status import StoreStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Who asks for an association: titles without padding, the IP address, and whether TLS is spoken."""

    association: str
    calling_ae: str
    called_ae: str
    address: str
    tls: bool


class Refusal(NamedTuple):
    """How an association is rejected (PS3.8, 9.3.4): result, source, reason."""

    result: int
    source: int
    reason: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An instance whose file has its name, for the index."""

    facts: InstanceFacts
    stored: StoredFile
    calling_ae: str
    association: str


class Answer(NamedTuple):
    """What the sender of an instance hears; the comment says why it was not kept."""

    status: StoreStatus
    comment: str = ""


def no_room(problem: Exception) -> Answer:
    """Say that the disk or the index takes nothing just now; what the system said of it, without our file names."""
    said = getattr(problem, "strerror", None) or str(problem)
    return Answer(StoreStatus.OUT_OF_RESOURCES, said)


class FrontDesk(Protocol):
    """Decides who is let in, and keeps what they bring; called from any thread of a receiver."""

    def opened(self, asked: Asked) -> Refusal | None:
        """Let an association in, or say how it is rejected."""

    def enter(self, entry: Entry, settle: Callable[[], None]) -> Answer:
        """Put an instance into the index and its file durably onto the disk; returns when both are done, or one failed.

        ``settle`` is called once, on this thread, and may run while the index commits: neither disk write waits for the
        other. What it raises is raised here; then the sender is not told Success, whatever the index holds.
        """

    def not_kept(self, calling_ae: str, answer: Answer) -> None:
        """Take note of an instance that was refused before it could be entered."""

    def closed(self, association: str, problem: str) -> None:
        """Take note that an association that was let in has ended: released, or broken off because of a problem."""

    def serve(self, request: ServiceRequest) -> ServiceAnswer:
        """Answer what is asked besides storing."""

    def turned_away(self, address: str, reason: str) -> None:
        """Take note of a connection that came to no association: no TLS where it must be, nothing said in time."""
