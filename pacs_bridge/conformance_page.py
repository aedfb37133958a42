"""How is a structured document (sections, paragraphs, tables) written as Markdown or as an HTML page?"""

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;margin:1em 0}th,td{border:1px solid #999;padding:.25em .6em;text-align:left;"
    "vertical-align:top}th{background:#eee}code{font-size:.92em}pre{background:#f4f4f4;padding:.6em}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table with its title; every row is as long as ``columns``."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """Lines that keep their places: a diagram."""

    lines: Sequence[str]


Block = str | Grid | Drawing


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading, what stands below it, and its parts; numbers are given when it is written."""

    title: str
    blocks: Sequence[Block] = ()
    parts: Sequence["Section"] = ()


def as_markdown(document: Section) -> str:
    """Write a document as Markdown; in texts, what stands between backquotes is code."""
    return "\n".join([f"# {document.title}", "", *_md_blocks(document.blocks), *_md_parts(document, "", 2)])


def as_html(document: Section) -> str:
    """Write a document as one HTML page that needs nothing else."""
    title = html.escape(document.title)
    body = "".join([*map(_html_block, document.blocks), *_html_parts(document, "", 2)])
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body><h1>{title}</h1>\n{body}</body></html>\n'


def _numbered(document: Section, prefix: str) -> Iterator[tuple[str, Section]]:
    for at, part in enumerate(document.parts, start=1):
        yield f"{prefix}{at}", part


def _md_parts(document: Section, prefix: str, level: int) -> Iterator[str]:
    for number, part in _numbered(document, prefix):
        yield f"{'#' * min(level, 6)} {number} {part.title}"
        yield ""
        yield from _md_blocks(part.blocks)
        yield from _md_parts(part, f"{number}.", level + 1)


def _md_blocks(blocks: Sequence[Block]) -> Iterator[str]:
    for block in blocks:
        yield from _md_block(block)
        yield ""


def _md_block(block: Block) -> Iterator[str]:
    match block:
        case Grid(title=title, columns=columns, rows=rows):
            yield from (f"**{title}**", "")
            yield _md_row(columns)
            yield _md_row(["---"] * len(columns))
            yield from map(_md_row, rows)
        case Drawing(lines=lines):
            yield from ("```", *lines, "```")
        case _:
            yield str(block)


def _md_row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _html_parts(document: Section, prefix: str, level: int) -> Iterator[str]:
    for number, part in _numbered(document, prefix):
        tag = f"h{min(level, 6)}"
        yield f'<{tag} id="s{number}">{number} {html.escape(part.title)}</{tag}>\n'
        yield from map(_html_block, part.blocks)
        yield from _html_parts(part, f"{number}.", level + 1)


def _html_block(block: Block) -> str:
    match block:
        case Grid(title=title, columns=columns, rows=rows):
            head = "".join(f"<th>{_html_text(column)}</th>" for column in columns)
            body = "\n".join(f"<tr>{''.join(f'<td>{_html_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
            return f"<p><b>{_html_text(title)}</b></p>\n<table><tr>{head}</tr>\n{body}\n</table>\n"
        case Drawing(lines=lines):
            return f"<pre>{html.escape(chr(10).join(lines))}</pre>\n"
        case _:
            return f"<p>{_html_text(block)}</p>\n"


def _html_text(cell: object) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(str(cell)))
