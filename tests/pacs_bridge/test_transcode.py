"""Does an object in another transfer syntax say and show exactly what it did before?"""

import struct
import warnings
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filereader import read_dataset
from pydicom.sequence import Sequence as Items

from pacs_bridge.errors import CannotTranscode
from pacs_bridge.part10 import file_header, read_file
from pacs_bridge.transcode import transcoded, transcoded_file
from pacs_bridge.transcode_elements import EXPLICIT as EXPLICIT_ENCODING
from pacs_bridge.transcode_elements import element
from reconstruction.decode import stored_values
from reconstruction.headers import read_header
from scheduler.errors import Permanent

IMPLICIT, EXPLICIT, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"
JPEG, JPEG_LS, J2K, RLE = (f"1.2.840.10008.1.2.{end}" for end in ("4.50", "4.80", "4.90", "5"))
TARGETS = (EXPLICIT, IMPLICIT)
Pixels = npt.NDArray[Any]
rng = np.random.default_rng(7)


def parsed(content: bytes, transfer_syntax: str) -> Dataset:
    is_implicit = transfer_syntax == IMPLICIT
    return read_dataset(BytesIO(content), is_implicit_VR=is_implicit, is_little_endian=True)


def written(content: bytes, source: Path, transfer_syntax: str, folder: Path) -> Path:
    file = read_file(source)
    path = folder / "transcoded.dcm"
    path.write_bytes(file_header(file.sop_class_uid, file.sop_instance_uid, transfer_syntax, "X") + content)
    return path


def real_files(shared_data: Path) -> list[Path]:
    return sorted((shared_data / "syntaxes").glob("*.dcm"))


@pytest.mark.parametrize("target", TARGETS)
def test_real_slices_of_every_syntax_keep_their_stored_values(target: str, shared_data: Path, tmp_path: Path) -> None:
    compared = 0
    for path in real_files(shared_data):
        made = written(transcoded_file(path, target), path, target, tmp_path)
        before, after = read_header(path), read_header(made)
        if before.has_pixels and before.number_of_frames == 1:
            was, now = stored_values(pydicom.dcmread(path), before), stored_values(pydicom.dcmread(made), after)
            assert np.array_equal(was, now), path.name
            compared += 1
    assert compared >= 16


def test_real_slices_keep_every_element_of_every_syntax(shared_data: Path) -> None:
    for path in real_files(shared_data):
        file = read_file(path)
        before, after = pydicom.dcmread(path), parsed(transcoded_file(path, EXPLICIT), EXPLICIT)
        kept = {e.tag for e in before if e.tag.element} - {0x7FE00010}
        # UN in big endian: pydicom takes its bytes for big endian numbers, where the writer left them as they came.
        is_big = file.transfer_syntax == "1.2.840.10008.1.2.2"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            changed = [tag for tag in kept if not (is_big and tag.is_private) and before[tag] != after[tag]]
        assert [] == changed, path.name
        assert kept == {e.tag for e in after} - {0x7FE00010}


def test_there_and_back_again_is_the_same_bytes(shared_data: Path) -> None:
    for path in (shared_data / "chest_1mm" / "000002.dcm", *sorted((shared_data / "dose_reports").glob("*.dcm"))):
        explicit = transcoded_file(path, EXPLICIT)
        implicit = transcoded(explicit, EXPLICIT, IMPLICIT)
        assert implicit == transcoded(transcoded(implicit, IMPLICIT, EXPLICIT), EXPLICIT, IMPLICIT), path.name


texts = st.text(alphabet="ABC 1.2^\\xyz", max_size=12)
leaves = st.dictionaries(
    st.sampled_from(["PatientName", "StudyDate", "SliceThickness", "PatientComments", "InstanceNumber"]),
    texts.map(lambda text: text.encode()),
    max_size=4,
)


def nested(data: Any) -> bytes:
    """Encode (leaves, items of a sequence) as explicit VR, with whatever values."""
    values, items = data
    vr = {"PatientName": b"PN", "StudyDate": b"DA", "SliceThickness": b"DS", "PatientComments": b"LT"}
    elements = {
        pydicom.datadict.tag_for_keyword(name): (vr.get(name, b"IS"), value + b" " * (len(value) % 2))
        for name, value in values.items()
    }
    if items:
        inner = b"".join(struct.pack("<HHL", 0xFFFE, 0xE000, len(each)) + each for each in map(nested, items))
        elements[0x00081115] = (b"SQ", inner)
    ordered = sorted((tag, vr, value) for tag, (vr, value) in elements.items() if tag)
    return b"".join(element(tag, vr, value, EXPLICIT_ENCODING) for tag, vr, value in ordered)


@given(st.recursive(st.tuples(leaves, st.just([])), lambda item: st.tuples(leaves, st.lists(item, max_size=3))))
@settings(max_examples=150)
def test_any_data_set_comes_back_as_it_was_also_with_values_that_break_their_rules(data: Any) -> None:
    content = nested(data)
    assert content == transcoded(transcoded(content, EXPLICIT, IMPLICIT), IMPLICIT, EXPLICIT)
    assert content == transcoded(_deflated(content), DEFLATED, EXPLICIT)


