"""``make demo``: does the whole way of a study work on this machine? With digital patients, or with your own scans.

Starts the real service as a subprocess, sends over real DICOM associations, waits until it has nothing left to do, and
compares what it found with what was put in.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np

from pacs_bridge.agreement import Expectation, Lesion, Outcome, disagreements
from pacs_bridge.cli_peers import dicom_files
from pacs_bridge.cli_phantom import write_phantom
from pacs_bridge.destinations import RESULTS
from pacs_bridge.send import Peer, send_files
from pacs_bridge.settings import Settings
from pacs_bridge.settings_file import ENVIRONMENT_PREFIX, load_settings
from pacs_bridge.status import NoState, read_report, read_status
from pacs_bridge.terminal import ShowProgress, complain, print_table, progress_bar
from pipeline.model import Report, StudyStatus

FOLDER: Final = Path("ctriage-demo")
READY_WITHIN_S: Final = 120.0
STALLED_AFTER_S: Final = 600.0
STOP_WITHIN_S: Final = 30.0
LOOK_EVERY_S: Final = 0.2
QUIET_S: Final = 5
"""A demo's senders are fast and near: a quiet period of a minute would only be waited for."""

PICTURES: Final = frozenset({"mpr", "mip", "render"})
EXAMINED: Final[Mapping[str, bool]] = {"head-bleed": True, "head-fracture": True, "head": True, "torso": False}
"""The digital patients, and whether any detector of this version examines such a body part."""

_SETTINGS: Final = """\
# What `make demo` runs with: the defaults, a free port, and a short quiet period.
state_dir = "state"
[listener]
port = {port}
[arrival]
quiet_s = {quiet_s}
"""


class DemoFailed(Exception):
    """The demo cannot go on; the text says why, with the end of the service's log where that helps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """What is sent: files of one or more studies, and what must be found where that is known."""

    label: str
    files: tuple[Path, ...]
    study_instance_uid: str = ""
    expected: Expectation | None = None


def main() -> None:
    """Run the demo, print its table, and leave with 0 only if the findings agree with the truth."""
    arguments = argparse.ArgumentParser(prog="make demo", description=__doc__)
    arguments.add_argument("--dicom", type=Path, metavar="FOLDER", help="your own scans instead of digital patients")
    try:
        sys.exit(demo(arguments.parse_args().dicom))
    except DemoFailed as failed:
        complain(str(failed))
        sys.exit(1)


def demo(dicom: Path | None, folder: Path = FOLDER) -> int:
    """Run everything below ``folder``, which is emptied first; returns the exit status. Raises DemoFailed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    settings = _settings(folder)
    own = _own_scans(dicom) if dicom else None
    with progress_bar() as progress, _service(folder) as service:
        patients = own or _digital_patients(folder / "patients", progress)
        service.wait_ready()
        seconds = _send_and_wait(patients, settings, service, progress)
    print_table("", _COLUMNS, list(_rows(patients, settings, seconds)))
    print(f"Results: {settings.state_dir / RESULTS}")
    return _verdict(patients, settings)


# ---- patients -------------------------------------------------------------------------------------------------------


def _digital_patients(folder: Path, progress: ShowProgress) -> list[Patient]:
    making: list[Future[int]] = []
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as makers:
        for seed, kind in enumerate(EXAMINED, start=1):
            making.append(makers.submit(write_phantom, kind, folder / kind, seed=seed))
        for done, made in enumerate(as_completed(making), start=1):
            made.result()
            progress("making digital patients", done, len(making))
    return [_patient(kind, folder / kind, examined=examined) for kind, examined in EXAMINED.items()]


def _patient(kind: str, folder: Path, *, examined: bool) -> Patient:
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    return Patient(
        label=kind,
        files=tuple(dicom_files([folder])),
        study_instance_uid=truth["study_instance_uid"],
        expected=Expectation(
            lesions=tuple(_lesion(finding, folder / finding["mask"]) for finding in truth["findings"]),
            examined=examined,
        ),
    )


def _lesion(finding: Mapping[str, Any], mask: Path) -> Lesion:
    x, y, z = finding["centroid_lps_mm"]
    with np.load(mask) as lesion:
        inside = np.argwhere(lesion["bits"]) + lesion["origin_kji"]
        affine = lesion["affine_kji_to_lps_mm"]
    return Lesion(
        kind=finding["kind"],
        volume_ml=finding["volume_ml"],
        centroid_lps_mm=(x, y, z),
        points_lps_mm=inside @ affine[:3, :3].T + affine[:3, 3],
    )


