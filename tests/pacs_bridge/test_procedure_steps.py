"""What a scanner's procedure step says, what it hears, and what its lists make of the arrival."""

import sqlite3
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from pacs_bridge.arrival import ExpectedInstances
from pacs_bridge.procedure_steps import (
    MODALITY_PERFORMED_PROCEDURE_STEP,
    StepAnswer,
    StepRefused,
    attributes_of,
    changed,
    created,
    lists_of,
)
from pacs_bridge.procedure_steps_service import ProcedureSteps
from pacs_bridge.services import ServiceAnswer, ServiceRequest

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
CT_IMAGE, DOSE_SR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.88.67"
AT = datetime(2026, 1, 1, tzinfo=UTC)
_SCHEDULED, _ITEM = b"\x40\x00\x70\x02", b"\xfe\xff\x00\xe0"


def data_set(**values: object) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        if value is not None:
            setattr(made, keyword, value)
    return made


def begun(**changes: object) -> Dataset:
    """Return the attributes of an N-CREATE; a change to None leaves one out."""
    values: dict[str, object] = {
        "ScheduledStepAttributesSequence": [data_set(StudyInstanceUID="1.2.3", AccessionNumber="A1")],
        "PatientName": "Núñez^María",
        "SpecificCharacterSet": "ISO_IR 100",
        "PerformedProcedureStepID": "PPS1",
        "PerformedStationAETitle": "CT01",
        "PerformedProcedureStepStartDate": "20260101",
        "PerformedProcedureStepStartTime": "120000",
        "PerformedProcedureStepStatus": "IN PROGRESS",
        "Modality": "CT",
        "PerformedSeriesSequence": [],
    }
    return data_set(**(values | changes))


def series(uid: str, *images: str, others: tuple[str, ...] = ()) -> Dataset:
    return data_set(
        SeriesInstanceUID=uid,
        ProtocolName="Head",
        ReferencedImageSequence=[_reference(CT_IMAGE, each) for each in images],
        ReferencedNonImageCompositeSOPInstanceSequence=[_reference(DOSE_SR, each) for each in others],
    )


def _reference(sop_class: str, uid: str) -> Dataset:
    return data_set(ReferencedSOPClassUID=sop_class, ReferencedSOPInstanceUID=uid)


def ended(status: str = "COMPLETED", *performed: Dataset, **changes: object) -> Dataset:
    values: dict[str, object] = {
        "PerformedProcedureStepStatus": status,
        "PerformedProcedureStepEndDate": "20260101",
        "PerformedProcedureStepEndTime": "121500",
        "PerformedSeriesSequence": list(performed) or [series("1.2.3.4", "1.2.3.4.1", "1.2.3.4.2")],
    }
    return data_set(**(values | changes))


def told(change: Dataset, **beginning: object) -> list[ExpectedInstances]:
    return list(lists_of(changed(created(begun(**beginning)), change), AT))


def refusal(act: Callable[[], object]) -> StepAnswer:
    with pytest.raises(StepRefused) as refused:
        act()
    return refused.value.status


# ---- what is said ---------------------------------------------------------------------------------------------------


def test_a_completed_step_declares_the_images_of_each_series() -> None:
    lists = told(ended("COMPLETED", series("1.2.3.4", "1.2.3.4.1", "1.2.3.4.2"), series("1.2.3.5", "1.2.3.5.1")))
    assert [
        ExpectedInstances(
            study="1.2.3", series="1.2.3.4", sop_instance_uids=frozenset({"1.2.3.4.1", "1.2.3.4.2"}), at=AT, whole=True
        ),
        ExpectedInstances(
            study="1.2.3", series="1.2.3.5", sop_instance_uids=frozenset({"1.2.3.5.1"}), at=AT, whole=True
        ),
    ] == lists


def test_other_objects_than_images_are_declared_and_not_waited_for() -> None:
    images, dose = told(ended("COMPLETED", series("1.2.3.4", "1.2.3.4.1"), series("1.2.3.9", others=("1.2.3.9.1",))))
    assert (True, False) == (images.awaited, dose.awaited)
    assert ("1.2.3.9", frozenset({"1.2.3.9.1"})) == (dose.series, dose.sop_instance_uids)


def test_what_a_discontinued_step_made_is_evidence_and_not_waited_for() -> None:
    (images,) = told(ended("DISCONTINUED"))
    assert (True, False) == (images.whole, images.awaited)


def test_a_step_discontinued_before_anything_was_made_declares_nothing() -> None:
    assert [] == told(data_set(PerformedProcedureStepStatus="DISCONTINUED"))


def test_a_step_in_progress_declares_nothing_yet_and_the_end_may_leave_the_series_out() -> None:
    step = changed(created(begun()), data_set(PerformedSeriesSequence=[series("1.2.3.4", "1.2.3.4.1")]))
    assert [] == list(lists_of(step, AT))
    done = changed(step, ended(PerformedSeriesSequence=None))
    assert [frozenset({"1.2.3.4.1"})] == [each.sop_instance_uids for each in lists_of(done, AT)]


