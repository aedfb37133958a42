"""The page one reads first must say what was found, what was not, and what nobody looked at."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.model import (
    HEMORRHAGE,
    SKULL_FRACTURE,
    DetectorRun,
    ExaminedStack,
    Finding,
    Priority,
    Provenance,
    Report,
    Role,
    StudyStatus,
)
from pipeline.picture_texts import TEXTS
from pipeline.pictures import PAGE, clock_text, key_pictures, reasons_of, summary_page, write_png
from reconstruction.geometry import Geometry
from reconstruction.render import RED, Rgb
from reconstruction.volume import Mask, Volume


def head() -> Volume:
    """Stored with columns running to the patient's right, so that a picture must be turned."""
    affine = np.array([[0, 0, -2.0, 60], [0, 2.0, 0, -60], [5.0, 0, 0, 0], [0, 0, 0, 1]])
    hu = np.full((10, 60, 60), 35, dtype=np.int16)
    return Volume(hu=hu, geometry=Geometry(affine=affine, shape=hu.shape))


def bleed(volume: Volume) -> Finding:
    bits = np.zeros(volume.hu.shape, dtype=np.bool_)
    bits[3:6, 20:26, 8:14] = True
    bits[4, 18:28, 6:16] = True
    return Finding(
        kind="hemorrhage",
        subtype="intraparenchymal",
        code=HEMORRHAGE,
        probability=0.93,
        region=Mask.cropped_from(bits, volume.geometry),
        volume_ml=11.2,
        centroid_lps_mm=(39.0, -14.0, 20.0),
        detector="hemorrhage 0.1.0",
    )


def ran(name: str, kind: str) -> DetectorRun:
    return DetectorRun(name=name, version="0.1.0", looks_for=(kind,), status="ran")


def stack(number: int, **changes: object) -> ExaminedStack:
    row = ExaminedStack(
        series_instance_uid=f"1.2.{number}",
        series_number=number,
        series_description="CRÁNEO SIN CONTRASTE",
        stack=1,
        role=Role.VOLUME,
        instances=("1", "2", "3"),
        reason=None,
        detectors=(ran("hemorrhage", "hemorrhage"), ran("skull_fracture", "fracture")),
    )
    return replace(row, **changes)  # type: ignore[arg-type]


def report(*rows: ExaminedStack, findings: tuple[Finding, ...] = ()) -> Report:
    return Report(
        study_instance_uid="1.2",
        study_digest="ab",
        status=StudyStatus.PARTLY_ANALYSED,
        priority=Priority.STAT if findings else None,
        examined=rows,
        findings=findings,
        provenance=Provenance(code_version="0", detector_versions={}, settings_hash=""),
        committed_at=datetime(2026, 3, 4, 5, 6, tzinfo=UTC),
    )


def test_a_key_picture_shows_the_fullest_slice_outlined_on_the_right_side() -> None:
    volume = head()
    (key,) = key_pictures(volume, [bleed(volume)], size=600)
    marked = np.argwhere((key.rgb == RED).all(axis=-1))
    assert key.slice_number == 5
    assert key.rgb.shape == (600, 600, 3)
    assert marked[:, 1].mean() == pytest.approx(600 - 110, abs=6)  # the left of the patient is on the right
    assert marked[:, 0].mean() == pytest.approx(230, abs=6)


@pytest.mark.parametrize("language", ["en", "es"])
def test_the_page_fits_with_many_stacks_findings_and_pictures(language: str) -> None:
    volume = head()
    findings = tuple(replace(bleed(volume), subtype=f"n{n}", volume_ml=None) for n in range(12))
    fracture = replace(findings[0], kind="fracture", code=SKULL_FRACTURE)
    skipped = [stack(n, detectors=(), reason="all slice positions are equal " * 12) for n in range(30)]
    full = report(stack(1), *skipped, findings=(*findings, fracture))
    keys = key_pictures(volume, full.findings[:5])
    rendering = np.full((512, 512, 3), 90, dtype=np.uint8)
    page = summary_page(full, keys, [rendering] * 3, language=language, study_key="0123456789ab", notes=["n"] * 9)  # type: ignore[arg-type]
    assert page.shape == (PAGE[1], PAGE[0], 3)
    assert (page[:, :8] == 255).all()
    assert (page[:, -8:] == 255).all()
    assert (page[-60:] != 255).any()  # the disclaimer stands at the foot


def test_what_was_not_analysed_is_drawn_in_red() -> None:
    clean = summary_page(report(stack(1)), [], [])
    skipped = summary_page(report(stack(1), stack(2, detectors=(), reason="no positions")), [], [])
    assert _reds(skipped) > _reds(clean) + 100


def test_a_study_that_no_detector_read_differs_from_a_negative_one() -> None:
    unread = summary_page(report(stack(1, detectors=(), reason="not Hounsfield units")), [], [])
    assert not np.array_equal(unread, summary_page(report(stack(1)), [], []))


def test_no_language_calls_a_negative_normal() -> None:
    for texts in TEXTS.values():
        words = " ".join(str(getattr(texts, name)) for name in texts.__slots__).lower()
        assert "normal" not in words
        assert "absent" not in words


def declined(name: str, reason: str) -> DetectorRun:
    return DetectorRun(name=name, version="0.1.0", looks_for=(), status="declined", reason=reason)


@pytest.mark.parametrize(
    ("reason", "runs", "expected"),
    [
        ("a: thick; b: thick", {"a": "thick", "b": "thick"}, ["a, b: thick"]),
        ("a: thick; b: noisy", {"a": "thick", "b": "noisy"}, ["a: thick", "b: noisy"]),
        ("no gap", {"a": "no volume: no gap", "b": "no volume: no gap"}, ["no gap"]),
        ("covered by series 2; a: thick", {"a": "thick"}, ["covered by series 2", "a: thick"]),
        ("covered by series 2; no gap", {"a": "no volume: no gap"}, ["covered by series 2; no gap"]),
        ("covered by CT", {"a": "CT"}, ["covered by CT", "a: CT"]),
        ("a scout", {}, ["a scout"]),
        (None, {"a": "thick"}, ["a: thick"]),
        (None, {}, []),
    ],
)
def test_each_reason_is_said_once(reason: str | None, runs: dict[str, str], expected: list[str]) -> None:
    row = stack(1, reason=reason, detectors=tuple(declined(name, why) for name, why in runs.items()))
    assert expected == reasons_of(row)


def test_the_page_shows_the_clock_of_the_commit_with_its_distance_from_utc() -> None:
    at = datetime(2026, 11, 22, 10, 26, 59, tzinfo=UTC)
    assert "2026-11-22 10:26 +00:00" == clock_text(at)
    assert "2026-11-22 04:26 -06:00" == clock_text(at.astimezone(timezone(timedelta(hours=-6))))


def test_a_known_reason_is_said_in_the_language_of_the_page() -> None:
    rows = [stack(1, reason=reason, detectors=()) for reason in ("modality MR, not CT", "modalidad MR, no TC")]
    known, spoken = (summary_page(report(row), [], [], language="es") for row in rows)
    assert np.array_equal(known, spoken)


def test_a_png_holds_the_same_pixels(tmp_path: Path) -> None:
    page = summary_page(report(stack(1)), [], [])
    write_png(page, tmp_path / "summary.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "summary.png")), page)


def _reds(page: Rgb) -> int:
    red = (page[..., 0].astype(int) - page[..., 1] > 60) & (page[..., 0].astype(int) - page[..., 2] > 60)
    return int(np.count_nonzero(red))
