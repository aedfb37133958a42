"""How does an object read in a transfer syntax that its peer takes, without losing anything?

To Implicit or Explicit VR Little Endian, from whatever is plain or can be decompressed; never into what compresses.
"""

import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom.encaps import generate_frames

from pacs_bridge.elements import BIG_ENDIAN as BIG_ENDIAN_SYNTAX
from pacs_bridge.elements import DEFLATED
from pacs_bridge.errors import CannotTranscode, CannotUnderstand
from pacs_bridge.part10 import read_file
from pacs_bridge.transcode_elements import (
    BIG_ENDIAN,
    BITS_ALLOCATED,
    EXPLICIT,
    IMPLICIT,
    PIXEL_REPRESENTATION,
    Encoding,
    Native,
    number_of,
    recoded,
)
from reconstruction.decode import decompress
from reconstruction.errors import UnreadablePixels
from reconstruction.headers import Header
from reconstruction.part10 import EXPLICIT_LE, IMPLICIT_LE
from scheduler.errors import Permanent

MOST_BYTES: Final = 512 * 2**20
"""Neither an object nor what becomes of it may be larger: it is held in memory, next to others."""

TARGETS: Final = {EXPLICIT_LE: EXPLICIT, IMPLICIT_LE: IMPLICIT}
_SAMPLES, _PHOTOMETRIC, _PLANAR, _FRAMES = 0x00280002, 0x00280004, 0x00280006, 0x00280008
_ROWS, _COLUMNS, _BITS_STORED, _LOSSY = 0x00280010, 0x00280011, 0x00280101, 0x00282110
_BECOME_RGB: Final = {
    # libjpeg and OpenJPEG undo the colour transforms that belong to the compression (PS3.3 C.7.6.3.1.2).
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{end}" for end in (50, 51, 53, 55)), ("YBR_FULL", "YBR_FULL_422")),
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{end}" for end in (90, 91, 201, 202, 203)), ("YBR_RCT", "YBR_ICT")),
}
_ALWAYS_LOSSY: Final = frozenset(f"1.2.840.10008.1.2.4.{end}" for end in (50, 51, 53, 55))
_COLOUR_MARKS: Final = (b"JFIF\0", b"Adobe")
# Tells the decoder that three components are no YCbCr, where the stream itself says nothing.
_ADOBE_RGB: Final = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"


def transcoded_file(path: Path, transfer_syntax: str, *, most_bytes: int = MOST_BYTES) -> bytes:
    """Return the data set of a Part-10 file, without file meta information, in another transfer syntax.

    Raises Permanent, with the reason, where that cannot be done; OSError where a file that is there cannot be read now.
    """
    try:
        file = read_file(path)
        with path.open("rb") as opened:
            opened.seek(file.offset)
            dataset = opened.read(most_bytes + 1)
        return transcoded(dataset, file.transfer_syntax, transfer_syntax, most_bytes=most_bytes)
    except FileNotFoundError as gone:
        raise Permanent(f"a file cannot be read: {gone.strerror}") from gone
    except (CannotTranscode, CannotUnderstand) as impossible:
        raise Permanent(str(impossible)) from impossible


def transcoded(dataset: bytes, source: str, target: str, *, most_bytes: int = MOST_BYTES) -> bytes:
    """Write a data set (no file meta information) in Implicit or Explicit VR Little Endian, every value as it is.

    What was compressed is decompressed: Photometric Interpretation and Planar Configuration then say what the pixels
    are, and what was compressed with loss says so (PS3.3 C.7.6.1.1.5). Raises CannotTranscode.
    """
    if target not in TARGETS:
        raise CannotTranscode("only uncompressed little endian syntaxes are written")
    if len(dataset) > most_bytes:
        raise CannotTranscode(f"it is larger than {most_bytes >> 20} MiB")
    expand = partial(_decompressed, transfer_syntax=source, most_bytes=most_bytes)
    content = _inflated(dataset, most_bytes) if source in DEFLATED else dataset
    return recoded(content, _encoding_of(source), TARGETS[target], expand)


def _encoding_of(transfer_syntax: str) -> Encoding:
    """All but two are Explicit VR Little Endian, but for their pixels (PS3.5 A.4)."""
    return {IMPLICIT_LE: IMPLICIT, BIG_ENDIAN_SYNTAX: BIG_ENDIAN}.get(transfer_syntax, EXPLICIT)


def _inflated(dataset: bytes, most_bytes: int) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        plain = inflater.decompress(dataset, most_bytes + 1)
    except zlib.error as broken:
        raise CannotTranscode("its deflated bytes are broken") from broken
    if len(plain) > most_bytes:
        raise CannotTranscode(f"it is larger than {most_bytes >> 20} MiB")
    return plain


