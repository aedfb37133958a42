"""The parts of storage commitment, put together: one service for the listener, handlers of its jobs for the lanes."""

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final

from pacs_bridge.commitment import CommitmentLimits
from pacs_bridge.commitment_durability import Durability
from pacs_bridge.commitment_handlers import (
    CommitHandler,
    DecideHandler,
    ReportHandler,
    caller_peers,
)
from pacs_bridge.commitment_jobs import COMMIT, DECIDE, REPORT
from pacs_bridge.commitment_service import CommitmentService, Ear, Surroundings
from pacs_bridge.commitments import Commitments
from pacs_bridge.desk import Desk
from scheduler.admission import Machine
from scheduler.database import Database
from scheduler.worker import Handler, Lane

CALLERS_AT_ONCE: Final = 8
"""Reports to one caller follow one another, so that so many may be away before one that is there has to wait."""
REQUESTS_AT_ONCE: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageCommitment:
    """What the composition root needs; ``surroundings`` are to be filled in when listener, intake and worker are there.

    ``handlers`` decide and report, ``commit`` asks peers.
    """

    service: CommitmentService
    surroundings: Surroundings
    commitments: Commitments
    handlers: Mapping[str, Handler[Any]]
    commit: CommitHandler

    def lanes(self, pool: Callable[[int], Executor]) -> tuple[Lane, ...]:
        """Return a lane for callers, and one for each destination; ``pool`` makes so many threads.

        None of them stands before a gate: a peer that has not committed yet is no peer that does not answer.
        """
        asked = [each.name for each in self.service.settings.destination]
        return (
            _lane("commitment", CALLERS_AT_ONCE, self.handlers, pool),
            *(_lane(COMMIT + name, REQUESTS_AT_ONCE, {COMMIT + name: self.commit}, pool) for name in asked),
        )


def _lane(name: str, at_once: int, handlers: Mapping[str, Handler[Any]], pool: Callable[[int], Executor]) -> Lane:
    return Lane(name=name, executor=pool(at_once), machine=Machine(memory_mb=1, slots=at_once), handlers=handlers)


def storage_commitment(
    desk: Desk,
    database: Database,
    *,
    limits: CommitmentLimits | None = None,
) -> StorageCommitment:
    """Make the parts. Raises SettingsError for unusable certificates."""
    limits, surroundings = limits or CommitmentLimits(), Surroundings()
    archive_dir = desk.settings.state_dir / "archive"
    commitments = Commitments(database, archive_dir)
    durability = Durability(commitments=commitments, archive_dir=archive_dir, now=desk.now)
    ear = Ear(commitments=commitments, database=database, queue=desk.queue, surroundings=surroundings, now=desk.now)
    return StorageCommitment(
        service=CommitmentService(
            settings=desk.settings,
            commitments=commitments,
            database=database,
            queue=desk.queue,
            ear=ear,
            surroundings=surroundings,
            now=desk.now,
        ),
        surroundings=surroundings,
        commitments=commitments,
        handlers={
            DECIDE: DecideHandler(desk=desk, commitments=commitments, durability=durability, limits=limits),
            REPORT: ReportHandler(
                desk=desk, commitments=commitments, surroundings=surroundings, peer_of=caller_peers(desk.settings)
            ),
        },
        commit=CommitHandler(desk=desk, commitments=commitments, ear=ear, limits=limits),
    )
