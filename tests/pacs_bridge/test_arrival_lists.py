"""What do declared lists (MPPS, storage commitment) prove, and how long are they waited for?"""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from pacs_bridge.arrival import (
    NOTHING,
    Event,
    Evidence,
    ExpectedInstances,
    SeriesComplete,
    SeriesConfirmed,
    SeriesReopened,
    SetAside,
    StudyQuiet,
)
from tests.pacs_bridge.arrivals import aborted, after, evidence_of, instance, released, restored, run, slices, tick


def whole(*numbers: int, series: str = "1.1", at: float = 0, awaited: bool = True) -> ExpectedInstances:
    """Return a list that claims to be all of a series, as MPPS does at its end."""
    return replace(part(*numbers, series=series, at=at), whole=True, awaited=awaited)


def part(*numbers: int, series: str = "1.1", at: float = 0) -> ExpectedInstances:
    """Return a list of which there may be more, as in storage commitment."""
    names = frozenset(f"{series}.{n}" for n in numbers)
    return ExpectedInstances(study="1", series=series, sop_instance_uids=names, at=after(at))


def aside(n: int, *, series: str = "1.1", at: float = 0) -> SetAside:
    return SetAside(study="1", series=series, sop_instance_uid=f"{series}.{n}", at=after(at))


def completed(instructions: Iterable[object]) -> list[tuple[str, int]]:
    return [(each.series, each.instances) for each in instructions if isinstance(each, SeriesComplete)]


# ---- before, during, after ------------------------------------------------------------------------------------------

PLACES = [0, 1, 2, 3]


@pytest.mark.parametrize("place", PLACES)
def test_a_whole_list_completes_its_series_at_once_whenever_it_comes(place: int) -> None:
    images = slices(4, 2, 9)
    events = [*images[:place], whole(2, 4, 9), *images[place:]]
    _, told = run(*events)
    assert ([Evidence.DECLARED_LIST], [("1.1", 3)]) == (evidence_of(told), completed(told))


@pytest.mark.parametrize("place", PLACES)
def test_a_list_that_may_be_one_of_several_is_believed_when_nothing_follows(place: int) -> None:
    images = slices(4, 2, 9)
    events = [*images[:place], part(2, 4, 9), *images[place:]]
    state, told = run(*events, tick(4))
    assert [] == told
    _, told = run(tick(5), state=state)
    assert [Evidence.DECLARED_LIST] == evidence_of(told)


def test_such_a_list_is_believed_at_the_release() -> None:
    _, told = run(*slices(4, 2, 9), part(2, 4, 9), released())
    assert [Evidence.DECLARED_LIST] == evidence_of(told)


def test_an_aborted_association_does_not_weaken_a_list() -> None:
    _, told = run(*slices(1, 2), aborted(), whole(1, 2))
    assert [Evidence.DECLARED_LIST] == evidence_of(told)


def test_commitment_asked_for_image_by_image_does_not_complete_a_series_at_every_image() -> None:
    events: list[Event] = []
    for n in range(1, 40):
        events += [instance(n, at=n), part(n, at=n), tick(n)]
    state, told = run(*events)
    assert [] == told
    _, told = run(tick(44), state=state)
    assert ([Evidence.DECLARED_LIST], [("1.1", 39)]) == (evidence_of(told), completed(told))


def test_lists_of_one_series_add_up() -> None:
    state, told = run(part(1, 2), part(3), *slices(1, 2, 3), tick(5))
    assert ([Evidence.DECLARED_LIST], [("1.1", 3)]) == (evidence_of(told), completed(told))
    state, told = run(part(4, at=6), instance(4, association="B", at=7), released("B", at=8), tick(13), state=state)
    assert [SeriesReopened, SeriesComplete] == [type(each) for each in told]


def test_more_images_than_a_list_names_show_that_it_was_not_all() -> None:
    # When two were there, then with the third.
    _, told = run(whole(1, 2), *slices(1, 2, 3), released())
    assert [Evidence.DECLARED_LIST, Evidence.CONTIGUOUS] == evidence_of(told)
    _, told = run(whole(1, 2), *slices(3, 1, 2))
    assert [] == told


def test_a_buggy_list_of_one_image_does_not_complete_a_series_at_every_further_one() -> None:
    _, told = run(whole(1), *slices(*range(1, 100)))
    assert [("1.1", 1)] == completed(told)


# ---- what never comes -----------------------------------------------------------------------------------------------


def test_contiguous_slices_wait_for_the_rest_of_a_list_and_then_no_longer() -> None:
    state, told = run(whole(1, 2, 3, 4), *slices(1, 2, 3), released(), tick(599))
    assert [] == told
    state, told = run(tick(600), state=state)
    assert [Evidence.QUIET_PERIOD] == evidence_of(told)
    assert isinstance(told[-1], StudyQuiet)
    assert NOTHING == state


def test_after_a_lists_time_geometry_is_believed_again() -> None:
    late = [instance(n, at=700, association="B") for n in (2, 3)]
    _, told = run(whole(1, 2, 3, 4), instance(1), *late, released("B", at=701), released("A", at=702), tick(707))
    assert [Evidence.CONTIGUOUS] == evidence_of(told)


def test_a_list_told_again_and_again_is_not_waited_for_without_end() -> None:
    events: list[Event] = [part(1, 9), *slices(1), released()]
    for minute in range(1, 10):
        events += [part(1, 9, at=60 * minute), tick(60 * minute)]
    state, told = run(*events, tick(599))
    assert [] == told
    _, told = run(tick(600), state=state)
    assert [Evidence.QUIET_PERIOD] == evidence_of(told)


