"""DICOM folders or files -> results in a folder, without a network: ``ctriage process``."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
from pydicom.dataset import Dataset

from pacs_bridge.app import provenance_of
from pacs_bridge.destinations import PICTURES_AS_PNG, file_names
from pacs_bridge.errors import CannotUnderstand
from pacs_bridge.ledger import KeptObject
from pacs_bridge.logs import WITHHELD, without_identifiers
from pacs_bridge.part10 import read_file
from pacs_bridge.png import write_png_beside
from pacs_bridge.results.bundle import build_flags, build_pictures
from pacs_bridge.results.context import Context
from pacs_bridge.results.derived import Reformat
from pacs_bridge.results.identifiers import is_ours
from pacs_bridge.results.secondary_capture import Capture
from pacs_bridge.results.sources import SourceHeaders
from pacs_bridge.settings import Settings
from pacs_bridge.work import rendering_notes, sources_of, timed
from pipeline.derive import derive
from pipeline.model import ExaminedStack, PictureOptions, Priority, Provenance, Report, ResultObject, Role, StudyStatus
from pipeline.process import SeriesResult, assemble_report, process_series
from pipeline.registry import load_detectors
from pipeline.report_json import study_json
from reconstruction.errors import NotDicom
from reconstruction.headers import read_dataset, text_of

ShowProgress = Callable[[str, int, int], None]

FAILED = "failed"
"""The status of a study whose processing broke off; its reason says where."""

TWO_PATIENTS = (
    "two patient IDs under one Study Instance UID: no results are written; find out whose images these are, and "
    "process the series of each patient apart"
)
_STEPS = ("read", "assemble", "detect", "derive", "write")
_UIDS = {
    "StudyInstanceUID": "Study Instance UID",
    "SeriesInstanceUID": "Series Instance UID",
    "SOPClassUID": "SOP Class UID",
    "SOPInstanceUID": "SOP Instance UID",
}
_IDENTIFYING = (
    "PatientName", "PatientID", "PatientBirthDate", "AccessionNumber", "StudyInstanceUID", "SeriesInstanceUID",
    "SOPInstanceUID", "FrameOfReferenceUID",
)  # fmt: skip
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What lies below the paths given: instances by study, and the rest with reasons."""

    studies: Mapping[str, Mapping[str, tuple[Path, Dataset]]]
    ignored: Sequence[dict[str, str]]
    unreadable: Sequence[dict[str, str]]


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
    found = _found(paths, progress)
    studies = []
    for number, uid in enumerate(sorted(found.studies), start=1):
        folder = out / f"study_{number}"
        study = _Study(uid=uid, instances=found.studies[uid], folder=folder, number=number)
        studies.append(_entry(study, settings, provenance, progress, now()))
    return {"ignored": list(found.ignored), "unreadable": list(found.unreadable), "studies": studies}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Study:
    uid: str
    instances: Mapping[str, tuple[Path, Dataset]]
    folder: Path
    number: int

    @property
    def datasets(self) -> dict[str, Dataset]:
        return {uid: dataset for uid, (_, dataset) in self.instances.items()}

    @property
    def paths(self) -> dict[str, Path]:
        return {uid: path for uid, (path, _) in self.instances.items()}


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
    notes = (*held, *rendering_notes(render=settings.outputs.render))
    report = replace(assemble_report(study.uid, results, provenance, notes=notes), committed_at=at)
    made.report = report
    if held:
        return report
    context = Context(sources=SourceHeaders(datasets=study.datasets), committed_at=at, language=settings.language)
    with timed(made.timings_s, "write"):
        made.outputs += _write(study.folder, build_flags(context, report))
    pictures, remarks = _pictures(study, report, context, settings, made.timings_s)
    progress(f"study {study.number}: pictures", 1, 1)
    with timed(made.timings_s, "write"):
        made.outputs += _write(study.folder, pictures)
    return replace(report, notes=tuple(dict.fromkeys((*report.notes, *remarks))))


def _has_two_patients(study: _Study) -> bool:
    """Say whether the images name more than one Patient ID; one that names none speaks for nobody."""
    return len({text_of(dataset, "PatientID") for dataset in study.datasets.values()} - {""}) > 1


