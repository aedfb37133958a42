"""What worker processes run: from file names to finished result objects, without database, queue or network.

Every argument and result can be pickled; files are read from the archive and written to the object store, whose names
are hashes: what a task writes means nothing until the driver commits its outcome.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from pydicom.dataset import Dataset

from pacs_bridge.files import keep_by_content
from pacs_bridge.ledger import KeptObject
from pacs_bridge.results.bundle import build_flags, build_pictures
from pacs_bridge.results.context import Context
from pacs_bridge.results.derived import Reformat
from pacs_bridge.results.secondary_capture import Capture
from pacs_bridge.results.sources import SourceHeaders
from pacs_bridge.tasks import DeriveOutcome, DeriveTask, SeriesFiles, TriageOutcome, TriageTask
from pipeline import wire
from pipeline.derive import derive
from pipeline.model import ExaminedStack, Report, ResultObject, Role, StudyStatus
from pipeline.process import SeriesResult, Source, assemble_report, process_series
from pipeline.registry import load_detectors
from pipeline.select import digest_of
from pipeline.versions import changes_between, is_news
from reconstruction.errors import NotDicom
from reconstruction.headers import Header, read_dataset, transfer_syntax_of
from reconstruction.render_3d import why_not


def triage(task: TriageTask) -> TriageOutcome:
    """Examine what is new in a study, assemble its Report and build the flags' objects."""
    timings: dict[str, float] = {}
    files = _all_files(task.series)
    with timed(timings, "read"):
        datasets, unreadable = _read_headers(files)
    results, new = _series_results(task, datasets, timings)
    notes = (*task.notes, *unreadable, *rendering_notes(render=task.render))
    report = assemble_report(task.study_instance_uid, results, task.provenance, notes=notes)
    # Images that cannot be read are in no row, but they are part of the state that this version speaks of.
    report = replace(report, study_digest=digest_of(files))
    previous = wire.loads(Report, task.previous.report_text) if task.previous else None
    report = _as_version(report, previous, task.committed_at)
    news = is_news(previous, report, final=task.final)
    with timed(timings, "write"):
        objects = _flags(task, report, datasets) if news else ()
    return TriageOutcome(
        series_results=tuple((r.series_instance_uid, r.digest, wire.dumps(r)) for r in new),
        report_text=wire.dumps(report),
        is_news=news,
        objects=objects,
        timings_s=timings,
    )


def say_not_analysed(task: TriageTask, reason: str) -> TriageOutcome:
    """Build the Report of a study whose triage was given up, from headers alone: nobody looked, and why.

    What an earlier version says stays, for it was seen; what came since is said not to have been looked at.
    """
    files = _all_files(task.series)
    datasets, unreadable = _headers_to_be_had(files)
    previous = wire.loads(Report, task.previous.report_text) if task.previous else None
    report = _given_up(task, previous, datasets, reason)
    report = _as_version(replace(report, notes=(*report.notes, *unreadable)), previous, task.committed_at)
    # Not the digest of its images: results are named by it, and these images may yet be analysed.
    report = replace(report, study_digest=digest_of((*files, f"given up: version {report.version}")))
    news = previous is None or _said(previous) != _said(report)
    return TriageOutcome(
        series_results=(),
        report_text=wire.dumps(report),
        is_news=news,
        objects=_flags(task, report, datasets) if news else (),
        timings_s={},
    )


def make_pictures(task: DeriveTask) -> DeriveOutcome:
    """Make the reformats, projections, renderings and the summary page of a committed Report."""
    report = wire.loads(Report, task.report_text)
    paths = {uid: Path(path) for uid, path in task.files.items()}
    timings: dict[str, float] = {}
    with timed(timings, "derive"):
        pictures = derive(report, paths, task.options, language=task.language, study_key=task.study_key)
    with timed(timings, "write"):
        datasets, _ = _read_headers(task.files)
        context = Context(
            sources=SourceHeaders(datasets=datasets), committed_at=task.committed_at, language=task.language
        )
        captures = [Capture(kind=c.kind, rgb=c.rgb, burned_in="NO", stack=c.stack) for c in pictures.captures]
        planes = [Reformat(planes=each.planes, stack=each.stack) for each in pictures.planes]
        built = build_pictures(context, report, planes=planes, captures=captures)
        objects = keep_objects(Path(task.objects_dir), built)
    return DeriveOutcome(objects=objects, notes=pictures.notes, timings_s=timings)


def rendering_notes(*, render: bool) -> tuple[str, ...]:
    """Say in the Report itself, which leaves before any picture is tried, that this system cannot render."""
    reason = why_not() if render else None
    return () if reason is None else (reason,)


def keep_objects(folder: Path, built: Sequence[ResultObject]) -> tuple[KeptObject, ...]:
    """Put finished objects into the object store."""
    kept = []
    for each in built:
        path, sha256 = keep_by_content(folder, each.part10)
        kept.append(
            KeptObject(
                kind=each.kind,
                index=each.index,
                sop_instance_uid=each.sop_instance_uid,
                sop_class_uid=each.sop_class_uid,
                series_instance_uid=each.series_instance_uid,
                path=path,
                sha256=sha256,
                label=each.label,
            )
        )
    return tuple(kept)


