"""Are headers taken from the index where it has them, and from the files where it has not?"""

from dataclasses import replace
from pathlib import Path

import pytest

from pacs_bridge.source_files import read_sources, source_headers
from reconstruction.headers import pack, read_header


@pytest.fixture(scope="module")
def files(shared_data: Path) -> dict[str, str]:
    """Return the files of a real scan of four slices by SOP Instance UID."""
    paths = sorted((shared_data / "geometry_faults" / "gantrytilting").rglob("*.dcm"))
    return {read_header(path).sop_instance_uid: str(path) for path in paths}


def test_indexed_headers_are_taken_and_the_others_read(files: dict[str, str]) -> None:
    first, *others = files
    marked = replace(read_header(Path(files[first])), series_description="from the index")
    sources, notes = read_sources(files, {first: pack(marked), others[0]: "written by another version"})
    assert () == notes
    assert list(files) == list(sources)
    assert marked == sources[first].header
    assert [read_header(Path(files[uid])) for uid in others] == [sources[uid].header for uid in others]


def test_an_indexed_file_that_is_gone_is_said_to_be(files: dict[str, str], tmp_path: Path) -> None:
    first, *_ = files
    packed = {first: pack(read_header(Path(files[first])))}
    sources, (note,) = read_sources({**files, first: str(tmp_path / "gone")}, packed)
    assert 3 == len(sources)
    assert note.startswith("1 image(s) could not be read: ")
    assert "No such file" in note


def test_a_data_set_that_cannot_be_read_is_absent_and_its_names_stay(files: dict[str, str], tmp_path: Path) -> None:
    sources, _ = read_sources(files, {})
    first, *others = sources
    (tmp_path / "damaged").write_bytes(b"no DICOM")
    headers = source_headers({**sources, first: replace(sources[first], path=tmp_path / "damaged")})
    assert headers.datasets.get(first) is None
    assert (first, others[0]) == (headers.of((first,))[0].SOPInstanceUID, headers.of((others[0],))[0].SOPInstanceUID)
    assert "PatientName" not in headers.of((first,))[0]
    assert "PatientName" in headers.of((others[0],))[0]
