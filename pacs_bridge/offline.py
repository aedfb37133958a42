"""DICOM folders or files -> results in a folder, without a network: ``ctriage process``."""

import re
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import structlog

from pacs_bridge.app import provenance_of
from pacs_bridge.destinations import PICTURES_AS_PNG, file_names
from pacs_bridge.errors import CannotUnderstand
from pacs_bridge.ledger import KeptObject
from pacs_bridge.logs import WITHHELD, without_identifiers
from pacs_bridge.part10 import read_file
from pacs_bridge.png import write_png_beside
from pacs_bridge.results.bundle import build_flags, build_pictures
from pacs_bridge.results.context import Context
from pacs_bridge.results.identifiers import bears_our_mark
from pacs_bridge.settings import Settings
from pacs_bridge.source_files import source_headers
from pacs_bridge.work import kept_object, metered, timed, without_remarks
from pipeline.derive import Captured, Product, derive
from pipeline.model import ExaminedStack, PictureOptions, Priority, Provenance, Report, ResultObject, Role, StudyStatus
from pipeline.process import SeriesResult, Source, assemble_report, process_series
from pipeline.registry import load_detectors
from pipeline.report_json import study_json
from reconstruction.errors import NotDicom
from reconstruction.headers import Header, read_dataset, read_headers, text_of

ShowProgress = Callable[[str, int, int], None]

FAILED = "failed"
"""The status of a study whose processing broke off; its reason says where."""

TWO_PATIENTS = (
    "two patient IDs under one Study Instance UID: no results are written; find out whose images these are, and "
    "process the series of each patient apart"
)
_FILES_AT_ONCE = 128
_STEPS = ("read", "assemble", "detect", "derive", "write")
_UIDS = {
    "study_instance_uid": "Study Instance UID",
    "series_instance_uid": "Series Instance UID",
    "sop_class_uid": "SOP Class UID",
    "sop_instance_uid": "SOP Instance UID",
}
_IDENTIFYING = (
    "PatientName", "PatientID", "PatientBirthDate", "AccessionNumber", "StudyInstanceUID", "SeriesInstanceUID",
    "SOPInstanceUID", "FrameOfReferenceUID",
)  # fmt: skip
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What lies below the paths given: instances by study, and the rest with reasons; ``each_s``: seconds a file."""

    studies: Mapping[str, Mapping[str, Source]]
    ignored: Sequence[dict[str, str]]
    unreadable: Sequence[dict[str, str]]
    each_s: float


def process_paths(
    paths: Sequence[Path],
    out: Path,
    settings: Settings,
    progress: ShowProgress,
    *,
    now: Callable[[], datetime] = lambda: datetime.now(UTC).astimezone(),
) -> dict[str, Any]:
    """Process every study below ``paths`` and write its results below ``out``; returns the object of docs/JSON.md.

    A study in which something fails has the status "failed" and its reason, and the others go on; files that are no
    DICOM, or broken, are listed. Raises SettingsError before anything is read.
    """
    provenance = provenance_of(settings)
    found = find_studies(paths, progress)
    studies = []
    for number, uid in enumerate(sorted(found.studies), start=1):
        folder = out / f"study_{number}"
        read_s = found.each_s * len(found.studies[uid])
        study = _Study(uid=uid, sources=found.studies[uid], folder=folder, number=number, read_s=read_s)
        studies.append(_entry(study, settings, provenance, progress, now()))
    return {"ignored": list(found.ignored), "unreadable": list(found.unreadable), "studies": studies}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Study:
    uid: str
    sources: Mapping[str, Source]
    folder: Path
    number: int
    read_s: float


@dataclass(kw_only=True)
class _Made:
    """What there is of a study's entry so far: what breaks off later takes nothing back."""

    report: Report | None = None
    outputs: list[dict[str, str]] = field(default_factory=list)
    timings_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_STEPS, 0.0))


