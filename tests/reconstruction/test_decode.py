"""Stored values come out bit for bit whatever carried them; what does not hold an image is refused at small cost."""

import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame

from reconstruction.assemble import assemble, pixel_reader
from reconstruction.decode import Stored, stored_values
from reconstruction.errors import NotAVolume, UnreadablePixels
from reconstruction.headers import Header, read_dataset, read_header, transfer_syntax_of
from reconstruction.slices import stack_of

WriteCt = Callable[..., Path]
JPEG_BASELINE, JPEG_12_BIT = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"
JPEG_LOSSLESS, JPEG_LS, JPEG_2000 = "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"
HTJ2K, RLE = "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.5"
ENCODERS: dict[str, Callable[[npt.NDArray[Any]], bytes]] = {
    JPEG_LOSSLESS: lambda image: bytes(imagecodecs.ljpeg_encode(image)),
    JPEG_LS: lambda image: bytes(imagecodecs.jpegls_encode(image)),
    JPEG_2000: lambda image: bytes(imagecodecs.jpeg2k_encode(image, reversible=True, codecformat="j2k")),
    HTJ2K: lambda image: bytes(imagecodecs.htj2k_encode(image, reversible=True)),
}
LOSSLESS = ("1.2", "1.2.1.99", "1.2.2", "1.2.4.57", "1.2.4.70", "1.2.4.80", "1.2.4.90", "1.2.5")


def decoded(path: Path, **changes: Any) -> Stored:
    """Decode a file, with its header changed."""
    dataset = read_dataset(path, pixels=True)
    header = Header.from_dataset(dataset, transfer_syntax_of(dataset))
    return stored_values(dataset, replace(header, **changes))


def sample(shared_data: Path, syntax: str) -> Path:
    """Return the slice of the test data in this transfer syntax, named without 1.2.840.10008."""
    (path,) = (shared_data / "syntaxes").glob(f"CTImage.dcm_*_1.2.840.10008.{syntax}.dcm")
    return path


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_lossless_syntaxes_give_the_stored_values_bit_for_bit(shared_data: Path, syntax: str) -> None:
    expected = decoded(sample(shared_data, "1.2.1"))
    assert (-2000, 2402) == (int(expected.min()), int(expected.max()))
    np.testing.assert_array_equal(decoded(sample(shared_data, syntax)), expected)


def test_every_real_image_is_read_in_its_place_as_it_is_parsed(shared_data: Path) -> None:
    """Two ways to the pixels, one of them through pydicom: the same values, or the same refusal."""
    folders = ("head_ge_tilted", "chest_1mm", "abdomen_ge_revolution", "head_normal_3mm", "head_phantom_philips/scout")
    paths = sorted((shared_data / "syntaxes").glob("*.dcm"))
    paths += [max((shared_data / folder).iterdir(), key=lambda p: (p.stat().st_size, p.name)) for folder in folders]
    in_place = 0
    for path in paths:
        header = read_header(path)
        in_place += header.pixels_at is not None
        read = partial(pixel_reader({header.sop_instance_uid: path}), header)
        np.testing.assert_array_equal(outcome(partial(decoded, path)), outcome(read))
    assert len(paths) - 3 == in_place  # big endian, deflated, no pixels


def outcome(read: Callable[[], Stored]) -> Stored | str:
    try:
        return read()
    except UnreadablePixels as refused:
        return str(refused)


def test_an_image_without_pixel_spacing_is_decoded_and_makes_no_volume(shared_data: Path) -> None:
    path = shared_data / "syntaxes" / "no-pixel-spacing.dcm"
    header = read_header(path)
    assert header.pixel_spacing_mm is None
    assert (header.rows, header.columns) == decoded(path).shape
    with pytest.raises(NotAVolume):
        stack_of([replace(header, position_mm=(0.0, 0.0, float(n))) for n in range(3)])


@pytest.mark.parametrize(("syntax", "most"), [("1.2.4.81", 1), ("1.2.4.91", 5)])
def test_nearly_lossless_syntaxes_stay_within_their_error(shared_data: Path, syntax: str, most: int) -> None:
    apart = decoded(sample(shared_data, syntax)) - decoded(sample(shared_data, "1.2.1"))
    assert most == int(np.abs(apart).max())


@pytest.mark.parametrize("syntax", ["1.2.4.51", "1.2.4.53", "1.2.4.55"])
def test_lossy_12_bit_jpeg_shows_the_same_slice(shared_data: Path, syntax: str) -> None:
    values = decoded(sample(shared_data, syntax))
    assert (497, 2708) == (int(values.min()), int(values.max()))
    reference = decoded(sample(shared_data, "1.2.1"))
    assert 1.0 == pytest.approx(np.corrcoef(values.ravel(), np.maximum(reference, -2000).ravel())[0, 1], abs=0.01)


