"""Who must not get in, does not; it is said who and why, nothing hangs, and the service goes on for everybody else."""

import json
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import pytest

from pacs_bridge.settings import Tls
from pacs_bridge.tls import client_context
from pacs_bridge.tls_testing import Hospital

NOW = datetime.now(UTC)
NAME = "127.0.0.1"
A_ASSOCIATE_RQ = bytes.fromhex("0100000000cd00010000") + b"CTRIAGE         SCANNER         " + bytes(32 + 141)


def threads_and_files(reception: Any) -> tuple[int, int]:
    """Count the threads of the service's children, and the open files of all."""
    threads = files = 0
    for process in reception.service.processes():
        with suppress(psutil.NoSuchProcess):
            files += process.num_fds()
            # The driver's own threads are few and wait in pools; those of associations live in the receivers.
            threads += process.num_threads() if process.pid != reception.service.pid else 0
    return threads, files


@pytest.fixture
def nothing_left_behind(reception: Any, run: Any, wait_until: Any) -> Iterator[None]:
    """See that a test leaves the service with as many threads and files as it had, and that it answers."""
    assert 0 == run("echoscu", "-aec", "CTRIAGE", NAME, reception.service.port).returncode
    wait_until(lambda: _is_steady(reception))
    threads, files = threads_and_files(reception)
    yield
    wait_until(lambda: threads_and_files(reception)[0] <= threads and threads_and_files(reception)[1] <= files)
    assert 0 == run("echoscu", "-aec", "CTRIAGE", NAME, reception.service.port).returncode


def _is_steady(reception: Any) -> bool:
    """Say whether no association is on its way out."""
    before = threads_and_files(reception)
    return before == threads_and_files(reception)


def client_of(node: Tls) -> ssl.SSLContext:
    return client_context(node, now=NOW - timedelta(days=365))


def without_certificate(hospital: Hospital) -> ssl.SSLContext:
    return client_context(Tls(authorities=hospital.node().authorities), now=NOW)


def of_strangers(hospital: Hospital) -> ssl.SSLContext:
    stranger = Hospital(folder=hospital.folder / "strangers").node()
    return client_of(stranger.model_copy(update={"authorities": hospital.node().authorities}))


def expired(hospital: Hospital) -> ssl.SSLContext:
    return client_of(hospital.node(until=NOW - timedelta(days=1)))


def of_long_ago(hospital: Hospital) -> ssl.SSLContext:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    return old


STRANGERS: dict[str, tuple[Callable[[Hospital], ssl.SSLContext], str]] = {
    "no certificate": (without_certificate, "it shows no certificate"),
    "another authority": (of_strangers, "its certificate is not accepted"),
    "an expired certificate": (expired, "certificate has expired"),
    "TLS 1.1": (of_long_ago, "it offers no TLS 1.2 or newer"),
}


def got_in(raw: socket.socket, context: ssl.SSLContext) -> bool:
    """Ask for an association over TLS; say whether anything was answered but an alert or the end."""
    try:
        with context.wrap_socket(raw, server_hostname=NAME) as secured:
            secured.sendall(A_ASSOCIATE_RQ)
            return bool(secured.recv(1))
    except OSError:
        return False


@pytest.mark.usefixtures("nothing_left_behind")
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
@pytest.mark.parametrize(("make", "told"), STRANGERS.values(), ids=STRANGERS)
def test_a_caller_that_fails_at_tls_is_refused_and_told_of(
    reception: Any, wait_until: Any, make: Callable[[Hospital], ssl.SSLContext], told: str
) -> None:
    before = len(reception.log())
    with socket.create_connection((NAME, reception.tls_port), timeout=15) as raw:
        assert not got_in(raw, make(reception.hospital))
    wait_until(lambda: told in reception.log()[before:])
    (said,) = [json.loads(line) for line in reception.log()[before:].splitlines() if told in line]
    assert ("127.0.0.1", True) == (said["address"], said["reason"].startswith("TLS refused: "))


@pytest.mark.usefixtures("nothing_left_behind")
def test_a_plain_caller_at_the_tls_port_is_told_apart(reception: Any, run: Any, wait_until: Any) -> None:
    before = len(reception.log())
    assert 0 != run("echoscu", "-aec", "CTRIAGE", "-ta", 5, NAME, reception.tls_port).returncode
    wait_until(lambda: "it speaks no TLS" in reception.log()[before:])


