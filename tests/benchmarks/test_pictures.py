"""Are the pictures of docs/geometry.md those that its own commands make?"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.pictures import DATA, PAGE, Shown, make, shown_in

SHOWN = list(shown_in(PAGE.read_text(encoding="utf-8")))


def test_each_kind_of_output_is_shown() -> None:
    kinds = {each.arguments[1] for each in SHOWN}
    assert {"isotropic", "mpr", "curved", "needle", "surface", "turn", "nifti"} - kinds <= {"surface", "nifti"}


@pytest.mark.parametrize("shown", SHOWN, ids=lambda shown: shown.picture)
def test_a_picture_of_the_page_is_there_and_is_one(shown: Shown) -> None:
    with Image.open(PAGE.parent / shown.picture) as image:
        pixels = np.asarray(image.convert("L"))
    assert max(pixels.shape) <= 420
    assert int(np.ptp(pixels)) > 100


def test_no_picture_lies_there_that_the_page_does_not_show() -> None:
    there = {f"pictures/{path.name}" for path in (PAGE.parent / "pictures").iterdir()}
    assert {each.picture for each in SHOWN} == there


def test_the_command_above_a_picture_makes_it(shared_data: Path, tmp_path: Path) -> None:
    shown = next(each for each in SHOWN if each.arguments[1] == "needle")
    assert any(DATA in argument for argument in shown.arguments)
    make(shown, shared_data, tmp_path / "made.png")
    with Image.open(tmp_path / "made.png") as made, Image.open(PAGE.parent / shown.picture) as kept:
        assert made.size == kept.size
        apart = np.abs(np.asarray(made.convert("L"), np.int16) - np.asarray(kept.convert("L"), np.int16))
    assert float(apart.mean()) < 3.0
