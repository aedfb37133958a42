"""The frames of a multi-frame CT are slices like any other: the same volume, or the same refusal."""

import math
import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from pipeline.phantom.multi_frame import (
    EXPLICIT_LE,
    HTJ2K,
    JPEG_2000,
    JPEG_LS,
    RLE,
    enhanced_ct,
    legacy_converted_ct,
    write_enhanced,
)
from reconstruction.assemble import Assembled, assemble, pixel_reader
from reconstruction.errors import NotDicom
from reconstruction.headers import Header, read_header
from reconstruction.multiframe import MAX_FRAMES, Frames, frames_of, read_frames, together
from reconstruction.slices import Refused, Stack, stacks_of

IMPLICIT_LE, EXPLICIT_BE, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
ROWS, COLUMNS = 6, 8
EVEN = (0.0, 2.5, 5.0, 7.5, 10.0)
UNEVEN = (0.0, 4.0, 8.0, 9.08, 16.0)


def image(number: int, z: float = 0.0, *, tilt_deg: float = 0.0, **changes: Any) -> Dataset:
    """Make slice ``number`` (from 1) at ``z`` mm along the normal, its values random; None takes an attribute away."""
    values: dict[str, Any] = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": f"2.25.7{number:03d}",
        "SeriesInstanceUID": "2.25.2",
        "StudyInstanceUID": "2.25.3",
        "FrameOfReferenceUID": "2.25.4",
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SeriesNumber": 1,
        "InstanceNumber": number,
        "AcquisitionNumber": 1,
        "Rows": ROWS,
        "Columns": COLUMNS,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "ImagePositionPatient": [-10, f"{math.tan(math.radians(tilt_deg)) * z - 20:.6f}", z],
        "PixelSpacing": [0.5, 0.75],
        "SliceThickness": 2.5,
        "GantryDetectorTilt": tilt_deg,
        "ConvolutionKernel": "H30",
        "KVP": 120,
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "RescaleType": "HU",
        "PixelData": np.random.default_rng(number).integers(0, 4096, (ROWS, COLUMNS), np.uint16).tobytes(),
    }
    made = Dataset()
    for keyword, value in (values | changes).items():
        if value is not None:
            setattr(made, keyword, value)
    made["PixelData"].VR = "OW"
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made


def images(positions: Sequence[float] = EVEN, **changes: Any) -> list[Dataset]:
    return [image(number, z, **changes) for number, z in enumerate(positions, 1)]


def saved(made: Sequence[Dataset], folder: Path) -> list[Path]:
    paths = [folder / f"{n}.dcm" for n in range(len(made))]
    for each, path in zip(made, paths, strict=True):
        each.save_as(path, enforce_file_format=True)
    return paths


def volumes(paths: Sequence[Path]) -> list[Assembled]:
    """Read files, frames or whole images, into the volumes of their stacks."""
    by_uid: dict[str, Path] = {}
    headers: list[Header] = []
    for path in paths:
        header = read_header(path)
        by_uid[header.sop_instance_uid] = path
        is_one = header.sop_class_uid == CTImageStorage
        headers.extend([header] if is_one else read_frames(path, header).headers)
    stacks = stacks_of(headers)
    assert all(isinstance(stack, Stack) for stack in stacks), stacks
    return [assemble(stack, pixel_reader(by_uid)) for stack in stacks if isinstance(stack, Stack)]


def assert_same(expected: Assembled, actual: Assembled) -> None:
    assert np.array_equal(expected.volume.hu, actual.volume.hu)
    assert expected.volume.geometry.agrees_with(actual.volume.geometry, within_mm=0.0)
    assert expected.notes == actual.notes


def frames_in(made: Dataset) -> Frames:
    return frames_of(made, Header.from_dataset(made, EXPLICIT_LE))


