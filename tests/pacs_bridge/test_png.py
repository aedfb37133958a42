"""Does a picture show the patient the right way round, with the right letters?"""

from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from pacs_bridge.png import picture_of, write_png_beside
from pacs_bridge.results.context import Context
from pacs_bridge.results.derived import Reformat, build_derived_series
from pacs_bridge.results.multi_frame_capture import TurnCapture, build_turn
from pacs_bridge.results.secondary_capture import Capture, build_captures
from pacs_bridge.results.sources import SourceHeaders
from pipeline.model import ExaminedStack, Provenance, Report, ResultObject, Role, StudyStatus
from reconstruction.planes import Orientation, Planes, PlanesKind
from reconstruction.render import SOFT_TISSUE, YELLOW, Rgb

SIZE = 512
MARK_HU = 3000


def source(uid: str = "1.2.3.4.1") -> Dataset:
    header = Dataset()
    header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, uid
    header.StudyInstanceUID, header.SeriesInstanceUID, header.FrameOfReferenceUID = "1.2.3", "1.2.3.4", "1.2.3.9"
    header.PatientName, header.PatientID, header.Modality = "Doe^Jane", "P1", "CT"
    return header


STACK = ExaminedStack(
    series_instance_uid="1.2.3.4",
    series_number=1,
    series_description="",
    stack=1,
    role=Role.VOLUME,
    instances=("1.2.3.4.1",),
    reason=None,
)
REPORT = Report(
    study_instance_uid="1.2.3",
    study_digest="d",
    status=StudyStatus.ANALYSED,
    priority=None,
    examined=(STACK,),
    findings=(),
    provenance=Provenance(code_version="1", detector_versions={}, settings_hash=""),
    committed_at=datetime(2026, 3, 1, tzinfo=UTC),
)
CONTEXT = Context(
    sources=SourceHeaders(datasets={"1.2.3.4.1": source()}), committed_at=datetime(2026, 3, 1, tzinfo=UTC)
)


def derived(orientation: Orientation, row: Any, column: Any, kind: PlanesKind = "mpr") -> Dataset:
    """Return a derived CT frame of 100 x 60 mm of air with a mark at the start of its rows and columns."""
    hu = np.full((1, 50, 30), -1000, dtype=np.int16)
    hu[0, 5:10, 3:8] = MARK_HU
    planes = Planes(
        hu=hu,
        origins_lps_mm=np.zeros((1, 3)),
        row_direction=np.array(row, dtype=float),
        column_direction=np.array(column, dtype=float),
        pixel_spacing_mm=(2.0, 2.0),
        slice_thickness_mm=3.0,
        spacing_between_mm=None,
        orientation=orientation,
        kind=kind,
    )
    (built,) = build_derived_series(CONTEXT, REPORT, Reformat(planes=planes, stack=STACK), 1)
    return read(built)


def read(built: ResultObject) -> Dataset:
    return pydicom.dcmread(BytesIO(built.part10))


def mark(rgb: Rgb) -> tuple[str, str]:
    """Say in which half, upper or lower, left or right, the white mark lies (the scale bar at the foot apart)."""
    height, width = rgb.shape[:2]
    white = (rgb == 255).all(axis=-1)
    white[-30:] = False
    middle = np.argwhere(white).mean(axis=0)
    return "upper" if middle[0] < height / 2 else "lower", "left" if middle[1] < width / 2 else "right"


CORONAL = ("coronal", (1, 0, 0), (0, 0, -1))
SAGITTAL = ("sagittal", (0, 1, 0), (0, 0, -1))


@pytest.mark.parametrize(
    ("orientation", "row", "column", "expected"),
    [
        # The radiological way: what starts at the patient's right, head or front is drawn at the left and on top.
        (*CORONAL, ("upper", "left")),
        ("coronal", (-1, 0, 0), (0, 0, -1), ("upper", "right")),
        ("coronal", (1, 0, 0), (0, 0, 1), ("lower", "left")),
        (*SAGITTAL, ("upper", "left")),
        ("sagittal", (0, -1, 0), (0, 0, 1), ("lower", "right")),
        ("axial", (1, 0, 0), (0, 1, 0), ("upper", "left")),
        ("axial", (0, 1, 0), (1, 0, 0), ("upper", "left")),  # transposed: turned, not mirrored
    ],
)
def test_the_mark_lies_where_the_patient_has_it(
    orientation: Orientation, row: Any, column: Any, expected: tuple[str, str]
) -> None:
    assert expected == mark(picture_of(derived(orientation, row, column)))


