"""Laws of the arrival: whatever the order of events, with restarts between them, no series is lost or told twice."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from pacs_bridge.arrival import (
    NOTHING,
    AssociationAborted,
    AssociationReleased,
    Event,
    Evidence,
    ExpectedInstances,
    InstanceStored,
    Instruction,
    Remembered,
    SeriesComplete,
    SeriesConfirmed,
    SeriesReopened,
    SetAside,
    State,
    StudyQuiet,
    Tick,
    handle,
    restore,
)
from tests.pacs_bridge.arrivals import LIMITS, after, instance

LONG_AFTER_S = 5000


@dataclass(frozen=True, slots=True)
class Restart:
    """The process ends and another one reads what was kept."""


Happening = Event | Restart


@dataclass(kw_only=True)
class World:
    """An intake without files: it keeps what the index would, and asks the arrival; it checks each step."""

    state: State = NOTHING
    stored: dict[str, InstanceStored] = field(default_factory=dict)
    complete: dict[str, tuple[Evidence, str]] = field(default_factory=dict)
    lists: list[ExpectedInstances] = field(default_factory=list)
    quiet: set[str] = field(default_factory=set)
    told: list[Instruction] = field(default_factory=list)

    def happen(self, what: Happening, at: float) -> None:
        match what:
            case Restart():
                self.state = NOTHING
                for study in sorted({each.study for each in self.stored.values()} - self.quiet):
                    self._recall(study, at)
            case InstanceStored():
                self._store(replace(what, at=after(at)), at)
            case ExpectedInstances():
                self._recall_unknown(what.study, at)
                self.lists.append(replace(what, at=after(at)))
                self._follow(self.lists[-1])
            case Tick():
                self._follow(Tick(now=after(at)))
            case _:
                self._follow(replace(what, at=after(at)))

    def _store(self, event: InstanceStored, at: float) -> None:
        if event.sop_instance_uid in self.stored:
            return
        self._recall_unknown(event.study, at)
        self.stored[event.sop_instance_uid] = event
        self.quiet.discard(event.study)
        was_complete = self.complete.pop(event.series, None) is not None
        said = self._follow(event)
        assert was_complete == (SeriesReopened(study=event.study, series=event.series) in said)

    def _follow(self, event: Event) -> Sequence[Instruction]:
        self.state, said = handle(self.state, event, LIMITS)
        for each in said:
            match each:
                case SeriesComplete():
                    assert each.series not in self.complete
                    assert each.instances == len(self.of(each.series))
                    self.complete[each.series] = (each.evidence, each.digest)
                case SeriesConfirmed():
                    self.quiet.discard(each.study)
                    before, digest = self.complete[each.series]
                    assert before < each.evidence
                    self.complete[each.series] = (each.evidence, digest)
                case StudyQuiet():
                    self.quiet.add(each.study)
        self.told.extend(said)
        return said

    def of(self, series: str) -> set[str]:
        return {uid for uid, each in self.stored.items() if each.series == series}

    def _recall_unknown(self, study: str, at: float) -> None:
        if study not in self.state.studies:
            self._recall(study, at)

    def _recall(self, study: str, at: float) -> None:
        remembered = Remembered(
            stored=[each for each in self.stored.values() if each.study == study],
            complete={series: evidence for series, (evidence, _) in self.complete.items()},
            lists=[each for each in self.lists if each.study == study],
        )
        self.state = restore(self.state, remembered, LIMITS, at=after(at))


SERIES = ("1.1", "1.2", "2.1")
ASSOCIATIONS = ("A", "B", "C")


@st.composite
def lists(draw: st.DrawFn) -> ExpectedInstances:
    series = draw(st.sampled_from(SERIES))
    names = draw(st.frozensets(st.integers(1, 7), min_size=1))
    return ExpectedInstances(
        study=series[0],
        series=series,
        sop_instance_uids=frozenset(f"{series}.{n}" for n in names),
        at=after(0),
        whole=draw(st.booleans()),
        awaited=draw(st.booleans()),
    )


@st.composite
def instances(draw: st.DrawFn) -> InstanceStored:
    series = draw(st.sampled_from(SERIES))
    made = instance(
        draw(st.integers(1, 6)), series=series, study=series[0], association=draw(st.sampled_from(ASSOCIATIONS))
    )
    return replace(made, declared_count=draw(st.sampled_from([None, None, 3, 6])))


def happenings() -> st.SearchStrategy[Happening]:
    association = st.sampled_from(ASSOCIATIONS)
    return st.one_of(
        instances(),
        instances(),
        instances(),
        lists(),
        association.map(lambda each: AssociationReleased(association=each, at=after(0))),
        association.map(lambda each: AssociationAborted(association=each, at=after(0))),
        st.builds(
            SetAside,
            study=st.just("1"),
            series=st.just("1.1"),
            sop_instance_uid=st.just("1.1.7"),
            at=st.just(after(0)),
        ),
        st.just(Tick(now=after(0))),
        st.just(Restart()),
    )


def lived(events: Sequence[tuple[Happening, float]]) -> World:
    """Let things happen, each so many seconds after the one before, and then time pass."""
    world, at = World(), 0.0
    for what, seconds in events:
        at += seconds
        world.happen(what, at)
    for _ in range(4):
        at += LONG_AFTER_S
        world.happen(Tick(now=after(0)), at)
    return world


@settings(max_examples=400)
@given(st.lists(st.tuples(happenings(), st.sampled_from([0.0, 0.5, 4.0, 20.0, 61.0, 700.0])), max_size=40))
def test_every_series_that_received_an_instance_ends_complete_with_all_of_them_and_told_once(
    events: list[tuple[Happening, float]],
) -> None:
    world = lived(events)
    assert {each.series for each in world.stored.values()} == set(world.complete)
    complete = [each for each in world.told if isinstance(each, SeriesComplete)]
    assert len({(each.series, each.digest) for each in complete}) == len(complete)
    last = {each.series: each.instances for each in complete}
    assert {series: len(world.of(series)) for series in world.complete} == last
    assert NOTHING == world.state


@settings(max_examples=200)
@given(st.lists(st.tuples(happenings(), st.sampled_from([0.0, 0.5, 4.0, 20.0, 61.0, 700.0])), max_size=30))
def test_every_study_is_quiet_after_its_last_instance_on_the_weakest_evidence(
    events: list[tuple[Happening, float]],
) -> None:
    world = lived(events)
    for study in {each.study for each in world.stored.values()}:
        quiet = [at for at, each in enumerate(world.told) if isinstance(each, StudyQuiet) and each.study == study]
        told = [at for at, each in enumerate(world.told) if each.study == study]
        assert quiet[-1:] == told[-1:]
        grades = {series: evidence for series, (evidence, _) in world.complete.items() if series[0] == study}
        assert StudyQuiet(study=study, evidence=min(grades.values())) == world.told[quiet[-1]]


@given(st.lists(happenings(), max_size=12), st.data())
def test_permutations_end_with_the_same_sets(events: list[Happening], data: st.DataObject) -> None:
    def ends(order: Sequence[Happening]) -> dict[str, str]:
        return {series: digest for series, (_, digest) in lived([(each, 0.0) for each in order]).complete.items()}

    orders = [events, *(data.draw(st.permutations(events)) for _ in range(3))]
    assert 1 == len({tuple(sorted(ends(order).items())) for order in orders})


def test_every_order_of_a_late_slice_a_release_a_list_and_a_restart_ends_alike() -> None:
    events: tuple[Happening, ...] = (
        instance(1),
        instance(2),
        instance(3, association="B"),
        AssociationReleased(association="A", at=after(0)),
        ExpectedInstances(
            study="1", series="1.1", sop_instance_uids=frozenset({"1.1.1", "1.1.2"}), at=after(0), whole=True
        ),
        Restart(),
    )
    ends = {
        tuple((series, digest) for series, (_, digest) in lived([(each, 1.0) for each in order]).complete.items())
        for order in permutations(events)
    }
    assert 1 == len(ends)
