"""Is storage commitment read and written as the standard has it, and decided so that nobody deletes too soon?"""

from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pynetdicom.dsutils import decode, encode

from pacs_bridge.commitment import (
    CLASS_INSTANCE_CONFLICT,
    COMMITTED,
    HOPELESS,
    INVALID_ARGUMENT,
    MOST_REFERENCES,
    NO_SUCH_ACTION_TYPE,
    NO_SUCH_EVENT_TYPE,
    NO_SUCH_INSTANCE,
    PROCESSING_FAILURE,
    PUSH_MODEL,
    PUSH_MODEL_INSTANCE,
    RESOURCE_LIMITATION,
    CommitmentReport,
    CommitmentRequest,
    Placed,
    Reference,
    Refused,
    Said,
    declared_series,
    keepers,
    own_outcome,
    read_report,
    read_request,
    relayed_outcome,
    worded,
    written_report,
    written_request,
)
from pacs_bridge.services import ServiceRequest

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
BIG, DEFLATED = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
CT, SR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.88.67"
NOW = datetime(2026, 1, 1, tzinfo=UTC)

uids = st.integers(1, 10**30).map(lambda n: f"2.25.{n}")
references = st.builds(Reference, sop_class_uid=st.sampled_from((CT, SR)), sop_instance_uid=uids)
many = st.lists(references, min_size=1, max_size=8, unique_by=lambda each: each.sop_instance_uid).map(tuple)
requests = st.builds(CommitmentRequest, transaction_uid=uids, references=many)
failures = st.sampled_from((PROCESSING_FAILURE, NO_SUCH_INSTANCE, CLASS_INSTANCE_CONFLICT, RESOURCE_LIMITATION, 0xA123))
reports = many.flatmap(
    lambda named: st.builds(
        CommitmentReport,
        transaction_uid=uids,
        outcomes=st.fixed_dictionaries({each: st.just(COMMITTED) | failures for each in named}),
    )
)


def action(dataset: bytes, transfer_syntax: str = IMPLICIT, **overrides: Any) -> ServiceRequest:
    request: dict[str, Any] = {
        "kind": "n_action",
        "sop_class_uid": PUSH_MODEL,
        "sop_instance_uid": PUSH_MODEL_INSTANCE,
        "type_id": 1,
        "dataset": dataset,
        "transfer_syntax": transfer_syntax,
        "calling_ae": "CT01",
        "address": "127.0.0.1",
        "association": "A",
    }
    return ServiceRequest(**{**request, **overrides})


def information(**elements: Any) -> Dataset:
    content = Dataset()
    for keyword, value in elements.items():
        setattr(content, keyword, value)
    return content


def encoded(content: Dataset, transfer_syntax: str = IMPLICIT) -> bytes:
    plain = encode(content, transfer_syntax == IMPLICIT, transfer_syntax != BIG, transfer_syntax == DEFLATED)
    assert plain is not None
    return bytes(plain)


def named(sop_class: str = CT, instance: str = "1.2.3", **more: Any) -> Dataset:
    return information(ReferencedSOPClassUID=sop_class, ReferencedSOPInstanceUID=instance, **more)


def refusal(dataset: bytes, **overrides: Any) -> int:
    with pytest.raises(Refused) as refused:
        read_request(action(dataset, **overrides))
    return refused.value.status


# ---- bytes ----------------------------------------------------------------------------------------------------------


@given(requests)
def test_a_request_that_is_written_is_read_the_same(request: CommitmentRequest) -> None:
    assert request == read_request(action(written_request(request)))


@given(requests, st.sampled_from((IMPLICIT, EXPLICIT, BIG, DEFLATED)))
def test_a_request_is_read_in_every_transfer_syntax(request: CommitmentRequest, syntax: str) -> None:
    content = decode(BytesIO(written_request(request)), True, True)  # noqa: FBT003 - pynetdicom's own
    content.walk(lambda *_: None)
    assert request == read_request(action(encoded(content, syntax), syntax))


@given(reports)
def test_a_report_that_is_written_is_read_the_same(report: CommitmentReport) -> None:
    event = written_report(report)
    assert report == read_report(event.dataset, IMPLICIT, event.event_type_id)


@given(reports)
def test_a_report_holds_what_the_standard_wants_of_its_type(report: CommitmentReport) -> None:
    event = written_report(report)
    content = decode(BytesIO(event.dataset), True, True)  # noqa: FBT003 - pynetdicom's own
    failed = [outcome for outcome in report.outcomes.values() if outcome != COMMITTED]
    assert (PUSH_MODEL, PUSH_MODEL_INSTANCE) == (event.sop_class_uid, event.sop_instance_uid)
    assert (2 if failed else 1) == event.event_type_id
    assert report.transaction_uid == content.TransactionUID
    assert failed == [item.FailureReason for item in content.get("FailedSOPSequence", ())]
    assert len(report.outcomes) - len(failed) == len(content.get("ReferencedSOPSequence", ()))
    # Type 1C: a sequence is there with items, or not at all.
    assert all(element.value for element in content if element.VR == "SQ")


