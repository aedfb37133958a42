"""Does every kind of job conclude on exactly what is there, publish it once, and leave nothing when it fails?"""

from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pydicom
import pytest

from pacs_bridge.deliveries import DELIVER, DeliverHandler
from pacs_bridge.desk import Desk
from pacs_bridge.handlers import DERIVE, TRIAGE, DeriveHandler, TriageHandler
from pacs_bridge.ledger import CommittedReport
from pacs_bridge.tasks import TriageTask, triage
from pipeline.model import Priority, StudyStatus
from pipeline.select import digest_of
from scheduler.admission import Machine
from scheduler.errors import Permanent
from scheduler.executors import inline
from scheduler.job import Job, Status
from scheduler.worker import Lane, Nothing, Task, Worker
from tests.pacs_bridge.house import PACS, STUDY, House, MakeHouse, house_slice


def prepared(house: House, *, final: bool = False) -> Task[Any]:
    """Return the task of a triage; fails where there is nothing to do."""
    task = TriageHandler(desk=house.desk).prepare(house.job(TRIAGE, final=final))
    assert isinstance(task, Task), task
    return task


def nothing(house: House, *, final: bool = False) -> str:
    """Return why a triage has nothing to do; fails where it has."""
    task = TriageHandler(desk=house.desk).prepare(house.job(TRIAGE, final=final))
    assert isinstance(task, Nothing), task
    return task.reason


def committed(house: House, number: int) -> CommittedReport:
    version = house.desk.ledger.version(STUDY, number)
    assert version is not None
    return version


# ---- triage ---------------------------------------------------------------------------------------------------------


def test_a_first_triage_commits_version_1_its_objects_a_delivery_for_each_destination_and_one_derive_job(
    house: House,
) -> None:
    house.receive(1, hot=True)
    house.complete(1)
    version = house.triage()
    assert version is not None
    assert (1, Priority.STAT, StudyStatus.ANALYSED) == (version.version, version.priority, version.status)
    assert ["sr", "seg", "key_objects"] == [each.kind for each in house.kept(1)]
    assert {"deliver:pacs", "deliver:results"} == {job.kind for job in house.jobs(DELIVER)}
    assert [1] == [job.payload["version"] for job in house.jobs(DERIVE)]
    stored = {str(path.relative_to(house.desk.objects_dir)) for path in house.desk.objects_dir.rglob("*.dcm")}
    assert stored == {each.path for each in house.kept(1)}


def test_a_failure_inside_the_commit_leaves_nothing_and_the_job_to_be_tried_again(house: House) -> None:
    house.receive(1, hot=True)
    house.complete(1)
    key = house.submit_triage()
    outcome = prepared(house).function(*prepared(house).args)
    stolen = replace(outcome.objects[0], index=99)  # the SR's name twice: the last insert of the commit is refused
    handler = _Committing(house.desk, replace(outcome, objects=(*outcome.objects, stolen)))
    lane = Lane(name="all", executor=inline(), machine=Machine(memory_mb=1, slots=1), handlers={TRIAGE: handler})
    random = Random(0)
    worker = Worker(database=house.database, queue=house.desk.queue, lanes=(lane,), now=house.clock, random=random)
    while worker.step():
        pass
    job = house.desk.queue.job(key)
    assert (Status.READY, 1, True) == (job.status, job.attempt, "IntegrityError" in (job.reason or ""))
    assert house.desk.ledger.latest(STUDY) is None
    assert ([], [], []) == (house.kept(1), house.jobs(DELIVER), house.jobs(DERIVE))
    digest = digest_of(f"{STUDY}.1.{n}" for n in range(1, 5))
    keys = {"digest": digest, "provenance_key": house.desk.provenance_key}
    assert house.desk.ledger.series_result(STUDY, f"{STUDY}.1", **keys) is None


