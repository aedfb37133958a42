"""Does what a scanner says of its procedure step outlive a power cut, and complete its series?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pynetdicom import AE

from benchmarks.service import Service, wait_until
from pacs_bridge.status import read_status

MODALITY_PERFORMED_PROCEDURE_STEP = "1.2.840.10008.3.1.2.3.3"
STEP = "2.25.771"


def data_set(**values: object) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def tell(service: Service, *requests: tuple[str, Dataset]) -> list[int]:
    """Send N-CREATE and N-SET requests over one association; return the statuses."""
    scanner = AE(ae_title="CT01")
    scanner.add_requested_context(MODALITY_PERFORMED_PROCEDURE_STEP)
    association = scanner.associate("127.0.0.1", service.port, ae_title="CTRIAGE")
    assert association.is_established
    asks = {"create": association.send_n_create, "set": association.send_n_set}
    answers = [asks[kind](attributes, MODALITY_PERFORMED_PROCEDURE_STEP, STEP) for kind, attributes in requests]
    association.release()
    return [status.Status for status, _ in answers]


def begun(study: str) -> Dataset:
    return data_set(
        ScheduledStepAttributesSequence=[data_set(StudyInstanceUID=study)],
        PerformedProcedureStepID="PPS1",
        PerformedStationAETitle="CT01",
        PerformedProcedureStepStartDate="20260101",
        PerformedProcedureStepStartTime="120000",
        PerformedProcedureStepStatus="IN PROGRESS",
        Modality="CT",
        PerformedSeriesSequence=[],
    )


def completed(images: Sequence[Dataset]) -> Dataset:
    references = [
        data_set(ReferencedSOPClassUID=each.SOPClassUID, ReferencedSOPInstanceUID=each.SOPInstanceUID)
        for each in images
    ]
    uid = str(images[0].SeriesInstanceUID)
    return data_set(
        PerformedProcedureStepStatus="COMPLETED",
        PerformedProcedureStepEndDate="20260101",
        PerformedProcedureStepEndTime="120500",
        PerformedSeriesSequence=[
            data_set(SeriesInstanceUID=uid, ProtocolName="Head", ReferencedImageSequence=references)
        ],
    )


def test_a_step_begun_before_a_power_cut_is_completed_after_it_and_its_list_outlives_the_next(
    make_service: Any, send: Any, small_study: list[Path]
) -> None:
    images = [pydicom.dcmread(path, stop_before_pixels=True) for path in small_study]
    service: Service = make_service(arrival={"quiet_s": 30})
    assert [0x0000] == tell(service, ("create", begun(str(images[0].StudyInstanceUID))))
    service.kill()
    service.start()
    assert [0x0000, 0x0110] == tell(service, ("set", completed(images)), ("set", completed(images)))
    service.kill()
    service.start()
    send(service, small_study[:-1]).raise_failure()
    send(service, small_study[-1:]).raise_failure()
    wait_until(lambda: [s["report_version"] for s in service.status()["studies"]] == [1], within_s=90, what="a report")
    (study,) = service.status()["studies"]
    (series,) = read_status(service.state_dir / "ctriage.sqlite", study["study_key"])["series"]
    assert ("open", "complete", "declared_list") == (study["state"], series["state"], series["evidence"])
