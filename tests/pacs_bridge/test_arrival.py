"""When is a series held to be complete, and on which evidence?"""

from dataclasses import replace
from pathlib import Path
from random import Random
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs_bridge.arrival import (
    NOTHING,
    Event,
    Evidence,
    ExpectedInstances,
    InstanceStored,
    SeriesComplete,
    SeriesReopened,
    StudyQuiet,
    handle,
)
from pacs_bridge.instance import read_facts
from pacs_bridge.intake import _event
from pacs_bridge.part10 import read_file
from tests.pacs_bridge.arrivals import (
    LIMITS,
    START,
    aborted,
    after,
    evidence_of,
    instance,
    released,
    restored,
    run,
    slices,
    tick,
)


def test_evenly_spaced_numbered_slices_are_complete_when_their_association_is_released() -> None:
    _, told = run(*slices(1, 2, 3), released())
    assert [Evidence.CONTIGUOUS] == evidence_of(told)


def test_nothing_is_complete_while_the_association_is_open() -> None:
    _, told = run(*slices(1, 2, 3), tick(59))
    assert told == []


def test_an_aborted_association_leaves_it_to_the_quiet_period() -> None:
    state, told = run(*slices(1, 2, 3), aborted(), tick(59))
    assert told == []
    _, told = run(tick(60), state=state)
    assert [Evidence.QUIET_PERIOD] == evidence_of(told)


def test_a_hole_in_the_numbers_waits_for_the_quiet_period() -> None:
    state, told = run(*slices(1, 2, 4), released(), tick(59))
    assert told == []
    _, told = run(tick(60), state=state)
    assert [Evidence.QUIET_PERIOD] == evidence_of(told)


def test_uneven_positions_wait_for_the_quiet_period() -> None:
    uneven = replace(instance(3), position_mm=30.0)
    _, told = run(*slices(1, 2), uneven, *slices(4), released(), tick(59))
    assert told == []


@pytest.fixture(scope="module")
def stepped(shared_data: Path) -> list[InstanceStored]:
    """Return what a real tilted head makes of the arrival: 14 slices of 4 mm, then 14 of 7 mm."""
    files = [read_file(path) for path in sorted((shared_data / "head_ge_tilted").rglob("*.dcm"))]
    facts = [read_facts(file.path.read_bytes()[file.offset :], file.transfer_syntax) for file in files]
    return [_event(each, "A", START) for each in facts]


def test_a_real_head_in_steps_of_two_thicknesses_is_complete_at_the_release(stepped: list[InstanceStored]) -> None:
    assert {4.0, 7.0} == {each.slice_thickness_mm for each in stepped}
    _, told = run(*stepped, released())
    assert ([Evidence.CONTIGUOUS], 28) == (evidence_of(told), len(stepped))


@pytest.mark.parametrize("missing", range(1, 27))
def test_a_slice_missing_inside_it_is_a_gap_however_the_rest_is_numbered(
    stepped: list[InstanceStored], missing: int
) -> None:
    ordered = sorted(stepped, key=lambda each: each.instance_number or 0)
    left = [*ordered[:missing], *ordered[missing + 1 :]]
    assert run(*left, released())[1] == []
    if missing not in (13, 14):  # the two that overlap: without either the others still abut
        renumbered = [replace(each, instance_number=n) for n, each in enumerate(left, 1)]
        assert run(*renumbered, released())[1] == []


@pytest.mark.parametrize(
    ("positions_mm", "thickness_mm", "complete"),
    [
        ((0.0, 5.0, 8.0), 5.0, True),
        ((0.0, 5.5, 8.0), 5.0, True),
        ((0.0, 5.6, 8.0), 5.0, False),
        ((0.0, 0.0, 5.0), 5.0, False),  # the same place twice: a second phase of which more may come
        ((0.0, 5.0, 8.0), None, False),
    ],
)
def test_uneven_slices_are_complete_where_they_abut_or_overlap(
    positions_mm: tuple[float, ...], thickness_mm: float | None, *, complete: bool
) -> None:
    sent = [
        replace(instance(n), position_mm=position, slice_thickness_mm=thickness_mm)
        for n, position in enumerate(positions_mm, 1)
    ]
    _, told = run(*sent, released())
    assert complete == bool(evidence_of(told))


