"""Audit events and messages: does each kind say what PS3.15, A.5.3, wants said, and survive the way to the driver?"""

import base64
import json
import pickle
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree

import pytest
from pydicom.multival import MultiValue

from pacs_bridge import audit
from pacs_bridge.audit import AuditEvent, AuditSource, Party, StudyShare, message_of
from pacs_bridge.audit_xml import as_xml

AT = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)
US = AuditSource(ae_title="CTRIAGE", machine="box1", process_id=4711)
SCANNER = Party(name="CT01", address="10.1.2.3")
PACS = Party(name="PACS", address="pacs.example")
SHARE = StudyShare(
    study_instance_uid="1.2.3",
    patient_id="P1",
    study_key="abc",
    instances=(("1.2.840.10008.5.1.4.1.1.2", 32), ("1.2.840.10008.5.1.4.1.1.88.34", 1)),
)

EVENTS = {
    "started": (audit.service_started(at=AT), "110100", "110120", "E", "0"),
    "stopped": (audit.service_stopped(at=AT), "110100", "110121", "E", "0"),
    "settings": (audit.settings_in_force("f00d", at=AT), "110113", "110129", "E", "0"),
    "refused": (
        audit.association_refused(SCANNER, called="CTRIAGE", reason="unknown caller", at=AT),
        "110113",
        "110126",
        "E",
        "4",
    ),
    "tls": (audit.tls_refused("10.9.9.9", reason="it shows no certificate", at=AT), "110113", "110126", "E", "4"),
    "received": (audit.instances_received(SCANNER, SHARE, at=AT), "110104", None, "C", "0"),
    "aborted": (audit.instances_received(SCANNER, SHARE, at=AT, problem="aborted"), "110104", None, "C", "4"),
    "sent": (audit.instances_sent(PACS, SHARE, at=AT), "110104", None, "C", "0"),
    "given": (audit.commitment_given(SCANNER, SHARE, at=AT), "110103", "RAD-10", "R", "0"),
    "taken": (audit.commitment_taken(PACS, SHARE, at=AT, problem="no"), "110103", "RAD-10", "R", "4"),
    "conflict": (audit.conflict_accepted(Party(name="ana"), SHARE, what="patient", at=AT), "110103", None, "U", "0"),
    "deleted": (audit.study_deleted(SHARE, why="retention.days", at=AT), "110105", None, "D", "0"),
    "begun": (audit.trail_begins(at=AT, details={}), "110113", "110134", "E", "0"),
    "gap": (audit.trail_had_a_gap(at=AT, lost=7, reason="disk full"), "110113", "110133", "E", "4"),
    "shortened": (audit.trail_shortened(at=AT, details={"segments": "2026-01.jsonl"}), "110101", None, "D", "0"),
}
EACH = pytest.mark.parametrize("kind", EVENTS)


@EACH
def test_each_kind_has_the_standards_codes(kind: str) -> None:
    event, event_id, type_code, action, outcome = EVENTS[kind]
    said = message_of(event, US)["EventIdentification"]
    assert (event_id, "DCM") == (said["EventID"]["csd-code"], said["EventID"]["codeSystemName"])
    assert ([type_code] if type_code else []) == [each["csd-code"] for each in said.get("EventTypeCode", ())]
    assert (action, outcome) == (said["EventActionCode"], said["EventOutcomeIndicator"])
    assert AT == datetime.fromisoformat(said["EventDateTime"])


@EACH
def test_each_event_reaches_the_driver_as_it_was_and_its_message_is_json(kind: str) -> None:
    event: AuditEvent = EVENTS[kind][0]
    assert event == pickle.loads(pickle.dumps(event))
    message = message_of(event, US)
    assert message == json.loads(json.dumps(message))


@EACH
def test_each_message_names_us_and_exactly_one_requestor_or_more(kind: str) -> None:
    message = message_of(EVENTS[kind][0], US)
    ours = message["ActiveParticipant"][0]
    assert ("AETITLE=CTRIAGE", "box1", "1") == (
        ours["AlternativeUserID"],
        ours["NetworkAccessPointID"],
        ours["NetworkAccessPointTypeCode"],
    )
    assert "CTRIAGE@box1" == message["AuditSourceIdentification"]["AuditSourceID"]
    assert 1 == sum(each["UserIsRequestor"] for each in message["ActiveParticipant"])


def test_a_scanner_is_the_source_of_what_it_sent_and_a_pacs_takes_what_we_send() -> None:
    ours, scanner = message_of(EVENTS["received"][0], US)["ActiveParticipant"]
    assert ("110152", "110153") == (ours["RoleIDCode"][0]["csd-code"], scanner["RoleIDCode"][0]["csd-code"])
    assert (True, "10.1.2.3", "2") == (
        scanner["UserIsRequestor"],
        scanner["NetworkAccessPointID"],
        scanner["NetworkAccessPointTypeCode"],
    )
    ours, pacs = message_of(EVENTS["sent"][0], US)["ActiveParticipant"]
    assert ("110153", "110152") == (ours["RoleIDCode"][0]["csd-code"], pacs["RoleIDCode"][0]["csd-code"])
    assert ("pacs.example", "1") == (pacs["NetworkAccessPointID"], pacs["NetworkAccessPointTypeCode"])


