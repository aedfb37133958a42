"""Is this series, this study complete, and on which evidence? Everything that decides it is in this file.

Sans-I/O: `handle(state, event, limits)` returns the next state and what follows from the event. States are values: the
caller keeps the latest. A quiet study is forgotten, and restored from the index when something comes late.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import IntEnum
from functools import singledispatch
from typing import Final

from pacs_bridge.contiguity import contiguous


class Evidence(IntEnum):
    """Why a series is held to be complete, the weakest first."""

    QUIET_PERIOD = 1
    CONTIGUOUS = 2
    IMAGE_COUNT = 3
    DECLARED_LIST = 4

    @property
    def label(self) -> str:
        """Return how it is stored and shown."""
        return self.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long to wait, in seconds.

    ``settle_s``: for a series that came over several associations, how long after the last release its geometry is
    believed, since some senders open an association per image; and how long after its last image a list is believed
    that may be one of several. ``declared_s``: how long a declared list is waited for.
    """

    quiet_s: float = 60.0
    settle_s: float = 5.0
    declared_s: float = 600.0


# ---- events ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceStored:
    """An instance new to the archive, over ``association``; positions along the normal of ``orientation``."""

    study: str
    series: str
    sop_instance_uid: str
    association: str
    at: datetime
    instance_number: int | None = None
    acquisition_number: int | None = None
    position_mm: float | None = None
    orientation: tuple[float, ...] | None = None
    slice_thickness_mm: float | None = None
    declared_count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationReleased:
    """The sender said that it was done."""

    association: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationAborted:
    """The association ended without the sender saying that it was done."""

    association: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedInstances:
    """Somebody declared which instances a series has; several lists of one series add up.

    ``whole``: the list claims to be all of the series (MPPS at its end), and is believed as soon as it is there; else
    there may be more such lists (some scanners ask for storage commitment image by image). ``awaited``: what it names
    and is not there yet is waited for; not where the scanner broke off.
    """

    study: str
    series: str
    sop_instance_uids: frozenset[str]
    at: datetime
    whole: bool = False
    awaited: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """An instance was kept that nobody analyses (no CT, or a result of ours come back): no list waits for it."""

    study: str
    series: str
    sop_instance_uid: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time has passed."""

    now: datetime


Event = InstanceStored | SetAside | AssociationReleased | AssociationAborted | ExpectedInstances | Tick


# ---- instructions ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesComplete:
    """Read this series now. ``digest``: hash of its sorted SOP Instance UIDs; the same instances give the same."""

    study: str
    series: str
    evidence: Evidence
    instances: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesConfirmed:
    """A list names exactly what a series was held to be complete with: nothing to read anew, but a better grade."""

    study: str
    series: str
    evidence: Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesReopened:
    """Something came for a series that was held to be complete: what was made of it will be superseded."""

    study: str
    series: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyQuiet:
    """Every series is complete and nothing came for the quiet period; ``evidence`` is the weakest of its series."""

    study: str
    evidence: Evidence


Instruction = SeriesComplete | SeriesConfirmed | SeriesReopened | StudyQuiet


# ---- state ----------------------------------------------------------------------------------------------------------

_Level = Mapping[str, InstanceStored]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesState:
    """What is known of one series; ``evidence`` is None while it is open.

    ``levels``: its instances by UID, in maps of doubling size, so that adding one to 4,000 copies about a dozen.
    ``associations`` brought instances, ``unreleased`` of them are still open; ``settles_at``: when geometry is asked.
    ``declared``: what lists name, ``whole`` when one claims to be all; ``awaited`` of it is waited for until
    ``awaited_until``. A declared series of which nothing came is kept until ``awaited_until`` as well.
    """

    levels: tuple[_Level, ...] = ()
    evidence: Evidence | None = None
    last_at: datetime | None = None
    associations: frozenset[str] = frozenset()
    unreleased: frozenset[str] = frozenset()
    interrupted: bool = False
    settles_at: datetime | None = None
    declared: frozenset[str] = frozenset()
    whole: bool = False
    awaited: frozenset[str] = frozenset()
    awaited_until: datetime | None = None

    def __len__(self) -> int:
        """Count the instances."""
        return sum(map(len, self.levels))

    def __contains__(self, sop_instance_uid: str) -> bool:
        """Say whether the instance is there."""
        return any(sop_instance_uid in level for level in self.levels)

    def instances(self) -> Iterator[InstanceStored]:
        """Yield the instances in no particular order."""
        for level in self.levels:
            yield from level.values()


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyState:
    """The series of one study, and when something last came for it."""

    series: Mapping[str, SeriesState]
    last_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The studies whose arrival goes on."""

    studies: Mapping[str, StudyState]


