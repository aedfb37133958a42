"""From files to a Report: every stack gets its row, every detector its answer, every finding its true place."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from numpy.testing import assert_allclose

from pipeline.model import (
    HEMORRHAGE,
    Acquisition,
    Declined,
    ExaminedStack,
    Finding,
    Priority,
    Provenance,
    Report,
    StudyStatus,
)
from pipeline.ports import Detector
from pipeline.process import (
    SeriesResult,
    Source,
    assemble_report,
    process_series,
    refuse_unworkable,
    straightened_stack,
)
from pipeline.select import digest_of
from reconstruction.assemble import assemble, pixel_reader
from reconstruction.errors import NotAVolume
from reconstruction.geometry import Geometry
from reconstruction.headers import read_header
from reconstruction.resample import regularise
from reconstruction.slices import stack_of
from reconstruction.volume import Mask, PackedBits, Volume

Points = npt.NDArray[np.float64]
WriteSeries = Callable[..., list[Path]]
PROVENANCE = Provenance(code_version="0", detector_versions={}, settings_hash="s")
RADIUS_MM = 12.0
TRUTH_ML = 4.0 / 3.0 * np.pi * RADIUS_MM**3 / 1000.0
CENTRE_MM = (3.0, -2.0, 30.0)
EVEN = tuple(3.0 * n for n in range(21))
UNEVEN = tuple(np.cumsum([0.0, *[2.0] * 8, *[3.5] * 7, 1.1, *[3.5] * 5]).tolist())


def ball(points: Points) -> Points:
    """A ball of 100 HU in water, fading over a millimetre."""
    distance = np.linalg.norm(points - CENTRE_MM, axis=-1)
    return np.asarray(50.0 - 50.0 * np.tanh((distance - RADIUS_MM) / 0.6))


def water(points: Points) -> Points:
    return np.zeros(points.shape[:-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Bright:
    """A detector of everything brighter than 50 HU."""

    name: str = "bright"
    version: str = "1"
    looks_for: tuple[str, ...] = ("hemorrhage",)

    def declines(self, acquisition: Acquisition) -> str | None:
        return "a bone kernel" if acquisition.kernel == "BONE" else None

    def __call__(self, volume: Volume, acquisition: Acquisition, /) -> Sequence[Finding] | Declined:
        bits = volume.hu > 50
        return [self.finding(Mask.cropped_from(bits, volume.geometry))] if bits.any() else []

    def finding(self, region: Mask) -> Finding:
        """Claim a volume and a place that only the acquired slices can correct."""
        return Finding(
            kind="hemorrhage",
            subtype="",
            code=HEMORRHAGE,
            probability=0.9,
            region=region,
            volume_ml=-1.0,
            centroid_lps_mm=(0.0, 0.0, 0.0),
            detector=self.name,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Saying:
    """A detector that answers every volume with what ``answer`` gives or raises."""

    answer: Callable[[], Any]
    refusal: Callable[[], str | None] = lambda: None
    name: str = "saying"
    version: str = "7"
    looks_for: tuple[str, ...] = ("fracture",)

    def declines(self, acquisition: Acquisition) -> str | None:
        return self.refusal()

    def __call__(self, volume: Volume, acquisition: Acquisition, /) -> Sequence[Finding] | Declined:
        answer: Sequence[Finding] | Declined = self.answer()
        return answer


def breaking() -> Any:
    raise ZeroDivisionError("no skull")


def processed(paths: Sequence[Path], *detectors: Detector) -> SeriesResult:
    sources = [Source(header=read_header(path), path=path) for path in paths]
    return process_series(sources, detectors)


def only_row(result: SeriesResult) -> ExaminedStack:
    (row,) = result.examined
    return row


def told(row: ExaminedStack) -> list[tuple[str, str, str | None]]:
    return [(run.name, run.status, run.reason) for run in row.detectors]


@pytest.mark.parametrize("tilt_deg", [0.0, 18.5, -25.0])
@pytest.mark.parametrize("positions", [EVEN, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize("upside_down", [1, -1])
def test_a_finding_lies_and_measures_true_on_the_acquired_slices(
    write_series: WriteSeries, tilt_deg: float, positions: tuple[float, ...], upside_down: int
) -> None:
    result = processed(write_series(positions[::upside_down], ball, tilt_deg=tilt_deg), Bright())
    row, (finding,) = only_row(result), result.findings
    assert row.geometry is not None
    assert row.geometry.agrees_with(finding.region.geometry, within_mm=0.0)
    assert TRUTH_ML == pytest.approx(finding.volume_ml, rel=0.05)
    assert_allclose(finding.centroid_lps_mm, CENTRE_MM, atol=0.3)
    assert ("bright", row.series_instance_uid, 1) == (finding.detector, finding.series_instance_uid, finding.stack)
    straight = tilt_deg == 0.0 and positions == EVEN
    assert straight == (row.working_grid is None)
    assert abs(tilt_deg) == pytest.approx(row.acquisition.tilt_deg, abs=1e-3)


def test_slices_as_acquired_are_given_back_while_they_are_straightened(write_series: WriteSeries) -> None:
    """Where they were a megabyte and more, they read as zeros afterwards; the straight volume is what it would be."""
    paths = write_series([0.5 * n for n in range(140)], ball, tilt_deg=15.0)
    headers = [read_header(path) for path in paths]
    stack = stack_of(headers)
    reader = pixel_reader({header.sop_instance_uid: path for header, path in zip(headers, paths, strict=True)})
    kept, acquired = (assemble(stack, reader) for _ in range(2))
    made = straightened_stack(stack, acquired)
    expected = regularise(kept.volume, padding=kept.padding)
    assert np.array_equal(expected.volume.hu, made.working.hu)
    assert isinstance(made.outside, PackedBits)
    assert np.array_equal(expected.outside, made.outside.slices())
    assert kept.volume.hu.any()
    assert not acquired.volume.hu.any()


def test_a_stack_without_a_grid_that_could_be_held_is_refused_before_a_pixel_is_read(write_series: WriteSeries) -> None:
    headers = [read_header(path) for path in write_series(EVEN, ball, tilt_deg=15.0)]
    refuse_unworkable(stack_of(headers))
    far = replace(stack_of(headers), geometry=stretched(stack_of(headers).geometry))
    with pytest.raises(NotAVolume, match="too large to be held"):
        refuse_unworkable(far)
    straight = stack_of([read_header(path) for path in write_series(EVEN, ball)])
    refuse_unworkable(straight)


def stretched(geometry: Geometry) -> Geometry:
    """Pixels so wide that a straight grid of 1 mm would be gigabytes."""
    affine = geometry.affine.copy()
    affine[:3, :3] *= 60.0
    return Geometry(affine=affine, shape=geometry.shape)


def test_the_working_grid_is_even_and_unsheared_and_told(write_series: WriteSeries) -> None:
    grids = []

    def look() -> list[Finding]:
        return []

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Looking(Saying):
        def __call__(self, volume: Volume, acquisition: Acquisition, /) -> Sequence[Finding] | Declined:
            grids.append(volume.geometry)
            return []

    row = only_row(processed(write_series(UNEVEN, ball, tilt_deg=20.0), Looking(answer=look)))
    assert row.working_grid is not None
    assert row.working_grid.geometry is grids[0]
    assert 0.0 == pytest.approx(grids[0].tilt_deg, abs=1e-6)
    assert 1.75 == pytest.approx(row.working_grid.max_distance_to_slice_mm, abs=0.5)


def test_a_fracture_may_claim_no_volume(write_series: WriteSeries) -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Shapeless(Bright):
        def finding(self, region: Mask) -> Finding:
            return Finding(
                kind="fracture",
                subtype="",
                code=HEMORRHAGE,
                probability=0.5,
                region=region,
                volume_ml=None,
                centroid_lps_mm=(0.0, 0.0, 0.0),
                detector="x",
            )

    (finding,) = processed(write_series(EVEN, ball), Shapeless()).findings
    assert finding.volume_ml is None
    assert_allclose(finding.centroid_lps_mm, CENTRE_MM, atol=0.3)


@pytest.mark.parametrize(
    ("detector", "expected"),
    [
        (Saying(answer=list), ("saying", "ran", None)),
        (Saying(answer=lambda: Declined(reason="no head in it")), ("saying", "declined", "no head in it")),
        (Saying(answer=list, refusal=lambda: "a child"), ("saying", "declined", "a child")),
        (Saying(answer=breaking), ("saying", "failed", "ZeroDivisionError: no skull")),
        (Saying(answer=list, refusal=breaking), ("saying", "failed", "ZeroDivisionError: no skull")),
        (Saying(answer=lambda: None), ("saying", "failed", "TypeError: 'NoneType' object is not iterable")),
    ],
)
def test_each_detector_answers_for_itself_and_the_others_go_on(
    write_series: WriteSeries, detector: Detector, expected: tuple[str, str, str | None]
) -> None:
    result = processed(write_series(EVEN[::4], ball), detector, Bright())
    row = only_row(result)
    assert [expected, ("bright", "ran", None)] == told(row)
    assert (1, True, None) == (len(result.findings), row.analysed, row.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlsoElsewhere(Bright):
    """Finds what is bright, and before it a region that cannot be carried to the acquired slices."""

    elsewhere: Callable[[Volume], Mask]

    def __call__(self, volume: Volume, acquisition: Acquisition, /) -> Sequence[Finding] | Declined:
        found = Mask.cropped_from(volume.hu > 50, volume.geometry)
        return [self.finding(self.elsewhere(volume)), self.finding(found)]


def empty(volume: Volume) -> Mask:
    return Mask(bits=np.zeros((3, 3, 3), dtype=np.bool_), origin_kji=(4, 5, 6), geometry=volume.geometry)


def on_a_foreign_grid(volume: Volume) -> Mask:
    geometry = replace(volume.geometry, shape=(9, 9, 9))
    return Mask(bits=np.ones((3, 3, 3), dtype=np.bool_), origin_kji=(3, 4, 5), geometry=geometry)


def in_a_sheared_corner(volume: Volume) -> Mask:
    """A tilted stack's straight grid has corners that no acquired slice reaches."""
    return Mask(
        bits=np.ones((1, 1, 1), dtype=np.bool_), origin_kji=(0, volume.hu.shape[1] - 1, 5), geometry=volume.geometry
    )


