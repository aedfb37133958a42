"""``python -m benchmarks.pictures``: make the pictures of docs/geometry.md anew, by the commands that stand there.

Each command of the page's section "Pictures" is run on the real test data, and what the image below it names (its
title is the file's place under ``--out``, with ``#3`` behind it the third frame of a moving picture) is shrunk into
docs/pictures.
"""

import argparse
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

PAGE = Path(__file__).parents[1] / "docs" / "geometry.md"
DATA = "../shared/data"
"""Where the page's commands find the data, seen from the repository's root."""
SIDE = 420
_COMMAND = re.compile(r"^(?:python -m pacs_bridge|ctriage) (reconstruct .*)$")
_PICTURE = re.compile(r'!\[[^\]]*\]\((?P<picture>pictures/[\w.-]+) "(?P<made>[^"#]+)(?:#(?P<frame>\d+))?"\)')


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One picture of the page: the command that makes it, the file and frame (from 1) it takes, its name below docs."""

    arguments: tuple[str, ...]
    made: str
    frame: int
    picture: str


def shown_in(page: str) -> Iterator[Shown]:
    """Yield each picture of the page with the command that stands above it; one command may make several."""
    arguments: tuple[str, ...] = ()
    for line in page.splitlines():
        if command := _COMMAND.match(line.strip()):
            arguments = tuple(shlex.split(command[1]))
        for image in _PICTURE.finditer(line):
            frame = int(image["frame"] or 1)
            yield Shown(arguments=arguments, made=image["made"], frame=frame, picture=image["picture"])


def make(shown: Shown, data: Path, target: Path, *, side: int = SIDE) -> None:
    """Run the command of one picture and write it, shrunk to ``side`` pixels; raises CalledProcessError."""
    with tempfile.TemporaryDirectory(prefix="ctriage-pictures-") as out:
        arguments = [each.replace(DATA, str(data)) for each in shown.arguments]
        command = [sys.executable, "-m", "pacs_bridge", *arguments, "--out", out]
        subprocess.run(command, check=True, capture_output=True)
        _shrink(Path(out) / shown.made, shown.frame, target, side)


def _shrink(source: Path, frame: int, target: Path, side: int) -> None:
    with Image.open(source) as image:
        image.seek(frame - 1)
        small = image.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    target.parent.mkdir(parents=True, exist_ok=True)
    small.quantize(256, method=Image.Quantize.MAXCOVERAGE).save(target, optimize=True)


def main(arguments: list[str] | None = None) -> int:
    """Make all pictures of the page, or those named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pictures", description=__doc__)
    parser.add_argument("names", nargs="*", help="such as pictures/coronal.png; all where none is named")
    parser.add_argument("--data", type=Path, default=PAGE.parents[1] / DATA)
    chosen = parser.parse_args(arguments)
    for shown in shown_in(PAGE.read_text(encoding="utf-8")):
        if not chosen.names or shown.picture in chosen.names:
            sys.stderr.write(f"{shown.picture}\n")
            make(shown, chosen.data, PAGE.parent / shown.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
