"""The scanner keeps true geometry, and its noise and averaging are what the options say."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.phantom import Patient, ScanOptions, make_patient
from pipeline.phantom.canvas import Image, Plane, Vector
from pipeline.phantom.scan import scan


class Ball:
    """A water ball of 30 mm round (5, -10, 15) mm, all of it lesion."""

    extent_lps_mm: tuple[Vector, Vector] = (np.array([-45.0, -60.0, -35.0]), np.array([55.0, 40.0, 65.0]))
    field_of_view_mm = 120.0

    def sample(self, plane: Plane, edge_mm: float) -> tuple[Image, Image]:
        x, y, z = (plane.coordinate(axis) for axis in range(3))
        distance = np.sqrt((x - 5) ** 2 + (y + 10) ** 2 + (z - 15) ** 2) - 30
        filled = np.clip(0.5 - distance / edge_mm, 0, 1).astype(np.float32)
        return filled * 1000 - 1000, filled


_BALL_ML = 4 / 3 * np.pi * 27.0
_OPTIONS = ScanOptions(rows=96, columns=96, slice_count=34, slice_step_mm=2.5, noise_hu=0.0, cupping_hu=0.0)


@pytest.mark.parametrize("tilt_deg", [0.0, 18.5, -12.0])
@pytest.mark.parametrize("thickness_mm", [2.5, 5.0])
def test_a_ball_keeps_volume_and_place_at_any_tilt(tilt_deg: float, thickness_mm: float) -> None:
    options = replace(_OPTIONS, tilt_deg=tilt_deg, slice_thickness_mm=thickness_mm)
    scanned = scan(Ball(), options, np.random.default_rng(0))
    geometry = scanned.volume.geometry
    assert scanned.fraction.sum() * geometry.voxel_ml == pytest.approx(_BALL_ML, rel=0.01)
    indices = np.argwhere(scanned.fraction > 0)
    centre = scanned.fraction[scanned.fraction > 0] @ geometry.to_mm(indices) / scanned.fraction.sum()
    assert centre == pytest.approx((5.0, -10.0, 15.0), abs=0.15)


@pytest.mark.parametrize("tilt_deg", [0.0, 7.4, -18.5, 30.0])
def test_tilt_shears_the_stack_by_exactly_its_angle(tilt_deg: float) -> None:
    geometry = scan(
        Ball(), replace(_OPTIONS, slice_count=4, tilt_deg=tilt_deg), np.random.default_rng(0)
    ).volume.geometry
    assert geometry.tilt_deg == pytest.approx(abs(tilt_deg), abs=1e-9)
    assert geometry.slice_step_mm == pytest.approx(2.5, abs=1e-9)
    assert geometry.affine[:2, 0] == pytest.approx((0.0, 0.0))


def test_a_flat_body_stays_flat() -> None:
    scanned = scan(Ball(), replace(_OPTIONS, rows=256, columns=256), np.random.default_rng(0))
    k, j, i = np.rint(scanned.volume.geometry.to_index((5.0, -10.0, 15.0))).astype(int)
    core = scanned.volume.hu[k - 3 : k + 4, j - 20 : j + 21, i - 20 : i + 21]
    assert np.abs(core).max() <= 1


def test_noise_has_the_strength_asked_for_and_grows_with_thinner_slices() -> None:
    def sigma(thickness_mm: float) -> float:
        options = replace(_OPTIONS, rows=256, columns=256, noise_hu=4.0, slice_thickness_mm=thickness_mm)
        noisy = scan(Ball(), options, np.random.default_rng(0))
        return float(np.std(noisy.volume.hu[16, 110:140, 120:150]))

    assert sigma(5.0) == pytest.approx(4.0, rel=0.2)
    assert sigma(1.25) == pytest.approx(8.0, rel=0.2)


def test_neighbouring_pixels_share_noise() -> None:
    options = replace(_OPTIONS, field_of_view_mm=240.0, rows=512, columns=512, slice_count=1, noise_hu=10.0)
    air = scan(Ball(), options, np.random.default_rng(0)).volume.hu[0, :60].astype(float)
    air = np.maximum(air, -1023) - air.mean()
    assert 0.4 < np.mean(air[:, 1:] * air[:, :-1]) / np.mean(air**2) < 0.8


def test_uneven_slices_lie_where_their_positions_say(small: ScanOptions) -> None:
    offsets = (0.0, 0.0, 1.5, 0.0)
    options = replace(_OPTIONS, slice_count=4, slice_step_mm=8.0, slice_offsets_mm=offsets)
    uneven = scan(Ball(), options, np.random.default_rng(0))
    gaps = np.diff(uneven.positions_lps_mm @ uneven.volume.geometry.normal)
    assert gaps == pytest.approx((8.0, 9.5, 6.5))


@pytest.mark.parametrize(
    "wrong", [{"kernel": "SOFT"}, {"slice_offsets_mm": (1.0,)}, {"dose": 0.0}, {"rows": 0}, {"slice_count": 0}]
)
def test_options_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"kernel|slice_offsets_mm|above zero"):
        ScanOptions(**wrong)  # type: ignore[arg-type]


def test_a_head_fills_its_slices_from_base_to_vertex(head: Patient) -> None:
    bone = (head.volume.hu > 300).sum(axis=(1, 2))
    assert bone[0] > 100
    assert bone[-4:].min() < 200
    assert np.count_nonzero(bone) >= head.volume.hu.shape[0] - 3


def test_a_bone_kernel_is_sharper_and_noisier(small: ScanOptions) -> None:
    options = replace(small, rows=256, columns=256, slice_count=1, slice_thickness_mm=1.0)
    soft, bone = (
        make_patient("head", seed=1, options=replace(options, kernel=k)).volume.hu for k in ("STANDARD", "BONE")
    )
    assert np.std(bone[0, :20, :20].astype(float)) > 2 * np.std(soft[0, :20, :20].astype(float)) or bone.min() == -1024