def test_a_missing_first_slice_waits_for_the_quiet_period() -> None:
    _, told = run(*slices(2, 3, 4), released(), tick(59))
    assert told == []


def test_slices_without_positions_wait_for_the_quiet_period() -> None:
    pages = [replace(instance(n), position_mm=None) for n in (1, 2, 3)]
    _, told = run(*pages, released(), tick(59))
    assert told == []


def test_the_promised_number_of_images_is_believed_at_the_release_even_when_uneven() -> None:
    uneven = [replace(instance(n), position_mm=float(n * n), declared_count=3) for n in (1, 2, 3)]
    _, told = run(*uneven, released())
    assert [Evidence.IMAGE_COUNT] == evidence_of(told)


def test_fewer_images_than_promised_wait_although_they_are_contiguous() -> None:
    promised = [replace(instance(n), declared_count=4) for n in (1, 2, 3)]
    _, told = run(*promised, released(), tick(59))
    assert told == []


def test_a_declared_list_is_believed_at_once_and_before_any_release() -> None:
    declared = ExpectedInstances(
        study="1", series="1.1", sop_instance_uids=frozenset({"1.1.1", "1.1.2"}), at=after(0), whole=True
    )
    _, told = run(declared, *slices(1, 2))
    assert [Evidence.DECLARED_LIST] == evidence_of(told)
    _, told = run(*slices(1, 2), declared)
    assert [Evidence.DECLARED_LIST] == evidence_of(told)


def test_a_declared_list_that_never_comes_true_falls_back_after_its_own_time() -> None:
    declared = ExpectedInstances(study="1", series="1.1", sop_instance_uids=frozenset({"9"}), at=after(0))
    state, told = run(declared, *slices(1, 2, 3), released(), tick(599))
    assert told == []
    _, told = run(tick(600), state=state)
    assert [Evidence.QUIET_PERIOD] == evidence_of(told)


def test_a_declared_series_that_never_comes_is_forgotten() -> None:
    declared = ExpectedInstances(study="1", series="1.1", sop_instance_uids=frozenset({"9"}), at=after(0))
    state, told = run(declared, tick(601), tick(602))
    assert told == []
    assert state == NOTHING


def test_a_series_over_several_associations_settles_before_its_geometry_is_believed() -> None:
    one_each: list[Event] = []
    for n in range(1, 6):
        one_each += [instance(n, association=f"A{n}", at=n), released(f"A{n}", at=n)]
    state, told = run(*one_each, tick(9))
    assert told == []
    _, told = run(tick(10), state=state)
    assert [Evidence.CONTIGUOUS] == evidence_of(told)


def test_a_late_slice_reopens_its_series_and_completes_it_anew() -> None:
    state, first = run(*slices(1, 2, 3), released())
    late = instance(4, association="B", at=10)
    state, told = run(late, released("B", at=11), tick(16), state=state)
    assert told[0] == SeriesReopened(study="1", series="1.1")
    assert [Evidence.CONTIGUOUS] == evidence_of(told)
    before, now = first[0], told[1]
    assert isinstance(before, SeriesComplete)
    assert isinstance(now, SeriesComplete)
    assert (4, True) == (now.instances, now.digest != before.digest)


def test_a_duplicate_instance_changes_nothing() -> None:
    state, _ = run(*slices(1, 2, 3), released())
    again, told = run(instance(2, association="B", at=5), released("B", at=6), tick(12), state=state)
    assert (again, told) == (state, [])


def test_a_study_is_quiet_after_all_its_series_on_the_weakest_evidence() -> None:
    scout = replace(instance(1, series="1.2"), position_mm=None)
    state, told = run(*slices(1, 2, 3), scout, released(), tick(59))
    assert [Evidence.CONTIGUOUS] == evidence_of(told)
    state, told = run(tick(60), state=state)
    assert told[-1] == StudyQuiet(study="1", evidence=Evidence.QUIET_PERIOD)
    assert state == NOTHING


