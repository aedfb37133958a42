"""Does a caller hear success only from a keeper, and is a result delivered only when a PACS keeps it?"""

from dataclasses import replace

from pacs_bridge.commitment import (
    COMMITTED,
    INVALID_ARGUMENT,
    NO_SUCH_INSTANCE,
    NOT_AUTHORISED,
    PROCESSING_FAILURE,
)
from pacs_bridge.commitment_testing import STUDY, MakeHouse, MakePeer, caller, ct, pacs, publish, replace_name, rows
from pacs_bridge.settings import Forward
from scheduler.job import Status

# ---- relay ----------------------------------------------------------------------------------------------------------


def test_success_is_relayed_when_the_pacs_has_committed_on_the_same_association(
    make_house: MakeHouse, make_peer: MakePeer
) -> None:
    peer = make_peer(keeps={ct(1).sop_instance_uid, ct(2).sop_instance_uid})
    house = make_house(caller("relay"), destination=(pacs(peer),), linger_s=10.0)
    house.ask(*house.receive(1, 2))
    house.run()
    assert peer.answered.is_set()
    assert [COMMITTED, COMMITTED] == house.outcomes
    (request,) = peer.requests
    assert "1.9.1" != request.transaction_uid
    assert not house.parts.commitments.is_promised(STUDY)  # it is the PACS that keeps them


def test_a_report_that_comes_later_over_the_listener_is_relayed(make_house: MakeHouse, make_peer: MakePeer) -> None:
    peer = make_peer(keeps={ct(1).sop_instance_uid}, reports=False)
    house = make_house(caller("relay"), destination=(pacs(peer),))
    house.ask(*house.receive(1))
    house.run()
    assert ([], "waiting for commitment of 1 objects by pacs") == (house.told, house.job("commit:").reason)
    (request,) = peer.requests
    assert 0 == house.report(peer.verdict(request))
    house.run()
    assert [COMMITTED] == house.outcomes
    assert 1 == len(peer.requests)
    assert (0, 0) == (rows(house, "peer_commitment_references"), house.report(peer.verdict(request)))


def test_the_request_of_a_caller_and_the_report_of_a_pacs_outlive_a_restart(
    make_house: MakeHouse, make_peer: MakePeer
) -> None:
    peer = make_peer(keeps={ct(1).sop_instance_uid}, reports=False)
    before = make_house(caller("relay"), destination=(pacs(peer),))
    before.ask(*before.receive(1))
    before.run()
    after = make_house(caller("relay"), destination=(pacs(peer),))
    assert 0 == after.report(peer.verdict(peer.requests[0]))
    after.run()
    assert [COMMITTED] == after.outcomes


def test_a_stranger_or_an_unknown_transaction_changes_nothing(make_house: MakeHouse, make_peer: MakePeer) -> None:
    peer = make_peer(keeps={ct(1).sop_instance_uid}, reports=False)
    house = make_house(caller("relay"), destination=(pacs(peer),))
    house.ask(*house.receive(1))
    house.run()
    report = peer.verdict(peer.requests[0])
    stranger = house.report(report, calling_ae="STRANGER", address="10.9.9.9")
    unknown = house.report(replace(report, transaction_uid="1.9.1"))
    assert [INVALID_ARGUMENT, INVALID_ARGUMENT] == [stranger, unknown]
    house.run()
    assert [] == house.told


def test_what_the_pacs_has_not_got_yet_is_asked_again_until_it_has(make_house: MakeHouse, make_peer: MakePeer) -> None:
    peer = make_peer(keeps={ct(1).sop_instance_uid})
    house = make_house(caller("relay"), destination=(pacs(peer),), linger_s=10.0)
    house.ask(*house.receive(1, 2))
    house.run()
    assert [] == house.told
    assert "does not commit yet to 1 object (0x0112" in str(house.job("commit:").reason)
    peer.keeps.add(ct(2).sop_instance_uid)
    house.run_until(60)
    assert [COMMITTED, COMMITTED] == house.outcomes
    assert [2, 1] == [len(each.references) for each in peer.requests]  # what it has committed to is not asked again


