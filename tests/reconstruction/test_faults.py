"""Whatever a header holds, its series ends in stacks or in a reason; the table of docs/geometry.md says which."""

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from pacs_bridge.offline import process_paths
from pacs_bridge.settings import Outputs, Settings
from reconstruction.assemble import assemble, pixel_reader
from reconstruction.errors import NotAVolume, ReconstructionError
from reconstruction.geometry import Geometry
from reconstruction.headers import Header, read_header
from reconstruction.resample import regularise
from reconstruction.slices import Refused, Stack, stack_of, stacks_of
from reconstruction.volume import Volume

PAGE = Path(__file__).resolve().parents[2] / "docs" / "geometry.md"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
RLE = "1.2.840.10008.1.2.5"
EXPLICIT = "1.2.840.10008.1.2.1"


def even(count: int = 20, *, step: float = 5.0, **changes: Any) -> list[Header]:
    """Return the headers of an ordinary axial series."""
    header = Header(
        sop_instance_uid="1.2",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid=EXPLICIT,
        series_instance_uid="1.9",
        modality="CT",
        rows=64,
        columns=64,
        orientation=AXIAL,
        pixel_spacing_mm=(0.5, 0.5),
        frame_of_reference_uid="1.5",
        slice_thickness_mm=5.0,
    )
    header = replace(header, **changes)
    return [
        replace(header, sop_instance_uid=f"1.2.{n}", instance_number=n + 1, position_mm=(-10.0, -20.0, step * n))
        for n in range(count)
    ]


def said_of(headers: Sequence[Header]) -> set[str]:
    """Everything that is said of a series: reasons and notes."""
    results = stacks_of(headers)
    refused = {r.reason for r in results if isinstance(r, Refused)}
    return refused | {note for r in results if isinstance(r, Stack) for note in r.notes}


def with_one(**changes: Any) -> list[Header]:
    """Return an ordinary series whose eighth slice is not."""
    headers = even()
    headers[7] = replace(headers[7], **changes)
    return headers


def uneven() -> list[Header]:
    places = (0.0, 4.0, 8.0, 12.0, 19.0, 26.0)
    return [replace(h, position_mm=(0.0, 0.0, z)) for h, z in zip(even(6), places, strict=True)]


def drifting() -> list[Header]:
    along = np.cumsum([5.0] * 50 + [5.04] * 50).tolist()
    return [replace(h, position_mm=(0.0, 0.0, z)) for h, z in zip(even(100), along, strict=True)]


def shifted_halfway() -> list[Header]:
    return [replace(h, position_mm=(30.0 * (n > 9), -20.0, 5.0 * n)) for n, h in enumerate(even())]


def again(headers: Sequence[Header]) -> list[Header]:
    return [replace(h, sop_instance_uid=f"{h.sop_instance_uid}.2") for h in headers]