@pytest.mark.parametrize(
    ("elsewhere", "tilt_deg"),
    [(empty, 0.0), (empty, 25.0), (on_a_foreign_grid, 0.0), (on_a_foreign_grid, 25.0), (in_a_sheared_corner, 25.0)],
)
def test_a_finding_that_cannot_be_carried_is_shown_nearby_and_takes_no_other_with_it(
    write_series: WriteSeries, elsewhere: Callable[[Volume], Mask], tilt_deg: float
) -> None:
    result = processed(write_series(UNEVEN, ball, tilt_deg=tilt_deg), AlsoElsewhere(elsewhere=elsewhere))
    row, (nearby, found) = only_row(result), result.findings
    assert row.geometry is not None
    assert [("bright", "ran", None)] == told(row)
    (note,) = [note for note in row.notes if note.startswith("bright: a finding (hemorrhage) is shown at the nearest")]
    assert "without its size: " in note
    assert (None, 1) == (nearby.volume_ml, nearby.region.voxel_count)
    assert row.geometry.agrees_with(nearby.region.geometry, within_mm=0.0)
    assert TRUTH_ML == pytest.approx(found.volume_ml, rel=0.05)
    assert Priority.STAT == report_of(result).priority


def test_a_finding_off_the_slices_lies_at_the_voxel_next_to_it(write_series: WriteSeries) -> None:
    seen: list[Points] = []

    def aside(volume: Volume) -> Mask:
        region = on_a_foreign_grid(volume)
        seen.append(region.geometry.to_mm([4.0, 5.0, 6.0]))
        return region

    result = processed(write_series(UNEVEN, ball, tilt_deg=20.0), AlsoElsewhere(elsewhere=aside))
    apart = np.abs(np.array(result.findings[0].centroid_lps_mm) - seen[0])
    assert (apart <= (0.51, 0.51, 1.76)).all()


