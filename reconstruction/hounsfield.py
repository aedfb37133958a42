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
    mark = np.empty(0, dtype=np.bool_) if padding is None else padding.reshape(-1)
    limits = _NOWHERE if padding is None else _limits(header)
    is_padded = bool(limits[0] <= limits[1]) and _count_padded(raw, layouts, limits) > 0
    slope, intercept = header.rescale_slope or 1.0, header.rescale_intercept or 0.0
    if not adds_whole_number(header):
        return _by_fractions(raw, layouts, limits if is_padded else _NOWHERE, mark, (slope, intercept)), is_padded
    if is_padded:
        return _add_beside_padding(raw, layouts, limits, mark, np.int32(intercept)), is_padded
    if not _can_saturate(header):
        bits, sign = (_as_int16(int(part)) for part in layouts[0])
        _add(raw, bits, sign, _as_int16(int(intercept) - int(layouts[0][1])))
        return 0, False
    return _add_and_saturate(raw, layouts[0], np.int32(intercept)), False


def adds_whole_number(header: Header) -> bool:
    """Say whether rescaling is adding a whole number, and stays so in 32 bits."""
    slope, intercept = header.rescale_slope or 1.0, header.rescale_intercept or 0.0
    return slope == 1.0 and intercept.is_integer() and abs(intercept) <= _LARGEST_INTERCEPT and header.bits_stored <= 16


def _can_saturate(header: Header) -> bool:
    intercept, span = int(header.rescale_intercept or 0.0), 1 << header.bits_stored
    low = -span // 2 if header.pixel_representation == 1 else 0
    return low + intercept < -(1 << 15) or low + span + intercept > 1 << 15


def _layout(header: Header, bits: int) -> Layout:
    return np.int32((1 << bits) - 1), np.int32(1 << (bits - 1) if header.pixel_representation == 1 else 0)


def _limits(header: Header) -> Layout:
    if header.pixel_padding is None:
        return _NOWHERE
    low, high = (min(max(end, -(1 << 31)), (1 << 31) - 1) for end in header.pixel_padding)
    return np.int32(low), np.int32(high)


def _as_int16(value: int) -> np.int16:
    """Take the lowest 16 bits: the sum they end in is right when it needs no more."""
    return np.int16((value + (1 << 15)) % (1 << 16) - (1 << 15))


# Sums of 32 bits are cast back each time: numba would widen them to 64, and the loops run at half the speed.


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _add(raw: Raw, bits: np.int16, sign: np.int16, number: np.int16) -> None:
    for n in range(len(raw)):
        raw[n] = np.int16(((raw[n] & bits) ^ sign) + number)


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
def _count_padded(raw: Raw, layouts: tuple[Layout, Layout], limits: Layout) -> int:
    count = np.int32(0)
    for n in range(len(raw)):
        count = np.int32(count + np.int32(_is_padding(raw[n], layouts, limits)))
    return int(count)


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