def _own_scans(folder: Path) -> list[Patient]:
    files = tuple(dicom_files([folder])) if folder.is_dir() else ()
    if not files:
        raise DemoFailed(f"{folder} holds no DICOM files; name a folder that does: make demo DICOM=folder")
    return [Patient(label="yours", files=files)]


# ---- the service ----------------------------------------------------------------------------------------------------


def _settings(folder: Path) -> Settings:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port = trial.getsockname()[1]
    file = folder / "ctriage.toml"
    file.write_text(_SETTINGS.format(port=port, quiet_s=QUIET_S), encoding="utf-8")
    _forget_environment()
    return load_settings(file)


def _forget_environment() -> None:
    """The demo shows the defaults, whatever this shell has set for a real service."""
    for name in [name for name in os.environ if name.upper().startswith(ENVIRONMENT_PREFIX)]:
        del os.environ[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Service:
    process: "subprocess.Popen[bytes]"
    folder: Path

    def wait_ready(self) -> None:
        """Wait until it has printed "ready"."""
        deadline = time.monotonic() + READY_WITHIN_S
        while b"ready" not in (self.folder / "service.out").read_bytes():
            self.check_alive()
            if time.monotonic() > deadline:
                raise DemoFailed(f"the service was not ready within {READY_WITHIN_S:.0f} s\n{self.log_tail()}")
            time.sleep(LOOK_EVERY_S)

    def check_alive(self) -> None:
        if self.process.poll() is not None:
            raise DemoFailed(f"the service ended with status {self.process.returncode}\n{self.log_tail()}")

    def log_tail(self) -> str:
        """Return the last lines of its log, and where all of it lies."""
        log = self.folder / "service.log"
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:]
        return "\n".join([f"--- the end of {log}", *lines])


