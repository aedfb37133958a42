"""Does the composition root put the rooms together as the settings say, and refuse clearly what cannot be?"""

import errno
import fcntl
import logging
import os
import socket
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner

from pacs_bridge.app import (
    PRELOAD,
    _hold_lost_destinations,
    _Patient,
    _Submitter,
    _sweep,
    desk_of,
    emptied,
    provenance_of,
    scratch_of,
    serve,
)
from pacs_bridge.archive import Extent
from pacs_bridge.arrival import Evidence, SeriesComplete, SeriesReopened, StudyQuiet
from pacs_bridge.cli import app
from pacs_bridge.desk import Desk
from pacs_bridge.errors import AlreadyServing
from pacs_bridge.files import keep_by_content
from pacs_bridge.handlers import memory_mb_of
from pacs_bridge.instance import read_facts
from pacs_bridge.ledger import KeptObject
from pacs_bridge.settings import Detectors, Listener, PriorityRule, Settings, SettingsError
from pacs_bridge.warm import step_back
from pipeline.model import Priority, Provenance, Report, StudyStatus
from scheduler.database import Database
from scheduler.executors import processes
from scheduler.job import ROUTINE, STAT, URGENT, Job, JobRequest, Status

EXPLICIT = "1.2.840.10008.1.2.1"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
STUDY = "1.2.3"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path)


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(settings.database)
    yield database
    database.close()


@pytest.fixture
def desk(settings: Settings, database: Database) -> Desk:
    return replace(desk_of(settings, database), now=lambda: NOW)


