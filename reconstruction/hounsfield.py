"""Stored values -> Hounsfield units, in the room where the volume holds them."""

import numba
import numpy as np
import numpy.typing as npt

from reconstruction.headers import Header
from reconstruction.volume import Bits

# mypy: disable-error-code="no-any-return"

AIR_HU = -1024
"""What stands in padded pixels, which hold no measurement; ``Assembled.padding`` says where they are."""

Raw = npt.NDArray[np.int16]
Typed = npt.NDArray[np.int16] | npt.NDArray[np.uint16]
Pixel = np.int16 | np.uint16
Ends = tuple[Pixel, Pixel]
Layout = tuple[np.int32, np.int32]
"""Which bits of a raw value count, and which of them is the sign (0: none)."""

_LARGEST_INTERCEPT = 1 << 15
_NOWHERE = (np.int32(1), np.int32(0))
_LOWEST, _HIGHEST = np.int32(-32768), np.int32(32767)


def rescale_in_place(values: Raw, header: Header, padding: Bits | None) -> tuple[int, bool]:
    """Turn one slice's raw values of at most 16 bits allocated into Hounsfield units where they stand.

    Drops what lies above Bits Stored (PS3.5 8.1.1) but from padding, rescales, rounds half to even and saturates.
    ``padding`` is the slice of the mask, all False yet. Returns how many measured values saturated, and whether any
    pixel is padded.
    """
    raw, layouts = values.reshape(-1), (_layout(header, header.bits_stored), _layout(header, header.bits_allocated))
    limits = _NOWHERE if padding is None else _limits(header)
    mark = np.empty(0, dtype=np.bool_) if padding is None else padding.reshape(-1)
    is_padded, fits = _look(raw, header, limits)
    slope, intercept = header.rescale_slope or 1.0, header.rescale_intercept or 0.0
    if not adds_whole_number(header):
        return _by_fractions(raw, layouts, limits if is_padded else _NOWHERE, mark, (slope, intercept)), is_padded
    if fits:
        _add_typed(raw, header, limits if is_padded else _NOWHERE, mark)
        return 0, is_padded
    if is_padded:
        return _add_beside_padding(raw, layouts, limits, mark, np.int32(intercept)), True
    return _add_and_saturate(raw, layouts[0], np.int32(intercept)), False


def _look(raw: Raw, header: Header, limits: Layout) -> tuple[bool, bool]:
    """Say whether any pixel is padded, and whether all values stay within 16 bits when the intercept is added."""
    ends, fits = _ends(header, limits), _fits(header, *_stored_range(header))
    if fits and ends[0] > ends[1]:
        return False, True
    typed = raw.view(type(ends[0]))
    if header.bits_stored == 16:
        found, lowest, highest = _survey_whole(typed, ends)
    else:
        found, lowest, highest = _survey(typed, _typed(header, header.bits_stored), _whole(header), ends)
    return found > 0, fits or _fits(header, int(lowest), int(highest))


def _add_typed(raw: Raw, header: Header, limits: Layout, mark: Bits) -> None:
    bits, sign = _typed(header, header.bits_stored)
    number = int(header.rescale_intercept or 0.0) - int(_layout(header, header.bits_stored)[1])
    ends = _ends(header, limits)
    typed = raw.view(type(bits))
    if ends[0] > ends[1]:
        _add(typed, bits, sign, _wrapped(header, number))
        return
    kept = (bits, sign, _wrapped(header, number), _wrapped(header, AIR_HU))
    _add_and_mark(typed, _whole(header), ends, kept, mark)


def _ends(header: Header, limits: Layout) -> Ends:
    """Return the range of padding in the type of the pixels; its start lies above its end where there is none."""
    dtype, (lowest, highest) = _dtype(header), _range(header)
    low, high = max(int(limits[0]), lowest), min(int(limits[1]), highest)
    return (dtype(low), dtype(high)) if low <= high else (dtype(1), dtype(0))


def _dtype(header: Header) -> type[np.int16] | type[np.uint16]:
    return np.int16 if header.pixel_representation == 1 else np.uint16


def _typed(header: Header, bits: int) -> Ends:
    mask, sign = (_wrapped(header, int(part)) for part in _layout(header, bits))
    return mask, sign


def _wrapped(header: Header, value: int) -> Pixel:
    """Take the lowest 16 bits in the type of the pixels: a sum of such is right when it needs no more."""
    lowest = _range(header)[0]
    return _dtype(header)((value - lowest) % (1 << 16) + lowest)


def _whole(header: Header) -> Ends:
    return _typed(header, header.bits_allocated)


def _range(header: Header) -> tuple[int, int]:
    return (-(1 << 15), (1 << 15) - 1) if header.pixel_representation == 1 else (0, (1 << 16) - 1)


