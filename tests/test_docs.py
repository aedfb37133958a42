"""Docs: whatever the code offers by name is named in the docs, and what the docs name is there."""

import inspect
import re
import tomllib
from pathlib import Path
from typing import get_args

import pytest
from typer.main import get_command

from pacs_bridge.archive import SeriesState, StudyState
from pacs_bridge.cli import app
from pacs_bridge.cli_options import ExitStatus
from pacs_bridge.settings import Settings
from pacs_bridge.settings_file import setting_at, setting_keys
from pipeline.model import NOT_A_MEDICAL_DEVICE
from pipeline.ports import Detector, Output
from pipeline.registry import GROUP
from scheduler.job import TRANSITIONS, Event, Status

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
PATTERNS = (ROOT / "PATTERNS.md").read_text(encoding="utf-8")
SETTINGS = (ROOT / "docs" / "SETTINGS.md").read_text(encoding="utf-8")
PACKAGES = "pacs_bridge|pipeline|scheduler|reconstruction|benchmarks|tests"


def commands() -> set[str]:
    """Return the names of all commands, with their group before them."""
    names = set()
    for name, command in vars(get_command(app))["commands"].items():
        inner = vars(command).get("commands")
        names |= {f"{name} {each}" for each in inner} if inner else {name}
    return names


def members(protocol: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(protocol) if not name.startswith("_")}


@pytest.mark.parametrize("key", setting_keys())
def test_every_setting_stands_in_the_docs_with_what_is_allowed(key: str) -> None:
    setting = setting_at(key)
    row = next((line for line in SETTINGS.splitlines() if line.startswith(f"| `{key}` |")), "")
    assert row.endswith(f"| {setting.description} |")


def test_the_docs_name_no_setting_that_is_not_there() -> None:
    assert sorted(setting_keys()) == sorted(re.findall(r"^\| `([a-z_.]+)` \|", SETTINGS, re.MULTILINE))


def test_every_table_of_the_settings_stands_in_the_docs() -> None:
    tables = {key.split(".")[0] for key in setting_keys() if "." in key}
    assert tables == set(re.findall(r"^## `\[+([a-z_]+)\]+`$", SETTINGS, re.MULTILINE))


def test_the_settings_of_the_readme_can_be_read() -> None:
    example = re.search(r"```toml\n(.*?)```", README, re.DOTALL)
    assert example is not None
    settings = Settings.model_validate(tomllib.loads(example[1]))
    assert ("pacs", "CT01") == (settings.destination[0].name, settings.caller[0].ae_title)


def test_every_command_stands_in_the_readme_and_the_other_way_round() -> None:
    groups = "|".join({name.split()[0] for name in commands() if " " in name})
    written = set(re.findall(rf"`ctriage ((?:(?:{groups}) )?[a-z]+)", README))
    assert commands() == written


@pytest.mark.parametrize("status", ExitStatus)
def test_every_exit_status_stands_in_the_readme(status: ExitStatus) -> None:
    assert re.search(rf"Exit status:[^.]*\b{status.value}\b", README)


@pytest.mark.parametrize("name", sorted({*members(Detector), *members(Output), GROUP}))
def test_every_plug_in_hook_stands_in_the_docs(name: str) -> None:
    assert f"`{name}`" in ARCHITECTURE


@pytest.mark.parametrize("status", Status)
def test_every_job_status_stands_in_the_docs(status: Status) -> None:
    assert f"| `{status}` |" in ARCHITECTURE
    assert f"`{status}`" in README


@pytest.mark.parametrize(("before", "event"), [key for key in TRANSITIONS if TRANSITIONS[key] is not key[0]])
def test_every_transition_of_a_job_stands_in_the_row_of_its_status(before: Status, event: Event) -> None:
    (row,) = [line for line in ARCHITECTURE.splitlines() if line.startswith(f"| `{before}` |")]
    assert re.search(rf"\b{event}\b[^,]*-> `{TRANSITIONS[before, event]}`", row)


@pytest.mark.parametrize("state", sorted({*get_args(StudyState), *get_args(SeriesState)} - {"complete"}))
def test_every_state_of_a_study_stands_in_the_readme(state: str) -> None:
    assert f"`{state}`" in README


@pytest.mark.parametrize("text", [README, ARCHITECTURE, PATTERNS], ids=["readme", "architecture", "patterns"])
def test_every_file_that_the_docs_name_is_there(text: str) -> None:
    named = re.findall(rf"`((?:{PACKAGES})/[\w/]+\.\w+)", text) + re.findall(r"\]\(([\w/.]+\.md)\)", text)
    assert [] == [name for name in named if not (ROOT / name).exists()]


def test_the_readme_says_what_this_is_not() -> None:
    assert NOT_A_MEDICAL_DEVICE in README


@pytest.mark.parametrize("file", ["constraints.txt", "pyproject.toml", "Makefile"])
def test_no_registry_is_named(file: str) -> None:
    assert not re.search(r"https?://|--(extra-)?index-url", (ROOT / file).read_text(encoding="utf-8"))


def test_no_figure_is_left_to_be_filled_in() -> None:
    assert [] == re.findall(r"FIG(?:URE)?_\w+", README)
