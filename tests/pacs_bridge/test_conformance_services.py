"""Does the statement say of each status of a procedure step what it is answered for?"""

import sqlite3
from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from pacs_bridge.arrival import ExpectedInstances
from pacs_bridge.conformance_services import N_ANSWERS
from pacs_bridge.negotiation import PROCEDURE_STEP
from pacs_bridge.procedure_steps_service import ProcedureSteps
from pacs_bridge.services import ServiceKind, ServiceRequest

IMPLICIT = "1.2.840.10008.1.2"
BEGUN: Final = {
    "PerformedProcedureStepID": "PPS1",
    "PerformedStationAETitle": "CT01",
    "PerformedProcedureStepStartDate": "20260101",
    "PerformedProcedureStepStartTime": "120000",
    "PerformedProcedureStepStatus": "IN PROGRESS",
    "Modality": "CT",
}


class Scanner:
    """Tells its steps to a bridge whose disk may be full."""

    def __init__(self, bridge: Any) -> None:
        self.is_full = False
        self._steps = ProcedureSteps(bridge.database, declare=self._declared, now=bridge.clock)

    def _declared(self, _: ExpectedInstances) -> None:
        if self.is_full:
            raise sqlite3.OperationalError("database or disk is full")

    def create(self, uid: str = "1.2.7", **changes: str) -> int:
        study = Dataset()
        study.StudyInstanceUID = "1.2.3"
        return self.tell("n_create", uid, {"ScheduledStepAttributesSequence": [study], **BEGUN, **changes})

    def complete(self, uid: str = "1.2.7", calling_ae: str = "CT01", **changes: object) -> int:
        series, image = Dataset(), Dataset()
        image.ReferencedSOPInstanceUID = "1.2.3.4.1"
        series.SeriesInstanceUID, series.ReferencedImageSequence = "1.2.3.4", [image]
        end = {"PerformedProcedureStepEndDate": "20260101", "PerformedProcedureStepEndTime": "121500"}
        told = {"PerformedProcedureStepStatus": "COMPLETED", "PerformedSeriesSequence": [series], **end, **changes}
        return self.tell("n_set", uid, told, calling_ae=calling_ae)

    def tell(
        self,
        kind: ServiceKind,
        uid: str,
        values: Mapping[str, object],
        *,
        raw: bytes | None = None,
        calling_ae: str = "CT01",
    ) -> int:
        content, buffer = Dataset(), DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = True, True
        for keyword, value in values.items():
            setattr(content, keyword, value)
        write_dataset(buffer, content)
        request = ServiceRequest(
            kind=kind,
            sop_class_uid=PROCEDURE_STEP,
            sop_instance_uid=uid,
            type_id=None,
            dataset=buffer.getvalue() if raw is None else raw,
            transfer_syntax=IMPLICIT,
            calling_ae=calling_ae,
            address="127.0.0.1",
            association="M",
        )
        return self._steps(request).status


def _twice(scanner: Scanner) -> int:
    scanner.create()
    return scanner.create()


def _after_its_end(scanner: Scanner) -> int:
    scanner.create()
    scanner.complete()
    return scanner.complete()


def _by_another(scanner: Scanner) -> int:
    scanner.create()
    return scanner.complete(calling_ae="CT02")


def _without_an_end(scanner: Scanner) -> int:
    scanner.create()
    return scanner.tell("n_set", "1.2.7", {"PerformedProcedureStepStatus": "COMPLETED"})


def _on_a_full_disk(scanner: Scanner) -> int:
    scanner.create()
    scanner.is_full = True
    return scanner.complete()


CASES: dict[str, Callable[[Scanner], int]] = {
    "the performed procedure step is kept": Scanner.create,
    "a status or a name that cannot be": lambda scanner: scanner.create(PerformedProcedureStepStatus="DONE"),
    "it cannot be read": lambda scanner: scanner.tell("n_create", "1.2.7", {}, raw=b"\1"),
    "the step may no longer be modified": _after_its_end,
    "N-CREATE of a step that is known": _twice,
    "N-SET of a step that is not known": Scanner.complete,
    "a SOP Instance UID that is none": lambda scanner: scanner.create("no uid"),
    "the end of a step, must have is not there": _without_an_end,
    "one that must not be empty is empty": lambda scanner: scanner.create(Modality=""),
    "N-SET by another AE title than that of N-CREATE": _by_another,
    "anything but N-CREATE and N-SET": lambda scanner: scanner.tell("n_action", "1.2.7", {}),
    "it could not be written": _on_a_full_disk,
}


@pytest.mark.parametrize("case", CASES)
def test_a_step_is_answered_with_the_status_that_stands_beside_its_case(bridge: Any, case: str) -> None:
    answered = f"0x{CASES[case](Scanner(bridge)):04X}"
    assert [answered] == [each.code for each in N_ANSWERS[PROCEDURE_STEP] if case in each.when]


def test_each_status_of_a_step_has_a_case() -> None:
    assert [] == [each.code for each in N_ANSWERS[PROCEDURE_STEP] if not any(case in each.when for case in CASES)]
