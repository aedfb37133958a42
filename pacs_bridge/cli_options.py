"""What do the commands share: their options, their exit statuses, and how mistakes become messages?"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pacs_bridge.settings import Settings


class ExitStatus(IntEnum):
    """What the shell learns."""

    OK = 0
    FAILED = 1
    USAGE = 2


Paths = Annotated[list[Path], typer.Argument(metavar="PATH...", help="DICOM files or folders.", exists=True)]
Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Settings file (TOML); else ./ctriage.toml if present.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="One setting, such as listener.port=11200; may be repeated."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for what is made.", file_okay=False)]


def settings_from(config: Path | None, overrides: Sequence[str] | None) -> "Settings":
    """Read the settings, or say what is wrong with them and leave."""
    from pacs_bridge.settings import SettingsError
    from pacs_bridge.settings_file import load_settings
    from pacs_bridge.terminal import complain

    try:
        return load_settings(config, _parsed(overrides or ()))
    except SettingsError as wrong:
        complain(str(wrong))
        raise typer.Exit(ExitStatus.USAGE) from wrong


@contextmanager
def told_apart() -> Iterator[None]:
    """Turn what this package raises on purpose into a message and an exit status."""
    from pacs_bridge.errors import BridgeError
    from pacs_bridge.status import NoState
    from pacs_bridge.terminal import complain

    try:
        yield
    except BridgeError as told:
        complain(str(told))
        raise typer.Exit(ExitStatus.USAGE if isinstance(told, NoState) else ExitStatus.FAILED) from told


def _parsed(overrides: Sequence[str]) -> dict[str, Any]:
    """Turn ``listener.port=11200`` into nested tables; values are JSON where they parse as JSON, else text."""
    tables: dict[str, Any] = {}
    for each in overrides:
        key, equals, text = each.partition("=")
        if not equals:
            raise typer.BadParameter(f"--set {each}: write it as KEY=VALUE, such as listener.port=11200")
        *path, last = key.strip().split(".")
        table = tables
        for part in path:
            table = table.setdefault(part, {})
        table[last] = _json_or_text(text)
    return tables


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