def test_lossy_8_bit_jpeg_is_read(shared_data: Path) -> None:
    values = decoded(sample(shared_data, "1.2.4.50"))
    assert (30, 168) == (int(values.min()), int(values.max()))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.data(),
    bits=st.sampled_from([12, 16]),
    representation=st.sampled_from([0, 1]),
    order=st.sampled_from(["<", ">"]),
)
def test_rubbish_above_the_stored_bits_is_dropped_and_the_sign_kept(
    write_ct: WriteCt, data: st.DataObject, bits: int, representation: int, order: str
) -> None:
    low = -(1 << (bits - 1)) if representation else 0
    values = data.draw(hnp.arrays(np.int32, (4, 6), elements=st.integers(low, low + (1 << bits) - 1)))
    rubbish = data.draw(hnp.arrays(np.uint16, (4, 6))).astype(np.int64) << bits
    raw = ((values & ((1 << bits) - 1)) | rubbish) & 0xFFFF
    syntax = "1.2.840.10008.1.2.1" if order == "<" else "1.2.840.10008.1.2.2"
    tags = {"BitsStored": bits, "HighBit": bits - 1, "PixelRepresentation": representation}
    path = write_ct(pixels=raw.astype(f"{order}u2"), transfer_syntax=syntax, **tags)
    np.testing.assert_array_equal(decoded(path), values)


@pytest.mark.parametrize(
    ("representation", "padding", "raw", "expected"),
    [
        (0, 63536, [63536, 2096, 1024, 0], [63536, 2096, 1024, 0]),  # -2000 written into unsigned 12 bits: 2096 is bone
        (0, 2096, [63536, 2096, 1024, 0], [2096, 2096, 1024, 0]),
        (
            1,
            -32768,
            [0x8000, 0x0000, 0x0FFF, 0xF830],
            [-32768, 0, -1, -2000],
        ),  # what reads 0 beside it is a measurement
        (1, -2000, [0xF830, 0x0830, 0x0FFF, 0x0000], [-2000, -2000, -1, 0]),
    ],
)
def test_padding_above_the_stored_bits_stays_padding_and_hides_no_measurement(
    write_ct: WriteCt, representation: int, padding: int, raw: list[int], expected: list[int]
) -> None:
    path = write_ct(
        pixels=np.array(raw * 6, dtype=np.uint16).reshape(4, 6),
        BitsStored=12,
        HighBit=11,
        PixelRepresentation=representation,
        PixelPaddingValue=padding,
    )
    np.testing.assert_array_equal(decoded(path).ravel(), expected * 6)


def test_padding_above_the_stored_bits_is_masked_in_the_volume(write_ct: WriteCt) -> None:
    tags = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0, "PixelPaddingValue": 63536}
    pixels = np.array([63536, 2096, 1024] * 8, dtype=np.uint16)
    paths = {
        f"2.25.{n}": write_ct(
            f"{n}.dcm", pixels=pixels, SOPInstanceUID=f"2.25.{n}", ImagePositionPatient=[0, 0, n], **tags
        )
        for n in range(3)
    }
    made = assemble(stack_of([read_header(path) for path in paths.values()]), pixel_reader(paths))
    assert made.padding is not None
    assert [True, False, False] == made.padding[1].ravel()[:3].tolist()
    assert [-1024, 1072, 0] == made.volume.hu[1].ravel()[:3].tolist()


