"""Where do senders connect: the ports, and the receivers that accept on them, in this process or in several beside it.

Negotiation, release and abort are pynetdicom's; a data set is taken as it came, in the syntax its sender prefers.
"""

import multiprocessing
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from pacs_bridge.archive_files import ArchiveFiles
from pacs_bridge.front_desk import ReceptionDesk
from pacs_bridge.receiving.link import Link, LinkGone, Reply
from pacs_bridge.receiving.process import Plan, run, secured
from pacs_bridge.receiving.receiver import Receiver, ReceiverOptions
from pacs_bridge.services import EventReport
from pacs_bridge.settings import Tls

READY_WITHIN_S: Final = 60.0
STOP_WITHIN_S: Final = 10.0
REPORT_WITHIN_S: Final = 30.0
PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 10.0
STEADY_S: Final = 60.0
"""A receiver process that has lived so long does not count as one that cannot start."""
BACKLOG: Final = 128
PRELOAD: Final = "pacs_bridge.receiving.process"
"""What receiver processes import; the server that they are forked from may have it already."""
DOES_NOT_STAY: Final = "a receiver process ended again and again"
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerOptions:
    """Where to listen: in clear on ``port`` (None: nowhere), over TLS on ``tls_port``; 0 is any free port.

    ``processes``: how many receiver processes share the ports; 0: this process receives itself. ``most_deaths``: how
    often in a row one is replaced that ends soon after its start.
    """

    receiver: ReceiverOptions
    host: str = "127.0.0.1"
    port: int | None = 11112
    tls_port: int | None = None
    tls: Tls = field(default_factory=Tls)
    processes: int = 0
    most_deaths: int = 8


