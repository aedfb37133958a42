"""Storage commitment in the audit trail: each study by itself, and what is not here is not left out."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from pacs_bridge.audit import AuditEvent, StudyShare
from pacs_bridge.commitment import COMMITTED, NO_SUCH_INSTANCE, Reference
from pacs_bridge.commitment_audit import NOT_HELD, given
from pacs_bridge.commitments import Asking, Held

CT = "1.2.840.10008.5.1.4.1.1.2"
ASKING = Asking(caller="CT01", address="10.1.2.3", association="a", mode="own")
AT = datetime(2026, 1, 1, tzinfo=UTC)


def held(study: str) -> Held:
    return Held(sop_class_uid=CT, path=Path("x"), study=study, series="s", arriving=False)


def share_of(study: str, sop_classes: Iterable[str]) -> StudyShare:
    return StudyShare(study_instance_uid=study, instances=((CT, len(list(sop_classes))),))


def told(outcomes: dict[str, int], there: dict[str, Held]) -> list[AuditEvent]:
    of_references = {Reference(sop_class_uid=CT, sop_instance_uid=uid): each for uid, each in outcomes.items()}
    return list(given(ASKING, of_references, there, share_of=share_of, at=AT))


def test_each_study_of_a_request_has_an_event_with_what_it_was_promised() -> None:
    outcomes = {"1": COMMITTED, "2": COMMITTED, "3": NO_SUCH_INSTANCE}
    first, second = told(outcomes, {"1": held("A"), "2": held("A"), "3": held("B")})
    assert (("A", 0, ((CT, 2),)), ("B", 4, ((CT, 1),))) == tuple(
        (each.study.study_instance_uid, each.outcome, each.study.instances) for each in (first, second) if each.study
    )
    assert first.peer is not None
    assert ("CT01", "10.1.2.3") == (first.peer.name, first.peer.address)


def test_what_is_not_here_is_told_as_such() -> None:
    (event,) = told({"1": NO_SUCH_INSTANCE, "2": NO_SUCH_INSTANCE}, {})
    assert event.study is not None
    assert (NOT_HELD, "2 instance(s) are not committed to") == (event.study.study_instance_uid, event.said)