def _deflated(content: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(content) + deflater.flush()


@given(st.binary(max_size=300), st.sampled_from([IMPLICIT, EXPLICIT, DEFLATED, "1.2.840.10008.1.2.2", JPEG_LS]))
@settings(max_examples=300)
def test_rubbish_is_refused_or_read_but_never_breaks_anything(content: bytes, source: str) -> None:
    with suppress(CannotTranscode):
        assert isinstance(transcoded(content, source, EXPLICIT), bytes)


def image(pixels: Pixels, frames: Sequence[bytes | bytearray], **attributes: Any) -> bytes:
    """Encode an image with compressed frames as it comes over the network."""
    header = Dataset()
    header.SOPClassUID, header.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    header.Rows, header.Columns = pixels.shape[:2]
    header.SamplesPerPixel = pixels.shape[2] if pixels.ndim > 2 else 1
    header.PhotometricInterpretation = attributes.pop("photometric", "MONOCHROME2")
    header.BitsAllocated = header.BitsStored = 8 * pixels.dtype.itemsize
    header.HighBit = header.BitsStored - 1
    header.PixelRepresentation = int(pixels.dtype.kind == "i")
    if header.SamplesPerPixel > 1:
        header.PlanarConfiguration = 0
    if len(frames) > 1:
        header.NumberOfFrames = len(frames)
    for name, value in attributes.items():
        setattr(header, name, value)
    header.PixelData = encapsulate([bytes(frame) for frame in frames])
    header["PixelData"].VR = "OB"
    header["PixelData"].is_undefined_length = True
    buffer = pydicom.filebase.DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    pydicom.filewriter.write_dataset(buffer, header)
    return buffer.getvalue()


def shown(content: bytes) -> Pixels:
    """Read the plain pixels of a transcoded image."""
    header = parsed(content, EXPLICIT)
    pixels = np.frombuffer(header.PixelData, f"<{'ui'[header.PixelRepresentation]}{header.BitsAllocated // 8}")
    shape = (int(header.get("NumberOfFrames", 1)), header.Rows, header.Columns, header.SamplesPerPixel)
    return pixels[: np.prod(shape)].reshape(shape)


PHOTO = np.kron(rng.integers(0, 255, (4, 5, 3)), np.ones((8, 8, 1))).astype(np.uint8)
SLICE = rng.integers(-1000, 3000, (16, 20)).astype(np.int16)


@pytest.mark.parametrize(
    ("syntax", "encode", "photometric", "becomes"),
    [
        (J2K, lambda p: imagecodecs.jpeg2k_encode(p, codecformat="j2k", reversible=True), "YBR_RCT", "RGB"),
        (J2K, lambda p: imagecodecs.jpeg2k_encode(p, codecformat="j2k", reversible=True, mct=False), "RGB", "RGB"),
        (JPEG_LS, imagecodecs.jpegls_encode, "RGB", "RGB"),
        (RLE, lambda p: _rle(p), "RGB", "RGB"),
        (RLE, lambda p: _rle(p), "YBR_FULL", "YBR_FULL"),
    ],
)
def test_colours_stay_and_are_called_what_they_are(
    syntax: str, encode: Callable[[Pixels], bytes], photometric: str, becomes: str
) -> None:
    made = transcoded(image(PHOTO, [encode(PHOTO)], photometric=photometric), syntax, EXPLICIT)
    header = parsed(made, EXPLICIT)
    assert (becomes, 0, "OB") == (header.PhotometricInterpretation, header.PlanarConfiguration, header["PixelData"].VR)
    assert np.array_equal(PHOTO, shown(made)[0])
    assert "LossyImageCompression" not in header


def _rle(pixels: Pixels) -> bytes:
    """Encode 8-bit samples plane by plane (PS3.5 G), as literal runs."""
    planes = [_packed(plane.tobytes()) for plane in np.moveaxis(pixels, -1, 0)]
    offsets = np.cumsum([64, *map(len, planes)])[: len(planes)]
    return struct.pack("<16L", len(planes), *offsets, *[0] * (15 - len(planes))) + b"".join(planes)


def _packed(plane: bytes) -> bytes:
    runs = b"".join(bytes([len(plane[at : at + 128]) - 1]) + plane[at : at + 128] for at in range(0, len(plane), 128))
    return runs + b"\x80" * (len(runs) % 2)


def test_lossy_colours_become_rgb_and_stay_marked_lossy() -> None:
    frame = imagecodecs.jpeg8_encode(PHOTO, 95)
    made = transcoded(image(PHOTO, [frame], photometric="YBR_FULL_422"), JPEG, EXPLICIT)
    header = parsed(made, EXPLICIT)
    assert ("RGB", "01") == (header.PhotometricInterpretation, header.LossyImageCompression)
    assert np.array_equal(imagecodecs.jpeg8_decode(frame), shown(made)[0])
    ratio = image(PHOTO, [frame], photometric="YBR_FULL", LossyImageCompression="01", LossyImageCompressionRatio="9")
    assert 9 == parsed(transcoded(ratio, JPEG, IMPLICIT), IMPLICIT).LossyImageCompressionRatio


def test_a_jpeg_that_holds_rgb_without_saying_so_is_not_taken_for_something_else() -> None:
    marked = imagecodecs.jpeg8_encode(PHOTO, 95, colorspace="RGB", outcolorspace="RGB")
    silent = b"\xff\xd8" + marked[4 + struct.unpack_from(">H", marked, 4)[0] :]
    made = transcoded(image(PHOTO, [silent], photometric="RGB"), JPEG, EXPLICIT)
    assert np.abs(shown(made)[0].astype(int) - PHOTO).mean() < 12


def test_frames_stay_in_order_and_signs_on_their_values() -> None:
    frames = [SLICE, SLICE[::-1].copy(), -SLICE]
    streams = [imagecodecs.jpeg2k_encode(each, codecformat="j2k", reversible=True) for each in frames]
    made = transcoded(image(SLICE, streams), J2K, EXPLICIT)
    assert np.array_equal(np.stack(frames), shown(made)[..., 0])
    assert "OW" == parsed(made, EXPLICIT)["PixelData"].VR


def test_small_pictures_inside_sequences_are_decompressed_too() -> None:
    stream = imagecodecs.jpegls_encode(PHOTO[..., 0])
    inner = parsed(image(PHOTO[..., 0], [stream]), EXPLICIT)
    content = image(PHOTO[..., 0], [stream], IconImageSequence=Items([inner]))
    made = parsed(transcoded(content, JPEG_LS, EXPLICIT), EXPLICIT)
    assert made.PixelData == made.IconImageSequence[0].PixelData == PHOTO[..., 0].tobytes()


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"Rows": 60000, "Columns": 60000}, "larger than 512 MiB"),
        ({"Rows": 17}, "announces"),
        ({"NumberOfFrames": 2}, "frame"),
        ({"BitsAllocated": 12}, "12 bits"),
        ({"SamplesPerPixel": 4}, "4 sample"),
    ],
)
def test_an_image_that_is_not_what_it_announces_is_refused(attributes: dict[str, int], reason: str) -> None:
    stream = imagecodecs.jpegls_encode(SLICE.astype(np.uint16))
    with pytest.raises(CannotTranscode, match=reason):
        transcoded(image(SLICE.astype(np.uint16), [stream], **attributes), JPEG_LS, EXPLICIT)


