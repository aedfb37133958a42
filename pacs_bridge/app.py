"""The composition root: settings -> archive, queue, detectors, outputs, handlers; and the service that they form."""

import fcntl
import os
import random
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final, TextIO

import structlog

from pacs_bridge.archive import Archive, Extent
from pacs_bridge.arrival import Instruction, Limits, SeriesComplete, SeriesReopened, StudyQuiet
from pacs_bridge.audit import Auditor, unheard
from pacs_bridge.audit_trail import kept
from pacs_bridge.commitment_jobs import COMMIT
from pacs_bridge.deliveries import DELIVER, JOB_PRIORITY, REJECT, DeliverHandler
from pacs_bridge.desk import Desk
from pacs_bridge.destinations import Destination, destinations_of
from pacs_bridge.errors import AlreadyServing
from pacs_bridge.forward_gate import DestinationGate, forget_contacts
from pacs_bridge.forward_jobs import FORWARD, ForwardHandler, dispatch
from pacs_bridge.forward_ledger import ForwardLedger
from pacs_bridge.forward_rules import rules_of
from pacs_bridge.front_desk import ReceptionDesk
from pacs_bridge.handlers import (
    DERIVE,
    GIVE_UP_AT,
    PROCESS_ATTEMPTS,
    TRIAGE,
    DeriveHandler,
    TriageHandler,
    memory_mb_of,
)
from pacs_bridge.instance import InstanceFacts
from pacs_bridge.intake import Consequences, Intake
from pacs_bridge.ledger import Ledger
from pacs_bridge.listener import PRELOAD as RECEIVING
from pacs_bridge.listener import Listener
from pacs_bridge.negotiation import STORAGE_COMMITMENT
from pacs_bridge.power_cut import forget_what_was_torn
from pacs_bridge.procedure_steps import MODALITY_PERFORMED_PROCEDURE_STEP
from pacs_bridge.procedure_steps_service import ProcedureSteps
from pacs_bridge.reception import admission_of, listener_of
from pacs_bridge.rejections import RejectHandler
from pacs_bridge.removal import Keeper, Removal
from pacs_bridge.results import identifiers
from pacs_bridge.services import Service
from pacs_bridge.settings import Settings, SettingsError
from pacs_bridge.storage_commitment import storage_commitment
from pacs_bridge.tls import require_usable
from pacs_bridge.warm import step_back, warm_up
from pipeline.errors import UnknownDetector
from pipeline.model import Provenance
from pipeline.registry import load_detectors
from scheduler.admission import Machine
from scheduler.database import Database, is_passing, lacks_room
from scheduler.executors import processes, threads
from scheduler.job import JobRequest, Status
from scheduler.sqlite_queue import SqliteQueue
from scheduler.worker import Lane, Worker

TICK_S: Final = 1.0
STOP_WITHIN_S: Final = 20.0
JOB_LIMIT_S: Final = 1800.0
PRELOAD: Final = (RECEIVING, "pacs_bridge.preload")  # in this order: the last one freezes what was loaded
LONGEST_AWAY_TICKS: Final = 30
_log = structlog.get_logger()


def serve(settings: Settings, *, on_ready: Callable[[], object], stop: threading.Event) -> None:
    """Receive, process and deliver until ``stop`` is set. Calls ``on_ready`` when studies can be sent.

    Raises AlreadyServing where another service works on the same state_dir, SettingsError where a detector that they
    name is not installed or a certificate cannot be used, OSError where the port is taken.
    """
    for problem in require_usable(settings, now=datetime.now(UTC)):
        _log.warning("certificate", found=problem.detail, remedy=problem.remedy)
    with ExitStack() as resources:
        resources.callback(os.umask, os.umask(0o077))  # images and names of patients are for the service's user alone
        settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings.state_dir.chmod(0o700)
        lock = resources.enter_context(_sole_service(settings.state_dir))
        resources.enter_context(emptied(scratch_of(settings)))
        audit = resources.enter_context(kept(settings, now=lambda: datetime.now(UTC))).record
        database = Database(settings.database)
        resources.callback(database.close)
        service = _assembled(settings, database, resources, audit)
        loop = service.worker.start()
        resources.callback(service.worker.stop, STOP_WITHIN_S)
        service.listener.start()
        resources.callback(service.listener.stop)
        _note_ports(lock, service.listener)
        keeper = Keeper(Removal(database, settings.state_dir, auditor=audit), settings.retention)
        removing = keeper.start()
        resources.callback(keeper.stop)
        _log.info(
            "ready", port=service.listener.port, tls_port=service.listener.tls_port, ae_title=settings.listener.ae_title
        )
        on_ready()
        _tick_until(stop, service.tick, (loop, removing, service.listener.failed))
        _log.info("stopping")


def scratch_of(settings: Settings) -> Path:
    """Name the folder for what workers and their children write for each other."""
    return settings.state_dir.resolve() / "scratch"


