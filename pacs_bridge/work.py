"""What worker processes run: from file names to finished result objects, without database, queue or network.

Every argument and result can be pickled; files are read from the archive and written to the object store, whose names
are hashes: what a task writes means nothing until the driver commits its outcome.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TypeVar

from pacs_bridge.files import content_store
from pacs_bridge.ledger import KeptObject
from pacs_bridge.results.bundle import build_flags, build_pictures
from pacs_bridge.results.context import Context
from pacs_bridge.results.rejection_note import build_rejection_note
from pacs_bridge.source_files import read_sources, source_headers
from pacs_bridge.tasks import DeriveOutcome, DeriveTask, RejectionTask, SeriesFiles, TriageOutcome, TriageTask
from pipeline import wire
from pipeline.derive import Product, Remark, derive
from pipeline.model import ExaminedStack, Report, ResultObject, Role, StudyStatus
from pipeline.process import SeriesResult, Source, assemble_report, process_series
from pipeline.registry import load_detectors
from pipeline.select import digest_of
from pipeline.versions import changes_between, is_news

T = TypeVar("T")


def triage(task: TriageTask) -> TriageOutcome:
    """Examine what is new in a study, assemble its Report and build the flags' objects."""
    timings: dict[str, float] = {}
    files = _all_files(task.series)
    with timed(timings, "read"):
        sources, unreadable = read_sources(
            files, {uid: text for each in task.series for uid, text in each.headers.items()}
        )
    results, new = _series_results(task, sources, timings)
    notes = (*task.notes, *unreadable)
    report = assemble_report(task.study_instance_uid, results, task.provenance, notes=notes)
    # Images that cannot be read are in no row, but they are part of the state that this version speaks of.
    report = replace(report, study_digest=digest_of(files))
    previous = wire.loads(Report, task.previous.report_text) if task.previous else None
    report = _as_version(report, previous, task.committed_at)
    news = is_news(previous, report, final=task.final)
    with timed(timings, "write"):
        objects = _flags(task, report, sources) if news else ()
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
    sources, unreadable = _headers_to_be_had(files)
    previous = wire.loads(Report, task.previous.report_text) if task.previous else None
    report = _given_up(task, previous, sources, reason)
    report = _as_version(replace(report, notes=(*report.notes, *unreadable)), previous, task.committed_at)
    # Not the digest of its images: results are named by it, and these images may yet be analysed.
    report = replace(report, study_digest=digest_of((*files, f"given up: version {report.version}")))
    news = previous is None or _said(previous) != _said(report)
    return TriageOutcome(
        series_results=(),
        report_text=wire.dumps(report),
        is_news=news,
        objects=_flags(task, report, sources) if news else (),
        timings_s={},
    )


def make_pictures(task: DeriveTask) -> DeriveOutcome:
    """Make the reformats, projections, renderings and the summary page of a committed Report, one by one."""
    report = wire.loads(Report, task.report_text)
    timings: dict[str, float] = {}
    remarks: list[str] = []
    with timed(timings, "write"):
        sources, _ = read_sources(task.files, task.headers)
        context = Context(sources=source_headers(sources), committed_at=task.committed_at, language=task.language)
        products = derive(report, sources, task.options, language=task.language, study_key=task.study_key)
        made = without_remarks(metered(products, timings, "derive"), remarks)
        objects = keep_objects(Path(task.objects_dir), build_pictures(context, report, made))
    timings["write"] -= timings["derive"]
    return DeriveOutcome(objects=objects, notes=tuple(remarks), timings_s=timings)


def reject(task: RejectionTask) -> KeptObject:
    """Build the note that rejects what a committed Report has replaced at one destination."""
    report = wire.loads(Report, task.report_text)
    sources, _ = read_sources(task.files, task.headers)
    context = Context(sources=source_headers(sources), committed_at=task.committed_at, language=task.language)
    note = build_rejection_note(context, report, task.superseded, task.destination)
    return keep_objects(Path(task.objects_dir), [note])[0]