def test_study_and_patient_are_named_with_sop_classes_and_counts() -> None:
    study, patient = message_of(EVENTS["received"][0], US)["ParticipantObjectIdentification"]
    assert ("110180", "1.2.3") == (study["ParticipantObjectIDTypeCode"]["csd-code"], study["ParticipantObjectID"])
    assert ["32", "1"] == [each["NumberOfInstances"] for each in study["ParticipantObjectDescription"]["SOPClass"]]
    assert ("2", "P1") == (patient["ParticipantObjectIDTypeCode"]["csd-code"], patient["ParticipantObjectID"])


CODED = {"csd-code", "codeSystemName", "originalText"}
# PS3.15, A.5.1.1, as far as we use it: attributes that must and that may be there, and elements in order.
SCHEMA: dict[str, tuple[set[str], set[str], str]] = {
    "AuditMessage": (
        set(),
        set(),
        "EventIdentification (ActiveParticipant )+AuditSourceIdentification (ParticipantObjectIdentification )*",
    ),
    "EventIdentification": (
        {"EventDateTime", "EventOutcomeIndicator"},
        {"EventActionCode"},
        "EventID (EventTypeCode )*(EventOutcomeDescription )?",
    ),
    "EventID": (CODED, set(), ""),
    "EventTypeCode": (CODED, set(), ""),
    "EventOutcomeDescription": (set(), set(), ""),
    "ActiveParticipant": (
        {"UserID", "UserIsRequestor"},
        {"AlternativeUserID", "UserName", "NetworkAccessPointID", "NetworkAccessPointTypeCode"},
        "(RoleIDCode )*",
    ),
    "RoleIDCode": (CODED, set(), ""),
    "AuditSourceIdentification": ({"AuditSourceID"}, {"AuditEnterpriseSiteID"}, "(AuditSourceTypeCode )*"),
    "AuditSourceTypeCode": ({"csd-code"}, set(), ""),
    "ParticipantObjectIdentification": (
        {"ParticipantObjectID"},
        {"ParticipantObjectTypeCode", "ParticipantObjectTypeCodeRole"},
        "ParticipantObjectIDTypeCode ParticipantObjectName (ParticipantObjectDetail )*(ParticipantObjectDescription )*",
    ),
    "ParticipantObjectIDTypeCode": (CODED, set(), ""),
    "ParticipantObjectName": (set(), set(), ""),
    "ParticipantObjectDetail": ({"type", "value"}, set(), ""),
    "ParticipantObjectDescription": (set(), set(), "(SOPClass )*"),
    "SOPClass": ({"NumberOfInstances"}, {"UID"}, ""),
}


@EACH
def test_each_message_is_written_by_the_standards_schema(kind: str) -> None:
    root = ElementTree.fromstring(as_xml(message_of(EVENTS[kind][0], US)))
    assert "AuditMessage" == root.tag
    for element in root.iter():
        must, may, inside = SCHEMA[element.tag]
        assert must <= set(element.keys()) <= must | may
        assert re.fullmatch(inside, "".join(f"{each.tag} " for each in element))


def test_details_are_base64_in_xml_and_what_xml_cannot_say_is_replaced() -> None:
    caller = Party(name="A\x00\ud800<&>\x1f", address="10.0.0.1")
    event = audit.association_refused(caller, called="X\n<Y/>", reason="no", at=AT)
    root = ElementTree.fromstring(as_xml(message_of(event, US)))
    (detail,) = root.iter("ParticipantObjectDetail")
    assert b"X\n<Y/>" == base64.b64decode(detail.attrib["value"])
    assert "A\ufffd\ufffd<&>\ufffd" == root.findall("ActiveParticipant")[1].attrib["UserID"]


def test_what_a_header_holds_instead_of_a_text_becomes_one() -> None:
    several: Any = MultiValue(str, ["P1", "P2"])
    message = message_of(audit.instances_received(SCANNER, replace(SHARE, patient_id=several), at=AT), US)
    assert "['P1', 'P2']" == message["ParticipantObjectIdentification"][1]["ParticipantObjectID"]
    assert message == json.loads(json.dumps(message))


def test_an_endless_text_from_the_network_is_clipped() -> None:
    share = StudyShare(study_instance_uid="1.2.3", patient_id="P" * 100_000)
    caller = Party(name="CT01", address="10.1.2.3")
    message = message_of(audit.instances_received(caller, share, at=AT, problem="x" * 100_000), US)
    assert len(json.dumps(message)) < 4000
