"""A surface is closed, lies where the tissue ends, and encloses what the tissue holds, on any straight grid."""

import numpy as np
import pytest

from reconstruction.errors import NoSurface, NotAVolume
from reconstruction.geometry import Geometry
from reconstruction.surface import Mesh, area_cm2, from_stl, surface, to_stl, volume_ml, watertight
from reconstruction.volume import Volume

TETRAHEDRON = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], dtype=np.int32)
CORNERS = np.array([[0, 0, 0], [10, 0, 0], [0, 10, 0], [0, 0, 10]], dtype=np.float32)


def mesh(triangles: object = TETRAHEDRON, vertices: object = CORNERS) -> Mesh:
    return Mesh(vertices_lps_mm=np.array(vertices, dtype=np.float32), triangles=np.array(triangles, dtype=np.int32))


def turned(spacing_mm: tuple[float, float, float], degrees: float, *, way: int) -> np.ndarray:
    """The affine of a grid turned round an oblique axis; left-handed where ``way`` is -1."""
    axis = np.array([1.0, 2.0, 3.0]) / np.sqrt(14.0)
    cross = np.cross(np.eye(3), axis)
    a = np.radians(degrees)
    turn = np.eye(3) + np.sin(a) * cross + (1 - np.cos(a)) * cross @ cross
    affine = np.eye(4)
    affine[:3, :3] = turn[:, ::-1] * spacing_mm * (way, 1.0, 1.0)
    return affine


def ellipsoid(affine: np.ndarray, half_mm: tuple[float, float, float], hu: int = 1000) -> tuple[Volume, np.ndarray]:
    """A digital ellipsoid with partial volume at its edge, and its centre."""
    shape = (44, 60, 64)
    centred = affine.copy()
    centred[:3, 3] = np.array([20.0, -30.0, 400.0]) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    geometry = Geometry(affine=centred, shape=shape, frame_of_reference_uid="1.2.3")
    away = geometry.to_mm(np.moveaxis(np.indices(shape), 0, -1)) - (20.0, -30.0, 400.0)
    r = np.linalg.norm(away / half_mm, axis=-1)
    steep = np.linalg.norm(away / np.square(half_mm), axis=-1) / np.maximum(r, 1e-6)
    level = ((199.5 if hu > 500 else -300.5) + 1000) / (hu + 1000)  # the share of tissue at which its surface is seen
    filled = np.clip((1.0 - r) / np.maximum(steep, 1e-6) / max(geometry.spacing_mm) / 2.0 + level, 0.0, 1.0)
    values = -1000 + (hu + 1000) * filled
    return Volume(hu=np.rint(values).astype(np.int16), geometry=geometry), np.array([20.0, -30.0, 400.0])


@pytest.mark.parametrize(
    ("spacing_mm", "degrees", "way"),
    [((1.0, 1.0, 1.0), 0.0, 1), ((1.5, 0.8, 0.8), 35.0, 1), ((1.2, 0.9, 0.9), 110.0, -1)],
)
@pytest.mark.parametrize(("tissue", "hu"), [("bone", 1000), ("skin", 40)])
def test_a_bodys_surface_is_closed_faces_outwards_and_lies_where_the_body_ends(
    spacing_mm: tuple[float, float, float], degrees: float, way: int, tissue: str, hu: int
) -> None:
    half_mm = (18.0, 15.0, 16.0)
    volume, centre = ellipsoid(turned(spacing_mm, degrees, way=way), half_mm, hu)
    made = surface(volume, tissue, triangles=6000)  # type: ignore[arg-type]
    assert () == watertight(made)
    assert len(made.triangles) <= 9000
    true_ml = 4.0 / 3.0 * np.pi * np.prod(half_mm) / 1000.0
    assert volume_ml(made) == pytest.approx(true_ml, rel=0.02)
    r = np.linalg.norm((made.vertices_lps_mm - centre) / half_mm, axis=1)
    assert (np.abs(r - 1.0) * 15.0).max() < 0.5 * max(spacing_mm)
    assert made.frame_of_reference_uid == "1.2.3"
    assert made.voxel_mm == pytest.approx(spacing_mm)


def test_a_body_that_goes_on_beyond_the_image_is_closed_by_a_cap() -> None:
    hu = np.full((30, 40, 40), -1000, dtype=np.int16)
    hu[:, 8:32, 8:32] = 1000
    volume = Volume(hu=hu, geometry=Geometry(affine=np.eye(4), shape=hu.shape))
    made = surface(volume, "bone")
    assert () == watertight(made)
    assert volume_ml(made) == pytest.approx(30 * 24 * 24 / 1000.0, rel=0.05)


def test_specks_of_bone_are_left_out_and_a_hollow_body_has_one_skin() -> None:
    hu = np.full((50, 60, 60), -1000, dtype=np.int16)
    hu[5:45, 8:52, 8:52] = 40
    hu[15:35, 20:40, 20:40] = -900  # air inside
    hu[40:43, 12:15, 12:15] = 360  # a speck of 0.03 mL
    hu[8:12, 15:45, 15:45] = 360  # bone of 3.6 mL
    volume = Volume(hu=hu, geometry=Geometry(affine=np.eye(4), shape=hu.shape))
    assert volume_ml(surface(volume, "bone")) == pytest.approx(3.6, rel=0.2)
    skin = surface(volume, "skin")
    assert volume_ml(skin) == pytest.approx(40 * 44 * 44 / 1000.0, rel=0.03)
    assert area_cm2(skin) == pytest.approx((2 * 44 * 44 + 4 * 40 * 44) / 100.0, rel=0.05)  # no inner wall


