"""Which fragments lie in a P-DATA-TF PDU, and which message do they belong to (PS3.8, 9.3.5 and Annex E)?

Sans-I/O: bytes in, values out. Whatever breaks the standard's rules is BrokenProtocol, and nothing else is raised.
"""

from collections.abc import Iterator
from enum import Enum
from typing import Final, NamedTuple

from pacs_bridge.errors import BrokenProtocol
from pacs_bridge.receiving.command import Command, read_command

MAX_COMMAND_BYTES: Final = 64 * 1024
"""No command set of PS3.7 comes near: the longest lists, of attribute tags, are not used here."""
_HEADER_BYTES: Final = 6
_COMMAND, _LAST = 0x01, 0x02


class Pdv(NamedTuple):
    """One presentation data value; ``raw`` is all of it, with its length, ``fragment`` what it carries."""

    context_id: int
    is_command: bool
    is_last: bool
    fragment: memoryview
    raw: memoryview


def pdvs_of(payload: memoryview) -> Iterator[Pdv]:
    """Yield the presentation data values of a P-DATA-TF PDU, given without its own six bytes."""
    if not payload:
        raise BrokenProtocol("a P-DATA-TF PDU without a presentation data value")
    at = 0
    while at < len(payload):
        body = at + 4
        end = body + int.from_bytes(payload[at:body], "big")
        if end > len(payload) or end < at + _HEADER_BYTES:
            raise BrokenProtocol("a presentation data value is cut off")
        if not payload[body] & 1:
            raise BrokenProtocol("a presentation context of an even number")  # PS3.8, 9.3.5.1
        control = payload[body + 1]
        fragment = payload[at + _HEADER_BYTES : end]
        yield Pdv(payload[body], bool(control & _COMMAND), bool(control & _LAST), fragment, payload[at:end])
        at = end


class Step(Enum):
    """What a fragment was."""

    PART_OF_COMMAND = "part of a command set"
    COMMAND = "the end of a command set"
    PART_OF_DATASET = "part of a data set"
    DATASET = "the end of a data set"


class Messages:
    """Follows the messages of one association; fragments of two never mix (PS3.8, E.1)."""

    __slots__ = ("_command_bytes", "_context_id", "_in_dataset", "command")

    def __init__(self) -> None:
        """Begin between two messages."""
        self._command_bytes = bytearray()
        self._context_id: int | None = None
        self._in_dataset = False
        self.command = Command()
        """The command set that was completed last."""

    @property
    def is_idle(self) -> bool:
        """Say whether no message is under way."""
        return self._context_id is None

    def take(self, pdv: Pdv) -> Step:
        """Take the next fragment. Raises BrokenProtocol where it does not belong here."""
        if self._context_id is None:
            self._context_id = pdv.context_id
        if pdv.context_id != self._context_id:
            raise BrokenProtocol("fragments of two presentation contexts are mixed")
        if pdv.is_command is self._in_dataset:
            raise BrokenProtocol("a command set inside a data set" if pdv.is_command else "a data set before a command")
        return self._dataset(pdv) if self._in_dataset else self._command(pdv)

    def _command(self, pdv: Pdv) -> Step:
        self._command_bytes += pdv.fragment
        if len(self._command_bytes) > MAX_COMMAND_BYTES:
            raise BrokenProtocol("a command set without end")
        if not pdv.is_last:
            return Step.PART_OF_COMMAND
        self.command = read_command(bytes(self._command_bytes))
        self._command_bytes.clear()
        self._in_dataset = self.command.has_dataset
        if not self._in_dataset:
            self._context_id = None
        return Step.COMMAND

    def _dataset(self, pdv: Pdv) -> Step:
        if not pdv.is_last:
            return Step.PART_OF_DATASET
        self._in_dataset, self._context_id = False, None
        return Step.DATASET
