"""``ctriage phantom``: a digital patient as a DICOM series, with its truth beside it."""

from pathlib import Path
from typing import Annotated

import typer

from pacs_bridge.cli_options import Out

KIND_HELP = "head, head-bleed, head-fracture or torso."


def phantom(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=KIND_HELP)],
    out: Out,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="The same number makes the same patient.")] = 0,
) -> None:
    """Make a digital patient: a DICOM series in DIR, and truth.json with what is in it."""
    write_phantom(kind, out, seed=seed)
    typer.echo(f"{kind}: {out}")


def write_phantom(kind: str, out: Path, *, seed: int) -> None:
    """Write a digital patient's series and truth.json below ``out``."""
    from pipeline.phantom import make_patient, write_series

    write_series(make_patient(kind, seed=seed), out)
