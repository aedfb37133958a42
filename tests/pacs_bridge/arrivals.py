"""Events of arrivals as tests write them, and what follows from them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

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
    State,
    Tick,
    handle,
    restore,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
LIMITS = Limits(quiet_s=60, settle_s=5, declared_s=600)
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def instance(n: int, *, series: str = "1.1", association: str = "A", at: float = 0, study: str = "1") -> InstanceStored:
    return InstanceStored(
        study=study,
        series=series,
        sop_instance_uid=f"{series}.{n}",
        association=association,
        at=after(at),
        instance_number=n,
        position_mm=2.5 * n,
        orientation=AXIAL,
    )


def released(association: str = "A", at: float = 1) -> AssociationReleased:
    return AssociationReleased(association=association, at=after(at))


def aborted(association: str = "A", at: float = 1) -> AssociationAborted:
    return AssociationAborted(association=association, at=after(at))


def tick(at: float) -> Tick:
    return Tick(now=after(at))


def run(*events: Event, state: State = NOTHING) -> tuple[State, list[Instruction]]:
    told: list[Instruction] = []
    for event in events:
        state, instructions = handle(state, event, LIMITS)
        told.extend(instructions)
    return state, told


def restored(
    stored: Sequence[InstanceStored],
    *,
    at: datetime,
    complete: Mapping[str, Evidence] | None = None,
    lists: Sequence[ExpectedInstances] = (),
) -> State:
    return restore(NOTHING, Remembered(stored=stored, complete=complete or {}, lists=lists), LIMITS, at=at)


def evidence_of(instructions: Sequence[Instruction]) -> list[Evidence]:
    return [each.evidence for each in instructions if isinstance(each, SeriesComplete)]


def slices(*numbers: int, association: str = "A") -> list[Event]:
    return [instance(n, association=association) for n in numbers]
