"""Can an administrator decide, and is a study made anew of what was chosen, and of what comes after a removal?"""

import json
from datetime import timedelta
from typing import Any

import pytest
from typer.testing import CliRunner

from pacs_bridge.audit import AuditEvent, Party
from pacs_bridge.cli import app
from pacs_bridge.conflicts import (
    GONE,
    UNREADABLE,
    NothingToChoose,
    OpenConflict,
    accept,
    as_json,
    as_rows,
    open_conflicts,
)
from pacs_bridge.errors import UnknownConflict
from pacs_bridge.handlers import TRIAGE
from pacs_bridge.removal import Removal
from pacs_bridge.settings import Forward, Retention, Settings
from pipeline.model import Priority
from scheduler.database import statements
from scheduler.job import Status
from tests.pacs_bridge.house import PACS, STUDY, House, MakeHouse, house_slice

SECOND_PATIENT: dict[str, Any] = {"PatientID": "P2", "PatientName": "Other^Person"}


def send_other_content(house: House, n: int = 2, *, hot: bool = True, **overrides: object) -> None:
    """Send slice ``n`` of series 1 once more, with other pixels."""
    house.take_in(house_slice(house.make_slice, 1, n, hot=hot, **overrides))


def found(house: House) -> list[OpenConflict]:
    return open_conflicts(house.desk.settings.database, house.desk.settings.state_dir)


def only(house: House) -> OpenConflict:
    (conflict,) = found(house)
    return conflict


def choose_other(house: House) -> None:
    accept(house.desk.settings, only(house).id, keep="other", now=house.clock.now)


def test_two_contents_are_told_by_what_differs_and_who_sent_them(house: House) -> None:
    house.receive(1)
    send_other_content(house, PatientName="Changed^Name")
    conflict = only(house)
    assert ("content", ("PatientName", "PixelData")) == (conflict.kind, conflict.differs)
    assert [("CT01",), ("CT01",)] == [conflict.kept.callers, conflict.other.callers]
    assert ("Changed^Name",) == conflict.other.patient_names


def test_two_patients_are_told_by_how_many_images_each_has(house: House) -> None:
    house.receive(1)
    house.receive(2, count=3, **SECOND_PATIENT)
    conflict = only(house)
    assert ("patient", 4, 3) == (conflict.kind, conflict.kept.images, conflict.other.images)
    assert ("P2", ("Other^Person",)) == (conflict.other.patient_id, conflict.other.patient_names)


def test_a_content_whose_file_is_gone_is_told(house: House) -> None:
    house.receive(1)
    send_other_content(house)
    instances = house.desk.archive.instances_of(STUDY, f"{STUDY}.1")
    (path,) = [each.path for each in instances if each.content_hash == only(house).kept.name]
    path.unlink()
    assert (UNREADABLE,) == only(house).differs


def test_people_see_no_patient_unless_they_ask(house: House) -> None:
    house.receive(1)
    house.receive(2, **SECOND_PATIENT)
    assert "Other^Person" not in str(as_rows(found(house), identifiers=False))
    assert "Other^Person" in str(as_rows(found(house), identifiers=True))


def test_json_keeps_what_it_always_told(house: House) -> None:
    house.receive(1)
    house.receive(2, **SECOND_PATIENT)
    (told,) = as_json(found(house))["conflicts"]
    assert ("patient", "P2", None, STUDY) == (
        told["kind"],
        told["other"],
        told["accepted_at"],
        told["study_instance_uid"],
    )
    assert 4 == told["sides"]["other"]["images"]


def test_accepting_as_it_stands_changes_no_content_and_makes_no_new_version(house: House) -> None:
    house.receive(1)
    house.complete(1)
    send_other_content(house)
    house.triage(final=True)
    accept(house.desk.settings, only(house).id, now=house.clock.now)
    assert [] == found(house)
    latest = house.triage(final=True)
    assert latest is not None
    assert (1, Priority.ROUTINE) == (latest.version, latest.priority)


def test_the_other_content_is_analysed_in_a_version_of_its_own(house: House) -> None:
    house.receive(1)
    house.complete(1)
    house.triage(final=True)
    send_other_content(house)
    choose_other(house)
    house.run(TRIAGE)
    latest = house.desk.ledger.latest(STUDY)
    assert latest is not None
    assert (2, Priority.STAT, []) == (latest.version, latest.priority, found(house))
    assert any("an administrator chose" in note for note in latest.report().notes)
    names = [{each.sop_instance_uid for each in house.kept(version)} for version in (1, 2)]
    assert set() == names[0] & names[1]