class _Committing:
    """A triage handler whose tasks end with an outcome made beforehand."""

    def __init__(self, desk: Desk, outcome: Any) -> None:
        self._handler, self._outcome = TriageHandler(desk=desk), outcome

    def prepare(self, job: Job) -> Task[Any] | Nothing:
        return Task(lambda: self._outcome)

    def commit(self, job: Job, result: Any, connection: Any) -> None:
        self._handler.commit(job, result, connection)

    def failed(self, job: Job, reason: str, connection: Any) -> None:
        self._handler.failed(job, reason, connection)


def test_a_state_that_was_concluded_on_is_not_concluded_on_again(house: House) -> None:
    house.receive(1)
    house.complete(1)
    house.triage()
    assert "version 1 already says" in nothing(house)
    assert "version 1 already says" in nothing(house, final=True)


def test_while_no_series_is_complete_there_is_nothing_to_do(house: House) -> None:
    house.receive(1)
    assert "no series is complete" in nothing(house)


def test_a_second_series_costs_only_itself_and_is_no_version_while_it_changes_nothing(house: House) -> None:
    house.receive(1, hot=True)
    house.complete(1)
    house.triage()
    house.receive(2)
    house.complete(2)
    (task,) = prepared(house).args
    assert isinstance(task, TriageTask)
    kept = {each.series_instance_uid: each.kept_result for each in task.series}
    assert {f"{STUDY}.1": True, f"{STUDY}.2": False} == {uid: bool(text) for uid, text in kept.items()}
    outcome = triage(task)
    assert [f"{STUDY}.2"] == [series for series, _, _ in outcome.series_results]
    version = house.triage()
    assert version is not None
    assert 1 == version.version


def test_what_was_no_news_goes_out_at_the_end_of_the_quiet_period(house: House) -> None:
    house.receive(1, hot=True)
    house.complete(1)
    house.triage()
    house.receive(2)
    house.complete(2)
    house.triage()
    version = house.triage(final=True)
    assert version is not None
    report = version.report()
    assert (2, ("series 2, stack 1 added, analysed",)) == (version.version, report.changes)
    assert report.supersedes_digest == committed(house, 1).digest
    assert 8 == sum(len(row.instances) for row in report.examined)


def test_a_second_series_with_a_finding_is_a_new_version_at_once_and_names_its_predecessor(house: House) -> None:
    house.receive(1)
    house.complete(1)
    house.triage()
    house.receive(2, hot=True)
    house.complete(2)
    version = house.triage()
    assert version is not None
    assert (2, Priority.STAT) == (version.version, version.priority)
    first, second = house.kept(1)[0], house.kept(2)[0]
    document = pydicom.dcmread(house.desk.objects_dir / second.path)
    (series,) = document.PredecessorDocumentsSequence[0].ReferencedSeriesSequence
    assert first.sop_instance_uid == series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    assert set() == {o.sop_instance_uid for o in house.kept(1)} & {o.sop_instance_uid for o in house.kept(2)}


def test_a_series_still_arriving_is_left_out_and_named(house: House) -> None:
    house.receive(1)
    house.complete(1)
    house.receive(2, 2)
    version = house.triage()
    assert version is not None
    report = version.report()
    assert [f"{STUDY}.1"] == [row.series_instance_uid for row in report.examined]
    assert any("series 2 were still arriving" in note for note in report.notes)


def test_a_series_that_began_after_the_quiet_period_is_not_taken_for_whole(house: House) -> None:
    house.receive(1)
    house.complete(1)
    house.submit_triage(final=True)
    house.receive(2, 3)  # while the job waited in the queue
    house.run(TRIAGE)
    assert [f"{STUDY}.1"] == [row.series_instance_uid for row in committed(house, 1).report().examined]


def test_a_late_slice_does_not_take_its_series_findings_out_of_the_report(house: House) -> None:
    house.receive(1, hot=True)
    house.complete(1)
    house.triage()
    house.receive(1, 1, first=5)  # series 1 is open again
    house.receive(2)
    house.complete(2)
    version = house.triage(final=True)
    assert version is not None
    report = version.report()
    assert (2, Priority.STAT, 1) == (version.version, version.priority, len(report.findings))
    assert [4, 4] == [len(row.instances) for row in report.examined]
    assert any("series 1 were still arriving" in note for note in report.notes)


