"""How is each kind of job done that concludes on images? triage: flags; derive: pictures.

Each handler turns names into a task (read only), and commits the outcome in the transaction that ends the job.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from sqlite3 import Connection

from pacs_bridge.archive import ArchivedInstance, ArchivedSeries, Extent
from pacs_bridge.deliveries import PICTURES, submit_deliveries
from pacs_bridge.desk import Desk, key_of, study_of, version_of
from pacs_bridge.ledger import CommittedReport, KeptObject
from pacs_bridge.logs import without_uids
from pacs_bridge.results.context import DocumentReference
from pacs_bridge.tasks import (
    DeriveOutcome,
    DeriveTask,
    Previous,
    SeriesFiles,
    TriageOutcome,
    TriageTask,
    make_pictures,
    say_not_analysed,
    triage,
)
from pipeline import wire
from pipeline.model import PictureOptions, Report
from pipeline.select import digest_of
from scheduler.job import Job, JobRequest
from scheduler.worker import Nothing, Task

TRIAGE, DERIVE = "triage", "derive"

PROCESS_ATTEMPTS = 10
"""Interruptions that triage and pictures outlive; a failure of their own ends them at `GIVE_UP_AT` (see Lane)."""

GIVE_UP_AT = 3
FAILED = "failed"
"""Names in a triage job's payload why the one before it was given up: it has but to say so."""

WORKER_MB = 300
SLICE_BYTES = 512 * 512 * 2
VOLUME_COPIES = 4
LONGEST_REASON = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class TriageHandler:
    """Concludes on what is complete of a study, and sends the flags on their way."""

    desk: Desk

    def prepare(self, job: Job) -> Task[TriageOutcome] | Nothing:
        """Name the complete series and their files; nothing to do where this very state was concluded on already."""
        latest = self.desk.ledger.latest(study_of(job))
        complete = self._complete(study_of(job), latest)
        if not complete.series:
            return Nothing("no series is complete")
        if latest is not None and _same_state(latest, complete.series, self._provenance_key(study_of(job))):
            return Nothing(f"version {latest.version} already says what these images say")
        work = partial(say_not_analysed, reason=str(job.payload[FAILED])) if FAILED in job.payload else triage
        return Task(work, (self._task(job, complete, latest),))

    def commit(self, job: Job, result: TriageOutcome, connection: Connection) -> None:
        """Keep the per-series results; publish the Report where it is news, and queue its pictures and deliveries."""
        study = study_of(job)
        report = wire.loads(Report, result.report_text)
        made_with = key_of(report.provenance)
        for series, digest, text in result.series_results:
            self.desk.ledger.keep_series_result(study, series, digest=digest, provenance_key=made_with, result=text)
        if not result.is_news:
            return
        self.desk.ledger.commit(
            report,
            provenance_key=made_with,
            timings_s=result.timings_s,
            objects=result.objects,
        )
        self.desk.forwards.note_report(report, self.desk.now())
        submit_deliveries(self.desk, report, result.objects, group="flags")
        if FAILED not in job.payload:
            self._submit_pictures(report)

    def failed(self, job: Job, reason: str, connection: Connection) -> None:
        """Queue the Report that nobody looked: silence must not read as negative. It is not said of its own failure.

        The buried job is the study's failed state, and `ctriage status` shows it.
        """
        if FAILED in job.payload:
            return
        said = " ".join(without_uids(reason).split())[:LONGEST_REASON]
        request = JobRequest(
            key=f"{job.key}:{FAILED}:{job.attempt}",
            kind=TRIAGE,
            payload={**job.payload, FAILED: f"failed: {said}"},
            group=job.group,
            caller=job.caller,
            priority=job.priority,
            memory_mb=WORKER_MB,
        )
        self.desk.queue.submit(request, now=self.desk.now())

    def _complete(self, study: str, latest: CommittedReport | None) -> "_Complete":
        """Name what is complete; a series that is arriving again counts as the latest version read it.

        Else a late slice would take its series' findings out of the Report until it is complete again. Also at the end
        of the quiet period, for a job may have waited in the queue while a new series began.
        """
        series, waiting = [], []
        for each in self.desk.archive.series_of(study):
            instances = self._instances(study, each)
            files = {i.facts.sop_instance_uid: str(i.path) for i in instances}
            if files and each.state == "open":
                waiting.append(_still_arriving(each))
                files = _read_before(latest, files)
            if files:
                series.append(self._with_kept_result(study, each.series_instance_uid, files, _headers(instances)))
        return _Complete(series=tuple(series), waiting=tuple(waiting))

    def _provenance_key(self, study: str) -> str:
        return key_of(self.desk.provenance_of(study))

    def _decided(self, study: str) -> Iterator[str]:
        """Say what rules of retention or an administrator have done to a study."""
        removed_at, chosen = self.desk.archive.removed_at(study), self.desk.archive.chosen_contents(study)
        if removed_at is not None:
            yield f"images that came before {removed_at:%Y-%m-%d} were removed here and are not part of this version"
        if chosen:
            yield f"of {len(chosen)} image(s) that came with two contents an administrator chose the later one"

    def _instances(self, study: str, series: ArchivedSeries) -> list[ArchivedInstance]:
        """Return what ``select`` may read: nothing of ours, and only what belongs to a CT study."""
        instances = self.desk.archive.instances_of(study, series.series_instance_uid)
        return [i for i in instances if not i.is_ours and i.facts.is_ct]

    def _with_kept_result(
        self, study: str, series: str, files: Mapping[str, str], headers: Mapping[str, str]
    ) -> SeriesFiles:
        kept = self.desk.ledger.series_result(
            study, series, digest=digest_of(files), provenance_key=self._provenance_key(study)
        )
        return SeriesFiles(
            series_instance_uid=series,
            files=files,
            kept_result=kept,
            headers={uid: header for uid, header in headers.items() if uid in files},
        )

    def _task(self, job: Job, complete: "_Complete", latest: CommittedReport | None) -> TriageTask:
        return TriageTask(
            study_instance_uid=study_of(job),
            series=complete.series,
            detectors=self.desk.settings.detectors.enabled,
            provenance=self.desk.provenance_of(study_of(job)),
            language=self.desk.settings.language,
            # Results carry the hospital's wall clock, as the study's own dates do.
            committed_at=self.desk.now().astimezone(),
            objects_dir=str(self.desk.objects_dir),
            notes=(*complete.waiting, *self._decided(study_of(job))),
            previous=None if latest is None else self._previous(latest),
            final=bool(job.payload["final"]),
        )

    def _previous(self, latest: CommittedReport) -> Previous:
        objects = self.desk.ledger.objects(latest.study_instance_uid, latest.version)
        document = next((_reference(latest, each) for each in objects if each.kind == "sr"), None)
        return Previous(report_text=latest.report_text, document=document)

    def _submit_pictures(self, report: Report) -> None:
        study_key = self.desk.archive.study_key(report.study_instance_uid)
        payload = {"study_instance_uid": report.study_instance_uid, "version": report.version}
        request = JobRequest(
            key=f"derive:{study_key}:v{report.version}",
            kind=DERIVE,
            payload=payload,
            caller=study_key,
            priority=PICTURES,
            memory_mb=memory_mb_of(self.desk.archive.extent(report.study_instance_uid)),
            max_attempts=PROCESS_ATTEMPTS,
        )
        self.desk.queue.submit(request, now=self.desk.now())