def test_a_second_choice_is_made_anew_too(house: House) -> None:
    house.receive(1)
    house.complete(1)
    house.triage(final=True)
    for n in (2, 3):
        send_other_content(house, n)
        choose_other(house)
        house.run(TRIAGE)
    latest = house.desk.ledger.latest(STUDY)
    assert latest is not None
    assert 3 == latest.version


def test_one_content_of_an_instance_is_the_current_one(house: House) -> None:
    house.receive(1)
    send_other_content(house)
    other = only(house).other.name
    choose_other(house)
    instances = house.desk.archive.instances_of(STUDY, f"{STUDY}.1")
    assert 4 == len(instances)
    assert [other] == [i.content_hash for i in instances if i.facts.sop_instance_uid == f"{STUDY}.1.2"]


def test_the_chosen_content_is_passed_on(make_house: MakeHouse) -> None:
    house = make_house(destination=(PACS,), forward=(Forward(to="pacs"),))
    house.receive(1)
    send_other_content(house)
    choose_other(house)
    with house.database.read() as connection:
        (row,) = connection.execute("select i.is_current from forwards f join instances i on i.id = f.instance_id")
    assert 1 == row["is_current"]


def test_of_two_patients_there_is_no_other_content_to_choose(house: House) -> None:
    house.receive(1)
    house.receive(2, **SECOND_PATIENT)
    with pytest.raises(NothingToChoose):
        choose_other(house)
    assert 1 == len(found(house))


def test_what_was_held_is_released_once_no_second_patient_stands_against_it(house: House) -> None:
    house.receive(1)
    house.receive(2, **SECOND_PATIENT)
    house.complete(1, 2)
    house.triage()
    assert {Status.HELD} == {job.status for job in house.jobs("deliver:pacs")}
    accept(house.desk.settings, only(house).id, now=house.clock.now)
    assert {Status.READY} == {job.status for job in house.jobs("deliver:pacs")}


def test_what_waited_for_the_decision_until_it_was_given_up_is_delivered_too(house: House) -> None:
    house.receive(1)
    house.complete(1)
    house.triage()
    house.receive(2, **SECOND_PATIENT)
    with house.database.transaction() as connection:
        connection.execute("update jobs set max_attempts = 1 where kind = 'deliver:pacs'")
    house.run("deliver:pacs")
    assert {Status.BURIED} == {job.status for job in house.jobs("deliver:pacs")}
    accept(house.desk.settings, only(house).id, now=house.clock.now)
    assert {Status.READY} == {job.status for job in house.jobs("deliver:pacs")}


def test_what_is_about_to_look_again_whether_it_is_decided_does_so_at_once(house: House) -> None:
    house.receive(1)
    house.complete(1)
    house.triage()
    house.receive(2, **SECOND_PATIENT)
    house.run("deliver:pacs")
    assert all(job.next_at > house.clock.now for job in house.jobs("deliver:pacs"))
    accept(house.desk.settings, only(house).id, now=house.clock.now)
    assert all(job.next_at <= house.clock.now for job in house.jobs("deliver:pacs"))


def test_what_is_held_or_was_given_up_for_another_reason_stays_so(house: House) -> None:
    house.receive(1)
    house.receive(2, **SECOND_PATIENT)
    house.complete(1, 2)
    house.triage()
    with house.database.transaction() as connection:
        connection.execute("update jobs set reason = 'destination pacs is not in the settings' where status = 'held'")
    accept(house.desk.settings, only(house).id, now=house.clock.now)
    assert {Status.HELD} == {job.status for job in house.jobs("deliver:pacs")}


def test_a_content_that_is_no_longer_there_cannot_be_chosen_and_the_conflict_stays(house: House) -> None:
    house.receive(1)
    send_other_content(house)
    conflict = only(house)
    with house.database.transaction() as connection:
        connection.execute("delete from instances where content_hash = ?", (conflict.other.name,))
    where = ["--set", f"state_dir={house.desk.settings.state_dir}"]
    done = CliRunner().invoke(app, ["conflicts", "accept", str(conflict.id), "--keep", "other", *where])
    assert (1, True) == (done.exit_code, "no longer in the archive" in done.stderr)
    assert (conflict.id, (GONE,)) == (only(house).id, only(house).differs)
    assert 4 == len(house.desk.archive.instances_of(STUDY, f"{STUDY}.1"))


def test_a_decision_is_taken_once_and_audited(house: House) -> None:
    house.receive(1)
    send_other_content(house)
    told: list[AuditEvent] = []
    number, settings = only(house).id, house.desk.settings
    person = Party(name="ana")
    accept(settings, number, keep="other", now=house.clock.now, auditor=told.append, person=person)
    with pytest.raises(UnknownConflict):
        accept(settings, number, now=house.clock.now, auditor=told.append, person=person)
    (event,) = told
    assert ("ana", "content: other") == (event.peer and event.peer.name, event.details[0].value)