SAID: dict[str, Callable[[], list[Header]]] = {
    "1 slice(s) seem to be missing: 1 gap(s) of a multiple of 5 mm": lambda: even()[:7] + even()[8:],
    "slices are unevenly spaced: 2 of the distances differ from 4 mm": uneven,
    "small differences of the slice distances add up to 0.99 mm": drifting,
    "2 slice(s) repeat positions of another stack of this series": lambda: even() + again(even()[3:5]),
    "all 4 slices lie at the same position": lambda: [replace(h, position_mm=(0.0, 0.0, 1.0)) for h in even(4)],
    "2 slice(s): fewer than 3 are no volume": lambda: even(2),
    "only 2 slice positions: fewer than 3 are no volume": lambda: even(2) + again(even(2)),
    "slices of different orientation or pixel spacing": lambda: [
        replace(h, orientation=(math.cos(n), math.sin(n), 0.0, 0.0, 0.0, -1.0)) for n, h in enumerate(even(4))
    ],
    "1 slice(s): fewer than 3 are no volume": lambda: with_one(rows=32),
    "1 slice(s) name no frame of reference; the one of the series is taken": lambda: with_one(
        frame_of_reference_uid=None
    ),
    "every slice names a frame of reference of its own; it is taken as not stated": lambda: [
        replace(h, frame_of_reference_uid=f"1.{n}") for n, h in enumerate(even())
    ],
    "1 slice(s) lie away from the line of the others, by up to 25.0 mm": lambda: with_one(
        position_mm=(-10.0, 5.0, 35.0)
    ),
    "slices are shifted sideways against each other, by up to 14.2 mm": shifted_halfway,
    "slices lie up to 4500 mm apart; no patient is that long": lambda: even(10, step=500.0),
    "slices are turned or shifted by up to 0.15 mm against the common grid": lambda: with_one(
        position_mm=(-10.0, -19.85, 35.0)
    ),
    "a gantry tilt of 18.5 degrees is stated, the slices lie at 0.0: they are followed": lambda: with_one(
        tilt_tag_deg=18.5
    ),
    "a distance of 2.5 mm between slices is stated, they lie 5.00 apart: they are followed": lambda: with_one(
        spacing_between_slices_mm=2.5
    ),
    "the slices' positions run against their instance numbers at 1 place(s): they are followed": lambda: with_one(
        position_mm=(-10.0, -20.0, 72.0)
    ),
    "a slice has no Image Position (Patient)": lambda: with_one(position_mm=None),
    "a slice's Image Position (Patient) holds values that are no numbers": lambda: with_one(
        position_mm=(0.0, math.nan, 0.0)
    ),
    "a slice's Image Position (Patient) lies more than 10 m from the origin": lambda: with_one(
        position_mm=(0.0, 0.0, 1e30)
    ),
    "a slice has no Image Orientation (Patient)": lambda: with_one(orientation=None),
    "the Image Orientation (Patient) is no rotation": lambda: with_one(orientation=(2.0, 0.0, 0.0, 0.0, 1.0, 0.0)),
    "a slice has no Pixel Spacing": lambda: with_one(pixel_spacing_mm=None),
    "a Pixel Spacing of nan x 0.5 mm is none": lambda: with_one(pixel_spacing_mm=(math.nan, 0.5)),
    "a Pixel Spacing of 100000 x 0.5 mm is too wide for a patient": lambda: with_one(pixel_spacing_mm=(1e5, 0.5)),
}


def a_file(
    folder: Path, n: int, *, pixels: bytes | None = None, syntax: str = EXPLICIT, study: str = "1.2.9", **changes: Any
) -> Path:
    """Write slice ``n`` of a small series of ten."""
    rows, columns = 16, 16
    header = Dataset()
    header.SOPClassUID, header.SOPInstanceUID = UID("1.2.840.10008.5.1.4.1.1.2"), f"{study}.7.{n}"
    header.StudyInstanceUID, header.SeriesInstanceUID = study, f"{study}.7"
    header.Modality, header.PatientID, header.PatientName, header.FrameOfReferenceUID = "CT", "P1", "A^B", f"{study}.8"
    header.ImagePositionPatient, header.ImageOrientationPatient = [0, 0, 5 * n], list(AXIAL)
    header.PixelSpacing, header.SliceThickness, header.InstanceNumber = [0.5, 0.5], 5, n
    header.Rows, header.Columns, header.SamplesPerPixel = rows, columns, 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit, header.PixelRepresentation = 15, 1
    header.RescaleSlope, header.RescaleIntercept = 1, 0
    for keyword, value in changes.items():
        if value is None:
            delattr(header, keyword)
        else:
            setattr(header, keyword, value)
    header.PixelData = bytes(2 * rows * columns) if pixels is None else pixels
    header["PixelData"].VR = "OB" if syntax == RLE else "OW"
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = UID(syntax)
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / f"{study}_{n:03d}.dcm"
    header.save_as(path, enforce_file_format=True)
    return path


def rle_of_lies() -> bytes:
    """Return an RLE frame whose 64 segments unpack to more than is announced."""
    header = np.zeros(16, dtype="<u4")
    header[:2] = 1, 64
    return encapsulate([header.tobytes() + b"\x81\x00" * 4000])


