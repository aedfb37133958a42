"""What a declared list does in the index: before, during and after its images, across restarts, over a real wire."""

from collections.abc import Iterator
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE

from pacs_bridge.arrival import Evidence, ExpectedInstances, Limits, SeriesComplete, SeriesConfirmed, StudyQuiet
from pacs_bridge.declarations import KEPT_FOR, Declarations
from pacs_bridge.procedure_steps import MODALITY_PERFORMED_PROCEDURE_STEP
from pacs_bridge.procedure_steps_service import ProcedureSteps
from pacs_bridge.settings import Arrival
from pacs_bridge.store_status import StoreStatus

EXPLICIT = "1.2.840.10008.1.2.1"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"


@pytest.fixture
def send(make_slice: Any, encode: Any) -> Any:
    """Return a function that stores slices of the series 1.2.3.4, by number."""

    def store(bridge: Any, *numbers: int, association: str = "A", **overrides: Any) -> None:
        for n in numbers:
            header: Dataset = make_slice(n, **overrides)
            request = SimpleNamespace(
                dataset=encode(header),
                transfer_syntax=EXPLICIT,
                sop_class_uid=header.SOPClassUID,
                sop_instance_uid=header.SOPInstanceUID,
                calling_ae="CT01",
                association=association,
            )
            assert bridge.store(request) is StoreStatus.SUCCESS

    return store


def listing(at: datetime, *numbers: int, series: str = "1.2.3.4", whole: bool = True) -> ExpectedInstances:
    names = frozenset(f"{series}.{n}" for n in numbers)
    return ExpectedInstances(study="1.2.3", series=series, sop_instance_uids=names, at=at, whole=whole)


def series_in(bridge: Any) -> dict[str, tuple[str, str | None]]:
    return {each.series_instance_uid: (each.state, each.evidence) for each in bridge.archive.series_of("1.2.3")}


def kinds(bridge: Any) -> list[type]:
    return [type(each) for each in bridge.instructions]


def pass_time(bridge: Any, seconds: float) -> None:
    bridge.clock.advance(seconds)
    bridge.intake.tick()


@pytest.mark.parametrize("before", [0, 2, 3])
def test_a_list_completes_its_series_whenever_it_comes(bridge: Any, send: Any, before: int) -> None:
    send(bridge, *range(1, before + 1))
    bridge.intake.declared(listing(bridge.clock.now, 1, 2, 3))
    send(bridge, *range(before + 1, 4))
    assert {"1.2.3.4": ("complete", "declared_list")} == series_in(bridge)
    pass_time(bridge, 60)
    assert ("quiet", "declared_list") == (bridge.archive.study("1.2.3").state, bridge.archive.study("1.2.3").evidence)
    assert [SeriesComplete, StudyQuiet] == kinds(bridge)


def test_a_list_known_before_a_restart_completes_a_series_that_begins_after_it(make_bridge: Any, send: Any) -> None:
    bridge = make_bridge()
    bridge.intake.declared(listing(bridge.clock.now, 1, 2, 3))
    again = make_bridge()
    send(again, 1, 2)
    assert {"1.2.3.4": ("open", None)} == series_in(again)
    assert "open" == again.archive.study("1.2.3").state
    once_more = make_bridge()
    send(once_more, 3)
    assert {"1.2.3.4": ("complete", "declared_list")} == series_in(once_more)
    assert [3] == [each.instances for each in once_more.instructions]


def test_a_list_that_comes_when_the_study_is_quiet_betters_its_grade_and_starts_nothing_anew(
    bridge: Any, send: Any
) -> None:
    send(bridge, 1, 2, 3)
    pass_time(bridge, 60)
    assert {"1.2.3.4": ("complete", "quiet_period")} == series_in(bridge)
    bridge.clock.advance(500)
    bridge.intake.declared(listing(bridge.clock.now, 1, 2, 3))
    pass_time(bridge, 1)
    assert {"1.2.3.4": ("complete", "declared_list")} == series_in(bridge)
    assert ("quiet", "declared_list") == (bridge.archive.study("1.2.3").state, bridge.archive.study("1.2.3").evidence)
    assert [SeriesComplete, StudyQuiet, SeriesConfirmed, StudyQuiet] == kinds(bridge)


