"""The ``ctriage`` command: what people and scripts call; heavy imports happen inside commands, so help is quick."""

import json
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pacs_bridge.settings import Settings

app = typer.Typer(
    name="ctriage",
    help="CT triage and 3D reconstruction over DICOM. Not a medical device; for research and triage support.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # its tracebacks print local variables, and those hold headers
)
conflicts = typer.Typer(help="Studies an administrator must decide about.", no_args_is_help=True)
app.add_typer(conflicts, name="conflicts")


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


def main() -> None:
    """Run the command line."""
    app()


@app.command()
def process(
    paths: Paths,
    out: Out,
    as_json: AsJson = False,  # noqa: FBT002 -- a flag of the command line
    config: Config = None,
    overrides: Set = None,
) -> None:
    """Read DICOM folders or files and write the results, without a network."""
    from pacs_bridge import logs
    from pacs_bridge.offline import process_paths
    from pacs_bridge.terminal import print_json, progress_bar

    logs.configure(level="WARNING")
    settings = _settings(config, overrides)
    with progress_bar() as progress:
        outcome = process_paths(paths, out, settings, progress)
    if as_json:
        print_json(outcome)
    else:
        _print_outcome(outcome, out)
    raise typer.Exit(_status_of(outcome))


@app.command()
def serve(config: Config = None, overrides: Set = None) -> None:
    """Receive studies, process them and send the results; prints "ready" when it listens, stops on SIGTERM."""
    from pacs_bridge import logs
    from pacs_bridge.app import serve as serve_until

    logs.configure()
    settings = _settings(config, overrides)
    with _stopped_by_signals() as stop:
        serve_until(settings, on_ready=lambda: typer.echo("ready"), stop=stop)


@app.command()
def check(
    config: Config = None,
    overrides: Set = None,
    as_json: AsJson = False,  # noqa: FBT002 -- a flag of the command line
) -> None:
    """Look at settings, disk, peers and libraries: what would fail, and the remedy."""
    from pacs_bridge import check as look
    from pacs_bridge.terminal import print_json, print_table

    checks = look.run_checks(_settings(config, overrides))
    if as_json:
        print_json(look.as_json(checks))
    else:
        rows = [(each.name, each.level, each.detail, each.remedy) for each in checks]
        print_table("ctriage check", ("what", "level", "found", "remedy"), rows)
    raise typer.Exit(ExitStatus.FAILED if look.would_fail(checks) else ExitStatus.OK)


@app.command()
def status(
    key: Annotated[str | None, typer.Argument(metavar="KEY", help="Only the study of this study key.")] = None,
    config: Config = None,
    overrides: Set = None,
    as_json: AsJson = False,  # noqa: FBT002 -- a flag of the command line
) -> None:
    """Show studies, jobs, deliveries and conflicts, whether the service runs or not."""
    from pacs_bridge.status import read_status, tables
    from pacs_bridge.terminal import print_json, print_table

    settings = _settings(config, overrides)
    with _told_apart():
        found = read_status(settings.database, key)
    if as_json:
        print_json(found)
        return
    for title, columns, rows in tables(found):
        print_table(title, columns, rows)


@conflicts.command("list")
def list_conflicts(
    config: Config = None,
    overrides: Set = None,
    as_json: AsJson = False,  # noqa: FBT002 -- a flag of the command line
) -> None:
    """Show the conflicts nobody has accepted: two contents of one instance, two patients in one study."""
    from pacs_bridge.status import read_status, tables
    from pacs_bridge.terminal import print_json, print_table

    settings = _settings(config, overrides)
    with _told_apart():
        found = {"conflicts": read_status(settings.database)["conflicts"]}
    if as_json:
        print_json(found)
        return
    for title, columns, rows in tables(found):
        print_table(title, columns, rows)


@conflicts.command("accept")
def accept_conflict(
    conflict: Annotated[int, typer.Argument(metavar="ID", help="The number that `ctriage conflicts list` shows.")],
    config: Config = None,
    overrides: Set = None,
) -> None:
    """Accept a conflict as it stands: what was kept stays current, and the study's results are delivered."""
    from pacs_bridge.conflicts import accept

    settings = _settings(config, overrides)
    with _told_apart():
        accept(settings.database, conflict, now=datetime.now(UTC))
    typer.echo(f"Conflict {conflict} is accepted.")


# ---- what several commands need -------------------------------------------------------------------------------------


def _settings(config: Path | None, overrides: Sequence[str] | None) -> "Settings":
    from pacs_bridge.settings import SettingsError, load_settings
    from pacs_bridge.terminal import complain

    try:
        return load_settings(config, _parsed(overrides or ()))
    except SettingsError as wrong:
        complain(str(wrong))
        raise typer.Exit(ExitStatus.USAGE) from wrong


@contextmanager
def _told_apart() -> Iterator[None]:
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


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM or SIGINT sets."""
    stop = threading.Event()
    before = {each: signal.signal(each, lambda *_: stop.set()) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _status_of(outcome: Mapping[str, Any]) -> ExitStatus:
    from pipeline.model import StudyStatus

    known = set(StudyStatus)
    studies = outcome["studies"]
    return ExitStatus.OK if studies and all(study["status"] in known for study in studies) else ExitStatus.FAILED


def _print_outcome(outcome: Mapping[str, Any], out: Path) -> None:
    from pacs_bridge.terminal import complain, print_table

    for number, study in enumerate(outcome["studies"], start=1):
        title = f"Study {number}: {study['status']}, priority {study['priority'] or 'unknown'}"
        rows = [(each["kind"], each["subtype"], f"{each['probability']:.0%}", _ml(each)) for each in study["findings"]]
        print_table(title, ("finding", "subtype", "certainty", "ml"), rows)
        reasons = [(each["role"], each["instances"], each["reason"]) for each in study["series"] if each["reason"]]
        if reasons:
            print_table("NOT ANALYSED", ("role", "images", "reason"), reasons)
    for kind in ("ignored", "unreadable"):
        for each in outcome[kind]:
            complain(f"{kind}: {each['path']}: {each['reason']}")
    typer.echo(f"Results: {out}" if outcome["studies"] else "No DICOM study was found.")


def _ml(finding: Mapping[str, Any]) -> str | None:
    return None if finding["volume_ml"] is None else f"{finding['volume_ml']:.1f}"
