"""Do the unit and the container file fit the program, as far as this machine can tell?"""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.service import free_port
from pacs_bridge.check import echo
from pacs_bridge.cli import app

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "deploy" / "ctriage.service"
CONTAINER = (ROOT / "deploy" / "Containerfile").read_text(encoding="utf-8")
INSTRUCTIONS = re.findall(r"^([A-Z]+) (.*)$", re.sub(r"\\\n", " ", CONTAINER), re.MULTILINE)


def unit_value(key: str) -> str:
    *_, last = re.findall(rf"^{key}=(.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)
    return str(last)


def test_systemd_takes_the_unit_and_finds_it_hardened(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed (Debian's package systemd)")
    installed = tmp_path / "ctriage.service"
    program = shlex.split(unit_value("ExecStart"))[0]
    installed.write_text(UNIT.read_text(encoding="utf-8").replace(program, sys.executable))
    verified = subprocess.run(
        ["systemd-analyze", "verify", str(installed)], capture_output=True, text=True, check=False
    )
    assert (0, "") == (verified.returncode, verified.stderr)
    judged = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(installed)]
    assert 0 == subprocess.run(judged, capture_output=True, check=False).returncode


def test_memory_may_be_run_that_was_written_for_kernels_are_compiled() -> None:
    assert "false" == unit_value("MemoryDenyWriteExecute")


@pytest.mark.parametrize("line", [unit_value("ExecStart"), "ctriage check --here --config /nowhere.toml"])
def test_the_commands_that_are_started_are_there(line: str) -> None:
    command = shlex.split(line)[1]
    assert 0 == CliRunner().invoke(app, [command, "--help"]).exit_code


def test_the_container_runs_as_an_ordinary_user_with_a_volume_and_a_check() -> None:
    last = {name: value for name, value in INSTRUCTIONS if name not in ("COPY", "RUN")}
    assert ("ctriage", "/var/lib/ctriage", "SIGTERM") == (last["USER"], last["VOLUME"], last["STOPSIGNAL"])
    assert '"check", "--here"' in last["HEALTHCHECK"]
    assert "11112" in last["EXPOSE"]


def test_what_the_container_copies_is_there_and_nothing_of_the_program_is_left_out() -> None:
    copied = {word for name, value in INSTRUCTIONS if name == "COPY" for word in value.split()[:-1] if word[0] != "-"}
    copied.discard("/opt/ctriage")
    assert [] == [each for each in copied if not (ROOT / each).exists()]
    assert {"pacs_bridge", "pipeline", "scheduler", "reconstruction", "pyproject.toml"} <= {
        each.removeprefix("./") for each in copied
    }


@pytest.mark.parametrize("file", ["ctriage.service", "Containerfile"])
def test_no_registry_is_named(file: str) -> None:
    text = (ROOT / "deploy" / file).read_text(encoding="utf-8")
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert not re.search(r"https?://|--(extra-)?index-url", text)
    assert all("/" not in base for base in bases)


ALONE = """
mount --bind "$1" "$1" && mount -o remount,bind,ro / && shift && exec "$@"
"""
"""As ProtectSystem=strict has it: everything is read-only but one folder (and what is a file system of its own)."""


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Return a folder whose name leaves room for sockets in it."""
    with tempfile.TemporaryDirectory(prefix="ct-") as folder:
        yield Path(folder)


@pytest.mark.timeout(420)
def test_the_service_runs_without_rights_on_a_read_only_system_and_tells_that_it_is_ready(short_path: Path) -> None:
    if os.geteuid() != 0 or not shutil.which("setpriv") or not shutil.which("unshare"):
        pytest.skip("only root can give its rights away, and make the system read-only for one process")
    for name in ("state", "cache", "tmp"):
        (short_path / name).mkdir()
    port = free_port()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(short_path / "notify"))
        supervisor.settimeout(270)  # its kernels are compiled anew, for the cache of this user is not to be read
        environment = {
            **os.environ,
            "NOTIFY_SOCKET": str(short_path / "notify"),
            "NUMBA_CACHE_DIR": str(short_path / "cache"),
            "TMPDIR": str(short_path / "tmp"),
            "CTRIAGE_STATE_DIR": str(short_path / "state"),
            "CTRIAGE_LISTENER__PORT": str(port),
            "HOME": "/nonexistent",
        }
        alone = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", ALONE, "sh", str(short_path)]
        rights = ["setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
        command = [*alone, *rights, sys.executable, "-m", "pacs_bridge", "serve"]
        with (
            (short_path / "log").open("w") as log,
            subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log) as service,
        ):
            try:
                told = supervisor.recv(100)
                answered = echo("127.0.0.1", port, called="CTRIAGE", calling="HERE")
            finally:
                service.send_signal(signal.SIGTERM)
                ended = service.wait(60)
    assert (b"READY=1", None, 0) == (told, answered, ended), (short_path / "log").read_text()
