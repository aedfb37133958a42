"""From the last slice's Success to the report in the PACS: seconds, slices a second and memory of the whole service.

Heads of 40 slices, straight and tilted with uneven steps, and of 320: digital patients, through a real `ctriage serve`
and real associations on loopback.
"""

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import pydicom

from benchmarks.figures import Result
from benchmarks.service import MemorySampler, ReceivingPacs, Service, running, wait_until
from pacs_bridge.ledger import CommittedReport, Ledger
from pacs_bridge.send import Peer, send_files
from pipeline.phantom.patient import make_patient
from pipeline.phantom.scan import ScanOptions
from pipeline.phantom.series import write_series
from scheduler.database import Database

COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
MEMORY_ALLOWANCE_BYTES = 800 * 10**6
REPETITIONS = {"toy": 1, "full": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One kind of study to send."""

    name: str
    options: ScanOptions

    @property
    def int16_bytes(self) -> int:
        """Return the size of its volume."""
        return self.options.slice_count * self.options.rows * self.options.columns * 2


UNEVEN = tuple(max(0, n - 19) * 0.3 for n in range(40))
"""The upper half of a step-and-shoot head has larger steps: each slice lies so far from its even place, in mm."""

CASES = {
    "toy": (Case(name="head_24_of_128", options=ScanOptions(rows=128, columns=128, slice_count=24)),),
    "full": (
        Case(name="head_40", options=ScanOptions(slice_count=40)),
        Case(name="head_40_tilted_uneven", options=ScanOptions(slice_count=40, tilt_deg=15.0, slice_offsets_mm=UNEVEN)),
        Case(name="head_320", options=ScanOptions(slice_count=320)),
    ),
}


def run(size: Literal["toy", "full"]) -> Result:
    """Send each case several times, one study after the other; figures are medians."""
    rows: list[dict[str, Any]] = []
    figures: dict[str, float] = {}
    for case in CASES[size]:
        measured = _measure(case, REPETITIONS[size])
        rows.extend(measured)
        figures[f"{case.name}_seconds_to_report"] = median([row["seconds_to_report"] for row in measured])
        figures[f"{case.name}_slices_per_s"] = case.options.slice_count / figures[f"{case.name}_seconds_to_report"]
        figures[f"{case.name}_peak_memory_mb"] = max(row["peak_memory_mb"] for row in measured)
        figures[f"{case.name}_allowed_memory_mb"] = (4 * case.int16_bytes + MEMORY_ALLOWANCE_BYTES) / 1e6
    return Result(name="study", figures=figures, rows=rows)


def _measure(case: Case, repetitions: int) -> list[dict[str, Any]]:
    rows = []
    with tempfile.TemporaryDirectory(prefix="ctriage-study-") as folder:
        pacs = ReceivingPacs()
        pacs.start()
        destination = {"name": "pacs", "ae_title": pacs.ae_title, "host": "127.0.0.1", "port": pacs.port}
        service = Service(Path(folder) / "state", {"destination": [destination]})
        try:
            with running(service):
                for seed in range(repetitions):
                    _say(f"{case.name}, repetition {seed + 1} of {repetitions}")
                    rows.append(_one(case, seed, Path(folder), service, pacs))
                service.stop()
        finally:
            pacs.stop()
    return rows


def _one(case: Case, seed: int, folder: Path, service: Service, pacs: ReceivingPacs) -> dict[str, Any]:
    patient = make_patient("head-bleed", seed=seed, options=case.options)
    files = write_series(patient, folder / f"{case.name}-{seed}").files
    before = len(pacs.of_class(COMPREHENSIVE_3D_SR))
    with MemorySampler(service.processes) as memory:
        started = time.monotonic()
        send_files(
            files, Peer(ae_title="CTRIAGE", host="127.0.0.1", port=service.port), calling_ae="BENCH"
        ).raise_failure()
        sent = time.monotonic()
        wait_until(
            lambda: len(pacs.of_class(COMPREHENSIVE_3D_SR)) > before, within_s=300, what=f"the report of {case.name}"
        )
        reported = pacs.of_class(COMPREHENSIVE_3D_SR)[-1].at
        study = patient_study(files[0])
        wait_until(lambda: _has_pictures(service, study), within_s=600, what=f"the pictures of {case.name}")
        complete = time.monotonic()
    (report,) = (r for r in _reports(service) if r.study_instance_uid == study)
    return {
        "case": case.name,
        "slices": case.options.slice_count,
        "receive_s": sent - started,
        "seconds_to_report": reported - sent,
        "seconds_to_pictures": complete - sent,
        "peak_memory_mb": memory.peak_bytes / 1e6,
        **{f"stage_{stage}_s": seconds for stage, seconds in report.timings_s.items()},
    }


def patient_study(path: Path) -> str:
    """Return the Study Instance UID of a file."""
    return str(pydicom.dcmread(path, specific_tags=["StudyInstanceUID"]).StudyInstanceUID)


def _has_pictures(service: Service, study: str) -> bool:
    status = service.status()
    (key,) = (row["study_key"] for row in status["studies"] if row["study_instance_uid"] == study)
    pictures = [d for d in status["deliveries"] if (d["study_key"], d["objects"]) == (key, "pictures")]
    return bool(pictures) and all(each["state"] == "done" for each in pictures)


def _reports(service: Service) -> list[CommittedReport]:
    database = Database(service.state_dir / "ctriage.sqlite")
    try:
        return Ledger(database).reports()
    finally:
        database.close()


def _say(what: str) -> None:
    sys.stderr.write(what + "\n")