def test_the_commands_show_and_decide(house: House) -> None:
    house.receive(1)
    send_other_content(house)
    where = ["--set", f"state_dir={house.desk.settings.state_dir}"]
    shown = CliRunner().invoke(app, ["conflicts", "list", *where])
    assert (0, True) == (shown.exit_code, "PixelData" in shown.stdout)
    as_object = json.loads(CliRunner().invoke(app, ["conflicts", "list", "--json", *where]).stdout)
    (told,) = as_object["conflicts"]
    done = CliRunner().invoke(app, ["conflicts", "accept", str(told["id"]), "--keep", "other", *where])
    assert (0, True) == (done.exit_code, "analysed again" in done.stdout)
    again = CliRunner().invoke(app, ["conflicts", "accept", str(told["id"]), *where])
    assert (1, "") == (again.exit_code, again.stdout)
    assert "No conflict is open.\n" == CliRunner().invoke(app, ["conflicts", "list", *where]).stdout


def test_the_command_says_what_goes_on_and_what_is_still_to_be_decided(house: House) -> None:
    house.receive(1)
    house.receive(2, **SECOND_PATIENT)
    send_other_content(house)
    house.complete(1, 2)
    house.triage()
    where = ["--set", f"state_dir={house.desk.settings.state_dir}"]
    by_kind = {each.kind: each.id for each in found(house)}
    first = CliRunner().invoke(app, ["conflicts", "accept", str(by_kind["content"]), *where]).stdout
    assert (True, False) == ("1 conflict(s) of this study are still open" in first, "go on" in first)
    then = CliRunner().invoke(app, ["conflicts", "accept", str(by_kind["patient"]), *where]).stdout
    assert (False, True) == ("still open" in then, "delivery(ies) that waited for it go on" in then)


def test_a_database_of_another_version_is_no_traceback(house: House) -> None:
    with house.database.transaction() as connection:
        connection.execute("drop table removed_files")
    where = ["--set", f"state_dir={house.desk.settings.state_dir}"]
    done = CliRunner().invoke(app, ["conflicts", "accept", "1", *where])
    assert (2, True) == (done.exit_code, "an older ctriage" in done.stderr)


# ---- what comes after a removal -------------------------------------------------------------------------------------


def removed(house: House) -> None:
    """Let rules of retention take what is there, once it is delivered."""
    with house.database.transaction() as connection:
        connection.execute("update jobs set status = 'done', lease_until = null")
    house.desk.archive.set_study_state(STUDY, "quiet")
    house.clock.now += timedelta(days=100)
    gone = Removal(house.database, house.desk.settings.state_dir).run(Retention(days=90), now=house.clock.now)
    assert 1 == len(gone.removed)


def test_late_images_of_a_removed_study_make_a_version_that_says_what_is_no_longer_there(house: House) -> None:
    house.receive(1, hot=True)
    house.complete(1)
    house.triage(final=True)
    removed(house)
    house.receive(1, 4, first=11)
    house.complete(1)
    latest = house.triage(final=True)
    assert latest is not None
    assert 2 == latest.version
    assert any("were removed here" in note for note in latest.report().notes)


def test_a_removed_study_that_is_sent_again_whole_is_what_was_concluded_on(house: House) -> None:
    house.receive(1, hot=True)
    house.complete(1)
    house.triage(final=True)
    removed(house)
    house.receive(1, hot=True)
    house.complete(1)
    latest = house.triage(final=True)
    assert latest is not None
    assert (1, Priority.STAT) == (latest.version, latest.priority)


def test_rules_of_retention_are_run_and_tried_by_hand(house: House) -> None:
    house.receive(1)
    house.desk.archive.set_study_state(STUDY, "kept")
    settings: Settings = house.desk.settings
    where = ["--set", f"state_dir={settings.state_dir}", "--set", "retention.days=30"]
    assert "No rule lets images go" in CliRunner().invoke(app, ["retention", "run", "--dry-run", *where[:2]]).stdout
    tried = json.loads(CliRunner().invoke(app, ["retention", "run", "--dry-run", "--json", *where]).stdout)
    assert (True, 4) == (tried["dry_run"], tried["removed"][0]["images"])
    assert 4 == house.desk.archive.extent(STUDY).images
    done = CliRunner().invoke(app, ["retention", "run", *where])
    assert (0, True) == (done.exit_code, "Images of 1 study(ies) removed" in done.stdout)
    assert 0 == house.desk.archive.extent(STUDY).images
    with house.database.read() as connection:
        sql = statements("pacs_bridge", "sql/retention.sql")["removed_at"]
        assert 1 == len(connection.execute(sql, {"study_instance_uid": None}).fetchall())
