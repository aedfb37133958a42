"""Is what a caller was promised kept, told and never forgotten?"""

from datetime import UTC, datetime

import pytest

from pacs_bridge.commitment import (
    CLASS_INSTANCE_CONFLICT,
    COMMITTED,
    DUPLICATE_TRANSACTION,
    INVALID_ARGUMENT,
    NO_SUCH_INSTANCE,
    NOT_AUTHORISED,
    PROCESSING_FAILURE,
    Reference,
)
from pacs_bridge.commitment_jobs import DECIDE, REPORT
from pacs_bridge.commitment_testing import SR, STUDY, House, MakeHouse, MakePeer, caller, ct, pacs, rows
from pacs_bridge.settings import Caller
from pacs_bridge.status import read_status
from pacs_bridge.tls import server_context
from pacs_bridge.tls_testing import Hospital
from scheduler.job import Status
from scheduler.worker import Task

# ---- who may ask ----------------------------------------------------------------------------------------------------


def test_a_caller_whose_commitment_is_off_is_refused_at_once(make_house: MakeHouse) -> None:
    house = make_house(caller("off"))
    assert NOT_AUTHORISED == house.ask(*house.receive(1))
    house.run()
    assert ([], []) == (house.told, house.desk.queue.jobs())


def test_what_a_refused_caller_lists_is_evidence_of_its_series_all_the_same(make_house: MakeHouse) -> None:
    house = make_house(caller("off"))
    assert NOT_AUTHORISED == house.ask(*house.receive(1, 2), ct(3))
    (expected,) = house.declared
    assert {ct(n).sop_instance_uid for n in (1, 2, 3)} == expected.sop_instance_uids
    assert 0 == rows(house, "commitment_requests")


def test_without_callers_or_a_destination_that_commits_nothing_is_promised(make_house: MakeHouse) -> None:
    assert NOT_AUTHORISED == make_house().ask(ct(1))


def test_the_narrowest_network_that_names_a_caller_decides(make_house: MakeHouse) -> None:
    wide = Caller(ae_title="CT01", address="10.0.0.0/8", commitment="off")
    house = make_house(wide, Caller(ae_title="CT01", address="10.1.2.3", commitment="own"))
    assert [0, NOT_AUTHORISED] == [house.ask(ct(1), address=each) for each in ("10.1.2.3", "10.1.2.4")]


def test_a_request_that_cannot_be_understood_leaves_nothing(own: House) -> None:
    assert INVALID_ARGUMENT == own.serve("n_action", 1, b"")
    assert [] == own.desk.queue.jobs()


# ---- own ------------------------------------------------------------------------------------------------------------


def test_what_the_archive_holds_is_committed_told_once_and_never_removed(own: House) -> None:
    assert (0, False) == (own.ask(*own.receive(1, 2)), own.told != [])
    assert own.parts.commitments.is_promised(STUDY)  # already while it is decided
    own.run()
    assert [("A", "1.9.1")] == [(way, report.transaction_uid) for way, report in own.told]
    assert [COMMITTED, COMMITTED] == own.outcomes
    assert own.parts.commitments.is_promised(STUDY)
    assert not own.parts.commitments.is_promised("1.2.4")
    own.run_until(3600)
    assert 1 == len(own.told)


def test_each_instance_that_cannot_be_kept_has_its_reason(own: House) -> None:
    kept, gone = own.receive(1, 2)
    (held,) = [each for each in own.desk.archive.instances_of(STUDY, "1.2.3.4") if each.facts.instance_number == 2]
    held.path.unlink()
    other = Reference(sop_class_uid=SR, sop_instance_uid=own.receive(3)[0].sop_instance_uid)
    own.ask(kept, gone, other, ct(4))
    own.run_until(90)
    assert [COMMITTED, PROCESSING_FAILURE, CLASS_INSTANCE_CONFLICT, NO_SUCH_INSTANCE] == own.outcomes


def test_images_may_follow_their_own_request(own: House) -> None:
    own.ask(*own.receive(1), ct(2))
    own.run_until(20)
    assert (True, "1 of 2 instances are not here yet") == (own.told == [], own.job(DECIDE).reason)
    own.receive(2)
    own.run_until(60)
    assert [COMMITTED, COMMITTED] == own.outcomes