def _nothing_read(study: _Study, provenance: Provenance, reason: str) -> Report:
    """Say of every series of a study that nobody looked at it."""
    by_series: dict[str, list[str]] = defaultdict(list)
    for uid, dataset in study.datasets.items():
        by_series[text_of(dataset, "SeriesInstanceUID")].append(uid)
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
    named = {text_of(dataset, keyword) for dataset in study.datasets.values() for keyword in _IDENTIFYING}
    named |= {part for value in named for part in re.split(r"[\^=]", value)}
    for value in sorted(named - {""}, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", WITHHELD, text)
    return text


def _series_results(
    study: _Study, settings: Settings, progress: ShowProgress, timings: dict[str, float]
) -> Iterator[SeriesResult]:
    detectors = load_detectors(settings.detectors.enabled)
    by_series: dict[str, dict[str, str]] = defaultdict(dict)
    for uid, (path, dataset) in study.instances.items():
        by_series[text_of(dataset, "SeriesInstanceUID")][uid] = str(path)
    for done, files in enumerate(by_series.values(), start=1):
        with timed(timings, "read"):
            sources = sources_of(files, study.datasets)
        result = process_series(sources, detectors)
        for step, seconds in result.timings_s.items():
            timings[step] = timings.get(step, 0.0) + seconds
        progress(f"study {study.number}: series", done, len(by_series))
        yield result


def _pictures(
    study: _Study, report: Report, context: Context, settings: Settings, timings: dict[str, float]
) -> tuple[list[ResultObject], tuple[str, ...]]:
    options = PictureOptions(**settings.outputs.model_dump())
    with timed(timings, "derive"):
        made = derive(report, study.paths, options, language=settings.language, study_key=f"study {study.number}")
        planes = [Reformat(planes=each.planes, stack=each.stack) for each in made.planes]
        captures = [Capture(kind=c.kind, rgb=c.rgb, burned_in="NO", stack=c.stack) for c in made.captures]
        return build_pictures(context, report, planes=planes, captures=captures), made.notes


def _write(folder: Path, objects: Sequence[ResultObject]) -> list[dict[str, str]]:
    outputs = []
    for each, name in zip(objects, file_names([_named(o) for o in objects]), strict=True):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(each.part10)
        outputs.append({"path": str(target), "kind": each.kind})
        if each.kind in PICTURES_AS_PNG:
            outputs.append({"path": str(write_png_beside(target)), "kind": each.kind})
    return outputs


def _named(each: ResultObject) -> KeptObject:
    return KeptObject(
        kind=each.kind,
        index=each.index,
        sop_instance_uid=each.sop_instance_uid,
        sop_class_uid=each.sop_class_uid,
        series_instance_uid=each.series_instance_uid,
        path="",
        sha256="",
        label=each.label,
    )


def _found(paths: Sequence[Path], progress: ShowProgress) -> _Found:
    studies: dict[str, dict[str, tuple[Path, Dataset]]] = defaultdict(dict)
    ignored: list[dict[str, str]] = []
    unreadable: list[dict[str, str]] = []
    files = list(_files(paths))
    for done, path in enumerate(files, start=1):
        _sort_in(path, studies, ignored, unreadable)
        progress("reading", done, len(files))
    return _Found(studies=studies, ignored=ignored, unreadable=unreadable)


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        yield from sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def _sort_in(
    path: Path,
    studies: dict[str, dict[str, tuple[Path, Dataset]]],
    ignored: list[dict[str, str]],
    unreadable: list[dict[str, str]],
) -> None:
    try:
        dataset = read_dataset(path)
    except NotDicom as error:
        kind = ignored if error.is_foreign else unreadable
        kind.append({"path": str(path), "reason": error.reason})
        return
    study, uid = text_of(dataset, "StudyInstanceUID"), text_of(dataset, "SOPInstanceUID")
    missing = [name for keyword, name in _UIDS.items() if not text_of(dataset, keyword)]
    if missing:
        unreadable.append({"path": str(path), "reason": f"no {' and no '.join(missing)}"})
    elif is_ours(dataset):
        ignored.append({"path": str(path), "reason": "a result of ctriage itself"})
    elif uid in studies[study]:
        ignored.append({"path": str(path), "reason": _again(path, studies[study][uid][0])})
    else:
        studies[study][uid] = (path, dataset)


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
