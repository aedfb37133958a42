"""A whole service as a child process, and a PACS that notes what arrives."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from benchmarks.service import ReceivingPacs, Service, running
from pacs_bridge.send import Peer, SendResult, send_files

Send = Callable[[Service, list[Path]], SendResult]


@pytest.fixture
def pacs() -> Iterator[ReceivingPacs]:
    """Return a PACS on loopback."""
    pacs = ReceivingPacs()
    pacs.start()
    yield pacs
    pacs.stop()


@pytest.fixture
def make_service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Return a maker of running services; each is killed at the end of the test if it still runs."""
    with ExitStack() as stack:

        def make(*, name: str = "state", **settings: Any) -> Service:
            quick = {"arrival": {"quiet_s": 2}, "outputs": {"render": False}, **settings}
            return stack.enter_context(running(Service(tmp_path / name, quick)))

        yield make


@pytest.fixture(scope="session")
def send() -> Send:
    """Return a sender of files to a service."""

    def sent(service: Service, files: list[Path]) -> SendResult:
        peer = Peer(ae_title="CTRIAGE", host="127.0.0.1", port=service.port)
        return send_files(files, peer, calling_ae="SCANNER")

    return sent


@pytest.fixture(scope="session")
def small_study(shared_data: Path) -> list[Path]:
    """Return the files of the smallest real study that forms a volume: four tilted slices."""
    return sorted((shared_data / "geometry_faults" / "gantrytilting").rglob("*.dcm"))


@pytest.fixture(scope="session")
def tilted_head(shared_data: Path) -> list[Path]:
    """Return the files of a real, tilted and uneven head."""
    folder = shared_data / "head_ge_tilted"
    return [p for p in sorted(folder.iterdir()) if p.is_file() and p.read_bytes()[128:132] == b"DICM"]


def destination(pacs: ReceivingPacs, **more: Any) -> dict[str, Any]:
    """Return the settings of a destination."""
    everything = ["sr", "seg", "key_objects", "mpr", "mip", "render", "summary"]
    peer = {"name": "pacs", "ae_title": pacs.ae_title, "host": "127.0.0.1", "port": pacs.port}
    return {**peer, "send": everything, **more}


@pytest.fixture(scope="session")
def to_pacs() -> Callable[..., dict[str, Any]]:
    """Return a maker of destination settings."""
    return destination