PIXEL_FAULTS: dict[str, dict[str, Any]] = {
    "65535x65535 pixels announced; no CT image is that large": {"Rows": 65535, "Columns": 65535, "pixels": bytes(1024)},
    "the pixel data is cut off: 100 of 512 bytes": {"pixels": bytes(100)},
    "4096 bytes of pixel data for an image of 512": {"pixels": bytes(4096)},
    "the compressed pixel data is damaged": {"syntax": RLE, "pixels": rle_of_lies()},
    "20 bits stored in 16 allocated": {"BitsStored": 20, "HighBit": 19},
    "not Hounsfield units (rescale type US)": {"RescaleType": "US"},
    "the rescale slope or intercept is no usable number": {"RescaleSlope": 0},
}


def why_unread(folder: Path) -> str:
    """Read a folder as one stack down to its voxels and return the reason why that fails."""
    paths = sorted(folder.iterdir())
    headers = [read_header(path) for path in paths]
    with pytest.raises(ReconstructionError) as refused:
        assemble(stack_of(headers), pixel_reader({h.sop_instance_uid: p for h, p in zip(headers, paths, strict=True)}))
    return str(refused.value)


@pytest.mark.parametrize("sentence", SAID)
def test_a_faulty_series_is_told_in_these_words(sentence: str) -> None:
    assert sentence in said_of(SAID[sentence]())


@pytest.mark.parametrize("sentence", PIXEL_FAULTS)
def test_faulty_pixels_are_told_in_these_words(sentence: str, tmp_path: Path) -> None:
    fault = PIXEL_FAULTS[sentence]
    same = {key: value for key, value in fault.items() if key in ("Rows", "Columns", "PixelSpacing")}
    for n in range(1, 5):
        a_file(tmp_path, n, **(fault if n == 2 else same))
    assert sentence in why_unread(tmp_path)


def test_a_grid_too_large_is_told_in_these_words() -> None:
    affine = np.diag([5.008, 3.9099, 3.9099, 1.0])[[2, 1, 0, 3]]
    geometry = Geometry(affine=affine, shape=(600, 512, 512))
    volume = Volume(hu=np.broadcast_to(np.int16(0), geometry.shape).view(), geometry=geometry)
    with pytest.raises(NotAVolume) as refused:
        regularise(volume)
    assert GRID_TOO_LARGE == refused.value.reason


GRID_TOO_LARGE = "a straight grid of 3000 x 1998 x 1998 voxels of 1 mm is too large to be held; take 2.24 mm or more"


def test_every_sentence_of_the_page_is_said_by_the_code_and_none_is_left_out() -> None:
    table = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    quoted = {sentence for line in table for sentence in re.findall(r"“([^”]+)”", line)}
    assert {*SAID, *PIXEL_FAULTS, GRID_TOO_LARGE} == quoted


numbers = st.one_of(
    st.floats(-500.0, 500.0),
    st.sampled_from([math.nan, math.inf, -math.inf, 1e30, -1e300, 1e-300, 0.0, -0.0, 5e-324]),
)


def any_of(*least: Any, size: int) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), st.sampled_from(least), st.tuples(*[numbers] * size))


@st.composite
def any_headers(draw: st.DrawFn) -> list[Header]:
    """Return headers of which anything may be anything, most of them ordinary."""
    headers = even(draw(st.integers(0, 12)))
    for n in draw(st.lists(st.integers(0, 11), max_size=6)):
        if n < len(headers):
            headers[n] = replace(
                headers[n],
                position_mm=draw(any_of((0.0, 0.0, 5.0 * n), (-10.0, -20.0, 5.0), size=3)),
                orientation=draw(any_of(AXIAL, (0.0, 1.0, 0.0, 0.0, 0.0, -1.0), size=6)),
                pixel_spacing_mm=draw(any_of((0.5, 0.5), (0.5, 0.50005), size=2)),
                rows=draw(st.sampled_from([64, 0, -1, 65535])),
                slice_thickness_mm=draw(st.one_of(st.none(), numbers)),
                tilt_tag_deg=draw(st.one_of(st.none(), numbers)),
                kvp=draw(st.one_of(st.none(), numbers)),
                instance_number=draw(st.one_of(st.none(), st.integers(-5, 5))),
                acquisition_number=draw(st.one_of(st.none(), st.integers(-2, 2))),
                acquisition_time=draw(st.sampled_from([None, "1", "1.5"])),
                frame_of_reference_uid=draw(st.sampled_from([None, "1.5", "1.6"])),
                image_type=draw(st.sampled_from([(), ("ORIGINAL", "PRIMARY", "LOCALIZER"), ("MPR",)])),
            )
    return headers


