"""Which jobs follow from storage commitment, under which names? Values only.

`decide`: what becomes of a caller's request. `report`: tell it. `commit:<destination>`: ask a peer, for a request or
for what was delivered there.
"""

from collections.abc import Collection, Sequence
from typing import Final

from pacs_bridge.commitment import Reference
from pacs_bridge.commitments import KeptRequest
from pacs_bridge.settings import Settings
from scheduler.job import STAT, URGENT, Job, JobRequest

DECIDE: Final = "decide"
REPORT: Final = "report"
COMMIT: Final = "commit:"

REQUEST: Final = "request"
"""Names in a payload the caller's request that a job is about; a job without is about what we have delivered."""
DECIDED_BY: Final = "decided_by"
"""Names in a payload the job that waits for this one."""
ONLY: Final = "only"
"""Names in a delivery's payload the SOP Instance UIDs to be sent again; without, all are sent."""
ROUND: Final = "round"
DELIVERY: Final = "delivery"
_AGAIN: Final = ":again"
MOST_ROUNDS: Final = 5
"""How often objects that a peer does not commit to are sent again, before a person has to look."""

ATTEMPTS: Final = 500
"""At up to ten minutes apart: callers and peers may be away for days."""


def committing(settings: Settings) -> tuple[str, ...]:
    """Name the destinations that commit to what they are sent."""
    return tuple(each.name for each in settings.destination if each.commitment)


def decide_key(request: KeptRequest) -> str:
    """Name the job that decides about a request."""
    return f"{DECIDE}:{request.id}:{request.openings}"


def decide_job(request: KeptRequest) -> JobRequest:
    """Decide about a request: at once where we keep the images ourselves, else when peers have spoken."""
    return JobRequest(
        key=decide_key(request),
        kind=DECIDE,
        payload={REQUEST: request.id, "caller": request.asking.caller},
        caller=request.asking.caller,
        priority=URGENT,
        max_attempts=ATTEMPTS,
    )


def report_key(request: KeptRequest) -> str:
    """Name the job that tells a caller: one for each time that it asked."""
    return f"{REPORT}:{request.asking.caller}:{request.id}:{request.times}"


def report_job(request: KeptRequest) -> JobRequest:
    """Tell a caller what became of its request; reports to one caller follow one another."""
    return JobRequest(
        key=report_key(request),
        kind=REPORT,
        payload={REQUEST: request.id, "caller": request.asking.caller, "times": request.times},
        group=f"{REPORT}:{request.asking.caller}@{request.asking.address}",
        caller=request.asking.caller,
        priority=STAT,
        max_attempts=ATTEMPTS,
    )


def relay_job(request: KeptRequest, destination: str) -> JobRequest:
    """Ask a destination to commit to what a caller asks for."""
    return JobRequest(
        key=f"{COMMIT}{destination}:{REQUEST}:{request.id}:{request.openings}",
        kind=COMMIT + destination,
        payload={
            REQUEST: request.id,
            DECIDED_BY: decide_key(request),
            "destination": destination,
            "caller": request.asking.caller,
        },
        caller=destination,
        priority=URGENT,
        max_attempts=ATTEMPTS,
    )


def commit_job(delivery: Job) -> JobRequest:
    """Ask a destination to commit to what a delivery has just brought there."""
    destination = str(delivery.payload["destination"])
    return JobRequest(
        key=COMMIT + delivery.key,
        kind=COMMIT + destination,
        payload={DELIVERY: delivery.key, ROUND: 0, **delivery.payload},
        group=None if delivery.group is None else COMMIT + delivery.group,
        caller=destination,
        priority=delivery.priority,
        max_attempts=ATTEMPTS,
    )


def delivery_again(job: Job, failed: Collection[Reference], *, kind: str) -> JobRequest:
    """Send those objects again that a destination did not commit to; ``kind`` is that of deliveries to it."""
    first, again = str(job.payload[DELIVERY]).partition(_AGAIN)[0], round_of(job) + 1
    rest = {name: value for name, value in job.payload.items() if name != DELIVERY}
    return JobRequest(
        key=f"{first}{_AGAIN}{again}",
        kind=kind,
        payload={**rest, ROUND: again, ONLY: sorted(each.sop_instance_uid for each in failed)},
        group=None if job.group is None else job.group.removeprefix(COMMIT),
        caller=str(job.payload["destination"]),
        priority=job.priority,
        max_attempts=ATTEMPTS,
    )


def round_of(job: Job) -> int:
    """Return how often the objects of a job have been sent again."""
    return int(str(job.payload.get(ROUND, 0)))


def request_of(job: Job) -> int:
    """Return the number of the request that a job is about."""
    return int(str(job.payload[REQUEST]))


def decided_by(job: Job) -> str | None:
    """Return the job that waits for this one to decide about a caller's request; None where it is about ours."""
    named = job.payload.get(DECIDED_BY)
    return None if named is None else str(named)


def only_of(job: Job) -> Sequence[str] | None:
    """Return the objects that a delivery is limited to; None where it is of all."""
    named = job.payload.get(ONLY)
    return None if not isinstance(named, list) else [str(each) for each in named]
