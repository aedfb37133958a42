"""Does the quick scan say of every file what pydicom says of it?"""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs_bridge.errors import CannotUnderstand
from pacs_bridge.part10 import DicomFile, file_header, read_file
from pacs_bridge.sending.quick_meta import read_file_meta, scanned

HEADER = file_header("1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2.840.10008.1.2.1", "CT01")
DATA_SET = b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100"


def test_it_reads_what_we_write() -> None:
    path = Path("x")
    expected = DicomFile(
        path=path,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid="1.2.3",
        transfer_syntax="1.2.840.10008.1.2.1",
        offset=len(HEADER),
    )
    assert expected == scanned(path, HEADER + DATA_SET)


def test_it_agrees_with_pydicom_on_every_real_file(shared_data: Path) -> None:
    files = [path for path in shared_data.rglob("*") if path.is_file() and path.suffix in ("", ".dcm")][:300]
    assert files
    for path in files:
        try:
            expected = read_file(path)
        except CannotUnderstand:
            with pytest.raises(CannotUnderstand):
                read_file_meta(path)
        else:
            assert expected == read_file_meta(path)


@given(at=st.integers(128, len(HEADER) - 1), value=st.integers(0, 255))
def test_of_a_damaged_file_it_says_what_pydicom_says_or_leaves_it_to_that(
    at: int, value: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    damaged = bytearray(HEADER + DATA_SET)
    damaged[at] = value
    path = tmp_path_factory.getbasetemp() / "damaged.dcm"
    path.write_bytes(damaged)
    quick = scanned(path, bytes(damaged))
    if quick is not None:
        assert read_file(path) == quick


@given(start=st.binary(max_size=300))
def test_arbitrary_bytes_are_left_to_pydicom(start: bytes) -> None:
    assert scanned(Path("x"), bytes(128) + b"DICM" + start) is None
