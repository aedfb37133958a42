"""Headers are read as they are: what is damaged is None or NaN by name, and hides nothing else."""

import math
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from reconstruction.errors import NotDicom
from reconstruction.headers import (
    Header,
    pack,
    read_dataset,
    read_header,
    read_headers,
    text_of,
    transfer_syntax_of,
    unpack,
)

WriteCt = Callable[..., Path]
REAL_FOLDERS = (
    "head_ge_tilted",
    "head_normal_3mm",
    "chest_1mm",
    "abdomen_ge_revolution",
    "head_phantom_philips/scout",
    "head_phantom_philips/exam_summary",
    "syntaxes",
    "dose_reports",
)


def damaged(keyword: str, raw: bytes, *, vr: str | None = None) -> Header:
    """Read a header in which one element holds these raw bytes, beside a sound modality."""
    dataset = Dataset()
    dataset.Modality = "CT"
    tag = Tag(keyword)
    vr = vr or pydicom.datadict.dictionary_VR(tag)
    dataset[tag] = RawDataElement(tag, vr, len(raw), raw, 0, False, True)  # noqa: FBT003 - pydicom's own order
    return Header.from_dataset(dataset, "1.2.840.10008.1.2.1")


@pytest.mark.parametrize("folder", REAL_FOLDERS)
def test_real_headers_say_what_pydicom_reads(shared_data: Path, folder: str) -> None:
    paths = sorted((shared_data / folder).rglob("*"))
    for path in [p for p in paths if p.is_file() and p.name not in ("README.md", "DIRFILE", "LICENSE")]:
        header, expected = read_header(path), pydicom.dcmread(path, stop_before_pixels=True)
        assert expected.SOPInstanceUID == header.sop_instance_uid
        assert expected.file_meta.TransferSyntaxUID == header.transfer_syntax_uid
        assert expected.get("Rows", 0) == header.rows
        assert expected.get("ImagePositionPatient") == (header.position_mm and list(header.position_mm))
        assert expected.get("PixelSpacing") == (header.pixel_spacing_mm and list(header.pixel_spacing_mm))
        assert expected.get("RescaleSlope") == header.rescale_slope


def test_a_header_is_read_whole(write_ct: WriteCt) -> None:
    path = write_ct(PatientAge="006M", ConvolutionKernel="H30s", ImageType=["ORIGINAL", "PRIMARY"], ContentTime="1200")
    header = read_header(path)
    assert (4, 6, 16, 15, 1) == (header.rows, header.columns, header.bits_stored, header.high_bit, 1)
    assert (-10.0, -20.0, 30.0) == header.position_mm
    assert (1.0, 0.0, 0.0, 0.0, 1.0, 0.0) == header.orientation
    assert (0.5, 0.25) == header.pixel_spacing_mm
    assert ("H30s", ("ORIGINAL", "PRIMARY"), 0.5) == (header.kernel, header.image_type, header.age_years)
    assert "1200" == header.acquisition_time
    assert (1.0, -1024.0, None) == (header.rescale_slope, header.rescale_intercept, header.rescale_type)


def test_what_is_absent_is_none() -> None:
    header = Header.from_dataset(Dataset(), "1.2.840.10008.1.2")
    silent = (header.position_mm, header.orientation, header.pixel_spacing_mm, header.frame_of_reference_uid)
    assert (None, None, None, None) == silent
    assert (None, None, None, None) == (header.rescale_slope, header.kvp, header.instance_number, header.pixel_padding)
    assert not header.has_pixels


