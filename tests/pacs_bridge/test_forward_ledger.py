"""Is what is to be passed on promised once, together with what it follows from, and never lost?"""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pacs_bridge.archive import Archive
from pacs_bridge.forward_ledger import ForwardLedger, Unbatched, bring_back
from pacs_bridge.forward_rules import ForwardRules
from pacs_bridge.instance import InstanceFacts
from pacs_bridge.ledger import KeptObject, Ledger
from pacs_bridge.settings import Forward
from pipeline.model import Priority, Provenance, Report, StudyStatus
from scheduler.database import Database
from scheduler.sqlite_queue import SqliteQueue

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
STUDY = "1.2.3"
EXPLICIT = "1.2.840.10008.1.2.1"
AE_TITLES = {"pacs": "PACS", "backup": "BACKUP"}


class Bench:
    """An archive whose intake notes what is to be passed on."""

    def __init__(self, folder: Path, *rules: Forward) -> None:
        self.database = Database(folder / "ctriage.sqlite")
        self.archive = Archive(folder, self.database, free_space_floor_bytes=0)
        self.queue = SqliteQueue(self.database)
        asked = ForwardRules(rules=rules, ae_titles=AE_TITLES)
        self.forwards = ForwardLedger(self.database, asked, folder / "archive")

    def receive(
        self, number: int, *, caller: str = "CT01", content: bytes = b"", is_ours: bool = False, **facts: Any
    ) -> str:
        """Enter an instance as the intake does; returns what the index made of it."""
        known = InstanceFacts(
            study_instance_uid=STUDY,
            series_instance_uid=f"{STUDY}.1",
            sop_instance_uid=f"{STUDY}.1.{number}",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            modality=facts.pop("modality", "CT"),
            **facts,
        )
        stored = self.archive.store(known, content or b"%d" % number, EXPLICIT, caller)
        with self.database.transaction():
            added = self.archive.add(known, stored, caller, NOW, is_ours=is_ours)
            if added.value == "new":
                self.forwards.note(known, caller, NOW)
        return added.value

    def conclude(self, *findings: str, priority: Priority | None = None, version: int = 1) -> None:
        """Publish a Report as far as forwarding is concerned."""
        self.forwards.note_report(report(findings, priority, version), NOW)

    def waiting(self) -> dict[str, int]:
        """Count what waits for a job, by destination."""
        return {each.destination: each.instances for each in self.forwards.unbatched()}

    def batch(self, destination: str = "pacs") -> int:
        """Bind all that waits for a destination to one batch."""
        (waiting,) = [each for each in self.forwards.unbatched() if each.destination == destination]
        return self.forwards.make_batch(waiting, [number for number, _ in self.forwards.unbatched_sizes(waiting)])


class Seen:
    """As much of a finding as forwarding looks at."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


def report(findings: tuple[str, ...], priority: Priority | None, version: int) -> Report:
    seen: Any = tuple(Seen(kind) for kind in findings)
    return Report(
        study_instance_uid=STUDY,
        study_digest="d",
        status=StudyStatus.ANALYSED,
        priority=priority,
        examined=(),
        findings=seen,
        provenance=Provenance(code_version="1", detector_versions={}, settings_hash=""),
        version=version,
        committed_at=NOW,
    )


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(*rules: Forward) -> Bench:
        made.append(Bench(tmp_path, *rules))
        return made[-1]

    yield make
    for each in made:
        each.database.close()


def test_what_rules_name_waits_for_each_destination_once(bench: Callable[..., Bench]) -> None:
    house = bench(Forward(to="pacs"), Forward(to="pacs", modality="CT"), Forward(to="backup", modality="MR"))
    assert ["new", "duplicate", "new"] == [house.receive(1), house.receive(1), house.receive(2, modality="MR")]
    assert {"pacs": 2, "backup": 1} == house.waiting()


def test_other_bytes_under_a_known_uid_are_kept_but_the_current_ones_go(bench: Callable[..., Bench]) -> None:
    house = bench(Forward(to="pacs"))
    assert ["new", "conflict"] == [house.receive(1, content=b"one"), house.receive(1, content=b"other")]
    (item,) = house.forwards.batch(house.batch())
    assert item.path.read_bytes().endswith(b"one")
    assert item.is_current


def test_what_is_rolled_back_was_never_promised(bench: Callable[..., Bench]) -> None:
    house = bench(Forward(to="pacs"))

    def fail() -> None:
        with house.database.transaction():
            house.receive(1)
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert {} == house.waiting()
    house.receive(1)
    assert {"pacs": 1} == house.waiting()


def test_a_report_sends_what_is_there_and_what_comes_late_but_not_back(bench: Callable[..., Bench]) -> None:
    house = bench(Forward(to="pacs", finding="hemorrhage", modality="CT"))
    for number, caller in ((1, "CT01"), (2, "PACS"), (3, "CT01")):
        house.receive(number, caller=caller)
    house.receive(4, modality="SR")
    house.conclude("fracture")
    assert {} == house.waiting()
    house.conclude("hemorrhage", "fracture", version=2)
    house.conclude("hemorrhage", "fracture", version=3)
    assert {"pacs": 2} == house.waiting()
    house.conclude(version=4)
    house.receive(5)
    assert {"pacs": 3} == house.waiting()


def publish(house: Bench, sop_instance_uid: str) -> None:
    """Make an instance a result object of this archive's own."""
    made = KeptObject(
        kind="sr",
        index=1,
        sop_instance_uid=sop_instance_uid,
        sop_class_uid="1.2",
        series_instance_uid="1.9",
        path="",
        sha256="",
    )
    Ledger(house.database).commit(report((), None, 1), provenance_key="", timings_s={}, objects=[made])