@pytest.mark.parametrize("syntax", ENCODERS)
def test_signed_12_bit_values_survive_every_lossless_codec(write_ct: WriteCt, syntax: str) -> None:
    values = np.arange(-2048, 2048, dtype=np.int16).reshape(64, 64)
    frame = bytes(ENCODERS[syntax]((values & 0xFFF).astype(np.uint16)))
    path = write_ct(pixels=encapsulate([frame]), transfer_syntax=syntax, Rows=64, Columns=64, BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(decoded(path), values)


def test_one_frame_in_many_fragments_is_read(write_ct: WriteCt) -> None:
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    pixels = encapsulate([bytes(imagecodecs.jpegls_encode(values))], fragments_per_frame=5, has_bot=False)
    path = write_ct(pixels=pixels, transfer_syntax=JPEG_LS, Rows=64, Columns=64)
    np.testing.assert_array_equal(decoded(path), values)


def test_eight_and_thirty_two_bits_are_read(write_ct: WriteCt) -> None:
    small = np.arange(24, dtype=np.int8).reshape(4, 6) - 12
    path = write_ct(pixels=small, BitsAllocated=8, BitsStored=8, HighBit=7)
    np.testing.assert_array_equal(decoded(path), small)
    large = np.arange(24, dtype=np.int32).reshape(4, 6) * 100_000 - 1_000_000
    path = write_ct(pixels=large, BitsAllocated=32, BitsStored=32, HighBit=31)
    np.testing.assert_array_equal(decoded(path), large)


@pytest.mark.parametrize(
    ("tags", "pixels", "reason"),
    [
        ({}, None, "missing"),
        ({}, np.zeros((4, 5), np.int16), "cut off: 40 of 48 bytes"),
        ({}, np.zeros((8, 6), np.int16), "96 bytes of pixel data for an image of 48"),
        ({"Rows": 65535, "Columns": 65535}, bytes(1024), "65535x65535 pixels announced"),
        ({"Rows": 8000, "Columns": 8000}, bytes(1024), "cut off"),
        ({"Rows": None}, bytes(1024), "no image"),
        ({"NumberOfFrames": 2}, bytes(96), "not a single greyscale frame"),
        ({"NumberOfFrames": -3}, bytes(96), "not a single greyscale frame"),
        ({"SamplesPerPixel": 3}, bytes(144), "not a single greyscale frame"),
        ({"BitsAllocated": 12, "BitsStored": 12, "HighBit": 11}, bytes(48), "12 bits stored in 12 allocated"),
        ({"BitsStored": 17, "HighBit": 16}, bytes(48), "17 bits stored in 16 allocated"),
        ({"BitsStored": 12, "HighBit": 15}, bytes(48), "do not end at bit 15"),
        ({"transfer_syntax": "1.2.840.10008.1.2.4.100"}, encapsulate([bytes(64)]), "1.2.4.100 is not supported"),
    ],
)
def test_what_holds_no_image_of_ours_is_refused_with_the_reason(
    write_ct: WriteCt, tags: dict[str, Any], pixels: Any, reason: str
) -> None:
    path = write_ct(pixels=pixels, **tags)
    assert_refused_cheaply(path, reason)


def test_a_file_without_pixels_is_refused(shared_data: Path) -> None:
    with pytest.raises(UnreadablePixels, match="no image"):
        decoded(shared_data / "syntaxes" / "no-pixel-data.dcm")


def test_colour_in_fragments_is_refused(shared_data: Path) -> None:
    with pytest.raises(UnreadablePixels, match="greyscale"):
        decoded(shared_data / "syntaxes" / "CT0012.fragmented_no_bot_jpeg_baseline.51.dcm")


@pytest.mark.parametrize("syntax", [JPEG_BASELINE, JPEG_12_BIT, *ENCODERS, RLE])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_cut_off_codestream_is_never_completed_with_grey(
    write_ct: WriteCt, shared_data: Path, syntax: str, share: float
) -> None:
    frame, tags = frame_of(shared_data, syntax)
    cut = frame[: int(len(frame) * share) // 2 * 2]
    path = write_ct(pixels=encapsulate([cut or b"\0\0"]), transfer_syntax=syntax, **tags)
    with pytest.raises(UnreadablePixels):
        decoded(path)


@pytest.mark.parametrize("syntax", [JPEG_BASELINE, JPEG_12_BIT, *ENCODERS])
def test_a_codestream_of_another_size_is_refused_before_it_is_decoded(
    write_ct: WriteCt, shared_data: Path, syntax: str
) -> None:
    frame, tags = frame_of(shared_data, syntax)
    path = write_ct(pixels=encapsulate([frame]), transfer_syntax=syntax, **{**tags, "Rows": 500})
    assert_refused_cheaply(path, "the codestream announces")


def test_a_codestream_that_lies_about_its_size_costs_no_memory(write_ct: WriteCt) -> None:
    frame = bytearray(ENCODERS[JPEG_2000](np.zeros((64, 64), np.uint16)))
    struct.pack_into(">2I", frame, 8, 60_000, 60_000)
    path = write_ct(pixels=encapsulate([bytes(frame)]), transfer_syntax=JPEG_2000, Rows=64, Columns=64)
    assert_refused_cheaply(path, "60000")


def codestream_start(rows: int, columns: int) -> bytes:
    """Return what a JPEG 2000 codestream of this size starts with."""
    frame = bytearray(ENCODERS[JPEG_2000](np.zeros((64, 64), np.uint16)))
    struct.pack_into(">2I", frame, 8, columns, rows)
    return bytes(frame[:64])


def test_a_comment_that_looks_like_another_codestream_hides_no_size(write_ct: WriteCt) -> None:
    frame = bytearray(ENCODERS[JPEG_LS](np.zeros((64, 64), np.uint16)))
    struct.pack_into(">2H", frame, frame.index(b"\xff\xf7") + 5, 60_000, 60_000)
    frame[2:2] = b"\xff\xfe" + struct.pack(">H", 66) + codestream_start(64, 64)
    path = write_ct(pixels=encapsulate([bytes(frame)]), transfer_syntax=JPEG_LS, Rows=64, Columns=64)
    assert_refused_cheaply(path, "60000")


def test_a_codestream_in_a_box_is_read_and_another_box_hides_no_size(write_ct: WriteCt) -> None:
    image = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    boxed = bytes(imagecodecs.jpeg2k_encode(image, reversible=True, codecformat="jp2"))
    at = boxed.index(b"jp2c") - 4
    tags: dict[str, Any] = {"transfer_syntax": JPEG_2000, "Rows": 64, "Columns": 64}
    path = write_ct(pixels=encapsulate([boxed]), **tags)
    np.testing.assert_array_equal(decoded(path), image)
    lie = bytearray(boxed)
    struct.pack_into(">2I", lie, at + 16, 60_000, 60_000)
    lie[at:at] = struct.pack(">L4s", 72, b"free") + codestream_start(64, 64)
    assert_refused_cheaply(write_ct(pixels=encapsulate([bytes(lie)]), **tags), "60000")


def test_rle_that_unpacks_to_more_than_the_image_is_refused(write_ct: WriteCt) -> None:
    segment = b"\x81\x00" * 4096
    frame = struct.pack("<16I", 2, 64, 64 + len(segment), *[0] * 13) + segment * 2
    path = write_ct(pixels=encapsulate([frame]), transfer_syntax=RLE)
    assert_refused_cheaply(path, "damaged|decoded")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    syntax=st.sampled_from([JPEG_BASELINE, *ENCODERS, RLE]),
    changes=st.dictionaries(st.integers(0, 600), st.integers(0, 255), max_size=6),
)
def test_wrong_bytes_give_an_image_of_the_announced_size_or_a_refusal(
    write_ct: WriteCt, syntax: str, changes: dict[int, int]
) -> None:
    image = np.arange(4096).reshape(64, 64)
    frame = bytearray(small_frame(syntax, image))
    for at, value in changes.items():
        frame[at % len(frame)] = value
    tags = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7} if syntax == JPEG_BASELINE else {}
    path = write_ct(pixels=encapsulate([bytes(frame)]), transfer_syntax=syntax, Rows=64, Columns=64, **tags)
    try:
        assert (64, 64) == decoded(path).shape
    except UnreadablePixels as refused:
        assert refused.reason  # noqa: PT017 - either outcome is right


