"""Stored values -> Hounsfield units, in the room where the volume holds them."""

from functools import lru_cache
from typing import NamedTuple, Protocol

import numba
import numpy as np
import numpy.typing as npt

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


class Scaled(Protocol):
    """What of a Header decides how its pixels become Hounsfield units."""

    @property
    def bits_allocated(self) -> int: ...
    @property
    def bits_stored(self) -> int: ...
    @property
    def pixel_representation(self) -> int: ...
    @property
    def pixel_padding(self) -> tuple[int, int] | None: ...
    @property
    def rescale_slope(self) -> float | None: ...
    @property
    def rescale_intercept(self) -> float | None: ...


class _Scale(NamedTuple):
    """That part of a Header alone: the slices of a series mostly share it."""

    bits_allocated: int
    bits_stored: int
    pixel_representation: int
    pixel_padding: tuple[int, int] | None
    rescale_slope: float | None
    rescale_intercept: float | None


class _Way(NamedTuple):
    """How the pixels of one scale become Hounsfield units, worked out once for all slices that share it."""

    layouts: tuple[Layout, Layout]
    limits: Layout
    ends: Ends
    """The range of padding in the type of the pixels; its start lies above its end where there is none."""
    stored: Ends
    whole: Ends
    number: Pixel
    air: Pixel
    adds_whole: bool
    always_fits: bool


def rescale_in_place(values: Raw, header: Scaled, padding: Bits | None) -> tuple[int, bool]:
    """Turn one slice's raw values of at most 16 bits allocated into Hounsfield units where they stand.

    Drops what lies above Bits Stored (PS3.5 8.1.1) but from padding, rescales, rounds half to even and saturates.
    ``padding`` is the slice of the mask, all False yet. Returns how many measured values saturated, and whether any
    pixel is padded.
    """
    scale = _scale_of(header, padding)
    way, raw = _way(scale), values.reshape(-1)
    has_padding = way.ends[0] <= way.ends[1]
    if way.always_fits and not has_padding:
        _add(raw.view(type(way.number)), *way.stored, way.number)
        return 0, False
    mark = np.empty(0, dtype=np.bool_) if padding is None else padding.reshape(-1)
    is_padded, fits = _look(raw, scale, way)
    limits = way.limits if is_padded else _NOWHERE
    if not way.adds_whole:
        factors = scale.rescale_slope or 1.0, scale.rescale_intercept or 0.0
        return _by_fractions(raw, way.layouts, limits, mark, factors), is_padded
    if fits:
        _add_typed(raw, way, mark if is_padded else None)
        return 0, is_padded
    intercept = np.int32(scale.rescale_intercept or 0.0)
    if is_padded:
        return _add_beside_padding(raw, way.layouts, limits, mark, intercept), True
    return _add_and_saturate(raw, way.layouts[0], intercept), False


def _scale_of(header: Scaled, padding: Bits | None) -> _Scale:
    return _Scale(
        header.bits_allocated,
        header.bits_stored,
        header.pixel_representation,
        None if padding is None else header.pixel_padding,
        header.rescale_slope,
        header.rescale_intercept,
    )


@lru_cache(maxsize=1024)
def _way(scale: _Scale) -> _Way:
    layouts, limits = (_layout(scale, scale.bits_stored), _layout(scale, scale.bits_allocated)), _limits(scale)
    adds_whole = adds_whole_number(scale)
    number = int(scale.rescale_intercept or 0.0) - int(layouts[0][1]) if adds_whole else 0
    return _Way(
        layouts=layouts,
        limits=limits,
        ends=_ends(scale, limits),
        stored=_typed(scale, layouts[0]),
        whole=_typed(scale, layouts[1]),
        number=_wrapped(scale, number),
        air=_wrapped(scale, AIR_HU),
        adds_whole=adds_whole,
        always_fits=adds_whole and _fits(scale, *_stored_range(scale)),
    )


def _look(raw: Raw, scale: _Scale, way: _Way) -> tuple[bool, bool]:
    """Say whether any pixel is padded, and whether all values stay within 16 bits when the intercept is added."""
    typed = raw.view(type(way.number))
    if scale.bits_stored == 16:
        found, lowest, highest = _survey_whole(typed, way.ends)
    else:
        found, lowest, highest = _survey(typed, way.stored, way.whole, way.ends)
    return found > 0, way.always_fits or _fits(scale, int(lowest), int(highest))


def _add_typed(raw: Raw, way: _Way, mark: Bits | None) -> None:
    """Add where no value can leave 16 bits; beside padding where there is a mask."""
    typed = raw.view(type(way.number))
    if mark is None:
        _add(typed, *way.stored, way.number)
    else:
        _add_and_mark(typed, way.whole, way.ends, (*way.stored, way.number, way.air), mark)


def _ends(scale: Scaled, limits: Layout) -> Ends:
    dtype, (lowest, highest) = _dtype(scale), _range(scale)
    low, high = max(int(limits[0]), lowest), min(int(limits[1]), highest)
    return (dtype(low), dtype(high)) if low <= high else (dtype(1), dtype(0))


def _dtype(scale: Scaled) -> type[np.int16] | type[np.uint16]:
    return np.int16 if scale.pixel_representation == 1 else np.uint16


def _typed(scale: Scaled, layout: Layout) -> Ends:
    return _wrapped(scale, int(layout[0])), _wrapped(scale, int(layout[1]))


def _wrapped(scale: Scaled, value: int) -> Pixel:
    """Take the lowest 16 bits in the type of the pixels: a sum of such is right when it needs no more."""
    lowest = _range(scale)[0]
    return _dtype(scale)((value - lowest) % (1 << 16) + lowest)


def _range(scale: Scaled) -> tuple[int, int]:
    return (-(1 << 15), (1 << 15) - 1) if scale.pixel_representation == 1 else (0, (1 << 16) - 1)


def _stored_range(scale: Scaled) -> tuple[int, int]:
    span = 1 << scale.bits_stored
    return (-span // 2, span // 2 - 1) if scale.pixel_representation == 1 else (0, span - 1)


def _fits(scale: Scaled, low: int, high: int) -> bool:
    intercept = scale.rescale_intercept or 0.0
    return low + intercept >= -(1 << 15) and high + intercept < 1 << 15


def adds_whole_number(scale: Scaled) -> bool:
    """Say whether rescaling is adding a whole number, and stays so in 32 bits."""
    slope, intercept = scale.rescale_slope or 1.0, scale.rescale_intercept or 0.0
    return slope == 1.0 and intercept.is_integer() and abs(intercept) <= _LARGEST_INTERCEPT and scale.bits_stored <= 16


def _layout(scale: Scaled, bits: int) -> Layout:
    return np.int32((1 << bits) - 1), np.int32(1 << (bits - 1) if scale.pixel_representation == 1 else 0)


def _limits(scale: Scaled) -> Layout:
    if scale.pixel_padding is None:
        return _NOWHERE
    low, high = (min(max(end, -(1 << 31)), (1 << 31) - 1) for end in scale.pixel_padding)
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
