"""Do images leave the archive so that whatever happens there is no row without its file?"""

import errno
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pacs_bridge.archive import Added, Archive, StoredFile, StudyState
from pacs_bridge.audit import AuditEvent
from pacs_bridge.instance import InstanceFacts
from pacs_bridge.ledger import Ledger
from pacs_bridge.removal import Keeper, Removal
from pacs_bridge.settings import Retention
from pipeline.model import Provenance, Report, StudyStatus
from scheduler.database import Database, statements
from scheduler.job import JobRequest
from scheduler.sqlite_queue import SqliteQueue

NOW = datetime(2026, 6, 1, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=100)
RULES = Retention(days=90)
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"


class Service:
    """What a running service would have open."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.database = Database(state_dir / "ctriage.sqlite")
        self.archive = Archive(state_dir, self.database, free_space_floor_bytes=0)
        self.queue = SqliteQueue(self.database)
        self.ledger = Ledger(self.database)
        self.audited: list[AuditEvent] = []
        self.removal = Removal(self.database, state_dir, auditor=self.audited.append)

    def store(self, study: str, instance: int, content: bytes = b"") -> tuple[InstanceFacts, StoredFile]:
        facts = InstanceFacts(
            study_instance_uid=study,
            series_instance_uid=f"{study}.1",
            sop_instance_uid=f"{study}.1.{instance}",
            sop_class_uid=CT_IMAGE,
            patient_id="P1",
        )
        return facts, self.archive.store(facts, content or f"{study} {instance}".encode(), EXPLICIT, "CT01")

    def receive(
        self, study: str = "1.2.3", images: int = 3, at: datetime = LONG_AGO, state: StudyState = "quiet"
    ) -> None:
        for n in range(images):
            self.archive.add(*self.store(study, n), "CT01", at)
        self.archive.set_study_state(study, state)

    def report(self, study: str = "1.2.3") -> None:
        report = Report(
            study_instance_uid=study,
            study_digest="d",
            status=StudyStatus.ANALYSED,
            priority=None,
            examined=(),
            findings=(),
            provenance=Provenance(code_version="1", detector_versions={}, settings_hash=""),
            version=1,
            committed_at=LONG_AGO,
        )
        self.ledger.commit(report, provenance_key="k", timings_s={}, objects=())

    def files(self) -> set[Path]:
        return set((self.state_dir / "archive").glob("??/*"))

    def rows(self) -> set[Path]:
        with self.database.read() as connection:
            found = connection.execute("select path from instances").fetchall()
        return {self.state_dir / "archive" / row["path"] for row in found}

    def run(self, rules: Retention = RULES) -> list[str]:
        return [each.study.study_instance_uid for each in self.removal.run(rules, now=NOW).removed]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path)
    yield service
    service.database.close()


def test_an_old_delivered_study_loses_its_images_and_keeps_everything_else(service: Service) -> None:
    service.receive()
    service.report()
    assert ["1.2.3"] == service.run()
    assert (set(), set()) == (service.files(), service.rows())
    assert "P1" == service.archive.study("1.2.3").patient_id
    assert 1 == len(service.archive.series_of("1.2.3"))
    assert service.ledger.latest("1.2.3") is not None


def test_a_removal_is_noted_and_audited(service: Service) -> None:
    service.receive()
    service.report()
    service.run()
    with service.database.read() as connection:
        (noted,) = connection.execute(
            statements("pacs_bridge", "sql/retention.sql")["removed_at"], {"study_instance_uid": None}
        )
    (event,) = service.audited
    assert ("1.2.3", NOW.isoformat(), 3) == tuple(noted)
    assert event.study is not None
    assert ("1.2.3", ((CT_IMAGE, 3),), "D") == (event.study.study_instance_uid, event.study.instances, event.action)


def test_looking_removes_nothing(service: Service) -> None:
    service.receive()
    service.report()
    outcome = service.removal.survey(RULES, now=NOW)
    assert (1, 3, []) == (len(outcome.removed), len(service.files()), service.audited)


def test_a_study_that_nobody_analyses_needs_no_report(service: Service) -> None:
    service.receive(state="kept")
    assert ["1.2.3"] == service.run()


def unreported(service: Service) -> None:
    service.receive("9.9")


def arriving(service: Service) -> None:
    service.receive("9.9", state="open")
    service.report("9.9")


def waiting_for_delivery(service: Service) -> None:
    service.receive("9.9")
    service.report("9.9")
    payload = {"study_instance_uid": "9.9", "version": 1, "destination": "pacs", "group": "flags"}
    service.queue.submit(JobRequest(key="d", kind="deliver:pacs", payload=payload), now=NOW)


def held(service: Service) -> None:
    waiting_for_delivery(service)
    service.queue.hold("d", "a reason")


def given_up(service: Service) -> None:
    waiting_for_delivery(service)
    (job,) = service.queue.claim(["deliver:pacs"], NOW, 60).started
    service.queue.bury(job, "refused")


def in_conflict(service: Service) -> None:
    service.receive("9.9")
    service.report("9.9")
    service.archive.add(*service.store("9.9", 0, b"other"), "CT01", LONG_AGO)


def promised(service: Service) -> None:
    service.receive("9.9")
    service.report("9.9")
    with service.database.transaction() as connection:
        connection.execute(
            "insert into commitment_requests"
            " (id, caller, address, association, transaction_uid, digest, mode, asked_at)"
            " values (1, 'CT01', 'x', 'a', '1', 'd', 'own', 'now')"
        )
        connection.execute("insert into committed_instances values ('9.9.1.0', 1, 'now')")


def unforwarded(service: Service) -> None:
    service.receive("9.9")
    service.report("9.9")
    with service.database.transaction() as connection:
        connection.execute(
            "insert into forwards (destination, instance_id, study_instance_uid, state, changed_at)"
            " select 'pacs', id, '9.9', 'pending', 'now' from instances limit 1"
        )


@pytest.mark.parametrize(
    "make", [unreported, arriving, waiting_for_delivery, held, given_up, in_conflict, promised, unforwarded]
)
def test_what_is_on_its_way_promised_or_in_doubt_keeps_every_file(
    service: Service, make: Callable[[Service], None]
) -> None:
    make(service)
    before = service.files()
    assert [] == service.run(Retention(days=1, below_free_mb=10**9))
    assert before == service.files() == service.rows()


def test_what_was_forwarded_may_go(service: Service) -> None:
    unforwarded(service)
    with service.database.transaction() as connection:
        connection.execute("update forwards set state = 'sent'")
    assert ["9.9"] == service.run()


def test_many_studies_go_page_by_page_the_oldest_first(service: Service) -> None:
    for n in range(120):
        service.receive(f"1.{n}", 1, at=LONG_AGO + timedelta(minutes=n), state="kept")
    assert [f"1.{n}" for n in range(120)] == service.run()


def test_room_is_made_only_as_far_as_it_is_wanted(service: Service, tmp_path: Path) -> None:
    for n in range(5):
        service.receive(f"1.{n}", 1, at=LONG_AGO + timedelta(minutes=n), state="kept")
    size = next(iter(service.files())).stat().st_size
    scarce = Removal(service.database, tmp_path, free_bytes=lambda _: 2**20 - size - 1)
    gone = scarce.run(Retention(below_free_mb=1), now=NOW).removed
    assert ["1.0", "1.1"] == [each.study.study_instance_uid for each in gone]


def test_images_that_come_after_a_removal_are_a_new_arrival(service: Service) -> None:
    service.receive()
    service.report()
    service.run()
    assert Added.NEW is service.archive.add(*service.store("1.2.3", 0), "CT01", NOW)
    assert service.files() == service.rows() != set()
    assert (1, 1) == (service.archive.extent("1.2.3").images, service.archive.extent("1.2.3").removals)


def test_a_file_taken_between_its_receiver_and_the_index_is_asked_for_again(service: Service) -> None:
    service.receive()
    service.report()
    received = service.store("1.2.3", 0)
    service.run()
    with pytest.raises(FileNotFoundError):
        service.archive.add(*received, "CT01", NOW)
    assert set() == service.rows()


def test_a_file_that_a_row_names_again_before_it_was_unlinked_stays(service: Service) -> None:
    service.receive(images=1)
    with service.database.transaction() as connection:  # as a run leaves it that is killed before any file is unlinked
        of_study = {"study_instance_uid": "1.2.3"}
        sql = statements("pacs_bridge", "sql/retention.sql")
        connection.execute(sql["mark_files"], of_study)
        connection.execute(sql["remove_instances"], of_study)
    service.archive.add(*service.store("1.2.3", 0), "CT01", NOW)
    service.removal.finish()
    assert service.files() == service.rows() != set()
    assert [] == marks(service)


def marks(service: Service) -> list[str]:
    with service.database.read() as connection:
        return [row["path"] for row in connection.execute("select path from removed_files")]


REMOVE = """
import sys
from datetime import datetime, UTC
from pathlib import Path
from pacs_bridge.removal import Removal
from pacs_bridge.settings import Retention
from scheduler.database import Database
folder = Path(sys.argv[1])
removal = Removal(Database(folder / "ctriage.sqlite"), folder)
print("begins", flush=True)
removal.run(Retention(days=90), now=datetime(2026, 6, 1, tzinfo=UTC))
print("ended", flush=True)
"""


def test_killed_at_any_moment_a_removal_leaves_no_row_without_its_file_and_is_finished_later(
    service: Service, tmp_path: Path
) -> None:
    studies = 12
    for n in range(studies):
        service.receive(f"1.{n}", 40, at=LONG_AGO + timedelta(minutes=n), state="kept")
    root = Path(__file__).resolve().parents[2]
    half_done = 0
    for delay_ms in (0, 10, 40, 160):
        with subprocess.Popen(
            [sys.executable, "-c", REMOVE, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=root
        ) as process:
            assert process.stdout is not None
            assert "begins\n" == process.stdout.readline()
            threading.Event().wait(delay_ms / 1000)
            os.kill(process.pid, signal.SIGKILL)
        assert service.rows() <= service.files()
        unaccounted = service.files() - service.rows() - {tmp_path / "archive" / path for path in marks(service)}
        assert set() == unaccounted
        half_done += bool(marks(service)) or 0 < len(service.rows()) < 40 * studies
        if not service.rows():
            break
    assert half_done, "no kill came in the middle: the moments are to be chosen anew"
    service.run()
    assert (set(), set(), []) == (service.files(), service.rows(), marks(service))


def test_beside_the_service_rules_are_followed_until_it_stops(service: Service, wait_until: Any) -> None:
    service.receive(state="kept")
    keeper = Keeper(service.removal, RULES, every_s=0.01)
    keeper.start()
    wait_until(lambda: not service.rows() and not service.files())
    service.receive("1.2.4", state="kept")
    wait_until(lambda: not service.rows())
    keeper.stop()
    service.receive("1.2.5", state="kept")
    assert 3 == len(service.rows())


def test_what_ends_the_thread_of_the_rules_is_raised_where_the_service_waits(service: Service) -> None:
    service.receive(state="kept")
    with service.database.transaction() as connection:
        connection.execute("drop table removed_files")
    keeper = Keeper(service.removal, RULES)
    with pytest.raises(sqlite3.OperationalError, match="removed_files"):
        keeper.start().result(timeout=10)
    keeper.stop()


def test_a_disk_that_refuses_for_a_while_does_not_end_the_thread_of_the_rules(
    service: Service, wait_until: Any
) -> None:
    looks = []

    def refusing_once(_: Path) -> int:
        looks.append(1)
        if len(looks) == 1:
            raise OSError(errno.EIO, "an I/O error")
        return 10**12

    service.receive(state="kept")
    removal = Removal(service.database, service.state_dir, free_bytes=refusing_once)
    keeper = Keeper(removal, RULES, every_s=0.01)
    ended = keeper.start()
    wait_until(lambda: not service.rows())
    keeper.stop()
    assert ended.result(timeout=10) is None
    assert len(looks) > 1


def test_receiving_and_removing_side_by_side_leave_no_row_without_its_file(service: Service) -> None:
    """The same images are sent again and again while rules take them: each Success keeps its file."""
    ended = threading.Event()
    rules, ages_ago = Retention(days=1), NOW - timedelta(days=400)

    def keep_removing() -> None:
        while not ended.is_set():
            service.removal.run(rules, now=NOW)

    remover = threading.Thread(target=keep_removing)
    remover.start()
    refused = 0
    for _ in range(150):
        try:
            service.archive.add(*service.store("1.2.3", 0), "CT01", ages_ago)
        except FileNotFoundError:
            refused += 1
        with service.database.transaction():
            assert service.rows() <= service.files()
    ended.set()
    remover.join()
    assert refused < 150
