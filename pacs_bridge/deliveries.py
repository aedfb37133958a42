"""How do finished objects reach their destinations? One job for each destination and group of objects."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from sqlite3 import Connection

from pacs_bridge.audit import Party, instances_sent
from pacs_bridge.commitment_jobs import ONLY, commit_job, committing, only_of
from pacs_bridge.desk import Desk, study_of, version_of
from pacs_bridge.destinations import deliver
from pacs_bridge.ledger import CommittedReport, KeptObject
from pacs_bridge.settings import FLAGS_FIRST
from pipeline.model import Report
from scheduler.errors import Transient, UnknownJob
from scheduler.job import ROUTINE, STAT, URGENT, Job, JobRequest, Status
from scheduler.worker import Nothing, Task

DELIVER, REJECT = "deliver:", "reject"
FLAGS, PICTURE_GROUP, NOTE = "flags", "pictures", "rejection"
"""The groups of objects that a delivery brings; a note is a group by itself, of the kind of the same name."""

REJECT_MB = 300
PICTURES = 0
"""Queue priority of pictures: below every triage job, so that flags never wait for them."""

DELIVERY_ATTEMPTS = 500
"""At up to ten minutes apart: a PACS may be away for days before a delivery is given up."""

JOB_PRIORITY = {"stat": STAT, "urgent": URGENT, "routine": ROUTINE}
HELD_BACK = "two patient IDs under one Study Instance UID: decide with `ctriage conflicts`"
"""What a delivery waits for, or was given up over, while a second patient stands against its study."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverHandler:
    """Hands finished objects over to one destination."""

    desk: Desk

    def prepare(self, job: Job) -> Task[None] | Nothing:
        """Name the destination and the files of the objects; a conflict found since it was queued makes it wait.

        Nothing to do once a peer has a newer version, or a newer one has nothing for it: what comes last is taken for
        the newest. A rejection note is always to be delivered.
        """
        study, version = study_of(job), version_of(job)
        if _has_two_patients(self.desk, study):
            raise Transient(HELD_BACK)
        newer = self._newer_delivered(job)
        if newer is not None and job.payload["group"] != NOTE:
            return Nothing(f"version {newer} was delivered before it")
        name, objects = str(job.payload["destination"]), objects_of(self.desk, job)
        paths = [self.desk.objects_dir / each.path for each in objects]
        folder = f"{self.desk.archive.study_key(study)}/v{version}"
        # What a peer has taken when it breaks off stays with it, though a newer version may come before the next try.
        work = partial(deliver, partly=lambda taken: self.desk.ledger.note_sent(name, taken, self.desk.now()))
        return Task(work, (self.desk.destinations[name], tuple(objects), tuple(paths), folder))

    def _newer_delivered(self, job: Job) -> int | None:
        """Name the newer version that the peer has as far as it is sent any; folders keep all, in whatever order."""
        study, name = study_of(job), str(job.payload["destination"])
        latest = self.desk.ledger.latest(study)
        if self.desk.destinations[name].peer is None or latest is None:
            return None
        study_key = self.desk.archive.study_key(study)
        newer = range(latest.version, version_of(job), -1)
        keys = {each: delivery_key(name, study_key, each) for each in newer}
        return next((each for each, key in keys.items() if not self._is_awaited(key)), None)

    def _is_awaited(self, key: str) -> bool:
        """Say whether a delivery is still to be made; a version that has nothing for a destination has none."""
        try:
            return self.desk.queue.job(key).status is not Status.DONE
        except UnknownJob:
            return False

    def commit(self, job: Job, result: None, connection: Connection) -> None:
        """Let the job's end be the proof of delivery; where the peer commits to what it takes, ask it to do so next."""
        self._audit(job)
        name = str(job.payload["destination"])
        if self.desk.destinations[name].peer is not None:
            self.desk.ledger.note_sent(name, objects_of(self.desk, job), self.desk.now())
        if job.payload["group"] == FLAGS:
            submit_rejection(self.desk, study_of(job), version_of(job), name)
        if name in committing(self.desk.settings) and job.payload["group"] != NOTE:
            self.desk.queue.submit(commit_job(job), now=self.desk.now())

    def failed(self, job: Job, reason: str, connection: Connection) -> None:
        """The buried job is shown by `ctriage status`; a person may bring it back."""
        self._audit(job, problem=reason)

    def _audit(self, job: Job, *, problem: str = "") -> None:
        """Say who was sent what; what stays in the results folder was sent to nobody."""
        destination = self.desk.destinations.get(str(job.payload["destination"]))
        if destination is not None and (peer := destination.peer):
            party = Party(name=peer.ae_title, address=peer.host)
            share = self.desk.share_of(study_of(job), [each.sop_class_uid for each in objects_of(self.desk, job)])
            self.desk.audit(instances_sent(party, share, at=self.desk.now(), problem=problem))


