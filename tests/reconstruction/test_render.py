"""Pictures must read right: grey by the window, sides by the directions, letters with accents."""

import numpy as np
import numpy.typing as npt
import pytest
from numpy.testing import assert_array_equal

from reconstruction.render import BRAIN, RED, Flat, lettered, letters, outlined, picture, upright, window

AXIAL = (np.array([1.0, 0, 0]), np.array([0, 1.0, 0]))


def flat(pixels: npt.NDArray[np.generic], row: tuple[float, ...], column: tuple[float, ...]) -> Flat:
    return Flat(
        pixels=pixels,
        row_direction=np.array(row, dtype=np.float64),
        column_direction=np.array(column, dtype=np.float64),
        pixel_spacing_mm=(2.0, 1.0),
    )


def test_the_window_runs_from_black_to_white_about_its_level() -> None:
    grey = window(np.array([-1024, -1, 0, 40, 80, 81, 3000, -32768, 32767], dtype=np.int16), 40, 80)
    assert [0, 0, 2, 129, 255, 255, 255, 0, 255] == pytest.approx(grey.tolist(), abs=2)


@pytest.mark.parametrize(
    ("direction", "expected"),
    [
        ((1, 0, 0), "L"),
        ((-1, 0, 0), "R"),
        ((0, 1, 0), "P"),
        ((0, -1, 0), "A"),
        ((0, 0, 1), "H"),
        ((0, 0, -1), "F"),
        ((0, 0.3, -0.95), "F"),
        ((0, -0.6, 0.8), "HA"),
    ],
)
def test_letters_come_from_the_direction(direction: tuple[float, float, float], expected: str) -> None:
    assert letters(np.array(direction)) == expected


def test_every_way_of_storing_an_axial_slice_is_shown_alike() -> None:
    pixels = np.arange(12).reshape(3, 4)
    expected = upright(flat(pixels, (1, 0, 0), (0, 1, 0)))
    stored = [
        flat(pixels[:, ::-1], (-1, 0, 0), (0, 1, 0)),
        flat(pixels[::-1], (1, 0, 0), (0, -1, 0)),
        flat(pixels.T, (0, 1, 0), (1, 0, 0)),
        flat(pixels[::-1, ::-1].T, (0, -1, 0), (-1, 0, 0)),
    ]
    for one in stored:
        shown = upright(one)
        assert_array_equal(expected.pixels, shown.pixels)
        assert_array_equal(expected.row_direction, shown.row_direction)


def test_a_picture_is_stretched_to_square_pixels_and_its_outline_with_it() -> None:
    bits = np.zeros((20, 40), dtype=np.bool_)
    bits[5:10, 30:35] = True
    rgb = picture(flat(np.zeros((20, 40), dtype=np.int16), (-1, 0, 0), (0, 1, 0)), BRAIN, outline=bits, size=400)
    marked = np.argwhere((rgb == RED).all(axis=-1))
    assert rgb.shape == (400, 400, 3)
    assert marked[:, 1].mean() == pytest.approx(400 - 32.5 * 10, abs=3)
    assert marked[:, 0].mean() == pytest.approx(7.5 * 20, abs=3)


def test_an_outline_leaves_the_region_itself_visible() -> None:
    region = np.zeros((30, 30), dtype=np.bool_)
    region[10:20, 10:20] = True
    rgb = outlined(np.full((30, 30, 3), 90, dtype=np.uint8), region, RED)
    assert (rgb[region] == 90).all()
    assert (rgb[9, 10:20] == RED).all()


def test_letters_and_a_scale_bar_stand_on_the_picture() -> None:
    blank = np.zeros((256, 256, 3), dtype=np.uint8)
    rgb = lettered(blank, *AXIAL, pixel_mm=1.0)
    assert all(part.any() for part in (rgb[100:156, :30], rgb[100:156, -30:], rgb[:30, 100:156], rgb[-30:, 100:156]))
    assert (rgb[248, 199:247] == 255).all()
