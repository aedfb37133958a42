"""A peer that does what a test tells it: accepts what it is told to, and then follows a script over a real socket."""

import socket
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from pacs_bridge.sending.commands import C_STORE_RSP
from pacs_bridge.sending.pdu import P_DATA_TF, PDU_HEADER, PduReader, Pdv, encode
from pacs_bridge.sending.peer import Peer

A_ASSOCIATE_AC, A_RELEASE_RQ, A_RELEASE_RP, A_ABORT = 0x02, 0x05, 0x06, 0x07
_PATIENCE_S = 20.0
_ITEM = struct.Struct(">BxH")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An object that arrived: of which context, with which message, in PDUs of at most which length."""

    context_id: int
    message_id: int
    dataset: bytes = field(repr=False)
    longest_pdu: int


class Conversation:
    """What a script holds: one association, accepted already. Raises EOFError when we have closed the connection."""

    def __init__(self, connected: socket.socket, contexts: dict[int, tuple[str, str]]) -> None:
        """Take the accepted connection."""
        self.socket = connected
        self.contexts = contexts
        self.last_type = 0
        """The type of the PDU that `read_store` met instead of data."""

    def read_pdu(self) -> tuple[int, bytes]:
        """Read one PDU: its type and what follows its header."""
        kind, length = PDU_HEADER.unpack(_exactly(self.socket, PDU_HEADER.size))
        return kind, _exactly(self.socket, length)

    def read_store(self) -> Stored | None:
        """Read a whole C-STORE-RQ; None where we ask for release or abort instead."""
        parts = {True: bytearray(), False: bytearray()}
        longest, context_id = 0, 0
        while True:
            kind, body = self.read_pdu()
            if kind != P_DATA_TF:
                self.last_type = kind
                return None
            longest = max(longest, len(body))
            for pdv in _pdvs(body):
                context_id = pdv.context_id
                parts[pdv.is_command] += pdv.fragment
                if pdv.is_last and not pdv.is_command:
                    message_id = _message_id(bytes(parts[True]))
                    return Stored(
                        context_id=context_id, message_id=message_id, dataset=bytes(parts[False]), longest_pdu=longest
                    )

    def answer(self, stored: Stored, status: int = 0) -> None:
        """Answer a C-STORE."""
        self.send(answer_to(stored, status))

    def send(self, pdu: bytes) -> None:
        """Send bytes, whatever they are."""
        self.socket.sendall(pdu)

    def abort(self) -> None:
        """Send an A-ABORT (PS3.8, 9.3.8)."""
        self.send(PDU_HEADER.pack(A_ABORT, 4) + bytes(4))


def answer_to(stored: Stored, status: int = 0) -> bytes:
    """Return the PDU that answers a C-STORE."""
    return encode(_response(stored.context_id, stored.message_id, status))


Script = Callable[[Conversation], None]


class FakePeer:
    """Listens on loopback between `with` and its end; each association runs the script in a thread of its own.

    ``accepts`` says of a SOP class and a transfer syntax whether the peer takes them, ``maximum_length`` is what it
    announces. What its threads raised is raised at the end, so that a script may hold assertions.
    """

    def __init__(
        self,
        script: Script,
        *,
        accepts: Callable[[str, str], bool] = lambda _sop_class, _syntax: True,
        maximum_length: int = 16384,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Bind a free port; nothing is accepted yet."""
        self._script, self._accepts, self._maximum_length, self._tls = script, accepts, maximum_length, tls
        self._server = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._wrong: list[BaseException] = []
        self.peer = Peer(ae_title="FAKE", host="127.0.0.1", port=self._server.getsockname()[1])

    def __enter__(self) -> Self:
        """Listen."""
        self._start(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop; raises what a script raised."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join(_PATIENCE_S)
        for wrong in self._wrong:
            raise wrong

    def _listen(self) -> None:
        while True:
            try:
                accepted, _ = self._server.accept()
            except OSError:
                return
            self._start(lambda accepted=accepted: self._converse(accepted))  # type: ignore[misc]

    def _start(self, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run, daemon=True, name="fake-peer")
        self._threads.append(thread)
        thread.start()

    def _converse(self, accepted: socket.socket) -> None:
        accepted.settimeout(_PATIENCE_S)
        try:
            if self._tls:
                accepted = self._tls.wrap_socket(accepted, server_side=True)
            conversation = Conversation(accepted, {})
            _, request = conversation.read_pdu()
            conversation.contexts = _proposed(request)
            conversation.send(self._acceptance(request, conversation.contexts))
            self._script(conversation)
        except (OSError, EOFError):
            pass  # we went away: what that means is seen on our side
        except BaseException as wrong:  # noqa: BLE001 - handed to the test
            self._wrong.append(wrong)
        finally:
            accepted.close()

    def _acceptance(self, request: bytes, contexts: dict[int, tuple[str, str]]) -> bytes:
        """Return an A-ASSOCIATE-AC (PS3.8, 9.3.3)."""
        items = _item(0x10, b"1.2.840.10008.3.1.1.1")
        for context_id, (sop_class, syntax) in contexts.items():
            result = 0 if self._accepts(sop_class, syntax) else 4
            items += _item(0x21, bytes((context_id, 0, result, 0)) + _item(0x40, syntax.encode()))
        items += _item(0x50, _item(0x51, struct.pack(">L", self._maximum_length)) + _item(0x52, b"1.2.3"))
        body = request[:68] + items
        return PDU_HEADER.pack(A_ASSOCIATE_AC, len(body)) + body


def keeping(stored: list[Stored]) -> Callable[[Conversation], None]:
    """Return a script that keeps what it is sent, and releases when asked to."""

    def script(conversation: Conversation) -> None:
        while each := conversation.read_store():
            stored.append(each)
            conversation.answer(each)
        conversation.send(PDU_HEADER.pack(A_RELEASE_RP, 4) + bytes(4))

    return script


def store_all(conversation: Conversation) -> None:
    """Answer everything with Success and let go: a script."""
    while stored := conversation.read_store():
        conversation.answer(stored)
    conversation.send(PDU_HEADER.pack(A_RELEASE_RP, 4) + bytes(4))


def _exactly(connected: socket.socket, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        part = connected.recv(count - len(received))
        if not part:
            raise EOFError
        received += part
    return bytes(received)


def _pdvs(body: bytes) -> list[Pdv]:
    reader = PduReader()
    reader.feed(PDU_HEADER.pack(P_DATA_TF, len(body)) + body)
    return reader.next_p_data() or []


def _message_id(command: bytes) -> int:
    at = command.index(struct.pack("<HHL", 0, 0x0110, 2))
    return int.from_bytes(command[at + 8 : at + 10], "little")


def _response(context_id: int, message_id: int, status: int) -> Pdv:
    numbers = ((0x0100, C_STORE_RSP), (0x0120, message_id), (0x0800, 0x0101), (0x0900, status))
    elements = b"".join(struct.pack("<HHLH", 0, element, 2, number) for element, number in numbers)
    command = struct.pack("<HHLL", 0, 0, 4, len(elements)) + elements
    return Pdv(context_id=context_id, is_command=True, is_last=True, fragment=command)


def _proposed(request: bytes) -> dict[int, tuple[str, str]]:
    """Read the contexts of an A-ASSOCIATE-RQ, of each its first transfer syntax."""
    contexts = {}
    for kind, item in _items(request[68:]):
        if kind == 0x20:
            (_, sop_class), (_, syntax), *_ = _items(item[4:])
            contexts[item[0]] = (sop_class.decode(), syntax.decode())
    return contexts


def _items(body: bytes) -> list[tuple[int, bytes]]:
    items, at = [], 0
    while at < len(body):
        kind, length = _ITEM.unpack_from(body, at)
        items.append((kind, body[at + _ITEM.size : at + _ITEM.size + length]))
        at += _ITEM.size + length
    return items


def _item(kind: int, value: bytes) -> bytes:
    return _ITEM.pack(kind, len(value)) + value