def counts(headers: Sequence[Header]) -> list[int]:
    """Return how many slices each stack or refusal holds, sorted."""
    return sorted(len(part.headers) for part in stacks_of(together(headers)))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    positions=st.sampled_from([EVEN, UNEVEN]),
    tilt_deg=st.sampled_from([0.0, 18.5, -25.0]),
    slopes=st.lists(st.sampled_from([1, 2, "0.5"]), min_size=5, max_size=5),
    order=st.permutations(range(5)),
    syntax=st.sampled_from([EXPLICIT_LE, IMPLICIT_LE, JPEG_LS, JPEG_2000, HTJ2K, RLE]),
)
def test_the_volume_of_the_frames_is_that_of_the_images_bit_for_bit_in_whatever_order_they_come(
    tmp_path: Path,
    positions: tuple[float, ...],
    tilt_deg: float,
    slopes: list[Any],
    order: list[int],
    syntax: str,
) -> None:
    made = images(positions, tilt_deg=tilt_deg)
    for each, slope in zip(made, slopes, strict=True):
        each.RescaleSlope = slope
    paths = saved(made, tmp_path)
    (expected,) = volumes(paths)
    target = tmp_path / "enhanced.dcm"
    (actual,) = volumes([write_enhanced([paths[n] for n in order], target, transfer_syntax_uid=syntax)])
    assert_same(expected, actual)
    assert abs(tilt_deg) == pytest.approx(actual.volume.geometry.tilt_deg, abs=1e-3)


@pytest.mark.parametrize("syntax", [EXPLICIT_LE, JPEG_LS, RLE])
def test_a_series_that_another_program_converted_gives_the_volume_it_was_made_of(tmp_path: Path, syntax: str) -> None:
    made = images(
        UNEVEN,
        tilt_deg=18.5,
        PatientID="1",
        PatientName="A^B",
        **dict.fromkeys(("StudyID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyDate", "StudyTime"), ""),
    )
    (expected,) = volumes(saved(made, tmp_path))
    converted = legacy_converted_ct(random.Random(3).sample(made, 5), transfer_syntax_uid=syntax)
    converted.save_as(tmp_path / "legacy.dcm", enforce_file_format=True)
    (actual,) = volumes([tmp_path / "legacy.dcm"])
    assert_same(expected, actual)


def test_a_frame_says_all_that_an_image_says(tmp_path: Path) -> None:
    paths = saved(images(UNEVEN, tilt_deg=18.5, BodyPartExamined="HEAD"), tmp_path)
    path = write_enhanced(paths, tmp_path / "enhanced.dcm")
    frames = read_frames(path, read_header(path))
    for number, (expected, actual) in enumerate(zip(map(read_header, paths), frames.headers, strict=True), 1):
        same = replace(
            actual,
            **{
                name: getattr(expected, name)
                for name in (
                    "sop_instance_uid", "sop_class_uid", "instance_number", "number_of_frames", "frame", "stack_id",
                    "pixels_at", "pixels_length", "implementation_class_uid", "acquisition_time",
                )
            },
        )  # fmt: skip
        assert (number, "1", 5) == (actual.frame, actual.stack_id, actual.number_of_frames)
        assert expected == same
    assert () == frames.refused


def rewritten(made: Dataset, syntax: str, *, undefined: bool = False) -> bytes:
    for element in made.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = undefined
            for item in element.value:
                item.is_undefined_length_sequence_item = undefined
    if syntax == EXPLICIT_BE:
        made.PixelData = np.frombuffer(made.PixelData, "<u2").astype(">u2").tobytes()
    made.file_meta.TransferSyntaxUID = UID(syntax)
    buffer = BytesIO()
    little, implicit = syntax != EXPLICIT_BE, syntax == IMPLICIT_LE
    pydicom.dcmwrite(buffer, made, implicit_vr=implicit, little_endian=little, enforce_file_format=True)
    return buffer.getvalue()


