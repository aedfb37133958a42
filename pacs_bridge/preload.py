"""What worker processes share: imported once, by the server that they are forked from, and by nobody else.

Importing it does work, against the rule: the server offers no other moment, and every page that is written here exists
once instead of once a worker.
"""

import collections
import gc
import itertools
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from pacs_bridge import work
from pipeline.detectors import hemorrhage, skull_fracture
from reconstruction import part10_scan
from reconstruction.geometry import Geometry
from reconstruction.hounsfield import rescale_in_place
from reconstruction.part10 import Scan, Unsure
from reconstruction.project import standard
from reconstruction.render_grid import reduced
from reconstruction.resample import regularise
from reconstruction.volume import Volume

LOADED = (work, hemorrhage, skull_fracture, part10_scan)
"""The modules whose import is slow, with all that they import."""


class _Pixels(NamedTuple):
    bits_stored: int
    pixel_representation: int
    rescale_slope: float
    pixel_padding: tuple[int, int] | None
    bits_allocated: int = 16
    rescale_intercept: float = -1024.0


def _load_kernels() -> None:
    """Load from numba's cache, or compile, the kernels that reading, straightening and picturing a study needs."""
    with suppress(Unsure):
        Scan(steady=(), each=()).content(np.zeros(256, dtype=np.uint8))
    _load_rescaling()
    affine = np.diag([2.0, 1.0, 1.0, 1.0])
    affine[1, 0] = 0.2
    small = Volume(hu=np.zeros((3, 8, 8), dtype=np.int16), geometry=Geometry(affine=affine, shape=(3, 8, 8)))
    straight = regularise(small).volume
    collections.deque(standard(straight), maxlen=0)
    reduced(straight, largest=4)


def _load_rescaling() -> None:
    """Rescale a picture of each kind: which kernel that takes is decided by its values, padding and saturation."""
    for pixels in itertools.starmap(_Pixels, itertools.product((12, 16), (0, 1), (1.0, 0.5), (None, (1, 1)))):
        for value in (0, 1, -32768):
            raw = np.full((1, 2), value, dtype=np.int16)
            raw[0, 1] = 1
            rescale_in_place(raw, pixels, np.zeros((1, 2), dtype=np.bool_))


_load_kernels()
# The collector writes to every object it visits, and would so copy the shared pages into each worker.
gc.collect()
gc.freeze()