@contextmanager
def emptied(folder: Path) -> Iterator[None]:
    """Keep an empty folder for this service's user: what a killed service left in it (voxels) is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def desk_of(settings: Settings, database: Database, audit: Auditor = unheard) -> Desk:
    """Open everything that handlers work with."""
    return Desk(
        settings=settings,
        archive=Archive(settings.state_dir, database, free_space_floor_bytes=settings.disk.free_mb * 2**20),
        ledger=Ledger(database),
        forwards=ForwardLedger(database, rules_of(settings), settings.state_dir / "archive"),
        queue=SqliteQueue(database),
        provenance=provenance_of(settings),
        destinations=destinations_of(settings, scratch=scratch_of(settings)),
        now=lambda: datetime.now(UTC),
        audit=audit,
    )


def provenance_of(settings: Settings) -> Provenance:
    """Name the code, detectors and settings that results are made with; raises SettingsError."""
    try:
        detectors = load_detectors(settings.detectors.enabled)
    except UnknownDetector as unknown:
        raise SettingsError((f"detectors.enabled: {unknown}; correct it, or install what provides it",)) from unknown
    return Provenance(
        code_version=version("ctriage"),
        detector_versions={detector.name: detector.version for detector in detectors},
        settings_hash=settings.content_hash(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Service:
    desk: Desk
    listener: Listener
    intake: Intake
    worker: Worker

    def tick(self) -> None:
        """Let time pass for what arrives, and for what waits to be passed on."""
        self.intake.tick()
        if dispatch(self.desk, self.desk.now()):
            self.worker.wake()


@dataclass(slots=True)
class _Submitter:
    """Turns what arrival concludes into jobs, inside the transaction that notes the conclusion."""

    desk: Desk
    wake: Callable[[], None] = field(default=lambda: None)

    def __call__(self, instruction: Instruction) -> None:
        match instruction:
            case SeriesComplete(study=study, digest=digest):
                self._submit(study, f"series:{digest}", final=False)
            case StudyQuiet(study=study):
                # Images that come after others were removed may be as many as those once were.
                extent = self.desk.archive.extent(study)
                again = f":{extent.removals}" if extent.removals else ""
                self._submit(study, f"quiet:{extent.images}{again}", final=True)
            case SeriesReopened():
                pass

    def _submit(self, study: str, occasion: str, *, final: bool) -> None:
        study_key = self.desk.archive.study_key(study)
        extent = self.desk.archive.extent(study)
        request = JobRequest(
            key=f"{TRIAGE}:{study_key}:{occasion}",
            kind=TRIAGE,
            payload={"study_instance_uid": study, "final": final},
            group=study_key,
            caller=extent.calling_ae,
            priority=self._priority(study, extent),
            memory_mb=memory_mb_of(extent),
            max_attempts=PROCESS_ATTEMPTS,
        )
        if self.desk.queue.submit(request, now=self.desk.now()):
            self.wake()

    def _priority(self, study: str, extent: Extent) -> int:
        known = self.desk.archive.study(study)
        series = self.desk.archive.series_of(study)
        priority = self.desk.settings.first_priority(
            caller=extent.calling_ae,
            body_part=extent.body_part,
            description=" ".join([known.description, *(s.description for s in series)]),
        )
        return JOB_PRIORITY[priority.value]


def _assembled(settings: Settings, database: Database, resources: ExitStack, audit: Auditor) -> _Service:
    desk = desk_of(settings, database, audit)
    forget_what_was_torn(settings.state_dir, database)
    _sweep(desk)
    desk.queue.recover(desk.now())
    _hold_lost_destinations(desk)
    forget_contacts(database)
    submitter = _Submitter(desk)
    intake = Intake(
        desk.archive,
        database,
        consequences=Consequences(on_instruction=submitter, on_new=desk.forwards.note),
        is_ours=lambda facts: _is_ours(facts, desk.ledger),
        limits=Limits(**settings.arrival.model_dump()),
    )
    commitment = storage_commitment(desk, database)
    worker = Worker(
        database=database,
        queue=desk.queue,
        lanes=(
            *_lanes(desk, database, resources),
            *commitment.lanes(lambda at_once: _pool(threads(at_once), resources)),
        ),
        now=desk.now,
        random=random.Random(),
    )
    submitter.wake = worker.wake
    services: dict[str, Service] = {
        MODALITY_PERFORMED_PROCEDURE_STEP: ProcedureSteps(database, declare=intake.declared, now=desk.now),
        STORAGE_COMMITMENT: commitment.service,
    }
    reception = ReceptionDesk(admission_of(settings), intake, services=services, audit=audit, now=desk.now)
    listener = listener_of(settings, reception, desk.archive.files)
    around = commitment.surroundings
    around.event_report, around.declare, around.wake = listener.event_report, intake.declared, worker.wake
    return _Service(desk=desk, listener=listener, intake=intake, worker=worker)


def _is_ours(facts: InstanceFacts, ledger: Ledger) -> bool:
    return identifiers.bears_our_mark(None, facts.manufacturer) or ledger.is_result(facts.sop_instance_uid)


def _lanes(desk: Desk, database: Database, resources: ExitStack) -> Sequence[Lane]:
    """Give flags, pictures and each destination an executor of their own: none waits for another."""
    settings = desk.settings
    memory_mb = settings.workers.memory_mb or _machine_memory_mb()
    pictures_mb = memory_mb // 3
    scratch = str(scratch_of(settings))
    warm = partial(warm_up, settings.detectors.enabled, scratch=scratch)
    flags = _pool(processes(settings.workers.processes, warm, preload=PRELOAD), resources)
    pictures = _pool(processes(1, partial(step_back, scratch=scratch), preload=PRELOAD), resources)
    return (
        Lane(
            name="triage",
            executor=flags,
            machine=Machine(memory_mb=memory_mb - pictures_mb, slots=settings.workers.processes),
            handlers={TRIAGE: TriageHandler(desk=desk), REJECT: RejectHandler(desk=desk)},
            limit_s=JOB_LIMIT_S,
            give_up_at=GIVE_UP_AT,
        ),
        Lane(
            name="derive",
            executor=pictures,
            machine=Machine(memory_mb=pictures_mb, slots=1),
            handlers={DERIVE: DeriveHandler(desk=desk)},
            limit_s=JOB_LIMIT_S,
            give_up_at=GIVE_UP_AT,
        ),
        *(_lane_to(destination, desk, database, resources) for destination in desk.destinations.values()),
    )


def _lane_to(destination: Destination, desk: Desk, database: Database, resources: ExitStack) -> Lane:
    """Lead everything that goes to a destination over its own lane, which waits where nobody answers."""
    name = destination.name
    resources.callback(destination.close)
    return Lane(
        name=name,
        executor=_pool(threads(destination.associations), resources),
        machine=Machine(memory_mb=1, slots=destination.associations),
        handlers={DELIVER + name: DeliverHandler(desk=desk), FORWARD + name: ForwardHandler(desk=desk)},
        gate=DestinationGate(name, database, random.Random()),
    )


def _pool(executor: Executor, resources: ExitStack) -> Executor:
    resources.callback(executor.shutdown, wait=False, cancel_futures=True)
    return executor


def _sweep(desk: Desk) -> None:
    """Remove objects that no committed version needs: what a killed worker had written before its job's end."""
    needed = desk.ledger.object_paths()
    desk.objects_dir.mkdir(parents=True, exist_ok=True)
    for path in desk.objects_dir.glob("*/*"):
        if str(path.relative_to(desk.objects_dir)) not in needed:
            path.unlink(missing_ok=True)


