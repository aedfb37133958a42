"""The real heads, read as the service reads them: assembled, and regularised where tilted or uneven."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from pipeline.model import Acquisition
from pipeline.select import acquisition_of
from reconstruction.assemble import assemble, pixel_reader
from reconstruction.errors import ReconstructionError
from reconstruction.headers import Header, read_header
from reconstruction.resample import regularise
from reconstruction.slices import Stack, stacks_of
from reconstruction.volume import Volume

Scan = tuple[Volume, Acquisition]
ReadScan = Callable[[str], Scan]


@pytest.fixture(scope="session")
def read_scan(shared_data: Path) -> ReadScan:
    """Return a reader of one folder below the test data; each is read once."""

    @cache
    def read(name: str) -> Scan:
        if not (shared_data / name).is_dir():
            pytest.skip(f"the scan {name} is not in {shared_data}")
        return _read(shared_data / name)

    return read


def _read(folder: Path) -> Scan:
    named = [(header, path) for path in sorted(folder.iterdir()) if (header := _header(path)) is not None]
    stacks = [stack for stack in stacks_of([header for header, _ in named]) if isinstance(stack, Stack)]
    stack = max(stacks, key=lambda each: len(each.headers))
    assembled = assemble(stack, pixel_reader({header.sop_instance_uid: path for header, path in named}))
    uneven = stack.slice_positions_mm if stack.gaps_mm else None
    volume = assembled.volume
    if stack.gaps_mm or volume.geometry.tilt_deg > 0.1:
        volume = regularise(volume, slice_positions_mm=uneven, padding=assembled.padding).volume
    thickness = acquisition_of(stack.headers).slice_thickness_mm
    return volume, Acquisition(slice_thickness_mm=thickness, slice_count=len(stack.headers))


def _header(path: Path) -> Header | None:
    try:
        return read_header(path)
    except ReconstructionError:
        return None
