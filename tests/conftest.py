"""What several rooms' tests stand on: the real scans, waiting with a deadline, and a real Orthanc."""

import json
import os
import secrets
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

ROOT = Path(__file__).resolve().parent.parent


class WaitUntil(Protocol):
    """Waits until a condition holds, and fails the test when it does not in time."""

    def __call__(self, condition: Callable[[], object], *, deadline_s: float = 20.0) -> None: ...


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real scans; skips where it is absent."""
    folder = Path(os.environ.get("CTRIAGE_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"the real scans are not here: no folder {folder} (or set CTRIAGE_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def wait_until() -> WaitUntil:
    """Return a function that waits for a condition."""
    return _wait_until


@dataclass(frozen=True, slots=True, kw_only=True)
class Orthanc:
    """A running Orthanc, alone in its network namespace; it reaches this machine as ``our_address``."""

    host: str
    our_address: str
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


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    """Start a fresh Orthanc; skips where there is none, or no right to give it a network namespace of its own."""
    if not shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/bin"):
        pytest.skip("Orthanc is not installed (Debian's package orthanc)")
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("Orthanc listens on every address: only root, with iproute2, can give it a network of its own")
    with ExitStack() as stack:
        namespace, ours, its = _namespace(stack)
        peer = Orthanc(host=its, our_address=ours)
        _start(stack, namespace, tmp_path / "orthanc", peer)
        yield peer


def _namespace(stack: ExitStack) -> tuple[str, str, str]:
    """Make a namespace and a pair of virtual interfaces into it; nothing leaves this machine."""
    name = f"ct{secrets.token_hex(4)}"
    net = f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(256)}"
    block = 4 * secrets.randbelow(64)
    ours, its = f"{net}.{block + 1}", f"{net}.{block + 2}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no network namespace to be had here: {made.stderr.strip()}")
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
        pytest.skip(f"no network of Orthanc's own to be had here: ip {' '.join(arguments)}: {done.stderr.strip()}")


def _start(stack: ExitStack, namespace: str, folder: Path, peer: Orthanc) -> None:
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
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    log = stack.enter_context((folder / "log").open("wb"))
    command = ["ip", "netns", "exec", namespace, "Orthanc", str(folder / "orthanc.json")]
    path = f"/usr/sbin:/usr/bin:{os.environ.get('PATH', '')}"
    environment = {**os.environ, "TCP_NODELAY": "1", "PATH": path}
    process = stack.enter_context(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
    stack.callback(process.kill)
    _wait_until(lambda: _answers(peer))


def _answers(peer: Orthanc) -> bool:
    try:
        return bool(peer.get("/system"))
    except (urllib.error.URLError, OSError):
        return False


def _wait_until(condition: Callable[[], object], *, deadline_s: float = 20.0) -> None:
    end = time.monotonic() + deadline_s
    pause = threading.Event()
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"waited {deadline_s:.0f} s in vain")
        pause.wait(0.02)