def test_where_no_detector_ran_the_row_says_why(write_series: WriteSeries) -> None:
    paths = write_series(EVEN[::4], ball, ConvolutionKernel="BONE")
    row = only_row(processed(paths, Bright(), Saying(answer=breaking)))
    assert "bright: a bone kernel; saying: ZeroDivisionError: no skull" == row.reason
    assert "no detector is switched on" == only_row(processed(paths)).reason
    assert not row.analysed


def test_one_damaged_header_leaves_the_rest_read(write_series: WriteSeries) -> None:
    paths = write_series(EVEN, ball)
    damaged = write_series([99.0], ball, ImagePositionPatient=None, InstanceNumber=99)
    result = processed([*damaged, *paths], Bright())
    good, bad = result.examined
    assert (21, True, 1) == (len(good.instances), good.analysed, len(result.findings))
    reason = "a slice has no Image Position (Patient)"
    assert (1, reason, [("bright", "declined", f"no volume: {reason}")]) == (
        len(bad.instances),
        bad.reason,
        told(bad),
    )


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"RescaleType": "US"}, "not Hounsfield units (rescale type US)"),
        ({"RescaleSlope": None}, "not Hounsfield units (no rescale slope and intercept)"),
        ({"PixelData": b"\0\0"}, "slice 1: the pixel data is cut off: 2 of 8192 bytes"),
        ({"PixelSpacing": None}, "a slice has no Pixel Spacing"),
        ({"BitsStored": 12}, "12 bits stored do not end at bit 15 (PS3.5 8.1.1)"),
    ],
)
def test_what_cannot_be_read_is_a_row_with_the_reason_and_every_detector(
    write_series: WriteSeries, tags: dict[str, Any], reason: str
) -> None:
    result = processed(write_series(EVEN[:4], ball, **tags), Bright())
    row = only_row(result)
    assert (reason, [("bright", "declined", f"no volume: {reason}")]) == (row.reason, told(row))
    assert (False, ()) == (row.analysed, result.findings)


