"""A digital patient follows from its arguments, and its truth is what was put in."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.phantom import KINDS, BleedWish, FractureWish, Patient, ScanOptions, make_patient
from pipeline.phantom.blob import NoRoom
from pipeline.phantom.patient import UnknownKind


def _mean_hu(patient: Patient, lps_mm: tuple[float, float, float], reach: int = 1) -> float:
    k, j, i = np.rint(patient.volume.geometry.to_index(lps_mm)).astype(int)
    return float(patient.volume.hu[k, j - reach : j + reach + 1, i - reach : i + reach + 1].mean())


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_arguments_make_the_same_bits(kind: str, small: ScanOptions) -> None:
    options = replace(small, rows=64, columns=64, slice_count=5)
    one, other = (make_patient(kind, seed=7, options=options) for _ in range(2))
    assert np.array_equal(one.volume.hu, other.volume.hu)
    assert [f.centroid_lps_mm for f in one.findings] == [f.centroid_lps_mm for f in other.findings]


def test_another_seed_is_another_anatomy_not_only_other_noise(small: ScanOptions) -> None:
    quiet = replace(small, rows=64, columns=64, slice_count=6, noise_hu=0.0)
    one, other = (make_patient("head", seed=seed, options=quiet).volume.hu for seed in (1, 2))
    assert np.mean(np.abs(one.astype(int) - other)) > 20


def test_a_head_and_the_same_head_with_a_bleed_differ_by_the_bleed_alone(head: Patient, bleed: Patient) -> None:
    differs = np.abs(head.volume.hu.astype(int) - bleed.volume.hu) > 3
    region = bleed.findings[0].region.full()
    assert (differs & region).sum() / region.sum() > 0.95
    assert differs.sum() < 3 * region.sum()


def test_normal_kinds_have_no_findings(head: Patient, torso: Patient) -> None:
    assert (head.findings, torso.findings) == ((), ())


def test_an_unknown_kind_is_refused_with_the_kinds_there_are() -> None:
    with pytest.raises(UnknownKind, match="head-bleed"):
        make_patient("foot")


def test_a_bleed_has_the_volume_wished_for_on_the_scanned_grid(bleed: Patient) -> None:
    (finding,) = bleed.findings
    assert finding.volume_ml == pytest.approx(15.0, rel=0.1)
    assert finding.region.voxel_count * bleed.volume.geometry.voxel_ml == pytest.approx(15.0, rel=0.1)


def test_a_bleeds_mask_is_as_dense_as_the_bleed(bleed: Patient) -> None:
    inside = bleed.volume.hu[bleed.findings[0].region.full()]
    assert 52 < np.median(inside) < 75


def test_a_bleed_is_put_where_the_caller_says(small: ScanOptions) -> None:
    wish = BleedWish(volume_ml=8.0, bleed_hu=70.0, centre_lps_mm=(24.0, -20.0, 20.0))
    (finding,) = make_patient("head-bleed", seed=3, options=small, wish=wish).findings
    assert np.linalg.norm(np.subtract(finding.centroid_lps_mm, (24.0, -20.0, 20.0))) < 5.0


def test_a_bleed_outside_the_brain_is_refused(small: ScanOptions) -> None:
    wish = BleedWish(volume_ml=8.0, centre_lps_mm=(300.0, 0.0, 0.0))
    with pytest.raises(NoRoom):
        make_patient("head-bleed", seed=3, options=small, wish=wish)


def test_a_subdural_bleed_is_a_crescent_along_the_skull(small: ScanOptions) -> None:
    patient = make_patient("head-bleed", seed=3, options=small, wish=BleedWish(volume_ml=40, subtype="subdural"))
    (finding,) = patient.findings
    assert finding.subtype == "subdural"
    assert finding.volume_ml == pytest.approx(40.0, rel=0.1)
    box_ml = finding.region.bits.size * patient.volume.geometry.voxel_ml
    assert box_ml > 3 * 40.0


def test_a_fragment_is_pushed_in_and_leaves_a_gap(small: ScanOptions) -> None:
    options = replace(small, rows=176, columns=176, slice_count=14, noise_hu=0.0)
    towards = (1.0, 0.1, 0.5)
    well = make_patient("head", seed=4, options=options).volume.hu
    ill = make_patient("head-fracture", seed=4, options=options, wish=FractureWish(drop_mm=9, towards_lps=towards))
    assert np.count_nonzero((well > 600) & (ill.volume.hu < 300)) > 50
    gained = (well < 100) & (ill.volume.hu > 500)
    assert np.count_nonzero(gained) > 30
    assert np.count_nonzero(gained & ill.findings[0].region.full()) / np.count_nonzero(gained) > 0.8


def test_a_fractures_mask_lies_at_the_vault(fracture: Patient) -> None:
    (finding,) = fracture.findings
    assert (finding.kind, finding.subtype, finding.volume_ml) == ("fracture", "depressed", None)
    assert finding.region.voxel_count > 100
    middle = np.mean(fracture.volume.geometry.to_mm([(0, 127, 127), (23, 128, 128)]), axis=0)
    assert np.linalg.norm(np.subtract(finding.centroid_lps_mm, middle)) > 45


def test_tissues_of_a_head_have_their_hounsfield_units(head: Patient) -> None:
    hu = head.volume.hu
    assert np.median(hu[:, :6, :6]) == pytest.approx(-1000, abs=3)
    brain = hu[10:16, 50:78, 50:78]
    assert 27 < np.median(brain) < 40
    assert 1000 < np.percentile(hu[hu > 400], 99) < 1900
    fat = np.count_nonzero((hu > -115) & (hu < -60))
    assert fat > 0.004 * hu.size


def test_tissues_of_a_torso_have_their_hounsfield_units(torso: Patient) -> None:
    hu = torso.volume.hu
    assert 0.05 < np.mean((hu > -900) & (hu < -780)) < 0.4
    shift = torso.volume.geometry.to_mm(np.array(hu.shape) // 2) - (0.0, 14.0, 0.0)
    x, y, z = (float(v) for v in shift)
    assert 45 < _mean_hu(torso, (x - 80.0, y - 10.0, z - 40.0)) < 70
    assert 30 < _mean_hu(torso, (x + 35.0, y - 30.0, z + 25.0)) < 60
