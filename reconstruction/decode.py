"""Pixel bytes of any transfer syntax -> stored values."""

import math
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame

from reconstruction.errors import UnreadablePixels
from reconstruction.headers import Header
from reconstruction.part10 import DEFLATED_LE, EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE
from reconstruction.volume import Hu

Stored = npt.NDArray[np.int32]

MAX_ROWS_COLUMNS = 8192
"""No CT image is larger; a header that announces more is refused before memory is asked for."""

NATIVE = frozenset({IMPLICIT_LE, EXPLICIT_LE, DEFLATED_LE, EXPLICIT_BE})
"""Transfer syntaxes whose pixels are not compressed."""

Codec = Callable[..., Any]

# One thread a codec: slices are decoded side by side.
_jpeg2k_decode = partial(imagecodecs.jpeg2k_decode, numthreads=1)

_CODECS: Mapping[str, Codec] = {
    "1.2.840.10008.1.2.4.50": imagecodecs.jpeg8_decode,
    "1.2.840.10008.1.2.4.51": imagecodecs.jpeg8_decode,
    "1.2.840.10008.1.2.4.53": imagecodecs.jpeg8_decode,
    "1.2.840.10008.1.2.4.55": imagecodecs.jpeg8_decode,
    "1.2.840.10008.1.2.4.57": imagecodecs.ljpeg_decode,
    "1.2.840.10008.1.2.4.70": imagecodecs.ljpeg_decode,
    "1.2.840.10008.1.2.4.80": imagecodecs.jpegls_decode,
    "1.2.840.10008.1.2.4.81": imagecodecs.jpegls_decode,
    "1.2.840.10008.1.2.4.90": _jpeg2k_decode,
    "1.2.840.10008.1.2.4.91": _jpeg2k_decode,
    # HTJ2K: imagecodecs' htj2k_decode is twice as fast, but swallows the error of a damaged codestream and returns
    # what it had until then; OpenJPEG refuses.
    "1.2.840.10008.1.2.4.201": _jpeg2k_decode,
    "1.2.840.10008.1.2.4.202": _jpeg2k_decode,
    "1.2.840.10008.1.2.4.203": _jpeg2k_decode,
}
_RLE = "1.2.840.10008.1.2.5"
_JPEG2000 = frozenset(f"1.2.840.10008.1.2.4.{end}" for end in (90, 91, 201, 202, 203))
_JPEG2000_START = b"\xff\x4f\xff\x51"
_JPEG_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_END_OF_IMAGE = b"\xff\xd9"


def stored_values(dataset: Dataset, header: Header) -> Stored:
    """Decode a greyscale image, or the frame of it that the header names, to its stored values.

    int32, shape (rows, columns). Bits above Bits Stored are dropped and the sign is taken from Pixel Representation
    (PS3.5 8.1.1), whatever the codec returned. A padding value that needs those bits keeps them, so that it is never
    taken for a measurement: some scanners write -2000 as 63536 into images of 12 bits. What is shown white
    (MONOCHROME1) does not matter: stored values are what is rescaled. Raises UnreadablePixels where the bytes do not
    hold the image that the header announces.
    """
    refuse_impossible(header)
    data = _pixel_bytes(dataset)
    if header.transfer_syntax_uid in NATIVE:
        return as_stored(_native(data, header), header)
    return as_stored(decompress(_frame(dataset, data, header), header), header)


def codec_of(transfer_syntax_uid: str) -> Codec:
    """Return what decodes one codestream of a compressed transfer syntax; raises UnreadablePixels for any other."""
    try:
        return _CODECS[transfer_syntax_uid]
    except KeyError:
        raise UnreadablePixels(f"transfer syntax {transfer_syntax_uid} is not supported") from None


def refuse_impossible(header: Header) -> None:
    """Raise UnreadablePixels where a header announces no image that we could read, before memory is asked for."""
    if not header.has_pixels:
        raise UnreadablePixels("no image in this instance")
    if max(header.rows, header.columns) > MAX_ROWS_COLUMNS:
        raise UnreadablePixels(f"{header.rows}x{header.columns} pixels announced; no CT image is that large")
    if header.samples_per_pixel != 1 or (header.frame is None and header.number_of_frames != 1):
        raise UnreadablePixels("not a single greyscale frame")
    if header.frame is not None and not 1 <= header.frame <= header.number_of_frames:
        raise UnreadablePixels(f"frame {header.frame} of {header.number_of_frames}")
    if header.bits_allocated not in (8, 16, 32) or not 1 <= header.bits_stored <= header.bits_allocated:
        raise UnreadablePixels(f"{header.bits_stored} bits stored in {header.bits_allocated} allocated")
    if header.high_bit not in (None, header.bits_stored - 1):
        raise UnreadablePixels(f"{header.bits_stored} bits stored do not end at bit {header.high_bit} (PS3.5 8.1.1)")


def decompress(frame: bytes, header: Header, out: Hu | None = None) -> npt.NDArray[Any]:
    """Decode one compressed frame to whatever integers its codec returns, shape (rows, columns).

    Several samples a pixel are one more axis, the last. The result is ``out``, whose 16 bits a pixel are overwritten,
    where the codec can fill it as it stands. Raises UnreadablePixels where the frame does not hold the image that the
    header announces.
    """
    with _codec_errors():
        is_rle = header.transfer_syntax_uid == _RLE
        image = _decode_rle(frame, header) if is_rle else _decode_stream(frame, header, out)
    samples = () if header.samples_per_pixel == 1 else (header.samples_per_pixel,)
    if image.shape != (header.rows, header.columns, *samples):
        raise UnreadablePixels(f"decoded to {image.shape} instead of {(header.rows, header.columns, *samples)} pixels")
    return np.asarray(image)


