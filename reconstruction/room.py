"""Where do the voxels of a large volume stand, so that those already used can be given back before the last are?"""

import math
import mmap
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

_LARGE_BYTES = 1 << 20
_HUGE_PAGES = getattr(mmap, "MADV_HUGEPAGE", None)  # a tenth of the page faults, as numpy asks for them itself
_NOT_NEEDED = getattr(mmap, "MADV_DONTNEED", None)


def room(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return an array of zeros in memory of its own, page by page the system's once it is written; raises MemoryError.

    ``give_back`` can let its beginning go. Small arrays are numpy's own.
    """
    count = math.prod(shape)
    if count * np.dtype(dtype).itemsize < _LARGE_BYTES:
        return np.zeros(shape, dtype=dtype)
    try:
        pages = mmap.mmap(-1, count * np.dtype(dtype).itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError) as error:
        raise MemoryError(f"no room for {shape}") from error
    if _HUGE_PAGES is not None:
        with suppress(OSError):  # a kernel without them
            pages.madvise(_HUGE_PAGES)
    return np.frombuffer(pages, dtype=dtype).reshape(shape)


def give_back(array: npt.NDArray[Any], count: int) -> None:
    """Give the memory of ``array[:count]`` back to the system: nobody may read it from now on (it reads as zeros).

    Only of a whole array that ``room`` made; any other stays as it is. What shares a page with ``array[count]`` stays.
    """
    pages = _pages_of(array)
    if pages is None or _NOT_NEEDED is None:
        return
    end = min(count, len(array)) * array.strides[0] // mmap.PAGESIZE * mmap.PAGESIZE
    if end > 0:
        pages.madvise(_NOT_NEEDED, 0, end)


def _pages_of(array: npt.NDArray[Any]) -> mmap.mmap | None:
    """Return the mapping that an array fills from its start to its end; None for any other array."""
    base: Any = array
    while isinstance(base, np.ndarray | memoryview):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    return base if isinstance(base, mmap.mmap) and array.flags.c_contiguous and len(base) == array.nbytes else None