def keep_objects(folder: Path, built: Iterable[ResultObject]) -> tuple[KeptObject, ...]:
    """Put finished objects into the object store, each as soon as it is built; none is kept in memory."""
    kept = []
    with content_store(folder) as keep:
        for each in built:
            path, sha256 = keep(each.part10)
            kept.append(replace(kept_object(each), path=path, sha256=sha256))
            del each
    return tuple(kept)


def kept_object(built: ResultObject) -> KeptObject:
    """Return what is known of an object besides its bytes; where these lie is not said yet."""
    return KeptObject(
        kind=built.kind,
        index=built.index,
        sop_instance_uid=built.sop_instance_uid,
        sop_class_uid=built.sop_class_uid,
        series_instance_uid=built.series_instance_uid,
        path="",
        sha256="",
        label=built.label,
    )


def without_remarks(products: Iterable[Product], remarks: list[str]) -> Iterator[Product]:
    """Pass on what becomes an object; what is but said goes to ``remarks``."""
    for product in products:
        if isinstance(product, Remark):
            remarks.append(product.text)
        else:
            yield product
        del product


def metered(items: Iterator[T], timings: dict[str, float], step: str) -> Iterator[T]:
    """Pass items on, and add the seconds that making them takes to ``timings``."""
    waiting = True
    while waiting:
        with timed(timings, step):
            found = list(islice(items, 1))
        waiting = bool(found)
        if found:
            yield found.pop()


@contextmanager
def timed(timings: dict[str, float], step: str) -> Iterator[None]:
    """Add the seconds of a step to ``timings``."""
    start = time.monotonic()
    yield
    timings[step] = timings.get(step, 0.0) + time.monotonic() - start


def _series_results(
    task: TriageTask, sources: Mapping[str, Source], timings: dict[str, float]
) -> tuple[list[SeriesResult], list[SeriesResult]]:
    detectors = load_detectors(task.detectors)
    results, new = [], []
    for series in task.series:
        if series.kept_result is not None:
            results.append(wire.loads(SeriesResult, series.kept_result))
            continue
        readable = [sources[uid] for uid in series.files if uid in sources]
        result = process_series(readable, detectors) if readable else _unread(series)
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


def _given_up(task: TriageTask, previous: Report | None, sources: Mapping[str, Source], reason: str) -> Report:
    before = previous.examined if previous else ()
    known = {row.series_instance_uid for row in before}
    new = tuple(_nobody_looked(s, sources, reason) for s in task.series if s.series_instance_uid not in known)
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


def _nobody_looked(series: SeriesFiles, sources: Mapping[str, Source], reason: str) -> ExaminedStack:
    readable = tuple(uid for uid in sorted(series.files) if uid in sources)
    first = sources[readable[0]].header if readable else None
    return ExaminedStack(
        series_instance_uid=series.series_instance_uid,
        series_number=first.series_number if first else None,
        series_description=first.series_description if first else "",
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


def _flags(task: TriageTask, report: Report, sources: Mapping[str, Source]) -> tuple[KeptObject, ...]:
    context = Context(
        sources=source_headers(sources),
        committed_at=task.committed_at,
        language=task.language,
        predecessor=task.previous.document if task.previous else None,
    )
    return keep_objects(Path(task.objects_dir), build_flags(context, report))


def _all_files(series: Sequence[SeriesFiles]) -> dict[str, str]:
    return {uid: path for each in series for uid, path in each.files.items()}


def _headers_to_be_had(files: Mapping[str, str]) -> tuple[dict[str, Source], tuple[str, ...]]:
    """Read every header from its file, and leave out what cannot even be tried: that may be why triage failed."""
    sources: dict[str, Source] = {}
    for uid, path in files.items():
        with suppress(OSError, ValueError):
            sources |= read_sources({uid: path}, {})[0]
    missing = len(files) - len(sources)
    return sources, (f"{missing} image(s) could not be read",) if missing else ()