def objects_of(desk: Desk, job: Job) -> list[KeptObject]:
    """Return what a delivery brings: the kinds that its destination takes, of those only what the job is limited to."""
    group, only = str(job.payload["group"]), only_of(job)
    wanted = (NOTE,) if group == NOTE else desk.destinations[str(job.payload["destination"])].send
    return [
        each
        for each in desk.ledger.objects(study_of(job), version_of(job))
        if _belongs(each, group) and each.kind in wanted and (only is None or each.sop_instance_uid in only)
    ]


def submit_deliveries(
    desk: Desk, report: Report | CommittedReport, objects: Sequence[KeptObject], *, group: str
) -> None:
    """Queue one delivery of these objects for each destination that takes any of them; held while patients conflict."""
    conflict = _has_two_patients(desk, report.study_instance_uid)
    for name, destination in desk.destinations.items():
        if any(each.kind in destination.send for each in objects):
            _submit(desk, _delivery(desk, report, name, group), conflict=conflict)
        elif group == FLAGS:
            submit_rejection(desk, report.study_instance_uid, report.version, name)


def submit_note(desk: Desk, report: CommittedReport, destination: str, note: KeptObject) -> None:
    """Queue the delivery of a rejection note, before any other of this study to its destination."""
    conflict = _has_two_patients(desk, report.study_instance_uid)
    request = _delivery(desk, report, destination, NOTE)
    _submit(desk, replace(request, payload={**request.payload, ONLY: [note.sop_instance_uid]}), conflict=conflict)


def submit_rejection(desk: Desk, study: str, version: int, destination: str) -> None:
    """Queue the note on what a version has replaced at a destination that takes such notes.

    Once the destination has the version's flags, or at once where it is sent none. What was sent it by then is known
    when the job is prepared: jobs of one study to one destination follow one another.
    """
    if version == 1 or not any(each.iocm for each in desk.settings.destination if each.name == destination):
        return
    study_key = desk.archive.study_key(study)
    request = JobRequest(
        key=f"{REJECT}:{destination}:{study_key}:v{version}",
        kind=REJECT,
        payload={"study_instance_uid": study, "version": version, "destination": destination},
        group=f"{destination}:{study_key}",
        caller=destination,
        priority=PICTURES,
        memory_mb=REJECT_MB,
        max_attempts=DELIVERY_ATTEMPTS,
    )
    desk.queue.submit(request, now=desk.now())


def _submit(desk: Desk, request: JobRequest, *, conflict: bool) -> None:
    if desk.queue.submit(request, now=desk.now()) and conflict:
        desk.queue.hold(request.key, HELD_BACK)


def _has_two_patients(desk: Desk, study: str) -> bool:
    return any(conflict.kind == "patient" for conflict in desk.archive.open_conflicts(study))


def _delivery(desk: Desk, report: Report | CommittedReport, destination: str, group: str) -> JobRequest:
    study_key = desk.archive.study_key(report.study_instance_uid)
    # A study whose priority is not known goes before the routine ones.
    priority = JOB_PRIORITY[report.priority.value if report.priority else "urgent"]
    return JobRequest(
        key=delivery_key(destination, study_key, report.version, group),
        kind=DELIVER + destination,
        payload={
            "study_instance_uid": report.study_instance_uid,
            "version": report.version,
            "destination": destination,
            "group": group,
        },
        group=f"{destination}:{study_key}",
        caller=destination,
        priority=PICTURES if group == PICTURE_GROUP else priority,
        max_attempts=DELIVERY_ATTEMPTS,
    )


def delivery_key(destination: str, study_key: str, version: int, group: str = FLAGS) -> str:
    """Name the delivery of one group of a version's objects to one destination."""
    return f"{DELIVER}{destination}:{study_key}:v{version}:{group}"


def _belongs(each: KeptObject, group: str) -> bool:
    return group == (NOTE if each.kind == NOTE else FLAGS if each.kind in FLAGS_FIRST else PICTURE_GROUP)
