"""Thinning leaves a closed mesh closed, with as many handles and parts as it had, where it was."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from reconstruction.geometry import Geometry
from reconstruction.surface import Mesh, surface, volume_ml, watertight
from reconstruction.surface_thin import thinned
from reconstruction.volume import Volume

Array = npt.NDArray[np.float64]


def torus(around: int, across: int) -> tuple[Array, npt.NDArray[np.int32]]:
    """A ring of 20 mm with a tube of 6 mm."""
    a, b = np.meshgrid(np.arange(around), np.arange(across), indexing="ij")
    turn, roll = 2 * np.pi * a / around, 2 * np.pi * b / across
    out = 20.0 + 6.0 * np.cos(roll)
    places = np.stack([out * np.cos(turn), out * np.sin(turn), 6.0 * np.sin(roll)], axis=-1).reshape(-1, 3)

    def at(da: int, db: int) -> npt.NDArray[np.int32]:
        return (((a + da) % around) * across + (b + db) % across).ravel().astype(np.int32)

    quads = np.stack([at(0, 0), at(1, 0), at(1, 1), at(0, 1)], axis=1)
    return places, np.vstack([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def problems(places: Array, corners: npt.NDArray[np.int32]) -> tuple[str, ...]:
    return watertight(Mesh(vertices_lps_mm=places.astype(np.float32), triangles=corners))


def euler(places: Array, corners: npt.NDArray[np.int32]) -> int:
    """Vertices less edges plus triangles: 2 for each part, less 2 for each handle."""
    return len(places) - len(corners) // 2


def test_a_ring_stays_a_ring_of_the_same_size_with_a_twentieth_of_its_triangles() -> None:
    places, corners = torus(160, 60)
    assert () == problems(places, corners)
    fewer, left = thinned(places, corners, len(corners) // 20)
    assert ((), 0) == (problems(fewer, left), euler(fewer, left))
    assert len(left) <= len(corners) // 20
    away = np.hypot(np.hypot(fewer[:, 0], fewer[:, 1]) - 20.0, fewer[:, 2])
    assert np.abs(away - 6.0).max() < 0.24  # how deep triangles of that size lie below a tube of 6 mm


@pytest.mark.parametrize("wanted", [0, 4, 100])
def test_a_ring_that_cannot_be_thinned_further_is_left_a_ring(wanted: int) -> None:
    fewer, left = thinned(*torus(24, 12), wanted)
    assert ((), 0) == (problems(fewer, left), euler(fewer, left))


def test_a_mesh_of_fewer_triangles_than_wanted_is_left_as_it_is() -> None:
    places, corners = torus(24, 12)
    fewer, left = thinned(places, corners, 10_000)
    assert np.array_equal(places, fewer)
    assert np.array_equal(corners, left)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("triangles", [300, 5_000])
def test_a_sponge_of_voxels_at_the_very_level_has_a_closed_surface_however_thin(seed: int, triangles: int) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(0, 1, (24, 30, 36)), 0.8)
    hu = np.rint(200.0 + 300.0 * noise).astype(np.int16)
    hu[hu > 260] = 3000
    hu[(hu > 170) & (hu < 230)] = 199 + seed % 2  # a thousand voxels beside the level, with dense ones beside them
    affine = np.diag([0.7, 0.7, 1.3, 1.0])[[2, 1, 0, 3]].T
    affine[:3, 3] = (-250.0, 480.0, 1300.0)
    made = surface(Volume(hu=hu, geometry=Geometry(affine=affine, shape=hu.shape)), "bone", triangles=triangles)
    assert () == watertight(made)
    assert volume_ml(made) > 1.0