def test_what_is_removed_while_it_is_looked_at_is_not_promised(own: House) -> None:
    own.ask(*own.receive(1, 2))
    handler, job = own.parts.handlers[DECIDE], own.job(DECIDE)
    task = handler.prepare(job)
    assert isinstance(task, Task)
    with own.database.transaction() as connection:
        connection.execute("delete from instances where sop_instance_uid = ?", (ct(1).sop_instance_uid,))
        handler.commit(job, task.function(*task.args), connection)
    assert [NO_SUCH_INSTANCE, COMMITTED] == list(own.parts.commitments.request(1).outcomes.values())


def test_the_same_request_again_is_told_again_and_another_under_its_uid_fails(own: House) -> None:
    references = own.receive(1, 2)
    own.ask(*references)
    own.run()
    assert 0 == own.ask(*reversed(references), association="B")
    own.open = {"B"}
    own.run()
    assert ["A", "B"] == [way for way, _ in own.told]
    assert [COMMITTED, COMMITTED] == own.outcomes
    assert 0 == own.ask(references[0], association="B")
    own.run()
    assert [DUPLICATE_TRANSACTION] == own.outcomes
    assert 0 == own.ask(references[0], association="B", calling_ae="CT01", transaction="1.9.2")
    own.run()
    assert [COMMITTED] == own.outcomes


def test_what_failed_may_be_asked_for_again_under_the_same_uid(own: House) -> None:
    references = (ct(1), ct(2))
    own.ask(*references)
    own.run_until(90)
    own.receive(1, 2)
    own.ask(*references)
    own.run()
    assert [[NO_SUCH_INSTANCE] * 2, [COMMITTED] * 2] == [list(report.outcomes.values()) for _, report in own.told]


def test_of_a_request_that_was_told_the_promise_is_kept_and_no_list(own: House) -> None:
    own.ask(*own.receive(1, 2))
    assert 2 == rows(own, "commitment_references")
    own.run()
    assert [0, 2] == [rows(own, each) for each in ("commitment_references", "committed_instances")]


def test_status_says_who_waits_for_what(own: House) -> None:
    own.open = set()
    own.ask(*own.receive(1))
    own.run()
    (waiting,) = [job for job in read_status(own.desk.settings.database)["jobs"] if job["kind"] == REPORT]
    assert ("ready", True) == (waiting["state"], "give its [[caller]] port" in waiting["reason"])


def test_a_request_is_kept_over_a_restart_and_told_on_the_callers_next_association(make_house: MakeHouse) -> None:
    before = make_house(caller("own"))
    before.ask(*before.receive(1), association="gone with the process")
    after = make_house(caller("own"))
    after.run()
    waiting = after.job(REPORT)
    assert (Status.READY, True) == (waiting.status, "give its [[caller]] port" in str(waiting.reason))
    after.ask(*after.receive(2), transaction="1.9.2", association="A")
    after.run()
    assert {"1.9.1", "1.9.2"} == {report.transaction_uid for _, report in after.told}


def test_two_scanners_of_one_title_hear_each_its_own_report(make_house: MakeHouse) -> None:
    house = make_house(*(Caller(ae_title="CT01", address=f"10.1.2.{n}", commitment="own") for n in (3, 4)))
    house.open = {"A", "B"}
    house.ask(*house.receive(1), address="10.1.2.3", association="A")
    house.ask(ct(2), address="10.1.2.4", association="B")  # under the same Transaction UID
    house.ask(ct(1), address="10.1.2.4", association="B", transaction="1.9.2")
    house.run_until(90)
    told = {(way, report.transaction_uid): list(report.outcomes.values()) for way, report in house.told}
    assert {("A", "1.9.1"): [COMMITTED], ("B", "1.9.1"): [NO_SUCH_INSTANCE], ("B", "1.9.2"): [COMMITTED]} == told


def test_a_report_never_goes_to_another_scanner_of_the_same_title(make_house: MakeHouse) -> None:
    house = make_house(*(Caller(ae_title="CT01", address=f"10.1.2.{n}", commitment="own") for n in (3, 4)))
    house.open = {"B"}
    house.ask(*house.receive(1), address="10.1.2.3", association="gone")
    house.ask(ct(1), address="10.1.2.4", association="B", transaction="1.9.2")
    house.run()
    assert [("B", "1.9.2")] == [(way, report.transaction_uid) for way, report in house.told]


