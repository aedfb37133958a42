"""What runs in a receiver process: a `Receiver` whose front desk is at the other end of a link."""

import os
import signal
import socket
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import structlog

from pacs_bridge import logs
from pacs_bridge.archive_files import ArchiveFiles
from pacs_bridge.receiving.desk import Answer, Asked, Entry, Refusal
from pacs_bridge.receiving.link import Link, LinkGone, Reply
from pacs_bridge.receiving.receiver import Receiver, ReceiverOptions
from pacs_bridge.services import ServiceAnswer, ServiceRequest
from pacs_bridge.settings import Tls
from pacs_bridge.store_status import StoreStatus
from pacs_bridge.tls import server_context

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a receiver process is told: where to put files, and the sockets to accept on, with TLS or in clear."""

    options: ReceiverOptions
    folder: Path
    floor_bytes: int
    sockets: Sequence[tuple[socket.socket, bool]]
    tls: Tls


class LinkedDesk:
    """Implements FrontDesk by asking the driver."""

    def __init__(self, link: Link) -> None:
        """Ask over this link."""
        self._link = link

    def opened(self, asked: Asked) -> Refusal | None:
        """See FrontDesk."""
        refusal: Refusal | None = self._link.ask("opened", asked)
        return refusal

    def enter(self, entry: Entry, settle: Callable[[], None]) -> Answer:
        """See FrontDesk; a driver that has gone may have kept it or not, so the sender hears that it was not."""
        try:
            answer: Answer = self._link.ask_while(settle, "enter", entry)
        except LinkGone as gone:
            return Answer(StoreStatus.PROCESSING_FAILURE, str(gone))
        return answer

    def not_kept(self, calling_ae: str, answer: Answer) -> None:
        """See FrontDesk."""
        self._tell("not_kept", (calling_ae, answer))

    def closed(self, association: str, problem: str) -> None:
        """See FrontDesk."""
        self._tell("closed", (association, problem))

    def serve(self, request: ServiceRequest) -> ServiceAnswer:
        """See FrontDesk."""
        answer: ServiceAnswer = self._link.ask("serve", request)
        return answer

    def turned_away(self, address: str, reason: str) -> None:
        """See FrontDesk."""
        self._tell("turned_away", (address, reason))

    def _tell(self, what: str, value: Any) -> None:
        try:
            self._link.ask(what, value)
        except LinkGone:
            return  # the driver notes for itself that its receiver's associations have ended


def run(connection: Connection, plan: Plan) -> None:
    """Receive until the driver says stop, or has gone: nothing may be answered Success that it does not index."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)  # the driver ends us
    os.umask(0o077)
    logs.configure(level="WARNING")
    threading.excepthook = thread_ended
    stopping = threading.Event()
    receiver: Receiver

    def handle(what: str, value: Any, reply: Reply) -> None:
        if what == "stop":
            stopping.set()
            reply(None)
        else:
            threading.Thread(target=lambda: reply(receiver.event_report(*value)), daemon=True).start()

    link = Link(connection, handle, on_gone=lambda: os._exit(1))
    files = ArchiveFiles(plan.folder, floor_bytes=plan.floor_bytes)
    receiver = Receiver(plan.options, files, LinkedDesk(link))
    # One that does not accept any more is of no use; the driver replaces a process that has ended.
    receiver.start(secured(plan.sockets, plan.tls), on_ended=lambda: os._exit(1))
    link.ask("ready", None)
    stopping.wait()
    receiver.stop()
    link.ask("stopped", None)


def thread_ended(ended: threading.ExceptHookArgs) -> None:
    """Say in one line what ended a thread: pynetdicom's end so over peers that break the protocol's rules."""
    last = traceback.extract_tb(ended.exc_traceback)[-1:]
    where = "".join(f"{Path(each.filename).name}:{each.lineno}" for each in last)
    _log.warning("thread_ended", by=ended.exc_type.__name__, where=where)


def secured(sockets: Sequence[tuple[socket.socket, bool]], tls: Tls) -> list[tuple[socket.socket, Any]]:
    """Give each socket that is to speak TLS its context. Raises SettingsError."""
    now = datetime.now(UTC)
    return [(each, server_context(tls, now=now) if speaks_tls else None) for each, speaks_tls in sockets]