@given(requests, st.randoms())
def test_the_order_of_the_references_does_not_tell_requests_apart(request: CommitmentRequest, random: Any) -> None:
    shuffled = list(request.references)
    random.shuffle(shuffled)
    again = CommitmentRequest(transaction_uid="1.2", references=tuple(shuffled))
    fewer = CommitmentRequest(transaction_uid="1.2", references=tuple(shuffled[1:]))
    assert request.digest == again.digest != fewer.digest


@given(st.binary(max_size=200), st.sampled_from((IMPLICIT, EXPLICIT, BIG, DEFLATED)))
def test_bytes_that_are_no_request_are_refused_and_never_raise_anything_else(dataset: bytes, syntax: str) -> None:
    assert refusal(dataset, transfer_syntax=syntax) in (INVALID_ARGUMENT, RESOURCE_LIMITATION)


@given(requests, st.data())
def test_a_damaged_request_is_refused_or_read_and_never_raises_anything_else(
    request: CommitmentRequest, data: st.DataObject
) -> None:
    dataset = bytearray(written_request(request))
    for at in data.draw(st.lists(st.integers(0, len(dataset) - 1), min_size=1, max_size=4)):
        dataset[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(dataset)))
    assert read_or_refused(bytes(dataset[:cut])) in ("read", INVALID_ARGUMENT, RESOURCE_LIMITATION)


def read_or_refused(dataset: bytes) -> str | int:
    try:
        return "read" if read_request(action(dataset)).references else "empty"
    except Refused as refused:
        return refused.status


# ---- malformed ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "status"),
    [
        ({"sop_instance_uid": "1.2.3"}, NO_SUCH_INSTANCE),
        ({"type_id": 2}, NO_SUCH_ACTION_TYPE),
        ({"type_id": None}, NO_SUCH_ACTION_TYPE),
    ],
)
def test_another_instance_or_action_than_the_one_there_is_gets_its_own_status(
    overrides: dict[str, Any], status: int
) -> None:
    whole = encoded(information(TransactionUID="1.2", ReferencedSOPSequence=Sequence([named()])))
    assert status == refusal(whole, **overrides)


@pytest.mark.parametrize(
    "content",
    [
        information(ReferencedSOPSequence=Sequence([named()])),
        information(TransactionUID="1.2"),
        information(TransactionUID="1.2", ReferencedSOPSequence=Sequence([])),
        information(TransactionUID="1.2", ReferencedSOPSequence=Sequence([information(ReferencedSOPClassUID=CT)])),
        information(TransactionUID="1.2", ReferencedSOPSequence=Sequence([named(CT), named(SR)])),
    ],
    ids=["no transaction", "no sequence", "no item", "no instance", "two classes"],
)
def test_a_request_that_lacks_something_is_refused(content: Dataset) -> None:
    assert INVALID_ARGUMENT == refusal(encoded(content))


def test_what_is_no_uid_is_refused() -> None:
    whole = encoded(information(TransactionUID="1.2", ReferencedSOPSequence=Sequence([named(instance="1.2.3")])))
    assert INVALID_ARGUMENT == refusal(whole.replace(b"1.2.3\0", b"../etc"))


def test_an_instance_named_twice_is_one() -> None:
    twice = encoded(information(TransactionUID="1.2", ReferencedSOPSequence=Sequence([named(), named()])))
    assert 1 == len(read_request(action(twice)).references)


def test_more_instances_than_any_study_has_are_refused_for_their_number() -> None:
    item = b"\xfe\xff\x00\xe0\x00\x00\x00\x00"
    items = item * (MOST_REFERENCES + 1)
    sequence = b"\x08\x00\x99\x11" + len(items).to_bytes(4, "little") + items
    assert RESOURCE_LIMITATION == refusal(b"\x08\x00\x95\x11\x04\x00\x00\x001.2\x00" + sequence)


def test_a_report_of_an_unknown_event_is_refused() -> None:
    for event_type in (0, 3, None):
        with pytest.raises(Refused) as refused:
            read_report(b"", IMPLICIT, event_type)
        assert NO_SUCH_EVENT_TYPE == refused.value.status


def test_what_a_report_names_both_as_committed_and_as_failed_has_failed_and_so_has_what_failed_without_reason() -> None:
    both = information(
        TransactionUID="1.2",
        ReferencedSOPSequence=Sequence([named(instance="1.2.3")]),
        FailedSOPSequence=Sequence([named(instance="1.2.3", FailureReason=0x0112), named(instance="1.2.4")]),
    )
    report = read_report(encoded(both), IMPLICIT, 1)
    assert [NO_SUCH_INSTANCE, PROCESSING_FAILURE] == list(report.outcomes.values())


# ---- deciding -------------------------------------------------------------------------------------------------------

