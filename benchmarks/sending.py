"""How fast do results and slices reach a peer: sent by ctriage, by pynetdicom's own application, and by DCMTK?

All send the same files to the same storescp, in interleaved rounds, with TCP_NODELAY=1 in every program's environment.
A receiver that does not hold every instance after a round ends the benchmark. A program's start-up is counted apart.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID

from benchmarks.ct_series import EXPLICIT_LE, paint_torso, write_series
from benchmarks.disk import settle
from benchmarks.figures import Bar, Result
from benchmarks.receivers import NODELAY, Missing, Receiver, storescp
from pacs_bridge.send import Peer, send_files

BARS = {"ratio_to_pynetdicom_storescu": Bar(">=", 2.0), "slices_ratio_to_pynetdicom_storescu": Bar(">=", 2.0)}
ROUNDS = {"toy": 1, "full": 5}
FILES = {"toy": 6, "full": 150}
SIDE = {"toy": 64, "full": 512}

_STARTED = "import sys, time; from pynetdicom.apps.storescu.storescu import main; at = time.perf_counter()"
_TIMED_APPLICATION = f"{_STARTED}; main(sys.argv[1:]); print(time.perf_counter() - at)"
_DOCUMENTS = {  # SOP class, modality, about how many bytes: as of the documents that a study with findings gets
    "1.2.840.10008.5.1.4.1.1.88.34": ("SR", 25_000),
    "1.2.840.10008.5.1.4.1.1.88.59": ("KO", 5_000),
    "1.2.840.10008.5.1.4.1.1.66.4": ("SEG", 60_000),
}


class NotSent(Exception):
    """A sender said that it failed, or the receiver does not hold what it was sent."""


def run(size: Literal["toy", "full"]) -> Result:
    """Measure by itself; raises NotSent."""
    with tempfile.TemporaryDirectory(prefix="ctriage-sending-") as folder:
        try:
            figures, rows = measure(size, Path(folder))
        except Missing as missing:
            return Result(name="sending", figures={}, rows=[], notes=[str(missing)])
    return Result(name="sending", figures=figures, rows=rows, bars=BARS)


def measure(size: Literal["toy", "full"], folder: Path) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Measure results and slices; returns figures and one row for each run. Raises NotSent, or Missing: no storescp."""
    loads = {
        "results": write_documents(FILES[size], folder / "results"),
        "slices": write_series(paint_torso(side=SIDE[size], painted=10), FILES[size], folder / "slices"),
    }
    rows = [row for name, files in loads.items() for row in _rounds(name, files, ROUNDS[size], folder)]
    return {**_figures(rows, "results", ""), **_figures(rows, "slices", "slices_")}, rows


def write_documents(count: int, folder: Path) -> list[Path]:
    """Write structured reports, key objects and segmentations of usual sizes."""
    folder.mkdir(parents=True)
    kinds = list(_DOCUMENTS.items())
    files = []
    for number in range(count):
        sop_class, (modality, size) = kinds[number % len(kinds)]
        files.append(folder / f"{modality}{number:05d}.dcm")
        _document(number, sop_class, modality, size).save_as(files[-1], enforce_file_format=True)
    return files


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """One way to send: returns the seconds that count."""

    name: str
    send: Callable[[Sequence[Path], Receiver], float]


def _rounds(load: str, files: Sequence[Path], rounds: int, folder: Path) -> list[dict[str, Any]]:
    rows = []
    with storescp(_fresh(folder / f"{load}-received")) as receiver:
        _ctriage(files[:1], receiver)
        for number in range(rounds):
            first = number % len(_WAYS)
            for way in [*_WAYS[first:], *_WAYS[:first]]:
                settle()
                seconds = way.send(files, receiver)
                if receiver.held() != len(files):
                    raise NotSent(f"after {way.name}, {receiver.held()} of {len(files)} instances are held")
                rate = {"seconds": seconds, "instances_per_s": len(files) / seconds}
                rows.append({"load": load, "sender": way.name, "round": number + 1, **rate})
    return rows


