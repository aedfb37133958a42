"""What does a worker process do before its first job, so that the first study is as quick as the second?"""

import ctypes
import os
import tempfile
from collections.abc import Sequence

from pacs_bridge import logs
from pipeline.registry import load_detectors

PICTURES_NICENESS = 10
_M_MMAP_THRESHOLD = -3  # malloc.h


def warm_up(detectors: Sequence[str], *, scratch: str) -> None:
    """Load the detectors of the settings; what all of them share came with ``preload``."""
    _settle_in(scratch)
    load_detectors(detectors)


def step_back(*, scratch: str) -> None:
    """Let flags have the processor first: pictures are made by a process of lower priority."""
    _settle_in(scratch)
    os.nice(PICTURES_NICENESS)


def _settle_in(scratch: str) -> None:
    """Speak only of warnings, give memory back, and keep temporary files (voxels) in the service's own folder."""
    logs.configure(level="WARNING")
    _give_large_arrays_back()
    tempfile.tempdir = scratch


def _give_large_arrays_back() -> None:
    """Have glibc return every array of a megabyte or more when it is freed; by itself it learns to keep up to 32."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_MMAP_THRESHOLD, 1 << 20)
