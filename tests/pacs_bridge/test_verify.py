"""Is every damage to the archive found, and nothing else told?"""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from pacs_bridge.archive import Archive
from pacs_bridge.archive_files import hash_of
from pacs_bridge.cli import app
from pacs_bridge.errors import UnknownStudy
from pacs_bridge.files import keep_by_content
from pacs_bridge.instance import InstanceFacts
from pacs_bridge.ledger import KeptObject, Ledger
from pacs_bridge.removal import Removal
from pacs_bridge.settings import Retention
from pacs_bridge.status import NoState
from pacs_bridge.throttle import Throttle
from pacs_bridge.verify import Scope, Verdict, verify
from pipeline.model import Provenance, Report, StudyStatus
from scheduler.database import Database
from scheduler.sqlite_queue import SqliteQueue

NOW = datetime(2026, 6, 1, tzinfo=UTC)
EXPLICIT = "1.2.840.10008.1.2.1"
LONG_AGO_S = 1_000_000_000.0


class Kept:
    """An archive of a few images and a result."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.database = Database(state_dir / "ctriage.sqlite")
        self.archive = Archive(state_dir, self.database, free_space_floor_bytes=0)
        self.ledger = Ledger(self.database)
        SqliteQueue(self.database)

    def receive(self, study: str, instance: int, at: datetime = NOW) -> Path:
        facts = InstanceFacts(
            study_instance_uid=study,
            series_instance_uid=f"{study}.1",
            sop_instance_uid=f"{study}.1.{instance}",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        )
        stored = self.archive.store(facts, f"{study} {instance}".encode() * 50, EXPLICIT, "CT01")
        self.archive.add(facts, stored, "CT01", at)
        return self.state_dir / "archive" / stored.path

    def conclude(self, study: str) -> Path:
        report = Report(
            study_instance_uid=study,
            study_digest="d",
            status=StudyStatus.ANALYSED,
            priority=None,
            examined=(),
            findings=(),
            provenance=Provenance(code_version="1", detector_versions={}, settings_hash=""),
            version=1,
            committed_at=NOW,
        )
        path, sha256 = keep_by_content(self.state_dir / "objects", b"a result")
        result = KeptObject(
            kind="sr",
            index=0,
            sop_instance_uid="9",
            sop_class_uid="9",
            series_instance_uid="9",
            path=path,
            sha256=sha256,
        )
        self.ledger.commit(report, provenance_key="k", timings_s={}, objects=[result])
        return self.state_dir / "objects" / path

    def look(self, scope: Scope | None = None) -> Verdict:
        return verify(self.state_dir / "ctriage.sqlite", self.state_dir, scope or Scope())

    def problems(self) -> list[tuple[str, str]]:
        return [(each.kind, each.path) for each in self.look().problems]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    tmp_path.joinpath("objects").mkdir()
    kept = Kept(tmp_path)
    yield kept
    kept.database.close()


def test_an_archive_as_it_was_kept_has_no_problems(kept: Kept) -> None:
    files = [kept.receive("1.2", n) for n in range(3)] + [kept.conclude("1.2")]
    verdict = kept.look()
    assert (True, 4, ()) == (verdict.intact, verdict.files, verdict.problems)
    assert 3 * 250 + 8 == verdict.size_bytes
    assert all(path.exists() for path in files)


def test_what_was_kept_before_blake3_is_hashed_as_it_was_then(kept: Kept) -> None:
    path = kept.receive("1.2", 1)
    with kept.database.transaction() as connection:
        connection.execute("update instances set content_hash = ?", (hash_of(path, "sha256"),))
    assert kept.look().intact
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert not kept.look().intact


def lost(path: Path) -> str:
    path.unlink()
    return "missing"


def cut(path: Path) -> str:
    path.write_bytes(path.read_bytes()[:-1])
    return "damaged"


def grown(path: Path) -> str:
    path.write_bytes(path.read_bytes() + b"x")
    return "damaged"


def emptied(path: Path) -> str:
    path.write_bytes(b"")
    return "damaged"


@pytest.mark.parametrize("harm", [lost, cut, grown, emptied])
def test_harm_to_an_image_is_told_with_its_study_and_nothing_else_is(kept: Kept, harm: Callable[[Path], str]) -> None:
    path, _ = kept.receive("1.2", 1), kept.receive("1.2", 2)
    kind = harm(path)
    (problem,) = kept.look().problems
    relative = str(path.relative_to(kept.state_dir))
    assert (kind, relative, kept.archive.study_key("1.2")) == (problem.kind, relative, problem.study_key)


@pytest.mark.parametrize("harm", [lost, cut, emptied])
def test_harm_to_a_result_is_told(kept: Kept, harm: Callable[[Path], str]) -> None:
    kept.receive("1.2", 1)
    path = kept.conclude("1.2")
    assert [(harm(path), str(path.relative_to(kept.state_dir)))] == kept.problems()


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
def test_any_changed_byte_of_a_data_set_is_told_and_any_other_is_survived(kept: Kept, at: float, change: int) -> None:
    path = kept.receive("1.2", 1)
    whole = path.read_bytes()
    place = 128 + int(at * (len(whole) - 128))
    path.write_bytes(whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :])
    intact = kept.look().intact
    path.write_bytes(whole)
    # Who wrote the file, and what stands for nothing (versions, lengths), is not the instance's.
    assert not intact or place < len(whole) - 250


def test_a_file_that_nobody_names_is_told_and_does_no_harm(kept: Kept) -> None:
    path = kept.receive("1.2", 1)
    orphan = path.with_name("0" * 64 + ".dcm")
    orphan.write_bytes(path.read_bytes())
    assert [] == kept.problems()  # its row may be on its way
    os.utime(orphan, (LONG_AGO_S, LONG_AGO_S))
    assert [("orphaned", str(orphan.relative_to(kept.state_dir)))] == kept.problems()
    assert kept.look().intact


def test_what_retention_is_taking_is_no_orphan_and_no_loss(kept: Kept) -> None:
    path = kept.receive("1.2", 1, at=NOW - timedelta(days=9))
    os.utime(path, (LONG_AGO_S, LONG_AGO_S))
    with kept.database.transaction() as connection:
        connection.execute("insert into removed_files select path, sop_instance_uid from instances")
        connection.execute("delete from instances")
    assert [] == kept.problems()
    Removal(kept.database, kept.state_dir).run(Retention(), now=NOW)
    assert ([], False) == (kept.problems(), path.exists())


def test_only_one_study_or_only_what_came_since_is_looked_at(kept: Kept) -> None:
    kept.receive("1.2", 1, at=NOW - timedelta(days=9)).unlink()
    kept.receive("1.3", 1)
    key = kept.archive.study_key
    assert kept.look(Scope(study_key=key("1.3"))).intact
    assert not kept.look(Scope(study_key=key("1.2"))).intact
    assert kept.look(Scope(since=NOW - timedelta(days=1))).intact
    assert not kept.look(Scope(since=NOW - timedelta(days=10))).intact
    with pytest.raises(UnknownStudy):
        kept.look(Scope(study_key="nobody"))


def test_reading_keeps_the_pace_it_is_told(kept: Kept) -> None:
    waited: list[float] = []
    pace = Throttle(100, clock=lambda: 0.0, wait=waited.append)
    for n in range(4):
        kept.receive("1.2", n)
    verify(kept.state_dir / "ctriage.sqlite", kept.state_dir, Scope(), pace=pace.take)
    assert sum(waited) > 0


def test_nothing_is_changed(kept: Kept) -> None:
    kept.receive("1.2", 1)
    before = sorted((path, path.stat().st_mtime_ns) for path in (kept.state_dir / "archive").rglob("*"))
    kept.look()
    assert before == sorted((path, path.stat().st_mtime_ns) for path in (kept.state_dir / "archive").rglob("*"))


def test_without_a_database_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(NoState):
        verify(tmp_path / "ctriage.sqlite", tmp_path, Scope())


def test_the_command_ends_with_1_where_something_is_lost(kept: Kept) -> None:
    path = kept.receive("1.2", 1)
    where = ["--set", f"state_dir={kept.state_dir}"]
    good = CliRunner().invoke(app, ["verify", *where])
    assert (0, True) == (good.exit_code, "Nothing is missing or damaged" in good.stdout)
    path.unlink()
    bad = CliRunner().invoke(app, ["verify", "--json", *where])
    assert (1, True) == (bad.exit_code, '"missing": 1' in bad.stdout)
    said = CliRunner().invoke(app, ["verify", "--pace", "0", *where])
    assert (1, True, False) == (said.exit_code, "NOT everything" in said.stdout, "1.2.1" in said.stdout)
