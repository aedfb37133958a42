"""Is a newly assembled Report news, and what does it change?"""

from pipeline.model import ExaminedStack, Report


def changes_between(old: Report, new: Report) -> tuple[str, ...]:
    """Say in a sentence each what a new version changes for the radiologist, most important first."""
    changes: list[str] = []
    if _findings(old) != _findings(new):
        changes.append(f"findings: {len(old.findings)} before, {len(new.findings)} now")
    if old.priority != new.priority:
        changes.append(f"priority: {_named(old.priority)} before, {_named(new.priority)} now")
    if old.status != new.status:
        changes.append(f"status: {old.status.value} before, {new.status.value} now")
    changes.extend(_series_changes(old, new))
    if old.provenance != new.provenance:
        changes.append("made with another version of the software or of a detector, or with other settings")
    return tuple(changes)


def is_news(old: Report | None, new: Report, *, final: bool) -> bool:
    """Say whether a new version goes out: at the first time, when findings, priority or status change, or at the end.

    ``final`` is the end of the study's quiet period; then any difference in what was examined, and with what, goes out
    too. The same images under the same code and settings are never news: results are named by these, and one name must
    not come with other bytes.
    """
    if old is None:
        return True
    if (old.study_digest, old.provenance) == (new.study_digest, new.provenance):
        return False
    return final or _findings(old) != _findings(new) or old.priority != new.priority or old.status != new.status


def _findings(report: Report) -> set[tuple[object, ...]]:
    """What counts as the same finding: kind, place to within a millimetre, size to within a tenth of a mL."""
    return {
        (
            f.kind,
            f.subtype,
            f.series_instance_uid,
            f.stack,
            tuple(round(c) for c in f.centroid_lps_mm),
            None if f.volume_ml is None else round(f.volume_ml, 1),
        )
        for f in report.findings
    }


def _series_changes(old: Report, new: Report) -> list[str]:
    before = {(row.series_instance_uid, row.stack): row for row in old.examined}
    changes: list[str] = []
    for row in new.examined:
        earlier = before.get((row.series_instance_uid, row.stack))
        if earlier is None:
            changes.append(f"{_title(row)} added, {'analysed' if row.analysed else 'not analysed'}")
        elif earlier.instances != row.instances:
            changes.append(f"{_title(row)}: {len(earlier.instances)} images before, {len(row.instances)} now")
    return changes


def _title(row: ExaminedStack) -> str:
    return f"series {row.series_number if row.series_number is not None else '?'}, stack {row.stack}"


def _named(priority: object) -> str:
    return "unknown" if priority is None else str(priority)