def test_one_picture_has_one_size_however_it_is_stored() -> None:
    tall, wide = derived("axial", (1, 0, 0), (0, 1, 0)), derived("axial", (0, 1, 0), (1, 0, 0))
    assert ((SIZE, 307, 3), (307, SIZE, 3)) == (picture_of(tall).shape, picture_of(wide).shape)


def letter_pixels(rgb: Rgb) -> tuple[Rgb, Rgb]:
    """Return the letters at the left and at the right edge, as masks."""
    yellow = (rgb == YELLOW).all(axis=-1)
    rows = slice(rgb.shape[0] // 2 - 20, rgb.shape[0] // 2 + 20)
    return yellow[rows, :30], yellow[rows, -30:]


def test_the_letters_belong_to_the_patients_sides_and_not_to_the_order_of_storage() -> None:
    plain, mirrored = picture_of(derived(*CORONAL)), picture_of(derived("coronal", (-1, 0, 0), (0, 0, -1)))  # type: ignore[arg-type]
    for one, other in zip(letter_pixels(plain), letter_pixels(mirrored), strict=True):
        assert one.any()
        np.testing.assert_array_equal(one, other)
    sagittal = picture_of(derived(*SAGITTAL))  # type: ignore[arg-type]
    assert not np.array_equal(letter_pixels(plain)[0], letter_pixels(sagittal)[0])  # R is not A


def test_a_projection_is_shown_in_a_window_of_its_own() -> None:
    planes = derived(*CORONAL)  # type: ignore[arg-type]
    projected = derived(*CORONAL, kind="mip")  # type: ignore[arg-type]
    for dataset in (planes, projected):
        dataset.PixelData = np.full((50, 30), 500, dtype=np.int16).tobytes()
    assert picture_of(planes)[100, 150, 0] > picture_of(projected)[100, 150, 0] > 0


def test_minima_are_shown_as_lungs_are_and_any_view_can_be_asked_for() -> None:
    air = derived(*CORONAL, kind="minip")  # type: ignore[arg-type]
    air.PixelData = np.full((50, 30), -800, dtype=np.int16).tobytes()
    assert picture_of(air)[100, 150, 0] > 0
    assert 0 == picture_of(air, SOFT_TISSUE)[100, 150, 0]


def test_a_turning_picture_moves_and_shows_its_first_frame_where_nothing_can_move(tmp_path: Path) -> None:
    rgb = np.zeros((3, 20, 30, 3), dtype=np.uint8)
    rgb[0, ..., 0], rgb[1, ..., 1], rgb[2, ..., 2] = 200, 200, 200
    turn = build_turn(CONTEXT, REPORT, TurnCapture(preset="bone", rgb=rgb, stack=STACK), 1)
    np.testing.assert_array_equal(rgb[0], picture_of(read(turn)))
    (tmp_path / "turn.dcm").write_bytes(turn.part10)
    with Image.open(write_png_beside(tmp_path / "turn.dcm")) as moving:
        assert (3, 100) == (getattr(moving, "n_frames", 1), moving.info["duration"])
        for number in range(3):
            moving.seek(number)
            assert 200 == np.asarray(moving.convert("RGB"))[10, 10, number]


def test_the_colours_of_a_capture_come_back_as_they_were(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (31, 17, 3), dtype=np.uint8)
    (built,) = build_captures(CONTEXT, REPORT, [Capture(kind="summary", rgb=rgb, burned_in="NO")])
    np.testing.assert_array_equal(rgb, picture_of(read(built)))
    (tmp_path / "summary.dcm").write_bytes(built.part10)
    png = write_png_beside(tmp_path / "summary.dcm")
    assert tmp_path / "summary.png" == png
    np.testing.assert_array_equal(rgb, np.asarray(Image.open(png)))


def test_a_picture_that_cannot_be_written_leaves_nothing_beside_it(tmp_path: Path) -> None:
    rgb = np.zeros((4, 4, 3), dtype=np.uint8)
    (built,) = build_captures(CONTEXT, REPORT, [Capture(kind="summary", rgb=rgb, burned_in="NO")])
    (tmp_path / "summary.dcm").write_bytes(built.part10)
    (tmp_path / "summary.png").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_png_beside(tmp_path / "summary.dcm")
    assert {"summary.dcm", "summary.png"} == {path.name for path in tmp_path.iterdir()}
