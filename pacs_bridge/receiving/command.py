"""What does a command set ask for, and how is C-STORE answered (PS3.7, 6.3.1 and 9.3.1)?

Command sets are always implicit VR, little endian.
"""

import struct
from dataclasses import dataclass
from typing import Final

from pacs_bridge.errors import BrokenProtocol

C_STORE_RQ: Final = 0x0001
C_STORE_RSP: Final = 0x8001
N_EVENT_REPORT_RSP: Final = 0x8100
RESPONSE: Final = 0x8000
NO_DATASET: Final = 0x0101
LONGEST_COMMENT: Final = 64
_SERVICES: Final = (0x0001, 0x0010, 0x0020, 0x0021, 0x0030, 0x0100, 0x0110, 0x0120, 0x0130, 0x0140, 0x0150)
_REQUESTS: Final = frozenset((*_SERVICES, 0x0FFF))
"""PS3.7, E.1-1; C-CANCEL has no response."""
_RESPONSES: Final = frozenset(0x8000 | each for each in _SERVICES)
_ELEMENT: Final = struct.Struct("<HHL")
_SHORT: Final = struct.Struct("<H")
_SOP_CLASS, _FIELD, _MESSAGE, _TYPE, _INSTANCE = 0x0002, 0x0100, 0x0110, 0x0800, 0x1000
_ANSWERED, _STATUS = 0x0120, 0x0900


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """The elements of a command set that decide who handles it; a response is to ``message_id``, with ``status``."""

    field: int = 0
    message_id: int = 0
    has_dataset: bool = False
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    status: int = 0

    @property
    def is_store(self) -> bool:
        """Say whether it is a C-STORE request."""
        return self.field == C_STORE_RQ


def read_command(content: bytes) -> Command:
    """Read a command set. Raises BrokenProtocol where it is none."""
    elements: dict[int, bytes] = {}
    at = 0
    while at < len(content):
        if at + _ELEMENT.size > len(content):
            raise BrokenProtocol("a command set is cut off")
        group, element, length = _ELEMENT.unpack_from(content, at)
        at += _ELEMENT.size + length
        if group != 0 or at > len(content):
            raise BrokenProtocol("a command set is cut off, or holds more than commands")
        elements[element] = content[at - length : at]
    if _FIELD not in elements or _TYPE not in elements:
        raise BrokenProtocol("a command set without command field or data set type")
    field = _number(elements[_FIELD])
    if field not in _REQUESTS and field not in _RESPONSES:
        raise BrokenProtocol(f"a command 0x{field:04X} that there is not")  # it would end pynetdicom's thread
    is_response = bool(field & RESPONSE)
    return Command(
        field=field,
        message_id=_number(elements.get(_ANSWERED if is_response else _MESSAGE, b"\0\0")),
        has_dataset=_number(elements[_TYPE]) != NO_DATASET,
        sop_class_uid=_uid(elements.get(_SOP_CLASS, b"")),
        sop_instance_uid=_uid(elements.get(_INSTANCE, b"")),
        status=_number(elements.get(_STATUS, b"\0\0")) if is_response else 0,
    )


def store_response(command: Command, context_id: int, status: int, comment: str = "") -> bytes:
    """Encode the C-STORE response as a whole P-DATA-TF PDU; ``comment`` (PS3.7, C.1) says why, where it failed."""
    elements = b"".join(
        (
            _element(_SOP_CLASS, _padded(command.sop_class_uid, b"\0")),
            _element(_FIELD, _SHORT.pack(C_STORE_RSP)),
            _element(_ANSWERED, _SHORT.pack(command.message_id)),
            _element(_TYPE, _SHORT.pack(NO_DATASET)),
            _element(_STATUS, _SHORT.pack(status)),
            _element(0x0902, _padded(comment[:LONGEST_COMMENT], b" ")) if comment else b"",
            _element(_INSTANCE, _padded(command.sop_instance_uid, b"\0")),
        )
    )
    content = _element(0x0000, struct.pack("<L", len(elements))) + elements
    return struct.pack(">BxLLBB", 0x04, len(content) + 6, len(content) + 2, context_id, 0x03) + content


def _element(number: int, value: bytes) -> bytes:
    return _ELEMENT.pack(0, number, len(value)) + value


def _padded(text: str, padding: bytes) -> bytes:
    value = text.encode("ascii", "replace")
    return value + padding * (len(value) % 2)


def _number(value: bytes) -> int:
    if len(value) != _SHORT.size:
        raise BrokenProtocol("a number of a command set has not two bytes")
    return int(_SHORT.unpack(value)[0])


def _uid(value: bytes) -> str:
    return value.decode("ascii", "replace").strip("\0 ")