@pytest.mark.parametrize("syntax", [EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE, DEFLATED])
@pytest.mark.parametrize("undefined", [True, False])
def test_frames_are_the_same_in_however_a_file_is_written(tmp_path: Path, syntax: str, *, undefined: bool) -> None:
    made = images(UNEVEN, tilt_deg=18.5)
    (expected,) = volumes(saved(made, tmp_path))
    path = tmp_path / "enhanced.dcm"
    path.write_bytes(rewritten(enhanced_ct(made), syntax, undefined=undefined))
    (actual,) = volumes([path])
    assert_same(expected, actual)
    header = read_header(path)
    assert read_frames(path, header) == frames_of(pydicom.dcmread(path), header)


def test_a_private_sequence_that_was_copied_as_unknown_hides_no_frame(tmp_path: Path) -> None:
    made = enhanced_ct(images())
    unknown = b"\xfe\xff\x00\xe0\xff\xff\xff\xff\x09\x00\x01\x10\x02\x00\x00\x00ab\xfe\xff\x0d\xe0\x00\x00\x00\x00"
    element = b"\x09\x00\x02\x10UN\x00\x00\xff\xff\xff\xff" + unknown + b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
    content = rewritten(made, EXPLICIT_LE, undefined=True)
    group = b"\x20\x00\x11\x91SQ"
    path = tmp_path / "enhanced.dcm"
    path.write_bytes(content.replace(group, element + group))
    header = Header.from_dataset(made, EXPLICIT_LE)
    assert frames_of(made, header) == read_frames(path, header)
    assert 5 == len(read_frames(path, header).headers)


def test_instances_of_a_concatenation_form_one_volume(tmp_path: Path) -> None:
    paths = saved(images((*EVEN, 12.5, 15.0)), tmp_path)
    (expected,) = volumes(paths)
    parts = [write_enhanced(paths[:2], tmp_path / "a.dcm"), write_enhanced(paths[2:], tmp_path / "b.dcm")]
    (actual,) = volumes(parts[::-1])
    assert_same(expected, actual)


@pytest.mark.parametrize("shift", [0.0, 1.25, 100.0], ids=["same places", "interleaved", "apart"])
def test_stacks_of_one_instance_are_told_apart(tmp_path: Path, shift: float) -> None:
    made = [*images(EVEN), *(image(10 + n, z + shift) for n, z in enumerate(EVEN))]
    paths = saved(made, tmp_path)
    order = random.Random(1).sample(range(10), 10)
    stack_ids = ["first" if n < 5 else "second" for n in order]
    path = write_enhanced([paths[n] for n in order], tmp_path / "enhanced.dcm", stack_ids=stack_ids)
    expected = [*volumes(paths[:5]), *volumes(paths[5:])]
    actual = volumes([path])
    assert 2 == len(actual)
    for each in expected:
        (match,) = [a for a in actual if np.array_equal(a.volume.hu, each.volume.hu)]
        assert_same(each, match)


def test_stacks_that_name_each_frame_or_pair_of_frames_are_one() -> None:
    each = frames_in(enhanced_ct(images(), stack_ids=list("abcde"))).headers
    pairs = frames_in(enhanced_ct(images((0.0, 1.0, 2.0, 3.0)), stack_ids=list("aabb"))).headers
    assert ([5], [4]) == (counts(each), counts(pairs))
    assert [2, 3] == counts(frames_in(enhanced_ct(images(), stack_ids=list("aaabb"))).headers)


def test_times_are_told_apart_unless_they_number_the_frames() -> None:
    made = [image(10 * t + n, z, TemporalPositionIdentifier=t) for t in (1, 2, 3) for n, z in enumerate(EVEN)]
    assert [5, 5, 5] == counts(frames_in(enhanced_ct(made)).headers)
    numbered = [image(n, z, TemporalPositionIdentifier=n) for n, z in enumerate(EVEN, 1)]
    assert [5] == counts(frames_in(enhanced_ct(numbered)).headers)


