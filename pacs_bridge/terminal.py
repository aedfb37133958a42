"""How is work shown to a person at a terminal: progress on standard error, tables on standard output."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

WIDTH_OF_A_PIPE = 140
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "stat": "bold red", "urgent": "red"}


class ShowProgress(Protocol):
    """Called from the one thread that works, whenever there is something new to show."""

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` steps of ``what`` are behind us."""
        ...


@contextmanager
def progress_bar() -> Iterator[ShowProgress]:
    """Show one bar on standard error per ``what``; on no terminal it stays silent."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bars:
        tasks = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield show


def print_json(value: Mapping[str, Any]) -> None:
    """Print exactly one JSON object on standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")
    sys.stdout.flush()


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; a cell that is a known level or priority takes its colour, None is a dash."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    Console(width=None if sys.stdout.isatty() else WIDTH_OF_A_PIPE).print(table)


def _cell(value: object) -> Text:
    text = "-" if value is None else str(value)
    return Text(text, style=_COLOURS.get(text, ""))


def complain(message: str) -> None:
    """Say on standard error why the command cannot go on."""
    sys.stderr.write(message + "\n")
