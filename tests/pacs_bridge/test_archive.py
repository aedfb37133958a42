"""What the archive keeps, and what its index says about it."""

import errno
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from pacs_bridge.archive import Added, Archive
from pacs_bridge.archive_files import hash_of
from pacs_bridge.errors import StorageFull, UnknownConflict, UnknownStudy
from pacs_bridge.instance import read_facts
from pacs_bridge.settings import SettingsError

EXPLICIT = "1.2.840.10008.1.2.1"
AT = datetime(2026, 1, 1, tzinfo=UTC)
Put = Callable[..., Added]


@pytest.fixture
def put(bridge: Any, make_slice: Any, encode: Any) -> Put:
    """Return a function that stores and indexes a slice."""
    return lambda n=1, **overrides: _put(bridge.archive, encode(make_slice(n, **overrides)))


def _put(archive: Archive, dataset: bytes, *, is_ours: bool = False) -> Added:
    facts = read_facts(dataset, EXPLICIT)
    return archive.add(facts, archive.store(facts, dataset, EXPLICIT, "CT01"), "CT01", AT, is_ours=is_ours)


def _files(state_dir: Path) -> list[Path]:
    return [path for path in (state_dir / "archive").rglob("*") if path.is_file()]


def test_a_stored_file_holds_the_bytes_and_is_named_by_them(bridge: Any, make_slice: Any, encode: Any) -> None:
    dataset = encode(make_slice())
    _put(bridge.archive, dataset)
    (instance,) = bridge.archive.instances_of("1.2.3", "1.2.3.4")
    assert instance.path.read_bytes().endswith(dataset)
    digest = instance.content_hash.removeprefix("blake3:")
    assert instance.content_hash == hash_of(instance.path, "blake3")
    assert instance.path == bridge.state_dir / "archive" / digest[:2] / f"{digest}.dcm"
    assert (instance.path.stat().st_size, "CT01", AT) == (
        instance.size_bytes,
        instance.calling_ae,
        instance.received_at,
    )


def test_the_same_bytes_again_are_stored_once(bridge: Any, put: Put) -> None:
    assert (Added.NEW, Added.DUPLICATE) == (put(), put())
    assert len(_files(bridge.state_dir)) == 1
    assert bridge.archive.open_conflicts() == []


def test_what_came_before_the_hash_was_changed_is_known_again(bridge: Any, put: Put) -> None:
    put()
    (first,) = bridge.archive.instances_of("1.2.3", "1.2.3.4")
    with bridge.database.transaction() as connection:
        connection.execute("update instances set content_hash = ?", (hash_of(first.path, "sha256"),))
    assert (Added.DUPLICATE, Added.CONFLICT) == (put(), put(PatientName="Doe^Joan"))


