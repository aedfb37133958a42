"""Do the programs that hospitals have understand us, and we them: DCMTK's and pynetdicom's, in clear and over TLS?"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pacs_bridge.settings import Tls

PROFILES = {"BCP 195, not downgrading": "+py", "BCP 195": "+px", "extended BCP 195": "+pz"}
CLEAR_OR_TLS = pytest.mark.parametrize("secure", [False, True], ids=["clear", "tls"])


def of_dcmtk(node: Tls, profile: str = "+py") -> list[object]:
    """Return the options with which DCMTK's programs speak TLS as this node."""
    return ["+tls", node.private_key, node.certificate, "+cf", node.authorities, profile]


def as_options(table: dict[str, str]) -> list[str]:
    return [option for key, value in table.items() for option in ("--set", f"tls.{key}={value}")]


# ---- they to us -----------------------------------------------------------------------------------------------------


@CLEAR_OR_TLS
def test_dcmtk_echoscu_is_answered(reception: Any, run: Any, *, secure: bool) -> None:
    tls = of_dcmtk(reception.hospital.node()) if secure else []
    done = run("echoscu", "-v", *tls, "-aec", "CTRIAGE", "127.0.0.1", reception.port(tls=secure))
    assert (0, True) == (done.returncode, "Received Echo Response (Success)" in done.stdout + done.stderr)


def test_dcmtk_storescu_is_taken_in_clear(reception: Any, run: Any, scan: Any) -> None:
    done = run("storescu", "-aec", "CTRIAGE", "127.0.0.1", reception.service.port, *scan.files)
    assert (0, 3) == (done.returncode, reception.instances_of(scan.study))


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_dcmtk_storescu_is_taken_over_tls_in_each_profile(reception: Any, run: Any, scan: Any, profile: str) -> None:
    tls = of_dcmtk(reception.hospital.node(), profile)
    done = run("storescu", *tls, "-aec", "CTRIAGE", "127.0.0.1", reception.tls_port, *scan.files)
    assert (0, "", 3) == (done.returncode, done.stderr, reception.instances_of(scan.study))


def test_dcmtk_dcmsend_is_taken(reception: Any, run: Any, scan: Any) -> None:
    done = run("dcmsend", "-aec", "CTRIAGE", "127.0.0.1", reception.service.port, *scan.files)
    assert (0, 3) == (done.returncode, reception.instances_of(scan.study))


def test_pynetdicoms_echoscu_and_storescu_are_taken(reception: Any, run: Any, scan: Any) -> None:
    echoed = run("pynetdicom", "echoscu", "-aec", "CTRIAGE", "127.0.0.1", reception.service.port)
    stored = run(
        "pynetdicom", "storescu", "-aec", "CTRIAGE", "127.0.0.1", reception.service.port, scan.files[0].parent, "-cx"
    )
    assert (0, 0, 3) == (echoed.returncode, stored.returncode, reception.instances_of(scan.study))


@CLEAR_OR_TLS
def test_our_own_command_is_taken(
    reception: Any, run: Any, scan: Any, tls_table: Callable[[Tls], dict[str, str]], *, secure: bool
) -> None:
    tls = ["--tls", *as_options(tls_table(reception.hospital.node()))] if secure else []
    to = f"CTRIAGE@127.0.0.1:{reception.port(tls=secure)}"
    done = run("pacs_bridge", "send", scan.files[0].parent, "--to", to, *tls)
    assert (0, f"3 of 3 files sent to {to}\n", 3) == (
        done.returncode,
        done.stdout,
        reception.instances_of(scan.study),
    )


# ---- we to them -----------------------------------------------------------------------------------------------------


def storescp(*options: object) -> list[object]:
    return ["storescp", "-od", "{folder}", *options, "{port}"]


@pytest.mark.parametrize("profile", ["", *PROFILES.values()], ids=["clear", *PROFILES])
def test_dcmtk_storescp_takes_what_we_send(
    reception: Any, run: Any, scan: Any, taker: Any, tls_table: Callable[[Tls], dict[str, str]], profile: str
) -> None:
    node = reception.hospital.node()
    peer = taker(*storescp(*(of_dcmtk(node, profile) if profile else [])))
    tls = ["--tls", *as_options(tls_table(reception.hospital.node()))] if profile else []
    to = f"PACS@127.0.0.1:{peer.port}"
    done = run("pacs_bridge", "send", scan.files[0].parent, "--to", to, *tls)
    assert (0, f"3 of 3 files sent to {to}\n", 3) == (done.returncode, done.stdout, peer.taken())


def test_pynetdicoms_storescp_takes_what_we_send(run: Any, scan: Any, taker: Any) -> None:
    peer = taker(sys.executable, "-m", "pynetdicom", "storescp", "{port}", "-od", "{folder}")
    to = f"PACS@127.0.0.1:{peer.port}"
    done = run("pacs_bridge", "send", scan.files[0].parent, "--to", to)
    assert (0, f"3 of 3 files sent to {to}\n", 3) == (done.returncode, done.stdout, peer.taken())


@pytest.mark.parametrize(
    ("names", "certificate_of", "told"),
    [
        ("other.example", "ours", "IP address mismatch"),
        ("127.0.0.1", "strangers", "self-signed certificate in certificate chain"),
    ],
    ids=["wrong name", "unknown authority"],
)
def test_a_pacs_that_cannot_prove_who_it_is_gets_nothing(
    reception: Any,
    run: Any,
    scan: Any,
    taker: Any,
    tls_table: Callable[[Tls], dict[str, str]],
    tmp_path: Path,
    names: str,
    certificate_of: str,
    told: str,
) -> None:
    hospital = reception.hospital
    strangers = type(hospital)(folder=tmp_path / "strangers")
    node = (hospital if certificate_of == "ours" else strangers).node(names)
    peer = taker(*storescp(*of_dcmtk(node)))
    table = tls_table(hospital.node())
    to = f"PACS@127.0.0.1:{peer.port}"
    done = run("pacs_bridge", "send", scan.files[0], "--to", to, "--tls", *as_options(table))
    assert told in done.stderr
    assert (1, 0) == (done.returncode, peer.taken())


def test_a_command_with_unusable_certificates_says_so_and_sends_nothing(run: Any, scan: Any) -> None:
    done = run("pacs_bridge", "send", scan.files[0], "--to", "PACS@127.0.0.1:104", "--tls")
    assert (2, True) == (done.returncode, "tls.authorities is not set" in done.stderr)
