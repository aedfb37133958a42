"""A folder of results: what stands there under its name is whole, whatever stopped its making."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pacs_bridge.reconstruct import refuse_too_much
from pacs_bridge.reconstruct_output import ResultFolder
from pipeline.model import ResultObject
from reconstruction.errors import ImpossibleView


def silent(what: str, done: int, total: int) -> None:
    """Show nothing."""


def images(numbers: range, part10: bytes = b"new", *, stop_after: int | None = None) -> Iterator[ResultObject]:
    """Yield images that are not drawn; after ``stop_after`` of them somebody presses Ctrl-C."""
    for number in numbers:
        if number == stop_after:
            raise KeyboardInterrupt
        yield ResultObject(
            kind="mpr",
            index=number,
            sop_instance_uid=f"2.25.{number}",
            sop_class_uid="2.25.1",
            series_instance_uid="2.25.2",
            part10=part10,
            label="",
        )


def write_series(folder: ResultFolder, made: Iterator[ResultObject]) -> None:
    with folder.series("mpr"):
        folder.add_images("mpr", made, 9, lambda _: False)


def test_a_series_that_was_interrupted_leaves_the_one_before_it_whole(tmp_path: Path) -> None:
    write_series(ResultFolder(tmp_path, silent), images(range(1, 4), b"old"))
    with pytest.raises(KeyboardInterrupt):
        write_series(ResultFolder(tmp_path, silent), images(range(1, 9), stop_after=5))
    assert ["mpr"] == [path.name for path in tmp_path.iterdir()]
    assert {f"000{n}.dcm": b"old" for n in (1, 2, 3)} == {p.name: p.read_bytes() for p in (tmp_path / "mpr").iterdir()}


def test_a_first_series_that_was_interrupted_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_series(ResultFolder(tmp_path, silent), images(range(1, 9), stop_after=5))
    assert [] == list(tmp_path.iterdir())


def test_what_a_killed_run_left_aside_enters_no_later_series(tmp_path: Path) -> None:
    (tmp_path / ".mpr.part").mkdir()
    (tmp_path / ".mpr.part" / "0007.dcm").write_bytes(b"half")
    folder = ResultFolder(tmp_path, silent)
    write_series(folder, images(range(1, 3)))
    assert {"0001.dcm", "0002.dcm"} == {path.name for path in (tmp_path / "mpr").iterdir()}
    assert [str(tmp_path / "mpr" / f"000{n}.dcm") for n in (1, 2)] == [each["path"] for each in folder.outputs]


def test_a_file_that_was_interrupted_leaves_the_one_before_it_whole(tmp_path: Path) -> None:
    def half(path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    folder = ResultFolder(tmp_path, silent)
    folder.add_file("volume.nii.gz", "nifti", lambda path: path.write_bytes(b"old"))
    with pytest.raises(KeyboardInterrupt):
        folder.add_file("volume.nii.gz", "nifti", half)
    assert ["volume.nii.gz"] == [path.name for path in tmp_path.iterdir()]
    assert b"old" == (tmp_path / "volume.nii.gz").read_bytes()
    assert 1 == len(folder.outputs)


def test_what_the_disk_cannot_hold_is_refused_before_it_is_begun(tmp_path: Path) -> None:
    refuse_too_much(1000, tmp_path)
    with pytest.raises(ImpossibleView, match=r"would be 1000000000\.0 GB"):
        refuse_too_much(10**18, tmp_path)