def small_frame(syntax: str, image: npt.NDArray[Any]) -> bytes:
    if syntax == JPEG_BASELINE:
        return bytes(imagecodecs.jpeg8_encode((image % 256).astype(np.uint8)))
    if syntax == RLE:
        rows = b"".join(b"\x3f" + bytes(row) for row in (image % 256).astype(np.uint8))
        return struct.pack("<16I", 2, 64, 64 + len(rows), *[0] * 13) + rows * 2
    return bytes(ENCODERS[syntax](image.astype(np.uint16)))


def frame_of(shared_data: Path, syntax: str) -> tuple[bytes, dict[str, Any]]:
    """Return a frame of 512 x 512 in this syntax and the tags that go with it."""
    if syntax == HTJ2K:
        frame = ENCODERS[HTJ2K](np.arange(512 * 512, dtype=np.uint16).reshape(512, 512))
        return frame, {"Rows": 512, "Columns": 512}
    dataset = read_dataset(sample(shared_data, syntax.removeprefix("1.2.840.10008.")), pixels=True)
    keywords = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
    return get_frame(dataset.PixelData, 0, number_of_frames=1), {k: dataset[k].value for k in keywords}


def assert_refused_cheaply(path: Path, reason: str) -> None:
    """A refusal may take no more memory than a few copies of a small file."""
    tracemalloc.start()
    try:
        with pytest.raises(UnreadablePixels, match=reason):
            decoded(path)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_frames_that_the_header_does_not_count_are_refused() -> None:
    dataset = Dataset()
    dataset.PixelData = bytes(3 * 4 * 6 * 2)
    header = Header(
        sop_instance_uid="1.2",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2.1",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        series_instance_uid="1.9",
        modality="CT",
        rows=4,
        columns=6,
        number_of_frames=2,
        frame=1,
    )
    with pytest.raises(UnreadablePixels, match="144 bytes of pixel data for an image of 96"):
        stored_values(dataset, header)
    assert (4, 6) == stored_values(dataset, replace(header, number_of_frames=3)).shape
