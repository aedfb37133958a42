"""Does the ledger keep what was concluded, whole and in order, and nothing of what was rolled back?"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pacs_bridge.ledger import KeptObject, Ledger
from pipeline.model import ObjectKind, Priority, Provenance, Report, StudyStatus
from scheduler.database import Database

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
STUDY = "1.2.3"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "ctriage.sqlite")
    yield database
    database.close()


@pytest.fixture
def ledger(database: Database) -> Ledger:
    return Ledger(database)


def report(version: int = 1, **changes: Any) -> Report:
    values: dict[str, Any] = {
        "study_instance_uid": STUDY,
        "study_digest": f"digest {version}",
        "status": StudyStatus.ANALYSED,
        "priority": Priority.URGENT,
        "examined": (),
        "findings": (),
        "provenance": Provenance(code_version="1", detector_versions={"d": "1"}, settings_hash=""),
        "version": version,
        "notes": ("Muñoz",),
        "committed_at": NOW,
    }
    return Report(**(values | changes))


def kept(kind: ObjectKind, index: int = 1, series: int = 1) -> KeptObject:
    name = f"{kind}.{series}.{index}"
    return KeptObject(
        kind=kind,
        index=index,
        sop_instance_uid=name,
        sop_class_uid="1.2",
        series_instance_uid=f"{kind}.{series}",
        path=f"ab/{name}.dcm",
        sha256="ab",
    )


def commit(ledger: Ledger, version: int = 1, *objects: KeptObject, **changes: Any) -> None:
    ledger.commit(report(version, **changes), provenance_key="k", timings_s={"write": 1.0}, objects=objects)


def test_what_was_committed_is_read_back(ledger: Ledger) -> None:
    commit(ledger)
    latest = ledger.latest(STUDY)
    assert latest is not None
    assert ("digest 1", "k", NOW, {"write": 1.0}, ()) == (
        latest.digest,
        latest.provenance_key,
        latest.committed_at,
        latest.timings_s,
        latest.remarks,
    )
    assert ("Muñoz",) == latest.report().notes
    assert (StudyStatus.ANALYSED, Priority.URGENT) == (latest.status, latest.priority)


def test_the_latest_version_is_current_and_the_others_stay(ledger: Ledger) -> None:
    commit(ledger, 1)
    commit(ledger, 2, priority=None)
    latest, first = ledger.latest(STUDY), ledger.version(STUDY, 1)
    assert latest is not None
    assert first is not None
    assert ((2, None), (1, Priority.URGENT)) == ((latest.version, latest.priority), (first.version, first.priority))
    commit(ledger, 1, study_instance_uid="9.9")
    assert {(STUDY, 2), ("9.9", 1)} == {(each.study_instance_uid, each.version) for each in ledger.reports()}


def test_a_study_nobody_concluded_on_has_no_version(ledger: Ledger) -> None:
    assert (None, None, []) == (ledger.latest(STUDY), ledger.version(STUDY, 1), ledger.objects(STUDY, 1))


def test_a_version_is_committed_once(database: Database, ledger: Ledger) -> None:
    commit(ledger, 1)
    with pytest.raises(Exception, match="UNIQUE"):
        commit(ledger, 1)


def test_a_report_without_its_instant_is_refused(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="committed at an instant"):
        commit(ledger, 1, committed_at=None)
    assert ledger.latest(STUDY) is None


def test_flags_stand_before_pictures_and_series_of_one_kind_as_they_were_built(ledger: Ledger) -> None:
    # Built in the order of the planes: the sagittal series' UID may well sort before the coronal one's.
    planes = [kept("mpr", index, series) for series in (2, 1) for index in (1, 2)]
    commit(ledger, 1, kept("summary"), *planes, kept("key_objects"), kept("seg"), kept("sr"))
    assert ["sr", "seg", "key_objects", "mpr", "mpr", "mpr", "mpr", "summary"] == [
        each.kind for each in ledger.objects(STUDY, 1)
    ]
    assert ["mpr.2", "mpr.1"] == list(
        dict.fromkeys(o.series_instance_uid for o in ledger.objects(STUDY, 1) if o.kind == "mpr")
    )


def test_pictures_and_remarks_join_a_version_later_and_its_report_stays(ledger: Ledger) -> None:
    commit(ledger, 1, kept("sr"))
    ledger.add_objects(STUDY, 1, [kept("summary")])
    ledger.add_remarks(STUDY, 1, notes=["no 3D rendering"], timings_s={"derive": 2.0, "write": 0.5})
    latest = ledger.latest(STUDY)
    assert latest is not None
    assert (("no 3D rendering",), {"write": 1.5, "derive": 2.0}) == (latest.remarks, latest.timings_s)
    assert ("Muñoz",) == latest.report().notes
    assert ["sr", "summary"] == [each.kind for each in ledger.objects(STUDY, 1)]


def test_objects_of_a_version_that_is_not_there_are_refused(ledger: Ledger) -> None:
    with pytest.raises(Exception, match="FOREIGN KEY"):
        ledger.add_objects(STUDY, 1, [kept("sr")])


@pytest.mark.parametrize("other", [{"digest": "e"}, {"provenance_key": "l"}])
def test_a_kept_result_counts_for_exactly_these_instances_and_this_code(ledger: Ledger, other: dict[str, str]) -> None:
    key = {"digest": "d", "provenance_key": "k"}
    ledger.keep_series_result(STUDY, "1", **key, result="text")
    assert "text" == ledger.series_result(STUDY, "1", **key)
    assert ledger.series_result(STUDY, "2", **key) is None
    assert ledger.series_result(STUDY, "1", **(key | other)) is None


def test_keeping_a_result_again_replaces_it(ledger: Ledger) -> None:
    for text in ("old", "new"):
        ledger.keep_series_result(STUDY, "1", digest="d", provenance_key="k", result=text)
    assert "new" == ledger.series_result(STUDY, "1", digest="d", provenance_key="k")


def test_results_of_ours_are_known_by_their_names(ledger: Ledger) -> None:
    commit(ledger, 1, kept("sr"))
    assert (True, False) == (ledger.is_result("sr.1.1"), ledger.is_result("1.2.3.4"))
    assert {"ab/sr.1.1.dcm"} == ledger.object_paths()


def test_what_an_outer_transaction_undoes_never_was(database: Database, ledger: Ledger) -> None:
    commit(ledger, 1, kept("sr"))
    with pytest.raises(ZeroDivisionError):
        write_and_fail(database, ledger)
    latest = ledger.latest(STUDY)
    assert latest is not None
    assert (1, ()) == (latest.version, latest.remarks)
    assert (False, {"ab/sr.1.1.dcm"}) == (ledger.is_result("seg.1.1"), ledger.object_paths())
    assert ledger.series_result(STUDY, "1", digest="d", provenance_key="k") is None


def write_and_fail(database: Database, ledger: Ledger) -> None:
    with database.transaction():
        ledger.keep_series_result(STUDY, "1", digest="d", provenance_key="k", result="text")
        commit(ledger, 2, kept("seg"))
        ledger.add_remarks(STUDY, 1, notes=["late"], timings_s={})
        assert ledger.is_result("seg.1.1")
        raise ZeroDivisionError


def test_a_commit_that_fails_half_way_leaves_what_the_outer_transaction_wrote_before(
    database: Database, ledger: Ledger
) -> None:
    with database.transaction():
        ledger.keep_series_result(STUDY, "1", digest="d", provenance_key="k", result="text")
        with pytest.raises(Exception, match="UNIQUE"), database.transaction():
            commit(ledger, 1, kept("sr"), kept("sr"))
    assert ledger.latest(STUDY) is None
    assert "text" == ledger.series_result(STUDY, "1", digest="d", provenance_key="k")
