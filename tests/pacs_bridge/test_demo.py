"""The demo's eyes: when is a study over, and since when could its result be read?"""

from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pacs_bridge.demo import DemoFailed, Watch, demo, is_under_way

RECEIVED = datetime(2026, 3, 1, 12, tzinfo=UTC)


def study(**changes: Any) -> dict[str, Any]:
    plain = {"study_key": "k", "study_instance_uid": "1.2", "state": "quiet", "report_version": 1}
    return {**plain, "last_received_at": RECEIVED.isoformat(), **changes}


def status(*jobs: str, **changes: Any) -> dict[str, Any]:
    rows = [{"study_key": "k", "state": state} for state in jobs]
    return {"studies": [study(**changes)], "jobs": rows, "deliveries": []}


@pytest.mark.parametrize(
    ("state", "jobs", "under_way"),
    [
        ("open", (), True),
        ("quiet", ("ready",), True),
        ("quiet", ("running", "done"), True),
        ("quiet", ("done", "buried", "held"), False),
        ("kept", (), False),
    ],
)
def test_a_study_is_under_way_while_it_arrives_or_has_a_job_that_may_run(
    state: str,
    jobs: tuple[str, ...],
    under_way: bool,  # noqa: FBT001 -- a column of the table above
) -> None:
    assert under_way == is_under_way(study(state=state), status(*jobs))


def test_jobs_of_other_studies_do_not_count() -> None:
    assert not is_under_way(study(study_key="other"), status("running"))


def test_nothing_is_finished_before_everything_is_sent(tmp_path: Path) -> None:
    sending: Future[None] = Future()
    watch = Watch(database=tmp_path / "none.sqlite")
    assert not watch.is_finished(sending)
    sending.set_result(None)
    assert watch.is_finished(sending)


def test_seconds_count_from_the_last_image_to_the_moment_a_version_is_seen(tmp_path: Path) -> None:
    instants = iter(RECEIVED + timedelta(seconds=s) for s in (4, 9))
    watch = Watch(database=tmp_path / "none.sqlite", now=lambda: next(instants))
    for version in (None, 1, 1, 2):
        watch.note(study(report_version=version))
    assert {"1.2": 9.0} == watch.seconds


def test_a_folder_without_dicom_is_told(tmp_path: Path) -> None:
    with pytest.raises(DemoFailed, match="holds no DICOM files"):
        demo(tmp_path / "nowhere", tmp_path / "demo")
