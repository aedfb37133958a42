"""Does the administrator's page name what the code logs and answers, and do its commands work?"""

import ast
import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pacs_bridge.archive import Archive
from pacs_bridge.cli import app
from pacs_bridge.instance import InstanceFacts
from pacs_bridge.ledger import Ledger
from pacs_bridge.settings import Tls
from pacs_bridge.settings_file import setting_keys
from pacs_bridge.store_status import StoreStatus
from pacs_bridge.tls import tls_problems
from scheduler.database import Database
from scheduler.sqlite_queue import SqliteQueue

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "administration.md").read_text(encoding="utf-8")
LOUD = ("warning", "error", "exception", "critical")


def loud_events() -> Iterator[str]:
    """Yield the events that are logged as a warning or worse, wherever they are."""
    for package in ("pacs_bridge", "scheduler", "pipeline", "reconstruction"):
        for file in (ROOT / package).rglob("*.py"):
            yield from _events_in(ast.parse(file.read_text(encoding="utf-8")))


def _events_in(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and _is_loud(node.func) and isinstance(node.args[0], ast.Constant):
            yield str(node.args[0].value)


def _is_loud(function: ast.expr) -> bool:
    """Say whether a call of this writes to a log, be it a module's (`_log`) or an object's (`self._log`)."""
    if not (isinstance(function, ast.Attribute) and function.attr in LOUD):
        return False
    logger = function.value
    name = logger.id if isinstance(logger, ast.Name) else logger.attr if isinstance(logger, ast.Attribute) else ""
    return name.endswith("log")


@pytest.mark.parametrize("event", sorted(set(loud_events())))
def test_every_warning_and_error_stands_on_the_page_with_its_remedy(event: str) -> None:
    assert re.search(rf"^\|[^|]*`{re.escape(event)}`[^|]*\|[^|]+\|[^|]+\|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("status", [status for status in StoreStatus if status])
def test_every_refusal_of_a_store_stands_on_the_page(status: StoreStatus) -> None:
    assert f"| 0x{status.value:04X} |" in PAGE


def test_the_page_names_no_setting_that_is_not_there() -> None:
    tables = {key.split(".")[0] for key in setting_keys() if "." in key}
    named = {each for each in re.findall(r"`([a-z]+\.[a-z_]+)(?: =[^`]*)?`", PAGE) if each.split(".")[0] in tables}
    told_by_status = {"disk.refuses_images"}
    assert set() == named - set(setting_keys()) - told_by_status


def test_every_file_the_page_links_to_is_there() -> None:
    assert [] == [each for each in re.findall(r"\]\(([\w./]+)\)", PAGE) if not (ROOT / "docs" / each).exists()]


def blocks(after: str) -> list[str]:
    """Return the shell blocks of a section."""
    section = PAGE.split(f"## {after}\n")[1].split("\n## ")[0]
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)


def run(script: str, folder: Path, **names: str) -> None:
    environment = {**os.environ, **names}
    done = subprocess.run(
        ["sh", "-eu"], input=script, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert 0 == done.returncode, done.stderr


def test_certificates_made_as_the_page_says_can_be_used(tmp_path: Path) -> None:
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    run(blocks("TLS")[0], tmp_path)
    files = {"certificate": "ctriage.pem", "private_key": "ctriage.key", "authorities": "authority.pem"}
    tls = Tls.model_validate({name: tmp_path / file for name, file in files.items()})
    assert [] == tls_problems(tls, datetime.now(UTC))


def test_what_is_backed_up_and_restored_as_the_page_says_is_whole(tmp_path: Path) -> None:
    state, backup, restored = (tmp_path / name for name in ("state", "backup", "restored"))
    for folder in (state, backup, restored, state / "objects", state / "audit"):
        folder.mkdir()
    database = Database(state / "ctriage.sqlite")
    archive = Archive(state, database, free_space_floor_bytes=0)
    Ledger(database)
    SqliteQueue(database)
    for n in range(3):
        facts = InstanceFacts(
            study_instance_uid="1.2",
            series_instance_uid="1.2.1",
            sop_instance_uid=f"1.2.1.{n}",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        )
        stored = archive.store(facts, f"image {n}".encode() * 9, "1.2.840.10008.1.2.1", "CT01")
        archive.add(facts, stored, "CT01", datetime.now(UTC))
    script = blocks("Backup and restore")[0]
    if not shutil.which("sqlite3"):
        other = re.search(r"`(python3 -c .*?)`\.", PAGE)
        assert other is not None
        script = re.sub(r"^sqlite3 .*$", lambda _: other[1], script, flags=re.MULTILINE)
    run(script, tmp_path, STATE=str(state), BACKUP=str(backup))
    run(script, tmp_path, STATE=str(state), BACKUP=str(backup))
    database.close()
    again = re.search(r"`(cp -rp \"\$BACKUP/\.\" \"\$STATE/\")`", PAGE)
    assert again is not None
    run(again[1], tmp_path, STATE=str(restored), BACKUP=str(backup))
    verified = CliRunner().invoke(app, ["verify", "--set", f"state_dir={restored}"])
    assert (0, True) == (verified.exit_code, "3 file(s)" in verified.stdout), verified.stdout
    with sqlite3.connect(restored / "ctriage.sqlite") as connection:
        assert [("1.2",)] == connection.execute("select study_instance_uid from studies").fetchall()
    assert (state / "secret").read_bytes() == (restored / "secret").read_bytes()
