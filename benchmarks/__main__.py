"""``python -m benchmarks NAME [--json] [--size toy|full] [--out DIR]``: measure, and print side by side."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal, cast

from benchmarks import geometry, receive, reconstruct, study
from benchmarks.figures import Result, as_json, as_text

Size = Literal["toy", "full"]
BENCHMARKS: dict[str, Callable[[Size, Path | None], Result]] = {
    "geometry": lambda size, _out: geometry.run(size),
    "receive": lambda size, _out: receive.run(size),
    "reconstruct": reconstruct.run,
    "study": lambda size, _out: study.run(size),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one benchmark; its figures go to standard output, its progress to standard error."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=sorted(BENCHMARKS))
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--size", choices=("toy", "full"), default="full")
    parser.add_argument("--out", type=Path, help="leave pictures and plots in this folder")
    chosen = parser.parse_args(arguments)
    result = BENCHMARKS[chosen.name](cast(Size, chosen.size), chosen.out)
    sys.stdout.write((json.dumps(as_json(result), indent=2) if chosen.json else as_text(result)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
