"""Which statuses and reasons does each service answer with, and what do we make of a peer's? (PS3.4, PS3.7 Annex C)

What the conformance statement tells; tests hold it to the statuses that stand in the code.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pacs_bridge.negotiation import PROCEDURE_STEP, STORAGE_COMMITMENT


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldStatus:
    """One status code, or a range where ``code`` ends in xx: its class, and when it is used or what follows."""

    code: str
    meaning: str
    when: str

    @property
    def row(self) -> tuple[str, str, str]:
        """Return it as a table shows it."""
        return self.meaning, self.code, self.when


def _told(*rows: tuple[int | str, str, str]) -> Sequence[ToldStatus]:
    return tuple(
        ToldStatus(code=code if isinstance(code, str) else f"0x{code:04X}", meaning=meaning, when=when)
        for code, meaning, when in rows
    )


C_STORE_ANSWERS: Final = _told(
    (0x0000, "Success", "the instance is on the disk (file and folder synced) and in the index"),
    (
        0xA700,
        "Refused: Out of Resources",
        "it would leave less than `disk.free_mb` free, or could not be written",
    ),
    (0xA900, "Error: Data Set does not match SOP Class", "its SOP Class UID is not the one of the command"),
    (0xC000, "Error: Cannot understand", "no data set, cut off, nested too deeply, too large, or without a valid UID"),
    (0x0110, "Processing failure", "anything else; nothing was kept"),
)
"""An instance that is known is answered Success: stored once where its content is the same, else both are kept."""

C_STORE_REPLIES: Final = _told(
    (0x0000, "Success", "sent"),
    (0x0111, "Duplicate SOP Instance", "sent: the peer has it"),
    ("0xBxxx", "Warning", "sent"),
    ("0xA7xx", "Refused: Out of Resources", "sent again later"),
    (0x0110, "Processing failure", "sent again later"),
    (0x0213, "Resource limitation", "sent again later"),
    ("any other", "Failure", "not sent again by itself; shown as buried by `ctriage status`"),
)

C_ECHO_ANSWERS: Final = _told((0x0000, "Success", "always, to callers that are let in"))

N_ANSWERS: Final[Mapping[str, Sequence[ToldStatus]]] = {
    PROCEDURE_STEP: _told(
        (0x0000, "Success", "the performed procedure step is kept"),
        (0x0106, "Invalid attribute value", "a status or a name that cannot be"),
        (0x0110, "Processing failure", "it cannot be read, or the step may no longer be modified"),
        (0x0111, "Duplicate SOP instance", "N-CREATE of a step that is known"),
        (0x0112, "No such SOP instance", "N-SET of a step that is not known"),
        (0x0117, "Invalid SOP instance", "a SOP Instance UID that is none"),
        (0x0120, "Missing attribute", "an attribute that N-CREATE, or the end of a step, must have is not there"),
        (0x0121, "Missing attribute value", "one that must not be empty is empty"),
        (0x0124, "Not authorized", "N-SET by another AE title than that of N-CREATE"),
        (0x0211, "Unrecognized operation", "anything but N-CREATE and N-SET"),
        (0x0213, "Resource limitation", "it could not be written; try again"),
    ),
    STORAGE_COMMITMENT: _told(
        (0x0000, "Success", "the request is taken on, and N-EVENT-REPORT tells its outcome; the report is taken"),
        (0x0110, "Processing failure", "anything else; nothing was taken on"),
        (0x0112, "No such SOP instance", "N-ACTION on another instance than the well-known one"),
        (0x0113, "No such event type", "a report of a type other than 1 and 2"),
        (
            0x0115,
            "Invalid argument value",
            "it cannot be read, or names nothing; or a report on no transaction of its sender",
        ),
        (0x0122, "SOP class not supported", "the command names a class that is not offered"),
        (0x0123, "No such action", "an Action Type ID other than 1"),
        (0x0124, "Not authorized", "the caller's commitment is off"),
        (0x0211, "Unrecognized operation", "anything but N-ACTION and N-EVENT-REPORT"),
        (0x0213, "Resource limitation", "more than 20,000 instances at once: ask in parts; or not written: try again"),
    ),
}
"""A service that is not offered is answered 0x0122 where its context was accepted all the same."""

COMMITMENT_REASONS: Final = _told(
    (0x0110, "Processing failure", "its file is gone, or did not reach the disk; or no destination spoke in time"),
    (0x0112, "No such object instance", "it was never received, or a destination has not got it"),
    (0x0119, "Class-instance conflict", "it is known with another SOP class"),
    (0x0122, "SOP class not supported", "a destination says so"),
    (0x0131, "Duplicate transaction UID", "the same Transaction UID with other instances"),
    (0x0213, "Resource limitation", "a destination says so"),
    ("any other", "Failure", "a destination says so"),
)
"""Failure Reason (0008,1197) in N-EVENT-REPORT of type 2, for each instance."""
