"""Does the status say in words what waits for whom, and why?"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from pacs_bridge.archive import Archive
from pacs_bridge.forward_gate import DestinationGate, forget_contacts
from pacs_bridge.forward_ledger import ForwardLedger
from pacs_bridge.forward_rules import ForwardRules
from pacs_bridge.instance import InstanceFacts
from pacs_bridge.settings import Forward
from pacs_bridge.status import read_status, tables
from scheduler.database import Database
from scheduler.job import JobRequest
from scheduler.sqlite_queue import SqliteQueue

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
STUDY = "1.2.826.0.1.3680043.8.498.11"
KIND = "forward:pacs"


class Service:
    """What a running service would have open: three images of one study, promised to pacs."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "ctriage.sqlite"
        self.database = Database(self.path)
        self.queue = SqliteQueue(self.database)
        self.archive = Archive(folder, self.database, free_space_floor_bytes=0)
        rules = ForwardRules(rules=(Forward(to="pacs"),), ae_titles={"pacs": "PACS"})
        self.forwards = ForwardLedger(self.database, rules, folder)
        for number in range(3):
            facts = InstanceFacts(
                study_instance_uid=STUDY,
                series_instance_uid=f"{STUDY}.1",
                sop_instance_uid=f"{STUDY}.1.{number}",
                sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            )
            stored = self.archive.store(facts, b"%d" % number, "1.2.840.10008.1.2", "CT01")
            self.archive.add(facts, stored, "CT01", NOW)
            self.forwards.note(facts, "CT01", NOW)

    def batch(self) -> int:
        """Make the job that is to pass all on."""
        (waiting,) = self.forwards.unbatched()
        number = self.forwards.make_batch(waiting, [each for each, _ in self.forwards.unbatched_sizes(waiting)])
        payload = {"study_instance_uid": STUDY, "destination": "pacs", "batch": number}
        self.queue.submit(JobRequest(key=f"{KIND}:{number}", kind=KIND, payload=payload), now=NOW)
        return number

    def row(self) -> dict[str, Any]:
        """Return the one row of what is passed on."""
        row: dict[str, Any]
        (row,) = read_status(self.path)["forwards"]
        assert row == read_status(self.path, self.archive.study_key(STUDY))["forwards"][0]
        return row

    def said(self) -> tuple[str, int, int, int, str | None]:
        """Return state, pending, sent, refused and reason."""
        row = self.row()
        return row["state"], row["pending"], row["sent"], row["refused"], row["reason"]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path)
    yield service
    service.database.close()


def test_images_gather_wait_leave_and_are_sent_or_refused(service: Service) -> None:
    assert ("collecting", 3, 0, 0, None) == service.said()
    number = service.batch()
    assert ("ready", 3, 0, 0, None) == service.said()
    (job,) = service.queue.claim([KIND], NOW, 30).started
    assert "running" == service.row()["state"]
    service.queue.retry(job, NOW + timedelta(seconds=9), f"cut off at {STUDY}")
    assert ("ready", 3, 0, 0, "cut off at (withheld)") == service.said()
    assert (NOW.isoformat(), 1) == (service.row()["since"], service.row()["attempts"])
    first, *others = [item.instance_id for item in service.forwards.batch(number)]
    service.forwards.settle("pacs", number, arrived=others, refused={first: "no such class"}, at=NOW)
    assert ("refused", 0, 2, 1, "1 refused: no such class") == service.said()


def test_a_refusal_does_not_hide_why_the_others_wait(service: Service) -> None:
    number = service.batch()
    first, *_ = [item.instance_id for item in service.forwards.batch(number)]
    service.forwards.settle("pacs", number, arrived=[], refused={first: "no such class"}, at=NOW)
    assert ("ready", 2, 0, 1, "1 refused: no such class") == service.said()
    (job,) = service.queue.claim([KIND], NOW, 30).started
    service.queue.retry(job, NOW, "cut off")
    assert ("ready", 2, 0, 1, "cut off; 1 refused: no such class") == service.said()


def test_what_is_passed_on_is_told_by_study_and_not_job_by_job(service: Service) -> None:
    service.batch()
    status = read_status(service.path)
    assert ([], []) == (status["jobs"], status["deliveries"])


def test_a_job_that_was_given_up_or_ended_by_hand_is_told(service: Service) -> None:
    number = service.batch()
    (job,) = service.queue.claim([KIND], NOW, 30).started
    service.queue.bury(job, "ValueError: never again")
    assert ("buried", 3, 0, 0, "ValueError: never again") == service.said()
    service.queue.resubmit(f"{KIND}:{number}", now=NOW)
    service.queue.cancel(f"{KIND}:{number}", "")
    assert "forward retry" in str(service.said()[-1])


def test_everybody_who_waits_for_a_destination_that_is_away_says_so(service: Service) -> None:
    service.batch()
    payload = {"study_instance_uid": STUDY, "destination": "pacs", "version": 1, "group": "flags"}
    service.queue.submit(JobRequest(key="d", kind="deliver:pacs", payload=payload), now=NOW)
    gate = DestinationGate("pacs", service.database, Random(0))
    assert gate.unanswered("nobody listens there", started_at=NOW, now=NOW) is None
    next_at = gate.unanswered("nobody listens there", started_at=NOW + timedelta(seconds=3), now=NOW)
    assert next_at is not None
    status = read_status(service.path)
    (contact,) = status["destinations"]
    assert ("pacs", 2, NOW.isoformat()) == (contact["destination"], contact["failures"], contact["since"])
    for row in (*status["deliveries"], *status["forwards"]):
        assert ("waits with all others for pacs: nobody listens there", next_at.isoformat()) == (
            row["reason"],
            row["next_at"],
        )
    gate.answered()
    assert ([], None) == (read_status(service.path)["destinations"], service.row()["reason"])


def test_a_start_begins_with_a_try(service: Service) -> None:
    gate = DestinationGate("gone", service.database, Random(0))
    gate.unanswered("nobody there", started_at=NOW, now=NOW)
    forget_contacts(service.database)
    assert [] == read_status(service.path)["destinations"]


def test_people_read_no_uid(service: Service) -> None:
    shown = {title: (columns, rows) for title, columns, rows in tables(read_status(service.path))}
    columns, (row,) = shown["forwards"]
    assert {"destination": "pacs", "pending": 3, "since": "2026-03-01T12:00:00Z"}.items() <= dict(
        zip(columns, row, strict=True)
    ).items()
    assert STUDY not in str(shown)