def test_a_localizer_is_no_volume_that_a_detector_missed(write_series: WriteSeries) -> None:
    row = only_row(processed(write_series([0.0], ball, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), Bright()))
    assert ([], "a localizer (scout), not a cross-section") == (told(row), row.reason)


def test_notes_and_padding_reach_the_row(write_series: WriteSeries) -> None:
    row = only_row(processed(write_series(EVEN[:4], water, PixelPaddingValue=1024), Bright()))
    assert ("padded pixels hold no measurement and are masked",) == row.notes


def test_the_digest_and_the_steps_are_told(write_series: WriteSeries) -> None:
    paths = write_series(EVEN[:5], ball)
    sources = [Source(header=read_header(path), path=path) for path in paths]
    ticks = count()
    result = process_series(sources, [Bright()], clock=lambda: float(next(ticks)))
    backwards = process_series(sources[::-1], [Bright()])
    uids = [s.header.sop_instance_uid for s in sources]
    assert (digest_of(uids), digest_of(uids)) == (result.digest, backwards.digest)
    assert {"assemble": 1.0, "detect": 1.0} == result.timings_s
    assert result.examined[0].instances == backwards.examined[0].instances


def report_of(*results: SeriesResult) -> Report:
    return assemble_report("1.7", results, PROVENANCE, notes=("a note",))


def test_progress_is_told_slice_by_slice_then_by_detectors(write_series: WriteSeries) -> None:
    told: list[tuple[str, int, int]] = []
    sources = [Source(header=read_header(path), path=path) for path in write_series(EVEN, water)]
    process_series(sources, [Bright()], watch=lambda step, done, total: told.append((step, done, total)))
    slices = [done for step, done, total in told if step == "assembled" and total == 21]
    assert [0, 21] == [slices[0], slices[-1]]
    assert sorted(set(slices)) == slices
    assert len(slices) > 3
    assert [("detectors", 0, 1), ("detectors", 1, 1)] == told[len(slices) :]