@dataclass(frozen=True, slots=True, kw_only=True)
class DeriveHandler:
    """Makes the pictures of a committed version."""

    desk: Desk

    def prepare(self, job: Job) -> Task[DeriveOutcome] | Nothing:
        """Name the files of the version's instances; nothing to do for a version that has been superseded."""
        study, version = study_of(job), version_of(job)
        committed = self.desk.ledger.version(study, version)
        latest = self.desk.ledger.latest(study)
        if committed is None or latest is None or latest.version != version:
            return Nothing("a newer version has taken its place")
        outputs = self.desk.settings.outputs
        instances = self._instances(study)
        task = DeriveTask(
            report_text=committed.report_text,
            files={i.facts.sop_instance_uid: str(i.path) for i in instances},
            headers=_headers(instances),
            options=PictureOptions(**outputs.model_dump()),
            language=self.desk.settings.language,
            committed_at=committed.committed_at,
            objects_dir=str(self.desk.objects_dir),
            study_key=self.desk.archive.study_key(study),
        )
        return Task(make_pictures, (task,))

    def commit(self, job: Job, result: DeriveOutcome, connection: Connection) -> None:
        """Add the pictures to the version and queue their deliveries; nothing if it was superseded meanwhile."""
        study, version = study_of(job), version_of(job)
        latest = self.desk.ledger.latest(study)
        if latest is None or latest.version != version:
            return
        self.desk.ledger.add_objects(study, version, result.objects)
        self.desk.ledger.add_remarks(study, version, notes=result.notes, timings_s=result.timings_s)
        submit_deliveries(self.desk, latest, result.objects, group="pictures")

    def failed(self, job: Job, reason: str, connection: Connection) -> None:
        """Say with the version that its pictures are missing, and why."""
        study, version = study_of(job), version_of(job)
        self.desk.ledger.add_remarks(study, version, notes=(f"no pictures: {without_uids(reason)}",), timings_s={})

    def _instances(self, study: str) -> list[ArchivedInstance]:
        return [
            instance
            for series in self.desk.archive.series_of(study)
            for instance in self.desk.archive.instances_of(study, series.series_instance_uid)
            if not instance.is_ours
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Complete:
    """What is complete of a study, and what is said of the rest."""

    series: tuple[SeriesFiles, ...]
    waiting: tuple[str, ...]


def memory_mb_of(extent: Extent) -> int:
    """Estimate what work on a study needs: a few copies as if it were one volume, and the interpreter."""
    return WORKER_MB + extent.images * VOLUME_COPIES * SLICE_BYTES // 2**20


def _headers(instances: Sequence[ArchivedInstance]) -> dict[str, str]:
    """Return the headers that were read when the instances came."""
    return {i.facts.sop_instance_uid: i.header for i in instances if i.header is not None}


def _still_arriving(series: ArchivedSeries) -> str:
    number = "?" if series.series_number is None else series.series_number
    return f"images of series {number} were still arriving and are not part of this version"


def _read_before(latest: CommittedReport | None, files: Mapping[str, str]) -> dict[str, str]:
    """Keep of ``files`` those that the latest version names."""
    rows = latest.report().examined if latest else ()
    named = {uid for row in rows for uid in row.instances}
    return {uid: path for uid, path in files.items() if uid in named}


def _same_state(latest: CommittedReport, series: Sequence[SeriesFiles], provenance_key: str) -> bool:
    digest = digest_of(uid for each in series for uid in each.files)
    return latest.digest == digest and latest.provenance_key == provenance_key


def _reference(latest: CommittedReport, sr: KeptObject) -> DocumentReference:
    return DocumentReference(
        study_instance_uid=latest.study_instance_uid,
        series_instance_uid=sr.series_instance_uid,
        sop_class_uid=sr.sop_class_uid,
        sop_instance_uid=sr.sop_instance_uid,
    )