@settings(max_examples=150, deadline=None)
@given(headers=any_headers())
def test_no_header_ends_in_anything_but_a_stack_or_a_reason(headers: list[Header]) -> None:
    results = stacks_of(headers)
    assert sorted(h.sop_instance_uid for h in headers) == sorted(h.sop_instance_uid for r in results for h in r.headers)
    for result in results:
        if isinstance(result, Refused):
            assert result.reason
        else:
            assert np.isfinite(result.geometry.affine).all()
            assert min(np.diff(result.slice_positions_mm)) >= 0.01
            assert len({h.rows for h in result.headers}) == 1


@settings(max_examples=80, deadline=None)
@given(headers=any_headers())
def test_one_declared_stack_is_one_or_is_refused_by_name(headers: list[Header]) -> None:
    try:
        stack = stack_of(headers)
    except NotAVolume as error:
        assert error.reason  # noqa: PT017 - either ending is right
    else:
        assert len(headers) == len(stack.headers)


PATHOLOGICAL = {
    "one position": [replace(h, position_mm=(0.0, 0.0, 0.0)) for h in even(10_000)],
    "a kernel each": [replace(h, kernel=str(n)) for n, h in enumerate(even(10_000, step=0.1))],
    "a plane each": [
        replace(h, orientation=(math.cos(n / 300), math.sin(n / 300), 0.0, 0.0, 0.0, -1.0))
        for n, h in enumerate(even(10_000, step=0.1))
    ],
    "a time each": [replace(h, acquisition_time=str(n)) for n, h in enumerate(even(10_000, step=0.1))],
}


@pytest.mark.parametrize("name", PATHOLOGICAL)
def test_ten_thousand_odd_slices_cost_seconds_not_hours(name: str) -> None:
    headers, before = PATHOLOGICAL[name], time.process_time()
    assert len(headers) == sum(len(r.headers) for r in stacks_of(headers))
    assert time.process_time() - before < 30.0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gantrytilting/001", (14.0, ())),
        ("sliceincrement/001", (0.0, (10.0,))),
        ("sliceincrement/002", (15.5, (1.5,))),
        ("notavolume/001", "all 4 slices lie at the same position"),
        ("slicecount/001", "2 slice(s): fewer than 3 are no volume"),
        ("sliceorientation/001", "slices of different orientation or pixel spacing"),
    ],
)
def test_the_fault_sets_end_as_their_readme_says_in_the_geometry_layer(
    shared_data: Path, name: str, expected: tuple[float, tuple[float, ...]] | str
) -> None:
    headers = [read_header(path) for path in sorted((shared_data / "geometry_faults" / name).glob("*.dcm"))]
    (result,) = stacks_of(headers)
    told = result.reason if isinstance(result, Refused) else (round(result.geometry.tilt_deg, 2), result.gaps_mm)
    assert expected == told


# ---- through the command ----------------------------------------------------


def silent(what: str, done: int, total: int) -> None:
    """Show nothing."""


