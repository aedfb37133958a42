"""What a sender hears, and what its instances set off."""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from pydicom.dataset import Dataset

from pacs_bridge.arrival import Evidence, SeriesComplete, SeriesReopened, StudyQuiet
from pacs_bridge.intake import Consequences
from pacs_bridge.store_status import StoreStatus
from reconstruction.headers import pack, read_header

EXPLICIT = "1.2.840.10008.1.2.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
Send = Callable[..., StoreStatus]


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One C-STORE request: the bytes as they came, and what its command set says of them."""

    dataset: bytes = field(repr=False)
    transfer_syntax: str
    sop_class_uid: str
    sop_instance_uid: str
    calling_ae: str
    association: str


@pytest.fixture
def receive(make_slice: Any, encode: Any) -> Callable[..., Received]:
    """Return a maker of C-STORE requests for slice ``n``."""

    def make(n: int = 1, association: str = "A", **overrides: Any) -> Received:
        header: Dataset = make_slice(n, **overrides)
        return Received(
            dataset=encode(header),
            transfer_syntax=EXPLICIT,
            sop_class_uid=header.SOPClassUID,
            sop_instance_uid=header.SOPInstanceUID,
            calling_ae="CT01",
            association=association,
        )

    return make


def send(bridge: Any, receive: Any, *numbers: int, **overrides: Any) -> None:
    for n in numbers:
        assert bridge.store(receive(n, **overrides)) is StoreStatus.SUCCESS


def test_a_series_is_complete_and_its_study_quiet_also_in_the_index(bridge: Any, receive: Any) -> None:
    send(bridge, receive, 1, 2, 3)
    bridge.intake.released("A")
    (series,) = bridge.archive.series_of("1.2.3")
    assert ("complete", "contiguous") == (series.state, series.evidence)
    bridge.clock.advance(60)
    bridge.intake.tick()
    assert [SeriesComplete, StudyQuiet] == [type(each) for each in bridge.instructions]
    assert ("quiet", "contiguous") == (bridge.archive.study("1.2.3").state, bridge.archive.study("1.2.3").evidence)


def test_a_duplicate_is_a_success_and_sets_nothing_off(bridge: Any, receive: Any) -> None:
    send(bridge, receive, 1, 2, 3)
    bridge.intake.released("A")
    bridge.clock.advance(60)
    bridge.intake.tick()
    before = list(bridge.instructions)
    send(bridge, receive, 1, 2, 3, association="B")
    bridge.intake.released("B")
    bridge.clock.advance(600)
    bridge.intake.tick()
    assert before == bridge.instructions


def test_a_late_slice_reopens_a_quiet_study(bridge: Any, receive: Any) -> None:
    send(bridge, receive, 1, 2, 3)
    bridge.clock.advance(60)
    bridge.intake.tick()
    bridge.instructions.clear()
    send(bridge, receive, 4, association="B")
    assert bridge.archive.study("1.2.3").state == "open"
    bridge.intake.released("B")
    bridge.clock.advance(60)
    bridge.intake.tick()
    assert [SeriesReopened, SeriesComplete, StudyQuiet] == [type(each) for each in bridge.instructions]
    assert bridge.instructions[1].instances == 4


def test_a_restart_takes_up_what_was_left_open(make_bridge: Any, receive: Any) -> None:
    send(make_bridge(), receive, 1, 2, 3)
    bridge = make_bridge()
    bridge.clock.advance(59)
    bridge.intake.tick()
    assert bridge.instructions == []
    again = make_bridge()
    again.clock.advance(60)
    again.intake.tick()
    assert [SeriesComplete, StudyQuiet] == [type(each) for each in again.instructions]
    assert (Evidence.QUIET_PERIOD, 3) == (again.instructions[0].evidence, again.instructions[0].instances)


@pytest.mark.parametrize(
    "overrides", [{"Modality": "MR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, {"Manufacturer": "ctriage"}]
)
def test_what_is_no_ct_or_is_our_own_is_kept_and_sets_nothing_off(bridge: Any, receive: Any, overrides: Any) -> None:
    send(bridge, receive, 1, 2, 3, **overrides)
    bridge.intake.released("A")
    bridge.clock.advance(100)
    bridge.intake.tick()
    assert bridge.instructions == []
    assert len(bridge.archive.instances_of("1.2.3", "1.2.3.4")) == 3
    assert bridge.archive.study("1.2.3").state == "kept"


def test_what_some_ctriage_made_is_told_as_new_like_any_other(bridge: Any, receive: Any) -> None:
    new: list[str] = []
    bridge.intake._consequences = Consequences(
        on_instruction=lambda _: None, on_new=lambda facts, _caller, _at: new.append(facts.manufacturer)
    )
    send(bridge, receive, 1, Manufacturer="ctriage")
    send(bridge, receive, 1, Manufacturer="ctriage")
    assert ["ctriage"] == new


def test_a_scanners_page_is_part_of_its_ct_study(bridge: Any, receive: Any) -> None:
    send(bridge, receive, 1, SOPClassUID=SECONDARY_CAPTURE)
    bridge.clock.advance(60)
    bridge.intake.tick()
    assert [SeriesComplete, StudyQuiet] == [type(each) for each in bridge.instructions]


def test_a_second_content_of_an_instance_sets_nothing_off(bridge: Any, receive: Any) -> None:
    send(bridge, receive, 1, 2, 3)
    send(bridge, receive, 2, SeriesDescription="other")
    bridge.intake.released("A")
    (complete,) = bridge.instructions
    assert complete.instances == 3


def test_when_what_follows_fails_the_instance_is_not_acknowledged(make_bridge: Any, receive: Any) -> None:
    bridge = make_bridge()
    send(bridge, receive, 1, 2, 3)

    def no_queue(_instruction: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    healthy = bridge.intake._consequences
    bridge.intake._consequences = Consequences(on_instruction=no_queue)
    with pytest.raises(sqlite3.OperationalError):
        bridge.intake.released("A")
    assert bridge.archive.series_of("1.2.3")[0].state == "open"
    bridge.intake._consequences = healthy
    bridge.intake.released("A")
    assert [SeriesComplete] == [type(each) for each in bridge.instructions]


def test_a_full_disk_is_answered_so(make_bridge: Any, receive: Any) -> None:
    bridge = make_bridge(free_bytes=lambda _folder: 0)
    assert bridge.store(receive()) is StoreStatus.OUT_OF_RESOURCES


def test_bytes_of_another_class_than_announced_are_refused(bridge: Any, receive: Any) -> None:
    announced = replace(receive(), sop_class_uid=SECONDARY_CAPTURE)
    assert bridge.store(announced) is StoreStatus.DOES_NOT_MATCH
    assert bridge.archive.studies() == []


def test_what_an_image_says_of_its_pixels_is_indexed_as_its_file_tells_it(bridge: Any, receive: Any) -> None:
    send(bridge, receive, 1, 2)
    for each in bridge.archive.instances_of("1.2.3", "1.2.3.4"):
        assert pack(read_header(each.path)) == each.header


def test_only_ct_is_indexed_that_far(bridge: Any, receive: Any) -> None:
    send(bridge, receive, 1, Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4")
    (other,) = bridge.archive.instances_of("1.2.3", "1.2.3.4")
    assert other.header is None


def test_of_two_contents_the_header_of_the_first_stays_current(bridge: Any, receive: Any) -> None:
    send(bridge, receive, 1)
    send(bridge, receive, 1, SeriesDescription="corrected")
    (kept,) = bridge.archive.instances_of("1.2.3", "1.2.3.4")
    assert pack(read_header(kept.path)) == kept.header
    assert "corrected" not in kept.header
