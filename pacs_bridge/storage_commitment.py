"""The parts of storage commitment, put together: one service for the listener, handlers of its jobs for the lanes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pacs_bridge.commitment import CommitmentLimits
from pacs_bridge.commitment_handlers import (
    CommitHandler,
    DecideHandler,
    Outstanding,
    ReportHandler,
    caller_peers,
    nothing_outstanding,
)
from pacs_bridge.commitment_jobs import DECIDE, REPORT
from pacs_bridge.commitment_service import CommitmentService, Ear, Surroundings
from pacs_bridge.commitments import Commitments
from pacs_bridge.desk import Desk
from scheduler.database import Database
from scheduler.worker import Handler


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageCommitment:
    """What the composition root needs: ``handlers`` for a lane of their own, ``commit`` for each destination's lane.

    ``surroundings`` are to be filled in when listener, intake and worker are there.
    """

    service: CommitmentService
    surroundings: Surroundings
    commitments: Commitments
    handlers: Mapping[str, Handler[Any]]
    commit: CommitHandler


def storage_commitment(
    desk: Desk,
    database: Database,
    *,
    limits: CommitmentLimits | None = None,
    outstanding: Outstanding = nothing_outstanding,
) -> StorageCommitment:
    """Make the parts; ``outstanding`` tells what is still to be forwarded where."""
    limits, surroundings = limits or CommitmentLimits(), Surroundings()
    commitments = Commitments(database, desk.settings.state_dir / "archive")
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
            DECIDE: DecideHandler(desk=desk, commitments=commitments, limits=limits, outstanding=outstanding),
            REPORT: ReportHandler(
                desk=desk, commitments=commitments, surroundings=surroundings, peer_of=caller_peers(desk.settings)
            ),
        },
        commit=CommitHandler(desk=desk, commitments=commitments, ear=ear, limits=limits, outstanding=outstanding),
    )
