"""The ``ctriage`` command: exit statuses, one JSON object on standard output, complaints on standard error."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import pytest
import structlog
import typer
from pydicom.data import get_testdata_file
from pynetdicom import AE, evt
from typer.testing import CliRunner

from pacs_bridge.archive import Archive
from pacs_bridge.cli import app
from pacs_bridge.cli_options import _parsed
from pacs_bridge.cli_peers import dicom_files, peer_named
from pacs_bridge.send import Peer
from scheduler.database import Database
from scheduler.job import JobRequest, Status
from scheduler.sqlite_queue import SqliteQueue


class WaitUntil(Protocol):
    """The fixture ``wait_until``."""

    def __call__(self, condition: Callable[[], object], *, deadline_s: float = 20.0) -> None: ...


HEAVY = {"numpy", "pydicom", "pynetdicom", "pydantic", "SimpleITK", "vtkmodules", "numba", "highdicom", "scipy"}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Start each test in an empty folder and without settings of the shell."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.upper().startswith("CTRIAGE_")]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def run() -> Iterator[CliRunner]:
    """Return a runner of commands in this process, and put logging back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield CliRunner()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def ct_slice(tmp_path: Path) -> Path:
    found = get_testdata_file("CT_small.dcm")
    assert isinstance(found, str)
    file = tmp_path / "images" / "CT_small.dcm"
    file.parent.mkdir()
    file.write_bytes(Path(found).read_bytes())
    return file


@pytest.fixture
def peer() -> Iterator[str]:
    """Run a peer that takes CT images; yields it as ``--to`` names it."""
    ae = AE(ae_title="PACS")
    ae.add_supported_context("1.2.840.10008.5.1.4.1.1.2")
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda _: 0x0000)])
    yield f"PACS@127.0.0.1:{server.socket.getsockname()[1]}"
    server.shutdown()


@pytest.fixture
def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


