"""What worker processes share: imported once, by the server that they are forked from, and by nobody else.

Importing it does work, against the rule: the server offers no other moment, and every page that is written here exists
once instead of once a worker.
"""

import gc

import numpy as np

from pacs_bridge import work
from pipeline.detectors import hemorrhage, skull_fracture
from reconstruction import part10_scan
from reconstruction.geometry import Geometry
from reconstruction.project import reformat
from reconstruction.resample import regularise
from reconstruction.volume import Volume

LOADED = (work, hemorrhage, skull_fracture, part10_scan)
"""The modules whose import is slow, with all that they import."""


def _load_kernels() -> None:
    """Load from numba's cache, or compile, the kernels that every tilted study needs."""
    affine = np.diag([2.0, 1.0, 1.0, 1.0])
    affine[1, 0] = 0.2
    small = Volume(hu=np.zeros((3, 8, 8), dtype=np.int16), geometry=Geometry(affine=affine, shape=(3, 8, 8)))
    reformat(regularise(small).volume)


_load_kernels()
# The collector writes to every object it visits, and would so copy the shared pages into each worker.
gc.collect()
gc.freeze()