def _hold_lost_destinations(desk: Desk) -> None:
    """Hold what waits for destinations that the settings do not name, and let go what they name again."""
    for job in desk.queue.jobs((Status.READY, Status.HELD)):
        kind, _, name = job.kind.partition(":")
        lost = f"destination {name} is not in the settings"
        if f"{kind}:" not in (DELIVER, FORWARD, COMMIT):
            continue
        if job.status is Status.READY and name not in desk.destinations:
            desk.queue.hold(job.key, lost)
        elif job.reason == lost and name in desk.destinations:
            desk.queue.release(job.key)


def _tick_until(stop: threading.Event, tick: Callable[[], None], beside: Sequence[Future[None]]) -> None:
    """Tick until told to stop, or until one of the threads beside this one ends; raises what ended it."""
    patient = _Patient(tick)
    while not stop.wait(TICK_S):
        patient()
        for ended in (each for each in beside if each.done()):
            ended.result()
            return


@dataclass(slots=True)
class _Patient:
    """Calls ``tick``; while the disk is full or the database locked, less and less often, and tells so once."""

    tick: Callable[[], None]
    failures: int = 0
    to_wait: int = 0

    def __call__(self) -> None:
        if self.to_wait:
            self.to_wait -= 1
            return
        try:
            self.tick()
        except (sqlite3.OperationalError, OSError) as error:
            if not (is_passing(error) or lacks_room(error)):
                raise
            self._failed(error)
        else:
            self._succeeded()

    def _failed(self, error: Exception) -> None:
        if not self.failures:
            _log.error("arrivals cannot be noted: waiting", reason=str(error))
        self.failures += 1
        self.to_wait = min(2**self.failures, LONGEST_AWAY_TICKS)

    def _succeeded(self) -> None:
        if self.failures:
            _log.info("arrivals are noted again")
        self.failures = 0


@contextmanager
def _sole_service(state_dir: Path) -> Iterator[TextIO]:
    """Hold the folder's lock, emptied; the system lets go of it when the process ends, however it ends."""
    with (state_dir / "service.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyServing(str(state_dir)) from None
        lock.truncate(0)
        yield lock


def _note_ports(lock: TextIO, listener: Listener) -> None:
    """Write where we listen, for `ctriage check` to tell our ports from those that others have taken."""
    with suppress(OSError):  # a full disk is no reason not to start
        os.write(lock.fileno(), f"{listener.port} {listener.tls_port}\n".encode("ascii"))


def _machine_memory_mb() -> int:
    """Return three quarters of the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4 // 2**20