def test_damaged_streams_and_syntaxes_nobody_reads_are_refused() -> None:
    stream = imagecodecs.jpegls_encode(SLICE.astype(np.uint16))
    broken = image(SLICE.astype(np.uint16), [stream[:60] + bytes(40)])
    with pytest.raises(CannotTranscode, match="cut off"):
        transcoded(broken, JPEG_LS, EXPLICIT)
    with pytest.raises(CannotTranscode, match="not supported"):
        transcoded(broken, "1.2.840.10008.1.2.4.100", EXPLICIT)
    with pytest.raises(CannotTranscode, match="only uncompressed"):
        transcoded(broken, JPEG_LS, J2K)


def test_nesting_without_end_is_refused() -> None:
    content = b""
    for _ in range(200):
        content = element(
            0x00081115, b"SQ", struct.pack("<HHL", 0xFFFE, 0xE000, len(content)) + content, EXPLICIT_ENCODING
        )
    with pytest.raises(CannotTranscode, match="nested too deeply"):
        transcoded(content, EXPLICIT, IMPLICIT)


def test_a_bomb_is_not_inflated() -> None:
    with pytest.raises(CannotTranscode, match="larger than 1 MiB"):
        transcoded(_deflated(bytes(2**22)), DEFLATED, EXPLICIT, most_bytes=2**20)


def test_a_file_that_cannot_be_transcoded_is_refused_for_good(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(file_header("1.2", "1.2.3", JPEG_LS, "X") + b"rubbish" * 9)
    with pytest.raises(Permanent, match="cannot be written in a transfer syntax that the peer takes"):
        transcoded_file(path, EXPLICIT)
    with pytest.raises(Permanent, match="larger than 0 MiB"):
        transcoded_file(path, EXPLICIT, most_bytes=10)
    with pytest.raises(Permanent, match="cannot be read"):
        transcoded_file(tmp_path / "gone.dcm", EXPLICIT)


def test_a_file_that_is_there_and_cannot_be_read_now_is_not_refused(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        transcoded_file(tmp_path, EXPLICIT)


def test_a_value_too_long_for_its_vr_is_kept_as_un() -> None:
    long = element(0x00104000, b"LT", b"x" * 70000, EXPLICIT_ENCODING)
    assert b"UN" == long[4:6]
    assert long == transcoded(transcoded(long, EXPLICIT, IMPLICIT), IMPLICIT, EXPLICIT)