@contextmanager
def another_service(state_dir: Path) -> Iterator[None]:
    """Hold the folder's lock as a running service does."""
    with (state_dir / "service.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[CliRunner]:
    """Return a runner of commands in this process, in an empty folder, and put logging back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.chdir(tmp_path)
    yield CliRunner()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


# ---- refusing to serve ----------------------------------------------------------------------------------------------


def never() -> None:
    pytest.fail("it said that it was ready")


def test_a_second_service_on_the_same_folder_is_refused(settings: Settings) -> None:
    with another_service(settings.state_dir), pytest.raises(AlreadyServing, match="set state_dir to another folder"):
        serve(settings, on_ready=never, stop=threading.Event())


def test_the_refusal_is_a_message_and_status_2(run: CliRunner, tmp_path: Path) -> None:
    with another_service(tmp_path):
        result = run.invoke(app, ["serve", "--set", f"state_dir={tmp_path}"])
    assert (2, "") == (result.exit_code, result.stdout)
    assert f"another ctriage serves from {tmp_path}" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", [["serve"], ["process", ".", "--out", "out"]], ids=["serve", "process"])
def test_a_detector_that_is_not_installed_is_a_message_and_status_2(run: CliRunner, command: list[str]) -> None:
    result = run.invoke(app, [*command, "--set", 'detectors.enabled=["hemorhage"]'])
    assert (2, "") == (result.exit_code, result.stdout)
    assert "detectors.enabled: no detector is called 'hemorhage'; installed are: hemorrhage" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_state_folder_that_cannot_be_made_is_a_message_and_status_2(run: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run.invoke(app, ["serve", "--set", f"state_dir={tmp_path / 'file' / 'state'}"])
    assert (2, True) == (result.exit_code, "cannot serve" in result.stderr)


def test_a_port_that_is_taken_is_an_os_error_and_the_folder_is_free_again(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = settings.model_copy(update={"listener": Listener(port=other.getsockname()[1])})
        with pytest.raises(OSError, match="in use"):
            serve(taken, on_ready=never, stop=threading.Event())
    with another_service(settings.state_dir):
        pass


def test_the_state_folder_is_for_the_services_user_alone(settings: Settings) -> None:
    settings.state_dir.chmod(0o755)
    before = os.umask(0o022)
    try:
        with socket.create_server(("127.0.0.1", 0)) as other:
            taken = settings.model_copy(update={"listener": Listener(port=other.getsockname()[1])})
            with pytest.raises(OSError, match="in use"):
                serve(taken, on_ready=never, stop=threading.Event())
        assert 0o700 == settings.state_dir.stat().st_mode & 0o777
        assert 0o600 == settings.database.stat().st_mode & 0o777
        assert 0o022 == os.umask(0o022)
    finally:
        os.umask(before)


# ---- provenance -----------------------------------------------------------------------------------------------------


def test_what_a_killed_service_left_in_its_scratch_is_gone_at_the_next_start_and_workers_write_there(
    settings: Settings,
) -> None:
    scratch = scratch_of(settings)
    left = scratch / "ctriage-render-abc" / "hu.npy"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"voxels")
    with emptied(scratch), processes(1, partial(step_back, scratch=str(scratch)), preload=PRELOAD) as pool:
        assert ([], 0o700) == (list(scratch.iterdir()), scratch.stat().st_mode & 0o777)
        assert str(scratch) == pool.submit(tempfile.gettempdir).result()
    assert not scratch.exists()


def test_provenance_names_code_detectors_and_settings() -> None:
    provenance = provenance_of(Settings())
    assert {"hemorrhage", "skull_fracture"} == set(provenance.detector_versions)
    assert all(provenance.detector_versions.values())
    assert (Settings().content_hash(), True) == (provenance.settings_hash, bool(provenance.code_version))


def test_provenance_of_a_detector_that_is_not_installed_is_a_mistake_in_the_settings() -> None:
    with pytest.raises(SettingsError, match="'nobody'"):
        provenance_of(Settings(detectors=Detectors(enabled=("nobody",))))


def test_only_settings_that_change_results_change_provenance(tmp_path: Path) -> None:
    here, there = provenance_of(Settings(state_dir=tmp_path)), provenance_of(Settings(listener=Listener(port=104)))
    assert here == there
    assert here != provenance_of(Settings(language="es"))


# ---- jobs -----------------------------------------------------------------------------------------------------------


def receive(desk: Desk, dataset: Any, encode: Any, caller: str = "CT01") -> None:
    content = encode(dataset)
    facts = read_facts(content, EXPLICIT)
    desk.archive.add(facts, desk.archive.store(facts, content, EXPLICIT, caller), caller, NOW)


def complete(digest: str = "d") -> SeriesComplete:
    return SeriesComplete(study=STUDY, series="1.2.3.4", evidence=Evidence.CONTIGUOUS, instances=1, digest=digest)


def submitted(desk: Desk, *instructions: Any) -> list[Job]:
    submitter = _Submitter(desk)
    for each in instructions:
        submitter(each)
    return sorted(desk.queue.jobs(), key=lambda job: job.key)


def test_a_complete_series_and_a_quiet_study_each_become_one_triage(desk: Desk, make_slice: Any, encode: Any) -> None:
    receive(desk, make_slice(1), encode)
    quiet = StudyQuiet(study=STUDY, evidence=Evidence.QUIET_PERIOD)
    jobs = submitted(desk, complete(), complete(), SeriesReopened(study=STUDY, series="1.2.3.4"), quiet, quiet)
    assert [("triage", True), ("triage", False)] == [(job.kind, job.payload["final"]) for job in jobs]
    assert {desk.archive.study_key(STUDY)} == {job.group for job in jobs}
    assert all(STUDY not in job.key for job in jobs)  # a study is its key where people read it
    assert 3 == len(submitted(desk, complete("e")))


def test_a_job_wakes_the_worker_once(desk: Desk, make_slice: Any, encode: Any) -> None:
    receive(desk, make_slice(1), encode)
    woken: list[None] = []
    submitter = _Submitter(desk, wake=lambda: woken.append(None))
    submitter(complete())
    submitter(complete())
    assert 1 == len(woken)


RULES = (
    PriorityRule(priority=Priority.STAT, caller="ER1"),
    PriorityRule(priority=Priority.URGENT, body_part="head"),
    PriorityRule(priority=Priority.STAT, description="ictus"),
)


@pytest.mark.parametrize(
    ("caller", "tags", "expected"),
    [
        ("ER1", {}, STAT),
        ("CT01", {}, ROUTINE),
        ("CT01", {"BodyPartExamined": "HEAD"}, URGENT),
        ("CT01", {"StudyDescription": "Código Ictus", "SpecificCharacterSet": "ISO_IR 100"}, STAT),
        ("CT01", {"SeriesDescription": "ICTUS 1 mm"}, STAT),
    ],
)
def test_rules_of_the_settings_give_the_queue_priority(
    tmp_path: Path, make_slice: Any, encode: Any, caller: str, tags: dict[str, str], expected: int
) -> None:
    settings = Settings(state_dir=tmp_path, priority_rule=RULES)
    database = Database(settings.database)
    try:
        desk = desk_of(settings, database)
        receive(desk, make_slice(1, **tags), encode, caller)
        (job,) = submitted(desk, complete())
        assert (expected, caller) == (job.priority, job.caller)
    finally:
        database.close()


def test_memory_grows_with_the_images_and_a_small_study_needs_the_interpreter() -> None:
    small, large = (memory_mb_of(Extent(images=n, calling_ae="", body_part="")) for n in (1, 320))
    assert (302, 300 + 4 * 160) == (small, large)


# ---- objects nobody needs -------------------------------------------------------------------------------------------


def test_a_start_removes_objects_that_no_version_names_and_those_alone(desk: Desk) -> None:
    needed, digest = keep_by_content(desk.objects_dir, b"committed")
    orphan, _ = keep_by_content(desk.objects_dir, b"written before the end that never came")
    (desk.objects_dir / needed).with_name("0123.part").write_bytes(b"half")
    sr = KeptObject(
        kind="sr",
        index=1,
        sop_instance_uid="1",
        sop_class_uid="2",
        series_instance_uid="3",
        path=needed,
        sha256=digest,
    )
    report = Report(
        study_instance_uid=STUDY,
        study_digest="d",
        status=StudyStatus.ANALYSED,
        priority=None,
        examined=(),
        findings=(),
        provenance=Provenance(code_version="1", detector_versions={}, settings_hash=""),
        committed_at=NOW,
    )
    desk.ledger.commit(report, provenance_key="k", timings_s={}, objects=(sr,))
    _sweep(desk)
    assert [desk.objects_dir / needed] == [path for path in desk.objects_dir.rglob("*") if path.is_file()]
    assert orphan != needed


def test_a_first_start_has_nothing_to_sweep(desk: Desk) -> None:
    _sweep(desk)
    assert [] == list(desk.objects_dir.iterdir())


def test_what_waits_for_a_destination_that_is_gone_is_held_until_the_settings_name_it_again(desk: Desk) -> None:
    gone = [JobRequest(key=f"deliver:old:{n}", kind="deliver:old") for n in range(1001)]
    stays = JobRequest(key="deliver:results:x", kind="deliver:results")
    other = JobRequest(key="deliver:old:y", kind="deliver:old")
    with desk.queue._database.transaction():
        for request in (*gone, stays, other):
            desk.queue.submit(request, now=desk.now())
    desk.queue.hold(other.key, "two patients")
    _hold_lost_destinations(desk)
    assert {Status.HELD} == {desk.queue.job(each.key).status for each in gone}
    assert "destination old is not in the settings" == desk.queue.job(gone[0].key).reason
    assert Status.READY is desk.queue.job(stays.key).status
    named = desk.destinations["results"]
    _hold_lost_destinations(replace(desk, destinations={"old": named, "results": named}))
    assert {Status.READY} == {desk.queue.job(each.key).status for each in gone}
    assert (Status.HELD, "two patients") == (desk.queue.job(other.key).status, desk.queue.job(other.key).reason)


# ---- a full disk ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [sqlite3.OperationalError("database or disk is full"), OSError(errno.ENOSPC, "No space left on device")]
)
def test_a_tick_outlasts_a_full_disk_and_says_so_once(error: Exception) -> None:
    calls: list[Exception | None] = []
    answers: Iterator[Exception | None] = iter([error, error, None])

    def tick() -> None:
        calls.append(next(answers, None))
        if calls[-1] is not None:
            raise calls[-1]

    patient = _Patient(tick)
    with structlog.testing.capture_logs() as said:
        for _ in range(9):  # 1, then 2 left out, 1, then 4 left out, 1
            patient()
    assert [error, error, None] == calls
    assert ["arrivals cannot be noted: waiting", "arrivals are noted again"] == [each["event"] for each in said]


def test_a_tick_that_fails_otherwise_ends_the_service() -> None:
    def tick() -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        _Patient(tick)()
