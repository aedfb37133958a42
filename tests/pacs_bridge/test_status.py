"""``ctriage status``: one view of studies, jobs, deliveries and conflicts, which looking does not change."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pacs_bridge.archive import Archive, StoredFile
from pacs_bridge.conflicts import accept, retry
from pacs_bridge.deliveries import HELD_BACK
from pacs_bridge.errors import UnknownConflict, UnknownStudy
from pacs_bridge.instance import InstanceFacts
from pacs_bridge.ledger import Ledger
from pacs_bridge.settings import Settings
from pacs_bridge.status import NoState, read_status, tables
from pipeline.model import Priority, Provenance, Report, StudyStatus
from scheduler.database import Database
from scheduler.job import JobRequest, Status
from scheduler.sqlite_queue import SqliteQueue

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BLEED, OTHER = "1.2.826.0.1.3680043.8.498.11", "1.2.826.0.1.3680043.8.498.22"


class Service:
    """What a running service would have open."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "ctriage.sqlite"
        self.database = Database(self.path)
        self.archive = Archive(state_dir, self.database)
        self.queue = SqliteQueue(self.database)
        self.ledger = Ledger(self.database)

    def receive(self, study: str, *, instance: str = "1", patient: str = "P1") -> None:
        facts = InstanceFacts(
            study_instance_uid=study,
            series_instance_uid=f"{study}.1",
            sop_instance_uid=f"{study}.1.{instance}",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            patient_id=patient,
            patient_name="Muñoz^Ana",
        )
        stored = StoredFile(
            content_hash=instance + patient, path="x", size_bytes=1, transfer_syntax="1.2.840.10008.1.2"
        )
        (self.path.parent / "archive" / stored.path).touch()
        self.archive.add(facts, stored, "CT01", NOW)

    def commit(self, study: str, version: int) -> None:
        report = Report(
            study_instance_uid=study,
            study_digest="d",
            status=StudyStatus.ANALYSED,
            priority=Priority.STAT,
            examined=(),
            findings=(),
            provenance=Provenance(code_version="1", detector_versions={}, settings_hash=""),
            version=version,
            committed_at=NOW,
        )
        self.ledger.commit(report, provenance_key="k", timings_s={}, objects=())

    def submit(self, kind: str, study: str) -> None:
        what = {"destination": "pacs", "version": 2, "group": "flags"} if kind.startswith("deliver") else {}
        payload = {"study_instance_uid": study, **what}
        request = JobRequest(key=f"{kind}/{study}", kind=kind, payload=payload)
        self.queue.submit(request, now=NOW)

    def key(self, study: str) -> str:
        return self.archive.study_key(study)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path)
    service.receive(BLEED)
    service.receive(OTHER)
    service.commit(BLEED, 1)
    service.commit(BLEED, 2)
    service.submit("triage", OTHER)
    service.submit("deliver:pacs", BLEED)
    yield service
    service.database.close()


def rows(status: dict[str, Any], name: str, study_key: str) -> list[dict[str, Any]]:
    return [row for row in status[name] if row["study_key"] == study_key]


def test_a_study_shows_its_arrival_and_its_latest_report(service: Service) -> None:
    (study,) = rows(read_status(service.path), "studies", service.key(BLEED))
    assert (BLEED, "stat", 2, "kept") == (
        study["study_instance_uid"],
        study["priority"],
        study["report_version"],
        study["state"],
    )


def test_a_study_without_a_report_has_no_priority(service: Service) -> None:
    (study,) = rows(read_status(service.path), "studies", service.key(OTHER))
    assert (None, None) == (study["priority"], study["report_version"])


def test_deliveries_stand_apart_from_other_jobs(service: Service) -> None:
    status = read_status(service.path)
    (delivery,) = status["deliveries"]
    assert ("pacs", "ready", 0, None) == tuple(
        delivery[name] for name in ("destination", "state", "attempts", "reason")
    )
    assert ["triage"] == [job["kind"] for job in status["jobs"]]


def test_one_study_by_its_key_shows_its_series_and_nothing_of_others(service: Service) -> None:
    status = read_status(service.path, service.key(BLEED))
    assert ([BLEED], [], 1, 1) == (
        [study["study_instance_uid"] for study in status["studies"]],
        status["jobs"],
        len(status["deliveries"]),
        len(status["series"]),
    )


def test_a_key_nobody_knows_is_an_error(service: Service) -> None:
    with pytest.raises(UnknownStudy, match="no study 0123456789ab"):
        read_status(service.path, "0123456789ab")


def test_the_tables_for_people_name_no_patient_and_no_uid(service: Service) -> None:
    service.receive(BLEED, patient="P2", instance="2")
    text = str([row for _, _, table in tables(read_status(service.path)) for row in table])
    assert service.key(BLEED) in text
    assert [] == [secret for secret in (BLEED, OTHER, "P1", "P2", "Muñoz") if secret in text]


def test_a_stopped_service_can_be_looked_at(service: Service) -> None:
    service.database.close()
    assert 2 == len(read_status(service.path)["studies"])


