"""Pixels are read from where a Header says they stand, frame by frame, or not at all: never from beside them."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate, encapsulate_extended, get_frame

from reconstruction.assemble import FileReader, assemble, pixel_reader
from reconstruction.errors import UnreadablePixels
from reconstruction.frames import Elsewhere, find_frames, read_frame, read_native
from reconstruction.headers import Header, read_header
from reconstruction.slices import stack_of

WriteCt = Callable[..., Path]
JPEG_LS, RLE = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.5"
FRAMES = np.arange(5 * 64 * 64, dtype=np.int16).reshape(5, 64, 64)
SIZE = {"Rows": 64, "Columns": 64}


def streams(frames: npt.NDArray[np.int16] = FRAMES) -> list[bytes]:
    return [bytes(imagecodecs.jpegls_encode(frame.view(np.uint16))) for frame in frames]


def frame_headers(path: Path) -> list[Header]:
    """Return a Header for each frame, as those who expand multi-frame instances make them."""
    header = read_header(path)
    return [replace(header, frame=n + 1) for n in range(header.number_of_frames)]


def read_all(path: Path, headers: Sequence[Header]) -> npt.NDArray[Any]:
    read = pixel_reader({header.sop_instance_uid: path for header in headers})
    return np.stack([read(header) for header in headers])


@pytest.mark.parametrize(
    "syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"]
)
@pytest.mark.parametrize("bits", [8, 16, 32])
def test_each_frame_of_uncompressed_pixels_is_found(write_ct: WriteCt, syntax: str, bits: int) -> None:
    order = ">" if syntax.endswith("1.2.2") else "<"
    values = (FRAMES % 100).astype(np.int64) - 50
    tags = {"NumberOfFrames": 5, "BitsAllocated": bits, "BitsStored": bits, "HighBit": bits - 1, **SIZE}
    path = write_ct(pixels=values.astype(f"{order}i{bits // 8}"), transfer_syntax=syntax, **tags)
    headers = frame_headers(path)
    np.testing.assert_array_equal(read_all(path, headers), values)
    np.testing.assert_array_equal(read_all(path, headers[::-1]), values[::-1])


def encapsulated(how: str) -> bytes:
    made: dict[str, Callable[[], bytes]] = {
        "a table": lambda: encapsulate(streams(), has_bot=True),
        "no table": lambda: encapsulate(streams(), has_bot=False),
        "a table, fragments": lambda: encapsulate(streams(), fragments_per_frame=3, has_bot=True),
        "no table, fragments": lambda: encapsulate(streams(), fragments_per_frame=3, has_bot=False),
    }
    return made[how]()


@pytest.mark.parametrize("how", ["a table", "no table", "a table, fragments", "no table, fragments"])
def test_each_frame_of_compressed_pixels_is_found(write_ct: WriteCt, how: str) -> None:
    path = write_ct(pixels=encapsulated(how), transfer_syntax=JPEG_LS, NumberOfFrames=5, **SIZE)
    headers = frame_headers(path)
    np.testing.assert_array_equal(read_all(path, headers), FRAMES)
    data = pydicom.dcmread(path).PixelData
    if how != "no table, fragments":
        places = find_frames(path, headers[0])
        assert [get_frame(data, n, number_of_frames=5) for n in range(5)] == [
            read_frame(path, header, places) for header in headers
        ]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("syntax", "encode"),
    [
        (JPEG_LS, imagecodecs.jpegls_encode),
        ("1.2.840.10008.1.2.4.70", imagecodecs.ljpeg_encode),
        ("1.2.840.10008.1.2.4.90", lambda image: imagecodecs.jpeg2k_encode(image, codecformat="j2k", reversible=True)),
        ("1.2.840.10008.1.2.4.201", lambda image: imagecodecs.htj2k_encode(image, reversible=True)),
    ],
)
def test_codestreams_of_8_and_16_bits_fill_the_same_room(
    write_ct: WriteCt, syntax: str, encode: Callable[[Any], bytes], dtype: type[Any]
) -> None:
    image = np.arange(48 * 80).reshape(48, 80).astype(dtype)
    pixels = encapsulate([bytes(encode(image))], has_bot=False)
    header = read_header(path := write_ct(pixels=pixels, transfer_syntax=syntax, Rows=48, Columns=80))
    raw = np.full((48, 80), -7, dtype=np.int16)
    assert FileReader({header.sop_instance_uid: path}).read_raw(header, raw)
    np.testing.assert_array_equal(raw, image)


def test_frames_behind_an_extended_offset_table_are_found(write_ct: WriteCt) -> None:
    pixels, offsets, lengths = encapsulate_extended(streams())
    tables = {"ExtendedOffsetTable": offsets, "ExtendedOffsetTableLengths": lengths}
    path = write_ct(pixels=pixels, transfer_syntax=JPEG_LS, NumberOfFrames=5, **tables, **SIZE)
    np.testing.assert_array_equal(read_all(path, frame_headers(path)), FRAMES)


def test_an_extended_offset_table_in_another_order_is_followed(write_ct: WriteCt) -> None:
    pixels, offsets, lengths = encapsulate_extended(streams())
    turned = {
        "ExtendedOffsetTable": np.frombuffer(offsets, dtype="<u8")[::-1].tobytes(),
        "ExtendedOffsetTableLengths": np.frombuffer(lengths, dtype="<u8")[::-1].tobytes(),
    }
    path = write_ct(pixels=pixels, transfer_syntax=JPEG_LS, NumberOfFrames=5, **turned, **SIZE)
    np.testing.assert_array_equal(read_all(path, frame_headers(path)), FRAMES[::-1])


@pytest.mark.parametrize("frame", [0, 6, -1])
def test_a_frame_that_is_not_there_is_refused(write_ct: WriteCt, frame: int) -> None:
    path = write_ct(pixels=FRAMES, NumberOfFrames=5, **SIZE)
    with pytest.raises(UnreadablePixels, match=f"frame {frame} of 5"):
        read_all(path, [replace(read_header(path), frame=frame)])


def test_frames_that_cannot_be_told_apart_are_refused(write_ct: WriteCt) -> None:
    path = write_ct(pixels=encapsulate(streams()[:3], has_bot=False), transfer_syntax=JPEG_LS, NumberOfFrames=5, **SIZE)
    for header in frame_headers(path)[3:]:
        with pytest.raises(UnreadablePixels):
            read_all(path, [header])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), how=st.sampled_from(["a table", "no table", "a table, fragments"]))
def test_a_damaged_table_or_item_gives_what_pydicom_finds_or_a_refusal(
    write_ct: WriteCt, data: st.DataObject, how: str
) -> None:
    path = write_ct(pixels=encapsulated(how), transfer_syntax=JPEG_LS, NumberOfFrames=5, **SIZE)
    headers, content = frame_headers(path), bytearray(path.read_bytes())
    at = headers[0].pixels_at
    assert at is not None
    for offset, value in data.draw(st.dictionaries(st.integers(0, 60), st.integers(0, 255), max_size=4)).items():
        content[at + offset] = value
    path.write_bytes(content)
    try:
        places = find_frames(path, headers[0])
    except Elsewhere:
        return
    read = [read_frame(path, header, places) for header in headers]
    assert [get_frame(pydicom.dcmread(path).PixelData, n, number_of_frames=5) for n in range(5)] == read


def series(write_ct: WriteCt, **changes: Any) -> tuple[list[Header], dict[str, Path]]:
    """Write three slices; return their headers and files."""
    paths = {
        f"2.25.1{n}": write_ct(
            f"{n}.dcm",
            SOPInstanceUID=f"2.25.1{n}",
            InstanceNumber=n + 1,
            ImagePositionPatient=[0, 0, n],
            **{"pixels": FRAMES[n], **SIZE, **changes},
        )
        for n in range(3)
    }
    return [read_header(path) for path in paths.values()], paths


@pytest.mark.parametrize("cut", [1, 100, 8191, 8192, 8200, 8500])
def test_a_file_that_was_cut_after_its_header_was_indexed_is_refused_by_name(write_ct: WriteCt, cut: int) -> None:
    headers, paths = series(write_ct)
    os.truncate(paths["2.25.11"], paths["2.25.11"].stat().st_size - cut)
    with pytest.raises(UnreadablePixels, match=r"^slice 2: "):
        assemble(stack_of(headers), pixel_reader(paths))


def test_a_file_whose_header_grew_since_is_read_anew(write_ct: WriteCt) -> None:
    headers, paths = series(write_ct)
    series(write_ct, SeriesDescription="now with a description", PatientComments="x" * 501)
    made = assemble(stack_of(headers), pixel_reader(paths)).volume.hu
    np.testing.assert_array_equal(made, FRAMES[:3] - 1024)


def test_a_file_whose_image_became_another_is_refused(write_ct: WriteCt) -> None:
    headers, paths = series(write_ct)
    series(write_ct, pixels=FRAMES[0, :32], Rows=32)
    with pytest.raises(UnreadablePixels, match=r"^slice 1: .*4096 of 8192 bytes"):
        assemble(stack_of(headers), pixel_reader(paths))


@pytest.mark.parametrize("change", [{"pixels_at": 4}, {"pixels_at": 700}, {"pixels_at": None}, {"pixels_length": 8190}])
def test_a_wrong_place_in_an_index_is_noticed(write_ct: WriteCt, change: dict[str, Any]) -> None:
    headers, paths = series(write_ct)
    with pytest.raises(Elsewhere):
        read_native(paths["2.25.10"], replace(headers[0], **change), memoryview(bytearray(8192)))
    np.testing.assert_array_equal(FileReader(paths)(replace(headers[0], **change)), FRAMES[0])


def test_white_or_black_zero_changes_no_hounsfield_unit(write_ct: WriteCt) -> None:
    read = []
    for interpretation in ("MONOCHROME1", "MONOCHROME2"):
        headers, paths = series(write_ct, PhotometricInterpretation=interpretation)
        read.append(assemble(stack_of(headers), pixel_reader(paths)).volume.hu)
    np.testing.assert_array_equal(read[0], read[1])


def test_compressed_slices_fill_the_volume_like_uncompressed_ones(write_ct: WriteCt) -> None:
    expected = assemble(stack_of(series(write_ct)[0]), pixel_reader(series(write_ct)[1])).volume.hu.copy()
    made = [encapsulate([stream]) for stream in streams()]
    paths = {
        f"2.25.1{n}": write_ct(
            f"{n}.dcm",
            pixels=made[n],
            transfer_syntax=JPEG_LS,
            SOPInstanceUID=f"2.25.1{n}",
            InstanceNumber=n + 1,
            ImagePositionPatient=[0, 0, n],
            **SIZE,
        )
        for n in range(3)
    }
    headers = [read_header(path) for path in paths.values()]
    assert all(header.pixels_at is not None and header.pixels_length is None for header in headers)
    np.testing.assert_array_equal(assemble(stack_of(headers), pixel_reader(paths)).volume.hu, expected)