def with_dimension(made: Dataset, pointer: int, values: Sequence[int]) -> Dataset:
    index = Dataset()
    index.DimensionIndexPointer = pointer
    made.DimensionIndexSequence.append(index)
    for group, value in zip(made.PerFrameFunctionalGroupsSequence, values, strict=True):
        content = group.FrameContentSequence[0]
        content.DimensionIndexValues = [*content.DimensionIndexValues, value]
    return made


def test_a_further_dimension_tells_frames_at_one_place_apart_and_no_others() -> None:
    twice = [image(10 * n + m, z) for n, z in enumerate(EVEN) for m in (1, 2)]
    phases = [m for _ in EVEN for m in (1, 2)]
    split = frames_in(with_dimension(enhanced_ct(twice), 0x00189344, phases)).headers
    assert [5, 5] == counts(split)
    assert {phases[h.frame - 1] for h in split if h.frame and h.stack_id == "1/2"} == {2}
    ordered = frames_in(with_dimension(enhanced_ct(images()), 0x00189344, range(5))).headers
    assert ([5], {"1"}) == (counts(ordered), {h.stack_id for h in ordered})


def test_phases_of_the_heart_at_one_place_are_told_apart() -> None:
    made = enhanced_ct([image(10 * n + m, z) for n, z in enumerate(EVEN) for m in (1, 2)])
    for n, group in enumerate(made.PerFrameFunctionalGroupsSequence):
        synchronised = Dataset()
        synchronised.NominalPercentageOfCardiacPhase = 40.0 + 35.0 * (n % 2)
        group.CardiacSynchronizationSequence = [synchronised]
    assert [5, 5] == counts(frames_in(made).headers)


def group(made: Dataset, frame: int) -> Dataset:
    item: Dataset = made.PerFrameFunctionalGroupsSequence[frame - 1]
    return item


def without_position(made: Dataset) -> None:
    del group(made, 2).PlanePositionSequence


def without_position_value(made: Dataset) -> None:
    del group(made, 2).PlanePositionSequence[0].ImagePositionPatient


def nan_position(made: Dataset) -> None:
    with pydicom.config.disable_value_validation():
        group(made, 2).PlanePositionSequence[0].add_new(0x00200032, "LO", ["NaN", "0", "0"])


def distorted(made: Dataset) -> None:
    frame_type = Dataset()
    frame_type.VolumetricProperties = "DISTORTED"
    group(made, 2).CTImageFrameTypeSequence = [frame_type]


def one_too_many(made: Dataset) -> None:
    made.NumberOfFrames = 6


@pytest.mark.parametrize(
    ("spoil", "frame", "reason"),
    [
        (without_position, 2, "Image Position (Patient)"),
        (without_position_value, 2, "Image Position (Patient)"),
        (nan_position, 2, "Image Position (Patient)"),
        (distorted, 2, "frames distorted in space (a curved reformat)"),
        (one_too_many, 6, "functional groups describe 5 of 6 frames"),
    ],
)
def test_a_frame_that_says_too_little_is_refused_and_the_others_are_read(
    spoil: Callable[[Dataset], None], frame: int, reason: str
) -> None:
    made = enhanced_ct(images())
    spoil(made)
    frames = frames_in(made)
    parts = [*stacks_of(frames.headers), *frames.refused]
    (refused,) = [part for part in parts if isinstance(part, Refused)]
    (stack,) = [part for part in parts if isinstance(part, Stack)]
    assert [frame] == [header.frame for header in refused.headers]
    assert reason in refused.reason
    assert {1, 2, 3, 4, 5} - {frame} == {header.frame for header in stack.headers}


def test_a_frame_whose_groups_are_damaged_is_refused_and_the_others_are_read(tmp_path: Path) -> None:
    content = bytearray(rewritten(enhanced_ct(images()), EXPLICIT_LE))
    plane_position = b"\x20\x00\x13\x91SQ\0\0"
    second = content.index(plane_position, content.index(plane_position) + 1)
    content[second + 16] += 200  # the length of the item
    path = tmp_path / "enhanced.dcm"
    path.write_bytes(content)
    frames = read_frames(path, Header.from_dataset(enhanced_ct(images()), EXPLICIT_LE))
    (refused,) = frames.refused
    assert ("the functional groups of a frame are damaged", [2]) == (refused.reason, [h.frame for h in refused.headers])
    assert [1, 3, 4, 5] == [header.frame for header in frames.headers]


