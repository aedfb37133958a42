"""What does every handler of jobs work with?"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from pacs_bridge.archive import Archive
from pacs_bridge.audit import Auditor, StudyShare, unheard
from pacs_bridge.destinations import Destinations
from pacs_bridge.forward_ledger import ForwardLedger
from pacs_bridge.ledger import Ledger
from pacs_bridge.settings import Settings
from pipeline.model import Provenance
from scheduler.job import Job
from scheduler.sqlite_queue import SqliteQueue


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What every handler works with."""

    settings: Settings
    archive: Archive
    ledger: Ledger
    forwards: ForwardLedger
    queue: SqliteQueue
    provenance: Provenance
    destinations: Destinations
    now: Callable[[], datetime]
    audit: Auditor = unheard

    def provenance_of(self, study: str) -> Provenance:
        """Name the code, detectors and settings that results of a study are made with, and its chosen contents.

        An instance whose other content was made the current one keeps its UID, by which results would be named alike.
        """
        chosen = self.archive.chosen_contents(study)
        if not chosen:
            return self.provenance
        settings = hashlib.sha256("\n".join([self.provenance.settings_hash, *chosen]).encode()).hexdigest()
        return replace(self.provenance, settings_hash=settings)

    @property
    def provenance_key(self) -> str:
        """Name the code, detectors and settings that make a result what it is."""
        return key_of(self.provenance)

    @property
    def objects_dir(self) -> Path:
        """Where finished result objects lie."""
        return self.settings.state_dir / "objects"

    def share_of(self, study: str, sop_classes: Iterable[str]) -> StudyShare:
        """Name a study for the audit trail, with how many instances of which SOP classes are concerned."""
        return StudyShare(
            study_instance_uid=study,
            patient_id=self.archive.study(study).patient_id,
            study_key=self.archive.study_key(study),
            instances=tuple(Counter(sop_classes).items()),
        )


def key_of(provenance: Provenance) -> str:
    """Write a provenance in one way."""
    return json.dumps(asdict(provenance), sort_keys=True)


def study_of(job: Job) -> str:
    """Name the study that a job is about."""
    return str(job.payload["study_instance_uid"])


def version_of(job: Job) -> int:
    """Name the version of its Report that a job is about."""
    return int(str(job.payload["version"]))
