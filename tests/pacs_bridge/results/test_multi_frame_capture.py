"""A turning rendering: all its frames, and how they play."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest

from pacs_bridge.results.multi_frame_capture import TurnCapture, build_turn
from pacs_bridge.results.testing import context_of, ct_headers, report_of, stack_of
from pipeline.model import ResultObject, TurnPreset

HEADERS = ct_headers(LossyImageCompression="01", LossyImageCompressionMethod="ISO_10918_1")
STACK = stack_of(HEADERS)
FRAMES = np.random.default_rng(3).integers(0, 255, (5, 7, 9, 3), dtype=np.uint8)


def built(preset: TurnPreset = "bone", number: int = 1) -> ResultObject:
    turn = TurnCapture(preset=preset, rgb=FRAMES, stack=STACK)
    return build_turn(context_of(HEADERS, language="es"), report_of([STACK]), turn, number)


def test_a_turn_keeps_every_frame_and_plays_at_its_speed() -> None:
    image = pydicom.dcmread(BytesIO(built().part10))
    assert "1.2.840.10008.5.1.4.1.1.7.4" == image.SOPClassUID
    assert np.array_equal(FRAMES, image.pixel_array)
    assert (5, 0x00181063, 100, 10) == (
        image.NumberOfFrames,
        image.FrameIncrementPointer,
        image.FrameTime,
        image.RecommendedDisplayFrameRate,
    )


def test_a_turn_says_how_and_from_what_it_was_made() -> None:
    image = pydicom.dcmread(BytesIO(built("vessel").part10))
    assert "113074" == image.DerivationCodeSequence[0].CodeValue
    assert [h.SOPInstanceUID for h in HEADERS] == [i.ReferencedSOPInstanceUID for i in image.SourceImageSequence]
    assert ("01", "NO", "ctriage: giro 3D, vasos") == (
        image.LossyImageCompression,
        image.BurnedInAnnotation,
        image.SeriesDescription,
    )


def test_turns_are_told_apart_and_made_again_are_the_same() -> None:
    assert 3 == len(
        {built("bone", 1).sop_instance_uid, built("brain", 2).sop_instance_uid, built("bone", 3).label} - {""}
    )
    assert built("brain").series_instance_uid != built("bone").series_instance_uid
    assert built().part10 == built().part10


@pytest.mark.parametrize("shape", [(5, 7, 3), (0, 7, 9, 3), (5, 7, 9, 4)])
def test_what_is_no_turn_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="frames, rows, columns"):
        TurnCapture(preset="bone", rgb=np.zeros(shape, np.uint8), stack=STACK)


def test_dciodvfy_accepts_a_turn(dciodvfy_errors: Callable[[Path], set[str]], tmp_path: Path) -> None:
    path = tmp_path / "turn.dcm"
    path.write_bytes(built().part10)
    assert set() == dciodvfy_errors(path)
