"""What would fail if the service started now, and what is the remedy?"""

import errno
import fcntl
import importlib
import shutil
import socket
import ssl
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, Literal

from pacs_bridge.settings import Destination, Disk, Settings, SettingsError, Tls
from pacs_bridge.tls import client_context, explain, tls_problems
from pipeline.errors import UnknownDetector
from pipeline.registry import load_detectors

SERVICE_LOCK: Final = "service.lock"
ECHO_TIMEOUT_S: Final = 5.0
REFUSED_WITHIN_S: Final = 0.5
LOW_DISK_GB: Final = 20.0

_CODECS: Final = ("HTJ2K", "JPEG2K", "JPEGLS", "LJPEG", "JPEG8")

Level = Literal["ok", "warn", "fail"]
PortKey = Literal["port", "tls_port"]
_PORTS: Final[dict[PortKey, str]] = {"port": "listener", "tls_port": "listener, TLS"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing looked at; ``remedy`` is empty only when all is well."""

    name: str
    level: Level
    detail: str
    remedy: str = ""


def run_checks(settings: Settings) -> tuple[Check, ...]:
    """Look at everything the service needs; takes seconds when a peer does not answer."""
    asked = (check_destination(settings, destination) for destination in settings.destination)
    return (*check_here(settings), *asked)


def check_here(settings: Settings) -> tuple[Check, ...]:
    """Look at what this machine must have, and at no peer."""
    return (
        *check_state_dir(settings.state_dir, settings.disk),
        *check_ports(settings),
        *check_callers(settings),
        *check_tls(settings.tls, now=datetime.now(UTC)),
        *check_libraries(),
        *check_detectors(settings.detectors.enabled),
    )


def would_fail(checks: Sequence[Check]) -> bool:
    """Say whether any check failed."""
    return any(check.level == "fail" for check in checks)


def as_json(checks: Sequence[Check]) -> dict[str, Any]:
    """Return the object that ``ctriage check --json`` prints."""
    return {"ok": not would_fail(checks), "checks": [asdict(check) for check in checks]}


# ---- this machine ---------------------------------------------------------------------------------------------------


def check_state_dir(state_dir: Path, disk: Disk | None = None) -> Iterator[Check]:
    """Write where the archive will lie (or in the nearest folder that exists), and ask for the room left there."""
    there = next(folder for folder in (state_dir, *state_dir.parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as refused:
        remedy = f"let the user who runs ctriage write to {there}, or set state_dir to another folder"
        yield Check(name="state_dir", level="fail", detail=f"{there}: {refused.strerror}", remedy=remedy)
        return
    detail = f"{state_dir} can be written" if there == state_dir else f"{state_dir} will be made"
    yield Check(name="state_dir", level="ok", detail=detail)
    yield room(shutil.disk_usage(there).free, disk or Disk())


def room(free_bytes: int, disk: Disk) -> Check:
    """Judge the room that is left beside what must stay free."""
    left = f"{free_bytes / 1e9:.0f} GB free" if free_bytes >= 10e9 else f"{free_bytes // 2**20} MB free"
    remedy = "make room, set retention.days, or set state_dir to a larger disk (1,000 slices take 0.5 GB)"
    if free_bytes < disk.free_mb * 2**20:
        refused = f"{left}, less than disk.free_mb = {disk.free_mb}: images are refused (0xA700) until there is more"
        return Check(name="disk", level="fail", detail=refused, remedy=remedy)
    if free_bytes < LOW_DISK_GB * 1e9:
        return Check(name="disk", level="warn", detail=left, remedy=remedy)
    return Check(name="disk", level="ok", detail=left)


def check_ports(settings: Settings) -> Iterator[Check]:
    """Look at each port that is to be listened on, in clear and over TLS."""
    for key in _PORTS:
        if _port_of(settings, key):
            yield check_port(settings, key)


def check_port(settings: Settings, key: PortKey = "port") -> Check:
    """Bind the listener's address for a moment; when it is taken, see whether it is by our own service."""
    host, port = settings.listener.host, _port_of(settings, key)
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
    except socket.gaierror:
        problem = "is no address", 'set listener.host to "0.0.0.0" or to an address of this machine'
    except OSError as refused:
        problem = _port_refused(refused.errno, key)
    else:
        return Check(name=_PORTS[key], level="ok", detail=f"{host}:{port} is free")
    if problem == _taken(key) and serves_on(settings.state_dir, port):
        return Check(name=_PORTS[key], level="ok", detail=f"{host}:{port} is where the service listens")
    return Check(name=_PORTS[key], level="fail", detail=f"{host}:{port} {problem[0]}", remedy=problem[1])


def _port_refused(reason: int | None, key: PortKey) -> tuple[str, str]:
    if reason == errno.EACCES:
        return "may not be opened by this user", "use a port above 1023, such as 11112"
    if reason == errno.EADDRNOTAVAIL:
        return "is not this machine's", 'set listener.host to "0.0.0.0" or an address of this machine'
    return _taken(key)


def _taken(key: PortKey) -> tuple[str, str]:
    return "is in use by another program", f"stop that program or change listener.{key}"


def _port_of(settings: Settings, key: PortKey) -> int:
    return settings.listener.port if key == "port" else settings.listener.tls_port


def is_serving(state_dir: Path) -> bool:
    """Say whether a service holds the lock of this state_dir."""
    try:
        with (state_dir / SERVICE_LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def serves_on(state_dir: Path, port: int) -> bool:
    """Say whether a service holds the lock of this state_dir, and listens on this port as far as it says."""
    if not is_serving(state_dir):
        return False
    try:
        ports = (state_dir / SERVICE_LOCK).read_text().split()
    except OSError:
        return True
    return not ports or str(port) in ports  # one that is just starting has not said yet


def check_callers(settings: Settings) -> Iterator[Check]:
    """Warn when the listener faces the network and would let nobody in from there."""
    if not settings.caller and not _is_loopback(settings.listener.host):
        yield Check(
            name="callers",
            level="warn",
            detail="no [[caller]] is named: only senders on this machine are let in",
            remedy='add a [[caller]] with ae_title = "..." and address = "..." for each scanner and PACS that sends',
        )


def check_tls(tls: Tls, *, now: datetime) -> Iterator[Check]:
    """Look into certificates and keys: what would keep the service from starting, and what will within 30 days."""
    problems = tls_problems(tls, now)
    for problem in problems:
        yield Check(name="tls", level=problem.level, detail=problem.detail, remedy=problem.remedy)
    if not problems and (tls.certificate or tls.authorities):
        yield Check(name="tls", level="ok", detail="certificates and key can be used")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# ---- peers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """Why a peer did not answer a C-ECHO, and what to do."""

    reason: str
    remedy: str


def check_destination(settings: Settings, peer: Destination) -> Check:
    """Ask a destination whether it is there and would talk to us (C-ECHO)."""
    name, where = f"destination {peer.name}", f"{peer.ae_title} at {peer.host}:{peer.port}"
    try:
        tls = client_context(settings.tls, now=datetime.now(UTC)) if peer.tls else None
    except SettingsError as unusable:
        return Check(name=name, level="fail", detail=f"{where}: not asked", remedy=str(unusable))
    silence = echo(peer.host, peer.port, called=peer.ae_title, calling=settings.listener.ae_title, tls=tls)
    if silence is None:
        return Check(name=name, level="ok", detail=f"{where} answers")
    return Check(name=name, level="fail", detail=f"{where}: {silence.reason}", remedy=silence.remedy)


def echo(host: str, port: int, *, called: str, calling: str, tls: ssl.SSLContext | None = None) -> Silence | None:
    """Send a C-ECHO (PS3.4 annex A); None when it succeeds."""
    try:
        with socket.create_connection((host, port), timeout=ECHO_TIMEOUT_S) as connected:
            _shake_hands(connected, tls, host)
    except ssl.SSLError as refused:
        remedy = "check the certificates of both sides, the name in the peer's own, and that this is its port for TLS"
        return Silence(reason=f"no TLS: {explain(refused)}", remedy=remedy)
    except socket.gaierror:
        return Silence(reason="the host's name is unknown", remedy="correct its host, or use its IP address")
    except TimeoutError:
        return Silence(
            reason="no answer", remedy="check the address, that it is switched on, and the firewalls between"
        )
    except OSError as refused:
        what = (refused.strerror or str(refused)).lower()
        return Silence(reason=what, remedy="start the peer, or correct its host and port")
    return _echo(host, port, called=called, calling=calling, tls=tls)


def _shake_hands(connected: socket.socket, tls: ssl.SSLContext | None, host: str) -> None:
    """Try TLS by itself: DICOM's own errors could not tell what is wrong with it.

    With TLS 1.3, a peer that does not accept our certificate says so after the handshake; one that does says nothing.
    """
    if tls is not None:
        with tls.wrap_socket(connected, server_hostname=host) as secured, suppress(TimeoutError):
            secured.settimeout(REFUSED_WITHIN_S)
            secured.recv(1)


def _echo(host: str, port: int, *, called: str, calling: str, tls: ssl.SSLContext | None) -> Silence | None:
    from pynetdicom import AE
    from pynetdicom.sop_class import Verification

    ae = AE(ae_title=calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = ECHO_TIMEOUT_S
    ae.add_requested_context(Verification)
    association = ae.associate(host, port, ae_title=called, tls_args=(tls, host) if tls else None)
    if association.is_rejected:
        answer = association.acceptor.primitive
        return Silence(
            reason=f"refused the association: {answer.reason_str.lower()}",
            remedy=f"let the peer know the AE title {calling} of this machine, and check that its own is {called}",
        )
    if not association.is_established:
        wants = "whether it accepts our certificate" if tls else "whether it wants TLS"
        return Silence(reason="listens, but speaks no DICOM with us", remedy=f"check the port, and {wants}")
    status = association.send_c_echo().get("Status")
    association.release()
    if status == 0:
        return None
    return Silence(reason="did not answer the C-ECHO with success", remedy="look into the peer's own log")


# ---- libraries and plug-ins -----------------------------------------------------------------------------------------


def check_libraries() -> Iterator[Check]:
    """Import what reads, computes and writes, and ask for each codec."""
    for name in ("imagecodecs", "SimpleITK", "highdicom", "numba"):
        yield _library(name, partial(importlib.import_module, name))
    yield _library("codecs", _require_codecs)


def _library(name: str, load: Callable[[], object]) -> Check:
    try:
        load()
    except ImportError as missing:
        remedy = "reinstall: pip install -c constraints.txt -e ."
        return Check(name=name, level="fail", detail=str(missing), remedy=remedy)
    return Check(name=name, level="ok", detail="loads")


def _require_codecs() -> None:
    imagecodecs = importlib.import_module("imagecodecs")
    missing = [name for name in _CODECS if not getattr(getattr(imagecodecs, name, None), "available", False)]
    if missing:
        raise ImportError(f"imagecodecs lacks {', '.join(missing)}")


def check_detectors(enabled: Sequence[str]) -> Iterator[Check]:
    """See that each detector named in the settings is installed and loads."""
    for name in enabled:
        yield _detector(name)


def _detector(name: str) -> Check:
    label = f"detector {name}"
    try:
        (detector,) = load_detectors((name,))
    except UnknownDetector as unknown:
        return Check(name=label, level="fail", detail=str(unknown), remedy="correct detectors.enabled, or install it")
    except (ImportError, AttributeError) as broken:
        remedy = "reinstall the package that provides it, or take it out of detectors.enabled"
        return Check(name=label, level="fail", detail=str(broken), remedy=remedy)
    return Check(name=label, level="ok", detail=f"version {detector.version}")
