"""What does a worker process do before its first job, so that the first study is as quick as the second?"""

import os
from collections.abc import Sequence

import numpy as np

from pacs_bridge import logs
from pacs_bridge.results import bundle
from pipeline import derive
from pipeline.registry import load_detectors
from reconstruction.geometry import Geometry
from reconstruction.project import reformat
from reconstruction.resample import regularise
from reconstruction.volume import Volume

PICTURES_NICENESS = 10
_LOADED = (bundle, derive)
"""The modules whose import is slow; importing this module in a fresh process imports them."""


def warm_up(detectors: Sequence[str]) -> None:
    """Load the detectors and compile or load the kernels that every tilted study needs."""
    logs.configure(level="WARNING")
    load_detectors(detectors)
    _compile()


def step_back() -> None:
    """Let flags have the processor first: pictures are made by a process of lower priority."""
    logs.configure(level="WARNING")
    os.nice(PICTURES_NICENESS)
    _compile()


def _compile() -> None:
    affine = np.diag([2.0, 1.0, 1.0, 1.0])
    affine[1, 0] = 0.2
    small = Volume(hu=np.zeros((3, 8, 8), dtype=np.int16), geometry=Geometry(affine=affine, shape=(3, 8, 8)))
    reformat(regularise(small).volume)
