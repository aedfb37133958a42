"""What does an instance set off once its file is on the disk?

The index row and whatever its arrival sets off commit together, many instances at once; only then Success.
"""

import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import structlog

from pacs_bridge.archive import Added, Archive, StudyKey
from pacs_bridge.arrival import (
    NOTHING,
    AssociationAborted,
    AssociationReleased,
    Event,
    Evidence,
    ExpectedInstances,
    InstanceStored,
    Instruction,
    Limits,
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
from pacs_bridge.declarations import Declarations
from pacs_bridge.errors import StorageFull
from pacs_bridge.group_commit import GroupCommit
from pacs_bridge.instance import InstanceFacts
from pacs_bridge.receiving.desk import Answer, Entry, no_room
from pacs_bridge.store_status import StoreStatus
from scheduler.database import Database

_log = structlog.get_logger()
SUCCESS = Answer(StoreStatus.SUCCESS)
_BEFORE_THIS_START = "before this start"


def utc_now() -> datetime:
    """Return the present instant."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Consequences:
    """What an arrival sets off. Both are called inside the transaction that notes what happened.

    What they write to the database is committed with it; when one raises, nothing has happened and the sender hears so.
    ``on_new``: an instance is new to the index, whoever made it; with its sender and the instant.
    """

    on_instruction: Callable[[Instruction], None]
    on_new: Callable[[InstanceFacts, str, datetime], object] = lambda _facts, _caller, _at: None


class Intake:
    """Takes instances in. Threads may share it: files are written side by side, the index is kept one at a time."""

    def __init__(
        self,
        archive: Archive,
        database: Database,
        *,
        consequences: Consequences,
        is_ours: Callable[[InstanceFacts], bool],
        limits: Limits,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Take up the studies whose arrival an earlier process left open."""
        self._archive = archive
        self._database = database
        self._consequences = consequences
        self._is_ours = is_ours
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._group = GroupCommit(self._entered)
        self._lists = Declarations(database)
        self._state = NOTHING
        for study in archive.unfinished_studies():
            self._state = self._with_study(self._state, study)

    def enter_later(self, entry: Entry, done: Callable[[Answer], None]) -> None:
        """Put an instance whose file is on the disk into the index; ``done`` hears when that is durable, or failed."""
        self._group.add(entry, done)

    def study_key(self, study: str) -> StudyKey:
        """Return the name under which a study stands in logs, file names and messages."""
        return self._archive.study_key(study)

    def released(self, association: str) -> None:
        """Take note that a sender said it was done."""
        self._advance(AssociationReleased(association=association, at=self._clock()))

    def aborted(self, association: str) -> None:
        """Take note that an association broke off."""
        self._advance(AssociationAborted(association=association, at=self._clock()))

    def declared(self, told: ExpectedInstances) -> None:
        """Take note of a list of a series' instances, for good; not to be called inside a transaction."""
        with self._lock:
            with self._database.transaction():
                state = self._state
                if told.study not in state.studies:
                    state = self._with_study(state, told.study)
                self._lists.keep(told)
                after = self._followed(state, self._without_aside(told, state))
            self._state = after

    def tick(self) -> None:
        """Let time pass; to be called about once a second."""
        self._advance(Tick(now=self._clock()))

    def _entered(self, entries: Sequence[Entry]) -> Sequence[Answer]:
        """Enter what has gathered in one transaction; where that fails, each alone, so that one spoils it for none."""
        with self._lock:
            try:
                self._state = self._in_one_transaction(entries)
            except Exception as problem:  # noqa: BLE001 - the edge: whatever breaks, each sender must hear of it
                if len(entries) == 1:
                    return [_failed(problem, entries[0])]
            else:
                return [SUCCESS] * len(entries)
        return [answer for entry in entries for answer in self._entered([entry])]

    def _in_one_transaction(self, entries: Sequence[Entry]) -> State:
        state, at = self._state, self._clock()
        with self._database.transaction():
            for entry in entries:
                state = self._added(state, entry, at)
        return state

    def _added(self, state: State, entry: Entry, at: datetime) -> State:
        facts = entry.facts
        ours = self._is_ours(facts)
        added = self._archive.add(facts, entry.stored, entry.calling_ae, at, is_ours=ours)
        if added is not Added.NEW:
            return state
        self._consequences.on_new(facts, entry.calling_ae, at)
        event = _event(facts, entry.association, at)
        return self._arrived(state, event) if facts.is_ct and not ours else self._followed(state, _aside(event))

    def _arrived(self, state: State, event: InstanceStored) -> State:
        """Return the arrival's state after an instance new to the index, its consequences carried out."""
        if event.study not in state.studies:
            state = self._with_study(state, event.study, but=event.sop_instance_uid)
        study = state.studies.get(event.study)
        series = study.series.get(event.series) if study else None
        if series is None or series.evidence or not len(series):
            self._archive.set_study_state(event.study, "open")
            self._archive.set_series_state(event.study, event.series, "open")
        return self._followed(state, event)

    def _followed(self, state: State, event: Event) -> State:
        """Return the arrival's state after an event, its consequences carried out; inside the caller's transaction."""
        after, instructions = handle(state, event, self._limits)
        self._carry_out(instructions)
        return after

    def _advance(self, event: Event) -> None:
        with self._lock:
            after, instructions = handle(self._state, event, self._limits)
            if instructions:
                with self._database.transaction():
                    self._carry_out(instructions)
            self._state = after

    def _carry_out(self, instructions: Sequence[Instruction]) -> None:
        for instruction in instructions:
            self._note(instruction)
            self._consequences.on_instruction(instruction)

    def _note(self, instruction: Instruction) -> None:
        study_key = self._archive.study_key(instruction.study)
        match instruction:
            case SeriesComplete(study=study, series=series, evidence=evidence, instances=count):
                self._archive.set_series_state(study, series, "complete", evidence.label)
                _log.info("series_complete", study_key=study_key, evidence=evidence.label, instances=count)
            case SeriesConfirmed(study=study, series=series, evidence=evidence):
                # Open until it is said to be quiet anew, on its better evidence: a restart may come before that.
                self._archive.set_study_state(study, "open")
                self._archive.set_series_state(study, series, "complete", evidence.label)
                _log.info("series_confirmed", study_key=study_key, evidence=evidence.label)
            case SeriesReopened():
                _log.info("series_reopened", study_key=study_key)
            case StudyQuiet(study=study, evidence=evidence):
                self._archive.set_study_state(study, "quiet", evidence.label)
                _log.info("study_quiet", study_key=study_key, evidence=evidence.label)

    def _with_study(self, state: State, study: str, but: str = "") -> State:
        """Rebuild what the arrival knew of a study from the index, ``but`` one instance."""
        stored: list[InstanceStored] = []
        complete: dict[str, Evidence] = {}
        for series in self._archive.series_of(study):
            if series.state == "complete" and series.evidence:
                complete[series.series_instance_uid] = Evidence[series.evidence.upper()]
            found = self._archive.instances_of(study, series.series_instance_uid)
            for each in found:
                if each.facts.is_ct and not each.is_ours and each.facts.sop_instance_uid != but:
                    stored.append(_event(each.facts, _BEFORE_THIS_START, each.received_at))
        known = restore(NOTHING, Remembered(stored=stored, complete=complete), self._limits, at=self._clock())
        lists = [self._without_aside(told, known, but=but) for told in self._lists.of(study)]
        remembered = Remembered(stored=stored, complete=complete, lists=lists)
        return restore(state, remembered, self._limits, at=self._clock())

    def _without_aside(self, told: ExpectedInstances, state: State, but: str = "") -> ExpectedInstances:
        """Leave out of a list what the archive holds and the arrival, given the study, knows nothing of."""
        study = state.studies.get(told.study)
        series = study.series.get(told.series) if study else None
        unknown = {uid for uid in told.sop_instance_uids if uid != but and (series is None or uid not in series)}
        aside = self._lists.in_archive(told.study, unknown) if unknown else ()
        return replace(told, sop_instance_uids=told.sop_instance_uids.difference(aside))


def _aside(event: InstanceStored) -> SetAside:
    return SetAside(study=event.study, series=event.series, sop_instance_uid=event.sop_instance_uid, at=event.at)


def _event(facts: InstanceFacts, association: str, at: datetime) -> InstanceStored:
    return InstanceStored(
        study=facts.study_instance_uid,
        series=facts.series_instance_uid,
        sop_instance_uid=facts.sop_instance_uid,
        association=association,
        at=at,
        instance_number=facts.instance_number,
        acquisition_number=facts.acquisition_number,
        position_mm=facts.position_mm,
        orientation=facts.orientation,
        slice_thickness_mm=facts.slice_thickness_mm,
        declared_count=facts.declared_count,
    )


def _failed(problem: Exception, entry: Entry) -> Answer:
    if isinstance(problem, StorageFull | OSError | sqlite3.OperationalError):
        return no_room(problem)
    _log.error("store_failed", caller=entry.calling_ae, exc_info=problem)
    return Answer(StoreStatus.PROCESSING_FAILURE, "an error of ours; our log says more")
