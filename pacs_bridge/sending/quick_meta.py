"""What is a Part-10 file, for a sender of hundreds? A scan of its meta information that leaves doubts to pydicom."""

import os
import struct
from pathlib import Path
from typing import Final

from pacs_bridge.part10 import DicomFile, read_file

_READ_AT_ONCE: Final = 1024
_PREAMBLE: Final = 132
_GROUP_LENGTH: Final = b"\x02\x00\x00\x00UL\x04\x00"
_SHORT = struct.Struct("<HH2sH")
_NONE: Final = (0, 0, b"", 0)
_LONG_VRS: Final = (b"OB", b"UR")
_SHORT_VRS: Final = (b"UI", b"SH", b"AE", b"UL")
"""Those of file meta information (PS3.10, table 7.1-1)."""
_UIDS: Final = (0x0002, 0x0003, 0x0010, 0x0012, 0x0100)
_SOP_CLASS, _SOP_INSTANCE, _TRANSFER_SYNTAX = 0x0002, 0x0003, 0x0010


def read_file_meta(path: Path) -> DicomFile:
    """Do what `pacs_bridge.part10.read_file` does, at a tenth of its time where the file is as usual."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        start = os.read(descriptor, _READ_AT_ONCE)
    finally:
        os.close(descriptor)
    return scanned(path, start) or read_file(path)


def scanned(path: Path, start: bytes) -> DicomFile | None:
    """Return what the first bytes of a file say, None where they are unusual in any way (PS3.10, 7.1)."""
    offset = _PREAMBLE + len(_GROUP_LENGTH) + 4
    if start[128:132] != b"DICM" or start[_PREAMBLE : offset - 4] != _GROUP_LENGTH or len(start) < offset:
        return None
    end = offset + int.from_bytes(start[offset - 4 : offset], "little")
    if end + 2 > len(start) or start[end : end + 2] == b"\x02\x00":
        return None
    found = _elements(start[offset:end])
    uids = [_uid(found.get(element, b"")) for element in (_SOP_CLASS, _SOP_INSTANCE, _TRANSFER_SYNTAX)]
    if not all(uids):
        return None
    return DicomFile(path=path, sop_class_uid=uids[0], sop_instance_uid=uids[1], transfer_syntax=uids[2], offset=end)


def _elements(meta: bytes) -> dict[int, bytes]:
    """Return the short elements of group 0002; none at all where anything is unusual."""
    found, at, before = dict[int, bytes](), 0, 0
    while at < len(meta):
        group, element, vr, length = _SHORT.unpack_from(meta, at) if at + 8 <= len(meta) else _NONE
        at += _SHORT.size
        if vr in _LONG_VRS:
            length = 4 + int.from_bytes(meta[at : at + 4], "little")
        is_usual = vr in _LONG_VRS or (vr in _SHORT_VRS and (vr == b"UI") == (element in _UIDS))
        if group != 2 or element <= before or not is_usual or at + length > len(meta):
            return {}
        found[element] = meta[at : at + length]
        at, before = at + length, element
    return found


def _uid(value: bytes) -> str:
    """Return a UID's text, nothing where the value is none (PS3.5, 9.1)."""
    text = value.rstrip(b"\0")
    return text.decode("ascii") if 0 < len(text) <= 64 and not text.strip(b"0123456789.") else ""
