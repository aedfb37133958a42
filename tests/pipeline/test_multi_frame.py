"""A scan that comes as frames of one instance is read like one that comes as images."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.testing import assert_allclose
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import ExplicitVRLittleEndian

from pipeline.detectors.hemorrhage import HemorrhageDetector
from pipeline.model import Role
from pipeline.phantom import BleedWish, Patient, ScanOptions, WrittenSeries, make_patient, write_series
from pipeline.phantom.multi_frame import HTJ2K, JPEG_LS, RLE, enhanced_ct, legacy_converted_ct, write_enhanced
from pipeline.process import SeriesResult, Source, process_series, stack_again
from pipeline.select import digest_of
from reconstruction.assemble import assemble, pixel_reader
from reconstruction.errors import ReconstructionError
from reconstruction.headers import read_header

READ = "no detector is switched on"
SCAN = ScanOptions(rows=128, columns=128, slice_count=32, slice_thickness_mm=5.0, slice_step_mm=5.0, detail_mm=2.0)


@pytest.fixture(scope="module")
def bleed() -> Patient:
    return make_patient("head-bleed", seed=5, options=replace(SCAN, tilt_deg=12.0), wish=BleedWish(volume_ml=25))


@pytest.fixture(scope="module")
def series(bleed: Patient, tmp_path_factory: pytest.TempPathFactory) -> WrittenSeries:
    return write_series(bleed, tmp_path_factory.mktemp("single"))


@pytest.fixture(scope="module")
def single(series: WrittenSeries) -> SeriesResult:
    return processed(*series.files)


def processed(*paths: Path) -> SeriesResult:
    return process_series(sources(*paths), [HemorrhageDetector()])


def sources(*paths: Path) -> list[Source]:
    return [Source(header=read_header(path), path=path) for path in paths]


def scrambled(paths: Sequence[Path]) -> list[Path]:
    return [paths[n] for n in np.random.default_rng(2).permutation(len(paths))]


def assert_same_findings(expected: SeriesResult, actual: SeriesResult) -> None:
    assert 1 == len(expected.findings) == len(actual.findings)
    for a, b in zip(expected.findings, actual.findings, strict=True):
        assert (a.volume_ml, a.probability, a.subtype) == (b.volume_ml, b.probability, b.subtype)
        assert_allclose(a.centroid_lps_mm, b.centroid_lps_mm, atol=1e-9)
        assert np.array_equal(a.region.full(), b.region.full())


def legacy(paths: Sequence[Path], target: Path, syntax: str) -> Path:
    converted = legacy_converted_ct([pydicom.dcmread(path) for path in paths], transfer_syntax_uid=syntax)
    converted.save_as(target, enforce_file_format=True)
    return target


def enhanced(paths: Sequence[Path], target: Path, syntax: str) -> Path:
    return write_enhanced(paths, target, transfer_syntax_uid=syntax)


@pytest.mark.parametrize(
    ("write", "syntax"),
    [(enhanced, "1.2.840.10008.1.2.1"), (enhanced, HTJ2K), (enhanced, JPEG_LS), (legacy, RLE)],
    ids=["Enhanced", "Enhanced HTJ2K", "Enhanced JPEG-LS", "Legacy Converted RLE"],
)
def test_a_bleed_in_frames_is_the_bleed_in_the_images(
    series: WrittenSeries,
    single: SeriesResult,
    write: Callable[[Sequence[Path], Path, str], Path],
    syntax: str,
    tmp_path: Path,
) -> None:
    result = processed(write(scrambled(series.files), tmp_path / "frames.dcm", syntax))
    assert_same_findings(single, result)
    (expected,), (row,) = single.examined, result.examined
    assert expected.geometry is not None
    assert row.geometry is not None
    assert expected.geometry.agrees_with(row.geometry, within_mm=0.0)
    assert (1, 32, list(range(1, 33))) == (len(set(row.instances)), len(row.instances), sorted(row.frames))
    assert (result.ct_instances, None) == (row.instances[:1], row.reason)
    assert expected.acquisition.kernel == row.acquisition.kernel


def test_a_stack_of_frames_is_found_again_as_it_was_read(series: WrittenSeries, tmp_path: Path) -> None:
    path = write_enhanced(scrambled(series.files), tmp_path / "frames.dcm")
    source = Source(header=read_header(path), path=path)
    (row,) = process_series([source], []).examined
    stack = stack_again(row, {row.instances[0]: source})
    assert (row.instances, row.frames) == (
        tuple(header.sop_instance_uid for header in stack.headers),
        tuple(header.frame for header in stack.headers),
    )
    assert row.geometry is not None
    assert row.geometry.agrees_with(stack.geometry, within_mm=0.0)
    assert 32 == len(assemble(stack, pixel_reader({row.instances[0]: path})).volume.hu)
    with pytest.raises(ReconstructionError, match="a slice cannot be found again"):
        stack_again(row, {})
    path.unlink()
    with pytest.raises(ReconstructionError, match="cannot be opened"):
        stack_again(row, {row.instances[0]: source})


def joined(paths: Sequence[Path], target: Path, change: Callable[[Dataset], None]) -> Path:
    made = enhanced_ct([pydicom.dcmread(path) for path in paths])
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made["PixelData"].VR = "OW"
    change(made)
    made.save_as(target, enforce_file_format=True)
    return target


def told(result: SeriesResult) -> list[tuple[str, int, str | None]]:
    return [(row.role.value, len(row.instances), row.reason) for row in result.examined]


def frames_of(made: Dataset) -> Sequence[Dataset]:
    groups: Sequence[Dataset] = made.PerFrameFunctionalGroupsSequence
    return groups


def set_frame_type(group: Dataset, *values: str) -> None:
    frame_type = Dataset()
    frame_type.FrameType = list(values)
    group.CTImageFrameTypeSequence = [frame_type]


def localizer_and_map(made: Dataset) -> None:
    set_frame_type(frames_of(made)[0], "ORIGINAL", "PRIMARY", "LOCALIZER", "NONE")
    set_frame_type(frames_of(made)[1], "DERIVED", "PRIMARY", "MATERIAL_IODINE", "NONE")


def one_frame_without_rescale(made: Dataset) -> None:
    rescale = made.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
    del made.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
    for group in frames_of(made)[:-1]:
        group.PixelValueTransformationSequence = rescale


def without_place(made: Dataset) -> None:
    del frames_of(made)[0].PlanePositionSequence


def a_billion_frames(made: Dataset) -> None:
    made.NumberOfFrames = 10**9


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            localizer_and_map,
            [
                ("volume", 30, READ),
                ("localizer", 1, "a localizer (scout), not a cross-section"),
                ("derived", 1, "not Hounsfield units (a material or effective-Z map)"),
            ],
        ),
        (without_place, [("volume", 31, READ), ("volume", 1, "a slice has no Image Position (Patient)")]),
        (one_frame_without_rescale, [("volume", 31, READ), ("volume", 1, "1 slice(s): fewer than 3 are no volume")]),
        (a_billion_frames, [("volume", 1, "1000000000 frames announced, but a CT instance holds 1 to 50000")]),
    ],
)
def test_a_frame_that_cannot_be_read_has_its_reason_and_the_others_go_on(
    series: WrittenSeries, change: Callable[[Dataset], None], expected: list[Any], tmp_path: Path
) -> None:
    assert expected == told(process_series(sources(joined(series.files, tmp_path / "frames.dcm", change)), []))


def test_a_damaged_frame_refuses_its_stack_and_no_other(series: WrittenSeries, tmp_path: Path) -> None:
    stack_ids = ["1"] * 16 + ["2"] * 16
    path = write_enhanced(series.files, tmp_path / "frames.dcm", transfer_syntax_uid=JPEG_LS, stack_ids=stack_ids)
    made = pydicom.dcmread(path)
    frames = list(generate_frames(made.PixelData, number_of_frames=32))
    frames[29] = frames[29][: len(frames[29]) // 2]
    made.PixelData = encapsulate(frames)
    made.save_as(path)
    first, second = told(process_series(sources(path), []))
    assert (("volume", 16, READ), ("volume", 16)) == (first, second[:2])
    assert (second[2] or "").startswith("slice 30: the compressed pixel data is")


def test_an_instance_whose_pixels_are_cut_off_is_refused(series: WrittenSeries, tmp_path: Path) -> None:
    def cut_off(made: Dataset) -> None:
        made.PixelData = made.PixelData[: 31 * 128 * 128 * 2 + 100]

    (row,) = told(process_series(sources(joined(series.files, tmp_path / "frames.dcm", cut_off)), []))
    assert "the pixel data is cut off" in (row[2] or "")


def test_the_digest_counts_an_instance_of_many_frames_once(series: WrittenSeries, tmp_path: Path) -> None:
    path = write_enhanced(series.files, tmp_path / "frames.dcm")
    result = process_series(sources(path), [])
    assert (read_header(path).sop_instance_uid,) == result.ct_instances
    assert digest_of([read_header(path).sop_instance_uid]) == result.digest


def test_a_file_that_vanished_is_a_row_with_its_reason(series: WrittenSeries, tmp_path: Path) -> None:
    path = write_enhanced(series.files, tmp_path / "frames.dcm")
    source = Source(header=read_header(path), path=path)
    path.unlink()
    (row,) = process_series([source], []).examined
    assert (Role.VOLUME, 1) == (row.role, len(row.instances))
    assert "cannot be opened" in (row.reason or "")


def test_the_real_enhanced_image_has_too_few_slices(shared_data: Path) -> None:
    result = processed(shared_data / "enhanced_ct" / "eCT_Supplemental.dcm")
    assert [("volume", 2, "2 slice(s): fewer than 3 are no volume")] == told(result)