def test_looking_does_not_wait_for_a_writer(service: Service) -> None:
    with service.database.transaction():
        service.commit(OTHER, 1)
        (study,) = rows(read_status(service.path), "studies", service.key(OTHER))
        assert study["report_version"] is None


def test_no_state_yet_is_told_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(NoState, match="start `ctriage serve` once"):
        read_status(tmp_path / "ctriage.sqlite")


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "ctriage.sqlite").write_bytes(b"x" * 4096)
    with pytest.raises(NoState, match="cannot be read"):
        read_status(tmp_path / "ctriage.sqlite")


def test_accepting_the_last_conflict_releases_what_it_held_back(service: Service) -> None:
    service.receive(BLEED, patient="P2", instance="2")
    service.queue.hold(f"deliver:pacs/{BLEED}", HELD_BACK)
    (conflict,) = read_status(service.path)["conflicts"]
    accepted = accept(Settings(state_dir=service.path.parent), conflict["id"], now=NOW)
    assert (service.key(BLEED), 1, 0) == (accepted.study_key, accepted.let_go, accepted.still_open)
    assert Status.READY is service.queue.job(f"deliver:pacs/{BLEED}").status
    assert [] == read_status(service.path)["conflicts"]


def test_a_conflict_is_accepted_once(service: Service) -> None:
    with pytest.raises(UnknownConflict):
        accept(Settings(state_dir=service.path.parent), 7, now=NOW)


def test_a_study_whose_last_triage_was_given_up_is_failed(service: Service) -> None:
    (job,) = service.queue.claim({"triage"}, NOW, 30).started
    service.queue.bury(job, "ValueError: never again")
    states = {study["study_instance_uid"]: study["state"] for study in read_status(service.path)["studies"]}
    assert {BLEED: "kept", OTHER: "failed"} == states


def test_saying_that_a_study_failed_does_not_hide_that_it_failed(service: Service) -> None:
    (job,) = service.queue.claim({"triage"}, NOW, 30).started
    service.queue.bury(job, "ValueError: broken instance 1.2.840.113619.2.55.3")
    payload = {"study_instance_uid": OTHER, "failed": "failed: ValueError"}
    service.queue.submit(JobRequest(key="saying", kind="triage", payload=payload), now=NOW + timedelta(seconds=1))
    (study,) = read_status(service.path, service.key(OTHER))["studies"]
    assert "failed" == study["state"]
    reasons = {row["key"]: row["reason"] for row in read_status(service.path)["jobs"]}
    assert "ValueError: broken instance (withheld)" == reasons[job.key]


def test_whatever_is_unfinished_is_shown_however_much_came_later(service: Service) -> None:
    later = NOW + timedelta(seconds=1)
    with service.database.transaction() as connection:
        for n in range(1001):
            service.queue.submit(JobRequest(key=f"derive/{n}", kind="derive"), now=later)
        connection.execute("update jobs set status = 'done' where kind = 'derive'")
        connection.execute(
            "insert into studies (study_instance_uid, study_key, patient_id, patient_name, accession_number,"
            " description, first_received_at, last_received_at)"
            " select key, key, '', '', '', '', '2027', '2027' from jobs where kind = 'derive'"
        )
    status = read_status(service.path)
    assert (1000, 1) == tuple(sum(row["kind"] == kind for row in status["jobs"]) for kind in ("derive", "triage"))
    assert service.key(BLEED) == status["deliveries"][0]["study_key"]
    assert {service.key(BLEED), service.key(OTHER)} <= {study["study_key"] for study in status["studies"]}
    assert 2 == read_status(service.path, service.key(BLEED))["studies"][0]["report_version"]


def buried(service: Service) -> list[str]:
    with service.database.transaction():
        jobs = service.queue.claim({"triage", "deliver:pacs"}, NOW, 30).started
        for job in jobs:
            service.queue.bury(job, "the PACS does not know us")
    return sorted(job.key for job in jobs)


def test_what_was_given_up_is_brought_back_for_all_or_for_one_study(service: Service) -> None:
    everything = buried(service)
    (mine,) = retry(service.path, service.key(BLEED), now=NOW)
    assert (f"deliver:pacs/{BLEED}", Status.READY) == (mine, service.queue.job(mine).status)
    assert sorted(set(everything) - {mine}) == list(retry(service.path, None, now=NOW))
    assert [] == list(retry(service.path, None, now=NOW))


def test_retry_of_a_study_nobody_knows_is_an_error(service: Service) -> None:
    with pytest.raises(UnknownStudy):
        retry(service.path, "0123456789ab", now=NOW)


def test_what_was_noticed_while_pictures_were_made_is_shown(service: Service) -> None:
    service.ledger.add_remarks(BLEED, 2, notes=["no 3D rendering"], timings_s={})
    shown = {title: rows for title, _, rows in tables(read_status(service.path))}
    assert [(service.key(BLEED), "no 3D rendering")] == shown["remarks"]
