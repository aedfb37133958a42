"""What does a worker process do before its first job, so that the first study is as quick as the second?"""

import os
from collections.abc import Sequence

from pacs_bridge import logs
from pipeline.registry import load_detectors

PICTURES_NICENESS = 10


def warm_up(detectors: Sequence[str]) -> None:
    """Load the detectors of the settings; what all of them share came with ``preload``."""
    logs.configure(level="WARNING")
    load_detectors(detectors)


def step_back() -> None:
    """Let flags have the processor first: pictures are made by a process of lower priority."""
    logs.configure(level="WARNING")
    os.nice(PICTURES_NICENESS)
