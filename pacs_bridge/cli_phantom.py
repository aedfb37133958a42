"""``ctriage phantom``: a digital patient as a DICOM series, with its truth beside it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pacs_bridge.cli_options import Out

Kind = Annotated[str, typer.Argument(metavar="KIND", help="head, head-bleed, head-fracture or torso.")]
Seed = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="The same number makes the same patient.")]
Slices = Annotated[int | None, typer.Option("--slices", metavar="N", min=1, help="Number of slices.")]
Thickness = Annotated[float | None, typer.Option("--thickness", metavar="MM", help="Slice thickness; else the step.")]
Tilt = Annotated[float | None, typer.Option("--tilt", metavar="DEG", help="Gantry tilt.")]


def phantom(
    kind: Kind, out: Out, seed: Seed = 0, slices: Slices = None, thickness: Thickness = None, tilt: Tilt = None
) -> None:
    """Make a digital patient: a DICOM series in DIR, and truth.json with what is in it."""
    wished = {"slice_count": slices, "slice_thickness_mm": thickness, "tilt_deg": tilt}
    written = write_phantom(
        kind, out, seed=seed, **{name: value for name, value in wished.items() if value is not None}
    )
    typer.echo(f"{kind}: {written} images and truth.json in {out}")


def write_phantom(kind: str, out: Path, *, seed: int, **scan_options: Any) -> int:
    """Write a digital patient's series and truth.json below ``out``; returns the number of images.

    ``scan_options`` are those of ``ScanOptions``; without any the kind's own are taken.
    """
    from pipeline.phantom import KINDS, ScanOptions, make_patient, write_series

    if kind not in KINDS:
        raise typer.BadParameter(f"no digital patient is called {kind!r}; there are: {', '.join(KINDS)}")
    options = ScanOptions(**scan_options) if scan_options else None
    return len(write_series(make_patient(kind, seed=seed, options=options), out).files)