def sources_of(files: Mapping[str, str], datasets: Mapping[str, Dataset]) -> list[Source]:
    """Pair the headers that could be read with their files."""
    return [
        Source(header=Header.from_dataset(datasets[uid], transfer_syntax_of(datasets[uid])), path=Path(path))
        for uid, path in files.items()
        if uid in datasets
    ]


@contextmanager
def timed(timings: dict[str, float], step: str) -> Iterator[None]:
    """Add the seconds of a step to ``timings``."""
    start = time.monotonic()
    yield
    timings[step] = timings.get(step, 0.0) + time.monotonic() - start


def _series_results(
    task: TriageTask, datasets: Mapping[str, Dataset], timings: dict[str, float]
) -> tuple[list[SeriesResult], list[SeriesResult]]:
    detectors = load_detectors(task.detectors)
    results, new = [], []
    for series in task.series:
        if series.kept_result is not None:
            results.append(wire.loads(SeriesResult, series.kept_result))
            continue
        sources = sources_of(series.files, datasets)
        result = process_series(sources, detectors) if sources else _unread(series)
        for step, seconds in result.timings_s.items():
            timings[step] = timings.get(step, 0.0) + seconds
        new.append(result)
        results.append(result)
    return results, new


def _unread(series: SeriesFiles) -> SeriesResult:
    """Say of a series of which no header could be read that nobody looked at it."""
    row = ExaminedStack(
        series_instance_uid=series.series_instance_uid,
        series_number=None,
        series_description="",
        stack=1,
        role=Role.VOLUME,
        instances=(),
        reason=f"none of its {len(series.files)} images can be read",
    )
    return SeriesResult(
        series_instance_uid=series.series_instance_uid, digest=digest_of(()), examined=(row,), findings=(), timings_s={}
    )


def _given_up(task: TriageTask, previous: Report | None, datasets: Mapping[str, Dataset], reason: str) -> Report:
    before = previous.examined if previous else ()
    known = {row.series_instance_uid for row in before}
    new = tuple(_nobody_looked(s, datasets, reason) for s in task.series if s.series_instance_uid not in known)
    named = {uid for row in before for uid in row.instances}
    late = sum(uid not in named for s in task.series if s.series_instance_uid in known for uid in s.files)
    findings = previous.findings if previous else ()
    rows = (*before, *new)
    return Report(
        study_instance_uid=task.study_instance_uid,
        study_digest="",
        status=StudyStatus.PARTLY_ANALYSED if any(row.analysed for row in rows) else StudyStatus.NOT_ANALYSED,
        priority=previous.priority if previous and findings else None,
        examined=rows,
        findings=findings,
        provenance=task.provenance,
        notes=(f"NOT ANALYSED, {reason}: {late} image(s) of series reported before",) if late else (),
    )


def _nobody_looked(series: SeriesFiles, datasets: Mapping[str, Dataset], reason: str) -> ExaminedStack:
    readable = tuple(uid for uid in sorted(series.files) if uid in datasets)
    number = str(datasets[readable[0]].get("SeriesNumber") or "") if readable else ""
    return ExaminedStack(
        series_instance_uid=series.series_instance_uid,
        series_number=int(number) if number.lstrip("-").isdecimal() else None,
        series_description=str(datasets[readable[0]].get("SeriesDescription") or "") if readable else "",
        stack=1,
        role=Role.VOLUME,
        instances=readable,
        reason=reason,
    )


def _said(report: Report) -> tuple[object, ...]:
    rows = [(row.series_instance_uid, row.stack, row.reason, row.instances) for row in report.examined]
    return rows, report.notes, report.status, report.priority


def _as_version(report: Report, previous: Report | None, committed_at: datetime) -> Report:
    if previous is None:
        return replace(report, committed_at=committed_at)
    return replace(
        report,
        version=previous.version + 1,
        supersedes_digest=previous.study_digest,
        changes=changes_between(previous, report),
        committed_at=committed_at,
    )


def _flags(task: TriageTask, report: Report, datasets: Mapping[str, Dataset]) -> tuple[KeptObject, ...]:
    context = Context(
        sources=SourceHeaders(datasets=datasets),
        committed_at=task.committed_at,
        language=task.language,
        predecessor=task.previous.document if task.previous else None,
    )
    return keep_objects(Path(task.objects_dir), build_flags(context, report))


def _all_files(series: Sequence[SeriesFiles]) -> dict[str, str]:
    return {uid: path for each in series for uid, path in each.files.items()}


def _headers_to_be_had(files: Mapping[str, str]) -> tuple[dict[str, Dataset], tuple[str, ...]]:
    """Read headers as ``_read_headers``, and leave out what cannot even be tried: that may be why triage failed."""
    datasets: dict[str, Dataset] = {}
    for uid, path in files.items():
        with suppress(OSError, ValueError):
            datasets |= _read_headers({uid: path})[0]
    missing = len(files) - len(datasets)
    return datasets, (f"{missing} image(s) could not be read",) if missing else ()


def _read_headers(files: Mapping[str, str]) -> tuple[dict[str, Dataset], tuple[str, ...]]:
    """Read the headers of archived files; what pydicom cannot read is left out and said in a note."""
    datasets: dict[str, Dataset] = {}
    reasons: Counter[str] = Counter()
    for uid, path in files.items():
        try:
            datasets[uid] = read_dataset(Path(path))
        except NotDicom as error:
            reasons[error.reason] += 1
    return datasets, tuple(f"{count} image(s) could not be read: {reason}" for reason, count in reasons.items())
