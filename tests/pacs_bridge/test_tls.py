"""TLS: who gets through, who does not and is told why, and what is said about files that cannot be used."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509 import CertificateBuilder, DNSName, Name, NameAttribute, SubjectAlternativeName
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from pacs_bridge.settings import Listener, Settings, SettingsError, Tls
from pacs_bridge.tls import TlsRefused, client_context, explain, handshake, require_usable, server_context, tls_problems
from pacs_bridge.tls_testing import Hospital

NOW = datetime.now(UTC)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def hospital(authority: trustme.CA, tmp_path: Path) -> Hospital:
    return Hospital(authority=authority, folder=tmp_path / "nodes")


@pytest.fixture(scope="session")
def server(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """Return one server's context for many handshakes."""
    hospital = Hospital(authority=authority, folder=tmp_path_factory.mktemp("nodes"))
    return server_context(hospital.node(), now=NOW)


Accept = Callable[[ssl.SSLContext], tuple[socket.socket, Future[ssl.SSLSocket]]]


@pytest.fixture
def accept() -> Iterator[Accept]:
    """Return what accepts one caller with a context in a thread: the caller's end, and the handshake's outcome."""
    opened: list[socket.socket] = []
    with ThreadPoolExecutor() as threads:

        def accepted(context: ssl.SSLContext) -> tuple[socket.socket, Future[ssl.SSLSocket]]:
            ours, theirs = socket.socketpair()
            theirs.settimeout(10)
            opened.append(theirs)
            return theirs, threads.submit(handshake, ours, context, within_s=1.0)

        yield accepted
        for each in opened:
            each.close()


def test_two_nodes_of_one_authority_understand_each_other(hospital: Hospital, accept: Accept) -> None:
    raw, ours = accept(server_context(hospital.node(), now=NOW))
    client = client_context(hospital.node("scanner.example"), now=NOW)
    with client.wrap_socket(raw, server_hostname="127.0.0.1") as theirs, ours.result() as received:
        theirs.sendall(b"A-ASSOCIATE-RQ")
        assert b"A-ASSOCIATE-RQ" == received.recv(100)
        assert "TLSv1.3" == received.version()


def test_tls_1_2_is_spoken_with_a_suite_of_the_profile_and_without_tickets(hospital: Hospital, accept: Accept) -> None:
    raw, ours = accept(server_context(hospital.node(), now=NOW))
    client = client_context(hospital.node(), now=NOW)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    with client.wrap_socket(raw, server_hostname="127.0.0.1") as theirs, ours.result():
        cipher = theirs.cipher()
        assert cipher is not None
        assert ("TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256") == (theirs.version(), cipher[0])
        assert theirs.compression() is None
        assert theirs.session is None or not theirs.session.has_ticket


def test_without_mutual_a_caller_needs_no_certificate(hospital: Hospital, accept: Accept) -> None:
    lenient = hospital.node().model_copy(update={"mutual": False})
    raw, ours = accept(server_context(lenient, now=NOW))
    client = client_context(Tls(authorities=lenient.authorities), now=NOW)
    with client.wrap_socket(raw, server_hostname="127.0.0.1"), ours.result() as received:
        assert received.getpeercert() is None


def refused(
    theirs: socket.socket, client: ssl.SSLContext, ours: Future[ssl.SSLSocket], *, name: str = "127.0.0.1"
) -> str:
    """Shake hands from the caller's end, in vain; return what our end says."""
    try:
        with client.wrap_socket(theirs, server_hostname=name) as wrapped:
            wrapped.recv(1)
    except OSError:
        pass
    finally:
        theirs.close()
    with pytest.raises(TlsRefused) as told:
        ours.result()
    return str(told.value)


def test_a_caller_without_a_certificate_is_told_apart(hospital: Hospital, accept: Accept) -> None:
    raw, ours = accept(server_context(hospital.node(), now=NOW))
    nobody = client_context(Tls(authorities=hospital.node().authorities), now=NOW)
    assert "it shows no certificate" in refused(raw, nobody, ours)


def test_a_caller_of_another_authority_is_told_apart(hospital: Hospital, accept: Accept) -> None:
    raw, ours = accept(server_context(hospital.node(), now=NOW))
    stranger = client_context(hospital.node(authority=trustme.CA()), now=NOW)
    assert "its certificate is not accepted: unable to get local issuer" in refused(raw, stranger, ours)


def test_a_caller_whose_certificate_has_expired_is_told_apart(hospital: Hospital, accept: Accept) -> None:
    raw, ours = accept(server_context(hospital.node(), now=NOW))
    late = hospital.node(until=NOW - timedelta(days=1))
    client = client_context(late, now=NOW - timedelta(days=2))
    assert "TLS refused: its certificate is not accepted: certificate has expired" == refused(raw, client, ours)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
def test_a_caller_with_tls_1_1_at_most_is_refused(hospital: Hospital, accept: Accept) -> None:
    raw, ours = accept(server_context(hospital.node(), now=NOW))
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    assert "it offers no TLS 1.2 or newer" in refused(raw, old, ours)


