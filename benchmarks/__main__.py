"""``python -m benchmarks NAME [--json] [--size toy|full] [--out DIR] [--seed N] [--inputs N]``: side by side."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from benchmarks import faults, fuzz, geometry, receive, reconstruct, study
from benchmarks.figures import Result, as_json, as_text

Size = Literal["toy", "full"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What was asked for on the command line."""

    size: Size
    out: Path | None
    seed: int
    inputs: int


BENCHMARKS: dict[str, Callable[[Chosen], Result]] = {
    "faults": lambda chosen: faults.run(chosen.size, chosen.seed),
    "fuzz": lambda chosen: fuzz.run(chosen.size, chosen.inputs, chosen.seed),
    "geometry": lambda chosen: geometry.run(chosen.size),
    "receive": lambda chosen: receive.run(chosen.size),
    "reconstruct": lambda chosen: reconstruct.run(chosen.size, chosen.out),
    "study": lambda chosen: study.run(chosen.size),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one benchmark; its figures go to standard output, its progress to standard error.

    Returns 1 where it proves something wrong, else 0.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=sorted(BENCHMARKS))
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--size", choices=("toy", "full"), default="full")
    parser.add_argument("--out", type=Path, help="leave pictures and plots in this folder")
    parser.add_argument("--seed", type=int, default=1, help="which faults and inputs come when (faults, fuzz)")
    parser.add_argument("--inputs", type=int, default=200_000, help="how many inputs (fuzz)")
    parsed = parser.parse_args(arguments)
    chosen = Chosen(size=cast(Size, parsed.size), out=parsed.out, seed=parsed.seed, inputs=parsed.inputs)
    result = BENCHMARKS[parsed.name](chosen)
    sys.stdout.write((json.dumps(as_json(result), indent=2) if parsed.json else as_text(result)) + "\n")
    return 1 if result.violations else 0


if __name__ == "__main__":
    sys.exit(main())
