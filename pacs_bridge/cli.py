"""The ``ctriage`` command: what people and scripts call; heavy imports happen inside commands, so help is quick."""

import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pacs_bridge import cli_administration, cli_audit, cli_forward, cli_peers, cli_phantom, cli_reconstruct, cli_state
from pacs_bridge.cli_options import AsJson, Config, ExitStatus, Out, Paths, Set, settings_from, told_apart

if TYPE_CHECKING:
    from pacs_bridge.settings import Settings

app = typer.Typer(
    name="ctriage",
    help="CT triage and 3D reconstruction over DICOM. Not a medical device; for research and triage support.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # its tracebacks print local variables, and those hold headers
)


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
    settings = settings_from(config, overrides)
    with _settings_to_blame(), progress_bar() as progress:
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
    settings = settings_from(config, overrides)
    with _stopped_by_signals() as stop, told_apart(), _settings_to_blame(), _port_to_be_had(settings) as ready:
        serve_until(settings, on_ready=ready, stop=stop)


@contextmanager
def _settings_to_blame() -> Iterator[None]:
    """Turn what only other settings can mend, and shows once they are used, into a message and its exit status."""
    from pacs_bridge.errors import AlreadyServing
    from pacs_bridge.settings import SettingsError
    from pacs_bridge.terminal import complain

    try:
        yield
    except (AlreadyServing, SettingsError) as wrong:
        complain(str(wrong))
        raise typer.Exit(ExitStatus.USAGE) from wrong


@contextmanager
def _port_to_be_had(settings: "Settings") -> Iterator[Callable[[], None]]:
    """Yield what to call when the listener stands; an OSError before that is about its address, or the state_dir."""
    from pacs_bridge.notify import tell_supervisor
    from pacs_bridge.terminal import complain
    from scheduler.database import is_passing, lacks_room

    is_ready = threading.Event()

    def ready() -> None:
        is_ready.set()
        typer.echo("ready")
        tell_supervisor("READY=1")

    try:
        yield ready
    except (OSError, sqlite3.OperationalError) as refused:
        if is_ready.is_set() or not (isinstance(refused, OSError) or is_passing(refused)):
            raise
        if not isinstance(refused, OSError) or lacks_room(refused):
            room = "nothing that was kept is lost: make room on its disk if it is full, and start again"
            complain(f"cannot serve from {settings.state_dir}: {refused}; {room}; `ctriage check` says more")
            raise typer.Exit(ExitStatus.FAILED) from refused
        where = f"{settings.listener.host}:{settings.listener.port} and {settings.state_dir}"
        complain(f"cannot serve with {where}: {refused.strerror or refused}; `ctriage check` says what to change")
        raise typer.Exit(ExitStatus.USAGE) from refused


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
    from pacs_bridge.terminal import complain

    for number, study in enumerate(outcome["studies"], start=1):
        typer.echo(f"Study {number}: {study['status']}, priority {study['priority'] or 'unknown'}")
        _print_findings(study)
    for kind in ("ignored", "unreadable"):
        for each in outcome[kind]:
            complain(f"{kind}: {each['path']}: {each['reason']}")
    typer.echo(f"Results: {out}" if outcome["studies"] else "No DICOM study was found.")


def _print_findings(study: Mapping[str, Any]) -> None:
    from pacs_bridge.terminal import print_table

    findings = [(each["kind"], each["subtype"], f"{each['probability']:.0%}", _ml(each)) for each in study["findings"]]
    ran = sorted({run["name"] for each in study["series"] for run in each["detectors"] if run["status"] == "ran"})
    if findings:
        print_table("Findings", ("finding", "subtype", "certainty", "ml"), findings)
    elif ran:
        typer.echo(f"Nothing detected by {', '.join(ran)}.")
    reasons = [row for each in study["series"] for row in _not_analysed(each)]
    if reasons:
        print_table("NOT ANALYSED", ("role", "images", "reason"), reasons)


def _not_analysed(series: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    """Yield why a stack was not analysed or, where somebody looked, which detector did not decide and why."""
    if series["status"] == "not_analysed":
        yield series["role"], series["instances"], series["reason"]
        return
    for run in series["detectors"]:
        if run["status"] != "ran":
            yield series["role"], series["instances"], f"{run['name']}: {run['reason']}"


def _ml(finding: Mapping[str, Any]) -> str | None:
    return None if finding["volume_ml"] is None else f"{finding['volume_ml']:.1f}"


for command in (cli_peers.send, cli_state.status, cli_state.retry, cli_phantom.phantom, cli_peers.check):
    app.command()(command)
app.command()(cli_administration.conformance)
app.command()(cli_administration.verify)
app.add_typer(cli_administration.retention, name="retention")
app.add_typer(cli_state.conflicts, name="conflicts")
app.add_typer(cli_audit.audit, name="audit")
app.add_typer(cli_forward.forward, name="forward")
app.add_typer(cli_reconstruct.reconstruct, name="reconstruct")

if __name__ == "__main__":
    main()
