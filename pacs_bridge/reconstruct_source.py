"""Which stack of images is reconstructed, and what do results made of it say about patient and study?"""

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from pacs_bridge.errors import BridgeError
from pacs_bridge.offline import ShowProgress, find_studies
from pacs_bridge.results.context import Context
from pacs_bridge.results.texts import Language
from pacs_bridge.source_files import source_headers
from pipeline.model import ExaminedStack, Provenance, Report, StudyStatus
from pipeline.process import Source, stacks_in
from pipeline.select import Selected, ct_instances, digest_of
from reconstruction.slices import Stack


@dataclass(eq=False)
class NothingToReconstruct(BridgeError):
    """No stack can be had from these files; ``reason`` says why and what would help."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(eq=False)
class NoSuchChoice(BridgeError):
    """What was asked for is not in these files, or is not one thing; ``reason`` says what there is."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which series (its UID or its number) and which of its stacks (from 1); None leaves it to the finest."""

    series: str | None = None
    stack: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chosen:
    """The stack that is reconstructed, where its files are, and how many there were to choose from."""

    row: ExaminedStack
    stack: Stack
    sources: Mapping[str, Source]
    others: int

    @property
    def title(self) -> str:
        """Name the stack as people at the machine know it, without any identifier."""
        step = f"{round(self.stack.nominal_step_mm, 2):g} mm"
        return f"{_title(self.row)}: {len(self.stack.headers)} slices {step} apart"

    @property
    def paths(self) -> dict[str, Path]:
        """Return the file of each instance by SOP Instance UID."""
        return {uid: source.path for uid, source in self.sources.items()}


def choose(paths: Sequence[Path], choice: Choice, progress: ShowProgress) -> Chosen:
    """Find the stack asked for below ``paths``; without a wish the finest, then the one of most slices.

    Raises NothingToReconstruct and NoSuchChoice.
    """
    sources = _one_study(paths, choice, progress)
    selected = _selected(sources)
    wanted = [each for each in selected if _is_wanted(each.row, choice)]
    if not wanted:
        raise NoSuchChoice(f"there is no such series or stack here; there are: {_listed(selected)}")
    readable = [each for each in wanted if each.stack is not None]
    if not readable:
        raise NothingToReconstruct(f"no volume: {_reasons(wanted)}")
    best = min(readable, key=_rank)
    assert best.stack is not None
    return Chosen(row=best.row, stack=best.stack, sources=sources, others=len(readable) - 1)


def describe(
    chosen: Chosen, options: Mapping[str, object], *, language: Language, at: datetime
) -> tuple[Context, Report]:
    """Return what results need besides pixels. ``options`` are all that decide what is made: they enter the UIDs."""
    headers = [source.header for source in chosen.sources.values()]
    of = {"series": chosen.row.series_instance_uid, "stack": chosen.row.stack}
    wished = json.dumps({**options, **of, "language": language}, sort_keys=True, default=str)
    report = Report(
        study_instance_uid=headers[0].study_instance_uid,
        study_digest=digest_of(ct_instances(headers)),
        status=StudyStatus.NOT_ANALYSED,
        priority=None,
        examined=(chosen.row,),
        findings=(),
        provenance=Provenance(
            code_version=version("ctriage"),
            detector_versions={},
            settings_hash=hashlib.sha256(wished.encode()).hexdigest(),
        ),
        committed_at=at,
    )
    context = Context(sources=source_headers(chosen.sources), committed_at=at, language=language)
    return context, report


def _one_study(paths: Sequence[Path], choice: Choice, progress: ShowProgress) -> Mapping[str, Source]:
    found = find_studies(paths, progress)
    if not found.studies:
        reasons = sorted({each["reason"] for each in (*found.unreadable, *found.ignored)})
        raise NothingToReconstruct("; ".join(("no DICOM images were found", *reasons)))
    studies = list(found.studies.values())
    holding = [study for study in studies if choice.series is None or _has(study, choice.series)]
    if len(holding) > 1:
        raise NoSuchChoice(
            f"these are images of {len(holding)} studies ({'; '.join(_numbers(study) for study in holding)}): "
            "give the folder of one, or --series with a UID or a number that only one has"
        )
    study = holding[0] if holding else {uid: source for each in studies for uid, source in each.items()}
    if holding and len({source.header.patient_id for source in study.values()} - {""}) > 1:
        raise NothingToReconstruct("two patient IDs under one Study Instance UID: find out whose images these are")
    return study


def _numbers(study: Mapping[str, Source]) -> str:
    """Name the series of a study by their numbers."""
    numbers = {source.header.series_number for source in study.values()}
    known = ", ".join(str(number) for number in sorted(each for each in numbers if each is not None))
    return f"series {known or '?'}"


def _has(study: Mapping[str, Source], series: str) -> bool:
    headers = (source.header for source in study.values())
    return any(series in (header.series_instance_uid, str(header.series_number)) for header in headers)


def _selected(sources: Mapping[str, Source]) -> list[Selected]:
    """Sort all series into stacks."""
    by_series: dict[str, list[Source]] = defaultdict(list)
    for source in sources.values():
        by_series[source.header.series_instance_uid].append(source)
    return [each for uid in sorted(by_series) for each in stacks_in(by_series[uid])]


def _is_wanted(row: ExaminedStack, choice: Choice) -> bool:
    series = (None, row.series_instance_uid, str(row.series_number))
    return choice.series in series and choice.stack in (None, row.stack)


def _rank(selected: Selected) -> tuple[float, int, int, str]:
    row = selected.row
    number = math.inf if row.series_number is None else row.series_number
    return row.nominal_step_mm or math.inf, -len(row.instances), int(min(number, 1 << 31)), row.series_instance_uid


def _listed(selected: Sequence[Selected]) -> str:
    """Name what there is by numbers alone."""
    names = [f"{_title(each.row)} ({len(each.row.instances)} images)" for each in selected]
    return ", ".join(names) or "none"


def _title(row: ExaminedStack) -> str:
    return f"series {'?' if row.series_number is None else row.series_number}, stack {row.stack}"


def _reasons(selected: Sequence[Selected]) -> str:
    return "; ".join(dict.fromkeys(f"{_title(each.row)}: {each.row.reason or 'not a volume'}" for each in selected))
