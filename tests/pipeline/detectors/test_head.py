from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from pipeline.detectors.head import NO_HEAD, Head, deeper_than, find_head
from pipeline.detectors.upright import stand_upright
from pipeline.model import Acquisition, Declined
from pipeline.testing import PLAIN_MM, plain_head, volume_of
from reconstruction.volume import Volume

ReadScan = Callable[[str], tuple[Volume, Acquisition]]


def head_in(volume: Volume) -> Head | Declined:
    return find_head(stand_upright(volume.hu, volume.geometry))


def test_the_inside_of_a_plain_head_has_its_volume_noise_and_density() -> None:
    head = head_in(plain_head(noise_hu=6.0))
    assert isinstance(head, Head)
    assert head.inside_ml == pytest.approx(4 / 3 * np.pi * 66 * 82 * 72 / 1000, rel=0.08)
    assert head.noise_hu == pytest.approx(6.0, rel=0.2)
    assert head.tissue_hu == pytest.approx(34.0, abs=1.5)
    assert head.notes == ()


def test_a_bleed_that_touches_bone_stays_inside() -> None:
    without, with_bleed = head_in(plain_head()), head_in(plain_head(bleed_ml=60))
    assert isinstance(without, Head)
    assert isinstance(with_bleed, Head)
    assert with_bleed.inside_ml == pytest.approx(without.inside_ml, rel=0.01)


@pytest.mark.parametrize(("end", "kept"), [("top", slice(0, 35)), ("bottom", slice(25, 60))])
def test_a_head_that_is_cut_off_is_noted(end: str, kept: slice) -> None:
    head = head_in(volume_of(plain_head().hu[kept].copy(), spacing_mm=PLAIN_MM))
    assert isinstance(head, Head)
    assert head.notes == (f"the head is cut off at the {end}",)


@given(
    arrays.arrays(np.bool_, arrays.array_shapes(min_dims=3, max_dims=3, max_side=9), fill=st.just(value=True)),
    st.tuples(*[st.sampled_from([0.7, 1.0, 2.5])] * 3),
    st.sampled_from([1.0, 2.0, 5.0]),
)
def test_what_lies_deep_in_a_region_is_what_a_distance_transform_says(
    bits: np.ndarray, spacing_mm: tuple[float, float, float], depth_mm: float
) -> None:
    bits[0, 0, 0] = False
    expected = ndimage.distance_transform_edt(bits, sampling=spacing_mm) > depth_mm
    np.testing.assert_array_equal(expected, deeper_than(bits, depth_mm, spacing_mm))


@pytest.mark.parametrize("content_hu", [0, -1000, 90])
def test_a_skull_that_holds_no_brain_is_declined(content_hu: int) -> None:
    hu = plain_head(noise_hu=0).hu
    hollow = np.where((hu > 0) & (hu < 40), content_hu, hu).astype(np.int16)
    answer = head_in(volume_of(hollow, spacing_mm=PLAIN_MM))
    assert isinstance(answer, Declined)
    assert answer.reason.startswith(NO_HEAD)


def test_an_open_shell_of_ribs_around_soft_tissue_is_declined() -> None:
    hu = plain_head().hu.copy()
    ribs = np.arange(hu.shape[0]) % 10 < 3
    hu[~ribs] = np.where(hu[~ribs] > 500, 40, hu[~ribs])
    assert isinstance(head_in(volume_of(hu, spacing_mm=PLAIN_MM)), Declined)


@pytest.mark.parametrize(
    ("name", "low_ml", "high_ml"), [("head_normal_3mm", 1100, 1300), ("head_ge_tilted", 1350, 1600)]
)
def test_real_heads_have_an_inside_of_a_believable_volume(
    read_scan: ReadScan, name: str, low_ml: float, high_ml: float
) -> None:
    head = head_in(read_scan(name)[0])
    assert isinstance(head, Head)
    assert low_ml < head.inside_ml < high_ml
    assert head.tissue_hu == pytest.approx(31, abs=3)


@pytest.mark.parametrize(
    "name",
    [
        "chest_1mm",
        "abdomen_ge_revolution",
        *(f"head_phantom_philips/{part}" for part in ("brain_5mm", "bone_1mm", "tilt_minus_18", "tilt_plus_16")),
    ],
)
def test_trunks_and_a_skull_without_brain_are_no_heads(read_scan: ReadScan, name: str) -> None:
    answer = head_in(read_scan(name)[0])
    assert isinstance(answer, Declined)
    assert NO_HEAD in answer.reason
