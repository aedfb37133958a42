"""Does a whole receiver outlive what is said to it over a socket: associations broken, PDUs and messages of any kind?

The acceptor, its socket and its files as they run in a receiver process, over TCP; only the index is left out.
"""

import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import psutil

from benchmarks import fuzz_seeds
from benchmarks.fuzz_mutations import mutated
from benchmarks.fuzz_seeds import Encoder
from benchmarks.service import wait_until
from benchmarks.wire import CT_IMAGE, EXPLICIT_LE, IMPLICIT_LE, SUCCESS, VERIFICATION, associate, associate_request
from pacs_bridge.archive_files import ArchiveFiles
from pacs_bridge.receiving.desk import Answer, Asked, Entry, Refusal
from pacs_bridge.receiving.receiver import Receiver, ReceiverOptions
from pacs_bridge.receiving.storing_socket import Bounds
from pacs_bridge.services import ServiceAnswer, ServiceRequest
from pacs_bridge.store_status import StoreStatus

IDLE_S, ENDS_WITHIN_S, QUIET_WITHIN_S = 1.0, 10.0, 20.0
LISTEN_S = 0.1
BROKEN_GREETINGS = 0.2
P_DATA = 4
SPARE_DESCRIPTORS = 4
_CONTEXTS = ((CT_IMAGE, EXPLICIT_LE), (VERIFICATION, IMPLICIT_LE))


class OpenDesk:
    """Implements FrontDesk: lets everybody in and keeps no index."""

    def opened(self, asked: Asked) -> Refusal | None:
        """See FrontDesk."""
        return None

    def enter(self, entry: Entry, settle: Callable[[], None] = lambda: None) -> Answer:
        """See FrontDesk."""
        settle()
        return Answer(StoreStatus.SUCCESS)

    def not_kept(self, calling_ae: str, answer: Answer) -> None:
        """See FrontDesk."""

    def closed(self, association: str, problem: str) -> None:
        """See FrontDesk."""

    def serve(self, request: ServiceRequest) -> ServiceAnswer:
        """See FrontDesk."""
        return ServiceAnswer(status=0x0211)

    def turned_away(self, address: str, reason: str) -> None:
        """See FrontDesk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """A receiver that listens, and where it writes."""

    port: int
    incoming: Path


@contextmanager
def live_receiver() -> Iterator[Live]:
    """Run a receiver on a free port until the block ends."""
    with tempfile.TemporaryDirectory(prefix="ctriage-fuzz-") as folder, socket.create_server(("127.0.0.1", 0)) as ours:
        archive = Path(folder)
        for name in ("incoming", *(f"{number:02x}" for number in range(256))):
            (archive / name).mkdir()
        bounds = Bounds(maximum_pdu_bytes=2**18, idle_s=IDLE_S, slowest_bytes_per_s=0)
        options = ReceiverOptions(
            ae_title="CTRIAGE", bounds=bounds, maximum_instance_bytes=2**20, acse_timeout_s=IDLE_S
        )
        receiver = Receiver(options, ArchiveFiles(archive, floor_bytes=0), OpenDesk())
        port = int(ours.getsockname()[1])
        receiver.start([(ours, None)])
        try:
            yield Live(port=port, incoming=archive / "incoming")
        finally:
            receiver.stop()


def converse(seed: int, count: int) -> tuple[dict[str, Any], list[str]]:
    """Say ``count`` mutated things to a receiver; returns a row and what was wrong."""
    row: dict[str, Any] = {"target": "socket", "taken": 0, "refused": 0, "slowest_ms": 0.0}
    problems: list[str] = []
    crashes: list[str] = []
    with _thread_crashes(crashes), live_receiver() as live:
        said_something_whole(live)
        before = psutil.Process().num_fds()
        for number in range(count):
            started = time.perf_counter()
            outcome = _say(live, Random(f"{seed} socket {number}"))
            row["slowest_ms"] = max(row["slowest_ms"], (time.perf_counter() - started) * 1000)
            if outcome == "hung":
                problems.append(f"socket, seed {seed}, input {number}: no end within {ENDS_WITHIN_S:g} s")
            else:
                row[outcome] += 1
        problems += _left_behind(live, before)
    return {**row, "threads_ended_by": ", ".join(sorted(crashes))}, problems


@contextmanager
def _thread_crashes(told: list[str]) -> Iterator[None]:
    """Tell of each kind of exception that ends a thread, once.

    Threads of pynetdicom's end so where both of its two end one association, or over a greeting that is none; what
    counts is that the association has ended then, and has left nothing behind.
    """
    before = threading.excepthook

    def tell(crash: threading.ExceptHookArgs) -> None:
        what = crash.exc_type.__name__
        if what not in told:
            told.append(what)

    threading.excepthook = tell
    try:
        yield
    finally:
        threading.excepthook = before


def said_something_whole(live: Live) -> bool:
    """Say whether the receiver still takes an instance."""
    dataset = fuzz_seeds.ct_slice(Encoder())
    with associate(("127.0.0.1", live.port), contexts=_CONTEXTS) as association:
        status = association.store(CT_IMAGE, "1.2.3.4.5", dataset)
        association.release()
    return status == SUCCESS


def _say(live: Live, rng: Random) -> str:
    """Say one thing and listen, then hang up half-way, and listen until the receiver has hung up too."""
    streams = fuzz_seeds.streams()
    greeting = associate_request("CTRIAGE", "FUZZ", _CONTEXTS)
    if rng.random() < BROKEN_GREETINGS:
        greeting = mutated([greeting], greeting, rng)
    heard = bytearray()
    with socket.create_connection(("127.0.0.1", live.port), timeout=LISTEN_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(OSError):  # the receiver may hang up at any word
            connection.sendall(greeting)
            _hear_once(connection, heard)
            connection.sendall(mutated(streams, rng.choice(streams), rng))
            _listen(connection, heard)
            connection.shutdown(socket.SHUT_WR)
        connection.settimeout(ENDS_WITHIN_S)
        if not _listen(connection, heard):
            return "hung"
    return "taken" if P_DATA in [heard[at] for at in _pdu_starts(heard)] else "refused"


def _hear_once(connection: socket.socket, heard: bytearray) -> None:
    with suppress(TimeoutError):
        heard += connection.recv(65536)


def _listen(connection: socket.socket, heard: bytearray) -> bool:
    """Listen until the receiver has hung up; False where it says nothing for as long as the socket waits."""
    try:
        while some := connection.recv(65536):
            heard += some
    except TimeoutError:
        return False
    except OSError:
        pass  # a reset is an end too
    return True


def _pdu_starts(heard: bytearray) -> Iterator[int]:
    at = 0
    while at + 6 <= len(heard):
        yield at
        at += 6 + int.from_bytes(heard[at + 2 : at + 6], "big")


def _left_behind(live: Live, descriptors_before: int) -> list[str]:
    """Name what a receiver that is well would not show: no answer, files half-written, sockets or files kept open."""
    problems = [] if said_something_whole(live) else ["socket: the receiver takes no instance any more"]

    def grown() -> int:
        return int(psutil.Process().num_fds()) - descriptors_before

    try:
        wait_until(lambda: grown() <= SPARE_DESCRIPTORS, within_s=QUIET_WITHIN_S, what="descriptors")
        wait_until(lambda: not any(live.incoming.iterdir()), within_s=QUIET_WITHIN_S, what="files")
    except TimeoutError:
        left = len(list(live.incoming.iterdir()))
        problems.append(f"socket: {grown()} descriptors are kept open, {left} half-written files lie about")
    return problems
