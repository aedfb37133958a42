"""How does a destination hear which of the results it was sent are superseded? One note for each version (IHE IOCM).

It is queued when the new version's flags have arrived there (`deliveries.submit_rejection`), lists what that
destination was sent of all versions before and no earlier note has listed, and is delivered like any object.
"""

from dataclasses import dataclass
from sqlite3 import Connection

from pacs_bridge.archive import ArchivedInstance
from pacs_bridge.deliveries import submit_note
from pacs_bridge.desk import Desk, study_of, version_of
from pacs_bridge.ledger import KeptObject
from pacs_bridge.results.context import DocumentReference
from pacs_bridge.tasks import RejectionTask, reject
from pipeline.model import Report
from scheduler.errors import Transient
from scheduler.job import Job
from scheduler.worker import Nothing, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectHandler:
    """Builds the note on what a version has replaced at one destination, and sends it on its way."""

    desk: Desk

    def prepare(self, job: Job) -> Task[KeptObject] | Nothing:
        """Name what the destination holds of earlier versions; nothing to do where it holds none."""
        name = str(job.payload["destination"])
        if name not in self.desk.destinations:
            raise Transient(f"destination {name} is not in the settings")
        committed = self.desk.ledger.version(study_of(job), version_of(job))
        superseded = self._superseded(job)
        if committed is None or not superseded:
            return Nothing("nothing that it was sent has been superseded")
        task = self._task(name, committed.report(), committed.report_text, superseded)
        return Task(reject, (task,))

    def commit(self, job: Job, result: KeptObject, connection: Connection) -> None:
        """Keep the note with its version, and what it lists; queue its delivery."""
        study, version, name = study_of(job), version_of(job), str(job.payload["destination"])
        committed = self.desk.ledger.version(study, version)
        if committed is None:
            return
        superseded = self._superseded(job)
        self.desk.ledger.add_objects(study, version, [result])
        self.desk.ledger.note_rejected(name, superseded, result)
        submit_note(self.desk, committed, name, result)

    def failed(self, job: Job, reason: str, connection: Connection) -> None:
        """The buried job is shown by `ctriage status`; a person may bring it back."""

    def _superseded(self, job: Job) -> list[KeptObject]:
        return self.desk.ledger.superseded(study_of(job), version_of(job), str(job.payload["destination"]))

    def _task(self, name: str, report: Report, text: str, superseded: list[KeptObject]) -> RejectionTask:
        speakers = self._speakers(report)
        return RejectionTask(
            report_text=text,
            files={each.facts.sop_instance_uid: str(each.path) for each in speakers},
            headers={each.facts.sop_instance_uid: each.header for each in speakers if each.header is not None},
            superseded=tuple(_reference(report.study_instance_uid, each) for each in superseded),
            destination=name,
            language=self.desk.settings.language,
            # Results carry the hospital's wall clock, as the study's own dates do.
            committed_at=self.desk.now().astimezone(),
            objects_dir=str(self.desk.objects_dir),
        )

    def _speakers(self, report: Report) -> list[ArchivedInstance]:
        """Return the first images of the report's stacks, else any: one that can be read speaks for the patient."""
        archive, study = self.desk.archive, report.study_instance_uid
        named = {uid for row in report.examined for uid in row.instances[:1]}
        series = [each.series_instance_uid for each in archive.series_of(study)]
        found = [each for uid in series for each in archive.instances_of(study, uid) if not each.is_ours]
        return [each for each in found if each.facts.sop_instance_uid in named] or found[:1]


def _reference(study: str, each: KeptObject) -> DocumentReference:
    return DocumentReference(
        study_instance_uid=study,
        series_instance_uid=each.series_instance_uid,
        sop_class_uid=each.sop_class_uid,
        sop_instance_uid=each.sop_instance_uid,
    )
