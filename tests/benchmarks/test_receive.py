"""Does the benchmark of receiving run, and does it notice a receiver that has not kept what it was sent?"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from benchmarks import endurance, receive, received
from benchmarks.__main__ import main
from benchmarks.ct_series import paint_torso, write_series
from benchmarks.disk import file_system, settle, unwritten_bytes
from benchmarks.receivers import Receiver, pynetdicom_storescp
from benchmarks.wire import CT_IMAGE, SUCCESS, associate
from pacs_bridge.archive import Archive
from scheduler.database import Database

ALWAYS = {
    "ctriage_per_s",
    "eight_ctriage_per_s",
    "eight_to_own_single",
    "ratio_to_pynetdicom_storescp",
    "association_growth_mb",
    "association_growth_descriptors",
    "ten_thousand_slowdown",
}


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("receive") / "series"
    return write_series(paint_torso(side=32, painted=5), 6, folder)


@pytest.fixture
def a_receiver(tmp_path: Path) -> Iterator[Receiver]:
    with pynetdicom_storescp(tmp_path) as receiver:
        yield receiver


def test_it_prints_one_object_with_its_figures_and_what_they_are_held_against(
    capsys: pytest.CaptureFixture[str],
) -> None:
    if shutil.which("storescu") is None:
        pytest.skip("storescu is not installed (Debian's package dcmtk)")
    status = main(["receive", "--json", "--size", "toy"])
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (0, "receive") == (status, printed["name"])
    assert ALWAYS <= set(printed["figures"])
    assert {"eight_to_own_single", "ten_thousand_slowdown"} <= set(printed["bars"])
    assert printed["figures"]["association_growth_descriptors"] <= 0
    measured = {(row["receiver"], row["associations"]) for row in printed["rows"] if "receiver" in row}
    assert {("ctriage", 1), ("ctriage", 8), ("pynetdicom_storescp", 1)} <= measured


def test_a_receiver_that_holds_less_than_was_sent_ends_the_benchmark() -> None:
    forgetful = Receiver(ae_title="NOBODY", port=1, held=lambda: 4)
    receive.check("it", forgetful, 4)
    with pytest.raises(receive.Lost, match="it holds 4 of 5 instances"):
        receive.check("it", forgetful, 5)


def test_a_sender_that_is_refused_ends_the_benchmark(slices: list[Path]) -> None:
    if shutil.which("storescu") is None:
        pytest.skip("storescu is not installed (Debian's package dcmtk)")
    with pytest.raises(receive.Lost, match="storescu ended with"):
        receive.send_with_storescu(Receiver(ae_title="NOBODY", port=9, held=lambda: 0), [slices])


def test_what_was_sent_and_kept_is_compared_byte_by_byte(slices: list[Path], tmp_path: Path) -> None:
    held = _held(tmp_path, slices)
    received.check_sample(slices, tmp_path)
    content = bytearray(held[2].read_bytes())
    content[-1] ^= 1
    held[2].chmod(0o600)
    held[2].write_bytes(content)
    with pytest.raises(received.Differs, match="with other bytes"):
        received.check_sample(slices, tmp_path)


def test_what_is_not_in_the_index_is_missed(slices: list[Path], tmp_path: Path) -> None:
    _held(tmp_path, slices[:-1])
    with pytest.raises(received.Differs, match="is not in the index"):
        received.check_sample(slices, tmp_path)


def test_the_data_set_of_a_file_is_what_follows_its_meta_information(slices: list[Path]) -> None:
    dataset = received.dataset_of(slices[0])
    assert slices[0].read_bytes().endswith(dataset)
    assert dataset[:4] == b"\x08\x00\x05\x00"


def test_a_slice_is_sent_again_under_other_names_numbers_and_places(slices: list[Path], a_receiver: Receiver) -> None:
    plan = endurance.Plan(warm=1, associations=3, instances=4, edge=2)
    pace = endurance.pace(plan, a_receiver, received.dataset_of(slices[0]))
    assert {"first_per_s", "last_per_s", "ten_thousand_slowdown"} == set(pace)
    assert 4 == a_receiver.held()


def test_a_slice_that_cannot_be_renamed_is_refused(slices: list[Path], a_receiver: Receiver) -> None:
    plan = endurance.Plan(warm=1, associations=3, instances=4, edge=2)
    with pytest.raises(ValueError, match="not the first one of a benchmark's series"):
        endurance.pace(plan, a_receiver, received.dataset_of(slices[1]))


def test_a_receiver_is_written_back_before_the_next_one_begins(slices: list[Path], tmp_path: Path) -> None:
    (tmp_path / "left").mkdir()
    (tmp_path / "left" / "over").write_bytes(bytes(10**6))
    settle(tmp_path / "left")
    assert not (tmp_path / "left").exists()
    assert unwritten_bytes() >= 0
    assert "proc" == file_system(Path("/proc/self"))


def test_pynetdicoms_application_receives_what_our_sender_sends(slices: list[Path], a_receiver: Receiver) -> None:
    with associate(("127.0.0.1", a_receiver.port), called=a_receiver.ae_title) as association:
        uid = str(pydicom.dcmread(slices[0]).SOPInstanceUID)
        assert SUCCESS == association.store(CT_IMAGE, uid, received.dataset_of(slices[0]))
        association.release()
    assert 1 == a_receiver.held()


def _held(state_dir: Path, files: list[Path]) -> list[Path]:
    """Put files into an archive; returns where they lie."""
    from pacs_bridge.instance import read_facts
    from pacs_bridge.intake import utc_now

    database = Database(state_dir / "ctriage.sqlite")
    try:
        archive = Archive(state_dir, database, free_space_floor_bytes=0)
        for path in files:
            dataset = received.dataset_of(path)
            facts = read_facts(dataset, "1.2.840.10008.1.2.1")
            stored = archive.store(facts, dataset, "1.2.840.10008.1.2.1", "BENCH")
            archive.add(facts, stored, "BENCH", utc_now())
    finally:
        database.close()
    header = pydicom.dcmread(files[0], stop_before_pixels=True)
    held = received.files_of_series(state_dir, str(header.StudyInstanceUID), str(header.SeriesInstanceUID))
    return [held[str(pydicom.dcmread(path).SOPInstanceUID)] for path in files]