def processed(folder: Path, out: Path) -> list[dict[str, Any]]:
    """Return the series of what ``ctriage process --json`` prints, without pictures."""
    off = Outputs(mpr=False, mip=False, render=False)
    outcome = process_paths([folder], out, Settings(outputs=off), silent)
    assert all(study["status"] != "failed" for study in outcome["studies"]), outcome
    return [series for study in outcome["studies"] for series in study["series"]]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Rows": 65535, "Columns": 65535, "pixels": bytes(1024)}, "65535x65535 pixels announced"),
        ({"pixels": bytes(100)}, "the pixel data is cut off: 100 of 512 bytes"),
        ({"PixelSpacing": [0, 0.5]}, "a Pixel Spacing of 0 x 0.5 mm is none"),
        ({"PixelSpacing": [-1, 0.5]}, "a Pixel Spacing of -1 x 0.5 mm is none"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "the Image Orientation (Patient) is no rotation"),
        ({"ImageOrientationPatient": [0] * 6}, "the Image Orientation (Patient) is no rotation"),
        ({"ImagePositionPatient": [0, 0, "1e30"]}, "lies more than 10 m from the origin"),
        (
            {"syntax": RLE, "pixels": rle_of_lies(), "Rows": 2000, "Columns": 2000},
            "the compressed pixel data is damaged",
        ),
    ],
)
def test_a_faulty_series_is_named_and_the_healthy_one_beside_it_is_read(
    changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    for n in range(1, 6):
        a_file(tmp_path / "in", n)
        # the same study, another series, all of whose slices are faulty
        a_file(
            tmp_path / "in" / "bad",
            n,
            **{"SeriesInstanceUID": "1.2.9.99", "SOPInstanceUID": f"1.2.9.99.{n}", **changes},
        )
    rows = {row["series_instance_uid"]: row for row in processed(tmp_path / "in", tmp_path / "out")}
    healthy, faulty = rows["1.2.9.7"], rows["1.2.9.99"]
    assert reason in faulty["reason"]
    assert ("not_analysed", "volume", 5) == (faulty["status"], faulty["role"], faulty["instances"])
    assert [5, 16, 16] == healthy["geometry"]["shape_kji"]
    assert reason not in (healthy["reason"] or "")


def test_a_slice_of_another_matrix_stands_apart_and_leaves_a_gap_that_is_named(tmp_path: Path) -> None:
    for n in range(1, 8):
        changes: dict[str, Any] = {"Rows": 8, "pixels": bytes(256)} if n == 3 else {}
        a_file(tmp_path / "in", n, **changes)
    stack, odd = sorted(processed(tmp_path / "in", tmp_path / "out"), key=lambda row: -int(row["instances"]))
    assert (6, [10.0], 1) == (stack["instances"], stack["geometry"]["gaps_mm"], odd["instances"])
    assert "1 slice(s) seem to be missing: 1 gap(s) of a multiple of 5 mm" in stack["notes"]
    assert "1 slice(s): fewer than 3 are no volume" == odd["reason"]
    assert stack["working_grid"]["max_distance_to_slice_mm"] > 0


@pytest.mark.parametrize("keyword", ["PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"])
def test_values_that_are_no_numbers_end_as_a_reason(keyword: str, tmp_path: Path) -> None:
    for n in range(1, 5):
        path = a_file(tmp_path / "in", n)
        dataset = pydicom.dcmread(path)
        raw = b"NaN\\" * (len(dataset[keyword].value) - 1) + b"NaN"
        data = path.read_bytes()
        old = "\\".join(str(v) for v in dataset[keyword].value).encode()
        padded = old + b" " * (len(old) % 2)
        assert data.count(padded) >= 1
        tag = dataset[keyword].tag
        at = data.index(tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little") + b"DS")
        length = (len(raw) + len(raw) % 2).to_bytes(2, "little")
        path.write_bytes(data[: at + 6] + length + raw + b" " * (len(raw) % 2) + data[at + 8 + len(padded) :])
    (row,) = processed(tmp_path / "in", tmp_path / "out")
    assert ("not_analysed", None) == (row["status"], row["geometry"])
    assert any(word in row["reason"] for word in ("none", "no rotation", "no numbers", "has no"))


def test_the_fault_sets_end_as_their_readme_says_from_the_command_line(shared_data: Path, tmp_path: Path) -> None:
    ends = {}
    for name in ("gantrytilting/001", "sliceincrement/001", "sliceincrement/002", "notavolume/001",
                 "slicecount/001", "sliceorientation/001"):  # fmt: skip
        (row,) = processed(shared_data / "geometry_faults" / name, tmp_path / name.replace("/", "_"))
        geometry = row["geometry"] or {}
        ends[name] = (row["role"], round(geometry.get("tilt_deg", 0.0), 2), geometry.get("gaps_mm"))
        if name == "notavolume/001":
            assert "all 4 slices lie at the same position" == row["reason"]
    assert {
        "gantrytilting/001": ("volume", 14.0, []),
        "sliceincrement/001": ("volume", 0.0, [10.0]),
        "sliceincrement/002": ("volume", 15.5, [1.5]),
        "notavolume/001": ("volume", 0.0, None),
        "slicecount/001": ("not_ct", 0.0, None),
        "sliceorientation/001": ("not_ct", 0.0, None),
    } == ends
