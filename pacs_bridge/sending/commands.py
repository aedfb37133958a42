"""How are a C-STORE request and its response encoded (PS3.7, 9.3.1)? Command sets are Implicit VR Little Endian."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pacs_bridge.sending.pdu import Malformed

C_STORE_RQ: Final = 0x0001
C_STORE_RSP: Final = 0x8001
LAST_MESSAGE_ID: Final = 0xFFFF
LONGEST_COMMAND: Final = 64 * 1024

_MEDIUM_PRIORITY, _DATA_SET_FOLLOWS = 0x0000, 0x0001
_GROUP_LENGTH, _SOP_CLASS, _COMMAND, _MESSAGE, _ANSWERED = 0x0000, 0x0002, 0x0100, 0x0110, 0x0120
_PRIORITY, _DATA_SET_TYPE, _STATUS, _SOP_INSTANCE = 0x0700, 0x0800, 0x0900, 0x1000
_ELEMENT = struct.Struct("<HHL")
_SHORT = struct.Struct("<HHLH")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreResponse:
    """What a peer says to a C-STORE."""

    message_id: int
    status: int


def store_request(message_id: int, sop_class_uid: str, sop_instance_uid: str) -> bytes:
    """Encode a C-STORE-RQ (PS3.7, table 9.3-1), with the group length that annex E.1 asks for."""
    elements = b"".join(
        (
            _uid(_SOP_CLASS, sop_class_uid),
            _SHORT.pack(0, _COMMAND, 2, C_STORE_RQ),
            _SHORT.pack(0, _MESSAGE, 2, message_id),
            _SHORT.pack(0, _PRIORITY, 2, _MEDIUM_PRIORITY),
            _SHORT.pack(0, _DATA_SET_TYPE, 2, _DATA_SET_FOLLOWS),
            _uid(_SOP_INSTANCE, sop_instance_uid),
        )
    )
    return _ELEMENT.pack(0, _GROUP_LENGTH, 4) + struct.pack("<L", len(elements)) + elements


def read_store_response(command: bytes) -> StoreResponse:
    """Decode a C-STORE-RSP (PS3.7, table 9.3-2); other elements than the needed are passed over. Raises Malformed."""
    values = dict(_elements(command))
    kind = _number(values, _COMMAND)
    if kind != C_STORE_RSP:
        raise Malformed(f"a command 0x{kind:04X} where a C-STORE response was due")
    return StoreResponse(message_id=_number(values, _ANSWERED), status=_number(values, _STATUS))


def _uid(element: int, uid: str) -> bytes:
    value = uid.encode("ascii")
    value += b"\0" * (len(value) % 2)
    return _ELEMENT.pack(0, element, len(value)) + value


def _elements(command: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(command):
        if at + _ELEMENT.size > len(command):
            raise Malformed("a command set that ends within an element")
        group, element, length = _ELEMENT.unpack_from(command, at)
        at += _ELEMENT.size
        if group or at + length > len(command):
            raise Malformed("a command set with elements that do not belong there, or do not fit")
        yield element, command[at : at + length]
        at += length


def _number(values: dict[int, bytes], element: int) -> int:
    value = values.get(element, b"")
    if len(value) != 2:
        raise Malformed(f"a command set without (0000,{element:04X})")
    return int.from_bytes(value, "little")
