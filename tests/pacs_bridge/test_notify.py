"""Does a supervisor hear that the service is ready?"""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacs_bridge.notify import tell_supervisor


@pytest.fixture(params=["path", "abstract"])
def supervisor(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@{tmp_path.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name.replace("@", "\0"))
        listening.settimeout(5)
        yield listening, name


def test_whoever_asks_to_be_told_is_told(
    supervisor: tuple[socket.socket, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    listening, name = supervisor
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    assert tell_supervisor("READY=1")
    assert b"READY=1" == listening.recv(100)


def test_without_a_supervisor_nothing_happens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not tell_supervisor("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    assert not tell_supervisor("READY=1")
