from collections.abc import Callable, Sequence

import numpy as np
import pytest

from pipeline.detectors.hemorrhage import HemorrhageDetector
from pipeline.model import Acquisition, Declined, Finding
from pipeline.phantom.implant import implant_bleed
from pipeline.testing import PLAIN_MM, DetectorContract, plain_head, volume_of
from reconstruction.volume import Volume

ReadScan = Callable[[str], tuple[Volume, Acquisition]]

PLACES_LPS_MM = {
    "deep": (-37.0, -42.0, -503.0),
    "frontal": (21.0, -90.0, -485.0),
    "temporal": (36.0, -18.0, -531.0),
    "cerebellar": (-18.0, 21.0, -548.0),
    "convexity": (21.0, -66.0, -458.0),
}


class TestHemorrhageDetector(DetectorContract):
    def make_detector(self) -> HemorrhageDetector:
        return HemorrhageDetector()

    def make_example(self) -> Volume:
        return plain_head(bleed_ml=12)


def found_in(volume: Volume, acquisition: Acquisition | None = None) -> Sequence[Finding]:
    found = HemorrhageDetector()(volume, acquisition or Acquisition())
    assert not isinstance(found, Declined), found
    return found


def test_a_plain_head_has_no_bleed() -> None:
    assert len(found_in(plain_head())) == 0


@pytest.mark.parametrize("volume_ml", [2.0, 15.0, 60.0])
def test_a_bleed_in_a_plain_head_is_found_with_its_volume(volume_ml: float) -> None:
    (bleed,) = found_in(plain_head(bleed_ml=volume_ml))
    assert bleed.volume_ml == pytest.approx(volume_ml, rel=0.15)
    assert bleed.probability > 0.8
    assert {"Attenuation Coefficient": "[hnsf'U]"} == {m.name.meaning: m.unit.value for m in bleed.measurements}


def test_a_layer_of_blood_along_the_bone_is_found_as_extra_axial() -> None:
    volume = plain_head()
    lps = volume.geometry.to_mm(np.moveaxis(np.indices(volume.hu.shape), 0, -1)) - volume.geometry.to_mm((29, 56, 49))
    reach = np.linalg.norm(lps / (66.0, 82.0, 72.0), axis=-1)
    layer = (reach < 0.995) & (reach > 0.86) & (lps[..., 0] > 35) & (volume.hu < 60)
    (bleed,) = found_in(volume_of(np.where(layer, volume.hu + 31, volume.hu).astype(np.int16), spacing_mm=PLAIN_MM))
    assert bleed.subtype == "extra-axial"
    assert bleed.volume_ml == pytest.approx(np.count_nonzero(layer) * volume.geometry.voxel_ml, rel=0.3)


def test_calcium_is_no_bleed() -> None:
    hu = plain_head(bleed_ml=4).hu.copy()
    hu[(hu > 50) & (hu < 80)] = 220
    assert len(found_in(volume_of(hu, spacing_mm=PLAIN_MM))) == 0


def test_a_dense_sheet_like_the_falx_is_no_bleed() -> None:
    hu = plain_head().hu.copy()
    sheet = hu[:, :, 48:50]
    sheet[(sheet > 0) & (sheet < 60)] += 25
    assert len(found_in(volume_of(hu, spacing_mm=PLAIN_MM))) == 0


def test_nothing_seen_in_a_head_that_is_cut_off_is_no_negative() -> None:
    answer = HemorrhageDetector()(volume_of(plain_head().hu[:35].copy(), spacing_mm=PLAIN_MM), Acquisition())
    assert isinstance(answer, Declined)
    assert "cut off at the top" in answer.reason


def test_too_much_noise_is_declined() -> None:
    answer = HemorrhageDetector()(plain_head(noise_hu=30), Acquisition())
    assert isinstance(answer, Declined)
    assert "noisy" in answer.reason


@pytest.mark.parametrize(
    ("acquisition", "word"),
    [
        (Acquisition(contrast_agent="OMNIPAQUE"), "contrast"),
        (Acquisition(slice_thickness_mm=7.5), "thick"),
        (Acquisition(body_part="CHEST"), "CHEST"),
        (Acquisition(body_part="PANCREAS"), "PANCREAS"),
        (Acquisition(series_description="TÓRAX C/C"), "TORAX"),
    ],
)
def test_headers_that_forbid_a_judgement_are_declined_with_the_reason(acquisition: Acquisition, word: str) -> None:
    detector = HemorrhageDetector()
    assert word in (detector.declines(acquisition) or "")
    assert isinstance(detector(plain_head(bleed_ml=12), acquisition), Declined)


@pytest.mark.parametrize("body_part", [None, "", "HEAD", "BRAIN", "SKULL", "CRÁNEO", "Cerebro", "CABEZA", "HEAD NECK"])
def test_headers_that_name_a_head_or_nothing_are_accepted(body_part: str | None) -> None:
    assert HemorrhageDetector().declines(Acquisition(body_part=body_part)) is None


@pytest.mark.parametrize("name", ["head_normal_3mm", "head_ge_tilted"])
def test_real_heads_without_a_bleed_get_no_flag(read_scan: ReadScan, name: str) -> None:
    assert len(found_in(*read_scan(name))) == 0


@pytest.mark.parametrize("place", PLACES_LPS_MM)
def test_fifteen_millilitres_put_into_a_real_head_are_found_with_their_volume(read_scan: ReadScan, place: str) -> None:
    volume, acquisition = read_scan("head_normal_3mm")
    truth = implant_bleed(volume, centre_lps_mm=PLACES_LPS_MM[place], volume_ml=15.0)
    (bleed,) = found_in(truth.volume, acquisition)
    assert bleed.volume_ml == pytest.approx(truth.volume_ml, rel=0.3)
    np.testing.assert_allclose(bleed.centroid_lps_mm, truth.centroid_lps_mm, atol=4.0)
    overlap = bleed.region.full() & truth.region.full()
    assert np.count_nonzero(overlap) > 0.8 * truth.region.voxel_count


def test_two_millilitres_in_a_real_head_are_found(read_scan: ReadScan) -> None:
    volume, acquisition = read_scan("head_ge_tilted")
    middle = volume.geometry.to_mm(np.array(volume.geometry.shape) / 2)
    truth = implant_bleed(volume, centre_lps_mm=np.add(middle, (-30.0, -25.0, 15.0)), volume_ml=2.0)
    (bleed,) = found_in(truth.volume, acquisition)
    assert bleed.volume_ml == pytest.approx(2.0, rel=0.35)