outcomes = st.none() | st.just(COMMITTED) | failures
said = st.builds(Said, outcome=outcomes, failures=st.integers(0, 5), awaited=st.booleans(), given_up=st.booleans())


@pytest.mark.parametrize(
    ("held_class", "has_file", "outcome"),
    [
        (None, False, NO_SUCH_INSTANCE),
        (CT, True, COMMITTED),
        (CT, False, PROCESSING_FAILURE),
        (SR, True, CLASS_INSTANCE_CONFLICT),
    ],
)
def test_only_what_the_archive_holds_under_its_class_with_its_file_is_kept(
    held_class: str | None, *, has_file: bool, outcome: int
) -> None:
    reference = Reference(sop_class_uid=CT, sop_instance_uid="1.2.3")
    assert outcome == own_outcome(reference, held_class=held_class, has_file=has_file)


@given(told=st.lists(said), rounds=st.integers(1, 3), is_due=st.booleans())
def test_success_is_relayed_only_where_every_keeper_has_committed(
    told: list[Said], rounds: int, *, is_due: bool
) -> None:
    outcome = relayed_outcome(told, rounds=rounds, is_due=is_due)
    assert (outcome == COMMITTED) == (told != [] and all(each.outcome == COMMITTED for each in told))


names = st.frozensets(st.sampled_from("abcd"))


@given(named=names, to=names)
def test_those_that_an_instance_is_passed_on_to_must_keep_it_else_all(
    named: frozenset[str], to: frozenset[str]
) -> None:
    assert (named & to or named) == keepers(named, to)


@given(st.lists(said), st.integers(1, 3))
def test_when_the_time_is_over_every_instance_has_an_outcome(told: list[Said], rounds: int) -> None:
    assert relayed_outcome(told, rounds=rounds, is_due=True) is not None


@given(st.lists(said), st.integers(1, 3))
def test_a_failure_is_relayed_before_its_time_only_when_a_keeper_has_failed_for_good(
    told: list[Said], rounds: int
) -> None:
    outcome = relayed_outcome(told, rounds=rounds, is_due=False)
    failed = [each for each in told if each.outcome != COMMITTED]
    final = [each for each in failed if each.given_up or each.outcome in HOPELESS or each.failures >= rounds]
    if outcome not in (None, COMMITTED):
        assert final or not told
    if outcome in (CLASS_INSTANCE_CONFLICT, RESOURCE_LIMITATION, NO_SUCH_INSTANCE):
        assert outcome in [each.outcome for each in final]


def test_a_failure_of_what_is_still_on_its_way_says_nothing() -> None:
    early = Said(outcome=NO_SUCH_INSTANCE, failures=99, awaited=True)
    assert relayed_outcome([early], rounds=3, is_due=False) is None
    assert NO_SUCH_INSTANCE == relayed_outcome([early], rounds=3, is_due=True)


# ---- evidence -------------------------------------------------------------------------------------------------------


def placed(series: str, instance: str) -> Placed:
    return Placed(study="1.9", series=series, reference=Reference(sop_class_uid=CT, sop_instance_uid=instance))


def asked(*references: Reference) -> CommitmentRequest:
    return CommitmentRequest(transaction_uid="1.2", references=references)


def ct(instance: str) -> Reference:
    return Reference(sop_class_uid=CT, sop_instance_uid=instance)


def test_a_request_about_what_is_here_declares_each_series() -> None:
    request = asked(ct("1.1"), ct("1.2"), ct("2.1"))
    arriving = [placed("1", "1.1"), placed("1", "1.2"), placed("2", "2.1")]
    told = declared_series(request, {"1.1", "1.2", "2.1"}, arriving, at=NOW)
    assert [("1", {"1.1", "1.2"}), ("2", {"2.1"})] == [(each.series, set(each.sop_instance_uids)) for each in told]


def test_what_is_not_here_yet_belongs_to_the_only_series_of_the_request_and_to_none_of_several() -> None:
    two = [placed("1", "1.1"), placed("2", "2.1")]
    (alone,) = declared_series(asked(ct("1.1"), ct("1.2")), {"1.1"}, two[:1], at=NOW)
    assert {"1.1", "1.2"} == alone.sop_instance_uids
    assert () == declared_series(asked(ct("1.1"), ct("2.1"), ct("9.9")), {"1.1", "2.1"}, two, at=NOW)


def test_a_dose_report_that_goes_elsewhere_is_waited_for_by_no_series() -> None:
    request = asked(ct("1.1"), Reference(sop_class_uid=SR, sop_instance_uid="7.7"))
    (alone,) = declared_series(request, {"1.1"}, [placed("1", "1.1")], at=NOW)
    assert {"1.1"} == alone.sop_instance_uids


def test_failures_are_worded_without_names() -> None:
    text = worded({ct("1.2.3"): NO_SUCH_INSTANCE, ct("1.2.4"): 0xA123})
    assert "2 objects (0x0112 no such object instance, 0xA123 a reason of its own)" == text