def test_a_mat_under_the_patient_is_no_skin() -> None:
    hu = np.full((30, 70, 70), -1000, dtype=np.int16)
    j, i = np.indices((70, 70)) - 34.5
    hu[3:27, np.hypot(j, i) < 25] = 40
    hu[:, 60:62, :] = 40  # 2 mm thick, touching the back
    hu[3:27, 59:61, 25:45] = 40
    made = surface(Volume(hu=hu, geometry=Geometry(affine=np.eye(4)[[2, 1, 0, 3]], shape=hu.shape)), "skin")
    assert volume_ml(made) == pytest.approx(24 * np.pi * 25**2 / 1000.0, rel=0.05)
    assert np.ptp(made.vertices_lps_mm, axis=0) == pytest.approx([50.0, 50.0, 24.0], abs=4.0)


def test_where_there_is_no_bone_the_reason_is_said() -> None:
    hu = np.full((20, 20, 20), 40, dtype=np.int16)
    volume = Volume(hu=hu, geometry=Geometry(affine=np.eye(4), shape=hu.shape))
    with pytest.raises(NoSurface, match="no bone in the image"):
        surface(volume, "bone")
    air = Volume(hu=np.full((20, 20, 20), -1000, dtype=np.int16), geometry=volume.geometry)
    with pytest.raises(NoSurface, match="no skin in the image"):
        surface(air, "skin")


def test_a_child_that_takes_too_long_is_stopped_and_a_sheared_volume_refused() -> None:
    volume, _ = ellipsoid(np.eye(4)[[2, 1, 0, 3]], (15.0, 15.0, 15.0))
    with pytest.raises(NoSurface, match=r"longer than 0\.05 s"):
        surface(volume, "bone", limit_s=0.05)
    with pytest.raises(NoSurface, match="bone or skin"):
        surface(volume, "liver")  # type: ignore[arg-type]
    affine = np.eye(4)
    affine[1, 0] = 0.3
    sheared = Volume(hu=np.zeros((4, 4, 4), dtype=np.int16), geometry=Geometry(affine=affine, shape=(4, 4, 4)))
    with pytest.raises(NotAVolume, match="regularise"):
        surface(sheared, "skin")


def test_a_tetrahedron_is_watertight_and_measured_exactly() -> None:
    assert () == watertight(mesh())
    assert volume_ml(mesh()) == pytest.approx(1.0 / 6.0)
    assert area_cm2(mesh()) == pytest.approx((150.0 + np.sqrt(3.0) / 4.0 * 200.0) / 100.0)


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (mesh(TETRAHEDRON[:3]), "3 open edges"),
        (mesh(np.vstack([TETRAHEDRON, TETRAHEDRON[:1]])), "3 edges of more than two triangles"),
        (mesh(np.vstack([TETRAHEDRON[:3], TETRAHEDRON[3:, ::-1]])), "3 edges at which triangles turn"),
        (mesh(TETRAHEDRON[:, ::-1]), "turned inside out"),
        (mesh(vertices=CORNERS * (1, 1, 0)), "triangles without area"),
        (mesh(vertices=CORNERS * (1, 1, np.nan)), "no numbers"),
        (mesh(TETRAHEDRON + 1), "vertices that are not there"),
        (mesh(np.zeros((0, 3))), "no triangles"),
    ],
)
def test_a_broken_mesh_is_told_by_what_is_wrong_with_it(broken: Mesh, problem: str) -> None:
    assert any(problem in each for each in watertight(broken))


def test_a_mesh_whose_corners_merely_coincide_is_judged_as_stl_will_be_read() -> None:
    apart = mesh(np.arange(12).reshape(4, 3), CORNERS[TETRAHEDRON].reshape(-1, 3))
    assert () == watertight(apart)
    touching = mesh(np.vstack([TETRAHEDRON, TETRAHEDRON + 4]), np.vstack([CORNERS, CORNERS * (1, 1, 2)]))
    assert any("more than two" in each for each in watertight(touching))


def test_stl_keeps_every_corner_says_unit_and_frame_and_is_the_same_each_time() -> None:
    data = to_stl(mesh())
    assert data == to_stl(mesh())
    assert (84 + 4 * 50, False) == (len(data), data.startswith(b"solid"))
    assert all(said in data[:80] for said in (b"mm", b"LPS", b"not a medical device"))
    back = from_stl(data)
    assert () == watertight(back)
    corners = np.sort(back.vertices_lps_mm[back.triangles].reshape(-1, 9), axis=0)
    assert np.array_equal(np.sort(CORNERS[TETRAHEDRON].reshape(-1, 9), axis=0), corners)
    normals = np.frombuffer(data, dtype="<f4", offset=84, count=3)
    assert normals.tolist() == pytest.approx([0.0, 0.0, -1.0])


@pytest.mark.parametrize("data", [b"", b"solid x", to_stl(mesh())[:-1], to_stl(mesh()) + b"x"])
def test_what_is_no_binary_stl_is_refused(data: bytes) -> None:
    with pytest.raises(NoSurface, match="no binary STL"):
        from_stl(data)


def test_a_mesh_is_float32_and_int32_in_threes() -> None:
    with pytest.raises(NoSurface, match="float32"):
        Mesh(vertices_lps_mm=CORNERS.astype(np.float64), triangles=TETRAHEDRON)
    with pytest.raises(NoSurface, match="threes"):
        mesh(np.zeros((4, 4)))
