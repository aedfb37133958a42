"""Storage commitment in the audit trail: each study by itself, and what is not here is not left out."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from pacs_bridge.audit import AuditEvent, StudyShare
from pacs_bridge.commitment import CLASS_INSTANCE_CONFLICT, COMMITTED, NO_SUCH_INSTANCE, Reference
from pacs_bridge.commitment_audit import NOT_HELD, given
from pacs_bridge.commitments import Asking, Held

CT = "1.2.840.10008.5.1.4.1.1.2"
ASKING = Asking(caller="CT01", address="10.1.2.3", association="a", mode="own")
AT = datetime(2026, 1, 1, tzinfo=UTC)


def held(study: str) -> Held:
    return Held(sop_class_uid=CT, path=Path("x"), content_hash="blake3:0", study=study, series="s", arriving=False)


def share_of(study: str, sop_classes: Iterable[str]) -> StudyShare:
    return StudyShare(study_instance_uid=study, instances=((CT, len(list(sop_classes))),))


def told(outcomes: dict[str, int], there: dict[str, Held]) -> list[AuditEvent]:
    of_references = {Reference(sop_class_uid=CT, sop_instance_uid=uid): each for uid, each in outcomes.items()}
    return list(given(ASKING, of_references, there, share_of=share_of, at=AT))


def test_what_was_promised_and_what_was_not_are_events_of_their_own_study_by_study() -> None:
    outcomes = {"1": COMMITTED, "2": COMMITTED, "3": CLASS_INSTANCE_CONFLICT, "4": COMMITTED}
    events = told(outcomes, {"1": held("A"), "2": held("A"), "3": held("A"), "4": held("B")})
    assert [
        ("A", "", ((CT, 2),)),
        ("A", "not committed: class and instance conflict", ((CT, 1),)),
        ("B", "", ((CT, 1),)),
    ] == [(each.study.study_instance_uid, each.said, each.study.instances) for each in events if each.study]
    assert [0, 4, 0] == [each.outcome for each in events]
    assert {("CT01", "10.1.2.3")} == {(each.peer.name, each.peer.address) for each in events if each.peer}


def test_what_is_not_here_is_told_as_such() -> None:
    (event,) = told({"1": NO_SUCH_INSTANCE, "2": NO_SUCH_INSTANCE}, {})
    assert event.study is not None
    assert (NOT_HELD, ((CT, 2),)) == (event.study.study_instance_uid, event.study.instances)
    assert "not committed: no such object instance" == event.said