@contextmanager
def serving(folder: Path, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """Run ``ctriage serve`` in a folder; its standard output goes to the file out, its log to the file log."""
    command = [sys.executable, "-m", "pacs_bridge.cli", "serve", "--set", f"listener.port={port}"]
    with (folder / "out").open("wb") as out, (folder / "log").open("wb") as log:
        service = subprocess.Popen(command, cwd=folder, stdout=out, stderr=log, start_new_session=True)
        try:
            yield service
        finally:
            with suppress(ProcessLookupError):
                os.killpg(service.pid, signal.SIGKILL)
            service.wait()


def test_help_needs_none_of_the_heavy_libraries() -> None:
    code = "import pacs_bridge.cli, sys; print(' '.join({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert set() == HEAVY & set(loaded.split())


@pytest.mark.parametrize("command", ["process", "serve", "send", "status", "check", "phantom", "conflicts", "retry"])
def test_every_command_has_help(run: CliRunner, command: str) -> None:
    assert 0 == run.invoke(app, [command, "--help"]).exit_code


@pytest.mark.parametrize("arguments", [["serve"], ["check"], ["status"], ["retry"], ["conflicts", "list"]])
def test_settings_that_cannot_be_used_end_with_status_2_and_a_message(run: CliRunner, arguments: list[str]) -> None:
    result = run.invoke(app, [*arguments, "--set", "listener.prt=1"])
    assert (2, "", True) == (result.exit_code, result.stdout, "did you mean listener.port" in result.stderr)


@pytest.mark.parametrize(
    "arguments", [["nothing"], ["send"], ["send", "nowhere", "--to", "A@h:1"], ["check", "--set", "x"]]
)
def test_a_wrong_command_line_ends_with_status_2(run: CliRunner, arguments: list[str]) -> None:
    assert 2 == run.invoke(app, arguments).exit_code


def test_overrides_are_nested_and_json_where_they_parse() -> None:
    given = ["listener.port=11200", "listener.ae_title=CT", 'detectors.enabled=["a"]', "outputs.mip=false"]
    assert {
        "listener": {"port": 11200, "ae_title": "CT"},
        "detectors": {"enabled": ["a"]},
        "outputs": {"mip": False},
    } == _parsed(given)


def test_check_prints_one_json_object_and_fails_when_something_would(run: CliRunner) -> None:
    result = run.invoke(app, ["check", "--json", "--set", 'detectors.enabled=["none_such"]'])
    checks = json.loads(result.stdout)
    assert (1, False) == (result.exit_code, checks["ok"])
    assert {"detector none_such"} <= {each["name"] for each in checks["checks"] if each["level"] == "fail"}


def test_status_without_a_state_says_what_to_do(run: CliRunner) -> None:
    result = run.invoke(app, ["status", "--json"])
    assert (2, "", True) == (result.exit_code, result.stdout, "start `ctriage serve` once" in result.stderr)


def test_retry_prints_one_object_that_names_the_jobs(run: CliRunner, tmp_path: Path) -> None:
    database = Database(tmp_path / "ctriage.sqlite")
    Archive(tmp_path, database)
    queue = SqliteQueue(database)
    queue.submit(JobRequest(key="a", kind="deliver:pacs"), now=datetime.now(UTC))
    (job,) = queue.claim(["deliver:pacs"], datetime.now(UTC), 30).started
    queue.bury(job, "the PACS does not know us")
    results = [
        run.invoke(app, ["retry", *more, "--set", f"state_dir={tmp_path}"]) for more in (["--json"], [], ["0" * 12])
    ]
    assert [0, 0, 1] == [result.exit_code for result in results]
    assert {"jobs": ["a"]} == json.loads(results[0].stdout)
    assert "0 job(s) will be tried again." in results[1].stdout
    assert Status.READY is queue.job("a").status
    database.close()


def test_status_of_a_file_without_tables_says_so(run: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "ctriage-state").mkdir()
    Database(tmp_path / "ctriage-state" / "ctriage.sqlite").close()
    result = run.invoke(app, ["status"])
    assert (2, True) == (result.exit_code, "cannot be read" in result.stderr)


def test_send_sends_what_is_dicom_in_a_folder(run: CliRunner, ct_slice: Path, peer: str) -> None:
    (ct_slice.parent / "readme.txt").write_text("no DICOM", encoding="utf-8")
    result = run.invoke(app, ["send", str(ct_slice.parent), "--to", peer])
    assert (0, f"1 of 1 files sent to {peer}\n") == (result.exit_code, result.stdout)


def test_send_names_each_file_that_did_not_arrive(run: CliRunner, ct_slice: Path, peer: str) -> None:
    broken = ct_slice.with_name("broken.dcm")
    broken.write_bytes(b"x" * 200)
    result = run.invoke(app, ["send", str(broken), str(ct_slice), "--to", peer])
    assert (1, True, True) == (result.exit_code, "1 of 2 files" in result.stdout, str(broken) in result.stderr)


def test_send_of_an_empty_folder_fails(run: CliRunner, tmp_path: Path, peer: str) -> None:
    assert 1 == run.invoke(app, ["send", str(tmp_path), "--to", peer]).exit_code


def test_process_of_a_folder_without_dicom_fails_and_prints_one_object(run: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "readme.txt").write_text("no DICOM", encoding="utf-8")
    result = run.invoke(app, ["process", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--json"])
    outcome = json.loads(result.stdout)
    assert (1, [], ["readme.txt"]) == (
        result.exit_code,
        outcome["studies"],
        [Path(each["path"]).name for each in outcome["ignored"]],
    )


def test_serve_says_ready_on_standard_output_alone_and_stops_on_sigterm(
    tmp_path: Path, free_port: int, wait_until: WaitUntil
) -> None:
    with serving(tmp_path, free_port) as service:
        wait_until(lambda: (tmp_path / "out").read_text() or service.poll() is not None, deadline_s=60)
        assert (tmp_path / "out").read_text() == "ready\n"
        service.terminate()
        assert service.wait(30) == 0
    events = [json.loads(line) for line in (tmp_path / "log").read_text(encoding="utf-8").splitlines()]
    assert {"ready", "stopping"} <= {event["event"] for event in events}


def test_serve_where_the_port_is_taken_ends_with_status_2_and_a_remedy(run: CliRunner) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        result = run.invoke(app, ["serve", "--set", f"listener.port={other.getsockname()[1]}"])
    assert (2, True) == (result.exit_code, "`ctriage check` says what to change" in result.stderr)


def test_a_peer_is_named_as_title_at_host_and_port() -> None:
    assert Peer(ae_title="PACS", host="::1", port=104) == peer_named("PACS@[::1]:104")


@pytest.mark.parametrize("text", ["PACS", "PACS@host", "@host:104", "PACS@host:0", "PACS@host:70000", "PACS@:104"])
def test_a_peer_named_in_another_way_is_a_usage_error(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="AET@HOST:PORT"):
        peer_named(text)


def test_files_named_by_hand_are_sent_whatever_they_say_they_are(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("x", encoding="utf-8")
    assert ([file], []) == (list(dicom_files([file])), list(dicom_files([tmp_path])))