@pytest.mark.parametrize(
    ("keyword", "raw", "field", "expected"),
    [
        ("ImagePositionPatient", b"1\\NaN\\3 ", "position_mm", (1.0, math.nan, 3.0)),
        ("ImagePositionPatient", b"1\\x\\3 ", "position_mm", (1.0, math.nan, 3.0)),
        ("ImagePositionPatient", b"1\\\\3 ", "position_mm", (1.0, math.nan, 3.0)),
        ("ImagePositionPatient", b"1\\2 ", "position_mm", None),
        ("ImagePositionPatient", b"", "position_mm", None),
        ("PixelSpacing", b"0.5 ", "pixel_spacing_mm", None),
        ("RescaleSlope", b"1,0 ", "rescale_slope", math.nan),
        ("RescaleSlope", b"", "rescale_slope", None),
        ("KVP", b"NaN ", "kvp", math.nan),
        ("InstanceNumber", b"abc ", "instance_number", None),
        ("InstanceNumber", b"1e999 ", "instance_number", None),
        ("InstanceNumber", b"3.0 ", "instance_number", 3),
        ("Rows", b"\1", "rows", 0),
        ("Rows", b"\1\0\2\0", "rows", 0),
        ("NumberOfFrames", b"", "number_of_frames", 1),
        ("ImageType", b"", "image_type", ("",)),
        ("FrameOfReferenceUID", b"", "frame_of_reference_uid", None),
        ("PatientAge", b"030Y", "age_years", 30.0),
        ("PatientAge", b"\xb2Y", "age_years", None),
        ("PatientAge", b"Y", "age_years", None),
    ],
)
@pytest.mark.filterwarnings("ignore:.*(valid|Invalid).*:UserWarning")
def test_a_damaged_value_stays_visible_and_hides_no_other(keyword: str, raw: bytes, field: str, expected: Any) -> None:
    header = damaged(keyword, raw)
    assert "CT" == header.modality
    assert str(expected) == str(getattr(header, field))