def test_a_study_read_whole_without_findings_is_routine(write_series: WriteSeries) -> None:
    report = report_of(processed(write_series(EVEN[:5], water), Bright()))
    assert (StudyStatus.ANALYSED, Priority.ROUTINE, ()) == (report.status, report.priority, report.findings)
    assert (("a note",), "1.7") == (report.notes, report.study_instance_uid)


def test_a_study_nobody_read_is_not_routine(write_series: WriteSeries) -> None:
    report = report_of(processed(write_series(EVEN[:5], water, ConvolutionKernel="BONE"), Bright()))
    assert (StudyStatus.NOT_ANALYSED, None, 1) == (report.status, report.priority, len(report.skipped))
    assert (StudyStatus.NOT_ANALYSED, None) == (report_of().status, report_of().priority)


def test_a_detector_that_failed_leaves_the_priority_unknown(write_series: WriteSeries) -> None:
    report = report_of(processed(write_series(EVEN[:5], water), Bright(), Saying(answer=breaking)))
    assert (StudyStatus.ANALYSED, None) == (report.status, report.priority)


def test_a_study_is_partly_analysed_while_one_volume_is_unread(write_series: WriteSeries) -> None:
    read = processed(write_series(EVEN, ball, series=1), Bright())
    elsewhere = write_series([500.0 + z for z in EVEN], ball, series=2, ConvolutionKernel="BONE")
    report = report_of(read, processed(elsewhere, Bright()))
    assert (StudyStatus.PARTLY_ANALYSED, Priority.STAT) == (report.status, report.priority)


def test_two_reconstructions_of_one_scan_are_one_study_one_lesion(write_series: WriteSeries) -> None:
    soft = processed(write_series(EVEN, ball, series=2), Bright())
    thin = processed(write_series([1.5 * n for n in range(41)], ball, series=3), Bright())
    bone = processed(write_series(EVEN, ball, series=1, ConvolutionKernel="BONE"), Bright())
    report = report_of(thin, soft, bone)
    assert report.examined[0].reason is not None
    assert report.examined[0].reason.startswith("covered by series 2, stack 1 of the same scan; bright: a bone kernel")
    assert ([1, 2, 3], 1) == ([row.series_number for row in report.examined], len(report.findings))
    assert (("2.25.8003", 1),) == report.findings[0].also_seen_in
    assert (StudyStatus.ANALYSED, Priority.STAT) == (report.status, report.priority)
    assert report_of(bone, soft, thin).study_digest == report.study_digest


def test_what_is_no_ct_never_changes_the_digest(write_series: WriteSeries) -> None:
    scan = processed(write_series(EVEN[:3], water, series=1), Bright())
    page = processed(write_series([0.0], water, series=2, SOPClassUID="1.2.840.10008.5.1.4.1.1.7"), Bright())
    odd = processed(write_series([0.0], water, series=3, Modality="PT"), Bright())  # a CT image by its class
    dose = {"Modality": "SR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.67"}
    document = processed(write_series([0.0], water, series=4, **dose), Bright())
    mr = {"Modality": "MR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}
    other = processed(write_series([0.0], water, series=5, **mr), Bright())
    ct = [uid for result in (scan, page, odd) for row in result.examined for uid in row.instances]
    assert digest_of(ct) == report_of(scan, page, odd).study_digest
    assert digest_of(ct) == report_of(scan, page, odd, document, other).study_digest
    assert ([1, 2, 3, 4, 5], 5) == (
        [row.series_number for row in report_of(scan, page, odd, document, other).examined],
        len(ct),
    )


def test_series_without_a_number_come_last(write_series: WriteSeries) -> None:
    numbered = processed(write_series(EVEN[:3], water, series=9), Bright())
    unnumbered = processed(write_series(EVEN[:3], water, series=1), Bright())
    nameless = replace(unnumbered, examined=tuple(replace(r, series_number=None) for r in unnumbered.examined))
    assert [9, None] == [row.series_number for row in report_of(nameless, numbered).examined]