def test_an_instance_without_functional_groups_is_refused_frame_by_frame() -> None:
    made = enhanced_ct(images())
    del made.PerFrameFunctionalGroupsSequence, made.SharedFunctionalGroupsSequence
    frames = frames_in(made)
    assert ((), ["functional groups describe 0 of 5 frames"]) == (frames.headers, [r.reason for r in frames.refused])


@pytest.mark.parametrize("count", [10**9, -3, MAX_FRAMES + 1])
def test_a_number_of_frames_that_no_instance_holds_is_refused_at_once(count: int) -> None:
    made = enhanced_ct(images())
    (refused,) = frames_of(made, replace(Header.from_dataset(made, EXPLICIT_LE), number_of_frames=count)).refused
    assert f"{count} frames announced, but a CT instance holds 1 to {MAX_FRAMES}" == refused.reason
    assert 1 == len(refused.headers)


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_damage_to_the_bytes_of_the_groups_refuses_frames_or_the_instance(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(rewritten(enhanced_ct(images()), EXPLICIT_LE, undefined=data.draw(st.booleans())))
    start, end = content.index(struct.pack("<HH", 0x5200, 0x9229)), content.index(struct.pack("<HH", 0x7FE0, 0x0010))
    path = tmp_path / "enhanced.dcm"
    path.write_bytes(content)
    header = read_header(path)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(start + 12, end - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        frames = read_frames(path, header)
    except NotDicom:  # the whole instance is refused
        return
    named = [h.frame for h in frames.headers] + [h.frame for part in frames.refused for h in part.headers]
    assert [1, 2, 3, 4, 5] == sorted(n for n in named if n is not None)


def test_a_real_world_mapping_to_hounsfield_units_stands_in_for_a_missing_rescale() -> None:
    made = enhanced_ct(images())
    del made.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
    for unit, expected in (("[hnsf'U]", "HU"), ("mg/ml", "mg/ml")):
        mapping, code = Dataset(), Dataset()
        mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = 1.0, -1024.0
        code.CodeValue = unit
        mapping.MeasurementUnitsCodeSequence = [code]
        made.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence = [mapping]
        header = frames_in(made).headers[0]
        assert (1.0, -1024.0, expected) == (header.rescale_slope, header.rescale_intercept, header.rescale_type)


def test_a_contrast_agent_counts_for_the_frames_it_was_given_for() -> None:
    made = enhanced_ct(images())
    agent = Dataset()
    agent.CodeValue, agent.CodeMeaning = "C-B0322", "Iohexol"
    made.ContrastBolusAgentSequence = [agent]
    for n, each in enumerate(made.PerFrameFunctionalGroupsSequence):
        usage = Dataset()
        usage.ContrastBolusAgentAdministered = "YES" if n else "NO"
        each.ContrastBolusUsageSequence = [usage]
    assert [None, *["Iohexol"] * 4] == [header.contrast_agent for header in frames_in(made).headers]


def test_the_real_enhanced_image_has_two_frames_in_their_places(shared_data: Path) -> None:
    path = shared_data / "enhanced_ct" / "eCT_Supplemental.dcm"
    frames = read_frames(path, read_header(path))
    assert [(1, -159.0, "US", "Iohexol"), (2, -149.0, "US", "Iohexol")] == [
        (h.frame, h.position_mm and h.position_mm[2], h.rescale_type, h.contrast_agent) for h in frames.headers
    ]
    (refused,) = stacks_of(together(frames.headers))
    assert isinstance(refused, Refused)
    assert "2 slice(s): fewer than 3 are no volume" == refused.reason