def _stored_range(header: Header) -> tuple[int, int]:
    span = 1 << header.bits_stored
    return (-span // 2, span // 2 - 1) if header.pixel_representation == 1 else (0, span - 1)


def _fits(header: Header, low: int, high: int) -> bool:
    intercept = header.rescale_intercept or 0.0
    return low + intercept >= -(1 << 15) and high + intercept < 1 << 15


def adds_whole_number(header: Header) -> bool:
    """Say whether rescaling is adding a whole number, and stays so in 32 bits."""
    slope, intercept = header.rescale_slope or 1.0, header.rescale_intercept or 0.0
    return slope == 1.0 and intercept.is_integer() and abs(intercept) <= _LARGEST_INTERCEPT and header.bits_stored <= 16


def _layout(header: Header, bits: int) -> Layout:
    return np.int32((1 << bits) - 1), np.int32(1 << (bits - 1) if header.pixel_representation == 1 else 0)


def _limits(header: Header) -> Layout:
    if header.pixel_padding is None:
        return _NOWHERE
    low, high = (min(max(end, -(1 << 31)), (1 << 31) - 1) for end in header.pixel_padding)
    return np.int32(low), np.int32(high)


# Sums of 32 bits are cast back each time: numba would widen them to 64, and the loops run at half the speed.


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _survey(raw: Typed, layout: Ends, whole: Ends, limits: Ends) -> tuple[int, int, int]:
    """Look for padding, and for the extremes of the stored values, in the type of the pixels: 16 bits a lane."""
    kind = raw.dtype.type
    found, lowest = kind(0), kind(((raw[0] & layout[0]) ^ layout[1]) - layout[1])
    highest = lowest
    for n in range(len(raw)):
        stored = kind(((raw[n] & layout[0]) ^ layout[1]) - layout[1])
        wide = kind(((raw[n] & whole[0]) ^ whole[1]) - whole[1])
        padded = ((stored >= limits[0]) & (stored <= limits[1])) | ((wide >= limits[0]) & (wide <= limits[1]))
        found = kind(found | kind(padded))
        lowest = min(lowest, stored)
        highest = max(highest, stored)
    return int(found), int(lowest), int(highest)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _survey_whole(raw: Typed, limits: Ends) -> tuple[int, int, int]:
    """Do what ``_survey`` does where all 16 bits are stored: most series are read so, and this is twice as fast."""
    kind = raw.dtype.type
    found, lowest, highest = kind(0), raw[0], raw[0]
    for n in range(len(raw)):
        found = kind(found | kind((raw[n] >= limits[0]) & (raw[n] <= limits[1])))
        lowest = min(lowest, raw[n])
        highest = max(highest, raw[n])
    return int(found), int(lowest), int(highest)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _add_and_mark(raw: Typed, whole: Ends, limits: Ends, kept: tuple[Pixel, Pixel, Pixel, Pixel], mark: Bits) -> None:
    """Add beside padding where no value can leave 16 bits, in the type of the pixels."""
    bits, sign, number, air = kept
    kind = raw.dtype.type
    for n in range(len(raw)):
        flipped = kind((raw[n] & bits) ^ sign)
        stored = kind(flipped - sign)
        wide = kind(((raw[n] & whole[0]) ^ whole[1]) - whole[1])
        padded = ((stored >= limits[0]) & (stored <= limits[1])) | ((wide >= limits[0]) & (wide <= limits[1]))
        mark[n] = padded
        hidden = kind(-kind(padded))  # all bits or none: no branch, which the edges of padding would mispredict
        raw[n] = kind((kind(flipped + number) & ~hidden) | (air & hidden))


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _add(raw: Typed, bits: Pixel, sign: Pixel, number: Pixel) -> None:
    kind = raw.dtype.type
    for n in range(len(raw)):
        raw[n] = kind(((raw[n] & bits) ^ sign) + number)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _add_and_saturate(raw: Raw, layout: Layout, intercept: np.int32) -> int:
    bits, sign = layout
    number, clipped = np.int32(intercept - sign), np.int32(0)
    for n in range(len(raw)):
        value = np.int32(np.int32(np.int32(np.int32(raw[n]) & bits) ^ sign) + number)
        kept = _saturated(value)
        clipped = np.int32(clipped + np.int32(value != kept))
        raw[n] = np.int16(kept)
    return int(clipped)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _saturated(value: np.int32) -> np.int32:
    below = value if value < _HIGHEST else _HIGHEST
    return below if below > _LOWEST else _LOWEST


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _stored(raw: np.int16, layout: Layout) -> np.int32:
    return np.int32(np.int32(np.int32(np.int32(raw) & layout[0]) ^ layout[1]) - layout[1])


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _is_padding(raw: np.int16, layouts: tuple[Layout, Layout], limits: Layout) -> bool:
    """Some scanners write -2000 as 63536 into images of 12 bits: a value is padding with or without its upper bits."""
    stored, whole = _stored(raw, layouts[0]), _stored(raw, layouts[1])
    return ((stored >= limits[0]) & (stored <= limits[1])) | ((whole >= limits[0]) & (whole <= limits[1]))


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _add_beside_padding(
    raw: Raw, layouts: tuple[Layout, Layout], limits: Layout, mark: Bits, intercept: np.int32
) -> int:
    clipped = np.int32(0)
    for n in range(len(raw)):
        padded = _is_padding(raw[n], layouts, limits)
        value = np.int32(AIR_HU) if padded else np.int32(_stored(raw[n], layouts[0]) + intercept)
        kept = _saturated(value)
        clipped = np.int32(clipped + np.int32(value != kept))
        mark[n] = padded
        raw[n] = np.int16(kept)
    return int(clipped)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _by_fractions(
    raw: Raw, layouts: tuple[Layout, Layout], limits: Layout, mark: Bits, factors: tuple[float, float]
) -> int:
    slope, intercept = factors
    clipped = np.int32(0)
    for n in range(len(raw)):
        padded = _is_padding(raw[n], layouts, limits)
        value = float(AIR_HU) if padded else np.rint(_stored(raw[n], layouts[0]) * slope + intercept)
        kept = min(max(value, -32768.0), 32767.0)
        clipped = np.int32(clipped + np.int32(value != kept))
        if padded:
            mark[n] = True
        raw[n] = np.int16(np.int32(kept))
    return int(clipped)
