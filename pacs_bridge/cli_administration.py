"""``ctriage conformance``, ``verify`` and ``retention``: what an administrator asks for beside the daily business."""

import os
from datetime import UTC, datetime
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pacs_bridge.cli_options import AsJson, Config, ExitStatus, Set, settings_from, told_apart

if TYPE_CHECKING:
    from pacs_bridge.removal import Outcome
    from pacs_bridge.verify import Verdict

retention = typer.Typer(help="The rules by which images are removed.", no_args_is_help=True)

Since = Annotated[
    datetime | None,
    typer.Option("--since", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M"], help="Local time; only what came later."),
]


class PageFormat(StrEnum):
    """How a document is written."""

    MARKDOWN = "md"
    HTML = "html"


def conformance(
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write it there instead.")] = None,
    page_format: Annotated[
        PageFormat, typer.Option("--format", help="Markdown or one HTML page.")
    ] = PageFormat.MARKDOWN,
    config: Config = None,
    overrides: Set = None,
) -> None:
    """Print the DICOM conformance statement (PS3.2) of these settings."""
    from pacs_bridge.conformance import statement
    from pacs_bridge.conformance_page import as_html, as_markdown
    from pacs_bridge.terminal import complain

    settings = settings_from(config, overrides)
    document = statement(settings, version=version("ctriage"), on=datetime.now(UTC).date())
    text = as_html(document) if page_format is PageFormat.HTML else as_markdown(document)
    if out is None:
        typer.echo(text)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as refused:
        complain(f"{out}: {refused.strerror}; name a file in a folder that you may write to")
        raise typer.Exit(ExitStatus.FAILED) from refused


def verify(
    since: Since = None,
    study: Annotated[str | None, typer.Option("--study", metavar="KEY", help="Only the study of this key.")] = None,
    pace_mb_per_s: Annotated[
        float, typer.Option("--pace", metavar="MB", min=0, help="Megabytes to read in a second, 0: no limit.")
    ] = 50.0,
    config: Config = None,
    overrides: Set = None,
    as_json: AsJson = False,  # noqa: FBT002 -- a flag of the command line
) -> None:
    """Hash every file of the archive anew and tell what is missing, damaged, or named by nothing; changes nothing."""
    from pacs_bridge import logs
    from pacs_bridge.terminal import print_json, progress_bar
    from pacs_bridge.throttle import Throttle
    from pacs_bridge.verify import Scope
    from pacs_bridge.verify import verify as look

    logs.configure(level="ERROR")  # what pydicom says of a damaged file names UIDs
    settings = settings_from(config, overrides)
    scope = Scope(study_key=study, since=None if since is None else since.astimezone(UTC))
    pace = Throttle(pace_mb_per_s * 1e6).take if pace_mb_per_s else (lambda _bytes: None)
    os.nice(10)
    with told_apart(), progress_bar() as progress:
        verdict = look(settings.database, settings.state_dir, scope, pace=pace, progress=progress)
    if as_json:
        print_json(verdict.as_json())
    else:
        _print_verdict(verdict)
    raise typer.Exit(ExitStatus.OK if verdict.intact else ExitStatus.FAILED)


def _print_verdict(verdict: "Verdict") -> None:
    from pacs_bridge.terminal import print_table

    rows = [(each.kind, each.study_key, each.path, each.detail) for each in verdict.problems]
    if rows:
        print_table("files", ("what", "study_key", "file", "detail"), rows)
    said = "Nothing is missing or damaged" if verdict.intact else "NOT everything is as it was kept"
    typer.echo(f"{said}: {verdict.files} file(s), {verdict.size_bytes / 1e6:.1f} MB read.")
    if not verdict.intact:
        typer.echo(
            "Take each missing or damaged file from a backup (its path is its name there); then verify its study again."
        )


@retention.command("run")
def run_retention(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,  # noqa: FBT002
    config: Config = None,
    overrides: Set = None,
    as_json: AsJson = False,  # noqa: FBT002 -- a flag of the command line
) -> None:
    """Remove the images that the rules of the settings let go; the service does so by itself now and then."""
    from pacs_bridge.audit import unheard
    from pacs_bridge.beside_service import opened, trail_of
    from pacs_bridge.removal import Removal
    from pacs_bridge.terminal import print_json

    settings = settings_from(config, overrides)
    now = datetime.now(UTC)
    with told_apart(), opened(settings.database) as database:
        if dry_run:
            done = Removal(database, settings.state_dir, auditor=unheard).survey(settings.retention, now=now)
        else:
            with trail_of(settings.state_dir, settings.listener.ae_title) as auditor:
                done = Removal(database, settings.state_dir, auditor=auditor).run(settings.retention, now=now)
    if as_json:
        print_json(_retention_json(done, dry_run=dry_run))
        return
    if not (settings.retention.days or settings.retention.below_free_mb):
        typer.echo("No rule lets images go: neither retention.days nor retention.below_free_mb is set.")
    _print_removal(done, "would be removed" if dry_run else "removed")


def _retention_json(done: "Outcome", *, dry_run: bool) -> dict[str, Any]:
    removed = [
        {
            "study_key": each.study.study_key,
            "study_instance_uid": each.study.study_instance_uid,
            "images": each.study.images,
            "bytes": each.study.size_bytes,
            "rule": each.rule,
        }
        for each in done.removed
    ]
    return {"dry_run": dry_run, "removed": removed, "bytes": done.size_bytes, "kept": dict(done.kept)}


def _print_removal(done: "Outcome", what: str) -> None:
    from pacs_bridge.terminal import print_table

    rows = [(e.study.study_key, e.study.images, f"{e.study.size_bytes / 1e6:.1f}", e.rule) for e in done.removed]
    if rows:
        print_table(f"images {what}", ("study_key", "images", "MB", "rule"), rows)
    for reason, studies in done.kept.items():
        typer.echo(f"{studies} study(ies) kept: {reason}")
    typer.echo(f"Images of {len(done.removed)} study(ies) {what}: {done.size_bytes / 1e6:.1f} MB.")
