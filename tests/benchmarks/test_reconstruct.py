"""Does the benchmark of reading, reformatting and rendering run, and can its checks fail?"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks import linearity, peers, reading
from benchmarks.__main__ import main
from benchmarks.ct_series import Anatomy, paint_torso
from benchmarks.figures import Bar, Result, as_json, as_text

ALWAYS = {
    "ratio_to_simpleitk",
    "ratio_to_pydicom",
    "archived_times_floor",
    "jpegls_two_core_speedup",
    "htj2k_two_core_speedup",
    "reformat_ratio_to_simpleitk",
    "render_frame_s",
    "render_first_frame_s",
    "linear_exponent",
    "whole_body_memory_times_int16",
    "tilted_body_memory_times_int16",
}


@pytest.fixture(scope="module")
def torso() -> Anatomy:
    return paint_torso(side=32, painted=5)


def test_it_prints_one_object_with_its_figures_and_what_they_are_held_against(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    status = main(["reconstruct", "--json", "--size", "toy", "--out", str(tmp_path)])
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (0, "reconstruct") == (status, printed["name"])
    with_dcm2niix = {"ratio_to_dcm2niix", "archived_ratio_to_dcm2niix"} if shutil.which("dcm2niix") else set()
    assert ALWAYS | with_dcm2niix <= set(printed["figures"])
    assert ALWAYS - {"ratio_to_pydicom"} <= set(printed["bars"])
    assert {"linearity.svg", "render.png", "render_bone_reduced.png"} <= {path.name for path in tmp_path.iterdir()}
    assert all(value > 0 for name, value in printed["figures"].items() if name.endswith("_frame_s"))


def test_a_reader_whose_voxels_differ_ends_the_benchmark(torso: Anatomy, tmp_path: Path) -> None:
    series = reading.make_series(torso, 4, tmp_path / "series")
    content = bytearray(series.files[2].read_bytes())
    content[-1] ^= 1
    series.files[2].write_bytes(content)
    with pytest.raises(reading.Differs, match="ours: its voxels are not those that were written"):
        reading.measure_reading(series, tmp_path, repetitions=1)


def test_without_dcm2niix_its_figures_are_left_out_and_the_remedy_is_named(
    torso: Anatomy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    series = reading.make_series(torso, 4, tmp_path / "series")
    figures, rows, notes = reading.measure_reading(series, tmp_path, repetitions=1)
    assert "ratio_to_dcm2niix" not in figures
    assert figures["ratio_to_simpleitk"] > 0
    assert 1 == len(rows)
    assert "dcm2niix is not installed (apt-get install dcm2niix)" in notes


def test_dcm2niix_writes_the_voxels_that_were_in_the_slices(torso: Anatomy, tmp_path: Path) -> None:
    if "dcm2niix" in peers.absent():
        pytest.skip(peers.absent()["dcm2niix"])
    series = reading.make_series(torso, 6, tmp_path / "series")
    peers.run_dcm2niix(series.folder, tmp_path / "out")
    (path,) = (tmp_path / "out").glob("*.nii")
    voxels = peers.read_nifti(path)
    expected = reading.never_seen(series.files)
    assert (expected == voxels[:, ::-1]).all()


def test_the_body_comes_again_mirrored_where_it_ends(torso: Anatomy) -> None:
    length = 4 * 5
    for k in (0, 3, 7):
        assert (torso.slice_hu(k) == torso.slice_hu(k + 2 * length)).all()
        assert (torso.slice_hu(length + k) == torso.slice_hu(length - k)).all()


def test_seconds_and_memory_of_a_series_are_those_of_its_own_process(torso: Anatomy, tmp_path: Path) -> None:
    series = reading.make_series(torso, 12, tmp_path / "series")
    figures, rows = linearity.measure_linearity(series.folder, (6, 12), 32, None)
    assert [6, 12] == [row["slices"] for row in rows]
    assert all(row["seconds"] > 0 and row["peak_mb"] > row["int16_mb"] for row in rows)
    assert {"linear_exponent", "linear_memory_exponent"} <= set(figures)


@pytest.mark.parametrize(
    ("bar", "figure", "met"),
    [
        (Bar(">=", 2.0), 2.0, True),
        (Bar(">=", 2.0), 1.9, False),
        (Bar("<=", 0.5), 0.5, True),
        (Bar("<=", 0.5), 0.6, False),
    ],
)
def test_every_bar_stands_beside_its_figure(bar: Bar, figure: float, met: bool) -> None:  # noqa: FBT001
    result = Result(name="one", figures={"speed": figure, "other": 1.0}, rows=[], bars={"speed": bar, "gone": bar})
    assert {"speed": {"bar": str(bar), "met": met}} == as_json(result)["bars"]
    (line,) = [line for line in as_text(result).splitlines() if "speed" in line]
    assert str(bar) in line
    assert line.endswith("NOT MET") != met
