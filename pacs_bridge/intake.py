"""What happens to one received instance, from its bytes to the status its sender hears?

The file is on the disk first; the index row and whatever its arrival sets off commit together; only then Success.
"""

import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import IntEnum

import structlog
from pydicom.dataset import Dataset

from pacs_bridge.archive import Added, Archive, StoredFile
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
from pacs_bridge.arrived_header import header_of
from pacs_bridge.declarations import Declarations
from pacs_bridge.elements import elements_of
from pacs_bridge.errors import CannotUnderstand, StorageFull
from pacs_bridge.instance import InstanceFacts, facts_of
from scheduler.database import Database

_log = structlog.get_logger()
_BEFORE_THIS_START = "before this start"


class StoreStatus(IntEnum):
    """The C-STORE statuses that we answer (PS3.4, B.2.3)."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    OUT_OF_RESOURCES = 0xA700
    DOES_NOT_MATCH = 0xA900
    CANNOT_UNDERSTAND = 0xC000


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One C-STORE request: the bytes as they came, and what its command set says of them."""

    dataset: bytes = field(repr=False)
    transfer_syntax: str
    sop_class_uid: str
    calling_ae: str
    association: str


def utc_now() -> datetime:
    """Return the present instant."""
    return datetime.now(UTC)


class Intake:
    """Takes instances in. Threads may share it: files are written side by side, the index is kept one at a time."""

    def __init__(
        self,
        archive: Archive,
        database: Database,
        *,
        on_instruction: Callable[[Instruction], None],
        is_ours: Callable[[Dataset], bool],
        limits: Limits,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Take up the studies whose arrival an earlier process left open.

        ``on_instruction`` is called inside the transaction that notes the instruction: what it writes to ``database``
        (submitting a job) is committed with it, and when it raises, nothing has happened and the sender hears so.
        """
        self._archive = archive
        self._database = database
        self._on_instruction = on_instruction
        self._is_ours = is_ours
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._lists = Declarations(database)
        self._state = NOTHING
        for study in archive.unfinished_studies():
            self._state = self._with_study(self._state, study)

    def store(self, received: Received) -> StoreStatus:
        """Keep one instance; Success means that it is on the disk and in the index."""
        try:
            elements = elements_of(received.dataset, received.transfer_syntax)
            facts = facts_of(elements, received.transfer_syntax)
            if facts.sop_class_uid != received.sop_class_uid:
                return _refused(received, StoreStatus.DOES_NOT_MATCH, "its SOP class is not the one announced")
            header = header_of(elements, received.transfer_syntax) if facts.is_ct else None
            stored = self._archive.store(facts, received.dataset, received.transfer_syntax, received.calling_ae, header)
            self._enter(facts, stored, received)
        except CannotUnderstand as problem:
            return _refused(received, StoreStatus.CANNOT_UNDERSTAND, str(problem))
        except (StorageFull, OSError, sqlite3.OperationalError) as problem:
            return _refused(received, StoreStatus.OUT_OF_RESOURCES, str(problem))
        return StoreStatus.SUCCESS

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

    def _enter(self, facts: InstanceFacts, stored: StoredFile, received: Received) -> None:
        ours = self._is_ours(_header(facts))
        at = self._clock()
        with self._lock:
            after = self._state
            with self._database.transaction():
                added = self._archive.add(facts, stored, received.calling_ae, at, is_ours=ours)
                if added is Added.NEW:
                    arrives = facts.is_ct and not ours
                    event = _event(facts, received.association, at)
                    after = self._arrived(event) if arrives else self._followed(after, _aside(event))
            self._state = after

    def _arrived(self, event: InstanceStored) -> State:
        """Return the arrival's state after an instance new to the index, its consequences carried out."""
        state = self._state
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
            self._on_instruction(instruction)

    def _note(self, instruction: Instruction) -> None:
        study_key = self._archive.study_key(instruction.study)
        match instruction:
            case SeriesComplete(study=study, series=series, evidence=evidence, instances=count):
                self._archive.set_series_state(study, series, "complete", evidence.label)
                _log.info("series_complete", study_key=study_key, evidence=evidence.label, instances=count)
            case SeriesConfirmed(study=study, series=series, evidence=evidence):
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


def _header(facts: InstanceFacts) -> Dataset:
    """Give the facts by which a result of ours is recognised the form that is asked for."""
    header = Dataset()
    header.SOPClassUID = facts.sop_class_uid
    header.SOPInstanceUID = facts.sop_instance_uid
    header.Manufacturer = facts.manufacturer
    return header


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


def _refused(received: Received, status: StoreStatus, reason: str) -> StoreStatus:
    _log.warning("instance_refused", caller=received.calling_ae, status=f"0x{status:04X}", reason=reason)
    return status