@dataclass(frozen=True, slots=True, kw_only=True)
class _Image:
    """What a data set says of its pixels."""

    header: Header
    photometric: str

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        return self.header.rows, self.header.columns, self.header.samples_per_pixel

    @property
    def size_bytes(self) -> int:
        return math.prod(self.frame_shape) * self.header.number_of_frames * self.header.bits_allocated // 8


def _decompressed(about: Mapping[int, bytes], encapsulated: bytes, *, transfer_syntax: str, most_bytes: int) -> Native:
    image = _image_of(about, transfer_syntax)
    if image.size_bytes > most_bytes:
        raise CannotTranscode(f"its pixels would be larger than {most_bytes >> 20} MiB")
    pixels = bytearray()
    try:
        frames = generate_frames(encapsulated, number_of_frames=image.header.number_of_frames)
        for frame in frames:
            pixels += _plain(decompress(_coloured(frame, image), image.header), image.header)
            if len(pixels) > image.size_bytes:
                break
    except UnreadablePixels as unreadable:
        raise CannotTranscode(str(unreadable)) from unreadable
    except (ValueError, struct.error) as damaged:
        raise CannotTranscode("the frames of its pixel data cannot be told apart") from damaged
    if len(pixels) != image.size_bytes:
        raise CannotTranscode(f"its pixel data does not hold {image.header.number_of_frames} frame(s)")
    return Native(pixels=bytes(pixels), changes=_changes(about, image))


def _image_of(about: Mapping[int, bytes], transfer_syntax: str) -> _Image:
    header = Header(
        sop_instance_uid="",
        sop_class_uid="",
        transfer_syntax_uid=transfer_syntax,
        series_instance_uid="",
        modality="",
        rows=number_of(about, _ROWS),
        columns=number_of(about, _COLUMNS),
        number_of_frames=_count(about.get(_FRAMES, b"")),
        samples_per_pixel=number_of(about, _SAMPLES, 1),
        bits_allocated=number_of(about, BITS_ALLOCATED),
        bits_stored=number_of(about, _BITS_STORED),
        pixel_representation=number_of(about, PIXEL_REPRESENTATION),
    )
    if header.bits_allocated not in (8, 16, 32) or header.samples_per_pixel not in (1, 3) or not header.has_pixels:
        bits, samples = header.bits_allocated, header.samples_per_pixel
        raise CannotTranscode(f"compressed pixels of {samples} sample(s) of {bits} bits are not supported")
    return _Image(header=header, photometric=about.get(_PHOTOMETRIC, b"").decode("ascii", "replace").strip(" \0"))


def _count(text: bytes) -> int:
    digits = text.strip(b" \0")
    return int(digits) if digits.isdigit() and len(digits) < 10 else 1


def _coloured(frame: bytes, image: _Image) -> bytes:
    """Let a JPEG stream say that it holds RGB where only its data set does."""
    is_silent = not any(mark in frame[:64] for mark in _COLOUR_MARKS)
    if image.header.transfer_syntax_uid in _ALWAYS_LOSSY and image.photometric == "RGB" and is_silent:
        return frame[:2] + _ADOBE_RGB + frame[2:]
    return frame


def _plain(decoded: npt.NDArray[np.generic], header: Header) -> bytes:
    """Write what a codec returned in the bits that the header allocates, signs carried on."""
    if decoded.dtype.itemsize > header.bits_allocated // 8:
        raise UnreadablePixels(f"its codestream holds {8 * decoded.dtype.itemsize} bits for {header.bits_allocated}")
    if header.pixel_representation == 1 and decoded.dtype.kind == "u" and decoded.dtype.itemsize == 1:
        decoded = decoded.astype(np.int8, copy=False)
    return decoded.astype(f"<u{header.bits_allocated // 8}", copy=False).tobytes()


def _changes(about: Mapping[int, bytes], image: _Image) -> dict[int, tuple[bytes, bytes]]:
    changes: dict[int, tuple[bytes, bytes]] = {}
    if image.header.samples_per_pixel > 1:
        changes[_PLANAR] = (b"US", b"\0\0")
        if image.photometric in _BECOME_RGB.get(image.header.transfer_syntax_uid, ()):
            changes[_PHOTOMETRIC] = (b"CS", b"RGB ")
    if image.header.transfer_syntax_uid in _ALWAYS_LOSSY and about.get(_LOSSY, b"").strip() != b"01":
        changes[_LOSSY] = (b"CS", b"01")
    return changes