@contextmanager
def _service(folder: Path) -> Iterator[_Service]:
    """Run ``ctriage serve`` in a process group of its own; it is stopped whatever happens."""
    command = [sys.executable, "-m", "pacs_bridge.cli", "serve", "--config", str(folder / "ctriage.toml")]
    with (folder / "service.out").open("wb") as out, (folder / "service.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=out, stderr=log, start_new_session=True)
    try:
        yield _Service(process=process, folder=folder)
    finally:
        process.terminate()
        try:
            process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


# ---- sending and waiting --------------------------------------------------------------------------------------------


def _send_and_wait(
    patients: Sequence[Patient], settings: Settings, service: _Service, progress: ShowProgress
) -> Mapping[str, float]:
    """Send, and wait until the service has nothing left to do; returns the seconds to each study's first result."""
    watch = Watch(database=settings.database)
    with ThreadPoolExecutor(1) as sender:
        sending = sender.submit(_send, patients, settings, progress)
        while not watch.is_finished(sending):
            service.check_alive()
            progress("processing studies", watch.finished, max(len(watch.studies), len(patients)))
            if watch.idle_s > STALLED_AFTER_S:
                raise DemoFailed(f"nothing has moved for {STALLED_AFTER_S:.0f} s\n{service.log_tail()}")
            time.sleep(LOOK_EVERY_S)
    progress("processing studies", watch.finished, len(watch.studies))
    sending.result()
    return watch.seconds


def _send(patients: Sequence[Patient], settings: Settings, progress: ShowProgress) -> None:
    peer = Peer(ae_title=settings.listener.ae_title, host=settings.listener.host, port=settings.listener.port)
    total = sum(len(patient.files) for patient in patients)
    done = iter(range(1, total + 1))
    for patient in patients:
        result = send_files(
            patient.files, peer, calling_ae="DEMO", progress=lambda _: progress("sending images", next(done), total)
        )
        result.raise_failure()


@dataclass(slots=True, kw_only=True)
class Watch:
    """Looks at the service's state now and then, and notes when each study's current result could first be read."""

    database: Path
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    studies: Sequence[Mapping[str, Any]] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    finished: int = 0
    _versions: dict[str, int] = field(default_factory=dict)
    _moved_at: float | None = None
    _last: object = None

    @property
    def idle_s(self) -> float:
        """Seconds since anything changed."""
        return 0.0 if self._moved_at is None else self.clock() - self._moved_at

    def is_finished(self, sending: "Future[None]") -> bool:
        """Look once; say whether all was sent and no study has work left."""
        sent = sending.done()
        status = self._look()
        self.studies = status["studies"]
        for study in self.studies:
            self.note(study)
        self.finished = sum(not is_under_way(study, status) for study in self.studies)
        return sent and self.finished == len(self.studies)

    def _look(self) -> Mapping[str, Any]:
        try:
            status: Mapping[str, Any] = read_status(self.database)
        except NoState:
            status = {"studies": [], "jobs": [], "deliveries": []}
        if status != self._last or self._moved_at is None:
            self._last, self._moved_at = status, self.clock()
        return status

    def note(self, study: Mapping[str, Any]) -> None:
        """Note since when the current version of a study's Report is there."""
        uid, version = study["study_instance_uid"], study["report_version"]
        if version is not None and version != self._versions.get(uid):
            self._versions[uid] = version
            self.seconds[uid] = (self.now() - datetime.fromisoformat(study["last_received_at"])).total_seconds()


def is_under_way(study: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """Say whether a study is still being received, processed or delivered."""
    jobs = [job for job in (*status["jobs"], *status["deliveries"]) if job["study_key"] == study["study_key"]]
    return study["state"] == "open" or any(job["state"] in _ACTIVE for job in jobs)


_ACTIVE: Final = frozenset({"ready", "running"})


# ---- what came out --------------------------------------------------------------------------------------------------

_COLUMNS: Final = ("study", "status", "priority", "findings", "last slice to result, s", "truth")


def _rows(
    patients: Sequence[Patient], settings: Settings, seconds: Mapping[str, float]
) -> Iterator[tuple[object, ...]]:
    known = {patient.study_instance_uid: patient for patient in patients}
    for study in reversed(read_status(settings.database)["studies"]):
        uid = study["study_instance_uid"]
        patient = known.get(uid)
        label = f"{patient.label} {study['study_key']}" if patient else study["study_key"]
        waited = f"{seconds[uid]:.1f}" if uid in seconds else None
        status = study["report_status"] or "no report"
        yield label, status, study["priority"], _told(settings, uid), waited, _truth(patient, settings)


def _told(settings: Settings, study: str) -> str:
    found = read_report(settings.database, study)
    if found is None:
        return "-"
    report, _ = found
    findings = [_finding(each.subtype or each.kind, each.volume_ml, each.probability) for each in report.findings]
    if not findings and report.status is not StudyStatus.NOT_ANALYSED:
        findings = ["none detected"]
    reasons = dict.fromkeys(f"NOT ANALYSED: {reason}" for reason in (*_reasons(report), *_undecided(report)))
    return "\n".join([*findings, *reasons])


def _finding(name: str, volume_ml: float | None, probability: float) -> str:
    size = "" if volume_ml is None else f" {volume_ml:.1f} ml"
    return f"{name}{size} ({probability:.0%})"


def _reasons(report: Report) -> list[str]:
    return [stack.reason for stack in report.skipped if stack.reason]


def _undecided(report: Report) -> list[str]:
    """Name the detectors that ran on none of the stacks somebody looked at, with their reasons."""
    looked_at = [run for stack in report.examined if stack.analysed for run in stack.detectors]
    ran = {run.name for run in looked_at if run.status == "ran"}
    return [f"{run.name}: {run.reason}" for run in looked_at if run.name not in ran]


def _truth(patient: Patient | None, settings: Settings) -> str:
    if patient is None or patient.expected is None:
        return "not known"
    return "\n".join(_departures(patient, settings)) or "agrees"


def _departures(patient: Patient, settings: Settings) -> tuple[str, ...]:
    if patient.expected is None:
        return ()
    found = read_report(settings.database, patient.study_instance_uid)
    if found is None:
        return ("there is no report",)
    return disagreements(patient.expected, _outcome(*found))


def _outcome(report: Report, kinds: Sequence[str]) -> Outcome:
    lesions = [
        Lesion(kind=each.kind, volume_ml=each.volume_ml, centroid_lps_mm=each.centroid_lps_mm)
        for each in report.findings
    ]
    return Outcome(
        status=report.status,
        found=tuple(lesions),
        undecided=tuple(_undecided(report)),
        reasons=tuple(_reasons(report)),
        pictures=sum(kind in PICTURES for kind in kinds),
    )


def _verdict(patients: Sequence[Patient], settings: Settings) -> int:
    """Return 0 when everything sent has a Report that does not depart from the truth."""
    studies = read_status(settings.database)["studies"]
    without = [each for each in studies if each["report_version"] is None and each["state"] != "kept"]
    departures = [each for patient in patients for each in _departures(patient, settings)]
    return 1 if without or departures or not studies else 0


if __name__ == "__main__":
    main()
