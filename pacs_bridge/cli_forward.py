"""``ctriage forward``: does a destination hold what was passed on to it, and what it refused tried again."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pacs_bridge.cli_options import AsJson, Config, ExitStatus, Set, settings_from, told_apart

if TYPE_CHECKING:
    from pacs_bridge.destinations import Destination
    from pacs_bridge.forward_reconcile import Compared, Held
    from pacs_bridge.settings import Settings

forward = typer.Typer(help="Images that are passed on to other systems.", no_args_is_help=True)

To = Annotated[str, typer.Argument(metavar="DESTINATION", help="The name of a destination of the settings.")]
Study = Annotated[str | None, typer.Option("--study", metavar="KEY", help="Only the study of this study key.")]
Uids = Annotated[
    Path | None,
    typer.Option(
        "--uids",
        metavar="FILE",
        help="A list of the SOP Instance UIDs that it holds; without one it is asked (C-FIND).",
        exists=True,
        dir_okay=False,
    ),
]
Resend = Annotated[bool, typer.Option("--resend", help="Send again what it does not hold.")]


@forward.command("reconcile")
def reconcile(  # noqa: PLR0913 -- options of the command line
    to: To,
    study: Study = None,
    uids: Uids = None,
    resend: Resend = False,  # noqa: FBT002 -- a flag of the command line
    config: Config = None,
    overrides: Set = None,
    as_json: AsJson = False,  # noqa: FBT002 -- a flag of the command line
) -> None:
    """Compare what was passed on to a destination with what it holds; with --resend send again what is missing."""
    from pacs_bridge.forward_reconcile import compare, send_again

    settings = settings_from(config, overrides)
    destination = _destination(settings, to)
    with told_apart(), _asked():
        compared = compare(settings.database, to, _held(destination, uids), key=study)
        missing = [each for each in compared if each.missing]
        again = send_again(settings.database, to, missing, at=datetime.now(UTC)) if resend else 0
    _print(compared, again, to, as_json=as_json)
    raise typer.Exit(ExitStatus.FAILED if missing and not resend else ExitStatus.OK)


@forward.command("retry")
def retry(to: To, study: Study = None, config: Config = None, overrides: Set = None) -> None:
    """Pass on again what a destination refused, once the reason that `ctriage status` shows is mended."""
    from pacs_bridge.forward_reconcile import retry as bring_back

    settings = settings_from(config, overrides)
    _destination(settings, to)
    with told_apart():
        images = bring_back(settings.database, to, key=study, at=datetime.now(UTC))
    typer.echo(f"{images} image(s) will be sent to {to} again.")


@forward.command("drop")
def drop(
    to: Annotated[str, typer.Argument(metavar="NAME", help="A destination that the settings do not name any more.")],
    config: Config = None,
    overrides: Set = None,
) -> None:
    """Give up what waits for a destination that was taken out of the settings, images and results.

    Until then it waits for the name to come back, and keeps its studies from being removed.
    """
    from pacs_bridge.destinations import RESULTS
    from pacs_bridge.forward_dropped import drop as give_up

    settings = settings_from(config, overrides)
    if to in (RESULTS, *(each.name for each in settings.destination)):
        raise typer.BadParameter(f"the settings name {to}: take it out of them and restart the service first")
    with told_apart():
        dropped = give_up(settings.database, to)
    typer.echo(f"{dropped.images} image(s) and {dropped.jobs} job(s) that waited for {to} are given up.")


def _destination(settings: "Settings", name: str) -> "Destination":
    from pacs_bridge.destinations import destinations_of
    from pacs_bridge.settings import SettingsError
    from pacs_bridge.terminal import complain

    try:
        found = destinations_of(settings).get(name)
    except SettingsError as wrong:
        complain(str(wrong))
        raise typer.Exit(ExitStatus.USAGE) from wrong
    if found is None or found.peer is None:
        known = ", ".join(each.name for each in settings.destination) or "none"
        raise typer.BadParameter(f"no [[destination]] is named {name}; the settings name {known}")
    return found


def _held(destination: "Destination", uids: Path | None) -> "Held":
    from pacs_bridge.forward_reconcile import held_by_peer, held_in_list

    return held_by_peer(destination) if uids is None else held_in_list(uids.read_text(errors="replace"))


@contextmanager
def _asked() -> Iterator[None]:
    """Turn what a peer does not answer into a message."""
    from pacs_bridge.terminal import complain
    from scheduler.errors import Permanent, Transient

    try:
        yield
    except (Transient, Permanent) as problem:
        complain(f"{problem.reason}; otherwise give a list of what it holds with --uids")
        raise typer.Exit(ExitStatus.FAILED) from problem


def _print(compared: "Sequence[Compared]", again: int, to: str, *, as_json: bool) -> None:
    from pacs_bridge.terminal import print_json, print_table

    if as_json:
        studies = [
            {
                "study_key": each.study_key,
                "study_instance_uid": each.study_instance_uid,
                "sent": each.sent,
                "missing": list(each.missing),
            }
            for each in compared
        ]
        print_json({"destination": to, "studies": studies, "resent": again})
        return
    rows = [(each.study_key, each.sent, len(each.missing)) for each in compared if each.missing]
    if rows:
        print_table(f"not held by {to}", ("study_key", "sent", "missing"), rows)
    sent, missing = sum(each.sent for each in compared), sum(len(each.missing) for each in compared)
    typer.echo(f"{to} holds {sent - missing} of {sent} image(s) that it was sent.")
    if again:
        typer.echo(f"{again} image(s) will be sent again.")
    elif missing:
        typer.echo("--resend sends again what is missing.")
    elif not sent:
        typer.echo("None of what is passed on to it has been sent so far: see `ctriage status`.")
