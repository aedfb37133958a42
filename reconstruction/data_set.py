"""Which data set does a Part-10 file hold, read whole by pydicom?"""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import _read_file_meta_info as read_file_meta
from pydicom.filereader import read_dataset as parse
from pydicom.filereader import read_preamble

from reconstruction.errors import NotDicom
from reconstruction.part10 import DEFLATED_LE, META_WITHOUT_PREAMBLE, PIXEL_DATA

BROKEN_ELEMENT = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)
"""What pydicom raises where the bytes of one element cannot be converted to its type."""

_UNDEFINED = 0xFFFFFFFF
_MOST_HEADER_BYTES = 64 << 20
_MOST_PIXEL_BYTES = 1 << 30
"""A deflated file may inflate to its announced pixels, up to a gigabyte, and 64 MB: a bomb makes a thousand times its
size."""


def read_dataset(path: Path, *, pixels: bool = False) -> Dataset:
    """Read a Part-10 file (a missing preamble is forgiven), by default without its pixel data.

    Raises NotDicom where there is no data set that can be read, with the reason.
    """
    with _refusals():
        if (deflated := _read_deflated(path, pixels=pixels)) is not None:
            dataset: Dataset = deflated
        else:
            dataset = pydicom.dcmread(path, stop_before_pixels=not pixels, force=_lacks_preamble(path))
    if len(dataset) == 0:
        raise NotDicom("the file is cut off")
    if "SOPInstanceUID" not in dataset:
        is_directory = "DirectoryRecordSequence" in dataset
        raise NotDicom("a DICOMDIR" if is_directory else "no SOP Instance UID", is_foreign=is_directory)
    return dataset


def pixels_of(path: Path) -> tuple[int | None, int | None]:
    """Return where pydicom finds the value of Pixel Data, and its length where it is stated."""
    with _refusals(), path.open("rb") as file:
        pydicom.dcmread(file, stop_before_pixels=True, force=_lacks_preamble(path))
        at, head = file.tell(), file.read(12)
    if len(head) < 12 or head[:4] != b"\xe0\x7f\x10\x00":
        return None, None
    is_explicit = head[4:6] in (b"OB", b"OW", b"UN")
    (length,) = struct.unpack_from("<L", head, 8 if is_explicit else 4)
    return at + (12 if is_explicit else 8), None if length == _UNDEFINED else length


@contextmanager
def _refusals() -> Iterator[None]:
    """Translate what pydicom raises over a file it cannot read."""
    try:
        yield
    except InvalidDicomError as error:
        raise NotDicom("not a DICOM file", is_foreign=True) from error
    except RecursionError as error:
        raise NotDicom("its sequences are nested too deeply") from error
    except (*BROKEN_ELEMENT, EOFError, MemoryError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise NotDicom(f"the file cannot be opened: {error.strerror}") from error
        raise NotDicom(f"damaged DICOM file: {type(error).__name__}") from error


def _lacks_preamble(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(6) == META_WITHOUT_PREAMBLE


def _read_deflated(path: Path, *, pixels: bool) -> Dataset | None:
    """Read a deflated file (PS3.5 A.5) that inflates to no more than its image takes; None for any other file.

    What it is follows from the File Meta Information as pydicom reads it, who would inflate without an end.
    """
    with path.open("rb") as file:
        preamble = read_preamble(file, _lacks_preamble(path))
        meta = read_file_meta(file)
        if meta.get("TransferSyntaxUID") != DEFLATED_LE:
            return None
        content = _inflated(file.read())
    dataset = parse(BytesIO(content), False, True, stop_when=None if pixels else _is_pixels)  # noqa: FBT003
    whole = FileDataset(path, dataset, preamble, meta, is_implicit_VR=False, is_little_endian=True)
    whole.set_original_encoding(False, True, dataset._character_set)  # noqa: FBT003
    return whole


def _inflated(content: bytes) -> bytes:
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = stream.decompress(content, _MOST_HEADER_BYTES)
    if len(inflated) == _MOST_HEADER_BYTES:
        most = _announced_bytes(inflated)
        rest = stream.decompress(stream.unconsumed_tail, most + 1)
        if len(rest) > most:
            megabytes = (_MOST_HEADER_BYTES + most) >> 20
            raise NotDicom(f"its deflated data set inflates to more than {megabytes} MB; its image needs less")
        inflated += rest
    if not stream.eof:
        raise zlib.error
    return inflated


def _announced_bytes(start: bytes) -> int:
    """Return how many bytes of pixels a data set announces, as far as we would ever read them."""
    dataset = parse(BytesIO(start), False, True, stop_when=_is_pixels)  # noqa: FBT003 - explicit, little endian
    product = 1
    for keyword in ("Rows", "Columns", "NumberOfFrames", "BitsAllocated"):
        product *= max(int(dataset.get(keyword) or 1), 0)
    return min(product // 8, _MOST_PIXEL_BYTES)


def _is_pixels(tag: int, _vr: str | None, _length: int) -> bool:
    return tag in (PIXEL_DATA, 0x7FE00008, 0x7FE00009)