def test_a_better_grade_outlives_a_restart_before_the_study_is_quiet_anew(make_bridge: Any, send: Any) -> None:
    bridge = make_bridge()
    send(bridge, 1, 2, 3)
    pass_time(bridge, 60)
    bridge.intake.declared(listing(bridge.clock.now, 1, 2, 3))
    again = make_bridge()
    pass_time(again, 60)
    assert ("quiet", "declared_list") == (again.archive.study("1.2.3").state, again.archive.study("1.2.3").evidence)


def test_a_list_of_more_for_a_quiet_study_makes_its_late_slices_wait_for_one_another(bridge: Any, send: Any) -> None:
    send(bridge, 1, 2, 3)
    pass_time(bridge, 60)
    bridge.intake.declared(listing(bridge.clock.now, 1, 2, 3, 4, 5))
    pass_time(bridge, 1)
    bridge.instructions.clear()
    send(bridge, 4, association="B")
    bridge.intake.released("B")
    pass_time(bridge, 100)
    assert ("open", {"1.2.3.4": ("open", None)}) == (bridge.archive.study("1.2.3").state, series_in(bridge))
    send(bridge, 5, association="C")
    (complete,) = (each for each in bridge.instructions if isinstance(each, SeriesComplete))
    assert (Evidence.DECLARED_LIST, 5) == (complete.evidence, complete.instances)


def test_an_announced_series_of_a_study_that_is_quiet_opens_it_again_when_it_comes(bridge: Any, send: Any) -> None:
    send(bridge, 1, 2, 3)
    pass_time(bridge, 60)
    bridge.intake.declared(listing(bridge.clock.now, 1, series="1.2.3.5"))
    send(bridge, 1, association="B", SeriesInstanceUID="1.2.3.5", SOPInstanceUID="1.2.3.5.1")
    assert "open" == bridge.archive.study("1.2.3").state
    assert {"1.2.3.4", "1.2.3.5"} == set(series_in(bridge))
    assert ("complete", "declared_list") == series_in(bridge)["1.2.3.5"]


@pytest.mark.parametrize("list_first", [False, True])
def test_nothing_is_waited_for_that_is_no_ct(bridge: Any, send: Any, *, list_first: bool) -> None:
    other = {"SeriesInstanceUID": "1.2.3.9", "SOPInstanceUID": "1.2.3.9.1", "Modality": "SR", "SOPClassUID": MR_IMAGE}
    if list_first:
        bridge.intake.declared(listing(bridge.clock.now, 1, series="1.2.3.9"))
    send(bridge, 1, **other)
    if not list_first:
        bridge.intake.declared(listing(bridge.clock.now, 1, series="1.2.3.9"))
    send(bridge, 1, 2, 3)
    bridge.intake.released("A")
    pass_time(bridge, 60)
    assert [SeriesComplete, StudyQuiet] == kinds(bridge)


def test_a_list_of_what_was_never_routed_here_falls_back(bridge: Any, send: Any) -> None:
    bridge.intake.declared(listing(bridge.clock.now, 1, 2, 3, 99))
    send(bridge, 1, 2, 3)
    bridge.intake.released("A")
    pass_time(bridge, 599)
    assert [] == bridge.instructions
    pass_time(bridge, 1)
    assert {"1.2.3.4": ("complete", "quiet_period")} == series_in(bridge)


def test_lists_for_studies_that_never_come_leave_the_intake_as_it_was(bridge: Any, send: Any) -> None:
    bridge.intake.declared(listing(bridge.clock.now, 1, 2))
    pass_time(bridge, 601)
    assert [] == bridge.instructions
    assert [] == bridge.archive.studies()
    send(bridge, 1, 2)  # its time is over, but it is still true
    assert {"1.2.3.4": ("complete", "declared_list")} == series_in(bridge)


def test_lists_are_kept_once_and_not_for_ever(bridge: Any) -> None:
    lists = Declarations(bridge.database)
    first = listing(bridge.clock.now, 1, 2)
    lists.keep(first)
    bridge.clock.advance(60)
    lists.keep(listing(bridge.clock.now, 2, 1))
    lists.keep(listing(bridge.clock.now, 1, 2, whole=False))
    assert [first, listing(bridge.clock.now, 1, 2, whole=False)] == lists.of("1.2.3")
    bridge.clock.advance(KEPT_FOR.total_seconds() + 1)
    lists.keep(listing(bridge.clock.now, 7))
    assert [listing(bridge.clock.now, 7)] == lists.of("1.2.3")


