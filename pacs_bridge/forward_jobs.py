"""How do images reach the destinations they are promised to? Small batches of a study, each a job of the destination.

A job reads what is pending of its batch, and its commit marks exactly what arrived: nothing is lost, and what a peer
gets twice after a crash are the same bytes under the same name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from sqlite3 import Connection
from typing import Final

from pacs_bridge.audit import Party, instances_sent
from pacs_bridge.deliveries import DELIVERY_ATTEMPTS, JOB_PRIORITY
from pacs_bridge.desk import Desk, study_of
from pacs_bridge.destinations import Destination
from pacs_bridge.forward_batches import cut, is_due, most_bytes
from pacs_bridge.forward_ledger import ForwardItem, Unbatched
from pacs_bridge.logs import without_uids
from pacs_bridge.send import SendResult
from scheduler.errors import Broke, Permanent, Transient, Unfinished
from scheduler.job import ROUTINE, Job, JobRequest
from scheduler.worker import Nothing, Task

FORWARD: Final = "forward:"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardOutcome:
    """What became of a batch: what arrived, and why others never will; what is not named is still pending.

    ``superseded``: of these, another content is the current one by now, and that goes instead.
    """

    arrived: tuple[ForwardItem, ...] = ()
    superseded: tuple[ForwardItem, ...] = ()
    refused: Mapping[ForwardItem, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardHandler:
    """Hands one batch of images over to one destination."""

    desk: Desk

    def prepare(self, job: Job) -> Task[ForwardOutcome] | Nothing:
        """Name what is still to be sent; each attempt begins with another instance, should one of them be at fault."""
        items = self.desk.forwards.batch(_batch_of(job))
        if not items:
            return Nothing("nothing of it is pending")
        first = (job.attempt - 1) % len(items)
        return Task(forward, (self.desk.destinations[_destination_of(job)], (*items[first:], *items[:first])))

    def commit(self, job: Job, result: ForwardOutcome, connection: Connection) -> None:
        """Mark what arrived, and what the destination will never take."""
        self.desk.forwards.withdraw(_destination_of(job), [each.instance_id for each in result.superseded])
        self.desk.forwards.settle(
            _destination_of(job),
            _batch_of(job),
            arrived=[each.instance_id for each in result.arrived],
            refused={each.instance_id: why for each, why in result.refused.items()},
            at=self.desk.now(),
        )
        if result.arrived:
            self._audit(job, result.arrived)
        if result.refused:
            self._audit(job, list(result.refused), problem=next(iter(result.refused.values())))

    def failed(self, job: Job, reason: str, connection: Connection) -> None:
        """Leave the rest pending; `ctriage status` shows it with the buried job, and a person may bring it back."""
        items = self.desk.forwards.batch(_batch_of(job))
        if items:
            self._audit(job, items, problem=without_uids(reason))

    def _audit(self, job: Job, items: Sequence[ForwardItem], *, problem: str = "") -> None:
        """Say in the audit trail who was sent what, or was meant to be."""
        destination = self.desk.destinations.get(_destination_of(job))
        if destination is not None and (peer := destination.peer):
            share = self.desk.share_of(study_of(job), [each.sop_class_uid for each in items])
            party = Party(name=peer.ae_title, address=peer.host)
            self.desk.audit(instances_sent(party, share, at=self.desk.now(), problem=problem))


def forward(destination: Destination, items: Sequence[ForwardItem]) -> ForwardOutcome:
    """Send what is current; raises Unfinished where some arrived and others may yet, Transient where none has."""
    current = {each.path: each for each in items if each.is_current}
    result = destination.store(list(current)) if current else SendResult()
    passing = [each.problem for each in result.failures if isinstance(each.problem, Transient)]
    passing.sort(key=lambda problem: isinstance(problem, Broke))  # that says nothing about the peer
    outcome = ForwardOutcome(
        arrived=tuple(current[path] for path in result.sent),
        superseded=tuple(each for each in items if not each.is_current),
        refused=_refusals(result, current),
    )
    if not passing:
        return outcome
    if outcome.arrived or outcome.refused:
        raise Unfinished(passing[0].reason, outcome)
    raise passing[0]


def dispatch(desk: Desk, now: datetime) -> int:
    """Make jobs of what is due, each bound to its instances in the transaction that submits it; returns how many."""
    jobs = 0
    for waiting in desk.forwards.unbatched():
        destination = desk.destinations.get(waiting.destination)
        if destination is not None and is_due(waiting, now):
            jobs += _submit(desk, waiting, destination, now)
    return jobs


def _submit(desk: Desk, waiting: Unbatched, destination: Destination, now: datetime) -> int:
    priority = desk.forwards.priority(waiting.study_instance_uid)
    batches = cut(desk.forwards.unbatched_sizes(waiting), most_bytes(destination.throttle_mb_per_s))
    jobs = 0
    with desk.forwards.transaction():
        for instance_ids in batches:
            number = desk.forwards.make_batch(waiting, instance_ids)
            request = JobRequest(
                key=f"{FORWARD}{destination.name}:{number}",
                kind=FORWARD + destination.name,
                payload={
                    "study_instance_uid": waiting.study_instance_uid,
                    "destination": destination.name,
                    "batch": number,
                },
                caller=destination.name,
                priority=JOB_PRIORITY[priority.value] if priority else ROUTINE,
                max_attempts=DELIVERY_ATTEMPTS,
            )
            jobs += desk.queue.submit(request, now=now)
    return jobs


def _refusals(result: SendResult, items: Mapping[Path, ForwardItem]) -> dict[ForwardItem, str]:
    return {
        items[each.path]: without_uids(each.problem.reason)
        for each in result.failures
        if isinstance(each.problem, Permanent)
    }


def _batch_of(job: Job) -> int:
    return int(str(job.payload["batch"]))


def _destination_of(job: Job) -> str:
    return str(job.payload["destination"])
