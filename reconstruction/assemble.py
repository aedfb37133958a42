"""A stack and its pixels -> a Volume in Hounsfield units."""

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from reconstruction.decode import NATIVE, Stored, as_stored, decompress, refuse_impossible, stored_values
from reconstruction.errors import NotAVolume, NotDicom, UnreadablePixels
from reconstruction.frames import Elsewhere, Places, find_frames, read_frame, read_native
from reconstruction.headers import Header, read_dataset
from reconstruction.hounsfield import AIR_HU as AIR_HU
from reconstruction.hounsfield import adds_whole_number, rescale_in_place
from reconstruction.room import room
from reconstruction.slices import Stack
from reconstruction.volume import Bits, Hu, Volume

PixelReader = Callable[[Header], Stored]

_SLICES_AT_ONCE = 32
_LARGE_BYTES = 1 << 30
_MOST_INFLATION = 500
"""A large volume takes at most so many times the bytes of its files: scans compress to a tenth, a bomb to nothing."""


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


class FileReader:
    """Reads pixels from Part-10 files by SOP Instance UID: straight from where a Header says, else through pydicom."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = paths
        self._frames: dict[Path, tuple[Places, ...]] = {}
        self._parsed: tuple[Path, Dataset] | None = None
        self._lock = threading.Lock()

    def __call__(self, header: Header) -> Stored:
        """Return stored values, int32 of shape (rows, columns); raises UnreadablePixels."""
        refuse_impossible(header)
        raw = np.empty((header.rows, header.columns), dtype=np.int16)
        return as_stored(raw, header) if self.read_raw(header, raw) else self._by_pydicom(header)

    def size_bytes(self, headers: Sequence[Header]) -> int:
        """Return how many bytes the files of some images take together."""
        paths = {self._path(header) for header in headers}
        return sum(path.stat().st_size for path in paths if path.exists())

    def read_raw(self, header: Header, out: Hu) -> bool:
        """Fill ``out`` with the raw bits of an image of 8 or 16 bits allocated; say whether that could be done so.

        Raises UnreadablePixels where a compressed frame does not hold the image.
        """
        if header.bits_allocated not in (8, 16):
            return False
        path = self._path(header)
        try:
            if header.transfer_syntax_uid in NATIVE:
                _read_native_raw(path, header, out)
                return True
            image = decompress(read_frame(path, header, self._frames_of(path, header)), header, out)
        except (Elsewhere, OSError):
            return False
        if image.dtype.kind not in "iu" or image.dtype.itemsize > 2:
            return False
        if image is not out:
            np.copyto(out, image, casting="unsafe")
        return True

    def _path(self, header: Header) -> Path:
        return self._paths[header.sop_instance_uid]

    def _frames_of(self, path: Path, header: Header) -> tuple[Places, ...]:
        if header.number_of_frames == 1:
            return find_frames(path, header)
        with self._lock:
            if path not in self._frames:
                self._frames[path] = find_frames(path, header)
            return self._frames[path]

    def _by_pydicom(self, header: Header) -> Stored:
        return stored_values(self._dataset(header), header)

    def _dataset(self, header: Header) -> Dataset:
        """Parse a file; one of many frames is kept until the next, so that it is not parsed for each."""
        path = self._path(header)
        try:
            if header.number_of_frames == 1:
                return read_dataset(path, pixels=True)
            with self._lock:
                if self._parsed is None or self._parsed[0] != path:
                    self._parsed = path, read_dataset(path, pixels=True)
                return self._parsed[1]
        except NotDicom as error:
            raise UnreadablePixels(error.reason) from error


def pixel_reader(paths: Mapping[str, Path]) -> PixelReader:
    """Return a reader of stored values from Part-10 files, by SOP Instance UID."""
    return FileReader(paths)


def _read_native_raw(path: Path, header: Header, out: Hu) -> None:
    if header.bits_allocated == 16:
        read_native(path, header, out.data)
        return
    narrow = np.empty(out.shape, dtype=np.uint8)
    read_native(path, header, narrow.data)
    np.copyto(out, narrow)


def refuse_non_hounsfield(header: Header) -> None:
    """Raise NotAVolume where rescaled values are not Hounsfield units (PS3.3 C.11.1.1.2): absent type means HU."""
    if header.rescale_type not in (None, "HU"):
        raise NotAVolume(f"not Hounsfield units (rescale type {header.rescale_type})")
    slope, intercept = header.rescale_slope, header.rescale_intercept
    if slope is None or intercept is None:
        raise NotAVolume("not Hounsfield units (no rescale slope and intercept)")
    if not (math.isfinite(slope) and math.isfinite(intercept)) or slope == 0:
        raise NotAVolume("the rescale slope or intercept is no usable number")


def assemble(
    stack: Stack, read: PixelReader, *, threads: int = 2, on_progress: Callable[[int], object] = lambda _done: None
) -> Assembled:
    """Decode and rescale the slices of a stack, ``threads`` at a time.

    ``on_progress`` is told, in the caller's thread, how many slices are done, more each time and in the end all.
    HU = round half to even(slope x stored + intercept), per slice. Raises NotAVolume where the values are not HU and
    UnreadablePixels, naming the slice, where one cannot be decoded: a volume with an invented slice is none.
    """
    for header in stack.headers:
        refuse_non_hounsfield(header)
        refuse_impossible(header)
    _refuse_bomb(stack, read)
    hu, padding = _room(stack)

    def place(slices: range) -> list[tuple[int, bool]]:
        return [_place_named(stack, k, read, (hu[k], None if padding is None else padding[k])) for k in slices]

    placed: list[tuple[int, bool]] = []
    with ThreadPoolExecutor(threads) as pool:
        for some in pool.map(place, _spans(len(hu), threads)):
            placed.extend(some)
            on_progress(len(placed))
    clipped = sum(count for count, _ in placed)
    if not any(is_padded for _, is_padded in placed):
        padding = None
    volume = Volume(hu=hu, geometry=stack.geometry)
    return Assembled(volume=volume, padding=padding, clipped_voxels=clipped, notes=_notes(stack, clipped, padding))


def _spans(count: int, threads: int) -> Iterator[range]:
    """Share slices out: long spans first, which cost few turns, single slices last, so that all end at one time."""
    start = 0
    while start < count:
        end = start + max(1, min(_SLICES_AT_ONCE, (count - start) // (4 * threads)))
        yield range(start, end)
        start = end


def _refuse_bomb(stack: Stack, read: PixelReader) -> None:
    """Refuse a volume of gigabytes out of next to nothing before memory is asked for."""
    count, rows, columns = stack.geometry.shape
    needed = 2 * count * rows * columns
    if needed <= _LARGE_BYTES or not isinstance(read, FileReader):
        return
    size_bytes = read.size_bytes(stack.headers)
    if needed > _MOST_INFLATION * size_bytes:
        small, large = (size_bytes >> 10) + 1, needed >> 20
        raise NotAVolume(f"{count} slices would inflate from {small} kB to {large} MB; no scan compresses so far")


def _room(stack: Stack) -> tuple[npt.NDArray[np.int16], Bits | None]:
    shape, padded = stack.geometry.shape, any(h.pixel_padding for h in stack.headers)
    try:
        return room(shape, np.int16), room(shape, np.bool_) if padded else None
    except MemoryError as error:
        raise NotAVolume(f"{shape[0]} slices of {shape[1]}x{shape[2]} pixels do not fit into memory") from error


def _place_named(stack: Stack, k: int, read: PixelReader, room: tuple[Hu, Bits | None]) -> tuple[int, bool]:
    header, (out, padding) = stack.headers[k], room
    try:
        if isinstance(read, FileReader) and read.read_raw(header, out):
            return rescale_in_place(out, header, padding)
        return _place_stored(read(header), header, out, padding)
    except UnreadablePixels as error:
        name = next(n for n in (header.frame, header.instance_number, k + 1) if n is not None)
        raise UnreadablePixels(f"slice {name}: {error.reason}") from error


def _place_stored(stored: Stored, header: Header, out: Hu, padding: Bits | None) -> tuple[int, bool]:
    """Fill one slice; return how many of its measured values lie outside int16, and whether any is padded."""
    values, is_padded = _rescaled(stored, header), False
    if padding is not None and header.pixel_padding is not None:
        low, high = header.pixel_padding
        np.logical_and(stored >= low, stored <= high, out=padding)
        values[padding] = AIR_HU
        is_padded = bool(padding.any())
    info = np.iinfo(np.int16)
    np.clip(values, info.min, info.max, out=out, casting="unsafe")
    if info.min <= float(values.min()) and float(values.max()) <= info.max:
        return 0, is_padded
    return int(np.count_nonzero(values != out)), is_padded


def _rescaled(stored: Stored, header: Header) -> npt.NDArray[np.int32] | npt.NDArray[np.float64]:
    slope, intercept = header.rescale_slope or 1.0, header.rescale_intercept or 0.0
    if adds_whole_number(header):
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
