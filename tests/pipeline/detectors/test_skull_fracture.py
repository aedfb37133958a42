from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from pipeline.detectors.skull_fracture import Dent, SkullFractureDetector, score
from pipeline.model import Acquisition, Declined, Finding
from pipeline.testing import PLAIN_MM, DetectorContract, plain_head, volume_of
from reconstruction.volume import Volume

ReadScan = Callable[[str], tuple[Volume, Acquisition]]


class TestSkullFractureDetector(DetectorContract):
    def make_detector(self) -> SkullFractureDetector:
        return SkullFractureDetector()

    def make_example(self) -> Volume:
        return plain_head(dent_mm=8)


def found_in(volume: Volume, acquisition: Acquisition | None = None) -> Sequence[Finding]:
    found = SkullFractureDetector()(volume, acquisition or Acquisition())
    assert not isinstance(found, Declined), found
    return found


def test_a_whole_vault_has_no_fracture_even_over_a_bleed() -> None:
    assert len(found_in(plain_head(bleed_ml=40))) == 0


@pytest.mark.parametrize("dent_mm", [7.0])
def test_a_dent_is_found_where_it_is_with_its_depth(dent_mm: float) -> None:
    volume = plain_head(dent_mm=dent_mm)
    (dent,) = found_in(volume)
    from_middle = np.subtract(dent.centroid_lps_mm, volume.geometry.to_mm((29, 56, 49)))
    assert float(from_middle @ (0.8, -0.2, 0.57)) / float(np.linalg.norm(from_middle)) > 0.97
    assert dent.measurements[0].value == pytest.approx(dent_mm, abs=1.5)
    assert float(np.mean(volume.hu[dent.region.full()] > 500)) > 0.9


def test_a_dent_of_a_millimetre_is_no_fracture() -> None:
    assert len(found_in(plain_head(dent_mm=1.0))) == 0


def test_a_vault_that_is_cut_off_is_declined() -> None:
    answer = SkullFractureDetector()(volume_of(plain_head().hu[:40].copy(), spacing_mm=PLAIN_MM), Acquisition())
    assert isinstance(answer, Declined)
    assert "vault" in answer.reason


@pytest.mark.parametrize(
    ("acquisition", "word"), [(Acquisition(body_part="CHEST"), "CHEST"), (Acquisition(slice_thickness_mm=6), "thick")]
)
def test_headers_that_forbid_a_judgement_are_declined(acquisition: Acquisition, word: str) -> None:
    assert word in (SkullFractureDetector().declines(acquisition) or "")


def test_contrast_medium_does_not_hinder() -> None:
    assert SkullFractureDetector().declines(Acquisition(contrast_agent="OMNIPAQUE")) is None


def test_a_real_head_without_a_fracture_gets_no_flag(read_scan: ReadScan) -> None:
    assert len(found_in(*read_scan("head_normal_3mm"))) == 0


def test_a_real_head_half_of_slices_of_seven_millimetres_is_declined(read_scan: ReadScan) -> None:
    answer = SkullFractureDetector()(*read_scan("head_ge_tilted"))
    assert isinstance(answer, Declined)
    assert "slices of 5.5 mm are too thick (at most 5 mm)" == answer.reason


def test_a_skull_phantom_is_declined(read_scan: ReadScan) -> None:
    assert isinstance(SkullFractureDetector()(*read_scan("head_phantom_philips/bone_1mm")), Declined)


def test_a_gentle_hollow_of_a_lopsided_skull_is_less_than_a_broken_edge() -> None:
    cells = np.ones((2, 2), dtype=np.bool_)
    broken = Dent(cells=cells, depth_mm=4.0, area_cm2=6.0, steepness=1.5)
    grown = replace(broken, steepness=0.2)
    assert score(grown, 4.0) < 0.5 < score(broken, 4.0)


def test_thicker_slices_ask_for_a_deeper_dent() -> None:
    dent = Dent(cells=np.ones((2, 2), dtype=np.bool_), depth_mm=4.0, area_cm2=3.0, steepness=1.0)
    assert score(dent, 5.0) < score(dent, 3.0)