def test_a_job_that_can_never_be_done_is_told_as_a_failure(own: House) -> None:
    own.ask(*own.receive(1))
    job = own.job(DECIDE)
    with own.database.transaction() as connection:
        own.parts.handlers[DECIDE].failed(job, "broken", connection)
    own.run()
    assert [PROCESSING_FAILURE] == own.outcomes


def test_a_request_declares_what_its_series_has(own: House) -> None:
    own.ask(*own.receive(1, 2), ct(3))
    (expected,) = own.declared
    assert (STUDY, "1.2.3.4") == (expected.study, expected.series)
    assert {ct(n).sop_instance_uid for n in (1, 2, 3)} == expected.sop_instance_uids


def test_a_request_about_a_series_that_is_complete_declares_nothing(own: House) -> None:
    references = own.receive(1)
    own.desk.archive.set_series_state(STUDY, "1.2.3.4", "complete", "contiguous")
    own.ask(*references)
    assert [] == own.declared


# ---- reports on an association of our own ---------------------------------------------------------------------------


@pytest.mark.parametrize("roles", [(False, True), None], ids=["role selection", "roles ignored"])
def test_who_has_hung_up_is_called_with_the_report(
    make_house: MakeHouse, make_peer: MakePeer, roles: tuple[bool, bool] | None
) -> None:
    scanner = make_peer(roles=roles)
    house = make_house(caller("own", port=scanner.port))
    house.open = set()
    house.ask(*house.receive(1), ct(2))
    house.run_until(90)
    (report,) = scanner.told
    assert ("1.9.1", [COMMITTED, NO_SUCH_INSTANCE]) == (report.transaction_uid, list(report.outcomes.values()))


def test_a_caller_that_is_away_is_called_again_until_it_listens(make_house: MakeHouse, make_peer: MakePeer) -> None:
    scanner = make_peer()
    away = make_house(caller("own", port=1))
    away.open = set()
    away.ask(*away.receive(1))
    away.run()
    assert "nobody listens there" in str(away.job(REPORT).reason)
    back = make_house(caller("own", port=scanner.port))
    back.open = set()
    back.run_until(60)
    assert ["1.9.1"] == [report.transaction_uid for report in scanner.told]


def test_a_caller_that_takes_no_reports_is_named_with_the_remedy(make_house: MakeHouse, make_peer: MakePeer) -> None:
    scanner = make_peer(classes=(SR,))
    house = make_house(caller("own", port=scanner.port))
    house.open = set()
    house.ask(*house.receive(1))
    house.run()
    assert (Status.READY, True) == (house.job(REPORT).status, "does not take" in str(house.job(REPORT).reason))


def test_a_report_and_a_request_go_over_tls_where_the_settings_say_so(
    make_house: MakeHouse, make_peer: MakePeer, hospital: Hospital
) -> None:
    secure = server_context(hospital.node(), now=datetime.now(UTC))
    scanner, keeper = make_peer(tls=secure), make_peer(tls=secure, keeps={ct(1).sop_instance_uid})
    kept_by = pacs(keeper).model_copy(update={"tls": True})
    asking = caller("relay", port=scanner.port, tls=True)
    house = make_house(asking, destination=(kept_by,), tls=hospital.node(), linger_s=10.0)
    house.open = set()
    house.ask(*house.receive(1))
    house.run()
    assert [[COMMITTED]] == [list(report.outcomes.values()) for report in scanner.told]


def test_nothing_is_reported_in_clear_to_a_caller_with_tls(
    make_house: MakeHouse, make_peer: MakePeer, hospital: Hospital
) -> None:
    scanner = make_peer()
    house = make_house(caller("own", port=scanner.port, tls=True))
    house.open = set()
    house.ask(*house.receive(1))
    house.run()
    assert ([], True) == (scanner.told, "tls.authorities" in str(house.job(REPORT).reason))
    elsewhere = Hospital(folder=hospital.folder.parent / "elsewhere")
    forged = make_peer(tls=server_context(elsewhere.node(), now=datetime.now(UTC)))
    house = make_house(caller("own", port=forged.port, tls=True), tls=hospital.node())
    house.open = set()
    house.run_until(30)
    assert ([], True) == (forged.told, "no TLS with" in str(house.job(REPORT).reason))
