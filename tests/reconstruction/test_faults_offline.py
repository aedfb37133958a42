"""One faulty series is named by ``ctriage process``, and the rest of its study goes on."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from pacs_bridge.offline import process_paths
from pacs_bridge.settings import Outputs, Settings

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
RLE = "1.2.840.10008.1.2.5"
EXPLICIT = "1.2.840.10008.1.2.1"


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
