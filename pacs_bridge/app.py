"""The composition root: settings -> archive, queue, detectors, outputs, handlers; and the service that they form."""

import fcntl
import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final

import structlog
from pydicom.dataset import Dataset

from pacs_bridge.archive import Archive, Extent
from pacs_bridge.arrival import Instruction, Limits, SeriesComplete, SeriesReopened, StudyQuiet
from pacs_bridge.destinations import destinations_of
from pacs_bridge.errors import AlreadyServing
from pacs_bridge.handlers import (
    DELIVER,
    DERIVE,
    JOB_PRIORITY,
    TRIAGE,
    DeliverHandler,
    DeriveHandler,
    Desk,
    TriageHandler,
)
from pacs_bridge.intake import Intake
from pacs_bridge.ledger import Ledger
from pacs_bridge.listener import Listener, ListenerOptions
from pacs_bridge.results import identifiers
from pacs_bridge.settings import Settings, SettingsError
from pacs_bridge.warm import step_back, warm_up
from pipeline.errors import UnknownDetector
from pipeline.model import Provenance
from pipeline.registry import load_detectors
from scheduler.admission import Machine
from scheduler.database import Database
from scheduler.executors import processes, threads
from scheduler.job import JobRequest, Status
from scheduler.sqlite_queue import SqliteQueue
from scheduler.worker import Lane, Worker

TICK_S: Final = 1.0
STOP_WITHIN_S: Final = 20.0
JOB_LIMIT_S: Final = 1800.0
SENDERS_PER_DESTINATION: Final = 2
PRELOAD: Final = ("pacs_bridge.warm", "pipeline.detectors.hemorrhage", "pipeline.detectors.skull_fracture")
WORKER_MB: Final = 300
SLICE_BYTES: Final = 512 * 512 * 2
VOLUME_COPIES: Final = 4
_log = structlog.get_logger()


def serve(settings: Settings, *, on_ready: Callable[[], object], stop: threading.Event) -> None:
    """Receive, process and deliver until ``stop`` is set. Calls ``on_ready`` when studies can be sent.

    Raises AlreadyServing where another service works on the same state_dir, SettingsError where a detector that they
    name is not installed, OSError where the port is taken.
    """
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    with ExitStack() as resources:
        resources.enter_context(_sole_service(settings.state_dir))
        database = Database(settings.database)
        resources.callback(database.close)
        service = _assembled(settings, database, resources)
        loop = service.worker.start()
        resources.callback(service.worker.stop, STOP_WITHIN_S)
        service.listener.start()
        resources.callback(service.listener.stop)
        _log.info("ready", port=service.listener.port, ae_title=settings.listener.ae_title)
        on_ready()
        _tick_until(stop, service.intake, loop)
        _log.info("stopping")


def desk_of(settings: Settings, database: Database) -> Desk:
    """Open everything that handlers work with."""
    return Desk(
        settings=settings,
        archive=Archive(settings.state_dir, database),
        ledger=Ledger(database),
        queue=SqliteQueue(database),
        provenance=provenance_of(settings),
        destinations=destinations_of(settings),
        now=lambda: datetime.now(UTC),
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
    listener: Listener
    intake: Intake
    worker: Worker


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
                self._submit(study, f"quiet:{self.desk.archive.extent(study).images}", final=True)
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


def memory_mb_of(extent: Extent) -> int:
    """Estimate what triage of a study needs: a few copies as if it were one volume, and the interpreter."""
    return WORKER_MB + extent.images * VOLUME_COPIES * SLICE_BYTES // 2**20


def _assembled(settings: Settings, database: Database, resources: ExitStack) -> _Service:
    desk = desk_of(settings, database)
    _sweep(desk)
    _give_up_lost_destinations(desk)
    submitter = _Submitter(desk)
    intake = Intake(
        desk.archive,
        database,
        on_instruction=submitter,
        is_ours=lambda header: _is_ours(header, desk.ledger),
        limits=Limits(quiet_s=settings.arrival.quiet_s),
    )
    worker = Worker(
        database=database,
        queue=desk.queue,
        lanes=_lanes(desk, resources),
        now=desk.now,
        random=random.Random(),
    )
    submitter.wake = worker.wake
    return _Service(listener=Listener(_listener_options(settings), intake), intake=intake, worker=worker)


def _is_ours(header: Dataset, ledger: Ledger) -> bool:
    return ledger.is_result(str(header.SOPInstanceUID)) or identifiers.is_ours(header)


def _lanes(desk: Desk, resources: ExitStack) -> Sequence[Lane]:
    """Give flags, pictures and each destination an executor of their own: none waits for another."""
    settings = desk.settings
    memory_mb = settings.workers.memory_mb or _machine_memory_mb()
    pictures_mb = memory_mb // 3
    flags = _pool(
        processes(settings.workers.processes, partial(warm_up, settings.detectors.enabled), preload=PRELOAD), resources
    )
    pictures = _pool(processes(1, step_back, preload=PRELOAD), resources)
    return (
        Lane(
            name="triage",
            executor=flags,
            machine=Machine(memory_mb=memory_mb - pictures_mb, slots=settings.workers.processes),
            handlers={TRIAGE: TriageHandler(desk=desk)},
            limit_s=JOB_LIMIT_S,
        ),
        Lane(
            name="derive",
            executor=pictures,
            machine=Machine(memory_mb=pictures_mb, slots=1),
            handlers={DERIVE: DeriveHandler(desk=desk)},
            limit_s=JOB_LIMIT_S,
        ),
        *(
            Lane(
                name=name,
                executor=_pool(threads(SENDERS_PER_DESTINATION), resources),
                machine=Machine(memory_mb=memory_mb, slots=SENDERS_PER_DESTINATION),
                handlers={DELIVER + name: DeliverHandler(desk=desk)},
            )
            for name in desk.destinations
        ),
    )


def _pool(executor: Executor, resources: ExitStack) -> Executor:
    resources.callback(executor.shutdown, wait=False, cancel_futures=True)
    return executor


def _listener_options(settings: Settings) -> ListenerOptions:
    return ListenerOptions(
        ae_title=settings.listener.ae_title,
        host=settings.listener.host,
        port=settings.listener.port,
        callers=tuple((caller.ae_title, caller.address) for caller in settings.caller),
    )


def _sweep(desk: Desk) -> None:
    """Remove objects that no committed version needs: what a killed worker had written before its job's end."""
    needed = desk.ledger.object_paths()
    desk.objects_dir.mkdir(parents=True, exist_ok=True)
    for path in desk.objects_dir.glob("*/*"):
        if str(path.relative_to(desk.objects_dir)) not in needed:
            path.unlink(missing_ok=True)


def _give_up_lost_destinations(desk: Desk) -> None:
    """Cancel what waits for destinations that the settings no longer name: no lane would ever take it up."""
    for job in desk.queue.jobs((Status.READY, Status.HELD)):
        name = job.kind.removeprefix(DELIVER)
        if job.kind.startswith(DELIVER) and name not in desk.destinations:
            desk.queue.cancel(job.key, f"destination {name} is no longer in the settings")


def _tick_until(stop: threading.Event, intake: Intake, loop: Future[None]) -> None:
    while not stop.wait(TICK_S):
        intake.tick()
        if loop.done():
            loop.result()
            return


@contextmanager
def _sole_service(state_dir: Path) -> Iterator[None]:
    """Hold the folder's lock; the system lets go of it when the process ends, however it ends."""
    with (state_dir / "service.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyServing(str(state_dir)) from None
        yield


def _machine_memory_mb() -> int:
    """Return three quarters of the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4 // 2**20
