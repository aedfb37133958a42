"""Are the pictures of docs/geometry.md those that its own commands make?"""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from benchmarks.pictures import DATA, PAGE, Shown, make, shown_in
from pacs_bridge.cli_reconstruct import ProjectionName, reconstruct
from pipeline.model import TurnPreset

SHOWN = list(shown_in(PAGE.read_text(encoding="utf-8")))


def option(shown: Shown, name: str, otherwise: str) -> str:
    """Return what a picture's command gives an option."""
    words = shown.arguments
    return words[words.index(name) + 1] if name in words else otherwise


def test_each_kind_of_output_is_shown() -> None:
    """All but NIfTI: it is a volume for other programs, and ctriage draws no picture of it."""
    kinds = {each.callback.__name__ for each in reconstruct.registered_commands if each.callback}
    assert kinds - {"nifti"} == {each.arguments[1] for each in SHOWN}


def test_each_look_of_a_turn_and_each_projection_is_shown() -> None:
    assert set(get_args(TurnPreset)) == {option(each, "--preset", "bone") for each in SHOWN if "turn" in each.arguments}
    slabs = {option(each, "--projection", "mean") for each in SHOWN if "mpr" in each.arguments}
    assert set(get_args(ProjectionName)) == slabs


def test_no_skin_is_shown_since_a_face_is_known_by_it() -> None:
    assert {"bone"} == {option(each, "--tissue", "bone") for each in SHOWN if "surface" in each.arguments}


@pytest.mark.parametrize("shown", SHOWN, ids=lambda shown: shown.picture)
def test_a_picture_of_the_page_is_there_and_is_one(shown: Shown) -> None:
    with Image.open(PAGE.parent / shown.picture) as image:
        pixels = np.asarray(image.convert("L"))
    assert max(pixels.shape) <= 420
    assert int(np.ptp(pixels)) > 100


def test_no_picture_lies_there_that_the_page_does_not_show() -> None:
    there = {f"pictures/{path.name}" for path in (PAGE.parent / "pictures").iterdir()}
    assert {each.picture for each in SHOWN} == there


@pytest.mark.parametrize(("kind", "place"), [("needle", 0), ("turn", 3), ("surface", 0)])
def test_the_command_above_a_picture_makes_it(kind: str, place: int, shared_data: Path, tmp_path: Path) -> None:
    shown = [each for each in SHOWN if each.arguments[1] == kind][place]
    assert any(DATA in argument for argument in shown.arguments)
    make(shown, shared_data, tmp_path / "made.png")
    with Image.open(tmp_path / "made.png") as made, Image.open(PAGE.parent / shown.picture) as kept:
        assert made.size == kept.size
        apart = np.abs(np.asarray(made.convert("L"), np.int16) - np.asarray(kept.convert("L"), np.int16))
    assert float(apart.mean()) < 3.0


def test_a_frame_of_a_moving_picture_is_named_behind_its_file() -> None:
    page = 'ctriage reconstruct turn DIR\n![a](pictures/a.png "turn.png#3") ![b](pictures/b.png "turn.png")'
    assert [("turn.png", 3), ("turn.png", 1)] == [(each.made, each.frame) for each in shown_in(page)]
