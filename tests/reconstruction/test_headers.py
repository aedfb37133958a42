"""Headers are read as they are: what is damaged is None or NaN by name, and hides nothing else."""

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from reconstruction.errors import NotDicom
from reconstruction.headers import Header, read_dataset, read_header, text_of

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


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