NOTHING: Final = State(studies={})
Step = tuple[State, tuple[Instruction, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """What is known of one study that is in no state: its instances, its complete series, and the lists of it."""

    stored: Sequence[InstanceStored] = ()
    complete: Mapping[str, Evidence] = field(default_factory=dict)
    lists: Sequence[ExpectedInstances] = ()


def restore(state: State, remembered: Remembered, limits: Limits, *, at: datetime) -> State:
    """Return ``state`` with one study rebuilt, where anything is known of it.

    A series that is still open counts as interrupted: that its slices so far happen to be contiguous says nothing, for
    nobody said that they were all. Its sender sends the rest again, or the quiet period, anew from ``at``, decides.
    """
    by_series: dict[str, dict[str, InstanceStored]] = {}
    for each in remembered.stored:
        by_series.setdefault(each.series, {})[each.sop_instance_uid] = each
    series = {uid: _restored(found, remembered.complete.get(uid), at) for uid, found in by_series.items()}
    for told in sorted(remembered.lists, key=lambda each: each.at):
        series[told.series] = _told(series.get(told.series, SeriesState()), told, limits)
    study = (remembered.stored or remembered.lists)[0].study if series else ""
    for uid, known in series.items():
        state = _with_series(state, study, uid, known)
    return state


def handle(state: State, event: Event, limits: Limits) -> Step:
    """Return the state after the event, and what is to be done now, in order."""
    return _handle(event, state, limits)


@singledispatch
def _handle(event: object, state: State, limits: Limits) -> Step:
    raise TypeError(f"{type(event).__name__} is no event of the arrival")


@_handle.register
def _(event: InstanceStored, state: State, limits: Limits) -> Step:
    study = state.studies.get(event.study) or StudyState(series={}, last_at=event.at)
    before = study.series.get(event.series, SeriesState())
    if event.sop_instance_uid in before:
        return state, ()
    grown = replace(
        before,
        levels=_added(before.levels, event),
        evidence=None,
        last_at=_later(before.last_at, event.at),
        associations=before.associations | {event.association},
        unreleased=before.unreleased | {event.association},
        # Whoever broke off and comes back on a new association sends the rest.
        interrupted=before.interrupted and event.association in before.associations,
        settles_at=None,
    )
    reopened = [SeriesReopened(study=event.study, series=event.series)] if before.evidence else []
    done = Evidence.DECLARED_LIST if grown.whole and _is_as_declared(grown) else None
    return _concluded(state, event.study, event.series, grown, done, reopened)


@_handle.register
def _(event: ExpectedInstances, state: State, limits: Limits) -> Step:
    before = _series_of(state, event)
    told = _told(SeriesState() if before is None else before, event, limits)
    return _listed(state, event.study, event.series, told)


@_handle.register
def _(event: SetAside, state: State, limits: Limits) -> Step:
    before = _series_of(state, event)
    if before is None or event.sop_instance_uid not in before.declared:
        return state, ()
    other = frozenset({event.sop_instance_uid})
    rest = replace(before, declared=before.declared - other, awaited=before.awaited - other)
    return _listed(state, event.study, event.series, rest)


@_handle.register
def _(event: AssociationReleased, state: State, limits: Limits) -> Step:
    said: list[Instruction] = []
    for study, uid, series in _brought_by(state, event.association):
        rest = series.unreleased - {event.association}
        alone = len(series.associations) == 1
        settles_at = None if rest else event.at + timedelta(seconds=0 if alone else limits.settle_s)
        freed = replace(series, unreleased=rest, settles_at=None if alone else settles_at)
        done = _believed(freed, event.at) if alone and not rest else None
        state, more = _concluded(state, study, uid, freed, done)
        said.extend(more)
    return state, tuple(said)


@_handle.register
def _(event: AssociationAborted, state: State, limits: Limits) -> Step:
    for study, uid, series in _brought_by(state, event.association):
        left = replace(series, unreleased=series.unreleased - {event.association}, interrupted=True, settles_at=None)
        state = _with_series(state, study, uid, left)
    return state, ()


@_handle.register
def _(event: Tick, state: State, limits: Limits) -> Step:
    said: list[Instruction] = []
    for study, uid, series in [found for found in _all_series(state) if found[2].evidence is None]:
        if not len(series):
            state = _without_empty(state, study, uid, event.now)
            continue
        settled = series.settles_at is not None and event.now >= series.settles_at
        done = (_believed(series, event.now) if settled else None) or _waited_for(series, event.now, limits)
        if settled or done:
            state, more = _concluded(state, study, uid, replace(series, settles_at=None), done)
            said.extend(more)
    state, quiet = _quiet_studies(state, event.now, limits)
    return state, (*said, *quiet)


# ---- evidence -------------------------------------------------------------------------------------------------------


def _waited_for(series: SeriesState, now: datetime, limits: Limits) -> Evidence | None:
    """Return what the lapse of time speaks for: the list that nothing was added to, or the quiet period."""
    if _is_as_declared(series) and _silent(series.last_at, now, limits.settle_s):
        return Evidence.DECLARED_LIST
    quiet = not _awaits(series, now) and _silent(series.last_at, now, limits.quiet_s)
    return Evidence.QUIET_PERIOD if quiet else None


def _believed(series: SeriesState, now: datetime) -> Evidence | None:
    """Return what speaks for completeness once the senders have said that they are done; None: wait."""
    if series.evidence or series.unreleased:
        return None
    if _is_as_declared(series):
        return Evidence.DECLARED_LIST
    if series.interrupted or _awaits(series, now):
        return None
    instances = list(series.instances())
    counts = {each.declared_count for each in instances if each.declared_count}
    one_acquisition = len({each.acquisition_number for each in instances}) == 1
    if counts and one_acquisition:
        return Evidence.IMAGE_COUNT if counts == {len(instances)} else None
    return Evidence.CONTIGUOUS if contiguous(instances) else None


def _is_as_declared(series: SeriesState) -> bool:
    """Say whether the lists name exactly what is there: where there is more, they were not all, and prove nothing."""
    named = series.declared
    return bool(named) and len(series) == len(named) and all(uid in series for uid in named)


def _awaits(series: SeriesState, now: datetime) -> bool:
    """Say whether a list is still waited for: beyond the quiet period, up to its own limit. It is no proof."""
    waits = series.awaited_until is not None and now < series.awaited_until
    return waits and not all(uid in series for uid in series.awaited)


def _silent(last_at: datetime | None, now: datetime, seconds: float) -> bool:
    return last_at is None or now - last_at >= timedelta(seconds=seconds)


# ---- state, changed -------------------------------------------------------------------------------------------------


def _concluded(
    state: State,
    study: str,
    uid: str,
    series: SeriesState,
    done: Evidence | None,
    first: Sequence[Instruction] = (),
) -> Step:
    """Put the series into the state, complete where there is evidence."""
    if done is None:
        return _with_series(state, study, uid, series), tuple(first)
    complete = SeriesComplete(
        study=study, series=uid, evidence=done, instances=len(series), digest=_digest(series.instances())
    )
    closed = replace(series, evidence=done, settles_at=None, interrupted=False)
    return _with_series(state, study, uid, closed), (*first, complete)


def _listed(state: State, study: str, uid: str, series: SeriesState) -> Step:
    """Put a series into the state of which lists have changed: complete by them, or known better than before."""
    if series.evidence is None:
        named = series.whole and _is_as_declared(series)  # else it is asked once nothing has come for a while
        return _concluded(state, study, uid, series, Evidence.DECLARED_LIST if named else None)
    if series.evidence is Evidence.DECLARED_LIST or not _is_as_declared(series):
        return _with_series(state, study, uid, series), ()
    better = replace(series, evidence=Evidence.DECLARED_LIST)
    confirmed = SeriesConfirmed(study=study, series=uid, evidence=Evidence.DECLARED_LIST)
    return _with_series(state, study, uid, better), (confirmed,)


def _told(series: SeriesState, event: ExpectedInstances, limits: Limits) -> SeriesState:
    """Add a list to a series. One that names nothing new is no reason to wait longer: else there might be no end."""
    awaited = series.awaited | event.sop_instance_uids if event.awaited else series.awaited
    until = event.at + timedelta(seconds=limits.declared_s)
    is_news = awaited != series.awaited or series.awaited_until is None
    return replace(
        series,
        declared=series.declared | event.sop_instance_uids,
        whole=series.whole or event.whole,
        awaited=awaited,
        awaited_until=until if is_news else series.awaited_until,
        last_at=series.last_at or event.at,
    )


def _quiet_studies(state: State, now: datetime, limits: Limits) -> Step:
    """Say which studies are quiet, and forget them."""
    quiet = []
    for uid, study in state.studies.items():
        # A series that is announced and waited for holds its study as one that is arriving does.
        waits = any(each.evidence is None and (len(each) or _awaits(each, now)) for each in study.series.values())
        if not waits and _silent(study.last_at, now, limits.quiet_s):
            quiet.append((uid, [series.evidence for series in study.series.values() if series.evidence]))
    said = tuple(StudyQuiet(study=uid, evidence=min(grades)) for uid, grades in quiet if grades)
    gone = {uid for uid, _ in quiet}
    left = {uid: study for uid, study in state.studies.items() if uid not in gone} if gone else state.studies
    return State(studies=left), said


def _with_series(state: State, study: str, uid: str, series: SeriesState) -> State:
    known = state.studies.get(study)
    at = series.last_at
    if at is None:
        return state
    others = known.series if known else {}
    last_at = _later(known.last_at if known else None, at)
    return State(studies={**state.studies, study: StudyState(series={**others, uid: series}, last_at=last_at)})


def _without_empty(state: State, study: str, uid: str, now: datetime) -> State:
    """Drop a series that was declared and never came, when its list's time is over, or nothing of it will come."""
    series = state.studies[study].series[uid]
    if series.declared and series.awaited_until is not None and now < series.awaited_until:
        return state
    rest = {other: series for other, series in state.studies[study].series.items() if other != uid}
    return State(studies={**state.studies, study: replace(state.studies[study], series=rest)})


def _series_of(state: State, event: ExpectedInstances | SetAside) -> SeriesState | None:
    study = state.studies.get(event.study)
    return study.series.get(event.series) if study else None


def _brought_by(state: State, association: str) -> list[tuple[str, str, SeriesState]]:
    return [found for found in _all_series(state) if association in found[2].unreleased]


def _all_series(state: State) -> Iterable[tuple[str, str, SeriesState]]:
    for study, of_study in state.studies.items():
        for uid, series in of_study.series.items():
            yield study, uid, series


def _restored(instances: Mapping[str, InstanceStored], evidence: Evidence | None, at: datetime) -> SeriesState:
    return SeriesState(
        levels=(instances,),
        evidence=evidence,
        last_at=max(each.at for each in instances.values()) if evidence else at,
        associations=frozenset(each.association for each in instances.values()),
        interrupted=evidence is None,
    )


def _added(levels: tuple[_Level, ...], instance: InstanceStored) -> tuple[_Level, ...]:
    """Merge maps of like size, as binary counting carries (Bentley and Saxe, 1980)."""
    carried: _Level = {instance.sop_instance_uid: instance}
    while levels and len(levels[-1]) <= len(carried):
        carried = {**levels[-1], **carried}
        levels = levels[:-1]
    return (*levels, carried)


def _digest(instances: Iterable[InstanceStored]) -> str:
    return hashlib.sha256("\n".join(sorted(each.sop_instance_uid for each in instances)).encode()).hexdigest()


def _later(one: datetime | None, other: datetime) -> datetime:
    return other if one is None else max(one, other)