def test_a_pacs_that_goes_on_failing_is_believed_and_its_reason_passed_on(
    make_house: MakeHouse, make_peer: MakePeer
) -> None:
    peer = make_peer(keeps={ct(1).sop_instance_uid})
    house = make_house(caller("relay"), destination=(pacs(peer),), linger_s=10.0, rounds=3)
    house.ask(*house.receive(1, 2))
    house.run_until(120)
    assert {COMMITTED, NO_SUCH_INSTANCE} == set(house.outcomes)
    assert 3 == len(peer.requests)


def test_a_failure_of_what_is_still_to_be_forwarded_is_not_believed(make_house: MakeHouse, make_peer: MakePeer) -> None:
    peer = make_peer()
    rule = Forward(to="pacs")
    house = make_house(caller("relay"), destination=(pacs(peer),), forward=(rule,), linger_s=10.0, rounds=2)
    house.ask(*house.receive(1))
    house.run_until(120)
    assert (True, []) == (len(peer.requests) > 2, house.told)
    forwards = house.desk.forwards
    (waiting,) = forwards.unbatched()
    ((instance, _),) = forwards.unbatched_sizes(waiting)
    batch = forwards.make_batch(waiting, [instance])
    forwards.settle("pacs", batch, arrived=[instance], refused={}, at=house.clock.now)
    house.run_until(120)
    assert [NO_SUCH_INSTANCE] == house.outcomes


def test_one_keeper_of_two_is_not_enough_where_no_rule_says_which(make_house: MakeHouse, make_peer: MakePeer) -> None:
    keeper, other = make_peer(keeps={ct(1).sop_instance_uid}), make_peer(reports=False)
    second = replace_name(pacs(other), "other")
    house = make_house(caller("relay"), destination=(second, pacs(keeper)), linger_s=10.0)
    house.ask(*house.receive(1))
    house.run()
    assert [] == house.told
    assert 0 == house.report(keeper.verdict(other.requests[0]))
    house.run()
    assert [COMMITTED] == house.outcomes


def test_a_keeper_that_refuses_fails_what_another_has_committed_to(make_house: MakeHouse, make_peer: MakePeer) -> None:
    keeper, other = make_peer(keeps={ct(1).sop_instance_uid}), make_peer(status=NOT_AUTHORISED)
    house = make_house(caller("relay"), destination=(replace_name(pacs(other), "other"), pacs(keeper)), linger_s=10.0)
    house.ask(*house.receive(1))
    house.run()
    assert [PROCESSING_FAILURE] == house.outcomes


def test_the_word_of_the_pacs_that_the_images_are_forwarded_to_is_what_counts(
    make_house: MakeHouse, make_peer: MakePeer
) -> None:
    keeper, other = make_peer(keeps={ct(1).sop_instance_uid}), make_peer(status=NOT_AUTHORISED)
    both = (replace_name(pacs(other), "other"), pacs(keeper))
    house = make_house(caller("relay"), destination=both, forward=(Forward(to="pacs"),), linger_s=10.0)
    house.ask(*house.receive(1))
    house.run()
    assert [COMMITTED] == house.outcomes


def test_the_word_of_another_than_the_pacs_that_the_images_are_forwarded_to_does_not_count(
    make_house: MakeHouse, make_peer: MakePeer
) -> None:
    keeper, other = make_peer(keeps={ct(1).sop_instance_uid}), make_peer(status=NOT_AUTHORISED)
    both = (replace_name(pacs(other), "other"), pacs(keeper))
    house = make_house(caller("relay"), destination=both, forward=(Forward(to="other"),), linger_s=10.0)
    house.ask(*house.receive(1))
    house.run()
    assert [PROCESSING_FAILURE] == house.outcomes


