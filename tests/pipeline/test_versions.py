"""A new version goes out when a radiologist would read something else in it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pipeline.model import ExaminedStack, Finding, Priority, Report, Role, StudyStatus
from pipeline.versions import changes_between, is_news

OTHER_CODE = "made with another version of the software or of a detector, or with other settings"
MakeReport = Callable[..., Report]
MakeRow = Callable[..., ExaminedStack]
MakeFinding = Callable[..., Finding]
Pair = tuple[Report, Report]


@pytest.fixture
def pairs(make_report: MakeReport, make_row: MakeRow, make_finding: MakeFinding) -> dict[str, Pair]:
    """Return an old and a new Report for each way in which they may differ."""
    first, late = make_row(), make_row("1.2", series_number=5)
    localizer = make_row("1.3", series_number=None, role=Role.LOCALIZER, detectors=())
    newer = replace(make_report().provenance, code_version="1")
    longer = make_row(instances=("1.1.1", "1.1.2", "1.1.3"))
    found = make_report(findings=(make_finding(at=(1.2, 2.0, 3.0), volume_ml=1.04),))

    def differing(**changes: Any) -> Pair:
        return make_report(), make_report(**({"study_digest": "d2"} | changes))

    def with_finding(**changes: Any) -> Pair:
        finding = make_finding(**{"at": (1.2, 2.0, 3.0), "volume_ml": 1.04} | changes)
        return found, make_report(findings=(finding,), study_digest="d2")

    return {
        "nothing": differing(study_digest="d1"),
        "the version alone": differing(study_digest="d1", version=2),
        "the same images read otherwise": differing(study_digest="d1", findings=(make_finding(),)),
        "other code": differing(study_digest="d1", provenance=newer),
        "other code that finds more": differing(
            study_digest="d1", provenance=newer, findings=(make_finding(),), priority=Priority.STAT
        ),
        "a new finding": differing(findings=(make_finding(),)),
        "a finding gone": (found, make_report(study_digest="d2")),
        "a hair's breadth": with_finding(at=(1.3, 2.0, 3.0), volume_ml=1.0, probability=0.5),
        "a finding moved": with_finding(at=(2.6, 2.0, 3.0)),
        "a finding grown": with_finding(volume_ml=1.2),
        "another kind": with_finding(kind="fracture", volume_ml=None),
        "priority": differing(priority=Priority.STAT),
        "status": differing(status=StudyStatus.PARTLY_ANALYSED),
        "a late series": differing(examined=(first, late)),
        "a late localizer": differing(examined=(first, localizer)),
        "a late slice": differing(examined=(longer,)),
    }


@pytest.mark.parametrize(
    ("what", "early", "late", "sentences"),
    [
        ("nothing", False, False, ()),
        ("the version alone", False, False, ()),
        # One name must not come with other bytes: results are named by images, code and settings.
        ("the same images read otherwise", False, False, ("findings: 0 before, 1 now",)),
        ("other code", False, True, (OTHER_CODE,)),
        (
            "other code that finds more",
            True,
            True,
            ("findings: 0 before, 1 now", "priority: unknown before, stat now", OTHER_CODE),
        ),
        ("a new finding", True, True, ("findings: 0 before, 1 now",)),
        ("a finding gone", True, True, ("findings: 1 before, 0 now",)),
        ("a hair's breadth", False, True, ()),
        ("a finding moved", True, True, ("findings: 1 before, 1 now",)),
        ("a finding grown", True, True, ("findings: 1 before, 1 now",)),
        ("another kind", True, True, ("findings: 1 before, 1 now",)),
        ("priority", True, True, ("priority: unknown before, stat now",)),
        ("status", True, True, ("status: analysed before, partly_analysed now",)),
        ("a late series", False, True, ("series 5, stack 1 added, analysed",)),
        ("a late localizer", False, True, ("series ?, stack 1 added, not analysed",)),
        ("a late slice", False, True, ("series 2, stack 1: 2 images before, 3 now",)),
    ],
)
def test_a_difference_is_news_at_its_time_and_said_in_a_sentence(
    pairs: dict[str, Pair],
    what: str,
    early: bool,  # noqa: FBT001 - a column of the table
    late: bool,  # noqa: FBT001
    sentences: tuple[str, ...],
) -> None:
    old, new = pairs[what]
    assert early == is_news(old, new, final=False)
    assert late == is_news(old, new, final=True)
    assert sentences == changes_between(old, new)


@pytest.mark.parametrize("final", [False, True])
def test_the_first_report_is_always_news(make_report: MakeReport, final: bool) -> None:  # noqa: FBT001
    assert is_news(None, make_report(), final=final)


def test_the_most_important_change_is_said_first(
    make_report: MakeReport, make_row: MakeRow, make_finding: MakeFinding
) -> None:
    new = make_report(
        findings=(make_finding(),),
        priority=Priority.STAT,
        status=StudyStatus.PARTLY_ANALYSED,
        examined=(make_row(), make_row("1.2")),
    )
    starts = ["findings", "priority", "status", "series"]
    assert starts == [change.split()[0].rstrip(":") for change in changes_between(make_report(), new)]