def _entry(
    study: _Study, settings: Settings, provenance: Provenance, progress: ShowProgress, at: datetime
) -> dict[str, Any]:
    """Process one study; whatever goes wrong with it is its own entry's status and reason."""
    made = _Made()
    made.timings_s["read"] = study.read_s
    try:
        report = _process(study, settings, provenance, progress, at, made)
    # As where a worker settles a job: this study fails, the others go on, and its entry says so.
    except Exception as error:  # noqa: BLE001
        reason = _without_names(f"{type(error).__name__}: {error}", study)
        _log.error("study_failed", study=study.number, reason=reason)
        report = made.report or _nothing_read(study, provenance, reason)
        entry = study_json(report, outputs=made.outputs, timings_s=made.timings_s)
        # What was found stays urgent; nothing about a study that failed is routine.
        priority = None if report.priority is Priority.ROUTINE else entry["priority"]
        return {**entry, "status": FAILED, "priority": priority, "reason": reason}
    return {**study_json(report, outputs=made.outputs, timings_s=made.timings_s), "reason": None}


def _process(
    study: _Study, settings: Settings, provenance: Provenance, progress: ShowProgress, at: datetime, made: _Made
) -> Report:
    results = list(_series_results(study, settings, progress, made.timings_s))
    held = (TWO_PATIENTS,) if _has_two_patients(study) else ()
    report = replace(assemble_report(study.uid, results, provenance, notes=held), committed_at=at)
    made.report = report
    if held:
        return report
    context = Context(sources=source_headers(study.sources), committed_at=at, language=settings.language)
    with timed(made.timings_s, "write"):
        made.outputs += _write(study.folder, build_flags(context, report))
    remarks: list[str] = []
    with timed(made.timings_s, "write"):
        products = _shown(_products(study, report, settings), study, progress)
        pictures = without_remarks(metered(products, made.timings_s, "derive"), remarks)
        made.outputs += _write(study.folder, build_pictures(context, report, pictures))
    made.timings_s["write"] -= made.timings_s["derive"]
    return replace(report, notes=tuple(dict.fromkeys((*report.notes, *remarks))))


def _products(study: _Study, report: Report, settings: Settings) -> Iterator[Product]:
    options = PictureOptions(**settings.outputs.model_dump())
    return derive(report, study.sources, options, language=settings.language, study_key=f"study {study.number}")


def _has_two_patients(study: _Study) -> bool:
    """Say whether the images name more than one Patient ID; one that names none speaks for nobody."""
    return len({source.header.patient_id for source in study.sources.values()} - {""}) > 1


def _nothing_read(study: _Study, provenance: Provenance, reason: str) -> Report:
    """Say of every series of a study that nobody looked at it."""
    by_series: dict[str, list[str]] = defaultdict(list)
    for uid, source in study.sources.items():
        by_series[source.header.series_instance_uid].append(uid)
    return Report(
        study_instance_uid=study.uid,
        study_digest="",
        status=StudyStatus.NOT_ANALYSED,
        priority=None,
        examined=tuple(_unread(series, uids, reason) for series, uids in by_series.items()),
        findings=(),
        provenance=provenance,
    )


def _unread(series: str, uids: Sequence[str], reason: str) -> ExaminedStack:
    return ExaminedStack(
        series_instance_uid=series,
        series_number=None,
        series_description="",
        stack=1,
        role=Role.VOLUME,
        instances=tuple(uids),
        reason=reason,
    )


