"""What is read from a data set on its way in, and what is refused."""

import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.sequence import Sequence

from pacs_bridge.elements import MAX_DEPTH
from pacs_bridge.errors import CannotUnderstand
from pacs_bridge.instance import facts_from_json, is_uid, read_facts
from pacs_bridge.part10 import file_header, read_file

EXPLICIT = "1.2.840.10008.1.2.1"
Encode = Callable[[Dataset], bytes]
MakeSlice = Callable[..., Dataset]


def test_facts_agree_with_pydicom_on_every_real_file(shared_data: Path) -> None:
    compared = 0
    for path in sorted(path for path in shared_data.rglob("*") if path.is_file()):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
        except InvalidDicomError:
            continue
        if "StudyInstanceUID" not in header or "FileMetaInformationGroupLength" not in header.file_meta:
            continue
        file = read_file(path)
        facts = read_facts(path.read_bytes()[file.offset :], file.transfer_syntax)
        assert str(header.SOPInstanceUID) == facts.sop_instance_uid
        assert str(header.get("PatientName", "")).strip() == facts.patient_name
        assert str(header.get("PatientID") or "").strip() == facts.patient_id
        assert header.get("InstanceNumber") == facts.instance_number
        assert (header.get("Rows"), header.get("Columns")) == (facts.rows, facts.columns)
        assert [*(header.get("ImagePositionPatient") or [])] == [*(facts.image_position or [])]
        assert header.get("SliceThickness") == facts.slice_thickness_mm
        compared += 1
    assert compared > 300


def test_the_position_lies_along_the_normal_of_a_tilted_slice(make_slice: MakeSlice, encode: Encode) -> None:
    tilted = make_slice(ImageOrientationPatient=[1, 0, 0, 0, 0.8, -0.6], ImagePositionPatient=[7, 6, 8])
    facts = read_facts(encode(tilted), EXPLICIT)
    assert facts.position_mm == pytest.approx(0.6 * 6 + 0.8 * 8)


@pytest.mark.parametrize("cut", [1, 7, 31, 40, 150])
def test_a_truncated_data_set_is_refused(make_slice: MakeSlice, encode: Encode, cut: int) -> None:
    with pytest.raises(CannotUnderstand):
        read_facts(encode(make_slice())[:-cut], EXPLICIT)


def test_truncated_encapsulated_pixels_are_refused(shared_data: Path) -> None:
    found = [read_file(path) for path in sorted((shared_data / "syntaxes").glob("*.dcm"))]
    encapsulated = [file for file in found if file.transfer_syntax.startswith("1.2.840.10008.1.2.4")]
    assert encapsulated
    for file in encapsulated:
        whole = file.path.read_bytes()[file.offset :]
        with pytest.raises(CannotUnderstand):
            read_facts(whole[: len(whole) * 3 // 4], file.transfer_syntax)


def test_a_data_set_without_a_study_is_refused(make_slice: MakeSlice, encode: Encode) -> None:
    homeless = make_slice()
    del homeless.StudyInstanceUID
    with pytest.raises(CannotUnderstand, match="study instance uid is missing"):
        read_facts(encode(homeless), EXPLICIT)


def test_deep_nesting_is_refused_without_recursion() -> None:
    level = struct.pack("<HH2sHL", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    with pytest.raises(CannotUnderstand, match="nested"):
        read_facts(level * 10_000, EXPLICIT)


def test_the_nesting_of_real_objects_is_let_pass(make_slice: MakeSlice, encode: Encode) -> None:
    deep = Dataset()
    for _ in range(MAX_DEPTH // 2 - 2):
        outer = Dataset()
        outer.ContentSequence = Sequence([deep])
        outer["ContentSequence"].is_undefined_length = True
        outer.ContentSequence[0].is_undefined_length_sequence_item = True
        deep = outer
    assert read_facts(encode(make_slice(ContentSequence=deep.ContentSequence)), EXPLICIT).modality == "CT"


def test_a_deflated_data_set_is_read_and_a_broken_one_refused(make_slice: MakeSlice, encode: Encode) -> None:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = deflater.compress(encode(make_slice())) + deflater.flush()
    assert read_facts(deflated, "1.2.840.10008.1.2.1.99").instance_number == 1
    with pytest.raises(CannotUnderstand):
        read_facts(deflated[: len(deflated) // 2], "1.2.840.10008.1.2.1.99")


@pytest.mark.parametrize(
    ("character_set", "encoded"),
    [
        ("ISO_IR 100", "Ibáñez^Núñez".encode("latin-1")),
        ("ISO_IR 192", "Ibáñez^Núñez".encode()),
        ("", "Ibáñez^Núñez".encode("latin-1")),
    ],
)
def test_a_name_reads_the_same_in_whatever_character_set(
    make_slice: MakeSlice, encode: Encode, character_set: str, encoded: bytes
) -> None:
    plain = encode(make_slice(SpecificCharacterSet=character_set, PatientName="X" * len(encoded)))
    facts = read_facts(plain.replace(b"X" * len(encoded), encoded), EXPLICIT)
    assert facts.patient_name == "Ibáñez^Núñez"


def test_uids_are_digits_and_dots() -> None:
    assert is_uid("1.2.840.010.0")
    for wrong in ("", "1..2", "../etc", "1.2\n", "1.a", "1" * 65):
        assert not is_uid(wrong)


def test_facts_survive_json(make_slice: MakeSlice, encode: Encode) -> None:
    facts = read_facts(encode(make_slice(ImageType=["ORIGINAL", "PRIMARY", "AXIAL"])), EXPLICIT)
    assert facts_from_json(facts.as_json()) == facts


@given(st.binary(max_size=400), st.sampled_from([EXPLICIT, "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"]))
def test_any_bytes_are_understood_or_refused(garbage: bytes, syntax: str) -> None:
    with pytest.raises(CannotUnderstand):
        read_facts(garbage, syntax)


@given(damage=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4))
def test_a_damaged_data_set_is_understood_or_refused(
    damage: list[tuple[int, int]], make_slice: MakeSlice, encode: Encode
) -> None:
    damaged = bytearray(encode(make_slice()))
    for position, value in damage:
        damaged[position % len(damaged)] = value
    with suppress(CannotUnderstand):
        assert is_uid(read_facts(bytes(damaged), EXPLICIT).sop_instance_uid)


def test_a_files_header_is_what_pydicom_reads(make_slice: MakeSlice, encode: Encode, tmp_path: Path) -> None:
    written = make_slice()
    header = file_header(written.SOPClassUID, written.SOPInstanceUID, EXPLICIT, "SENDER")
    path = tmp_path / "x.dcm"
    path.write_bytes(header + encode(written))
    back = pydicom.dcmread(path)
    assert back == written
    assert back.file_meta.SourceApplicationEntityTitle == "SENDER"
    assert len(header) == read_file(path).offset


def test_a_text_far_longer_than_the_standard_allows_is_cut(make_slice: Any, encode: Any) -> None:
    facts = read_facts(encode(make_slice(StudyDescription="x" * 60_000)), "1.2.840.10008.1.2.1")
    assert "x" * 1024 == facts.study_description
