"""Is the header that is read in passing the one that its archived file tells?"""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from pacs_bridge.arrived_header import header_of, in_file
from pacs_bridge.elements import BIG_ENDIAN, elements_of
from pacs_bridge.errors import CannotUnderstand
from pacs_bridge.part10 import file_header, read_file
from reconstruction.errors import NotDicom
from reconstruction.headers import Header, read_header
from reconstruction.part10 import PIXEL_DATA

DATA_ROOT = Path(pydicom.__file__).parent / "data"
MakeSlice = Callable[..., Dataset]
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"


def archived(dataset: bytes, syntax: str, folder: Path) -> tuple[Header | None, Header]:
    """Return the header read in passing, moved to the archived file, and the one that this file tells."""
    meta = file_header("1.2.840.10008.5.1.4.1.1.2", "1.2.3", syntax, "CT1")
    path = folder / "archived.dcm"
    path.write_bytes(meta + dataset)
    found = header_of(elements_of(dataset, syntax), syntax)
    return (None if found is None else in_file(found, len(meta))), read_header(path)


def differences(one: Header, other: Header) -> dict[str, tuple[Any, Any]]:
    pairs = {each.name: (getattr(one, each.name), getattr(other, each.name)) for each in fields(Header)}
    return {name: pair for name, pair in pairs.items() if repr(pair[0]) != repr(pair[1])}


def test_every_real_series_tells_the_same_in_passing_as_from_its_file(shared_data: Path, tmp_path: Path) -> None:
    in_passing = 0
    for path in sorted(p for p in shared_data.rglob("*.dcm") if p.parent.name != "syntaxes"):
        try:
            file = read_file(path)
            found, read = archived(path.read_bytes()[file.offset :], file.transfer_syntax, tmp_path)
        except (CannotUnderstand, NotDicom):
            continue
        if found is not None:
            in_passing += 1
            assert {} == differences(found, read), path
    assert in_passing > 200


def test_every_odd_file_of_pydicom_tells_the_same_or_is_left_to_its_reader(tmp_path: Path) -> None:
    told = 0
    for name in sorted(str(path) for path in (DATA_ROOT / "test_files").glob("*.dcm")):
        try:
            file = read_file(Path(name))
            found, read = archived(Path(name).read_bytes()[file.offset :], file.transfer_syntax, tmp_path)
        except (CannotUnderstand, NotDicom):
            continue
        if found is not None:
            told += 1
            assert {} == differences(found, read), name
    assert told > 30


def encoded(dataset: Dataset, syntax: str) -> bytes:
    target = DicomBytesIO()
    target.is_little_endian, target.is_implicit_VR = True, syntax == IMPLICIT
    write_dataset(target, dataset)
    return target.getvalue()


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_pixels_are_where_the_archived_file_has_them(make_slice: MakeSlice, tmp_path: Path, syntax: str) -> None:
    image = make_slice(1)
    found, read = archived(encoded(image, syntax), syntax, tmp_path)
    assert found is not None
    assert {} == differences(found, read)
    assert found.pixels_at is not None
    assert found.pixels_length is not None
    content = (tmp_path / "archived.dcm").read_bytes()
    assert image.PixelData == content[found.pixels_at : found.pixels_at + found.pixels_length]


def test_what_is_out_of_order_or_not_as_declared_is_left_to_who_reads_the_file(make_slice: MakeSlice) -> None:
    plain = encoded(make_slice(1), EXPLICIT)
    at = elements_of(plain, EXPLICIT).places[0x00200013].at
    end = elements_of(plain, EXPLICIT).places[PIXEL_DATA].at
    shuffled = plain[at:end] + plain[:at] + plain[end:]
    without_vr = plain.replace(b"\x20\x00\x13\x00IS\x02\x00", b"\x20\x00\x13\x00\x02\x00\x00\x00")
    assert without_vr != plain
    assert header_of(elements_of(plain, EXPLICIT), EXPLICIT) is not None
    assert header_of(elements_of(plain, EXPLICIT), BIG_ENDIAN) is None
    for odd in (b"", shuffled, without_vr):
        assert header_of(elements_of(odd, EXPLICIT), EXPLICIT) is None
