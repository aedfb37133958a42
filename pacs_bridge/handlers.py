"""How is each kind of job done? triage: flags; derive: pictures; deliver: one destination, one set of objects.

Each handler turns names into a task (read only), and commits the outcome in the transaction that ends the job.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from sqlite3 import Connection

from pacs_bridge.archive import Archive, ArchivedInstance, ArchivedSeries, Extent
from pacs_bridge.destinations import Destinations, deliver
from pacs_bridge.ledger import CommittedReport, KeptObject, Ledger
from pacs_bridge.logs import without_uids
from pacs_bridge.results.context import DocumentReference
from pacs_bridge.settings import FLAGS_FIRST, Settings
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
from pipeline.model import PictureOptions, Provenance, Report
from pipeline.select import digest_of
from scheduler.errors import Transient, UnknownJob
from scheduler.job import ROUTINE, STAT, URGENT, Job, JobRequest, Status
from scheduler.sqlite_queue import SqliteQueue
from scheduler.worker import Nothing, Task

TRIAGE, DERIVE, DELIVER = "triage", "derive", "deliver:"
PICTURES = 0
"""Queue priority of pictures: below every triage job, so that flags never wait for them."""

DELIVERY_ATTEMPTS = 500
"""At up to ten minutes apart: a PACS may be away for days before a delivery is given up."""

PROCESS_ATTEMPTS = 10
"""Interruptions that triage and pictures outlive; a failure of their own ends them at `GIVE_UP_AT` (see Lane)."""

GIVE_UP_AT = 3
FAILED = "failed"
"""Names in a triage job's payload why the one before it was given up: it has but to say so."""

WORKER_MB = 300
SLICE_BYTES = 512 * 512 * 2
VOLUME_COPIES = 4
LONGEST_REASON = 200

JOB_PRIORITY = {"stat": STAT, "urgent": URGENT, "routine": ROUTINE}
_HELD = "two patient IDs under one Study Instance UID: decide with `ctriage conflicts`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What every handler works with."""

    settings: Settings
    archive: Archive
    ledger: Ledger
    queue: SqliteQueue
    provenance: Provenance
    destinations: Destinations
    now: Callable[[], datetime]

    @property
    def provenance_key(self) -> str:
        """Name the code, detectors and settings that make a result what it is."""
        return json.dumps(asdict(self.provenance), sort_keys=True)

    @property
    def objects_dir(self) -> Path:
        """Where finished result objects lie."""
        return self.settings.state_dir / "objects"