def test_results_of_ours_are_not_passed_on_when_they_come_back(bench: Callable[..., Bench]) -> None:
    house = bench(Forward(to="pacs", priority=Priority.STAT), Forward(to="backup"))
    publish(house, f"{STUDY}.1.9")
    house.receive(9, manufacturer="ctriage")
    house.receive(1)
    house.conclude(priority=Priority.STAT)
    assert ({"pacs": 1, "backup": 1}, Priority.STAT) == (house.waiting(), house.forwards.priority(STUDY))


def test_what_another_ctriage_made_is_passed_on_but_not_back_to_it(bench: Callable[..., Bench]) -> None:
    house = bench(Forward(to="pacs", priority=Priority.STAT), Forward(to="backup"))
    house.receive(1, manufacturer="ctriage", is_ours=True, caller="PACS")
    house.receive(2, manufacturer="ctriage", is_ours=True, caller="BACKUP")
    house.conclude(priority=Priority.STAT)
    assert {"pacs": 1, "backup": 1} == house.waiting()


def test_a_batch_is_settled_instance_by_instance(bench: Callable[..., Bench]) -> None:
    house = bench(Forward(to="pacs"))
    for number in range(4):
        house.receive(number)
    number = house.batch()
    first, second, *_ = [item.instance_id for item in house.forwards.batch(number)]
    house.forwards.settle("pacs", number, arrived=[first], refused={second: "no such class"}, at=NOW)
    assert 2 == len(house.forwards.batch(number))
    with house.database.transaction() as connection:
        assert (3, 0) == (
            bring_back(connection, "pacs", None, at=NOW),
            bring_back(connection, "pacs", None, at=NOW),
        )
    assert {"pacs": 3} == house.waiting()


def test_what_waits_for_a_job_that_is_gone_can_be_brought_back(bench: Callable[..., Bench]) -> None:
    house = bench(Forward(to="pacs"))
    house.receive(1)
    house.batch()
    assert {} == house.waiting()
    with house.database.transaction() as connection:
        assert (0, 1) == (
            bring_back(connection, "backup", None, at=NOW),
            bring_back(connection, "pacs", STUDY, at=NOW),
        )


def test_an_instance_that_is_removed_takes_its_rows_along(bench: Callable[..., Bench]) -> None:
    house = bench(Forward(to="pacs"), Forward(to="backup"))
    house.receive(1)
    with house.database.transaction() as connection:
        connection.execute("delete from instances")
    assert {} == house.waiting()


def test_how_long_something_waits_is_told(bench: Callable[..., Bench]) -> None:
    house = bench(Forward(to="pacs"))
    house.receive(1)
    later = NOW + timedelta(seconds=3)
    house.forwards.note(facts_of(house, 1), "CT01", later)
    assert [
        Unbatched(destination="pacs", study_instance_uid=STUDY, instances=1, first_at=NOW, last_at=NOW)
    ] == house.forwards.unbatched()


def facts_of(house: Bench, number: int) -> InstanceFacts:
    return house.archive.instances_of(STUDY, f"{STUDY}.1")[number - 1].facts


def test_noting_what_no_rule_matches_costs_next_to_nothing(bench: Callable[..., Bench]) -> None:
    house = bench(*(Forward(to="pacs", caller=f"CT{n}", modality="MR") for n in range(10)))
    house.receive(1)
    facts = facts_of(house, 1)
    best_s = min(_seconds(lambda: house.forwards.note(facts, "CT01", NOW)) for _ in range(200))
    assert best_s < 100e-6


def _seconds(action: Callable[[], object]) -> float:
    before = time.perf_counter()
    action()
    return time.perf_counter() - before
