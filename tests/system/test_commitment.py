"""Does a scanner that asks for storage commitment always hear, also from a real PACS and after kill -9?"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pynetdicom import AE, evt
from pynetdicom.dsutils import decode, encode

from benchmarks.service import Service, free_port, wait_until
from pacs_bridge.commitment import (
    COMMITTED,
    PUSH_MODEL,
    PUSH_MODEL_INSTANCE,
    CommitmentReport,
    CommitmentRequest,
    Reference,
    read_report,
    written_request,
)
from pacs_bridge.transport import SOCKET_HANDLERS

IMPLICIT = "1.2.840.10008.1.2"
Handlers = list[tuple[Any, Callable[..., Any]]]


@dataclass(kw_only=True)
class Scanner:
    """A scanner that listens for reports on a port of its own; ``told``: what it heard, wherever."""

    port: int = field(default_factory=free_port)
    told: list[CommitmentReport] = field(default_factory=list)

    def settings(self, mode: str) -> dict[str, Any]:
        """Return its [[caller]] table."""
        return {"ae_title": "SCANNER", "address": "127.0.0.1", "port": self.port, "commitment": mode}

    def listen(self, stack: ExitStack) -> None:
        """Take reports as a scanner does that lets us be the SCP."""
        entity = AE(ae_title="SCANNER")
        entity.add_supported_context(PUSH_MODEL, scu_role=False, scp_role=True)
        server = entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=self.handlers())
        stack.callback(server.shutdown)

    def ask(self, service: Service, files: list[Path], *, handlers: Handlers | None = None) -> Any:
        """Ask for commitment, and return the association, which is still open."""
        entity = AE(ae_title="SCANNER")
        entity.add_requested_context(PUSH_MODEL)
        association = entity.associate(
            "127.0.0.1", service.port, ae_title="CTRIAGE", evt_handlers=handlers or self.handlers()
        )
        asked = written_request(CommitmentRequest(transaction_uid="1.9.1", references=references(files)))
        content = decode(BytesIO(asked), True, True)  # noqa: FBT003 - pynetdicom's own
        status, _ = association.send_n_action(content, 1, PUSH_MODEL, PUSH_MODEL_INSTANCE)
        assert status.Status == 0
        return association

    def handlers(self) -> Handlers:
        return [*SOCKET_HANDLERS, (evt.EVT_N_EVENT_REPORT, self._heard)]

    def _heard(self, event: Any) -> tuple[int, None]:
        raw = encode(event.event_information, True, True)  # noqa: FBT003 - pynetdicom's own
        self.told.append(read_report(raw or b"", IMPLICIT, event.event_type))
        return 0, None


def references(files: list[Path]) -> tuple[Reference, ...]:
    headers = [
        dcmread(file, stop_before_pixels=True, specific_tags=["SOPClassUID", "SOPInstanceUID"]) for file in files
    ]
    return tuple(
        Reference(sop_class_uid=str(each.SOPClassUID), sop_instance_uid=str(each.SOPInstanceUID)) for each in headers
    )


@pytest.fixture
def scanner() -> Scanner:
    return Scanner()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def committed(scanner: Scanner, files: list[Path]) -> bool:
    return bool(scanner.told) and dict.fromkeys(references(files), COMMITTED) == scanner.told[-1].outcomes


def test_a_scanner_hears_on_its_association_that_its_images_are_kept(
    make_service: Any, send: Any, small_study: list[Path], scanner: Scanner
) -> None:
    service = make_service(caller=[scanner.settings("own")])
    send(service, small_study).raise_failure()
    association = scanner.ask(service, small_study)
    wait_until(lambda: committed(scanner, small_study), within_s=20, what="a report on the same association")
    association.release()


def test_a_request_that_was_answered_is_reported_though_the_service_was_killed(
    make_service: Any, send: Any, small_study: list[Path], scanner: Scanner, stack: ExitStack
) -> None:
    service = make_service(caller=[scanner.settings("own")])
    send(service, small_study).raise_failure()
    # It takes no report on the association of its request, and is not to be called yet.
    association = scanner.ask(service, small_study, handlers=[*SOCKET_HANDLERS])
    service.kill()
    association.abort()
    scanner.listen(stack)
    service.start()
    wait_until(lambda: committed(scanner, small_study), within_s=60, what="a report after the restart")
    wait_until(lambda: states(service, "report") == {"done"}, within_s=20, what="the end of its job")
    assert ["1.9.1"] == [report.transaction_uid for report in scanner.told]


# ---- Orthanc --------------------------------------------------------------------------------------------------------


def introduce(orthanc: Any, service: Service) -> None:
    """Let Orthanc know us."""
    us = {"AET": "CTRIAGE", "Host": orthanc.our_address, "Port": service.port}
    orthanc.put("/modalities/ctriage", us)


def beside(orthanc: Any, mode: str) -> dict[str, Any]:
    """Return the settings of a service that Orthanc may talk to."""
    orthanc_calls = {
        "ae_title": orthanc.ae_title,
        "address": orthanc.host,
        "port": orthanc.dicom_port,
        "commitment": mode,
    }
    return {
        "listener": {"host": "0.0.0.0"},
        "caller": [orthanc_calls, {"ae_title": "SCANNER", "address": "127.0.0.1", "commitment": mode}],
    }


def to_orthanc(orthanc: Any) -> dict[str, Any]:
    return {
        "name": "orthanc",
        "ae_title": orthanc.ae_title,
        "host": orthanc.host,
        "port": orthanc.dicom_port,
        "commitment": True,
    }


def test_orthanc_asks_us_and_is_called_back(
    make_service: Any, send: Any, small_study: list[Path], orthanc: Any
) -> None:
    service = make_service(**beside(orthanc, "own"))
    introduce(orthanc, service)
    send(service, small_study).raise_failure()
    asked = {"DicomInstances": [[each.sop_class_uid, each.sop_instance_uid] for each in references(small_study)]}
    transaction = orthanc.post("/modalities/ctriage/storage-commitment", asked)["ID"]
    wait_until(
        lambda: orthanc.get(f"/storage-commitment/{transaction}")["Status"] != "Pending", within_s=30, what="a report"
    )
    report = orthanc.get(f"/storage-commitment/{transaction}")
    assert ("Success", len(small_study)) == (report["Status"], len(report["Success"]))


def test_results_count_as_delivered_when_orthanc_has_committed_to_them(
    make_service: Any, send: Any, small_study: list[Path], orthanc: Any
) -> None:
    service = make_service(**beside(orthanc, "off"), destination=[to_orthanc(orthanc)])
    introduce(orthanc, service)
    send(service, small_study).raise_failure()
    wait_until(lambda: states(service, "commit:orthanc") == {"done"}, within_s=90, what="Orthanc's commitment")


def test_what_orthanc_holds_is_relayed_to_the_scanner(
    make_service: Any, send: Any, small_study: list[Path], orthanc: Any, scanner: Scanner, stack: ExitStack
) -> None:
    settings = beside(orthanc, "off")
    settings["caller"][1] = scanner.settings("relay")
    service = make_service(**settings, destination=[to_orthanc(orthanc)], forward=[{"to": "orthanc"}])
    introduce(orthanc, service)
    scanner.listen(stack)
    send(service, small_study).raise_failure()
    scanner.ask(service, small_study).release()
    wait_until(lambda: committed(scanner, small_study), within_s=90, what="what Orthanc commits to")
    assert {each.sop_instance_uid for each in references(small_study)} <= orthanc.sop_instance_uids()


def states(service: Service, kind: str) -> set[str]:
    return {job["state"] for job in service.status()["jobs"] if job["kind"] == kind}