class Listener:
    """Listens between `start` and `stop`; hands each instance to the front desk and answers its status."""

    def __init__(self, options: ListenerOptions, desk: ReceptionDesk, files: ArchiveFiles) -> None:
        """Prepare to listen; nothing is bound yet."""
        self._options = options
        self._desk = desk
        self._files = files
        self._sockets: list[tuple[socket.socket, bool]] = []
        self._receiver: Receiver | None = None
        self._children: list[_Child] = []
        self.failed: Future[None] = Future()
        """Done, with what went wrong, where it cannot go on receiving: the service is to end."""

    @property
    def port(self) -> int | None:
        """Return the port for clear text, the actual one where the options say 0; None: there is none."""
        return self._bound(speaks_tls=False)

    @property
    def tls_port(self) -> int | None:
        """Return the port for TLS, as ``port``."""
        return self._bound(speaks_tls=True)

    def start(self) -> None:
        """Bind and listen. Raises OSError when an address is not to be had, SettingsError for unusable certificates."""
        options = self._options
        try:
            for port, speaks_tls in ((options.port, False), (options.tls_port, True)):
                if port is not None:
                    self._sockets.append((_listening(options.host, port), speaks_tls))
            contexts = secured(self._sockets, options.tls)
            if options.processes:
                self._children = [self._child() for _ in range(options.processes)]
                for child in self._children:
                    child.wait_until_ready()
            else:
                self._receiver = Receiver(options.receiver, self._files, self._desk)
                self._receiver.start(contexts, on_ended=lambda: self._fail("nothing accepts connections any more"))
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop listening, abort what is open, and wait for it to end."""
        if self._receiver is not None:
            self._receiver.stop()
        for child in self._children:
            child.stop()
        for each, _ in self._sockets:
            each.close()
        self._receiver, self._children, self._sockets = None, [], []

    def event_report(self, association: str, report: EventReport) -> bool:
        """Send an N-EVENT-REPORT over an association if it is still open; say whether the peer has taken it."""
        if self._receiver is not None:
            return self._receiver.event_report(association, report)
        return any(child.event_report(association, report) for child in self._children)

    def _child(self) -> "_Child":
        options = self._options
        plan = Plan(
            options=options.receiver,
            folder=self._files.folder,
            floor_bytes=self._files.floor_bytes,
            sockets=self._sockets,
            tls=options.tls,
        )
        return _Child(plan, self._desk, self._fail, most_deaths=options.most_deaths)

    def _fail(self, why: str) -> None:
        _log.error("receiving_failed", reason=why, remedy="the service ends, to be started anew")
        with suppress(InvalidStateError):
            self.failed.set_exception(OSError(why))

    def _bound(self, *, speaks_tls: bool) -> int | None:
        return next((int(each.getsockname()[1]) for each, tls in self._sockets if tls is speaks_tls), None)


class _Child:
    """A receiver process, replaced when it dies; the associations that it had are broken off."""

    def __init__(self, plan: Plan, desk: ReceptionDesk, fail: Callable[[str], None], *, most_deaths: int) -> None:
        self._plan = plan
        self._most_deaths = most_deaths
        self._desk = desk
        self._fail = fail
        self._visits: set[str] = set()
        self._ready = threading.Event()
        self._stopping = threading.Event()
        self._changing = threading.Lock()
        self._deaths = 0
        self._began_at = 0.0
        self._told = ThreadPoolExecutor(4, thread_name_prefix="front-desk")
        self._start()

    def wait_until_ready(self) -> None:
        """Raise OSError where it does not come up."""
        if not self._ready.wait(READY_WITHIN_S):
            raise OSError(f"a receiver process did not start within {READY_WITHIN_S:.0f} s")
        if self._deaths > self._most_deaths:
            raise OSError(DOES_NOT_STAY)

    def event_report(self, association: str, report: EventReport) -> bool:
        """See Listener."""
        if association not in self._visits:
            return False
        try:
            return bool(self._link.ask("event_report", (association, report), within_s=REPORT_WITHIN_S))
        except (LinkGone, TimeoutError):
            return False

    def stop(self) -> None:
        """Let it abort what is open, and wait for its end."""
        with self._changing:
            self._stopping.set()  # from now on, none is started
        with suppress(LinkGone, TimeoutError):
            self._link.ask("stop", None, within_s=STOP_WITHIN_S)
        self._process.join(STOP_WITHIN_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._link.close()
        self._told.shutdown()

    def _start(self) -> None:
        """Start a process. Raises OSError or EOFError where the system, or the server of processes, does not let us."""
        self._began_at = time.monotonic()
        context = multiprocessing.get_context("forkserver")
        ours, its = multiprocessing.Pipe()
        process = context.Process(target=run, args=(its, self._plan), name="receiver", daemon=True)
        process.start()
        self._process = process
        its.close()
        self._link = Link(ours, self._handle, on_gone=self._gone)

    def _handle(self, what: str, value: Any, reply: Reply) -> None:
        """Answer on the link's reading thread what is quick, and let the rest be answered by others."""
        if what == "enter":
            self._desk.enter_later(value, reply)
        elif what == "opened":
            refusal = self._desk.opened(value)
            if refusal is None:
                self._visits.add(value.association)
            reply(refusal)
        elif what == "ready":
            self._ready.set()
            reply(None)
        else:
            self._told.submit(self._tell, what, value, reply)

    def _tell(self, what: str, value: Any, reply: Reply) -> None:
        try:
            reply(self._told_of(what, value))
        except Exception as problem:  # noqa: BLE001 - the edge: who asked must hear that it went wrong
            _log.exception("front_desk_failed", what=what)
            reply(RuntimeError(type(problem).__name__))

    def _told_of(self, what: str, value: Any) -> Any:
        match what:
            case "closed":
                association, problem = value
                self._visits.discard(association)
                return self._desk.closed(association, problem)
            case "not_kept":
                return self._desk.not_kept(*value)
            case "turned_away":
                return self._desk.turned_away(*value)
            case "serve":
                return self._desk.serve(value)
        return None

    def _gone(self) -> None:
        """End the visits of a process that has gone, or is not to be heard any more, and start another instead."""
        self._process.kill()
        self._process.join()
        visits, self._visits = self._visits, set()
        for association in visits:
            self._tell("closed", (association, "its receiver died"), lambda _answer: None)
        while not self._stopping.is_set() and not self._replaced():
            pass

    def _replaced(self) -> bool:
        """Start another process after a pause, if it is worth it; say whether that is the end of it."""
        self._deaths = 1 if time.monotonic() - self._began_at > STEADY_S else self._deaths + 1
        if self._deaths > self._most_deaths:
            self._fail(DOES_NOT_STAY)
            self._ready.set()
            return True
        _log.error("receiver_died", remedy="it is replaced; its senders send again", times=self._deaths)
        self._stopping.wait(min(PAUSE_S * 2 ** (self._deaths - 1), LONGEST_PAUSE_S))
        with self._changing:
            if self._stopping.is_set():
                return True
            try:
                self._start()
            except (OSError, EOFError):
                return False
        return True


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening
