"""What several rooms' tests stand on: the real scans, waiting with a deadline, and a real Orthanc."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from benchmarks.orthanc import NoOrthanc, Orthanc, running_orthanc

ROOT = Path(__file__).resolve().parent.parent


class WaitUntil(Protocol):
    """Waits until a condition holds, and fails the test when it does not in time."""

    def __call__(self, condition: Callable[[], object], *, deadline_s: float = 20.0) -> None: ...


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real scans; skips where it is absent."""
    folder = Path(os.environ.get("CTRIAGE_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"the real scans are not here: no folder {folder} (or set CTRIAGE_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def wait_until() -> WaitUntil:
    """Return a function that waits for a condition."""
    return _wait_until


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    """Start a fresh Orthanc; skips where there is none, or no right to give it a network namespace of its own."""
    try:
        stack = ExitStack()
        peer = stack.enter_context(running_orthanc(tmp_path / "orthanc"))
    except NoOrthanc as missing:
        pytest.skip(str(missing))
    with stack:
        yield peer


def _wait_until(condition: Callable[[], object], *, deadline_s: float = 20.0) -> None:
    end = time.monotonic() + deadline_s
    pause = threading.Event()
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"waited {deadline_s:.0f} s in vain")
        pause.wait(0.02)
