"""What pynetdicom leaves undone about sockets: small messages without delay, and closing each one for good."""

import socket
from collections.abc import Callable
from typing import Any, Final

from pynetdicom import evt


def opened(event: Any) -> None:
    """Send small messages at once: without this every instance waits 40 ms for a delayed acknowledgement."""
    raw = event.assoc.dul.socket.socket
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    event.assoc.ctriage_socket = raw


def closed(event: Any) -> None:
    """Give the file descriptor back: pynetdicom does not where its `shutdown` fails because the peer was faster."""
    raw = getattr(event.assoc, "ctriage_socket", None)
    if raw is not None:
        raw.close()


SOCKET_HANDLERS: Final[list[tuple[Any, Callable[..., Any]]]] = [
    (evt.EVT_CONN_OPEN, opened),
    (evt.EVT_CONN_CLOSE, closed),
]
