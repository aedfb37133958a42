"""One series in a process of its own: ``write FOLDER OUT`` (a volume as raw bytes) or ``standard FOLDER COUNT``."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from reconstruction.assemble import assemble, pixel_reader
from reconstruction.headers import Header, read_headers
from reconstruction.slices import Stack, stacks_of
from reconstruction.volume import Volume

WARM_UP = 8


def main(arguments: Sequence[str]) -> int:
    """Do what is asked; ``standard`` prints one JSON object when it is warm and one when it is done."""
    what, folder, rest = arguments
    files = sorted(Path(folder).iterdir())
    if what == "write":
        _read(files).hu.tofile(rest)
        return 0
    _seconds(files[:WARM_UP])
    sys.stdout.write(json.dumps({"warm": True}) + "\n")
    sys.stdout.flush()
    sys.stdin.readline()
    sys.stdout.write(json.dumps(_seconds(files[: int(rest)])) + "\n")
    return 0


def _read(files: Sequence[Path]) -> Volume:
    headers = [header for header in read_headers(files) if isinstance(header, Header)]
    paths = {header.sop_instance_uid: path for header, path in zip(headers, files, strict=True)}
    (stack,) = stacks_of(headers)
    if not isinstance(stack, Stack):
        raise SystemExit(stack.reason)
    return assemble(stack, pixel_reader(paths)).volume


def _seconds(files: Sequence[Path]) -> dict[str, float]:
    """Read files never seen, and make the standard reformats one after the other; return the seconds of both."""
    # Not above: whoever only reads need not wait for what makes pictures.
    from reconstruction.project import standard

    started = time.perf_counter()
    volume = _read(files)
    read_at = time.perf_counter()
    pictures = sum(len(planes.hu) for planes in standard(volume))
    return {"read_s": read_at - started, "reformat_s": time.perf_counter() - read_at, "pictures": pictures}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