@pytest.mark.usefixtures("nothing_left_behind")
def test_a_tls_caller_at_the_plain_port_ends_at_once(reception: Any) -> None:
    with (
        socket.create_connection((NAME, reception.service.port), timeout=15) as raw,
        pytest.raises(OSError),  # noqa: PT011 -- what it says depends on how far it came
    ):
        client_of(reception.hospital.node()).wrap_socket(raw, server_hostname=NAME)


@pytest.mark.usefixtures("nothing_left_behind")
def test_callers_that_say_nothing_are_given_up_while_others_are_served(
    reception: Any, run: Any, wait_until: Any
) -> None:
    before = len(reception.log())
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(socket.create_connection((NAME, reception.tls_port)))
        node = reception.hospital.node()
        tls = ["+tls", node.private_key, node.certificate, "+cf", node.authorities]
        assert 0 == run("echoscu", *tls, "-aec", "CTRIAGE", NAME, reception.tls_port).returncode
        in_time = "did not finish the TLS handshake in time"
        wait_until(lambda: reception.log()[before:].count(in_time) == 20, deadline_s=30)


@pytest.mark.usefixtures("nothing_left_behind")
def test_a_caller_with_the_right_certificate_is_answered(reception: Any) -> None:
    with socket.create_connection((NAME, reception.tls_port), timeout=15) as raw:
        assert got_in(raw, client_of(reception.hospital.node()))


@pytest.mark.usefixtures("nothing_left_behind")
def test_a_caller_that_breaks_off_inside_tls_leaves_nothing(reception: Any) -> None:
    for _ in range(10):
        raw = socket.create_connection((NAME, reception.tls_port), timeout=15)
        with client_of(reception.hospital.node()).wrap_socket(raw, server_hostname=NAME) as secured:
            secured.sendall(A_ASSOCIATE_RQ[:50])


def test_those_who_were_refused_stand_in_the_audit_trail_and_its_chain_holds(reception: Any, run: Any) -> None:
    of_service = ("--set", f"state_dir={reception.service.state_dir}")
    with socket.create_connection((NAME, reception.tls_port), timeout=15) as browser, suppress(OSError):
        browser.sendall(b"GET / HTTP/1.1\r\n\r\n")
        browser.recv(1)
    refused = run("echoscu", "-aet", "X", "-aec", "OTHER", NAME, reception.service.port)
    assert 0 != refused.returncode
    shown = json.loads(run("pacs_bridge", "audit", "show", "--json", *of_service).stdout)["records"]
    kinds = {each["EventIdentification"].get("EventOutcomeDescription", "") for each in shown}
    assert {"TLS refused: it speaks HTTP", "caller X called us OTHER"} <= kinds
    verified = run("pacs_bridge", "audit", "verify", *of_service)
    assert (0, True) == (verified.returncode, "the chain holds" in verified.stdout)


def test_a_scan_stands_in_the_audit_trail_once_for_its_association(
    reception: Any, run: Any, scan: Any, wait_until: Any
) -> None:
    node = reception.hospital.node()
    tls = ["+tls", node.private_key, node.certificate, "+cf", node.authorities]
    run("storescu", *tls, "-aet", "CT01", "-aec", "CTRIAGE", NAME, reception.tls_port, *scan.files)

    def told() -> list[Any]:
        shown = run(
            "pacs_bridge", "audit", "show", "--study", scan.study, "--json", "--set",
            f"state_dir={reception.service.state_dir}",
        )  # fmt: skip
        records: list[Any] = json.loads(shown.stdout)["records"]
        return records

    wait_until(lambda: told())
    (record,) = told()
    source = record["ActiveParticipant"][1]
    study, patient = record["ParticipantObjectIdentification"]
    assert ("110104", "CT01", "127.0.0.1", "INTEROP") == (
        record["EventIdentification"]["EventID"]["csd-code"],
        source["UserID"],
        source["NetworkAccessPointID"],
        patient["ParticipantObjectID"],
    )
    assert ["3"] == [each["NumberOfInstances"] for each in study["ParticipantObjectDescription"]["SOPClass"]]


def test_a_service_with_unusable_certificates_does_not_start_and_says_why(
    run: Any, hospital: Hospital, tls_table: Callable[[Tls], dict[str, str]], tmp_path: Any
) -> None:
    table = tls_table(hospital.node(until=NOW - timedelta(days=1)))
    options = [option for key, value in table.items() for option in ("--set", f"tls.{key}={value}")]
    done = run(
        "pacs_bridge", "serve", *options, "--set", "listener.tls_port=2762", "--set", f"state_dir={tmp_path}/state"
    )
    assert (2, True) == (done.returncode, "expired on" in done.stderr)
    assert "Traceback" not in done.stderr
