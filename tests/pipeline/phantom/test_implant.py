"""A bleed put into a given volume has the volume, place and density asked for, on any grid."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import ndimage

from pipeline.phantom import implant_bleed
from pipeline.phantom.blob import NoRoom
from reconstruction.geometry import Geometry
from reconstruction.volume import Volume


@dataclass(frozen=True)
class Grid:
    step_mm: float
    pixel_mm: float
    tilt_deg: float = 0.0
    backwards: bool = False


_GRIDS = [
    Grid(1.0, 1.0),
    Grid(5.0, 0.6),
    Grid(3.0, 0.8, tilt_deg=18.5),
    Grid(4.0, 0.7, tilt_deg=-20),
    Grid(2, 1, backwards=True),
]


def _soft_tissue(grid: Grid, sigma_hu: float = 4.0) -> Volume:
    """A block of brain of about 100 mm a side, centre at (10, 20, 30) LPS mm, in a shell of bone."""
    tilt = np.radians(grid.tilt_deg)
    affine = np.eye(4)
    affine[:3, 0] = (0, 0, grid.step_mm / np.cos(tilt) * (-1 if grid.backwards else 1))
    affine[:3, 1] = np.array((0, np.cos(tilt), -np.sin(tilt))) * grid.pixel_mm
    affine[:3, 2] = (grid.pixel_mm, 0, 0)
    shape = (int(100 / grid.step_mm), int(100 / grid.pixel_mm), int(100 / grid.pixel_mm))
    affine[:3, 3] = np.array((10, 20, 30)) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    noise = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=shape), (0, 0.7, 0.7))
    hu = np.rint(33 + noise * sigma_hu / noise.std()).astype(np.int16)
    hu[:, :4], hu[:, -4:] = 900, 900
    return Volume(hu=hu, geometry=Geometry(affine=affine, shape=shape))


@pytest.mark.parametrize("grid", _GRIDS)
@pytest.mark.parametrize("volume_ml", [3.0, 15.0])
def test_volume_and_place_are_those_asked_for(grid: Grid, volume_ml: float) -> None:
    volume = _soft_tissue(grid)
    done = implant_bleed(volume, centre_lps_mm=(12, 18, 33), volume_ml=volume_ml, seed=2)
    assert done.volume_ml == pytest.approx(volume_ml, rel=0.01)
    assert done.region.voxel_count * volume.geometry.voxel_ml == pytest.approx(volume_ml, rel=0.1)
    assert np.linalg.norm(np.subtract(done.centroid_lps_mm, (12, 18, 33))) < 4.0


def test_the_bleed_is_as_dense_and_as_noisy_as_it_should_be() -> None:
    volume = _soft_tissue(Grid(2.0, 0.7), sigma_hu=5.0)
    done = implant_bleed(volume, centre_lps_mm=(10, 20, 30), volume_ml=30, bleed_hu=70)
    core = ndimage.binary_erosion(done.region.full(), iterations=3)
    assert np.median(done.volume.hu[core]) == pytest.approx(70, abs=1)
    assert np.std(done.volume.hu[core]) == pytest.approx(5.0, rel=0.25)


def test_nothing_else_is_touched_and_the_given_volume_stays() -> None:
    volume = _soft_tissue(Grid(2.0, 1.0))
    before = volume.hu.copy()
    done = implant_bleed(volume, centre_lps_mm=(10, 20, 30), volume_ml=5)
    near = ndimage.binary_dilation(done.region.full(), iterations=3)
    assert np.array_equal(before, volume.hu)
    assert np.array_equal(before[~near], done.volume.hu[~near])


def test_bone_bounds_the_bleed() -> None:
    volume = _soft_tissue(Grid(2.0, 1.0))
    done = implant_bleed(volume, centre_lps_mm=(10, -18, 30), volume_ml=15)
    bone = volume.hu > 500
    assert np.array_equal(volume.hu[bone], done.volume.hu[bone])
    assert done.volume_ml == pytest.approx(15, rel=0.01)


def test_seeds_repeat_and_differ() -> None:
    volume = _soft_tissue(Grid(3.0, 1.0))
    first, again, other = (
        implant_bleed(volume, centre_lps_mm=(10, 20, 30), volume_ml=8, seed=s).volume.hu for s in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("centre", [(10, -29, 30), (500, 20, 30)])
def test_bone_and_places_outside_are_no_room(centre: tuple[float, float, float]) -> None:
    with pytest.raises(NoRoom):
        implant_bleed(_soft_tissue(Grid(3.0, 1.0)), centre_lps_mm=centre, volume_ml=8)


def test_more_than_fits_is_refused() -> None:
    with pytest.raises(NoRoom, match="room for"):
        implant_bleed(_soft_tissue(Grid(5.0, 2.0)), centre_lps_mm=(10, 20, 30), volume_ml=900)
