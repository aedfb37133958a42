"""Does the statement say of each status what it is answered for? Each case is done, and looked up under what came."""

from collections.abc import Callable

import pytest

from pacs_bridge.commitment import (
    ALL_COMMITTED,
    DUPLICATE_TRANSACTION,
    MOST_REFERENCES,
    CommitmentReport,
    CommitmentRequest,
    Reference,
    Said,
    own_outcome,
    relayed_outcome,
    written_report,
    written_request,
)
from pacs_bridge.commitment_testing import CT, SR, House, MakeHouse, caller, ct
from pacs_bridge.conformance_services import COMMITMENT_REASONS, N_ANSWERS
from pacs_bridge.negotiation import STORAGE_COMMITMENT

_BY_THE_RECEIVER = {"0x0110", "0x0122"}
"""Answered before, or instead of, this service; see test_conformance.py."""


def _asked(*references: Reference) -> bytes:
    return written_request(CommitmentRequest(transaction_uid="1.9.1", references=references))


def _reported() -> bytes:
    return written_report(CommitmentReport(transaction_uid="1.9.1", outcomes={ct(1): 0})).dataset


def _stolen(house: House) -> int:
    """Report under a Transaction UID that nobody knows."""
    return house.serve("n_event_report", ALL_COMMITTED, _reported())


CASES: dict[str, Callable[[House], int]] = {
    "the request is taken on": lambda house: house.ask(ct(1)),
    "on another instance than the well-known one": lambda house: house.serve(
        "n_action", 1, _asked(ct(1)), sop_instance_uid="1.2.3"
    ),
    "a report of a type other than 1 and 2": lambda house: house.serve("n_event_report", 3, _reported()),
    "it cannot be read": lambda house: house.serve("n_action", 1, b"\1"),
    "names nothing": lambda house: house.serve("n_action", 1, _asked()),
    "a report on no transaction of its sender": _stolen,
    "an Action Type ID other than 1": lambda house: house.serve("n_action", 2, _asked(ct(1))),
    "the caller's commitment is off": lambda house: house.ask(ct(1), calling_ae="CT02"),
    "anything but N-ACTION and N-EVENT-REPORT": lambda house: house.serve("n_create", 0, b""),
    "more than 20,000 instances at once": lambda house: house.ask(*map(ct, range(MOST_REFERENCES + 1))),
}


@pytest.mark.parametrize("case", CASES)
def test_a_request_is_answered_with_the_status_that_stands_beside_its_case(own: House, case: str) -> None:
    answered = f"0x{CASES[case](own):04X}"
    told = [each.code for each in N_ANSWERS[STORAGE_COMMITMENT] if case in each.when]
    assert [answered] == told


def test_no_status_of_a_request_stands_there_that_is_never_answered(make_house: MakeHouse) -> None:
    house = make_house(caller("own"))
    answered = {f"0x{of(house):04X}" for of in CASES.values()} | _BY_THE_RECEIVER
    assert answered == {each.code for each in N_ANSWERS[STORAGE_COMMITMENT]}


def _reused(house: House) -> int:
    house.ask(ct(1))
    house.ask(ct(2))
    house.run_until(90)
    (reason,) = {outcome for _, report in house.told for outcome in report.outcomes.values()} & {DUPLICATE_TRANSACTION}
    return reason


REASONS: dict[str, Callable[[House], int | None]] = {
    "its file is gone, or did not reach the disk": lambda _: own_outcome(ct(1), held_class=CT, has_file=False),
    "no destination spoke in time": lambda _: relayed_outcome([Said()], rounds=1, is_due=True),
    "it was never received": lambda _: own_outcome(ct(1), held_class=None, has_file=False),
    "it is known with another SOP class": lambda _: own_outcome(ct(1), held_class=SR, has_file=True),
    "the same Transaction UID with other instances": _reused,
}


@pytest.mark.parametrize("case", REASONS)
def test_an_instance_fails_with_the_reason_that_stands_beside_its_case(own: House, case: str) -> None:
    told = [each.code for each in COMMITMENT_REASONS if case in each.when]
    assert [f"0x{REASONS[case](own):04X}"] == told


@pytest.mark.parametrize("reason", [each.code for each in COMMITMENT_REASONS if each.code != "any other"])
def test_a_reason_of_a_destination_is_passed_on_as_it_is(reason: str) -> None:
    said = Said(outcome=int(reason, 16), failures=9)
    assert int(reason, 16) == relayed_outcome([said], rounds=1, is_due=False)