def test_what_a_rolled_back_transaction_had_entered_is_entered_anew(
    bridge: Any, put: Put, make_slice: Any, encode: Any
) -> None:
    def entered_and_undone() -> None:
        with bridge.database.transaction():
            put(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        entered_and_undone()
    assert [] == bridge.archive.studies()
    assert (Added.NEW, Added.NEW) == (put(2), put(3))
    assert 2 == len(bridge.archive.instances_of("1.2.3", "1.2.3.4"))


def test_a_torn_file_under_the_name_of_the_content_is_replaced(bridge: Any, put: Put) -> None:
    put()
    (first,) = bridge.archive.instances_of("1.2.3", "1.2.3.4")
    whole = first.path.read_bytes()
    first.path.write_bytes(whole[:-1] + b"?")
    put()
    assert whole == first.path.read_bytes()


def test_other_bytes_under_a_known_uid_are_kept_beside_the_first(bridge: Any, put: Put) -> None:
    put()
    (first,) = bridge.archive.instances_of("1.2.3", "1.2.3.4")
    assert put(PatientName="Doe^Joan") is Added.CONFLICT
    assert [first] == bridge.archive.instances_of("1.2.3", "1.2.3.4")
    assert len(_files(bridge.state_dir)) == 2
    (conflict,) = bridge.archive.open_conflicts("1.2.3")
    assert ("content", first.content_hash) == (conflict.kind, conflict.kept)


def test_two_patients_in_one_study_are_a_conflict_until_it_is_accepted(bridge: Any, put: Put) -> None:
    put(1)
    put(2, PatientID="P2")
    put(3, PatientID="P2 ")
    (conflict,) = bridge.archive.open_conflicts("1.2.3")
    assert ("patient", "P1", "P2") == (conflict.kind, conflict.kept, conflict.other)
    bridge.archive.accept(conflict.id, AT)
    put(4, PatientID="P2")
    assert bridge.archive.open_conflicts() == []
    with pytest.raises(UnknownConflict):
        bridge.archive.accept(conflict.id, AT)


def test_an_instance_without_patient_id_hides_no_second_patient(bridge: Any, put: Put) -> None:
    put(1, PatientID="")
    put(2, PatientID="P1")
    assert bridge.archive.open_conflicts() == []
    put(3, PatientID="P2")
    assert ["patient"] == [each.kind for each in bridge.archive.open_conflicts("1.2.3")]


COERCED = {"PatientID": "PACS-1", "PatientName": "Coerced", "AccessionNumber": "A9", "StudyDescription": "Other"}


def _identity(archive: Archive) -> tuple[str, str, str, str]:
    study = archive.study("1.2.3")
    return study.patient_id, study.patient_name, study.accession_number, study.description


def test_a_result_of_ours_with_another_patient_id_is_no_second_patient(
    bridge: Any, make_slice: Any, encode: Any
) -> None:
    _put(bridge.archive, encode(make_slice(1)))
    before = _identity(bridge.archive)
    assert _put(bridge.archive, encode(make_slice(2, **COERCED)), is_ours=True) is Added.NEW
    assert ([], before) == (bridge.archive.open_conflicts(), _identity(bridge.archive))


def test_a_result_of_ours_that_comes_first_says_not_whose_study_it_is(
    bridge: Any, make_slice: Any, encode: Any
) -> None:
    _put(bridge.archive, encode(make_slice(2, **COERCED)), is_ours=True)
    assert ("", "", "", "") == _identity(bridge.archive)
    _put(bridge.archive, encode(make_slice(1)))
    assert ([], "P1") == (bridge.archive.open_conflicts(), _identity(bridge.archive)[0])


def test_a_study_is_found_by_its_key_also_after_a_restart(make_bridge: Any, make_slice: Any, encode: Any) -> None:
    _put(make_bridge().archive, encode(make_slice()))
    again = make_bridge().archive
    key = again.study_key("1.2.3")
    assert "1.2.3" == again.study_by_key(key).study_instance_uid
    assert [key] == [study.study_key for study in again.studies()]
    with pytest.raises(UnknownStudy):
        again.study_by_key("000000000000")


def test_the_secret_is_for_the_owner_alone(bridge: Any) -> None:
    assert 0o600 == stat.S_IMODE((bridge.state_dir / "secret").stat().st_mode)


@pytest.mark.parametrize("left", [b"", b"half a key"])
def test_a_damaged_secret_is_refused_and_never_used(make_bridge: Any, tmp_path: Path, left: bytes) -> None:
    (tmp_path / "secret").write_bytes(left)
    with pytest.raises(SettingsError, match=rf"secret: .* damaged \({len(left)} of 32 bytes\): put it back"):
        make_bridge()
    assert left == (tmp_path / "secret").read_bytes()


def test_a_start_that_was_killed_before_the_secret_was_whole_is_made_good(make_bridge: Any, tmp_path: Path) -> None:
    (tmp_path / "archive" / "incoming").mkdir(parents=True)
    (tmp_path / "archive" / "incoming" / "secret").write_bytes(b"half")
    key = make_bridge().archive.study_key("1.2.3")
    assert (32, key) == ((tmp_path / "secret").stat().st_size, make_bridge().archive.study_key("1.2.3"))


def test_other_users_cannot_look_into_the_archive(make_bridge: Any, tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir(mode=0o755)
    make_bridge()
    assert 0o750 == stat.S_IMODE((tmp_path / "archive").stat().st_mode)


def test_half_written_files_are_cleared_away_at_the_start(make_bridge: Any) -> None:
    bridge = make_bridge()
    (bridge.state_dir / "archive" / "incoming" / "x.part").write_bytes(b"half")
    make_bridge()
    assert _files(bridge.state_dir) == []


def test_below_the_free_space_floor_nothing_is_taken(make_bridge: Any, make_slice: Any, encode: Any) -> None:
    bridge = make_bridge(free_bytes=lambda _folder: 1000, free_space_floor_bytes=900)
    with pytest.raises(StorageFull):
        _put(bridge.archive, encode(make_slice()))
    assert _files(bridge.state_dir) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 2 MiB; skips where only root may."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no small file system to be had here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_really_full_keeps_nothing_half_stored(
    small_disk: Path, make_bridge: Any, make_slice: Any, encode: Any
) -> None:
    bridge = make_bridge(small_disk, free_bytes=lambda _folder: 2**40)
    dataset = encode(make_slice(PixelData=bytes(4 * 2**20)))
    with pytest.raises(StorageFull) as refused:
        _put(bridge.archive, dataset)
    cause = refused.value.__cause__
    assert isinstance(cause, OSError)
    assert cause.errno == errno.ENOSPC
    assert _files(small_disk) == []
    assert _put(bridge.archive, encode(make_slice())) is Added.NEW


def test_a_data_set_that_names_a_path_stays_a_name(bridge: Any, make_slice: Any, encode: Any) -> None:
    header: Dataset = make_slice(PatientID="../../etc/passwd", SeriesDescription="../x")
    _put(bridge.archive, encode(header))
    assert all(path.parent.parent == bridge.state_dir / "archive" for path in _files(bridge.state_dir))