@dataclass(frozen=True, slots=True, kw_only=True)
class TriageHandler:
    """Concludes on what is complete of a study, and sends the flags on their way."""

    desk: Desk

    def prepare(self, job: Job) -> Task[TriageOutcome] | Nothing:
        """Name the complete series and their files; nothing to do where this very state was concluded on already."""
        latest = self.desk.ledger.latest(_study(job))
        complete = self._complete(_study(job), latest)
        if not complete.series:
            return Nothing("no series is complete")
        if latest is not None and _same_state(latest, complete.series, self.desk.provenance_key):
            return Nothing(f"version {latest.version} already says what these images say")
        work = partial(say_not_analysed, reason=str(job.payload[FAILED])) if FAILED in job.payload else triage
        return Task(work, (self._task(job, complete, latest),))

    def commit(self, job: Job, result: TriageOutcome, connection: Connection) -> None:
        """Keep the per-series results; publish the Report where it is news, and queue its pictures and deliveries."""
        study = _study(job)
        for series, digest, text in result.series_results:
            self.desk.ledger.keep_series_result(
                study, series, digest=digest, provenance_key=self.desk.provenance_key, result=text
            )
        if not result.is_news:
            return
        report = wire.loads(Report, result.report_text)
        self.desk.ledger.commit(
            report,
            provenance_key=self.desk.provenance_key,
            timings_s=result.timings_s,
            objects=result.objects,
        )
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

    def _instances(self, study: str, series: ArchivedSeries) -> list[ArchivedInstance]:
        """Return what ``select`` may read: nothing of ours, and only what belongs to a CT study."""
        instances = self.desk.archive.instances_of(study, series.series_instance_uid)
        return [i for i in instances if not i.is_ours and i.facts.is_ct]

    def _with_kept_result(
        self, study: str, series: str, files: Mapping[str, str], headers: Mapping[str, str]
    ) -> SeriesFiles:
        kept = self.desk.ledger.series_result(
            study, series, digest=digest_of(files), provenance_key=self.desk.provenance_key
        )
        return SeriesFiles(
            series_instance_uid=series,
            files=files,
            kept_result=kept,
            headers={uid: header for uid, header in headers.items() if uid in files},
        )

    def _task(self, job: Job, complete: "_Complete", latest: CommittedReport | None) -> TriageTask:
        return TriageTask(
            study_instance_uid=_study(job),
            series=complete.series,
            detectors=self.desk.settings.detectors.enabled,
            provenance=self.desk.provenance,
            language=self.desk.settings.language,
            # Results carry the hospital's wall clock, as the study's own dates do.
            committed_at=self.desk.now().astimezone(),
            objects_dir=str(self.desk.objects_dir),
            notes=complete.waiting,
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
        study, version = _study(job), _version(job)
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
        study, version = _study(job), _version(job)
        latest = self.desk.ledger.latest(study)
        if latest is None or latest.version != version:
            return
        self.desk.ledger.add_objects(study, version, result.objects)
        self.desk.ledger.add_remarks(study, version, notes=result.notes, timings_s=result.timings_s)
        submit_deliveries(self.desk, latest, result.objects, group="pictures")

    def failed(self, job: Job, reason: str, connection: Connection) -> None:
        """Say with the version that its pictures are missing, and why."""
        study, version = _study(job), _version(job)
        self.desk.ledger.add_remarks(study, version, notes=(f"no pictures: {without_uids(reason)}",), timings_s={})

    def _instances(self, study: str) -> list[ArchivedInstance]:
        return [
            instance
            for series in self.desk.archive.series_of(study)
            for instance in self.desk.archive.instances_of(study, series.series_instance_uid)
            if not instance.is_ours
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverHandler:
    """Hands finished objects over to one destination."""

    desk: Desk

    def prepare(self, job: Job) -> Task[None] | Nothing:
        """Name the destination and the files of the objects; a conflict found since it was queued makes it wait.

        Nothing to do once a peer has a newer version: what comes last is taken for the newest.
        """
        study, version = _study(job), _version(job)
        if _has_two_patients(self.desk, study):
            raise Transient(_HELD)
        newer = self._newer_delivered(job)
        if newer is not None:
            return Nothing(f"version {newer} was delivered before it")
        name, group = str(job.payload["destination"]), str(job.payload["group"])
        wanted = self.desk.destinations[name].send
        objects = [o for o in self.desk.ledger.objects(study, version) if _belongs(o, group) and o.kind in wanted]
        paths = [self.desk.objects_dir / each.path for each in objects]
        folder = f"{self.desk.archive.study_key(study)}/v{version}"
        return Task(deliver, (self.desk.destinations[name], tuple(objects), tuple(paths), folder))

    def _newer_delivered(self, job: Job) -> int | None:
        """Name the newer version whose flags the peer has; folders keep all versions, in whatever order they come."""
        study, name = _study(job), str(job.payload["destination"])
        latest = self.desk.ledger.latest(study)
        if self.desk.destinations[name].peer is None or latest is None:
            return None
        study_key = self.desk.archive.study_key(study)
        newer = range(latest.version, _version(job), -1)
        return next((each for each in newer if self._is_delivered(_delivery_key(name, study_key, each))), None)

    def _is_delivered(self, key: str) -> bool:
        try:
            return self.desk.queue.job(key).status is Status.DONE
        except UnknownJob:
            return False

    def commit(self, job: Job, result: None, connection: Connection) -> None:
        """Nothing besides the job's end: a delivered job is the proof of delivery."""

    def failed(self, job: Job, reason: str, connection: Connection) -> None:
        """The buried job is shown by `ctriage status`; a person may bring it back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Complete:
    """What is complete of a study, and what is said of the rest."""

    series: tuple[SeriesFiles, ...]
    waiting: tuple[str, ...]


def memory_mb_of(extent: Extent) -> int:
    """Estimate what work on a study needs: a few copies as if it were one volume, and the interpreter."""
    return WORKER_MB + extent.images * VOLUME_COPIES * SLICE_BYTES // 2**20


def submit_deliveries(
    desk: Desk, report: Report | CommittedReport, objects: Sequence[KeptObject], *, group: str
) -> None:
    """Queue one delivery of these objects for each destination that takes any of them; held while patients conflict."""
    conflict = _has_two_patients(desk, report.study_instance_uid)
    for name, destination in desk.destinations.items():
        if not any(each.kind in destination.send for each in objects):
            continue
        request = _delivery(desk, report, name, group)
        if desk.queue.submit(request, now=desk.now()) and conflict:
            desk.queue.hold(request.key, _HELD)


def _has_two_patients(desk: Desk, study: str) -> bool:
    return any(conflict.kind == "patient" for conflict in desk.archive.open_conflicts(study))


def _delivery(desk: Desk, report: Report | CommittedReport, destination: str, group: str) -> JobRequest:
    study_key = desk.archive.study_key(report.study_instance_uid)
    # A study whose priority is not known goes before the routine ones.
    priority = JOB_PRIORITY[report.priority.value if report.priority else "urgent"]
    return JobRequest(
        key=_delivery_key(destination, study_key, report.version, group),
        kind=DELIVER + destination,
        payload={
            "study_instance_uid": report.study_instance_uid,
            "version": report.version,
            "destination": destination,
            "group": group,
        },
        group=f"{destination}:{study_key}",
        caller=destination,
        priority=priority if group == "flags" else PICTURES,
        max_attempts=DELIVERY_ATTEMPTS,
    )


def _delivery_key(destination: str, study_key: str, version: int, group: str = "flags") -> str:
    return f"{DELIVER}{destination}:{study_key}:v{version}:{group}"


def _belongs(each: KeptObject, group: str) -> bool:
    return (each.kind in FLAGS_FIRST) == (group == "flags")


def _study(job: Job) -> str:
    return str(job.payload["study_instance_uid"])


def _version(job: Job) -> int:
    return int(str(job.payload["version"]))


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
