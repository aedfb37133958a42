"""A whole `ctriage serve` as a child process, and a PACS beside it that notes when what arrives."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from pynetdicom import AE, _config, evt
from pynetdicom.presentation import PresentationContext

from pacs_bridge.status import read_status

READY_WITHIN_S = 90.0


def free_port() -> int:
    """Return a port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], bool], *, within_s: float, what: str) -> None:
    """Ask a condition again and again until it holds; raises TimeoutError saying ``what`` was waited for."""
    deadline = time.monotonic() + within_s
    pause = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {within_s:g} s")
        pause.wait(0.02)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """One object that a PACS took: when (monotonic clock), and its data set as it came over the wire."""

    sop_instance_uid: str
    sop_class_uid: str
    at: float
    dataset: bytes = field(repr=False)
    transfer_syntax: str


class ReceivingPacs:
    """A C-STORE SCP on loopback that keeps what it gets in memory; ``gate`` closed makes it wait before answering."""

    def __init__(self, ae_title: str = "PACS") -> None:
        """Prepare; nothing listens yet."""
        self.ae_title = ae_title
        self.port = free_port()
        self.arrived: list[Arrived] = []
        self.gate = threading.Event()
        self.gate.set()
        self._server: Any = None

    def start(self) -> None:
        """Listen, for every storage class and transfer syntax that is asked for."""
        _config.UNRESTRICTED_STORAGE_SERVICE = True
        entity = AE(ae_title=self.ae_title)
        entity.maximum_pdu_size = 0
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_CONN_OPEN, _without_delay)]
        self._server = entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)

    def held(self) -> dict[str, Arrived]:
        """Return what it holds: each instance once, as it came last."""
        return {each.sop_instance_uid: each for each in self.arrived}

    def stop(self) -> None:
        """Stop listening and break off what is under way; what has arrived stays, also when it starts again."""
        self.gate.set()
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def of_class(self, sop_class_uid: str) -> list[Arrived]:
        """Return what arrived of one SOP class, in order."""
        return [each for each in self.arrived if each.sop_class_uid == sop_class_uid]

    def _store(self, event: Any) -> int:
        self.gate.wait(60)
        context: PresentationContext = event.context
        self.arrived.append(
            Arrived(
                sop_instance_uid=str(event.request.AffectedSOPInstanceUID),
                sop_class_uid=str(event.request.AffectedSOPClassUID),
                at=time.monotonic(),
                dataset=event.request.DataSet.getvalue(),
                transfer_syntax=str(context.transfer_syntax),
            )
        )
        return 0x0000


class Service:
    """`ctriage serve` on a free port, with its state in a folder that outlives it."""

    def __init__(self, state_dir: Path, settings: Mapping[str, Any]) -> None:
        """Take the settings as nested tables; state_dir and the listener's port are filled in."""
        self.state_dir = state_dir
        self.port = free_port()
        self.log = state_dir.with_suffix(".log")
        self._settings = {**settings, "state_dir": str(state_dir)}
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        """Return the process ID of the running service."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start and wait for "ready"; raises RuntimeError with the log's end where it does not come."""
        environment = {**os.environ, "CTRIAGE_LISTENER__PORT": str(self.port)}
        for key, value in self._settings.items():
            environment[f"CTRIAGE_{key.upper()}"] = value if isinstance(value, str) else json.dumps(value)
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pacs_bridge", "serve"],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "ready":
            self.kill()
            raise RuntimeError(f"the service did not start:\n{self.log.read_text()[-2000:]}")

    def stop(self) -> int:
        """Ask it to stop and wait; returns its exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(60)
        self._close()
        return status

    def kill(self) -> None:
        """Kill it and all of its children with -9, as a power cut would."""
        assert self._process is not None
        for each in self.processes():
            each.kill()
        self._process.wait(30)
        self._close()

    def processes(self) -> list[psutil.Process]:
        """Return the service and all of its children."""
        return family(self.pid)

    def status(self) -> dict[str, Any]:
        """Return what `ctriage status --json` says."""
        return read_status(self.state_dir / "ctriage.sqlite")

    def is_idle(self) -> bool:
        """Say whether no job waits or runs and no study is still arriving."""
        status = self.status()
        waiting = [j for j in (*status["jobs"], *status["deliveries"]) if j["state"] in ("ready", "running")]
        arriving = [s for s in status["studies"] if s["state"] == "open"]
        return not waiting and not arriving

    def _close(self) -> None:
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()


class MemorySampler:
    """Notes the PSS summed over processes, at the start and the largest since."""

    def __init__(self, processes: Callable[[], list[psutil.Process]], *, every_s: float = 0.1) -> None:
        """Prepare; ``processes`` returns those to be looked at, ``every_s`` seconds apart."""
        self._processes = processes
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.start_bytes = self.peak_bytes = 0

    def __enter__(self) -> "MemorySampler":
        """Note where it starts, and sample."""
        self.start_bytes = self.peak_bytes = pss_bytes(self._processes())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop sampling."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self.peak_bytes = max(self.peak_bytes, pss_bytes(self._processes()))


def family(pid: int) -> list[psutil.Process]:
    """Return a process and all of its children; none where it has ended."""
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def pss_bytes(processes: list[psutil.Process]) -> int:
    """Sum the proportional set size: shared pages are counted once, as the operating system does."""
    total = 0
    for process in processes:
        try:
            total += int(process.memory_full_info().pss)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


@contextmanager
def running(service: Service) -> Iterator[Service]:
    """Start a service and stop it at the end, whatever happens."""
    service.start()
    try:
        yield service
    finally:
        if service.processes():
            service.kill()


def _without_delay(event: Any) -> None:
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