@contextmanager
def _codec_errors() -> Iterator[None]:
    try:
        yield
    # The codecs wrap C libraries: each raises an exception class of its own, all of them RuntimeError or ValueError.
    except (RuntimeError, ValueError, TypeError, EOFError, IndexError, MemoryError, struct.error) as error:
        raise UnreadablePixels(f"the compressed pixel data is damaged ({type(error).__name__})") from error


def _pixel_bytes(dataset: Dataset) -> bytes:
    data = dataset.get("PixelData")
    if not data:
        raise UnreadablePixels("the pixel data is missing")
    return bytes(data)


def _native(data: bytes, header: Header) -> npt.NDArray[Any]:
    order = ">" if header.transfer_syntax_uid == EXPLICIT_BE else "<"
    dtype = np.dtype(f"{order}u{header.bits_allocated // 8}")
    size = header.rows * header.columns
    expected = size * dtype.itemsize * header.number_of_frames
    if len(data) < expected:
        raise UnreadablePixels(f"the pixel data is cut off: {len(data)} of {expected} bytes")
    if len(data) > expected + 1 and len(data) - expected >= size * dtype.itemsize:
        raise UnreadablePixels(f"{len(data)} bytes of pixel data for an image of {expected}")
    start = ((header.frame or 1) - 1) * size * dtype.itemsize
    return np.frombuffer(data, dtype=dtype, count=size, offset=start).reshape(header.rows, header.columns)


def _frame(dataset: Dataset, data: bytes, header: Header) -> bytes:
    """Take one frame out of encapsulated pixels, by the Extended Offset Table where there is one (PS3.5 A.4)."""
    tables = dataset.get("ExtendedOffsetTable"), dataset.get("ExtendedOffsetTableLengths")
    extended = None if None in tables else tables
    with _codec_errors():
        return get_frame(
            data, (header.frame or 1) - 1, number_of_frames=header.number_of_frames, extended_offsets=extended
        )


def _decode_stream(frame: bytes, header: Header, out: Hu | None) -> npt.NDArray[Any]:
    """Decode a codestream that is whole and announces our image: some codecs invent what is cut off."""
    decode = codec_of(header.transfer_syntax_uid)
    is_jpeg2000 = header.transfer_syntax_uid in _JPEG2000
    announced = _jpeg2000_size(frame) if is_jpeg2000 else _jpeg_size(frame)
    expected = (header.rows, header.columns, header.samples_per_pixel)
    if announced != expected:
        raise UnreadablePixels(f"the codestream announces {announced} rows, columns and samples, not {expected}")
    if not frame.rstrip(b"\0").endswith(_END_OF_IMAGE):
        raise UnreadablePixels("the compressed pixel data is cut off")
    image: npt.NDArray[Any]
    if out is not None:
        with suppress(ValueError):  # 8 bits a pixel, or another shape: not what ``out`` holds
            image = decode(frame, out=out)
            return image
    image = decode(frame)
    return image


def _jpeg2000_size(frame: bytes) -> tuple[int, int, int] | None:
    """Read rows, columns and samples from a codestream's own header, so that a lie costs no memory; None if absent."""
    start = _jpeg2000_at(frame)
    if frame[start : start + 4] != _JPEG2000_START:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
    (samples,) = struct.unpack_from(">H", frame, start + 40)
    return bottom - top, right - left, samples


def _jpeg2000_at(frame: bytes) -> int:
    """Return where a codestream starts: at once, as it must (PS3.5 A.4.4), or in its box of a JP2 file."""
    at = 0
    while not frame.startswith(_JPEG2000_START) and at + 8 <= len(frame):
        length, kind = struct.unpack_from(">L4s", frame, at)
        if kind == b"jp2c":
            return at + (16 if length == 1 else 8)
        at += max(length, 8)
    return at


def _jpeg_size(frame: bytes) -> tuple[int, int, int] | None:
    """Do the same for JPEG and JPEG-LS, whose frame header follows tables and comments."""
    at = 2
    while at < len(frame) and frame[at] == 0xFF:
        marker, length = struct.unpack_from(">xBH", frame, at)
        if marker in _JPEG_FRAME_HEADERS:
            rows, columns, samples = struct.unpack_from(">HHB", frame, at + 5)
            return rows, columns, samples
        at += 1 if marker == 0xFF else 2 + length
    return None


def _decode_rle(frame: bytes, header: Header) -> npt.NDArray[Any]:
    dtype = np.dtype(f"<u{header.bits_allocated // 8}")
    planes = (header.samples_per_pixel, header.rows, header.columns)
    data = bytes(imagecodecs.dicomrle_decode(frame, dtype, out=math.prod(planes) * dtype.itemsize))
    image = np.frombuffer(data, dtype=dtype).reshape(planes)
    return image[0] if header.samples_per_pixel == 1 else np.moveaxis(image, 0, -1)


def as_stored(image: npt.NDArray[Any], header: Header) -> Stored:
    """Read raw integers, as the file or a codec holds them, as the stored values that they mean."""
    values = image.astype(np.int32, copy=True)
    if header.bits_stored == 32:
        return values
    stored = _low_bits(values, header.bits_stored, header)
    if header.pixel_padding is None or header.bits_stored == header.bits_allocated:
        return stored
    whole = _low_bits(values, header.bits_allocated, header)
    low, high = header.pixel_padding
    return np.where((whole >= low) & (whole <= high), whole, stored)


def _low_bits(values: Stored, bits: int, header: Header) -> Stored:
    """Read the lowest ``bits`` of each value, as a signed number where the header says so."""
    low = values & ((1 << bits) - 1) if bits < 32 else values
    if header.pixel_representation != 1 or bits == 32:
        return low
    sign = 1 << (bits - 1)
    return (low ^ sign) - sign