def test_series_that_are_set_anew_replace_those_before() -> None:
    step = changed(created(begun()), data_set(PerformedSeriesSequence=[series("1.2.3.4", "1.2.3.4.1")]))
    done = changed(step, ended("COMPLETED", series("1.2.3.5", "1.2.3.5.1")))
    assert ["1.2.3.5"] == [each.series for each in lists_of(done, AT)]


def test_nothing_is_waited_for_where_the_images_may_belong_to_another_study_or_are_no_ct() -> None:
    group = [data_set(StudyInstanceUID=uid) for uid in ("1.2.3", "1.2.9", "1.2.3")]
    both = told(ended(), ScheduledStepAttributesSequence=group)
    assert [("1.2.3", False), ("1.2.9", False)] == [(each.study, each.awaited) for each in both]
    assert [False] == [each.awaited for each in told(ended(), Modality="MR")]


# ---- what is refused ------------------------------------------------------------------------------------------------

REQUIRED = [
    "ScheduledStepAttributesSequence",
    "PerformedProcedureStepID",
    "PerformedStationAETitle",
    "PerformedProcedureStepStartDate",
    "PerformedProcedureStepStartTime",
    "PerformedProcedureStepStatus",
    "Modality",
]


@pytest.mark.parametrize("keyword", REQUIRED)
def test_a_step_needs_its_attributes_of_type_1_with_values(keyword: str) -> None:
    assert StepAnswer.MISSING_ATTRIBUTE == refusal(lambda: created(begun(**{keyword: None})))
    empty: object = [] if keyword.endswith("Sequence") else ""
    assert StepAnswer.MISSING_VALUE == refusal(lambda: created(begun(**{keyword: empty})))


def test_a_step_needs_a_study() -> None:
    nameless = [data_set(AccessionNumber="A1")]
    assert StepAnswer.MISSING_ATTRIBUTE == refusal(lambda: created(begun(ScheduledStepAttributesSequence=nameless)))
    wrong = [data_set(StudyInstanceUID="..")]
    assert StepAnswer.INVALID_VALUE == refusal(lambda: created(begun(ScheduledStepAttributesSequence=wrong)))


def test_attributes_of_type_2_may_be_absent() -> None:
    assert created(begun(PerformedSeriesSequence=None, PatientName=None)) == created(begun())


@pytest.mark.parametrize("status", ["COMPLETED", "DISCONTINUED", "DONE"])
def test_a_step_begins_in_progress(status: str) -> None:
    assert StepAnswer.INVALID_VALUE == refusal(lambda: created(begun(PerformedProcedureStepStatus=status)))


@pytest.mark.parametrize("status", ["COMPLETED", "DISCONTINUED"])
def test_a_step_that_has_ended_does_not_change_any_more(status: str) -> None:
    done = changed(created(begun()), ended(status))
    assert StepAnswer.PROCESSING_FAILURE == refusal(lambda: changed(done, ended(status)))


@pytest.mark.parametrize("keyword", ["PerformedProcedureStepEndDate", "PerformedProcedureStepEndTime"])
def test_a_completed_step_has_an_end(keyword: str) -> None:
    step = created(begun())
    assert StepAnswer.MISSING_ATTRIBUTE == refusal(lambda: changed(step, ended("COMPLETED", **{keyword: None})))


def test_a_completed_step_has_a_series_though_it_may_be_empty() -> None:
    step = created(begun())
    none = ended(PerformedSeriesSequence=[])
    assert StepAnswer.MISSING_ATTRIBUTE == refusal(lambda: changed(step, none))
    assert [] == list(lists_of(changed(step, ended("COMPLETED", series("1.2.3.4"))), AT))


@pytest.mark.parametrize("uid", ["", "1..2x", "1" * 65])
def test_a_name_that_is_no_uid_is_refused(uid: str) -> None:
    step = created(begun())
    wrong = {StepAnswer.INVALID_VALUE, StepAnswer.MISSING_VALUE}
    assert refusal(lambda: changed(step, ended("COMPLETED", series(uid)))) in wrong
    assert StepAnswer.INVALID_VALUE == refusal(lambda: changed(step, ended("COMPLETED", series("1.2", uid))))


def test_an_unknown_status_is_refused() -> None:
    step = created(begun())
    assert StepAnswer.INVALID_VALUE == refusal(lambda: changed(step, ended("ABANDONED")))


# ---- bytes ----------------------------------------------------------------------------------------------------------


def encoded(attributes: Dataset, syntax: str) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = syntax != BIG, syntax == IMPLICIT
    write_dataset(buffer, attributes)
    return buffer.getvalue()


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG])
def test_a_step_says_the_same_in_any_transfer_syntax(syntax: str) -> None:
    step = created(attributes_of(encoded(begun(), syntax), syntax))
    done = changed(step, attributes_of(encoded(ended(), syntax), syntax))
    assert done == changed(created(begun()), ended())


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=150)
@given(st.data())
def test_damaged_bytes_are_refused_or_read_and_nothing_else(data: st.DataObject) -> None:
    syntax = data.draw(st.sampled_from([IMPLICIT, EXPLICIT, BIG]))
    content = bytearray(encoded(begun(PerformedSeriesSequence=[series("1.2.3.4", "1.2.3.4.1")]), syntax))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=8)):
        content[place] = data.draw(st.integers(0, 255))
    cut = bytes(content[: data.draw(st.integers(0, len(content)))])
    with suppress(StepRefused):
        created(attributes_of(cut, syntax))


