"""How does a data set become a Part-10 file, and which data set lies in one (PS3.10, section 7.1)?"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom.errors import InvalidDicomError
from pynetdicom.dsutils import split_dataset

from pacs_bridge.errors import CannotUnderstand

# Names who wrote the file, not who made the image; so it differs from the UID by which our results are recognised.
ARCHIVE_IMPLEMENTATION_CLASS_UID: Final = "2.25.123987575715923321576312513858398789851"
ARCHIVE_VERSION_NAME: Final = "CTRIAGE_ARCHIVE"


# What pydicom raises over a few changed bytes of file meta information
_DAMAGES: Final = (
    InvalidDicomError, AttributeError, ValueError, EOFError, struct.error, NotImplementedError, KeyError, TypeError,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomFile:
    """A Part-10 file, ready to be sent as it is: its data set starts at byte ``offset``."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str
    offset: int


def file_header(sop_class_uid: str, sop_instance_uid: str, transfer_syntax: str, source_ae: str) -> bytes:
    """Encode preamble and file meta information for a data set that follows as it was received."""
    elements = b"".join(
        (
            struct.pack("<HH2sHL", 2, 1, b"OB", 0, 2) + b"\0\1",
            _uid(0x02, sop_class_uid),
            _uid(0x03, sop_instance_uid),
            _uid(0x10, transfer_syntax),
            _uid(0x12, ARCHIVE_IMPLEMENTATION_CLASS_UID),
            _short(0x13, b"SH", ARCHIVE_VERSION_NAME.encode("ascii"), b" "),
            _short(0x16, b"AE", source_ae.encode("ascii", "replace"), b" "),
        )
    )
    return bytes(128) + b"DICM" + struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(elements)) + elements


def read_file(path: Path) -> DicomFile:
    """Read what a file is from its meta information. Raises CannotUnderstand when it has none, OSError as it comes."""
    try:
        meta, offset = split_dataset(path)
        return DicomFile(
            path=path,
            sop_class_uid=str(meta.MediaStorageSOPClassUID),
            sop_instance_uid=str(meta.MediaStorageSOPInstanceUID),
            transfer_syntax=str(meta.TransferSyntaxUID),
            offset=offset,
        )
    except _DAMAGES as unreadable:
        raise CannotUnderstand("it is no DICOM file with file meta information") from unreadable


def _uid(element: int, value: str) -> bytes:
    return _short(element, b"UI", value.encode("ascii"), b"\0")


def _short(element: int, vr: bytes, value: bytes, padding: bytes) -> bytes:
    value += padding * (len(value) % 2)
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value