def test_a_list_that_names_more_is_given_its_own_time() -> None:
    state, told = run(part(1, 9), *slices(1), part(8, at=500), tick(1099))
    assert [] == told
    assert [Evidence.QUIET_PERIOD] == evidence_of(run(tick(1100), state=state)[1])


def test_a_study_is_not_quiet_while_an_announced_series_is_waited_for() -> None:
    state, told = run(*slices(1, 2, 3), released(), whole(1, 2, series="1.2", at=2), tick(601))
    assert [("1.1", 3)] == completed(told)
    _, told = run(tick(602), state=state)
    assert [StudyQuiet(study="1", evidence=Evidence.CONTIGUOUS)] == told


def test_what_a_broken_off_step_made_is_evidence_and_not_waited_for() -> None:
    broken_off = whole(1, 2, 3, 4, awaited=False)
    _, told = run(broken_off, *slices(1, 2, 3), released())
    assert [Evidence.CONTIGUOUS] == evidence_of(told)
    _, told = run(broken_off, *slices(1, 2, 4, 3))
    assert [Evidence.DECLARED_LIST] == evidence_of(told)
    _, told = run(*slices(1, 2, 3), released(), replace(broken_off, series="1.2"), tick(60))
    assert isinstance(told[-1], StudyQuiet)


# ---- what is kept and not analysed ----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [1, 2, 3])
def test_a_list_does_not_wait_for_what_is_no_ct(place: int) -> None:
    events: list[Event] = [instance(1), instance(2)]
    events.insert(place - 1, aside(3))
    _, told = run(whole(1, 2, 3), *events)
    assert [("1.1", 2)] == completed(told)


def test_a_series_of_nothing_that_is_analysed_does_not_hold_its_study() -> None:
    dose = whole(1, series="1.9")
    state, told = run(*slices(1, 2, 3), dose, released(), aside(1, series="1.9", at=3), tick(60))
    assert [SeriesComplete, StudyQuiet] == [type(each) for each in told]
    assert NOTHING == state


def test_an_instance_set_aside_that_nobody_waits_for_changes_nothing() -> None:
    state, _ = run(*slices(1, 2), whole(1, 2, 3))
    assert (state, ()) == (run(aside(7), state=state)[0], tuple(run(aside(7), state=state)[1]))
    assert NOTHING == run(aside(1))[0]


# ---- the grade ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listed", [whole(1, 2, 3, at=5), part(1, 2, 3, at=5)])
def test_a_list_that_comes_after_the_geometry_was_believed_betters_the_grade(listed: ExpectedInstances) -> None:
    state, _ = run(*slices(1, 2, 3), released())
    state, told = run(listed, state=state)
    assert [SeriesConfirmed(study="1", series="1.1", evidence=Evidence.DECLARED_LIST)] == told
    _, told = run(listed, tick(60), state=state)
    assert [StudyQuiet(study="1", evidence=Evidence.DECLARED_LIST)] == told


def test_a_list_that_names_something_else_leaves_the_grade() -> None:
    state, _ = run(*slices(1, 2, 3), released())
    for listed in (whole(1, 2, at=5), whole(1, 2, 3, 4, at=5)):
        _, told = run(listed, tick(60), state=state)
        assert [StudyQuiet(study="1", evidence=Evidence.CONTIGUOUS)] == told


# ---- a restart ------------------------------------------------------------------------------------------------------


def test_a_list_outlives_a_restart() -> None:
    state = restored([instance(1), instance(2)], lists=[whole(1, 2, 3)], at=after(30))
    _, told = run(instance(3, association="B", at=31), state=state)
    assert [Evidence.DECLARED_LIST] == evidence_of(told)


def test_what_was_there_before_a_restart_is_complete_by_its_list() -> None:
    state = restored([instance(1), instance(9)], lists=[part(1, 9)], at=after(30))
    _, told = run(tick(35), state=state)
    assert [Evidence.DECLARED_LIST] == evidence_of(told)


def test_the_time_of_a_list_does_not_begin_anew_at_a_restart() -> None:
    state = restored([instance(1)], lists=[whole(1, 2)], at=after(580))
    assert [] == run(tick(639), state=state)[1]
    assert [Evidence.QUIET_PERIOD] == evidence_of(run(tick(640), state=state)[1])


def test_a_study_of_which_only_a_list_is_known_waits_for_its_first_image() -> None:
    state = restored([], lists=[whole(1, 2), whole(1, series="1.2")], at=after(30))
    _, told = run(*slices(1, 2), state=state)
    assert [("1.1", 2)] == completed(told)
    assert NOTHING == restored([], at=after(0))


# ---- many reconstructions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("announced", [False, True])
def test_each_of_six_reconstructions_is_complete_when_it_is_there_though_the_last_takes_half_an_hour(
    *, announced: bool
) -> None:
    state, at = NOTHING, 0.0
    for number in range(1, 7):
        at = 300.0 * number
        series = f"1.{number}"
        sent: list[Event] = [
            instance(n, series=series, association=f"A{number}", at=at + n / 10) for n in range(1, 101)
        ]
        end: Event = whole(*range(1, 101), series=series, at=at + 10) if announced else released(f"A{number}", at + 10)
        state, told = run(*sent, tick(at + 9), end, state=state)
        assert [(series, 100)] == completed(told)
    assert 6 == len(state.studies["1"].series)


def test_reconstructions_over_one_association_do_not_wait_for_one_another() -> None:
    state, told = run(*slices(1, 2, 3), tick(59))
    assert [] == told
    others: list[Event] = [instance(n, series="1.2", at=30 + n) for n in range(1, 60)]
    _, told = run(*others, tick(61), state=state)
    assert [("1.1", 3)] == completed(told)  # the quiet period is its own