def test_deep_nesting_is_refused() -> None:
    nested = b""
    for _ in range(5000):
        nested = _ITEM + struct.pack("<L", len(nested)) + nested
        nested = _SCHEDULED + struct.pack("<L", len(nested)) + nested
    whole = encoded(begun(ScheduledStepAttributesSequence=None), IMPLICIT) + nested
    assert StepAnswer.MISSING_ATTRIBUTE == refusal(lambda: created(attributes_of(whole, IMPLICIT)))
    undefined = b"\xff" * 4
    endless = _SCHEDULED + undefined + (_ITEM + undefined + _SCHEDULED + undefined) * 99
    assert StepAnswer.PROCESSING_FAILURE == refusal(lambda: attributes_of(endless, IMPLICIT))


# ---- the service ----------------------------------------------------------------------------------------------------


@pytest.fixture
def steps(bridge: Any) -> ProcedureSteps:
    return ProcedureSteps(bridge.database, declare=bridge.intake.declared, now=bridge.clock)


def request(kind: Any, attributes: Dataset, uid: str = "1.2.7", syntax: str = EXPLICIT) -> ServiceRequest:
    return ServiceRequest(
        kind=kind,
        sop_class_uid=MODALITY_PERFORMED_PROCEDURE_STEP,
        sop_instance_uid=uid,
        type_id=None,
        dataset=encoded(attributes, syntax),
        transfer_syntax=syntax,
        calling_ae="CT01",
        address="127.0.0.1",
        association="M",
    )


def test_a_step_is_created_once_and_completed_once(steps: ProcedureSteps) -> None:
    assert ServiceAnswer(status=0, sop_instance_uid="1.2.7") == steps(request("n_create", begun()))
    assert 0x0111 == steps(request("n_create", begun())).status
    assert 0 == steps(request("n_set", ended(), syntax=IMPLICIT)).status
    assert 0x0110 == steps(request("n_set", ended())).status
    done = steps.step("1.2.7")
    assert done is not None
    assert done == changed(created(begun()), ended())


def test_a_step_nobody_created_is_unknown(steps: ProcedureSteps) -> None:
    assert 0x0112 == steps(request("n_set", ended())).status
    assert steps.step("1.2.7") is None


def test_a_step_is_changed_by_its_creator_only(steps: ProcedureSteps) -> None:
    steps(request("n_create", begun()))
    assert 0x0124 == steps(replace(request("n_set", ended()), calling_ae="CT02")).status
    assert steps.step("1.2.7") == created(begun())
    assert 0 == steps(request("n_set", ended())).status


def test_a_step_without_a_name_is_given_one(steps: ProcedureSteps) -> None:
    answer = steps(request("n_create", begun(), uid=""))
    assert answer.sop_instance_uid
    assert steps.step(answer.sop_instance_uid) == created(begun())


def test_a_name_that_is_none_and_other_services_are_refused(steps: ProcedureSteps) -> None:
    assert 0x0117 == steps(request("n_create", begun(), uid="no uid")).status
    assert 0x0120 == steps(request("n_create", begun(Modality=None))).status
    assert 0x0211 == steps(request("n_action", begun())).status


def test_a_restart_knows_the_steps(make_bridge: Any) -> None:
    for kind, attributes in (("n_create", begun()), ("n_set", ended())):
        bridge = make_bridge()
        steps = ProcedureSteps(bridge.database, declare=bridge.intake.declared, now=bridge.clock)
        assert 0 == steps(request(kind, attributes)).status
    assert "COMPLETED" == getattr(steps.step("1.2.7"), "status", None)


def test_a_list_that_cannot_be_kept_leaves_the_step_in_progress_to_be_tried_again(bridge: Any) -> None:
    full = [sqlite3.OperationalError("database or disk is full")]
    kept: list[ExpectedInstances] = []

    def declare(each: ExpectedInstances) -> None:
        if full:
            raise full.pop()
        kept.append(each)

    steps = ProcedureSteps(bridge.database, declare=declare, now=bridge.clock)
    steps(request("n_create", begun()))
    assert 0x0213 == steps(request("n_set", ended())).status
    assert steps.step("1.2.7") == created(begun())
    assert (0, 1) == (steps(request("n_set", ended())).status, len(kept))


def test_steps_too_old_to_end_are_forgotten(bridge: Any, steps: ProcedureSteps) -> None:
    steps(request("n_create", begun()))
    bridge.clock.advance(31 * 86400)
    steps(request("n_create", begun(), uid="1.2.8"))
    assert [True, False] == [steps.step(uid) is None for uid in ("1.2.7", "1.2.8")]
