"""What a PACS promised us, and what it did not, stand in the audit trail as events of their own."""

from dataclasses import replace

from pacs_bridge.audit import AuditEvent
from pacs_bridge.commitment import NO_SUCH_INSTANCE, Reference
from pacs_bridge.commitment_audit import tell_taken
from pacs_bridge.commitment_testing import SR, STUDY, MakeHouse
from pacs_bridge.ledger import KeptObject
from pacs_bridge.settings import Destination
from scheduler.job import JobRequest


def kept(uid: str) -> KeptObject:
    return KeptObject(
        kind="sr", index=0, sop_instance_uid=uid, sop_class_uid=SR, series_instance_uid="1.9", path="", sha256=""
    )


def test_what_a_pacs_promised_and_what_not_are_told_apart(make_house: MakeHouse) -> None:
    pacs = Destination(name="pacs", ae_title="PACS", host="10.1.1.1", port=104, commitment=True)
    house, events = make_house(destination=(pacs,)), list[AuditEvent]()
    house.take_in(1)
    desk = replace(house.desk, audit=events.append)
    payload = {"study_instance_uid": STUDY, "destination": "pacs"}
    desk.queue.submit(JobRequest(key="k", kind="commit:pacs", payload=payload), now=house.clock.now)
    failures = {Reference(sop_class_uid=SR, sop_instance_uid="1.2"): NO_SUCH_INSTANCE}
    tell_taken(desk, desk.queue.job("k"), [kept("1.1"), kept("1.2"), kept("1.3")], failures)
    assert [("", ((SR, 2),)), ("not committed: no such object instance", ((SR, 1),))] == [
        (each.said, each.study.instances) for each in events if each.study
    ]
    assert {("PACS", "10.1.1.1", "P1")} == {
        (each.peer.name, each.peer.address, each.study.patient_id) for each in events if each.peer and each.study
    }
