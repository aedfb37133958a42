"""Do rules of forwarding name the right destinations, whatever order things come in?"""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacs_bridge.forward_rules import ForwardFacts, ForwardRules, Verdict, rules_of
from pacs_bridge.settings import Destination, Forward, Settings
from pipeline.model import Priority

AE_TITLES = {"pacs": "PACS", "backup": "BACKUP", "far": "CT01"}
HEAD = ForwardFacts(caller="CT01", modality="CT", descriptions=("Head trauma", "axial 0.6"))
BLEED = Verdict(findings=frozenset({"hemorrhage"}), priority=Priority.STAT)
CLEAR = Verdict(findings=frozenset(), priority=Priority.ROUTINE)

facts = st.builds(
    ForwardFacts,
    caller=st.sampled_from(["CT01", "CT02", "PACS", "BACKUP "]),
    modality=st.sampled_from(["CT", "MR", ""]),
    descriptions=st.tuples(st.sampled_from(["Head trauma", ""]), st.sampled_from(["axial", "scout", ""])),
)
verdicts = st.lists(
    st.builds(
        Verdict,
        findings=st.frozensets(st.sampled_from(["hemorrhage", "fracture"])),
        priority=st.none() | st.sampled_from(Priority),
    ),
    max_size=3,
)
rules = st.builds(
    Forward,
    to=st.sampled_from(sorted(AE_TITLES)),
    caller=st.none() | st.sampled_from(["CT01", "CT02"]),
    modality=st.none() | st.sampled_from(["CT", "mr"]),
    description=st.none() | st.sampled_from(["HEAD", "scout"]),
    finding=st.none() | st.sampled_from(["any", "hemorrhage"]),
    priority=st.none() | st.sampled_from(Priority),
)


def chosen(rule: Forward, of: ForwardFacts = HEAD, *said: Verdict) -> tuple[str, ...]:
    return ForwardRules(rules=(rule,), ae_titles=AE_TITLES).destinations(of, said)


@pytest.mark.parametrize(
    ("conditions", "matches"),
    [
        ({}, True),
        ({"caller": "CT01"}, True),
        ({"caller": "CT02"}, False),
        ({"modality": "ct"}, True),
        ({"modality": "MR"}, False),
        ({"description": "HEAD TR"}, True),
        ({"description": "AXIAL"}, True),
        ({"description": "abdomen"}, False),
        ({"caller": "CT01", "modality": "MR"}, False),
    ],
)
def test_all_conditions_that_are_given_must_hold(conditions: dict[str, str], matches: bool) -> None:  # noqa: FBT001
    assert (("pacs",) if matches else ()) == chosen(Forward.model_validate({"to": "pacs", **conditions}))


@pytest.mark.parametrize(
    ("conditions", "matches"),
    [
        ({"finding": "any"}, True),
        ({"finding": "Hemorrhage"}, True),
        ({"finding": "fracture"}, False),
        ({"priority": "stat"}, True),
        ({"priority": "urgent"}, False),
        ({"finding": "any", "priority": "stat"}, True),
    ],
)
def test_what_a_report_says_is_asked_only_of_reports(conditions: dict[str, str], matches: bool) -> None:  # noqa: FBT001
    rule = Forward.model_validate({"to": "pacs", **conditions})
    assert () == chosen(rule)
    assert () == chosen(rule, HEAD, replace(CLEAR, priority=None))
    assert (("pacs",) if matches else ()) == chosen(rule, HEAD, CLEAR, BLEED)


def test_finding_and_priority_must_hold_in_one_version() -> None:
    rule = Forward(to="pacs", finding="hemorrhage", priority=Priority.URGENT)
    assert () == chosen(rule, HEAD, BLEED, Verdict(findings=frozenset(), priority=Priority.URGENT))


@given(rules=st.lists(rules, max_size=4), facts=facts, verdicts=verdicts)
@settings(max_examples=200)
def test_nothing_goes_back_to_its_sender_and_nothing_goes_twice(
    rules: list[Forward], facts: ForwardFacts, verdicts: list[Verdict]
) -> None:
    names = ForwardRules(rules=tuple(rules), ae_titles=AE_TITLES).destinations(facts, verdicts)
    assert len(set(names)) == len(names)
    assert facts.caller.strip() not in {AE_TITLES[name] for name in names}


@given(rules=st.lists(rules, max_size=4), more=rules, facts=facts, verdicts=verdicts)
@settings(max_examples=200)
def test_more_rules_and_more_verdicts_never_take_a_destination_away(
    rules: list[Forward], more: Forward, facts: ForwardFacts, verdicts: list[Verdict]
) -> None:
    few = set(ForwardRules(rules=tuple(rules), ae_titles=AE_TITLES).destinations(facts, verdicts[1:]))
    many = ForwardRules(rules=(more, *rules), ae_titles=AE_TITLES)
    assert few <= set(many.destinations(facts, verdicts[::-1]))
    assert many.destinations(facts, verdicts) == many.destinations(facts, verdicts[::-1])


@given(rule=rules, facts=facts, verdicts=verdicts)
@settings(max_examples=200)
def test_a_condition_taken_away_never_narrows_a_rule(
    rule: Forward, facts: ForwardFacts, verdicts: list[Verdict]
) -> None:
    for condition in ("caller", "modality", "description", "finding", "priority"):
        wider = rule.model_copy(update={condition: None})
        assert set(chosen(rule, facts, *verdicts)) <= set(chosen(wider, facts, *verdicts))


def test_rules_come_from_the_settings() -> None:
    pacs = Destination(name="pacs", ae_title="PACS", host="h", port=1)
    asked = rules_of(Settings(destination=(pacs,), forward=(Forward(to="pacs", finding="any"),)))
    assert ({"pacs": "PACS"}, True) == (asked.ae_titles, asked.ask_for_verdicts)
    assert not rules_of(Settings(destination=(pacs,), forward=(Forward(to="pacs"),))).ask_for_verdicts
