"""What is a job, and which status may follow which?"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from scheduler.errors import NotAllowed

STAT: Final = 30
URGENT: Final = 20
ROUTINE: Final = 10


class Status(StrEnum):
    """Where a job stands."""

    READY = "ready"
    RUNNING = "running"
    DONE = "done"
    HELD = "held"
    BURIED = "buried"
    CANCELLED = "cancelled"


class Event(StrEnum):
    """What may happen to a job."""

    CLAIM = "claim"
    EXTEND = "extend"
    EXPIRE = "expire"
    FINISH = "finish"
    RETRY = "retry"
    BURY = "bury"
    HOLD = "hold"
    RELEASE = "release"
    RESUBMIT = "resubmit"
    CANCEL = "cancel"


TRANSITIONS: Final[Mapping[tuple[Status, Event], Status]] = MappingProxyType(
    {
        (Status.READY, Event.CLAIM): Status.RUNNING,
        (Status.READY, Event.HOLD): Status.HELD,
        (Status.READY, Event.CANCEL): Status.CANCELLED,
        (Status.RUNNING, Event.EXTEND): Status.RUNNING,
        (Status.RUNNING, Event.EXPIRE): Status.READY,
        (Status.RUNNING, Event.FINISH): Status.DONE,
        (Status.RUNNING, Event.RETRY): Status.READY,
        (Status.RUNNING, Event.BURY): Status.BURIED,
        (Status.HELD, Event.RELEASE): Status.READY,
        (Status.HELD, Event.CANCEL): Status.CANCELLED,
        (Status.BURIED, Event.RESUBMIT): Status.READY,
        (Status.BURIED, Event.CANCEL): Status.CANCELLED,
    }
)


def after(status: Status, event: Event) -> Status:
    """Look up the status that follows; raises NotAllowed when the table has none."""
    if (status, event) not in TRANSITIONS:
        raise NotAllowed(status, event)
    return TRANSITIONS[status, event]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """Work that somebody wants done once: the key names the work, so the same key twice is one job.

    `payload` is JSON-able and holds names, never pixels. Jobs of one `group` never run at the same time. `caller` is
    whose work it is, for fairness; the group stands in where it is None. `start_at` None is at once.
    """

    key: str
    kind: str
    payload: Mapping[str, object] = field(default_factory=dict)
    group: str | None = None
    caller: str | None = None
    priority: int = ROUTINE
    memory_mb: int = 0
    max_attempts: int = 3
    start_at: datetime | None = None

    def __post_init__(self) -> None:
        if not self.key or not self.kind:
            raise ValueError("a job needs a key and a kind")
        if self.max_attempts < 1 or self.memory_mb < 0:
            raise ValueError(f"job {self.key}: max_attempts must be at least 1, memory_mb at least 0")
        json.dumps(dict(self.payload))


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as the queue keeps it. A claimed job's `attempt` is its fencing token.

    Instants are aware UTC. `place_at` is its place in the line: the earliest goes first (see `admission.place_at`).
    """

    key: str
    kind: str
    payload: Mapping[str, object]
    group: str | None
    caller: str | None
    priority: int
    memory_mb: int
    status: Status
    attempt: int
    max_attempts: int
    created_at: datetime
    place_at: datetime
    next_at: datetime
    lease_until: datetime | None
    reason: str | None

    @property
    def is_exhausted(self) -> bool:
        """Say whether no attempt is left after the one that is counted."""
        return self.attempt >= self.max_attempts


def opened(request: JobRequest, *, now: datetime, place_at: datetime) -> Job:
    """Make the job that a request becomes when it is submitted."""
    return Job(
        key=request.key,
        kind=request.kind,
        payload=request.payload,
        group=request.group,
        caller=request.caller if request.caller is not None else request.group,
        priority=request.priority,
        memory_mb=request.memory_mb,
        status=Status.READY,
        attempt=0,
        max_attempts=request.max_attempts,
        created_at=now,
        place_at=place_at,
        next_at=request.start_at or now,
        lease_until=None,
        reason=None,
    )


def worker_died(job: Job) -> str:
    """Word the reason for burying a job whose last lease ran out."""
    return f"the worker died or overran its lease {job.attempt} times: last at {job.lease_until:%Y-%m-%d %H:%M:%S} UTC"
