from collections.abc import Callable, Sequence

import numpy as np
import pytest

from pipeline.detectors.skull_fracture import SkullFractureDetector
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


@pytest.mark.parametrize("dent_mm", [6.0, 9.0])
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


@pytest.mark.parametrize("name", ["head_normal_3mm", "head_ge_tilted"])
def test_real_heads_without_a_fracture_get_no_flag(read_scan: ReadScan, name: str) -> None:
    assert len(found_in(*read_scan(name))) == 0


@pytest.mark.parametrize("name", ["brain_5mm", "bone_1mm", "tilt_minus_18", "tilt_plus_16"])
def test_a_skull_phantom_is_declined(read_scan: ReadScan, name: str) -> None:
    answer = SkullFractureDetector()(*read_scan(f"head_phantom_philips/{name}"))
    assert isinstance(answer, Declined)