def _fresh(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _figures(rows: Sequence[Mapping[str, Any]], load: str, prefix: str) -> dict[str, float]:
    seconds = {
        way.name: median(row["seconds"] for row in rows if (row["load"], row["sender"]) == (load, way.name))
        for way in _WAYS
    }
    per_s = median(row["instances_per_s"] for row in rows if (row["load"], row["sender"]) == (load, "ctriage"))
    ours, command = seconds["ctriage"], seconds["ctriage send"]
    return {
        f"{prefix}sent_per_s": per_s,
        f"{prefix}ratio_to_pynetdicom_storescu": seconds["pynetdicom storescu, started"] / ours,
        f"{prefix}ratio_to_storescu": seconds["storescu"] / ours,
        f"{prefix}command_ratio_to_pynetdicom_storescu": seconds["pynetdicom storescu"] / command,
        f"{prefix}command_ratio_to_storescu": seconds["storescu"] / command,
    }


def _ctriage(files: Sequence[Path], receiver: Receiver) -> float:
    """Send as the service does, in this process."""
    peer = Peer(ae_title=receiver.ae_title, host="127.0.0.1", port=receiver.port)
    started = time.perf_counter()
    result = send_files(files, peer, calling_ae="BENCH")
    seconds = time.perf_counter() - started
    result.raise_failure()
    return seconds


def _pynetdicom_started(files: Sequence[Path], receiver: Receiver) -> float:
    """Run pynetdicom's application in an interpreter that has loaded it, and count what follows."""
    command = [sys.executable, "-c", _TIMED_APPLICATION, "-q", "-aec", receiver.ae_title, "127.0.0.1"]
    return float(_run([*command, str(receiver.port), *map(str, files)]))


def _pynetdicom(files: Sequence[Path], receiver: Receiver) -> float:
    command = [sys.executable, "-m", "pynetdicom", "storescu", "-q", "-aec", receiver.ae_title, "127.0.0.1"]
    return _timed([*command, str(receiver.port), *map(str, files)])


def _ctriage_send(files: Sequence[Path], receiver: Receiver) -> float:
    peer = f"{receiver.ae_title}@127.0.0.1:{receiver.port}"
    return _timed([sys.executable, "-m", "pacs_bridge", "send", *map(str, files), "--to", peer])


def _storescu(files: Sequence[Path], receiver: Receiver) -> float:
    """Run DCMTK's sender; it proposes no segmentations (Debian's 3.6.7 knows 120 classes), so these need its -R."""
    command = ["storescu", "-R", "-aec", receiver.ae_title, "127.0.0.1", str(receiver.port)]
    return _timed([*command, *map(str, files)])


_WAYS = (
    _Way(name="ctriage", send=_ctriage),
    _Way(name="pynetdicom storescu, started", send=_pynetdicom_started),
    _Way(name="pynetdicom storescu", send=_pynetdicom),
    _Way(name="ctriage send", send=_ctriage_send),
    _Way(name="storescu", send=_storescu),
)


def _timed(command: Sequence[str]) -> float:
    started = time.perf_counter()
    _run(command)
    return time.perf_counter() - started


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, env=NODELAY, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotSent(f"{command[0]} ended with {done.returncode}: {done.stderr[-500:]}")
    return done.stdout


def _document(number: int, sop_class: str, modality: str, size: int) -> Dataset:
    """Return a document of about ``size`` bytes in nested items, as those of structured reports."""
    document = Dataset()
    document.SOPClassUID, document.SOPInstanceUID = sop_class, f"2.25.71{number:06d}"
    document.StudyInstanceUID, document.SeriesInstanceUID = "2.25.72", f"2.25.73{_DOCUMENTS[sop_class][1]}"
    document.Modality, document.PatientID, document.PatientName = modality, "P1", "Doe^Jane"
    document.InstanceNumber = number + 1
    document.ContentSequence = Items([_item(n) for n in range(size // 120)])
    document.file_meta = FileMetaDataset()
    document.file_meta.TransferSyntaxUID = UID(EXPLICIT_LE)
    return document


def _item(number: int) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType = "CONTAINS", "TEXT"
    item.TextValue = f"what stands in item {number} of a document that nobody but a benchmark reads"
    return item