def test_a_late_slice_makes_a_version_when_its_series_is_complete_again(house: House) -> None:
    house.receive(1, hot=True)
    house.complete(1)
    house.triage()
    house.receive(1, 1, first=5)
    assert "version 1 already says" in nothing(house)
    house.complete(1)
    version = house.triage(final=True)
    assert version is not None
    assert "series 1, stack 1: 4 images before, 5 now" in version.report().changes


def test_other_detectors_make_a_new_version_under_new_names(house: House, make_house: MakeHouse) -> None:
    house.receive(1, hot=True)
    house.complete(1)
    house.triage()
    other = make_house("blind", destination=(PACS,))
    version = other.triage()
    assert version is not None
    assert (2, Priority.ROUTINE) == (version.version, version.priority)
    assert version.digest == committed(house, 1).digest
    assert house.kept(1)[0].sop_instance_uid != house.kept(2)[0].sop_instance_uid
    assert any("settings" in change for change in version.report().changes)


def test_a_detector_that_sees_nothing_more_is_told_at_the_end_of_the_quiet_period(
    house: House, make_house: MakeHouse
) -> None:
    house.receive(1)
    house.complete(1)
    house.triage()
    other = make_house("bright", "blind", destination=(PACS,))
    first, last = other.triage(), other.triage(final=True)
    assert first is not None
    assert last is not None
    assert (1, 2) == (first.version, last.version)
    assert ["bright", "blind"] == [run.name for run in last.report().examined[0].detectors]


def test_the_order_in_which_detectors_are_named_changes_nothing(house: House, make_house: MakeHouse) -> None:
    one, other = make_house("bright", "blind"), make_house("blind", "bright")
    assert one.desk.provenance_key == other.desk.provenance_key
    assert one.desk.provenance_key != house.desk.provenance_key


