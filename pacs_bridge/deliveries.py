"""How do finished objects reach their destinations? One job for each destination and group of objects."""

from collections.abc import Sequence
from dataclasses import dataclass
from sqlite3 import Connection

from pacs_bridge.audit import Party, instances_sent
from pacs_bridge.commitment_jobs import commit_job, committing, only_of
from pacs_bridge.desk import Desk, study_of, version_of
from pacs_bridge.destinations import deliver
from pacs_bridge.ledger import CommittedReport, KeptObject
from pacs_bridge.settings import FLAGS_FIRST
from pipeline.model import Report
from scheduler.errors import Transient, UnknownJob
from scheduler.job import ROUTINE, STAT, URGENT, Job, JobRequest, Status
from scheduler.worker import Nothing, Task

DELIVER = "deliver:"
PICTURES = 0
"""Queue priority of pictures: below every triage job, so that flags never wait for them."""

DELIVERY_ATTEMPTS = 500
"""At up to ten minutes apart: a PACS may be away for days before a delivery is given up."""

JOB_PRIORITY = {"stat": STAT, "urgent": URGENT, "routine": ROUTINE}
_HELD = "two patient IDs under one Study Instance UID: decide with `ctriage conflicts`"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverHandler:
    """Hands finished objects over to one destination."""

    desk: Desk

    def prepare(self, job: Job) -> Task[None] | Nothing:
        """Name the destination and the files of the objects; a conflict found since it was queued makes it wait.

        Nothing to do once a peer has a newer version: what comes last is taken for the newest.
        """
        study, version = study_of(job), version_of(job)
        if _has_two_patients(self.desk, study):
            raise Transient(_HELD)
        newer = self._newer_delivered(job)
        if newer is not None:
            return Nothing(f"version {newer} was delivered before it")
        name, objects = str(job.payload["destination"]), objects_of(self.desk, job)
        paths = [self.desk.objects_dir / each.path for each in objects]
        folder = f"{self.desk.archive.study_key(study)}/v{version}"
        return Task(deliver, (self.desk.destinations[name], tuple(objects), tuple(paths), folder))

    def _newer_delivered(self, job: Job) -> int | None:
        """Name the newer version whose flags the peer has; folders keep all versions, in whatever order they come."""
        study, name = study_of(job), str(job.payload["destination"])
        latest = self.desk.ledger.latest(study)
        if self.desk.destinations[name].peer is None or latest is None:
            return None
        study_key = self.desk.archive.study_key(study)
        newer = range(latest.version, version_of(job), -1)
        return next((each for each in newer if self._is_delivered(_delivery_key(name, study_key, each))), None)

    def _is_delivered(self, key: str) -> bool:
        try:
            return self.desk.queue.job(key).status is Status.DONE
        except UnknownJob:
            return False

    def commit(self, job: Job, result: None, connection: Connection) -> None:
        """Let the job's end be the proof of delivery; where the peer commits to what it takes, ask it to do so next."""
        self._audit(job)
        if job.payload["destination"] in committing(self.desk.settings):
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
    wanted, group = desk.destinations[str(job.payload["destination"])].send, str(job.payload["group"])
    only = only_of(job)
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
