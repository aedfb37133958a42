"""``ctriage conformance``: what an administrator asks for beside the daily business."""

from datetime import UTC, datetime
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from pacs_bridge.cli_options import Config, ExitStatus, Set, settings_from


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
