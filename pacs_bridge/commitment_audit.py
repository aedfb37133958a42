"""What does the audit trail say of storage commitment: to whom we promised what, and who promised us?"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

from pacs_bridge.audit import AuditEvent, Party, StudyShare, commitment_given, commitment_taken
from pacs_bridge.commitment import COMMITTED, REASONS, Reference
from pacs_bridge.commitments import Asking, Held
from pacs_bridge.desk import Desk, study_of
from pacs_bridge.ledger import KeptObject
from scheduler.job import Job

NOT_HELD: Final = "not held here"
"""Stands for the study of instances that the index does not know."""

ShareOf = Callable[[str, Iterable[str]], StudyShare]


def given(
    asking: Asking, outcomes: Mapping[Reference, int], held: Mapping[str, Held], *, share_of: ShareOf, at: datetime
) -> Iterator[AuditEvent]:
    """Yield what a caller is told, study by study: what is promised, and what is not."""
    told: dict[tuple[str, int], list[str]] = {}
    for each, outcome in outcomes.items():
        there = held.get(each.sop_instance_uid)
        told.setdefault((there.study if there else NOT_HELD, outcome), []).append(each.sop_class_uid)
    asker = Party(name=asking.caller, address=asking.address)
    for (study, outcome), classes in told.items():
        share = _unknown(classes) if study == NOT_HELD else share_of(study, classes)
        yield commitment_given(asker, share, at=at, problem=_problem(outcome))


def tell_taken(desk: Desk, job: Job, objects: Sequence[KeptObject], failures: Mapping[Reference, int]) -> None:
    """Say what a destination has promised to keep of what it was delivered, and what it has not."""
    destination = desk.destinations.get(str(job.payload["destination"]))
    if destination is None or destination.peer is None:
        return
    party = Party(name=destination.peer.ae_title, address=destination.peer.host)
    failed = {each.sop_instance_uid: outcome for each, outcome in failures.items()}
    told: dict[int, list[str]] = {}
    for each in objects:
        told.setdefault(failed.get(each.sop_instance_uid, COMMITTED), []).append(each.sop_class_uid)
    for outcome, classes in told.items():
        share = desk.share_of(study_of(job), classes)
        desk.audit(commitment_taken(party, share, at=desk.now(), problem=_problem(outcome)))


def _unknown(classes: Sequence[str]) -> StudyShare:
    return StudyShare(study_instance_uid=NOT_HELD, instances=tuple(Counter(classes).items()))


def _problem(outcome: int) -> str:
    return "" if outcome == COMMITTED else f"not committed: {REASONS.get(outcome, f'0x{outcome:04X}')}"
