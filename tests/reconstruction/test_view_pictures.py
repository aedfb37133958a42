"""Pictures along a path: to scale, upright, the path where it is, and no letter that is not true."""

import numpy as np
import pytest

from reconstruction.curved import Look, curved
from reconstruction.geometry import Geometry
from reconstruction.needle import needle_view
from reconstruction.render import SOFT_TISSUE, YELLOW, Rgb
from reconstruction.view_pictures import curved_picture, needle_pictures
from reconstruction.volume import Volume

SPOT_HU = 900


def cube(spot_lps_mm: tuple[float, float, float] | None = None) -> Volume:
    """Return 60 mm of water in voxels of 1 mm, centred on the origin, with a dense spot of 5 mm where asked."""
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, ::-1]
    affine[:3, 3] = -30.0
    hu = np.zeros((61, 61, 61), dtype=np.int16)
    if spot_lps_mm is not None:
        i, j, k = (int(mm) + 30 for mm in spot_lps_mm)
        hu[k - 2 : k + 3, j - 2 : j + 3, i - 2 : i + 3] = SPOT_HU
    return Volume(hu=hu, geometry=Geometry(affine=affine, shape=hu.shape))


def spot_in(rgb: Rgb) -> tuple[float, float]:
    """Return (row, column) of the white spot, as shares of the picture."""
    white = (rgb == 255).all(axis=-1)
    white[-40:] = white[:, -40:] = white[:30] = False  # scale bar and caption
    row, column = np.argwhere(white).mean(axis=0)
    return row / rgb.shape[0], column / rgb.shape[1]


def has_letter(rgb: Rgb, edge: str) -> bool:
    """Say whether a letter stands at the middle of an edge."""
    height, width = rgb.shape[:2]
    rows, columns = slice(height // 2 - 25, height // 2 + 25), slice(width // 2 - 25, width // 2 + 25)
    part = {
        "left": rgb[rows, :30], "right": rgb[rows, -30:], "top": rgb[:40, columns], "bottom": rgb[-40:, columns],
    }[edge]  # fmt: skip
    return bool((part == YELLOW).all(axis=-1).any())


def test_a_path_from_head_to_feet_or_back_is_shown_with_the_head_above_and_the_right_on_the_left() -> None:
    volume = cube(spot_lps_mm=(-10, 0, 15))
    for path in ([(0, 0, 25), (0, 0, -25)], [(0, 0, -25), (0, 0, 25)]):
        shown = curved_picture(curved(volume, path, look=Look(width_mm=40)), SOFT_TISSUE)
        assert (10 / 50, 10 / 40) == pytest.approx(spot_in(shown.rgb), abs=0.03)
        assert all(has_letter(shown.rgb, edge) for edge in ("left", "right", "top", "bottom"))


def test_a_path_from_side_to_side_lies_across_with_the_right_on_the_left_and_the_head_above() -> None:
    volume = cube(spot_lps_mm=(-15, 0, 10))
    for path in ([(25, 0, 0), (-25, 0, 0)], [(-25, 0, 0), (25, 0, 0)]):
        shown = curved_picture(curved(volume, path, look=Look(width_mm=40)), SOFT_TISSUE)
        assert (10 / 40, 10 / 50) == pytest.approx(spot_in(shown.rgb), abs=0.03)


def test_the_pixels_of_a_curved_picture_measure_what_they_show() -> None:
    shown = curved_picture(curved(cube(), [(0, 0, 20), (0, 0, -20)], look=Look(width_mm=30)), SOFT_TISSUE, size=400)
    sides_mm = [pixels * shown.pixel_mm for pixels in shown.rgb.shape[:2]]
    assert [41.0, 30.0] == pytest.approx(sides_mm, abs=shown.pixel_mm)


def test_sides_that_change_from_row_to_row_have_no_letter() -> None:
    angles = np.linspace(0, 1.5 * np.pi, 13)
    ring = np.column_stack([20 * np.cos(angles), 20 * np.sin(angles), np.linspace(-4, 4, 13)])
    shown = curved_picture(curved(cube(), ring, look=Look(across=None, width_mm=10)), SOFT_TISSUE)
    turned = curved_picture(curved(cube(), ring, look=Look(across=(0, 0, 1), width_mm=10)), SOFT_TISSUE)
    assert has_letter(turned.rgb, "top") or has_letter(turned.rgb, "left")
    assert shown.rgb.shape == turned.rgb.shape


def path_pixels(rgb: Rgb) -> np.ndarray:
    """Return the (row, column) of what is drawn in the path's green."""
    found: np.ndarray = np.argwhere((rgb == (80, 255, 140)).all(axis=-1))
    return found


def test_a_needles_path_is_drawn_from_its_entry_to_its_target_in_both_planes() -> None:
    entry, target = (-20.0, -10.0, 5.0), (10.0, 15.0, 10.0)
    view = needle_view(cube(spot_lps_mm=(10, 15, 10)), entry, target)
    for shown, planes in zip(needle_pictures(view, SOFT_TISSUE), (view.near_axial, view.perpendicular), strict=True):
        green = path_pixels(shown.rgb)
        for place in (entry, target):
            away = np.array(place) - planes.origins_lps_mm[0]
            row, column = float(away @ planes.column_direction), float(away @ planes.row_direction)
            expected = (np.array([row, column]) + 0.5 * planes.pixel_spacing_mm[0]) / shown.pixel_mm
            assert np.hypot(*(green - expected).T).min() < 12
        assert all(has_letter(shown.rgb, edge) for edge in ("left", "right", "top", "bottom"))


def test_a_target_stays_in_sight_inside_its_ring() -> None:
    view = needle_view(cube(spot_lps_mm=(10, 15, 10)), (-20.0, -10.0, 10.0), (10.0, 15.0, 10.0))
    near_axial, _ = needle_pictures(view, SOFT_TISSUE)
    green = path_pixels(near_axial.rgb)
    away = np.array([10.0, 15.0, 10.0]) - view.near_axial.origins_lps_mm[0]
    row, column = (
        round(float(away @ d + 0.5) / near_axial.pixel_mm)
        for d in (view.near_axial.column_direction, view.near_axial.row_direction)
    )
    assert (255, 255, 255) == tuple(near_axial.rgb[row, column])
    assert len(green) > 50