def test_a_caller_with_cbc_suites_only_is_refused(hospital: Hospital, accept: Accept) -> None:
    raw, ours = accept(server_context(hospital.node(), now=NOW))
    weak = client_context(hospital.node(), now=NOW)
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    weak.set_ciphers("ECDHE-ECDSA-AES128-SHA256:AES128-SHA")
    assert "it offers no cipher suite of RFC 9325" in refused(raw, weak, ours)


def test_a_plain_caller_is_told_that_this_is_tls(hospital: Hospital, accept: Accept) -> None:
    raw, ours = accept(server_context(hospital.node(), now=NOW))
    raw.sendall(bytes.fromhex("0100000000cd00010000") + b"CTRIAGE         SCANNER         " + bytes(160))
    with pytest.raises(TlsRefused, match="it speaks no TLS"):
        ours.result()


def test_a_caller_that_says_nothing_and_one_that_drips_are_given_up_in_time(hospital: Hospital, accept: Accept) -> None:
    context = server_context(hospital.node(), now=NOW)
    silent, of_silent = accept(context)
    dripping, of_dripping = accept(context)
    hello = ssl.MemoryBIO()
    caller = client_context(hospital.node(), now=NOW).wrap_bio(ssl.MemoryBIO(), hello, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        caller.do_handshake()
    over = threading.Event()
    of_dripping.add_done_callback(lambda _: over.set())
    for byte in hello.read():
        if over.wait(0.02):
            break
        dripping.sendall(bytes([byte]))
    for outcome in (of_silent, of_dripping):
        with pytest.raises(TlsRefused, match="did not finish the TLS handshake in time"):
            outcome.result(timeout=5)
    assert b"" == silent.recv(1)


@given(garbage=st.binary(max_size=600) | st.binary(max_size=300).map(b"\x16\x03\x01\x01\x2c".__add__))
@settings(max_examples=300, deadline=1000)
def test_whatever_a_caller_sends_ends_in_a_refusal(server: ssl.SSLContext, garbage: bytes) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(garbage)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(TlsRefused, match=r"^TLS refused: \w"):
            handshake(ours, server, within_s=5)
        assert -1 == ours.fileno()


def test_a_caller_that_hangs_up_is_no_mystery(hospital: Hospital, accept: Accept) -> None:
    raw, ours = accept(server_context(hospital.node(), now=NOW))
    raw.close()
    with pytest.raises(TlsRefused, match="broke off"):
        ours.result()


def test_a_peer_under_another_name_is_not_taken_for_ours(hospital: Hospital, accept: Accept) -> None:
    raw, _ = accept(server_context(hospital.node("other.example"), now=NOW))
    with (
        raw,
        pytest.raises(ssl.SSLCertVerificationError) as told,
        client_context(hospital.node(), now=NOW).wrap_socket(raw, server_hostname="pacs.example"),
    ):
        pass
    assert (
        "its certificate is not accepted: hostname mismatch, certificate is not valid for 'pacs.example'."
        == explain(told.value)
    )


# ---- files ----------------------------------------------------------------------------------------------------------


def problem_of(tls: Tls, *, now: datetime = NOW) -> tuple[str, str]:
    """Return level and text of the one problem there is."""
    (found,) = tls_problems(tls, now)
    return found.level, str(found)


def test_good_files_are_no_problem_and_none_are_not_either(hospital: Hospital) -> None:
    assert [] == tls_problems(hospital.node(), NOW)
    assert [] == tls_problems(Tls(), NOW)


@pytest.mark.parametrize("key", ["certificate", "private_key", "authorities"])
def test_a_missing_file_is_named_with_its_key(hospital: Hospital, key: str) -> None:
    tls = hospital.node().model_copy(update={key: hospital.folder.parent / "gone.pem"})
    level, said = problem_of(tls)
    assert ("fail", True) == (level, f"tls.{key}: {hospital.folder.parent}/gone.pem: there is no such file" in said)
    with pytest.raises(SettingsError, match=r"gone\.pem"):
        server_context(tls, now=NOW)
    with pytest.raises(SettingsError, match=r"gone\.pem"):
        client_context(tls, now=NOW)


@pytest.mark.parametrize("key", ["certificate", "private_key", "authorities"])
def test_a_file_that_is_not_pem_is_told_with_the_command_that_converts_it(hospital: Hospital, key: str) -> None:
    (hospital.folder.parent / "der").write_bytes(bytes.fromhex("30820122300d0609"))
    level, said = problem_of(hospital.node().model_copy(update={key: hospital.folder.parent / "der"}))
    assert ("fail", True, True) == (level, "in PEM" in said, "openssl" in said)


def test_a_folder_is_no_file(hospital: Hospital) -> None:
    assert "cannot be read: Is a directory" in problem_of(Tls(authorities=hospital.folder.parent))[1]


def test_the_key_of_another_certificate_is_told(hospital: Hospital) -> None:
    tls = hospital.node().model_copy(update={"private_key": hospital.node().private_key})
    assert "is not the key of tls.certificate" in problem_of(tls)[1]
    with pytest.raises(SettingsError, match="is not the key"):
        server_context(tls, now=NOW)


def test_an_encrypted_key_is_told_and_nobody_is_asked_for_a_password(hospital: Hospital) -> None:
    tls = hospital.node()
    assert tls.private_key is not None
    key = load_pem_private_key(tls.private_key.read_bytes(), password=None)
    encryption = BestAvailableEncryption(b"secret")
    tls.private_key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    assert "is encrypted" in problem_of(tls)[1]


def test_an_expired_certificate_fails_and_one_that_soon_will_is_a_warning(hospital: Hospital) -> None:
    tls = hospital.node(until=NOW + timedelta(days=20, hours=1))
    assert ("warn", True) == (problem_of(tls)[0], "in 20 days; renew it" in problem_of(tls)[1])
    assert [] == tls_problems(tls, NOW - timedelta(days=11))
    level, said = problem_of(tls, now=NOW + timedelta(days=21))
    assert ("fail", True) == (level, "expired on" in said)
    with pytest.raises(SettingsError, match="expired on"):
        server_context(tls, now=NOW + timedelta(days=21))
    server_context(tls, now=NOW)


def test_a_certificate_of_the_future_points_to_the_clock(hospital: Hospital) -> None:
    tls = Tls(certificate=hospital.node().certificate)
    assert "correct this machine's clock" in problem_of(tls, now=datetime(1999, 1, 1, tzinfo=UTC))[1]


def test_one_expired_authority_beside_a_good_one_is_a_warning(hospital: Hospital, tmp_path: Path) -> None:
    good, old = hospital.node(until=NOW + timedelta(days=365)), hospital.node(until=NOW - timedelta(days=1))
    assert good.certificate is not None
    assert old.certificate is not None
    both = tmp_path / "both.pem"
    both.write_bytes(good.certificate.read_bytes() + old.certificate.read_bytes())
    assert "warn" == problem_of(Tls(authorities=both))[0]
    assert "fail" == problem_of(Tls(authorities=old.certificate))[0]


def test_a_key_that_everybody_may_read_is_a_warning(hospital: Hospital) -> None:
    tls = hospital.node()
    assert tls.private_key is not None
    tls.private_key.chmod(0o644)
    assert ("warn", True) == (problem_of(tls)[0], f"chmod o= {tls.private_key}" in problem_of(tls)[1])


def issued_for(key: rsa.RSAPrivateKey, folder: Path) -> Tls:
    """Return a node whose self-signed certificate holds ``key``."""
    name = Name([NameAttribute(NameOID.COMMON_NAME, "scanner")])
    certificate = (
        CertificateBuilder(name, name, key.public_key(), 1, NOW - timedelta(days=1), NOW + timedelta(days=365))
        .add_extension(SubjectAlternativeName([DNSName("scanner")]), critical=False)
        .sign(key, SHA256())
    )
    (folder / "rsa.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / "rsa.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "rsa.key").chmod(0o600)
    return Tls(certificate=folder / "rsa.pem", private_key=folder / "rsa.key", authorities=folder / "rsa.pem")


def test_rsa_below_2048_bits_is_refused_ours_and_a_peers(hospital: Hospital, accept: Accept, tmp_path: Path) -> None:
    weak = issued_for(rsa.generate_private_key(65537, 1024), tmp_path)
    assert ("fail", True) == (problem_of(weak)[0], "its key has 1024 bits only" in problem_of(weak)[1])
    with pytest.raises(SettingsError, match="1024 bits only"):
        server_context(weak, now=NOW)
    trusting = hospital.node().model_copy(update={"authorities": weak.authorities})
    raw, ours = accept(server_context(trusting, now=NOW))
    peer = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    peer.check_hostname, peer.verify_mode = False, ssl.CERT_NONE
    peer.set_ciphers("DEFAULT:@SECLEVEL=0")
    assert weak.certificate is not None
    peer.load_cert_chain(weak.certificate, weak.private_key)
    assert "key too" in refused(raw, peer, ours)


def test_what_is_not_used_is_not_in_the_way_and_what_soon_will_be_wrong_is_returned(hospital: Hospital) -> None:
    gone = Tls(certificate=Path("/gone"), private_key=Path("/gone"), authorities=Path("/gone"))
    assert [] == require_usable(Settings(tls=gone), now=NOW)
    with pytest.raises(SettingsError, match="no such file"):
        require_usable(Settings(tls=gone, listener=Listener(tls_port=2762)), now=NOW)
    late = Settings(tls=hospital.node(until=NOW + timedelta(days=9)), listener=Listener(tls_port=2762))
    assert ["warn"] == [each.level for each in require_usable(late, now=NOW)]


def test_a_server_without_a_certificate_is_a_mistake_of_the_settings(hospital: Hospital) -> None:
    with pytest.raises(SettingsError, match="set both"):
        server_context(Tls(authorities=hospital.node().authorities), now=NOW)
    with pytest.raises(SettingsError, match=r"tls\.authorities is not set"):
        client_context(Tls(), now=NOW)
