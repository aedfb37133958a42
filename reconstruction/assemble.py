"""A stack and its pixels -> a Volume in Hounsfield units."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reconstruction.decode import Stored, refuse_impossible, stored_values
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
        refuse_impossible(header)
    hu, padding = _room(stack)

    def place(k: int) -> int:
        try:
            return _place_slice(stack.headers[k], read, hu[k], None if padding is None else padding[k])
        except UnreadablePixels as error:
            number = stack.headers[k].instance_number
            raise UnreadablePixels(f"slice {k + 1 if number is None else number}: {error.reason}") from error

    with ThreadPoolExecutor(threads) as pool:
        clipped = sum(pool.map(place, range(len(stack.headers))))
    if padding is not None and not padding.any():
        padding = None
    volume = Volume(hu=hu, geometry=stack.geometry)
    return Assembled(volume=volume, padding=padding, clipped_voxels=clipped, notes=_notes(stack, clipped, padding))


def _room(stack: Stack) -> tuple[npt.NDArray[np.int16], Bits | None]:
    shape, padded = stack.geometry.shape, any(h.pixel_padding for h in stack.headers)
    try:
        return np.empty(shape, dtype=np.int16), np.zeros(shape, dtype=np.bool_) if padded else None
    except MemoryError as error:
        raise NotAVolume(f"{shape[0]} slices of {shape[1]}x{shape[2]} pixels do not fit into memory") from error


def _place_slice(header: Header, read: PixelReader, out: npt.NDArray[np.int16], padding: Bits | None) -> int:
    """Fill one slice; return how many of its measured values lie outside int16."""
    stored = read(header)
    values = _rescaled(stored, header)
    if padding is not None and header.pixel_padding is not None:
        low, high = header.pixel_padding
        np.logical_and(stored >= low, stored <= high, out=padding)
        values[padding] = AIR_HU
    info = np.iinfo(np.int16)
    np.clip(values, info.min, info.max, out=out, casting="unsafe")
    if info.min <= float(values.min()) and float(values.max()) <= info.max:
        return 0
    return int(np.count_nonzero(values != out))


def _rescaled(stored: Stored, header: Header) -> npt.NDArray[np.int32] | npt.NDArray[np.float64]:
    slope, intercept = header.rescale_slope or 1.0, header.rescale_intercept or 0.0
    if slope == 1.0 and intercept.is_integer() and abs(intercept) <= 1 << 15 and header.bits_stored <= 16:
        return stored + np.int32(intercept)
    return np.asarray(np.rint(stored * slope + intercept))


def _notes(stack: Stack, clipped: int, padding: Bits | None) -> tuple[str, ...]:
    notes = list(stack.notes)
    uneven = sorted({h.rescale_slope for h in stack.headers if h.rescale_slope and not h.rescale_slope.is_integer()})
    for slope in uneven[:1]:
        notes.append(f"rescale slope {slope:g}: Hounsfield units are rounded, by at most 0.5")
    if clipped:
        notes.append(f"{clipped} voxels lie outside -32768..32767 HU and were saturated")
    if padding is not None:
        notes.append("padded pixels hold no measurement and are masked")
    return tuple(notes)
