"""What does building results need besides the Report?"""

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from pydicom.dataset import Dataset

from pacs_bridge.results.errors import NaiveInstant
from pacs_bridge.results.sources import SourceHeaders
from pacs_bridge.results.texts import Language
from pacs_bridge.results.tolerant import value_of


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentReference:
    """The name of an earlier SR document that a new version replaces."""

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Context:
    """Everything besides the Report that decides a result's bytes.

    ``committed_at`` is aware; dates and times in the results are its wall clock, moved to the source's Timezone Offset
    From UTC where the source has one. ``predecessor`` names the SR of the version that the Report supersedes.
    """

    sources: SourceHeaders
    committed_at: datetime
    language: Language = "en"
    predecessor: DocumentReference | None = None

    def __post_init__(self) -> None:
        if self.committed_at.tzinfo is None:
            raise NaiveInstant


def wall_clock(committed_at: datetime, source: Dataset) -> datetime:
    """Return the commit's instant on the clock that the source's own dates and times were read from."""
    offset = str(value_of(source, "TimezoneOffsetFromUTC") or "").strip()
    if len(offset) != 5 or offset[0] not in "+-" or not offset[1:].isdigit():
        return committed_at
    minutes = int(offset[1:3]) * 60 + int(offset[3:])
    if minutes >= 24 * 60:
        return committed_at
    return committed_at.astimezone(timezone(timedelta(minutes=minutes if offset[0] == "+" else -minutes)))
