"""A mesh is drawn the radiological way round, to scale, and so that what is wrong with it is seen."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconstruction.errors import NoSurface
from reconstruction.render import Rgb
from reconstruction.surface import Mesh, watertight
from reconstruction.surface_picture import drawn, surface_picture

SIZE = 128
BONE = (237.0, 217.0, 184.0)
FRONT = np.array([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]])
"""To the viewer's right the patient's left, up the head, the eye in front."""

CUBE = np.array(
    [
        [0, 2, 1], [1, 2, 3], [4, 5, 6], [5, 7, 6], [0, 1, 4], [1, 5, 4],
        [2, 6, 3], [3, 6, 7], [0, 4, 2], [2, 4, 6], [1, 3, 5], [3, 7, 5],
    ],
    dtype=np.int32,
)  # fmt: skip


def box(low: tuple[float, float, float], high: tuple[float, float, float]) -> Mesh:
    """A closed box; corner n lies high along x, y, z where the bits 1, 2, 4 of n are set."""
    corners = [[(low, high)[n >> axis & 1][axis] for axis in range(3)] for n in range(8)]
    return Mesh(vertices_lps_mm=np.array(corners, dtype=np.float32), triangles=CUBE.copy())


def together(*meshes: Mesh) -> Mesh:
    starts = np.cumsum([0, *(len(mesh.vertices_lps_mm) for mesh in meshes)])
    triangles = [mesh.triangles + start for mesh, start in zip(meshes, starts, strict=False)]
    return Mesh(
        vertices_lps_mm=np.concatenate([mesh.vertices_lps_mm for mesh in meshes]),
        triangles=np.concatenate(triangles).astype(np.int32),
    )


def without(mesh: Mesh, *gone: int) -> Mesh:
    return Mesh(vertices_lps_mm=mesh.vertices_lps_mm, triangles=np.delete(mesh.triangles, gone, axis=0))


def red(rgb: Rgb) -> npt.NDArray[np.bool_]:
    """Where an inside is seen."""
    return (rgb[..., 0] > 50) & (rgb[..., 0] > 3 * rgb[..., 1].astype(int))


def views(mesh: Mesh) -> dict[str, Rgb]:
    sheet = surface_picture(mesh, "bone", size=SIZE).rgb
    names = (("anterior", "left"), ("posterior", "superior"))
    return {
        name: sheet[row * SIZE : (row + 1) * SIZE, column * SIZE : (column + 1) * SIZE]
        for row, pair in enumerate(names)
        for column, name in enumerate(pair)
    }


def knob_at(rgb: Rgb) -> tuple[str, str]:
    """On which sides the small box sticks out of the large one: there the outline is short; letters do not count."""
    coloured = (rgb[..., 0] > rgb[..., 2].astype(int) + 10) & (rgb[..., 2] > rgb[..., 0] // 2)
    ends = [np.flatnonzero(coloured.sum(axis=axis) > SIZE // 10)[[3, -4]] for axis in (1, 0)]
    rows = [int(coloured[row].sum()) for row in ends[0]]
    columns = [int(coloured[:, column].sum()) for column in ends[1]]
    return ("up" if rows[0] < rows[1] else "down", "left" if columns[0] < columns[1] else "right")


def test_each_view_shows_the_patient_from_its_side_with_right_on_the_left_from_the_front() -> None:
    """A knob at the left, back and head end of a cube."""
    shown = views(together(box((-20, -20, -20), (20, 20, 20)), box((14, 14, 14), (26, 26, 26))))
    assert {
        "anterior": ("up", "right"),
        "left": ("up", "right"),
        "posterior": ("up", "left"),
        "superior": ("down", "left"),
    } == {name: knob_at(rgb) for name, rgb in shown.items()}


def test_a_box_covers_as_many_pixels_as_it_is_large_and_no_inside_is_seen() -> None:
    mesh = box((10, -50, 3), (40, 30, 43))
    assert () == watertight(mesh)
    made = surface_picture(mesh, "bone", size=SIZE)
    assert not red(made.rgb).any()
    bare = drawn(mesh, FRONT, (np.array([25.0, -10.0, 23.0]), 64.0), BONE, size=SIZE)
    assert 60 * 80 == pytest.approx(np.count_nonzero(bare.any(axis=-1)), abs=2 * 140)
    assert 80 * 1.15 / SIZE == pytest.approx(made.pixel_mm)


def test_the_face_that_looks_at_the_eye_hides_what_lies_behind_and_is_lit_evenly() -> None:
    near, far = box((-5, -30, -5), (5, -20, 5)), box((-20, 0, -20), (20, 10, 20))
    for order in ((near, far), (far, near)):
        rgb = drawn(together(*order), FRONT, (np.zeros(3), 50.0), BONE, size=SIZE)
        alone = drawn(far, FRONT, (np.zeros(3), 50.0), BONE, size=SIZE)
        assert np.array_equal(rgb, alone)  # both faces look the same way: as light, and the nearer one within the other
    turned = np.array([[0, 1.0, 0], [0, 0, 1.0], [1.0, 0, 0]])
    side = drawn(together(near, far), turned, (np.zeros(3), 80.0), BONE, size=SIZE)
    assert 2 == len(np.unique(np.diff(np.flatnonzero(side.any(axis=(0, 2))))))  # a gap of 20 mm between the two


def test_a_hole_shows_the_inside_in_red_and_an_inverted_triangle_too() -> None:
    mesh = box((-20, -20, -20), (20, 20, 20))
    seen = [n for n, triangle in enumerate(CUBE) if not (triangle & 2).any()]  # the two at the front
    holed = drawn(without(mesh, seen[0]), FRONT, (np.zeros(3), 64.0), BONE, size=SIZE)
    assert 80 * 80 / 2 == pytest.approx(np.count_nonzero(red(holed)), abs=80)
    turned = mesh.triangles.copy()
    turned[seen[1]] = turned[seen[1], ::-1]
    wrong = Mesh(vertices_lps_mm=mesh.vertices_lps_mm, triangles=turned)
    assert red(drawn(wrong, FRONT, (np.zeros(3), 64.0), BONE, size=SIZE)).sum() > 80 * 80 / 2 - 80


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_no_pixel_is_left_out_between_the_triangles_of_a_sheet(seed: int) -> None:
    """A sheet with its inner corners moved at random; from the front it covers a square without a gap."""
    rng = np.random.default_rng(seed)
    n = 9
    x, z = np.meshgrid(np.linspace(-20, 20, n), np.linspace(-20, 20, n))
    inner = np.zeros((n, n), dtype=bool)
    inner[1:-1, 1:-1] = True
    moved = rng.uniform(-1, 1, (2, n, n)) * inner
    places = np.stack([x + moved[0], rng.uniform(-3, 3, (n, n)), z + moved[1]], axis=-1).reshape(-1, 3)
    first = (np.arange(n - 1)[:, None] * n + np.arange(n - 1)).ravel()
    halves = [(first, first + 1, first + n), (first + 1, first + n + 1, first + n)]
    triangles = np.concatenate([np.stack(half, axis=1) for half in halves]).astype(np.int32)
    sheet = Mesh(vertices_lps_mm=places.astype(np.float32), triangles=triangles)
    rgb = drawn(sheet, FRONT, (np.zeros(3), 40.0), BONE, size=SIZE)
    assert int(rgb.max(axis=-1)[1:-1, 1:-1].min()) > 40
    assert not red(rgb).any()


def test_what_lies_beyond_the_picture_is_cut_off() -> None:
    rgb = drawn(box((-500, -20, -500), (500, 20, 500)), FRONT, (np.zeros(3), 10.0), BONE, size=SIZE)
    assert 1 == len(np.unique(rgb.reshape(-1, 3), axis=0))
    away = drawn(box((400, -20, 400), (500, 20, 500)), FRONT, (np.zeros(3), 10.0), BONE, size=SIZE)
    assert not away.any()


def test_letters_and_a_scale_bar_stand_in_the_rim() -> None:
    mesh = box((-20, -20, -20), (20, 20, 20))
    made = surface_picture(mesh, "skin", size=256).rgb
    assert (512, 512, 3) == made.shape
    yellow = (made[..., 0] > 200) & (made[..., 1] > 160) & (made[..., 2] < 90)
    assert all(yellow[row : row + 256, column : column + 256].any() for row in (0, 256) for column in (0, 256))


@pytest.mark.parametrize(
    ("vertices", "triangles", "size", "said"),
    [
        (np.zeros((3, 3)), np.zeros((0, 3)), SIZE, "without triangles"),
        (np.full((3, 3), np.nan), [[0, 1, 2]], SIZE, "no numbers"),
        (np.zeros((3, 3)), [[0, 1, 3]], SIZE, "missing"),
        (np.zeros((3, 3)), [[0, 1, 2]], 10_000, "64 to 2048"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_the_reason(
    vertices: npt.ArrayLike, triangles: npt.ArrayLike, size: int, said: str
) -> None:
    mesh = Mesh(vertices_lps_mm=np.array(vertices, dtype=np.float32), triangles=np.array(triangles, dtype=np.int32))
    with pytest.raises(NoSurface, match=said):
        surface_picture(mesh, "bone", size=size)


def test_a_mesh_that_is_a_single_point_is_drawn_as_nothing() -> None:
    flat = Mesh(vertices_lps_mm=np.full((3, 3), 7, dtype=np.float32), triangles=np.array([[0, 1, 2]], dtype=np.int32))
    assert not drawn(flat, FRONT, (np.full(3, 7.0), 10.0), BONE, size=SIZE).any()