def test_every_limit_of_the_arrival_can_be_set() -> None:
    assert Limits(quiet_s=1, settle_s=2, declared_s=3) == Limits(
        **Arrival(quiet_s=1, settle_s=2, declared_s=3).model_dump()
    )


# ---- MPPS over the wire ---------------------------------------------------------------------------------------------


@pytest.fixture
def scanner(bridge: Any, listen: Any) -> Iterator[Any]:
    """Return an association of a scanner that reports procedure steps; its name for the SOP class is at hand."""
    steps = ProcedureSteps(bridge.database, declare=bridge.intake.declared, now=bridge.clock)
    listener = listen(bridge, services={MODALITY_PERFORMED_PROCEDURE_STEP: steps})
    ae = AE(ae_title="CT01")
    ae.add_requested_context(MODALITY_PERFORMED_PROCEDURE_STEP)
    association = ae.associate("127.0.0.1", listener.port, ae_title="CTRIAGE")
    assert association.is_established
    yield association
    association.release()


def _made(**values: object) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def _begun() -> Dataset:
    return _made(
        ScheduledStepAttributesSequence=[_made(StudyInstanceUID="1.2.3")],
        PerformedProcedureStepID="PPS1",
        PerformedStationAETitle="CT01",
        PerformedProcedureStepStartDate="20260101",
        PerformedProcedureStepStartTime="120000",
        PerformedProcedureStepStatus="IN PROGRESS",
        Modality="CT",
        PerformedSeriesSequence=[],
    )


def _completed(*numbers: int) -> Dataset:
    images = [
        _made(ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.2", ReferencedSOPInstanceUID=f"1.2.3.4.{n}")
        for n in numbers
    ]
    return _made(
        PerformedProcedureStepStatus="COMPLETED",
        PerformedProcedureStepEndDate="20260101",
        PerformedProcedureStepEndTime="120500",
        PerformedSeriesSequence=[
            _made(SeriesInstanceUID="1.2.3.4", ProtocolName="Head", ReferencedImageSequence=images)
        ],
    )


def test_a_scanner_that_reports_its_step_has_its_series_complete_without_any_release(
    bridge: Any, send: Any, scanner: Any
) -> None:
    status, _ = scanner.send_n_create(_begun(), MODALITY_PERFORMED_PROCEDURE_STEP, "1.2.7")
    assert 0x0000 == status.Status
    assert 0x0111 == scanner.send_n_create(_begun(), MODALITY_PERFORMED_PROCEDURE_STEP, "1.2.7")[0].Status
    send(bridge, 1, 7, 3)  # with holes: nothing but the list can tell that this is all
    assert [] == bridge.instructions
    assert 0x0112 == scanner.send_n_set(_completed(1), MODALITY_PERFORMED_PROCEDURE_STEP, "1.2.8")[0].Status
    assert 0x0000 == scanner.send_n_set(_completed(1, 3, 7), MODALITY_PERFORMED_PROCEDURE_STEP, "1.2.7")[0].Status
    assert 0x0110 == scanner.send_n_set(_completed(1), MODALITY_PERFORMED_PROCEDURE_STEP, "1.2.7")[0].Status
    assert {"1.2.3.4": ("complete", "declared_list")} == series_in(bridge)
    assert [(SeriesComplete, 3)] == [(type(each), each.instances) for each in bridge.instructions]


def test_a_step_that_lacks_what_it_must_say_is_refused_over_the_wire(bridge: Any, scanner: Any) -> None:
    incomplete = _begun()
    del incomplete.PerformedStationAETitle
    assert 0x0120 == scanner.send_n_create(incomplete, MODALITY_PERFORMED_PROCEDURE_STEP, "1.2.7")[0].Status
    status, _ = scanner.send_n_create(_begun(), MODALITY_PERFORMED_PROCEDURE_STEP, None)
    with bridge.database.read() as connection:
        (row,) = connection.execute("select sop_instance_uid from procedure_steps").fetchall()
    assert (0x0000, True) == (status.Status, row["sop_instance_uid"].startswith("2.25."))
