"""Is what came noted before its sender may go, and told of even where its end cannot be noted?"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from pacs_bridge.front_desk import ReceptionDesk
from pacs_bridge.receiving.command import C_STORE_RQ, Command
from pacs_bridge.receiving.desk import Answer, Asked, Entry
from pacs_bridge.receiving.sink import InstanceSink, Reception
from pacs_bridge.store_status import StoreStatus

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
ASKED = Asked(association="a1", calling_ae="CT01", called_ae="CTRIAGE", address="127.0.0.1", tls=False)


@dataclass(slots=True)
class Taken:
    """Takes an entry as a front desk does, and keeps it for the test."""

    entry: Entry | None = None

    def enter(self, entry: Entry, settle: Callable[[], None]) -> Answer:
        """See FrontDesk."""
        settle()
        self.entry = entry
        return Answer(StoreStatus.SUCCESS)


@pytest.fixture
def entry_of(bridge: Any, make_slice: Any, encode: Any) -> Callable[[int], Entry]:
    """Return a maker of entries whose files lie in the archive."""

    def make(number: int) -> Entry:
        taken: Any = Taken()
        reception = Reception(
            files=bridge.archive.files,
            desk=taken,
            calling_ae="CT01",
            association="a1",
            maximum_instance_bytes=2**30,
        )
        command = Command(
            field=C_STORE_RQ, has_dataset=True, sop_class_uid=CT_IMAGE, sop_instance_uid=f"1.2.3.4.{number}"
        )
        sink = InstanceSink(reception, command, EXPLICIT)
        sink.write(memoryview(encode(make_slice(number))))
        assert sink.finish().status is StoreStatus.SUCCESS
        entry: Entry = taken.entry
        return entry

    return make


@pytest.fixture
def desk(bridge: Any) -> ReceptionDesk:
    """Return a front desk that has let one sender in."""
    made: ReceptionDesk = bridge.desk()
    assert made.opened(ASKED) is None
    return made


def test_a_sender_that_releases_as_soon_as_it_hears_success_has_all_its_instances_told(
    bridge: Any, desk: ReceptionDesk, entry_of: Callable[[int], Entry]
) -> None:
    desk.enter_later(entry_of(1), lambda _answer: None)
    desk.enter_later(entry_of(2), lambda _answer: desk.closed("a1", ""))
    (event,) = bridge.audited
    assert 2 == sum(count for _, count in event.study.instances)


def test_what_came_is_told_though_the_end_of_its_association_cannot_be_noted(
    bridge: Any, desk: ReceptionDesk, entry_of: Callable[[int], Entry]
) -> None:
    def full(_instruction: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    for number in (1, 2, 3):
        desk.enter_later(entry_of(number), lambda _answer: None)
    bridge.intake._consequences = replace(bridge.intake._consequences, on_instruction=full)
    with pytest.raises(sqlite3.OperationalError):
        desk.closed("a1", "")
    assert 1 == len(bridge.audited)
    assert 0 == desk.open_associations
