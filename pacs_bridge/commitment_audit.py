"""What does the audit trail say of storage commitment: to whom we promised what, and who promised us?"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

from pacs_bridge.audit import AuditEvent, Party, StudyShare, commitment_given, commitment_taken
from pacs_bridge.commitment import COMMITTED, Reference
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
    """Yield an event for each study that a caller asked about: what it is told about it."""
    by_study: dict[str, list[Reference]] = {}
    for each in outcomes:
        there = held.get(each.sop_instance_uid)
        by_study.setdefault(there.study if there else NOT_HELD, []).append(each)
    asker = Party(name=asking.caller, address=asking.address)
    for study, references in by_study.items():
        classes = [each.sop_class_uid for each in references]
        share = StudyShare(study_instance_uid=NOT_HELD) if study == NOT_HELD else share_of(study, classes)
        failed = sum(outcomes[each] != COMMITTED for each in references)
        yield commitment_given(asker, share, failed=failed, at=at)


def tell_taken(desk: Desk, job: Job, objects: Sequence[KeptObject], *, failed: int) -> None:
    """Say what a destination has promised to keep of what it was delivered."""
    destination = desk.destinations.get(str(job.payload["destination"]))
    if destination is not None and (peer := destination.peer):
        share = desk.share_of(study_of(job), [each.sop_class_uid for each in objects])
        party = Party(name=peer.ae_title, address=peer.host)
        desk.audit(commitment_taken(party, share, failed=failed, at=desk.now()))