def test_what_is_ours_or_no_ct_changes_neither_state_nor_digest(house: House) -> None:
    house.receive(1)
    house.complete(1)
    house.triage()
    house.take_in(house_slice(house.make_slice, 1, 90, hot=True), is_ours=True)
    house.take_in(house_slice(house.make_slice, 3, 1, hot=True, Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4"))
    assert "version 1 already says" in nothing(house, final=True)
    assert digest_of(f"{STUDY}.1.{n}" for n in range(1, 5)) == committed(house, 1).digest


def test_a_study_of_a_scout_alone_gets_a_report_that_nobody_looked(house: House) -> None:
    house.receive(1, 1, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    house.complete(1)
    version = house.triage(final=True)
    assert version is not None
    assert (StudyStatus.NOT_ANALYSED, None) == (version.status, version.priority)
    (document,) = (pydicom.dcmread(house.desk.objects_dir / each.path) for each in house.kept(1))
    assert ("PARTIAL", True) == (document.CompletionFlag, "NOT ANALYSED" in str(document))


def test_a_series_nobody_can_read_is_said_not_analysed_and_the_others_stand(house: House) -> None:
    house.receive(1, hot=True)
    house.complete(1)
    house.triage()
    house.receive(2)
    house.complete(2)
    for path in _files(house, 2):
        path.write_bytes(b"rotten")
    version = house.triage()
    assert version is not None
    (unread,) = version.report().skipped
    assert (2, StudyStatus.PARTLY_ANALYSED, Priority.STAT) == (version.version, version.status, version.priority)
    assert "none of its 4 images can be read" == unread.reason
    assert "version 2 already says" in nothing(house, final=True)


def test_a_buried_triage_leaves_the_version_before_it_current(house: House) -> None:
    house.receive(1)
    house.complete(1)
    house.triage()
    house.receive(2)
    house.complete(2)
    for path in _files(house, 2) | _files(house, 1):
        path.write_bytes(b"rotten")
    key = house.submit_triage()
    _exhaust(house, TRIAGE)
    job = house.desk.queue.job(key)
    assert (Status.BURIED, True) == (job.status, "MissingHeaders" in (job.reason or ""))
    assert 1 == committed(house, 1).version
    assert house.desk.ledger.version(STUDY, 2) is None


@dataclass(kw_only=True)
class _Failing:
    """A triage handler whose tasks fail, but for those that say so."""

    handler: TriageHandler
    say_it_too: bool = False

    def prepare(self, job: Job) -> Task[Any] | Nothing:
        if "failed" in job.payload and not self.say_it_too:
            return self.handler.prepare(job)
        return Task(_fail)

    def commit(self, job: Job, result: Any, connection: Any) -> None:
        self.handler.commit(job, result, connection)

    def failed(self, job: Job, reason: str, connection: Any) -> None:
        self.handler.failed(job, reason, connection)


def _fail() -> None:
    raise ValueError("broken instance 1.2.840.113619.2.55.3")


def failing(house: House, *, say_it_too: bool = False) -> None:
    """Do all triage that is due and let it fail until nothing is left to try."""
    handler = _Failing(handler=TriageHandler(desk=house.desk), say_it_too=say_it_too)
    machine = Machine(memory_mb=1, slots=8)
    lane = Lane(name="all", executor=inline(), machine=machine, handlers={TRIAGE: handler}, give_up_at=3)
    worker = Worker(database=house.database, queue=house.desk.queue, lanes=(lane,), now=house.clock, random=Random(0))
    for _ in range(20):
        while worker.step():
            pass
        house.clock.now += timedelta(hours=1)


def test_a_triage_that_is_given_up_sends_an_sr_that_nobody_looked(house: House) -> None:
    house.receive(1, hot=True)
    house.receive(2)
    house.complete(1, 2)
    key = house.submit_triage()
    failing(house)
    assert Status.BURIED is house.desk.queue.job(key).status
    version = committed(house, 1)
    assert (StudyStatus.NOT_ANALYSED, None) == (version.status, version.priority)
    said = {(row.series_number, row.reason) for row in version.report().examined}
    assert {(n, "failed: ValueError: broken instance (withheld)") for n in (1, 2)} == said
    (sr,) = house.kept(1)
    document = pydicom.dcmread(house.desk.objects_dir / sr.path)
    assert ("PARTIAL", True) == (document.CompletionFlag, "NOT ANALYSED" in str(document))
    assert {"deliver:pacs", "deliver:results"} == {job.kind for job in house.jobs(DELIVER)}
    assert [] == house.jobs(DERIVE)


def test_what_a_triage_that_failed_said_gives_way_when_it_is_tried_again(house: House) -> None:
    house.receive(1, hot=True)
    house.complete(1)
    key = house.submit_triage()
    failing(house)
    house.desk.queue.resubmit(key, now=house.clock.now)
    house.run(TRIAGE)
    version = house.desk.ledger.latest(STUDY)
    assert version is not None
    assert (2, StudyStatus.ANALYSED, Priority.STAT) == (version.version, version.status, version.priority)
    assert {"sr"} == {o.kind for o in house.kept(1)}
    assert set() == {o.sop_instance_uid for o in house.kept(1)} & {o.sop_instance_uid for o in house.kept(2)}


def test_a_second_failure_over_the_same_images_says_nothing_twice(house: House) -> None:
    house.receive(1)
    house.complete(1)
    for final in (False, True):
        house.submit_triage(final=final)
        failing(house)
    assert [1, None] == [
        v and v.version for v in (house.desk.ledger.latest(STUDY), house.desk.ledger.version(STUDY, 2))
    ]


def test_a_failure_after_a_finding_keeps_the_finding_and_says_what_was_not_looked_at(house: House) -> None:
    house.receive(1, hot=True)
    house.complete(1)
    house.triage()
    house.receive(2)
    house.receive(1, 1, first=5)
    house.complete(1, 2)
    house.submit_triage(final=True)
    failing(house)
    version = house.desk.ledger.latest(STUDY)
    assert version is not None
    report = version.report()
    assert (2, StudyStatus.PARTLY_ANALYSED, Priority.STAT) == (version.version, version.status, version.priority)
    assert (1, [f"{STUDY}.2"]) == (len(report.findings), [row.series_instance_uid for row in report.skipped])
    assert any("NOT ANALYSED, failed: ValueError" in note and "1 image(s)" in note for note in report.notes)
    assert ["sr", "seg", "key_objects"] == [each.kind for each in house.kept(2)]


def test_a_failure_that_cannot_be_said_either_ends(house: House) -> None:
    house.receive(1)
    house.complete(1)
    house.submit_triage()
    failing(house, say_it_too=True)
    assert [Status.BURIED, Status.BURIED] == [job.status for job in house.jobs(TRIAGE)]
    assert house.desk.ledger.latest(STUDY) is None


def test_a_file_that_is_gone_is_no_reason_to_stay_silent(house: House) -> None:
    house.receive(1)
    house.complete(1)
    min(_files(house, 1)).unlink()
    house.submit_triage()
    failing(house)
    version = committed(house, 1)
    assert (StudyStatus.NOT_ANALYSED, ("1 image(s) could not be read",)) == (version.status, version.report().notes)


def _exhaust(house: House, *kinds: str) -> None:
    for _ in range(3):
        house.run(*kinds)
        house.clock.now += timedelta(hours=1)


def _files(house: House, number: int) -> set[Path]:
    return {each.path for each in house.desk.archive.instances_of(STUDY, f"{STUDY}.{number}")}


# ---- derive ---------------------------------------------------------------------------------------------------------


def test_pictures_join_their_version_and_are_delivered_to_those_who_take_them(house: House) -> None:
    house.receive(1, hot=True)
    house.complete(1)
    house.triage()
    before = committed(house, 1).timings_s["write"]
    house.run(DERIVE)
    assert ["sr", "seg", "key_objects", "summary"] == [each.kind for each in house.kept(1)]
    pictures = [job for job in house.jobs(DELIVER) if job.payload["group"] == "pictures"]
    assert ["deliver:results"] == [job.kind for job in pictures]  # the PACS takes flags alone
    assert committed(house, 1).timings_s["write"] > before


def test_pictures_of_a_superseded_version_are_not_made(house: House) -> None:
    house.receive(1)
    house.complete(1)
    house.triage()
    house.receive(2, hot=True)
    house.complete(2)
    house.triage()
    task = DeriveHandler(desk=house.desk).prepare(house.job(DERIVE, version=1))
    assert isinstance(task, Nothing)
    assert isinstance(DeriveHandler(desk=house.desk).prepare(house.job(DERIVE, version=2)), Task)


def test_pictures_of_a_version_superseded_while_they_were_made_are_not_published(house: House) -> None:
    house.receive(1)
    house.complete(1)
    house.triage()
    job, handler = house.job(DERIVE, version=1), DeriveHandler(desk=house.desk)
    task = handler.prepare(job)
    assert isinstance(task, Task)
    made = task.function(*task.args)
    house.receive(2, hot=True)
    house.complete(2)
    house.triage()
    with house.database.transaction() as connection:
        handler.commit(job, made, connection)
    assert ["sr"] == [each.kind for each in house.kept(1)]
    assert [] == [each for each in house.jobs(DELIVER) if each.payload["group"] == "pictures"]


def test_pictures_that_cannot_be_made_are_said_with_the_version_and_its_flags_stay(house: House) -> None:
    house.receive(1)
    house.complete(1)
    house.triage()
    for path in _files(house, 1):
        path.write_bytes(b"rotten")
    _exhaust(house, DERIVE)
    (job,) = house.jobs(DERIVE)
    (remark,) = committed(house, 1).remarks
    assert (Status.BURIED, True) == (job.status, remark.startswith("no pictures: "))
    assert ["sr"] == [each.kind for each in house.kept(1)]


def test_pictures_are_admitted_by_what_the_study_needs(house: House) -> None:
    house.receive(1, 200)
    house.complete(1)
    house.triage()
    (job,) = house.jobs(DERIVE)
    assert (300 + 400, 10) == (job.memory_mb, job.max_attempts)


# ---- deliver --------------------------------------------------------------------------------------------------------


def two_patients(house: House) -> None:
    house.take_in(house_slice(house.make_slice, 1, 9, hot=False, PatientID="P2"))


def test_deliveries_are_held_while_two_patients_stand_under_one_study(house: House) -> None:
    house.receive(1)
    two_patients(house)
    house.complete(1)
    house.triage()
    house.run(DERIVE)
    assert {"flags", "pictures"} == {job.payload["group"] for job in house.jobs(DELIVER)}
    assert {Status.HELD} == {job.status for job in house.jobs(DELIVER)}
    assert all("ctriage conflicts" in (job.reason or "") for job in house.jobs(DELIVER))


def test_a_second_patient_found_after_the_delivery_was_queued_stops_it(house: House) -> None:
    house.receive(1)
    house.complete(1)
    house.triage()
    two_patients(house)
    house.run(DELIVER + "results")
    (job,) = [job for job in house.jobs(DELIVER) if job.kind == "deliver:results"]
    assert (Status.READY, True) == (job.status, "two patient IDs" in (job.reason or ""))
    assert [] == list((house.desk.settings.state_dir / "results").rglob("*.dcm"))
    (conflict,) = house.desk.archive.open_conflicts(STUDY)
    house.desk.archive.accept(conflict.id, house.clock.now)
    house.clock.now += timedelta(hours=1)
    house.run(DELIVER + "results")
    assert Status.DONE is house.desk.queue.job(job.key).status


def test_a_delivery_writes_flags_and_pictures_below_the_study_key_and_version(house: House) -> None:
    house.receive(1, hot=True)
    house.complete(1)
    house.submit_triage()
    house.run(TRIAGE, DERIVE, DELIVER + "results")
    folder = house.desk.settings.state_dir / "results" / house.desk.archive.study_key(STUDY) / "v1"
    names = {path.name for path in folder.iterdir()}
    assert {"sr.dcm", "seg.dcm", "key_objects.dcm", "summary.dcm", "summary.png"} == names
    sr = house.kept(1)[0]
    assert (house.desk.objects_dir / sr.path).read_bytes() == (folder / "sr.dcm").read_bytes()


def test_a_peer_that_has_the_newest_version_is_not_sent_an_older_one_and_folders_keep_all(house: House) -> None:
    house.receive(1)
    house.complete(1)
    house.triage()
    house.receive(2, hot=True)
    house.complete(2)
    house.triage()
    handler, first, second = DeliverHandler(desk=house.desk), "v1:flags", "v2:flags"
    deliveries = {job.key.partition(":")[2].split(":", 2)[2]: job for job in house.jobs("deliver:pacs")}
    assert isinstance(handler.prepare(deliveries[first]), Task)  # nothing newer has been delivered: nothing blocks it
    for job in house.desk.queue.claim(["deliver:pacs"], house.clock.now, 30, lambda w, _: [deliveries[second]]).started:
        house.desk.queue.finish(job)
    late = handler.prepare(deliveries[first])
    assert isinstance(late, Nothing)
    assert "version 2 was delivered before it" == late.reason
    assert isinstance(handler.prepare(deliveries[second]), Task)
    assert all(isinstance(handler.prepare(job), Task) for job in house.jobs("deliver:results"))


@pytest.mark.parametrize("destination", ["results", "pacs"])
def test_a_delivery_whose_object_is_gone_is_permanent(house: House, destination: str) -> None:
    house.receive(1)
    house.complete(1)
    house.triage()
    (house.desk.objects_dir / house.kept(1)[0].path).unlink()
    job = house.job(DELIVER, version=1, destination=destination, group="flags")
    task = DeliverHandler(desk=house.desk).prepare(job)
    assert isinstance(task, Task)
    with pytest.raises(Permanent):
        task.function(*task.args)


def test_the_flags_of_an_urgent_study_leave_before_those_of_a_routine_one_and_all_before_pictures(
    house: House,
) -> None:
    house.receive(1, hot=True)
    house.complete(1)
    house.triage()
    house.run(DERIVE)
    priorities = {(str(job.payload["group"]), job.priority) for job in house.jobs(DELIVER)}
    assert {("flags", 30), ("pictures", 0)} == priorities
