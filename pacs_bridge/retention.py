"""Which studies' images may go? Pure: the facts, the rules and the clock are arguments; `removal.py` acts.

What is on its way, promised or in doubt stays, whatever the rules say and however full the disk is.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from pacs_bridge.settings import Retention

MEGABYTE: Final = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFacts:
    """What decides whether a study's images may go.

    ``arriving``: its arrival goes on. ``unfinished``: a job of it waits, runs, is held or was given up. ``reported``:
    it has a Report, or holds nothing that gets one. ``unforwarded``: images that a destination has not taken yet.
    ``promised``: a sender was told that this archive keeps it, or is waiting to hear so.
    """

    study_instance_uid: str
    study_key: str
    last_received_at: datetime
    images: int
    size_bytes: int
    arriving: bool = False
    unfinished: bool = False
    reported: bool = True
    unforwarded: int = 0
    promised: bool = False
    in_conflict: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What becomes of a study's images: removed by ``rule``, or kept since ``kept_since`` says so."""

    study: StudyFacts
    rule: str = ""
    kept_since: str = ""

    @property
    def removes(self) -> bool:
        """Say whether the images go."""
        return bool(self.rule)


def decide(studies: Iterable[StudyFacts], rules: Retention, *, now: datetime, free_bytes: int) -> Iterator[Decision]:
    """Yield a decision for each study that a rule speaks of; ``studies`` come the oldest first, as many as are asked.

    ``free_bytes`` is what is free before anything is removed; what goes is added to it.
    """
    for study in studies:
        rule = _rule(study, rules, now=now, free_bytes=free_bytes)
        if not rule:
            return  # those that follow are younger
        reason = stays(study)
        if not reason:
            free_bytes += study.size_bytes
        yield Decision(study=study, kept_since=reason) if reason else Decision(study=study, rule=rule)


def stays(study: StudyFacts) -> str:
    """Say why a study's images must not go, whatever the rules say; empty where nothing speaks against it."""
    reasons = {
        "its images are still arriving": study.arriving,
        "two contents or two patients: decide with `ctriage conflicts`": study.in_conflict,
        "a job of it is not done: see `ctriage status`": study.unfinished,
        "it has no report yet": not study.reported,
        f"{study.unforwarded} image(s) wait to be forwarded": bool(study.unforwarded),
        "a sender was promised that it is kept": study.promised,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _rule(study: StudyFacts, rules: Retention, *, now: datetime, free_bytes: int) -> str:
    if rules.days and now - study.last_received_at >= timedelta(days=rules.days):
        return f"retention.days = {rules.days:g}"
    if free_bytes < rules.below_free_mb * MEGABYTE:
        return f"retention.below_free_mb = {rules.below_free_mb}"
    return ""
