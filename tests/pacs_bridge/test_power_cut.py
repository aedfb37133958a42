"""After a power cut the index names no file that is not whole, and nothing else is touched."""

from pathlib import Path
from typing import Any

import pytest

from pacs_bridge.instance import read_facts
from pacs_bridge.power_cut import forget_what_was_torn

EXPLICIT = "1.2.840.10008.1.2.1"


@pytest.fixture
def paths(bridge: Any, make_slice: Any, encode: Any) -> list[Path]:
    """Return the files of three slices that were received at the same time."""
    for n in (1, 2, 3):
        dataset = encode(make_slice(n))
        facts = read_facts(dataset, EXPLICIT)
        stored = bridge.archive.store(facts, dataset, EXPLICIT, "CT01")
        bridge.archive.add(facts, stored, "CT01", bridge.clock())
    bridge.archive.set_series_state("1.2.3", "1.2.3.4", "complete", "contiguous")
    bridge.archive.set_study_state("1.2.3", "quiet", "contiguous")
    return [each.path for each in bridge.archive.instances_of("1.2.3", "1.2.3.4")]


def forget(bridge: Any, boot: str) -> int:
    return forget_what_was_torn(bridge.state_dir, bridge.database, boot=lambda: boot)


def names(bridge: Any) -> list[str]:
    return [each.facts.sop_instance_uid for each in bridge.archive.instances_of("1.2.3", "1.2.3.4")]


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "zeros"])
def test_a_torn_file_is_forgotten_and_its_series_is_waited_for_again(
    bridge: Any, paths: list[Path], damage: str
) -> None:
    forget(bridge, "monday")
    whole = paths[1].read_bytes()
    match damage:
        case "missing":
            paths[1].unlink()
        case "empty":
            paths[1].write_bytes(b"")
        case "cut":
            paths[1].write_bytes(whole[:-1])
        case _:
            paths[1].write_bytes(whole[:-32] + bytes(31) + b"\1")
    assert 1 == forget(bridge, "tuesday")
    assert ["1.2.3.4.1", "1.2.3.4.3"] == names(bridge)
    assert not paths[1].exists()
    (series,) = bridge.archive.series_of("1.2.3")
    assert ("open", "open") == (series.state, bridge.archive.study("1.2.3").state)


def test_whole_files_stay_after_a_power_cut(bridge: Any, paths: list[Path]) -> None:
    forget(bridge, "monday")
    assert 0 == forget(bridge, "tuesday")
    assert 3 == len(names(bridge))
    assert "quiet" == bridge.archive.study("1.2.3").state


def test_where_the_machine_ran_on_nothing_is_looked_at(bridge: Any, paths: list[Path]) -> None:
    forget(bridge, "monday")
    paths[0].unlink()
    assert 0 == forget(bridge, "monday")
    assert 3 == len(names(bridge))


def test_what_came_long_before_is_for_verify_to_find(
    bridge: Any, paths: list[Path], make_slice: Any, encode: Any
) -> None:
    forget(bridge, "monday")
    bridge.clock.advance(3600)
    dataset = encode(make_slice(4))
    facts = read_facts(dataset, EXPLICIT)
    bridge.archive.add(facts, bridge.archive.store(facts, dataset, EXPLICIT, "CT01"), "CT01", bridge.clock())
    paths[0].unlink()
    assert 0 == forget(bridge, "tuesday")


def test_the_other_content_is_current_where_the_first_was_torn(
    bridge: Any, paths: list[Path], make_slice: Any, encode: Any
) -> None:
    dataset = encode(make_slice(1, PatientName="Doe^Joan"))
    facts = read_facts(dataset, EXPLICIT)
    bridge.archive.add(facts, bridge.archive.store(facts, dataset, EXPLICIT, "CT01"), "CT01", bridge.clock())
    paths[0].unlink()
    assert 1 == forget(bridge, "tuesday")
    assert 3 == len(names(bridge))


@pytest.mark.parametrize("left", [0, 1])
def test_a_study_of_which_nothing_is_left_is_not_waited_for_until_it_is_sent_again(
    bridge: Any, paths: list[Path], left: int
) -> None:
    for path in paths[left:]:
        path.unlink()
    assert 3 - left == forget(bridge, "tuesday")
    assert (["1.2.3"] if left else []) == bridge.archive.unfinished_studies()
    (series,) = bridge.archive.series_of("1.2.3")
    assert ("open" if left else "kept") == series.state


def test_a_study_goes_on_with_the_series_that_are_left(
    bridge: Any, paths: list[Path], make_slice: Any, encode: Any
) -> None:
    dataset = encode(make_slice(1, SeriesInstanceUID="1.2.3.5", SOPInstanceUID="1.2.3.5.1"))
    facts = read_facts(dataset, EXPLICIT)
    bridge.archive.add(facts, bridge.archive.store(facts, dataset, EXPLICIT, "CT01"), "CT01", bridge.clock())
    bridge.archive.set_series_state("1.2.3", "1.2.3.5", "complete", "contiguous")
    for path in paths:
        path.unlink()
    assert 3 == forget(bridge, "tuesday")
    states = {each.series_instance_uid: each.state for each in bridge.archive.series_of("1.2.3")}
    assert {"1.2.3.4": "kept", "1.2.3.5": "complete"} == states
    assert ["1.2.3"] == bridge.archive.unfinished_studies()


def test_a_series_whose_images_were_removed_keeps_no_study_open(bridge: Any, paths: list[Path]) -> None:
    with bridge.database.transaction() as connection:
        connection.execute(
            "insert into series values ('1.2.3.9', '1.2.3', 'CT', 9, 'removed long ago', 'complete', 'contiguous')"
        )
    for path in paths:
        path.unlink()
    assert 3 == forget(bridge, "tuesday")
    assert [] == bridge.archive.unfinished_studies()


def test_an_empty_archive_is_none_the_worse(bridge: Any) -> None:
    assert 0 == forget(bridge, "monday")
