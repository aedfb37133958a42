"""Does a study end with exactly one set of results, whenever the whole service is killed with -9?"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.service import ReceivingPacs, Service, wait_until
from pacs_bridge.send import SendResult

COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When the service is killed: ``is_there`` holds; ``closed`` is whether the PACS takes nothing before that."""

    name: str
    is_there: Callable[[Service, ReceivingPacs], bool]
    closed: bool = True


def job_states(service: Service, kind: str) -> set[str]:
    return {job["state"] for job in service.status()["jobs"] if job["kind"] == kind}


def delivery_states(service: Service) -> set[str]:
    return {d["state"] for d in service.status()["deliveries"] if d["destination"] == "pacs"}


MOMENTS = (
    Moment(name="all slices stored", is_there=lambda s, _: bool(s.status()["studies"])),
    Moment(name="triage claimed", is_there=lambda s, _: bool(job_states(s, "triage") & {"running", "done"})),
    Moment(name="report committed", is_there=lambda s, _: s.status()["studies"][0]["report_version"] == 1),
    Moment(name="pictures claimed", is_there=lambda s, _: bool(job_states(s, "derive") & {"running", "done"})),
    Moment(name="flags being delivered", is_there=lambda s, _: "running" in delivery_states(s)),
    Moment(name="report in the PACS", is_there=lambda _, p: bool(p.of_class(COMPREHENSIVE_3D_SR)), closed=False),
)


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda m: m.name)
def test_a_study_ends_with_one_set_of_results_when_the_service_is_killed(
    moment: Moment, make_service: Any, pacs: ReceivingPacs, to_pacs: Any, send: Any, small_study: list[Path]
) -> None:
    if moment.closed:
        pacs.gate.clear()
    service: Service = make_service(destination=[to_pacs(pacs)])
    send(service, small_study).raise_failure()
    wait_until(lambda: moment.is_there(service, pacs), within_s=60, what=moment.name)
    service.kill()
    pacs.gate.set()
    service.start()
    wait_until(lambda: is_finished(service), within_s=120, what="one set of results")
    assert_one_set_of_results(service, pacs)


def test_a_study_killed_while_its_slices_arrive_ends_with_one_set_of_results_once_they_are_sent_again(
    make_service: Any, pacs: ReceivingPacs, to_pacs: Any, send: Any, small_study: list[Path]
) -> None:
    service: Service = make_service(destination=[to_pacs(pacs)])
    first: SendResult = send(service, small_study[:2])
    assert len(first.sent) == 2
    service.kill()
    service.start()
    send(service, small_study).raise_failure()
    wait_until(lambda: is_finished(service), within_s=120, what="one set of results")
    assert_one_set_of_results(service, pacs)
    assert service.status()["studies"][0]["report_version"] == 1


def is_finished(service: Service) -> bool:
    """Say whether the study has gone quiet and nothing is left to do for it."""
    return service.is_idle() and any(study["report_version"] for study in service.status()["studies"])


def assert_one_set_of_results(service: Service, pacs: ReceivingPacs) -> None:
    (study,) = service.status()["studies"]
    folder = service.state_dir / "results" / study["study_key"]
    assert [version.name for version in folder.iterdir()] == ["v1"]
    held = {each.sop_instance_uid: each for each in pacs.arrived}
    kinds = Counter(each.sop_class_uid for each in held.values())
    assert kinds[COMPREHENSIVE_3D_SR] == 1
    assert len(list(folder.rglob("*.dcm"))) == len(held)
    contents = {(each.sop_instance_uid, each.dataset) for each in pacs.arrived}
    assert len(contents) == len(held), "an object was sent again with other bytes"
