"""How is a heavy step run in a process of its own, that may fail or take too long without harm to this one?"""

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

NO_MEMORY = 4  # exit status of a child that was refused memory


def why_failed(module: str, folder: Path, *, limit_s: float, python: Sequence[str] = (sys.executable,)) -> str | None:
    """Run ``python -m module folder`` to its end, and return None, or why it failed, for people to read.

    The folder carries the order there and the result back. A child that takes longer than ``limit_s`` is killed.
    """
    try:
        done = subprocess.run([*python, "-m", module, str(folder)], capture_output=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        return f"it took longer than {limit_s:g} s"
    except OSError as error:
        return f"its process could not be started ({error.strerror})"
    if done.returncode < 0:
        return f"its process ended by {signal.Signals(-done.returncode).name}"
    if done.returncode == NO_MEMORY:
        return "it does not fit into memory"
    return f"its process failed with status {done.returncode}" if done.returncode else None