@pytest.mark.parametrize("vr", ["SQ", "OB", "UN", "US", "ZZ", "FD"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_position_of_a_wrong_type_is_none(vr: str) -> None:
    header = damaged("ImagePositionPatient", b"abc", vr=vr)
    assert ("CT", None) == (header.modality, header.position_mm)


@pytest.mark.parametrize(
    ("padding", "limit", "representation", "expected"),
    [
        (b"\x30\xf8", None, 1, (-2000, -2000)),  # 63536 declared unsigned, pixels signed: seen from GE
        (b"\x30\xf8", None, 0, (63536, 63536)),
        (b"\x05\x00", b"\x02\x00", 0, (2, 5)),
    ],
)
def test_padding_has_the_sign_of_the_pixels(
    padding: bytes, limit: bytes | None, representation: int, expected: tuple[int, int]
) -> None:
    dataset = Dataset()
    dataset.PixelRepresentation = representation
    for keyword, raw in (("PixelPaddingValue", padding), ("PixelPaddingRangeLimit", limit)):
        if raw is not None:
            dataset[Tag(keyword)] = RawDataElement(Tag(keyword), "US", 2, raw, 0, False, True)  # noqa: FBT003
    assert expected == Header.from_dataset(dataset, "1.2.840.10008.1.2.1").pixel_padding


def test_one_attribute_is_read_as_text_whatever_its_bytes_are() -> None:
    dataset = Dataset()
    dataset.PatientID = "P1"
    tag = Tag("StudyInstanceUID")
    dataset[tag] = RawDataElement(tag, "FD", 3, b"abc", 0, False, True)  # noqa: FBT003 - pydicom's own order
    assert ("P1", "", "") == tuple(text_of(dataset, k) for k in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID"))


def test_a_missing_preamble_is_forgiven(write_ct: WriteCt) -> None:
    path = write_ct()
    path.write_bytes(path.read_bytes()[132:])
    assert "2.25.1" == read_header(path).sop_instance_uid


@pytest.mark.parametrize("content", [b"", b"no DICOM here" * 100, bytes(4096), b"\x08\x00" * 500, b"\x02\x00\x00\x00"])
def test_what_never_was_dicom_is_foreign(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(NotDicom, match="not a DICOM file") as refused:
        read_header(path)
    assert refused.value.is_foreign


def test_a_dicomdir_is_foreign_and_named(shared_data: Path) -> None:
    with pytest.raises(NotDicom, match="a DICOMDIR") as refused:
        read_header(shared_data / "head_phantom_philips" / "bone_1mm" / "DIRFILE")
    assert refused.value.is_foreign


def test_a_file_without_a_name_is_damaged_not_foreign(write_ct: WriteCt) -> None:
    path = write_ct()
    path.write_bytes(path.read_bytes()[:132])
    with pytest.raises(NotDicom, match="cut off") as refused:
        read_header(path)
    assert not refused.value.is_foreign


def test_a_file_that_is_not_there_cannot_be_opened(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.dcm", tmp_path):
        with pytest.raises(NotDicom, match="cannot be opened"):
            read_header(path)


def test_sequences_without_end_are_refused(write_ct: WriteCt) -> None:
    path = write_ct()
    opening = bytes.fromhex("40000502") + b"SQ\0\0\xff\xff\xff\xff" + bytes.fromhex("feff00e0ffffffff")
    path.write_bytes(path.read_bytes() + opening * 5000)
    with pytest.raises(NotDicom, match="nested too deeply"):
        read_header(path)


@pytest.mark.parametrize("transfer_syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"])
def test_a_file_cut_off_anywhere_is_read_or_refused(write_ct: WriteCt, transfer_syntax: str) -> None:
    path = write_ct(transfer_syntax=transfer_syntax, PatientAge="030Y", ReferencedStudySequence=[Dataset()])
    whole = path.read_bytes()
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        assert_read_or_refused(path)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.dictionaries(st.integers(132, 900), st.integers(0, 255), min_size=1, max_size=4))
def test_a_file_with_wrong_bytes_is_read_or_refused(write_ct: WriteCt, changes: dict[int, int]) -> None:
    path = write_ct(transfer_syntax="1.2.840.10008.1.2.1", ReferencedStudySequence=[Dataset()])
    content = bytearray(path.read_bytes())
    for at, value in changes.items():
        content[at % len(content)] = value
    path.write_bytes(content)
    assert_read_or_refused(path)


def assert_read_or_refused(path: Path) -> None:
    """Nothing but NotDicom may come out, each with a reason."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            assert read_header(path).sop_instance_uid is not None
            read_dataset(path, pixels=True)
        except NotDicom as refused:
            assert refused.reason  # noqa: PT017 - either outcome is right


def by_pydicom(path: Path) -> Header | str:
    """Read a Header through a whole parse, or say why there is none."""
    try:
        dataset = read_dataset(path)
    except NotDicom as refused:
        return str(refused)
    return Header.from_dataset(dataset, transfer_syntax_of(dataset))


def assert_reads_as_pydicom(path: Path) -> Header | str:
    """The scan and the parse must say the same, refusals included; NaN is the same as NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = by_pydicom(path)
        try:
            header: Header | str = read_header(path)
        except NotDicom as refused:
            header = str(refused)
    if isinstance(header, str) or isinstance(expected, str):
        assert expected == header
        return header
    bare = replace(header, pixels_at=None, pixels_length=None)
    for field in fields(Header):
        assert repr(getattr(expected, field.name)) == repr(getattr(bare, field.name)), field.name
    return header


def test_every_real_file_reads_as_pydicom_reads_it(shared_data: Path) -> None:
    read = [assert_reads_as_pydicom(path) for path in sorted(shared_data.rglob("*")) if path.is_file()]
    assert 400 < sum(isinstance(header, Header) for header in read)


@pytest.mark.parametrize("folder", REAL_FOLDERS)
def test_pixels_stand_where_the_header_says(shared_data: Path, folder: str) -> None:
    for path in [p for p in sorted((shared_data / folder).rglob("*")) if p.suffix == ".dcm"]:
        header, content = read_header(path), path.read_bytes()
        dataset = pydicom.dcmread(path)
        if "1.2.2.dcm" in path.name or "1.2.1.99.dcm" in path.name or "PixelData" not in dataset:
            assert (None, None) == (header.pixels_at, header.pixels_length)
            continue
        assert header.pixels_at is not None
        value = content[header.pixels_at :][: header.pixels_length]
        assert value.startswith(dataset.PixelData)
        assert dataset["PixelData"].is_undefined_length == (header.pixels_length is None)


@pytest.fixture(scope="session")
def real_headers(shared_data: Path) -> list[bytes]:
    """Return the first bytes of real files of every folder, with explicit and implicit headers."""
    names = ("head_ge_tilted", "chest_1mm", "abdomen_ge_revolution", "head_phantom_philips/scout", "dose_reports")
    files = [next(p for p in sorted((shared_data / name).iterdir()) if p.suffix != ".md") for name in names]
    return [path.read_bytes()[:40_000] for path in (*files, shared_data / "enhanced_ct" / "eCT_Supplemental.dcm")]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_real_file_reads_as_pydicom_reads_it(
    real_headers: list[bytes], tmp_path: Path, data: st.DataObject
) -> None:
    content = bytearray(data.draw(st.sampled_from(real_headers)))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    places = st.integers(130, data.draw(st.sampled_from([400, 3000, 39_999])))
    values = st.one_of(st.integers(0, 255), st.sampled_from([0x00, 0xFE, 0xFF]))
    for at, value in data.draw(st.dictionaries(places, values, max_size=8)).items():
        if at < len(content):
            content[at] = value
    path = tmp_path / "damaged.dcm"
    path.write_bytes(content)
    assert_reads_as_pydicom(path)


@pytest.mark.parametrize("transfer_syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
@pytest.mark.parametrize("undefined", [True, False])
def test_sequences_are_passed_over_whatever_their_length(
    write_ct: WriteCt,
    transfer_syntax: str,
    undefined: bool,  # noqa: FBT001
) -> None:
    inner = Dataset()
    inner.SOPInstanceUID, inner.InstanceNumber, inner.PixelData = "9.9", 99, bytes(64)
    inner["PixelData"].VR = "OW"
    middle = Dataset()
    middle.ReferencedImageSequence = Sequence([inner, Dataset(), inner])
    private = Dataset()
    private.add_new(0x00091001, "SQ", Sequence([middle]))
    for item in (inner, middle):
        item.is_undefined_length_sequence_item = undefined
    changes = {"ReferencedStudySequence": [middle, Dataset()], "SpecificCharacterSet": "ISO_IR 100"}
    path = write_ct(transfer_syntax=transfer_syntax, pixels=bytes(48), SeriesDescription="Sch\xe4del", **changes)
    dataset = pydicom.dcmread(path)
    dataset.private_block(0x0009, "SOMEONE", create=True).add_new(1, "SQ", [middle])
    dataset["ReferencedStudySequence"].is_undefined_length = undefined
    dataset[0x00091001].is_undefined_length = undefined
    dataset.save_as(path)
    header = assert_reads_as_pydicom(path)
    assert isinstance(header, Header)
    assert ("2.25.1", 7, "Sch\xe4del", 48) == (
        *(header.sop_instance_uid, header.instance_number, header.series_description),
        header.pixels_length,
    )


@pytest.mark.parametrize("bytes_before", [30_000, 300_000, 5_000_000])
def test_long_private_elements_before_the_pixels_are_passed_over(write_ct: WriteCt, bytes_before: int) -> None:
    path = write_ct(pixels=bytes(48))
    dataset = pydicom.dcmread(path)
    dataset.private_block(0x0029, "SOMEONE", create=True).add_new(1, "OB", bytes(bytes_before))
    dataset.save_as(path)
    header = assert_reads_as_pydicom(path)
    assert isinstance(header, Header)
    assert (path.stat().st_size - 48, 48) == (header.pixels_at, header.pixels_length)


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        (b"\x28\x00\x10\x00US\x02\x00", b"\x28\x00\x10\x00UN\x02\x00"),
        (b"DS", b"LO"),
        (b"2.25.1", b"2.25.x"),
        (b"2.25.1", b"      "),
        (b"IS\x02\x007 ", b"IS\x02\x00\xb2 "),
        (b"-10.0\\-20.0\\30.0", b"-10.0\\n/a!!\\30.0"),
        (b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0"),
        (b"1.2.840.10008.1.2.1\0", b"1.2.840.113619.5.2\0\0"),
        (b"\x02\x00\x10\x00UI", b"\x02\x00\x11\x00UI"),
        (b"\x28\x00\x10\x00US", b"\xfe\xff\x0d\xe0\0\0\0\0\x28\x00\x10\x00US"),
        (b"\x28\x00\x10\x00US", b"\x28\x00\x10\x00us"),
    ],
)
def test_odd_writers_are_read_as_pydicom_reads_them(write_ct: WriteCt, written: bytes, instead: bytes) -> None:
    path = write_ct()
    content = path.read_bytes()
    assert written in content
    path.write_bytes(content.replace(written, instead))
    assert_reads_as_pydicom(path)


def test_many_headers_keep_the_order_of_their_files_and_say_which_is_none(write_ct: WriteCt, tmp_path: Path) -> None:
    paths = [write_ct(f"{n}.dcm", SOPInstanceUID=f"2.25.{n}") for n in range(40)]
    paths[3].write_bytes(b"no DICOM")
    paths.append(tmp_path / "absent")
    for threads in (1, 2, 3):
        read = read_headers(paths, threads=threads)
        assert ["not a DICOM file", "the file cannot be opened: No such file or directory"] == [
            header.reason for header in read if isinstance(header, NotDicom)
        ]
        assert [f"2.25.{n}" for n in range(40) if n != 3] == [
            header.sop_instance_uid for header in read if isinstance(header, Header)
        ]
    assert [] == read_headers([])


def test_a_packed_header_comes_back_whole(shared_data: Path) -> None:
    for path in sorted(shared_data.rglob("*.dcm")):
        header = read_header(path)
        line = pack(header)
        assert "\n" not in line
        assert header == unpack(line)


@given(
    numbers=st.tuples(*[st.floats(allow_nan=True, allow_infinity=True)] * 3),
    text=st.text(),
    texts=st.lists(st.text()).map(tuple),
    whole=st.none() | st.integers(),
)
def test_numbers_and_texts_are_packed_exactly(
    numbers: tuple[float, float, float], text: str, texts: tuple[str, ...], whole: int | None
) -> None:
    plain = Header.from_dataset(Dataset(), "1.2")
    header = replace(plain, position_mm=numbers, kernel=text, image_type=texts, frame=whole, patient_id=text)
    back = unpack(pack(header))
    assert back is not None
    assert (repr(header), header.patient_id) == (repr(back), back.patient_id)


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", "[1, 2]", "no JSON", "3"])
def test_what_another_version_packed_is_none(text: str) -> None:
    assert unpack(text) is None
    layout, rest = pack(Header.from_dataset(Dataset(), "1.2"))[1:].split(",", 1)
    assert unpack(f"[{int(layout) + 1},{rest}") is None
    assert unpack(f"[{layout},0,{rest}") is None


def deflated(write_ct: WriteCt, rest: bytes, **tags: Any) -> Path:
    """Write a deflated file with some bytes after its data set."""
    path = write_ct(transfer_syntax="1.2.840.10008.1.2.1.99", **tags)
    whole = path.read_bytes()
    at = 132 + 12 + struct.unpack_from("<L", whole, 140)[0]
    stream = zlib.compressobj(1, wbits=-15)
    path.write_bytes(whole[:at] + stream.compress(zlib.decompress(whole[at:], -15) + rest) + stream.flush())
    return path


@pytest.mark.parametrize("pixels", [True, False])
def test_a_bomb_is_refused_at_64_megabytes_beyond_its_image(write_ct: WriteCt, pixels: bool) -> None:  # noqa: FBT001
    element = b"\xe0\x7f\x10\x00OW\0\0" + struct.pack("<L", 100 << 20)
    path = deflated(write_ct, element + bytes(100 << 20))
    with pytest.raises(NotDicom, match="inflates to more than 64 MB"):
        read_dataset(path, pixels=pixels)
    with pytest.raises(NotDicom, match="inflates to more than 64 MB"):
        read_header(path)


@pytest.mark.parametrize("pixels", [True, False])
def test_a_bomb_behind_long_file_meta_information_is_refused_too(write_ct: WriteCt, pixels: bool) -> None:  # noqa: FBT001
    path = deflated(write_ct, b"\xe0\x7f\x10\x00OW\0\0" + struct.pack("<L", 100 << 20) + bytes(100 << 20))
    whole = path.read_bytes()
    version = b"\x02\0\x01\0OB\0\0\x02\0\0\0\0\x01"
    assert whole[144:].startswith(version)
    longer = version[:8] + struct.pack("<L", 1 << 17) + bytes(1 << 17)
    (length,) = struct.unpack_from("<L", whole, 140)
    head = whole[:140] + struct.pack("<L", length + len(longer) - len(version))
    path.write_bytes(head + longer + whole[144 + len(version) :])
    with pytest.raises(NotDicom, match="inflates to more than 64 MB"):
        read_dataset(path, pixels=pixels)


def test_a_large_deflated_image_that_says_so_is_read(write_ct: WriteCt) -> None:
    size = 70 << 20
    element = b"\xe0\x7f\x10\x00OW\0\0" + struct.pack("<L", size)
    path = deflated(write_ct, element + bytes(size), Rows=8192, Columns=4480)
    assert size == len(read_dataset(path, pixels=True).PixelData)


def test_a_deflated_file_that_is_cut_off_is_damaged(write_ct: WriteCt) -> None:
    path = deflated(write_ct, b"")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(NotDicom, match="damaged"):
        read_header(path)
