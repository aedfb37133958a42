"""``ctriage status``, ``retry`` and ``conflicts``: where things stand, and an administrator's decisions."""

import shutil
from datetime import UTC, datetime
from enum import StrEnum
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
    from pacs_bridge.check import room
    from pacs_bridge.status import read_status, tables
    from pacs_bridge.terminal import complain, print_json, print_table

    settings = settings_from(config, overrides)
    with told_apart():
        found = read_status(settings.database, key)
    disk = room(shutil.disk_usage(settings.state_dir).free, settings.disk)
    if as_json:
        print_json({**found, "disk": {"refuses_images": disk.level == "fail", "detail": disk.detail}})
        return
    if disk.level == "fail":
        complain(f"disk: {disk.detail}; {disk.remedy}")
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
    identifiers: Annotated[bool, typer.Option("--identifiers", help="Name the patients, too.")] = False,  # noqa: FBT002
    config: Config = None,
    overrides: Set = None,
    as_json: AsJson = False,  # noqa: FBT002 -- a flag of the command line
) -> None:
    """Show what nobody has decided: two contents of one instance, two patients in one study; who sent what, and when.

    ``differs`` names attributes, not their values. With --json patients are named, too.
    """
    from pacs_bridge import conflicts as look
    from pacs_bridge.terminal import print_json, print_table

    settings = settings_from(config, overrides)
    with told_apart():
        found = look.open_conflicts(settings.database, settings.state_dir)
    if as_json:
        print_json(look.as_json(found))
    elif not found:
        typer.echo("No conflict is open.")
    else:
        print_table("conflicts", look.columns(identifiers=identifiers), look.as_rows(found, identifiers=identifiers))


class Keep(StrEnum):
    """Which of two contents is the current one."""

    KEPT = "kept"
    OTHER = "other"


@conflicts.command("accept")
def accept_conflict(
    conflict: Annotated[int, typer.Argument(metavar="ID", help="The number that `ctriage conflicts list` shows.")],
    keep: Annotated[Keep, typer.Option("--keep", help="The content that was kept, or the other one.")] = Keep.KEPT,
    config: Config = None,
    overrides: Set = None,
) -> None:
    """Accept a conflict as it stands, or with --keep other take the other content: then the study is analysed again.

    What waited because of two patients is delivered.
    """
    from pacs_bridge.beside_service import operator, trail_of
    from pacs_bridge.conflicts import accept

    settings = settings_from(config, overrides)
    with told_apart(), trail_of(settings.state_dir, settings.listener.ae_title) as auditor:
        done = accept(settings, conflict, keep=keep.value, now=datetime.now(UTC), auditor=auditor, person=operator())
    again = "; its study is analysed again" if keep is Keep.OTHER else ""
    typer.echo(f"Conflict {conflict} of study {done.study_key} is accepted{again}.")
    if done.let_go:
        typer.echo(f"{done.let_go} delivery(ies) that waited for it go on.")
    if done.still_open:
        typer.echo(f"{done.still_open} conflict(s) of this study are still open: see `ctriage conflicts list`.")
