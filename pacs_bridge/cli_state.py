"""``ctriage status``, ``retry`` and ``conflicts``: where things stand, and an administrator's decisions."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from pacs_bridge.cli_options import AsJson, Config, Set, settings_from, told_apart

conflicts = typer.Typer(help="Studies an administrator must decide about.", no_args_is_help=True)


def status(
    key: Annotated[str | None, typer.Argument(metavar="KEY", help="Only the study of this study key.")] = None,
    config: Config = None,
    overrides: Set = None,
    as_json: AsJson = False,  # noqa: FBT002 -- a flag of the command line
) -> None:
    """Show studies, jobs, deliveries and conflicts, whether the service runs or not."""
    from pacs_bridge.status import read_status, tables
    from pacs_bridge.terminal import print_json, print_table

    settings = settings_from(config, overrides)
    with told_apart():
        found = read_status(settings.database, key)
    if as_json:
        print_json(found)
        return
    for title, columns, rows in tables(found):
        if rows or title == "studies":
            print_table(title, columns, rows)


def retry(
    key: Annotated[str | None, typer.Argument(metavar="KEY", help="Only the study of this study key.")] = None,
    config: Config = None,
    overrides: Set = None,
    as_json: AsJson = False,  # noqa: FBT002 -- a flag of the command line
) -> None:
    """Try again what was given up (the jobs that `ctriage status` shows as buried), of one study or of all."""
    from pacs_bridge.conflicts import retry as bring_back
    from pacs_bridge.terminal import print_json

    settings = settings_from(config, overrides)
    with told_apart():
        jobs = bring_back(settings.database, key, now=datetime.now(UTC))
    if as_json:
        print_json({"jobs": list(jobs)})
    else:
        typer.echo(f"{len(jobs)} job(s) will be tried again.")


@conflicts.command("list")
def list_conflicts(
    config: Config = None,
    overrides: Set = None,
    as_json: AsJson = False,  # noqa: FBT002 -- a flag of the command line
) -> None:
    """Show the conflicts nobody has accepted: two contents of one instance, two patients in one study."""
    from pacs_bridge.status import read_status, tables
    from pacs_bridge.terminal import print_json, print_table

    settings = settings_from(config, overrides)
    with told_apart():
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

    settings = settings_from(config, overrides)
    with told_apart():
        accept(settings.database, conflict, now=datetime.now(UTC))
    typer.echo(f"Conflict {conflict} is accepted.")