def test_two_studies_in_one_association_are_told_apart() -> None:
    other = [instance(n, study="2", series="2.1") for n in (1, 2, 4)]
    _, told = run(*slices(1, 2, 3), *other, released())
    assert [("1", "1.1")] == [(each.study, each.series) for each in told if isinstance(each, SeriesComplete)]


def test_a_restored_open_series_is_not_believed_for_being_contiguous_so_far() -> None:
    stored = [instance(n) for n in (1, 2, 3)]
    _, told = run(tick(5), tick(59), state=restored(stored, at=START))
    assert told == []


def test_a_sender_that_comes_back_after_a_break_is_believed_again() -> None:
    stored = [instance(n) for n in (1, 2, 3)]
    rest = [instance(n, association="B", at=2) for n in (4, 5)]
    _, told = run(*rest, released("B", at=3), tick(9), state=restored(stored, at=START))
    assert [Evidence.CONTIGUOUS] == evidence_of(told)


def test_a_restored_open_series_is_given_the_quiet_period_anew() -> None:
    stored = [instance(n) for n in (1, 2, 4)]
    state, told = run(tick(659), state=restored(stored, at=after(600)))
    assert told == []
    _, told = run(tick(660), state=state)
    assert [Evidence.QUIET_PERIOD] == evidence_of(told)


def test_a_restored_complete_series_is_reopened_by_a_late_slice_only() -> None:
    stored = [instance(n) for n in (1, 2, 3)]
    state = restored(stored, complete={"1.1": Evidence.CONTIGUOUS}, at=START)
    _, told = run(tick(5), instance(2, at=6), state=state)
    assert told == []
    _, told = run(instance(4, association="B", at=6), state=state)
    assert told == [SeriesReopened(study="1", series="1.1")]


@st.composite
def deliveries(draw: st.DrawFn) -> list[InstanceStored]:
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    return [
        instance(n, series=f"1.{number}", association=draw(st.sampled_from("AB")))
        for number, size in enumerate(sizes)
        for n in range(1, size + 1)
    ]


@given(deliveries(), st.randoms(use_true_random=False))
def test_the_order_of_instances_does_not_matter(sent: list[InstanceStored], random: Random) -> None:
    shuffled = random.sample(sent, len(sent))
    ends: list[Event] = [released("A"), released("B"), tick(6), tick(60)]
    assert sorted(map(repr, run(*sent, *ends)[1])) == sorted(map(repr, run(*shuffled, *ends)[1]))


@given(deliveries(), st.lists(st.integers(0, 30)))
def test_duplicates_make_no_instruction(sent: list[InstanceStored], again: list[int]) -> None:
    ends: list[Event] = [released("A"), released("B"), tick(6), tick(60)]
    twice = [*sent, *(sent[index % len(sent)] for index in again)]
    assert run(*sent, *ends)[1] == run(*twice, *ends)[1]


@given(deliveries(), st.sampled_from([released, aborted]), st.sampled_from([released, aborted]))
def test_every_series_completes_once_and_the_study_is_quiet_once(
    sent: list[InstanceStored], end_a: type, end_b: type
) -> None:
    state, told = run(*sent, end_a("A"), end_b("B"), tick(3), tick(6), tick(60), tick(61), tick(500))
    complete = [each.series for each in told if isinstance(each, SeriesComplete)]
    assert sorted({each.series for each in sent}) == sorted(complete)
    assert [StudyQuiet(study="1", evidence=min(evidence_of(told)))] == [e for e in told if isinstance(e, StudyQuiet)]
    assert state == NOTHING


def test_the_four_thousandth_slice_costs_no_more_than_a_few_of_the_first() -> None:
    state, costs = NOTHING, []
    for n in range(1, 4001):
        begun = process_time()
        state, _ = handle(state, instance(n), LIMITS)
        costs.append(process_time() - begun)
    assert sum(costs[2000:]) < 4 * sum(costs[:2000])
