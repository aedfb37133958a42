"""A real Orthanc, alone in a network namespace of its own: Debian's listens on every address, whatever it is told."""

import json
import os
import secrets
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.service import wait_until

PROGRAMS = "/usr/sbin:/usr/bin:/usr/local/bin"
READY_WITHIN_S = 20.0


class NoOrthanc(Exception):
    """There is no Orthanc to be had here; the message says what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orthanc:
    """A running Orthanc; it reaches this machine as ``our_address``.

    A program started with ``inside`` before its name shares Orthanc's namespace, and finds it on 127.0.0.1.
    """

    host: str
    our_address: str
    inside: tuple[str, ...]
    ae_title: str = "ORTHANC"
    dicom_port: int = 4242
    http_port: int = 8042

    def get(self, path: str) -> Any:
        """Ask the REST API."""
        return self._ask("GET", path, None)

    def put(self, path: str, body: object) -> None:
        """Change something through the REST API, such as ``/modalities/NAME``."""
        self._ask("PUT", path, json.dumps(body).encode())

    def post(self, path: str, body: object) -> Any:
        """Order something through the REST API, such as ``/modalities/NAME/store``."""
        return self._ask("POST", path, json.dumps(body).encode())

    def sop_instance_uids(self) -> set[str]:
        """List what it holds."""
        return {each["MainDicomTags"]["SOPInstanceUID"] for each in self.get("/instances?expand")}

    def _ask(self, method: str, path: str, body: bytes | None) -> Any:
        request = urllib.request.Request(f"http://{self.host}:{self.http_port}{path}", data=body, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            text = answer.read()
        return json.loads(text) if text.strip() else None


@contextmanager
def running_orthanc(folder: Path, **settings: object) -> Iterator[Orthanc]:
    """Start a fresh Orthanc with its storage in ``folder``, which is made; more ``settings`` are its own.

    TCP_NODELAY=1 stands in its environment. Raises NoOrthanc where it is not installed, or where there is no right to
    give it a network of its own.
    """
    if not shutil.which("Orthanc", path=PROGRAMS):
        raise NoOrthanc("Orthanc is not installed (Debian's package orthanc)")
    if os.geteuid() != 0 or not shutil.which("ip"):
        raise NoOrthanc("Orthanc listens on every address: only root, with iproute2, can give it a network of its own")
    with ExitStack() as stack:
        namespace, ours, its = _namespace(stack)
        peer = Orthanc(host=its, our_address=ours, inside=("ip", "netns", "exec", namespace))
        _start(stack, folder, peer, settings)
        yield peer


def _namespace(stack: ExitStack) -> tuple[str, str, str]:
    """Make a namespace and a pair of virtual interfaces into it; nothing leaves this machine."""
    name = f"ct{secrets.token_hex(4)}"
    net = f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(256)}"
    block = 4 * secrets.randbelow(64)
    ours, its = f"{net}.{block + 1}", f"{net}.{block + 2}"
    _ip("netns", "add", name)
    stack.callback(_ip, "netns", "del", name)
    _ip("link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b", "netns", name)
    _ip("addr", "add", f"{ours}/30", "dev", f"{name}a")
    _ip("link", "set", f"{name}a", "up")
    _ip("-n", name, "addr", "add", f"{its}/30", "dev", f"{name}b")
    _ip("-n", name, "link", "set", f"{name}b", "up")
    _ip("-n", name, "link", "set", "lo", "up")
    return name, ours, its


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoOrthanc(f"no network of Orthanc's own to be had here: ip {' '.join(arguments)}: {done.stderr.strip()}")


def _start(stack: ExitStack, folder: Path, peer: Orthanc, more: dict[str, object]) -> None:
    folder.mkdir()
    settings = {
        "Name": "test",
        "DicomAet": peer.ae_title,
        "DicomPort": peer.dicom_port,
        "HttpPort": peer.http_port,
        "RemoteAccessAllowed": True,
        "AuthenticationEnabled": False,
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [],
        **more,
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    log = stack.enter_context((folder / "log").open("wb"))
    command = [*peer.inside, "Orthanc", str(folder / "orthanc.json")]
    path = f"/usr/sbin:/usr/bin:{os.environ.get('PATH', '')}"
    environment = {**os.environ, "TCP_NODELAY": "1", "PATH": path}
    process = stack.enter_context(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
    stack.callback(process.kill)
    wait_until(lambda: _answers(peer), within_s=READY_WITHIN_S, what="Orthanc to answer")


def _answers(peer: Orthanc) -> bool:
    try:
        return bool(peer.get("/system"))
    except (urllib.error.URLError, OSError):
        return False