def _without_names(text: str, study: _Study) -> str:
    """Withhold what identifies the patient or the study: exceptions quote the values that they trip over."""
    text = str(without_identifiers(None, "", {"reason": text})["reason"])
    named = {value for source in study.sources.values() for value in _identifying(source)}
    named |= {part for value in named for part in re.split(r"[\^=]", value)}
    for value in sorted(named - {""}, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", WITHHELD, text)
    return text


def _identifying(source: Source) -> set[str]:
    """Return what an instance says of its patient and study; its names alone where it cannot be read any more."""
    header = source.header
    try:
        dataset = read_dataset(source.path)
    except NotDicom:
        return {header.study_instance_uid, header.series_instance_uid, header.sop_instance_uid, header.patient_id}
    return {text_of(dataset, keyword) for keyword in _IDENTIFYING}


def _series_results(
    study: _Study, settings: Settings, progress: ShowProgress, timings: dict[str, float]
) -> Iterator[SeriesResult]:
    detectors = load_detectors(settings.detectors.enabled)
    by_series: dict[str, list[Source]] = defaultdict(list)
    for source in study.sources.values():
        by_series[source.header.series_instance_uid].append(source)
    progress(f"study {study.number}: series", 0, len(by_series))
    for done, sources in enumerate(by_series.values(), start=1):
        result = process_series(sources, detectors, watch=_watch(f"study {study.number}, series {done}", progress))
        for step, seconds in result.timings_s.items():
            timings[step] = timings.get(step, 0.0) + seconds
        progress(f"study {study.number}: series", done, len(by_series))
        yield result


def _watch(where: str, progress: ShowProgress) -> ShowProgress:
    return lambda step, done, total: progress(f"{where}: {step}", done, total)


def _shown(products: Iterable[Product], study: _Study, progress: ShowProgress) -> Iterator[Product]:
    """Pass products on and show how many there are; how many are to come nobody knows before the summary, the last."""
    what = f"study {study.number}: pictures"
    progress(what, 0, 1)
    numbers = count(1)  # enumerate would hold a product until the next one is made
    for product in products:
        done = next(numbers)
        progress(what, done, done if _is_last(product) else done + 1)
        yield product
        del product


def _is_last(product: Product) -> bool:
    return isinstance(product, Captured) and product.kind == "summary"


def _write(folder: Path, objects: Iterable[ResultObject]) -> list[dict[str, str]]:
    """Write objects as they come, and name their files when all are there: a name tells how many there are."""
    with _aside(folder) as aside:
        kept: list[tuple[Path, KeptObject]] = []
        for each in objects:
            written = aside / f"{len(kept)}.part"
            written.write_bytes(each.part10)
            kept.append((written, kept_object(each)))
            del each
        return [output for named in _named(folder, kept) for output in named]


def _named(folder: Path, kept: Sequence[tuple[Path, KeptObject]]) -> Iterator[list[dict[str, str]]]:
    for (written, each), name in zip(kept, file_names([each for _, each in kept]), strict=True):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        written.replace(target)
        pictures = [write_png_beside(target)] if each.kind in PICTURES_AS_PNG else []
        yield [{"path": str(path), "kind": each.kind} for path in (target, *pictures)]


@contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    aside = folder / ".parts"
    aside.mkdir(parents=True, exist_ok=True)
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def find_studies(paths: Sequence[Path], progress: ShowProgress) -> Found:
    """Read the headers of all files below ``paths`` and sort them by study; raises nothing over a file's content."""
    studies: dict[str, dict[str, Source]] = defaultdict(dict)
    ignored: list[dict[str, str]] = []
    unreadable: list[dict[str, str]] = []
    files = list(_files(paths))
    started = time.monotonic()
    for first in range(0, len(files), _FILES_AT_ONCE):
        some = files[first : first + _FILES_AT_ONCE]
        for path, header in zip(some, read_headers(some), strict=True):
            _sort_in(path, header, studies, ignored, unreadable)
        progress("reading", first + len(some), len(files))
    each_s = (time.monotonic() - started) / max(1, len(files))
    return Found(studies=studies, ignored=ignored, unreadable=unreadable, each_s=each_s)


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        yield from sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def _sort_in(
    path: Path,
    header: Header | NotDicom,
    studies: dict[str, dict[str, Source]],
    ignored: list[dict[str, str]],
    unreadable: list[dict[str, str]],
) -> None:
    if isinstance(header, NotDicom):
        kind = ignored if header.is_foreign else unreadable
        kind.append({"path": str(path), "reason": header.reason})
        return
    study, uid = header.study_instance_uid, header.sop_instance_uid
    missing = [name for attribute, name in _UIDS.items() if not getattr(header, attribute)]
    if missing:
        unreadable.append({"path": str(path), "reason": f"no {' and no '.join(missing)}"})
    elif bears_our_mark(header.implementation_class_uid, header.manufacturer):
        ignored.append({"path": str(path), "reason": "a result of ctriage itself"})
    elif uid in studies[study]:
        ignored.append({"path": str(path), "reason": _again(path, studies[study][uid].path)})
    else:
        studies[study][uid] = Source(header=header, path=path)


def _again(path: Path, first: Path) -> str:
    if _data_set_bytes(path) == _data_set_bytes(first):
        return "the same file again"
    return "a second file of the same SOP instance with other content; the first one is read"


def _data_set_bytes(path: Path) -> bytes:
    """Read a file without its meta information, which names its writer; whole where it has none."""
    try:
        offset = read_file(path).offset
    except CannotUnderstand:
        offset = 0
    return path.read_bytes()[offset:]