def test_a_pacs_that_offers_no_commitment_fails_the_request_at_once(make_house: MakeHouse, make_peer: MakePeer) -> None:
    peer = make_peer(status=NOT_AUTHORISED)
    house = make_house(caller("relay"), destination=(pacs(peer),))
    house.ask(*house.receive(1))
    house.run()
    assert [PROCESSING_FAILURE] == house.outcomes
    assert (Status.BURIED, True) == (
        house.job("commit:").status,
        "commitment = false" in str(house.job("commit:").reason),
    )


def test_a_pacs_that_stays_silent_fails_the_request_when_its_time_is_over(
    make_house: MakeHouse, make_peer: MakePeer
) -> None:
    house = make_house(caller("relay"), destination=(pacs(make_peer(reports=False)),), relay_s=3600.0)
    house.ask(*house.receive(1))
    house.run_until(3000)
    assert [] == house.told
    house.run_until(1500)
    assert [PROCESSING_FAILURE] == house.outcomes


# ---- results --------------------------------------------------------------------------------------------------------


def test_a_result_is_delivered_when_the_pacs_has_committed_to_it(make_house: MakeHouse, make_peer: MakePeer) -> None:
    peer = make_peer(reports=False)
    house = make_house(destination=(pacs(peer),))
    publish(house)
    house.run()
    job = house.job("commit:")
    assert (["2.25.7"], Status.READY) == (peer.stored, job.status)
    assert "waiting for commitment of 1 objects by pacs" == job.reason
    peer.keeps = {"2.25.7"}
    assert 0 == house.report(peer.verdict(peer.requests[0]))
    house.run()
    assert (Status.DONE, ["2.25.7"]) == (house.job("commit:").status, peer.stored)
    assert 0 == rows(house, "peer_commitment_references")


def test_a_result_that_the_pacs_does_not_keep_is_sent_again(make_house: MakeHouse, make_peer: MakePeer) -> None:
    peer = make_peer()
    house = make_house(destination=(pacs(peer),), linger_s=10.0)
    publish(house)
    house.run()
    assert len(peer.stored) > 1
    assert {"2.25.7"} == set(peer.stored)


def test_a_result_that_the_pacs_never_keeps_is_shown_after_some_rounds(
    make_house: MakeHouse, make_peer: MakePeer
) -> None:
    peer = make_peer()
    house = make_house(destination=(pacs(peer),), linger_s=10.0)
    publish(house)
    house.run_until(600)
    buried = house.desk.queue.jobs([Status.BURIED])
    assert ["commit:pacs"] == [job.kind for job in buried]
    assert "pacs does not commit to 1 object (0x0112 no such object instance): look into its log" == buried[0].reason
    assert 6 == len(peer.stored)


def test_a_pacs_that_does_not_answer_is_asked_anew_after_an_hour_and_late_reports_count(
    make_house: MakeHouse, make_peer: MakePeer
) -> None:
    peer = make_peer(keeps={"2.25.7"}, reports=False)
    house = make_house(destination=(pacs(peer),))
    publish(house)
    house.run_until(3000)
    assert 1 == len(peer.requests)
    house.run_until(2400)
    assert 2 == len(peer.requests)
    assert 0 == house.report(peer.verdict(peer.requests[0]))
    house.run()
    assert Status.DONE is house.job("commit:").status


def test_a_destination_that_does_not_commit_is_not_asked(make_house: MakeHouse, make_peer: MakePeer) -> None:
    peer = make_peer()
    house = make_house(destination=(pacs(peer).model_copy(update={"commitment": False}),))
    publish(house)
    house.run()
    assert ([], ["2.25.7"]) == (peer.requests, peer.stored)


def test_what_is_not_to_be_committed_to_any_more_is_not_waited_for(make_house: MakeHouse, make_peer: MakePeer) -> None:
    peer = make_peer(reports=False)
    before = make_house(caller("relay"), destination=(pacs(peer),))
    before.ask(*before.receive(1))
    publish(before)
    before.run()
    after = make_house(caller("own"), destination=(pacs(peer).model_copy(update={"commitment": False}),))
    after.run_until(10)
    assert {Status.DONE} == {job.status for job in after.desk.queue.jobs()}
    assert [PROCESSING_FAILURE] == after.outcomes
