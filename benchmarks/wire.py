"""A small DICOM sender that says of every instance what it heard, and that can break off anywhere.

It shares no code with the service: a mistake on one side must not hide one on the other. PS3.8, section 9.3 (PDUs) and
PS3.7, section 9.3 (messages).
"""

import contextlib
import socket
import ssl
import struct
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Final, Self

CT_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION: Final = "1.2.840.10008.1.1"
EXPLICIT_LE: Final = "1.2.840.10008.1.2.1"
IMPLICIT_LE: Final = "1.2.840.10008.1.2"
SUCCESS: Final = 0x0000
_APPLICATION_CONTEXT: Final = b"1.2.840.10008.3.1.1.1"
_IMPLEMENTATION: Final = b"2.25.99"
_ASSOCIATE_AC, _DATA, _RELEASE_RP = 0x02, 0x04, 0x06
_RELEASE_RQ: Final = b"\5\0\0\0\0\4\0\0\0\0"
_ABORT: Final = b"\7\0\0\0\0\4\0\0\0\0"
_C_STORE_RQ, _C_ECHO_RQ = 0x0001, 0x0030
_NO_DATASET, _HAS_DATASET = 0x0101, 0x0001


class Broken(Exception):
    """The association ended, or was never had, before the answer came."""


class Association:
    """An open association; leaving its `with` block without `release` cuts the socket."""

    def __init__(self, connection: socket.socket, called: str, calling: str, contexts: Sequence[tuple[str, str]]):
        """Negotiate over a connected socket (TCP or TLS). Raises Broken where it is refused."""
        self._socket = connection
        self._message_id = 0
        self._send(associate_request(called, calling, contexts))
        kind, body = self._pdu()
        if kind != _ASSOCIATE_AC:
            raise Broken(f"no association: the peer answered with PDU {kind:#04x}")
        accepted, self.maximum_pdu = _read_accept(body)
        self._contexts = {contexts[number // 2][0]: number for number in reversed(accepted)}

    def at_most(self, pdu_bytes: int) -> None:
        """Send no PDU larger than this, though the peer would take it."""
        self.maximum_pdu = min(self.maximum_pdu or pdu_bytes, pdu_bytes)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the socket."""
        self._socket.close()

    def store(self, sop_class_uid: str, sop_instance_uid: str, dataset: bytes) -> int:
        """Send one instance; returns the status that was answered. Raises Broken where none came."""
        self._send(self.store_request(sop_class_uid, sop_instance_uid, dataset))
        return self.status()

    def store_request(self, sop_class_uid: str, sop_instance_uid: str, dataset: bytes) -> bytes:
        """Return the PDUs of one C-STORE request, so that a part of them can be sent."""
        context = self._contexts.get(sop_class_uid)
        if context is None:
            raise Broken("the peer does not take this SOP class")
        self._message_id = self._message_id % 0xFFFF + 1
        command = _command(
            (0x0002, _uid(sop_class_uid)),
            (0x0100, struct.pack("<H", _C_STORE_RQ)),
            (0x0110, struct.pack("<H", self._message_id)),
            (0x0700, struct.pack("<H", 0)),
            (0x0800, struct.pack("<H", _HAS_DATASET)),
            (0x1000, _uid(sop_instance_uid)),
        )
        return b"".join((_data_pdu(context, 3, command), *_fragments(context, dataset, self.maximum_pdu)))

    def echo(self) -> int:
        """Send C-ECHO; returns the status."""
        self._message_id += 1
        command = _command(
            (0x0002, _uid(VERIFICATION)),
            (0x0100, struct.pack("<H", _C_ECHO_RQ)),
            (0x0110, struct.pack("<H", self._message_id)),
            (0x0800, struct.pack("<H", _NO_DATASET)),
        )
        self._send(_data_pdu(self._contexts[VERIFICATION], 3, command))
        return self.status()

    def status(self) -> int:
        """Wait for a response and return its status. Raises Broken where the association ends before."""
        kind, body = self._pdu()
        if kind != _DATA:
            raise Broken(f"the peer ended the association (PDU {kind:#04x})")
        return _status_in(body[6:])

    def send_raw(self, content: bytes) -> None:
        """Send bytes as they are, such as a part of a request."""
        self._send(content)

    def release(self) -> None:
        """Take leave and wait for the answer. Raises Broken where another comes."""
        self._send(_RELEASE_RQ)
        kind, _ = self._pdu()
        if kind != _RELEASE_RP:
            raise Broken(f"the peer did not release (PDU {kind:#04x})")

    def abort(self) -> None:
        """Send A-ABORT."""
        self._send(_ABORT)

    def reset(self) -> None:
        """End with a TCP reset: what stands in the buffers is lost, as where a sender's machine dies."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def half_close(self) -> None:
        """Say that nothing more will be sent, and go on listening."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def _send(self, content: bytes) -> None:
        try:
            self._socket.sendall(content)
        except OSError as broken:
            raise Broken(str(broken)) from broken

    def _pdu(self) -> tuple[int, bytes]:
        head = self._read(6)
        kind, length = struct.unpack(">BxL", head)
        return kind, self._read(length)

    def _read(self, count: int) -> bytes:
        content = bytearray()
        while len(content) < count:
            try:
                some = self._socket.recv(count - len(content))
            except OSError as broken:
                raise Broken(str(broken)) from broken
            if not some:
                raise Broken("the peer closed the connection")
            content += some
        return bytes(content)


def associate(
    address: tuple[str, int],
    *,
    called: str = "CTRIAGE",
    calling: str = "BENCH",
    contexts: Sequence[tuple[str, str]] = ((CT_IMAGE, EXPLICIT_LE),),
    tls: ssl.SSLContext | None = None,
    timeout_s: float = 30.0,
) -> Association:
    """Connect and negotiate; no answer is waited for longer than ``timeout_s``. Raises Broken."""
    connection = _connected(address, tls, timeout_s)
    try:
        return Association(connection, called, calling, contexts)
    except BaseException:
        connection.close()
        raise


def _connected(address: tuple[str, int], tls: ssl.SSLContext | None, timeout_s: float) -> socket.socket:
    try:
        connection = socket.create_connection(address, timeout=timeout_s)
    except OSError as broken:
        raise Broken(str(broken)) from broken
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection if tls is None else tls.wrap_socket(connection, server_hostname="localhost")
    except OSError as broken:
        connection.close()
        raise Broken(str(broken)) from broken


def associate_request(called: str, calling: str, contexts: Sequence[tuple[str, str]]) -> bytes:
    """Encode A-ASSOCIATE-RQ (PS3.8, 9.3.2): each pair of SOP class and transfer syntax is one context, 1, 3, 5..."""
    proposed = b"".join(
        _item(
            0x20,
            struct.pack(">B3x", 2 * at + 1) + _item(0x30, sop_class.encode()) + _item(0x40, syntax.encode()),
        )
        for at, (sop_class, syntax) in enumerate(contexts)
    )
    user = _item(0x51, struct.pack(">L", 16384)) + _item(0x52, _IMPLEMENTATION)
    body = struct.pack(">Hxx16s16s32x", 1, called.encode().ljust(16), calling.encode().ljust(16))
    body += _item(0x10, _APPLICATION_CONTEXT) + proposed + _item(0x50, user)
    return struct.pack(">BxL", 1, len(body)) + body


def _item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(content)) + content


def _read_accept(body: bytes) -> tuple[list[int], int]:
    """Return the IDs of the accepted contexts, and the largest PDU that the peer takes (0: any)."""
    accepted, maximum_pdu = [], 0
    for kind, content in _items(body[68:]):
        if kind == 0x21 and content[2] == 0:
            accepted.append(content[0])
        elif kind == 0x50:
            lengths = [struct.unpack(">L", inner)[0] for sub, inner in _items(content) if sub == 0x51]
            maximum_pdu = lengths[0] if lengths else 0
    return accepted, maximum_pdu


def _items(content: bytes) -> Iterator[tuple[int, bytes]]:
    while content:
        kind, length = struct.unpack(">BxH", content[:4])
        yield kind, content[4 : 4 + length]
        content = content[4 + length :]


def _command(*elements: tuple[int, bytes]) -> bytes:
    """Encode a command set, implicit VR little endian, group length first (PS3.7, 6.3.1)."""
    encoded = b"".join(struct.pack("<HHL", 0, number, len(value)) + value for number, value in elements)
    return struct.pack("<HHLL", 0, 0, 4, len(encoded)) + encoded


def _uid(text: str) -> bytes:
    return text.encode() + b"\0" * (len(text) % 2)


def _data_pdu(context: int, control: int, fragment: bytes) -> bytes:
    head = struct.pack(">BxLLBB", _DATA, len(fragment) + 6, len(fragment) + 2, context, control)
    return head + fragment


def _fragments(context: int, dataset: bytes, maximum_pdu: int) -> Iterator[bytes]:
    size = (maximum_pdu or 2**17) - 6
    for at in range(0, max(len(dataset), 1), size):
        last = at + size >= len(dataset)
        yield _data_pdu(context, 2 if last else 0, dataset[at : at + size])


def _status_in(command: bytes) -> int:
    while command:
        _, element, length = struct.unpack("<HHL", command[:8])
        if element == 0x0900:
            return int(struct.unpack("<H", command[8:10])[0])
        command = command[8 + length :]
    raise Broken("the peer's response states no status")
