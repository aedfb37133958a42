"""Does Orthanc speak TLS with us, both ways; and does a result reach a PACS over TLS, all the way from the scanner?"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from benchmarks.orthanc import NoOrthanc, Orthanc, running_orthanc
from benchmarks.service import Service, free_port, running, wait_until
from pacs_bridge.send import Peer, echo, send_files
from pacs_bridge.settings import Tls
from pacs_bridge.tls import client_context
from pacs_bridge.tls_testing import Hospital
from scheduler.errors import Transient

AsTable = Callable[[Tls], dict[str, str]]
NAME = "orthanc.example"
QUICK = {"workers": {"processes": 1}, "outputs": {"mpr": False, "mip": False, "render": False}}


def as_orthanc(node: Tls) -> dict[str, object]:
    """Return Orthanc's settings for speaking TLS as this node, and with nobody without a certificate."""
    return {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(node.certificate),
        "DicomTlsPrivateKey": str(node.private_key),
        "DicomTlsTrustedCertificates": str(node.authorities),
        "DicomTlsRemoteCertificateRequired": True,
    }


def of_dcmtk(node: Tls) -> list[object]:
    """Return the options with which DCMTK's programs speak TLS as this node."""
    return ["+tls", node.private_key, node.certificate, "+cf", node.authorities]


@pytest.fixture
def orthanc(hospital: Hospital, tmp_path: Path) -> Iterator[Orthanc]:
    """Start an Orthanc that speaks TLS only."""
    with ExitStack() as stack:
        try:
            peer = stack.enter_context(running_orthanc(tmp_path / "orthanc", **as_orthanc(hospital.node(NAME))))
        except NoOrthanc as missing:
            pytest.skip(str(missing))
        yield peer


def test_orthanc_takes_what_we_send_over_tls_and_nobody_else_does(
    orthanc: Orthanc, hospital: Hospital, scan: Any
) -> None:
    context = client_context(hospital.node(), now=datetime.now(UTC))
    peer = Peer(ae_title="ORTHANC", host=orthanc.host, port=orthanc.dicom_port, tls=context, tls_name=NAME)
    assert scan.files == send_files(scan.files, peer, calling_ae="CTRIAGE").sent
    nobody = client_context(Tls(authorities=hospital.node().authorities), now=datetime.now(UTC))
    for wrong in (replace(peer, tls=nobody), replace(peer, tls_name=None)):
        with pytest.raises(Transient, match="no TLS with"):
            echo(wrong, calling_ae="CTRIAGE")
    with pytest.raises(Transient, match="no association with"):
        echo(replace(peer, tls=None), calling_ae="CTRIAGE")


def test_orthanc_sends_to_us_over_tls_and_who_must_speak_it_is_refused_in_clear(
    orthanc: Orthanc, hospital: Hospital, scan: Any, run: Any, tmp_path: Path, tls_table: AsTable
) -> None:
    tls_port = free_port()
    settings = {
        **QUICK,
        "listener": {"host": orthanc.our_address, "tls_port": tls_port},
        "tls": tls_table(hospital.node(orthanc.our_address)),
        "caller": [
            {"ae_title": "ORTHANC", "address": orthanc.host, "tls": True},
            {"ae_title": "CT01", "address": orthanc.our_address, "tls": True},
        ],
        "arrival": {"quiet_s": 600},
    }
    with running(Service(tmp_path / "state", settings)) as service:
        us = {"AET": "CTRIAGE", "Host": orthanc.our_address, "Port": tls_port, "UseDicomTls": True}
        orthanc.put("/modalities/ctriage", us)
        orthanc.post("/modalities/ctriage/echo", {})
        context = client_context(hospital.node(), now=datetime.now(UTC))
        peer = Peer(ae_title="ORTHANC", host=orthanc.host, port=orthanc.dicom_port, tls=context, tls_name=NAME)
        assert 3 == len(send_files(scan.files, peer, calling_ae="CTRIAGE").sent)
        done = orthanc.post("/modalities/ctriage/store", orthanc.get("/instances"))
        assert (3, 0) == (done["InstancesCount"], done["FailedInstancesCount"])
        assert [scan.study] == [each["study_instance_uid"] for each in service.status()["studies"]]

        in_clear = run("echoscu", "-aet", "CT01", "-aec", "CTRIAGE", orthanc.our_address, service.port)
        tls = of_dcmtk(hospital.node())
        over_tls = run("echoscu", *tls, "-aet", "CT01", "-aec", "CTRIAGE", orthanc.our_address, tls_port)
        assert (1, 0) == (in_clear.returncode, over_tls.returncode)
        assert f"caller CT01 from {orthanc.our_address} spoke no TLS" in service.log.read_text()


def test_a_study_comes_and_its_result_goes_over_tls_and_the_audit_trail_says_both(
    hospital: Hospital,
    shared_data: Path,
    run: Any,
    taker: Any,
    tmp_path: Path,
    tls_table: AsTable,
) -> None:
    study = sorted((shared_data / "geometry_faults" / "gantrytilting").rglob("*.dcm"))
    options, tls_port = of_dcmtk(hospital.node()), free_port()
    pacs = taker("storescp", "-od", "{folder}", *options, "{port}")
    destination = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": pacs.port, "tls": True}
    settings = {
        **QUICK,
        "listener": {"tls_port": tls_port},
        "tls": tls_table(hospital.node()),
        "arrival": {"quiet_s": 2},
        "destination": [{**destination, "send": ["sr"]}],
    }
    with running(Service(tmp_path / "state", settings)) as service:
        sent = run("storescu", *options, "-aet", "CT01", "-aec", "CTRIAGE", "127.0.0.1", tls_port, *study)
        assert 0 == sent.returncode
        wait_until(lambda: pacs.taken() == 1 and service.is_idle(), within_s=120, what="the result")
        assert 0 == service.stop()
    of_service = ("--set", f"state_dir={service.state_dir}")
    assert 0 == run("pacs_bridge", "audit", "verify", *of_service).returncode
    records = json.loads(run("pacs_bridge", "audit", "show", "--json", *of_service).stdout)["records"]
    begins: list[tuple[str, list[str]]] = [("110134", []), ("110120", []), ("110129", [])]
    ends: list[tuple[str, list[str]]] = [("110121", [])]
    assert [*begins, ("110104", ["CT01"]), ("110104", ["PACS"]), *ends] == [_in_short(each) for each in records]


def _in_short(record: dict[str, Any]) -> tuple[str, list[str]]:
    """Return the code of what happened, and who took part besides us."""
    event = record["EventIdentification"]
    (code,) = event.get("EventTypeCode") or [event["EventID"]]
    return code["csd-code"], [each["UserID"] for each in record["ActiveParticipant"][1:]]
