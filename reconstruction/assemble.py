"""A stack and its pixels -> a Volume in Hounsfield units."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reconstruction.decode import Stored, stored_values
from reconstruction.errors import NotAVolume, NotDicom, UnreadablePixels
from reconstruction.headers import Header, read_dataset
from reconstruction.slices import Stack
from reconstruction.volume import Bits, Volume

AIR_HU = -1024
"""What stands in padded pixels, which hold no measurement; ``Assembled.padding`` says where they are."""

PixelReader = Callable[[Header], Stored]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Assembled:
    """A volume and what was noticed while it was made.

    ``padding`` (kji, True where the scanner stored no measurement) is None where no pixel is padded;
    ``clipped_voxels`` counts values outside int16, which saturate.
    """

    volume: Volume
    padding: Bits | None
    clipped_voxels: int
    notes: tuple[str, ...]


def pixel_reader(paths: dict[str, Path]) -> PixelReader:
    """Return a reader of stored values from Part-10 files, by SOP Instance UID."""

    def read(header: Header) -> Stored:
        try:
            dataset = read_dataset(paths[header.sop_instance_uid], pixels=True)
        except NotDicom as error:
            raise UnreadablePixels(error.reason) from error
        return stored_values(dataset, header)

    return read


def refuse_non_hounsfield(header: Header) -> None:
    """Raise NotAVolume where rescaled values are not Hounsfield units (PS3.3 C.11.1.1.2): absent type means HU."""
    if header.rescale_type not in (None, "HU"):
        raise NotAVolume(f"not Hounsfield units (rescale type {header.rescale_type})")
    slope, intercept = header.rescale_slope, header.rescale_intercept
    if slope is None or intercept is None:
        raise NotAVolume("not Hounsfield units (no rescale slope and intercept)")
    if not (np.isfinite(slope) and np.isfinite(intercept)) or slope == 0:
        raise NotAVolume("the rescale slope or intercept is no usable number")


def assemble(stack: Stack, read: PixelReader, *, threads: int = 2) -> Assembled:
    """Decode and rescale the slices of a stack, ``threads`` at a time.

    HU = round half to even(slope x stored + intercept), per slice. Raises NotAVolume where the values are not HU and
    UnreadablePixels, naming the slice, where one cannot be decoded: a volume with an invented slice is none.
    """
    for header in stack.headers:
        refuse_non_hounsfield(header)
    hu = np.empty(stack.geometry.shape, dtype=np.int16)
    padding = np.zeros(stack.geometry.shape, dtype=np.bool_) if any(h.pixel_padding for h in stack.headers) else None

    def place(k: int) -> int:
        return _place_slice(stack.headers[k], read, hu[k], None if padding is None else padding[k])

    with ThreadPoolExecutor(threads) as pool:
        clipped = sum(pool.map(place, range(len(stack.headers))))
    if padding is not None and not padding.any():
        padding = None
    volume = Volume(hu=hu, geometry=stack.geometry)
    return Assembled(volume=volume, padding=padding, clipped_voxels=clipped, notes=_notes(stack, clipped, padding))


def _place_slice(header: Header, read: PixelReader, out: npt.NDArray[np.int16], padding: Bits | None) -> int:
    try:
        stored = read(header)
    except UnreadablePixels as error:
        raise UnreadablePixels(f"slice {header.instance_number}: {error.reason}") from error
    clipped = _rescale(stored, header, out)
    if padding is not None and header.pixel_padding is not None:
        low, high = header.pixel_padding
        np.logical_and(stored >= low, stored <= high, out=padding)
        out[padding] = AIR_HU
    return clipped


def _rescale(stored: Stored, header: Header, out: npt.NDArray[np.int16]) -> int:
    slope, intercept = header.rescale_slope or 1.0, header.rescale_intercept or 0.0
    if slope == 1.0 and intercept.is_integer():
        values: npt.NDArray[np.int32] | npt.NDArray[np.float64] = stored + np.int32(intercept)
    else:
        values = np.rint(stored * slope + intercept)
    info = np.iinfo(np.int16)
    low, high = float(values.min()), float(values.max())
    if low >= info.min and high <= info.max:
        out[...] = values
        return 0
    np.clip(values, info.min, info.max, out=values)
    out[...] = values
    return int(np.count_nonzero((stored * slope + intercept < info.min) | (stored * slope + intercept > info.max)))


def _notes(stack: Stack, clipped: int, padding: Bits | None) -> tuple[str, ...]:
    notes = list(stack.notes)
    slope = stack.headers[0].rescale_slope or 1.0
    if not slope.is_integer():
        notes.append(f"rescale slope {slope:g}: Hounsfield units are rounded, by at most 0.5")
    if clipped:
        notes.append(f"{clipped} voxels lie outside -32768..32767 HU and were saturated")
    if padding is not None:
        notes.append("padded pixels hold no measurement and are masked")
    return tuple(notes)
