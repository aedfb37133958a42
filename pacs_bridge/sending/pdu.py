"""How do P-DATA-TF PDUs look on the wire (PS3.8, 9.3.5 and annex E)? Bytes and values; no socket."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

P_DATA_TF: Final = 0x04
PDU_HEADER: Final = struct.Struct(">BxL")
"""PDU type, a reserved byte, and the length of what follows."""
P_DATA_HEADER: Final = struct.Struct(">BxLLBB")
"""The PDU's header and that of its only PDV: length, presentation context ID, message control header."""
PDV_HEADER_BYTES: Final = 6
LONGEST_FRAGMENT: Final = 128 * 1024 - 2 * PDV_HEADER_BYTES
"""How much we put into one PDU where the peer sets no limit, or a higher one: more gains nothing measurable."""
LONGEST_RECEIVED: Final = 1024 * 1024

_PDV_HEADER = struct.Struct(">LBB")
_COMMAND, _LAST = 0x01, 0x02


class Malformed(ValueError):
    """Bytes of a peer that are not what the standard has here; says what is wrong with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pdv:
    """A presentation data value: one fragment of a command set or of a data set."""

    context_id: int
    is_command: bool
    is_last: bool
    fragment: bytes = field(repr=False)


def longest_fragment(maximum_length: int) -> int:
    """Return how many bytes of a message one PDU to a peer may carry; even, as fragments are.

    ``maximum_length`` is what the peer said it receives (PS3.8, D.1: without the PDU's header of 6 bytes; 0: no
    limit). Raises Malformed where nothing fits.
    """
    if maximum_length == 0:
        return LONGEST_FRAGMENT
    fits = (maximum_length - PDV_HEADER_BYTES) & ~1
    if fits < 2:
        raise Malformed(f"PDUs of at most {maximum_length} bytes carry no data")
    return min(fits, LONGEST_FRAGMENT)


def put_header(pdv: Pdv, length: int, into: bytearray | memoryview, at: int) -> None:
    """Write the headers of a PDU with one PDV of ``length`` bytes; its own fragment is left aside."""
    control = _COMMAND * pdv.is_command | _LAST * pdv.is_last
    P_DATA_HEADER.pack_into(into, at, P_DATA_TF, length + PDV_HEADER_BYTES, length + 2, pdv.context_id, control)


def encode(pdv: Pdv) -> bytes:
    """Return a PDU with one PDV."""
    pdu = bytearray(P_DATA_HEADER.size)
    put_header(pdv, len(pdv.fragment), pdu, 0)
    return bytes(pdu) + pdv.fragment


def fragments(message: bytes, context_id: int, longest: int, *, is_command: bool) -> Iterator[Pdv]:
    """Part a command set or data set into PDVs of at most ``longest`` bytes; an empty one is one empty PDV."""
    for start in range(0, max(len(message), 1), longest):
        yield Pdv(
            context_id=context_id,
            is_command=is_command,
            is_last=start + longest >= len(message),
            fragment=message[start : start + longest],
        )


class PduReader:
    """Parts a stream of bytes into PDUs. What it has not given out yet is in ``unread``."""

    def __init__(self) -> None:
        """Begin at the start of a PDU."""
        self.unread = bytearray()

    def feed(self, received: bytes) -> None:
        """Take bytes in the order in which they came."""
        self.unread += received

    def next_type(self) -> int | None:
        """Return the type of the next PDU as soon as its first byte is there."""
        return self.unread[0] if self.unread else None

    def next_p_data(self) -> list[Pdv] | None:
        """Take the next PDU, which is a P-DATA-TF, once it is whole, else None. Raises Malformed."""
        if len(self.unread) < PDU_HEADER.size:
            return None
        kind, length = PDU_HEADER.unpack_from(self.unread)
        if kind != P_DATA_TF:
            raise Malformed(f"a PDU of type {kind} where data was due")
        if length > LONGEST_RECEIVED:
            raise Malformed(f"a PDU of {length} bytes where a short answer was due")
        end = PDU_HEADER.size + length
        if len(self.unread) < end:
            return None
        body = bytes(self.unread[PDU_HEADER.size : end])
        del self.unread[:end]
        return list(_pdvs(body))


def _pdvs(body: bytes) -> Iterator[Pdv]:
    at = 0
    while at < len(body):
        if at + PDV_HEADER_BYTES > len(body):
            raise Malformed("a PDV that ends within its header")
        length, context_id, control = _PDV_HEADER.unpack_from(body, at)
        end = at + 4 + length
        if length < 2 or end > len(body):
            raise Malformed(f"a PDV of {length} bytes does not fit into its PDU")
        yield Pdv(
            context_id=context_id,
            is_command=bool(control & _COMMAND),
            is_last=bool(control & _LAST),
            fragment=body[at + PDV_HEADER_BYTES : end],
        )
        at = end
