"""What is a worker process asked to do, and what does it answer? Values, and the three calls that cross the border.

The driver imports this module; what does the work (``work.py``, with all of imaging behind it) is imported where it is
done, in worker processes.
"""

import ctypes
import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from pacs_bridge.ledger import KeptObject
from pacs_bridge.results.context import DocumentReference
from pacs_bridge.results.texts import Language
from pipeline.model import PictureOptions, Provenance

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesFiles:
    """One series to be read: its files by SOP Instance UID, or its kept result (``wire`` text) beside them.

    ``headers`` are those that were read when the files came, packed; what is not among them is read from its file.
    """

    series_instance_uid: str
    files: Mapping[str, str]
    kept_result: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Previous:
    """The version that a new Report would supersede."""

    report_text: str
    document: DocumentReference | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TriageTask:
    """Everything a worker needs to conclude on a study."""

    study_instance_uid: str
    series: tuple[SeriesFiles, ...]
    detectors: tuple[str, ...]
    provenance: Provenance
    language: Language
    committed_at: datetime
    objects_dir: str
    notes: tuple[str, ...] = ()
    previous: Previous | None = None
    final: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TriageOutcome:
    """What a worker concluded: new per-series results, and the Report with its objects where it is news."""

    series_results: tuple[tuple[str, str, str], ...]
    report_text: str
    is_news: bool
    objects: tuple[KeptObject, ...]
    timings_s: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeriveTask:
    """Everything a worker needs to make the pictures of one committed version; ``headers`` as in SeriesFiles."""

    report_text: str
    files: Mapping[str, str]
    options: PictureOptions
    language: Language
    committed_at: datetime
    objects_dir: str
    study_key: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectionTask:
    """Everything a worker needs to tell one destination which results a committed version has replaced.

    ``files`` of the images that speak for patient and study; ``headers`` as in SeriesFiles.
    """

    report_text: str
    files: Mapping[str, str]
    superseded: tuple[DocumentReference, ...]
    destination: str
    language: Language
    committed_at: datetime
    objects_dir: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeriveOutcome:
    """The pictures made, what could not be made and why, and the seconds each step took."""

    objects: tuple[KeptObject, ...]
    notes: tuple[str, ...]
    timings_s: Mapping[str, float]


def triage(task: TriageTask) -> TriageOutcome:
    """Examine what is new in a study, assemble its Report and build the flags' objects."""
    from pacs_bridge import work

    return tidied(lambda: work.triage(task))


def say_not_analysed(task: TriageTask, reason: str) -> TriageOutcome:
    """Build the Report of a study whose triage was given up, from headers alone."""
    from pacs_bridge import work

    return tidied(lambda: work.say_not_analysed(task, reason))


def make_pictures(task: DeriveTask) -> DeriveOutcome:
    """Make the reformats, projections, renderings and the summary page of a committed Report."""
    from pacs_bridge import work

    return tidied(lambda: work.make_pictures(task))


def reject(task: RejectionTask) -> KeptObject:
    """Build the note that rejects what a committed Report has replaced at one destination."""
    from pacs_bridge import work

    return tidied(lambda: work.reject(task))


def tidied(work: Callable[[], R]) -> R:
    """Do a piece of work and give the memory it has freed back to the system: glibc keeps it for the next one."""
    try:
        return work()
    finally:
        gc.collect()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
