"""Does a study go the whole way, from a scanner's C-STORE to results in a real PACS and in the folder?"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pydicom
import pytest

from benchmarks.service import ReceivingPacs, Service, wait_until

COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"


def is_finished(service: Service) -> bool:
    """Say whether every study has gone quiet and nothing is left to do."""
    return service.is_idle() and all(study["report_version"] for study in service.status()["studies"])


def test_storescu_sends_a_tilted_head_and_orthanc_holds_its_results(
    make_service: Any, orthanc: Any, to_pacs: Any, tilted_head: list[Path]
) -> None:
    if not shutil.which("storescu"):
        pytest.skip("storescu is not installed (Debian's package dcmtk)")
    peer = {"ae_title": orthanc.ae_title, "host": orthanc.host, "port": orthanc.dicom_port}
    service: Service = make_service(destination=[{**to_pacs(ReceivingPacs()), **peer}])
    subprocess.run(
        ["storescu", "-aec", "CTRIAGE", "127.0.0.1", str(service.port), *map(str, tilted_head)],
        check=True,
        env={**os.environ, "TCP_NODELAY": "1"},
        timeout=60,
    )
    wait_until(lambda: is_finished(service), within_s=180, what="results of the tilted head")
    (study,) = service.status()["studies"]
    results = service.state_dir / "results" / study["study_key"] / "v1"
    made = {str(pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID) for p in results.rglob("*.dcm")}
    assert {"sr.dcm", "summary.dcm", "summary.png"} <= {p.name for p in results.iterdir()}
    assert made == orthanc.sop_instance_uids()
    (patient,) = orthanc.get("/patients?expand")
    assert patient["Studies"] == [orthanc.get("/studies")[0]]


def test_a_pacs_that_sends_every_result_back_starts_no_new_job(
    make_service: Any, pacs: ReceivingPacs, to_pacs: Any, send: Any, small_study: list[Path]
) -> None:
    service: Service = make_service(destination=[to_pacs(pacs)])
    send(service, small_study).raise_failure()
    wait_until(lambda: is_finished(service), within_s=120, what="the results")
    before = service.status()
    results = sorted((service.state_dir / "results").rglob("*.dcm"))
    send(service, [*results, *small_study]).raise_failure()
    after = service.status()
    assert [job["key"] for job in before["jobs"]] == [job["key"] for job in after["jobs"]]
    assert before["deliveries"] == after["deliveries"]
    assert [s["state"] for s in after["studies"]] == ["quiet"]


def test_two_patients_under_one_study_are_analysed_and_held_until_an_administrator_decides(
    make_service: Any, pacs: ReceivingPacs, to_pacs: Any, send: Any, small_study: list[Path], tmp_path: Path
) -> None:
    service: Service = make_service(destination=[to_pacs(pacs)])
    send(service, [*small_study[:-1], _of_another_patient(small_study[-1], tmp_path)]).raise_failure()
    wait_until(lambda: _reports(service) == [1], within_s=60, what="the report")
    held = [d for d in service.status()["deliveries"] if d["state"] == "held"]
    (conflict,) = service.status()["conflicts"]
    assert {"pacs", "results"} == {delivery["destination"] for delivery in held}
    assert conflict["kind"] == "patient"
    assert pacs.arrived == []
    _ctriage("conflicts", "accept", str(conflict["id"]), "--set", f"state_dir={service.state_dir}")
    wait_until(lambda: bool(pacs.of_class(COMPREHENSIVE_3D_SR)), within_s=60, what="the held report")


def test_a_late_slice_makes_a_version_that_names_the_one_it_replaces(
    make_service: Any, pacs: ReceivingPacs, to_pacs: Any, send: Any, small_study: list[Path]
) -> None:
    service: Service = make_service(destination=[to_pacs(pacs, send=["sr"])])
    send(service, small_study[:-1]).raise_failure()
    wait_until(lambda: is_finished(service), within_s=60, what="the first version")
    send(service, small_study[-1:]).raise_failure()
    wait_until(lambda: len(pacs.arrived) == 2, within_s=60, what="the second version")
    first, second = (pydicom.dcmread(_part10(each), force=True) for each in pacs.arrived)
    predecessor = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert first.SOPInstanceUID == predecessor.ReferencedSOPInstanceUID


def test_a_study_of_pages_and_a_scout_ends_not_analysed_in_the_pacs_too(
    make_service: Any, pacs: ReceivingPacs, to_pacs: Any, send: Any, shared_data: Path
) -> None:
    folder = shared_data / "head_phantom_philips"
    files = [p for name in ("scout", "exam_summary") for p in sorted((folder / name).iterdir()) if "DIR" not in p.name]
    service: Service = make_service(destination=[to_pacs(pacs, send=["sr"])])
    send(service, files).raise_failure()
    wait_until(lambda: bool(pacs.arrived), within_s=60, what="the report")
    document = pydicom.dcmread(_part10(pacs.arrived[0]), force=True)
    assert document.CompletionFlag == "PARTIAL"
    assert "NOT ANALYSED" in str(document)
    assert [s["report_status"] for s in service.status()["studies"]] == ["not_analysed"]


def _reports(service: Service) -> list[int | None]:
    return [study["report_version"] for study in service.status()["studies"]]


def _of_another_patient(path: Path, folder: Path) -> Path:
    dataset = pydicom.dcmread(path)
    dataset.PatientID = "SOMEBODY ELSE"
    target = folder / "other.dcm"
    dataset.save_as(target)
    return target


def _part10(arrived: Any) -> Any:
    from io import BytesIO

    from pacs_bridge.part10 import file_header

    header = file_header(arrived.sop_class_uid, arrived.sop_instance_uid, arrived.transfer_syntax, "PACS")
    return BytesIO(header + arrived.dataset)


def _ctriage(*arguments: str) -> None:
    import sys

    subprocess.run([sys.executable, "-m", "pacs_bridge", *arguments], check=True, timeout=60)
