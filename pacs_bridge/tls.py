"""Who may listen in? Nobody: TLS as DICOM PS3.15 B.12 asks for it (BCP 195: RFC 8996 and 9325), and its certificates.

TLS 1.2 and 1.3, ephemeral elliptic-curve keys and authenticated encryption only; no compression, no renegotiation, no
session tickets. Keys and signatures below 112 bits of security (RSA below 2048, SHA-1) are refused, ours and a peer's.
"""

import select
import socket
import ssl
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from pacs_bridge.errors import BridgeError
from pacs_bridge.settings import Settings, SettingsError, Tls

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from cryptography.x509 import Certificate

WARN_BEFORE: Final = timedelta(days=30)
HANDSHAKE_S: Final = 10.0
LEAST_RSA_BITS: Final = 2048
LEAST_CURVE_BITS: Final = 224
CIPHERS_OF_TLS_1_2: Final = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
)
"""RFC 9325, 4.2, and the ChaCha20 suites for peers without AES in hardware; those of TLS 1.3 are all as good."""


@dataclass(eq=False)
class TlsRefused(BridgeError):
    """A handshake that did not succeed; the reason names no patient and may be logged."""

    reason: str

    def __str__(self) -> str:
        return f"TLS refused: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsProblem:
    """What is wrong with a certificate or key: ``fail`` keeps the service from starting."""

    level: Literal["warn", "fail"]
    detail: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.detail}; {self.remedy}"


# ---- contexts -------------------------------------------------------------------------------------------------------


def server_context(tls: Tls, *, now: datetime) -> ssl.SSLContext:
    """Make what callers are received with: with ``tls.mutual``, who shows no certificate of the authorities is refused.

    A context cannot be sent to another process: make it where it is used. Raises SettingsError.
    """
    _require(tls, now)
    if tls.certificate is None or tls.private_key is None:
        raise SettingsError(("tls.certificate and tls.private_key are not set; callers need them over TLS: set both",))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context)
    context.options |= ssl.OP_NO_TICKET | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 0
    _show_our_certificate(context, tls.certificate, tls.private_key)
    if tls.mutual:
        _trust(context, tls)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(tls: Tls, *, now: datetime) -> ssl.SSLContext:
    """Make what peers are called with; ``server_hostname`` at wrapping is what their certificate must bear.

    A host name or an IP address, in subjectAltName only. Raises SettingsError.
    """
    _require(tls, now)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _harden(context)
    context.hostname_checks_common_name = False
    _trust(context, tls)
    if tls.certificate and tls.private_key:
        _show_our_certificate(context, tls.certificate, tls.private_key)
    return context


def _harden(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # Level 2 of OpenSSL: RSA from 2048 bits, curves from 224, no SHA-1 in signatures (RFC 9325, 4.5).
    context.set_ciphers(":".join(CIPHERS_OF_TLS_1_2) + ":@SECLEVEL=2")


def _show_our_certificate(context: ssl.SSLContext, certificate: Path, private_key: Path) -> None:
    try:
        context.load_cert_chain(certificate, private_key, password=_no_password)
    except (ssl.SSLError, OSError) as refused:
        problem = f"tls.certificate: {certificate}: {refused}; use a PEM file with a certificate of RSA 2048 or P-256"
        raise SettingsError((problem,)) from refused


def _no_password() -> str:
    """Answer OpenSSL, which would ask at the terminal."""
    return ""


def _trust(context: ssl.SSLContext, tls: Tls) -> None:
    if tls.authorities is None:
        raise SettingsError(("tls.authorities is not set: nobody vouches for the peers' certificates; set it",))
    try:
        context.load_verify_locations(tls.authorities)
    except (ssl.SSLError, OSError) as refused:
        problem = f"tls.authorities: {tls.authorities}: {refused}; use a PEM file with the authorities' certificates"
        raise SettingsError((problem,)) from refused


def require_usable(settings: Settings, *, now: datetime) -> list[TlsProblem]:
    """Look into the files of settings that speak TLS anywhere: return warnings. Raises SettingsError."""
    speaks_tls = settings.listener.tls_port or any(destination.tls for destination in settings.destination)
    return _require(settings.tls, now) if speaks_tls else []


def _require(tls: Tls, now: datetime) -> list[TlsProblem]:
    problems = tls_problems(tls, now)
    failures = [str(problem) for problem in problems if problem.level == "fail"]
    if failures:
        raise SettingsError(tuple(failures))
    return problems


# ---- a handshake ----------------------------------------------------------------------------------------------------


def handshake(raw: socket.socket, context: ssl.SSLContext, *, within_s: float = HANDSHAKE_S) -> ssl.SSLSocket:
    """Shake hands with a caller that was accepted, in the thread of its association, never in the accepting one.

    ``within_s`` limits the whole, however slowly bytes drip. The socket returned blocks; where TlsRefused is raised,
    ``raw`` has been closed.
    """
    try:
        raw.settimeout(0)
        wrapped = context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)
    except OSError as gone:
        raw.close()
        raise TlsRefused(explain(gone)) from gone
    try:
        _finish(wrapped, time.monotonic() + within_s)
    except OSError as refused:
        wrapped.close()
        raise TlsRefused(explain(refused)) from refused
    wrapped.settimeout(None)
    return wrapped


def _finish(wrapped: ssl.SSLSocket, deadline: float) -> None:
    waiting = select.poll()
    while True:
        try:
            wrapped.do_handshake()
        except ssl.SSLWantReadError:
            waiting.register(wrapped, select.POLLIN)
        except ssl.SSLWantWriteError:
            waiting.register(wrapped, select.POLLOUT)
        else:
            return
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not waiting.poll(left_s * 1000):
            raise TimeoutError


_SAID: Final = {
    "WRONG_VERSION_NUMBER": "it speaks no TLS: a plain connection to the TLS port, or the other way round",
    "HTTP_REQUEST": "it speaks HTTP",
    "UNSUPPORTED_PROTOCOL": "it offers no TLS 1.2 or newer: update it, or switch TLS 1.2 on there",
    "VERSION_TOO_LOW": "it offers no TLS 1.2 or newer: update it, or switch TLS 1.2 on there",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it accepts no TLS 1.2 or newer: update it, or switch TLS 1.2 on there",
    "NO_SHARED_CIPHER": "it offers no cipher suite of RFC 9325 (ECDHE with AES-GCM): update it, or switch one on there",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it and we have no cipher suite in common, or it asks for a certificate of ours",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it shows no certificate: give it one of an authority in tls.authorities",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it asks for a certificate of ours: set tls.certificate and tls.private_key",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know who vouches for our certificate: give it our authority's certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not accept our certificate: look into its own log",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not accept our certificate: look into its own log",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it finds our certificate expired: renew it, or correct the clock there",
    "EE_KEY_TOO_SMALL": "its key is too small: use RSA 2048 or more, or P-256",
    "CA_KEY_TOO_SMALL": "its authority's key is too small: use RSA 2048 or more, or P-256",
    "CA_MD_TOO_WEAK": "its certificate is signed with SHA-1 or worse: have it signed with SHA-256",
}
_BROKEN_OFF: Final = "it broke off before the end"


def explain(error: OSError) -> str:
    """Say in words why a handshake, or a TLS connection, did not come about; "it" is the peer."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message.lower()}"
    if isinstance(error, ssl.SSLEOFError | ConnectionError):
        return _BROKEN_OFF
    if isinstance(error, TimeoutError):
        return "it did not finish the TLS handshake in time"
    if isinstance(error, ssl.SSLError):
        return _SAID.get(error.reason or "", f"TLS failed: {(error.reason or str(error)).lower().replace('_', ' ')}")
    return (error.strerror or str(error) or _BROKEN_OFF).lower()


# ---- certificates and keys ------------------------------------------------------------------------------------------


def tls_problems(tls: Tls, now: datetime) -> list[TlsProblem]:
    """Look into the files of the settings: what fails, and what will within 30 days; what is not set is no problem."""
    return [*_certificate_problems(tls, now), *_authority_problems(tls, now)]


def _certificate_problems(tls: Tls, now: datetime) -> Iterator[TlsProblem]:
    try:
        chain = _certificates(_Named("tls.certificate", tls.certificate)) if tls.certificate else ()
        key = _private_key(_Named("tls.private_key", tls.private_key)) if tls.private_key else None
    except _Unusable as unusable:
        yield unusable.problem
        return
    if tls.certificate:
        yield from _dates(_Named("tls.certificate", tls.certificate), chain, now)
        yield from _strength(_Named("tls.certificate", tls.certificate), chain[0])
        yield from _names(_Named("tls.certificate", tls.certificate), chain[0])
    if tls.private_key and key:
        yield from _match(_Named("tls.private_key", tls.private_key), key, chain)
        yield from _open_to_others(_Named("tls.private_key", tls.private_key))


def _authority_problems(tls: Tls, now: datetime) -> Iterator[TlsProblem]:
    if not tls.authorities:
        return
    try:
        authorities = _certificates(_Named("tls.authorities", tls.authorities))
    except _Unusable as unusable:
        yield unusable.problem
        return
    dated = list(_dates(_Named("tls.authorities", tls.authorities), authorities, now))
    # One authority that has expired beside others that have not is a leftover of a change, no reason to stand still.
    still_good = len(authorities) > sum(problem.level == "fail" for problem in dated)
    yield from (TlsProblem(level="warn" if still_good else p.level, detail=p.detail, remedy=p.remedy) for p in dated)


@dataclass(frozen=True, slots=True)
class _Named:
    """A file of the settings, under the key that names it."""

    key: str
    path: Path

    def problem(self, what: str, remedy: str, *, level: Literal["warn", "fail"] = "fail") -> TlsProblem:
        return TlsProblem(level=level, detail=f"{self.key}: {self.path}: {what}", remedy=remedy)


@dataclass(eq=False)
class _Unusable(Exception):
    problem: TlsProblem


def _read(file: _Named) -> bytes:
    try:
        return file.path.read_bytes()
    except FileNotFoundError:
        problem = file.problem("there is no such file", f"put it there, or correct {file.key}")
    except PermissionError:
        problem = file.problem("may not be read by this user", "let the user who runs ctriage read it")
    except OSError as unreadable:
        problem = file.problem(f"cannot be read: {unreadable.strerror}", f"correct {file.key}")
    raise _Unusable(problem)


def _certificates(file: _Named) -> Sequence["Certificate"]:
    from cryptography.x509 import load_pem_x509_certificates

    content = _read(file)
    try:
        return load_pem_x509_certificates(content)
    except ValueError as wrong:
        remedy = (
            f'convert it (openssl x509 -inform der -in FILE), or correct {file.key}: it begins "-----BEGIN CERT..."'
        )
        raise _Unusable(file.problem("holds no certificate in PEM", remedy)) from wrong


def _private_key(file: _Named) -> "PrivateKeyTypes":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _read(file)
    try:
        return load_pem_private_key(content, password=None)
    except TypeError as encrypted:
        remedy = "decrypt it (openssl pkey -in FILE -out NEW), and let only the user who runs ctriage read it"
        raise _Unusable(file.problem("is encrypted, and nobody is there to type a password", remedy)) from encrypted
    except (ValueError, UnsupportedAlgorithm) as wrong:
        remedy = f'convert it (openssl pkey -in FILE), or correct {file.key}: it begins "-----BEGIN PRIVATE KEY-----"'
        raise _Unusable(file.problem("holds no private key in PEM", remedy)) from wrong


def _dates(file: _Named, certificates: Sequence["Certificate"], now: datetime) -> Iterator[TlsProblem]:
    for each in certificates:
        whose = each.subject.rfc4514_string() or "a certificate without a subject"
        until = each.not_valid_after_utc
        if until <= now:
            yield file.problem(f"{whose} expired on {until:%Y-%m-%d}", "renew it, or correct this machine's clock")
        elif each.not_valid_before_utc > now:
            begins = f"{whose} is not valid before {each.not_valid_before_utc:%Y-%m-%d}"
            yield file.problem(begins, "correct this machine's clock, or have it issued anew")
        elif until - now < WARN_BEFORE:
            expires = f"{whose} expires on {until:%Y-%m-%d}, in {(until - now).days} days"
            yield file.problem(expires, "renew it, and restart the service", level="warn")


def _strength(file: _Named, certificate: "Certificate") -> Iterator[TlsProblem]:
    """Hold a certificate to RFC 9325, 4.5, as OpenSSL does at its level 2."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    key, signed_with = certificate.public_key(), certificate.signature_hash_algorithm
    least = LEAST_RSA_BITS if isinstance(key, RSAPublicKey) else LEAST_CURVE_BITS
    if isinstance(key, RSAPublicKey | EllipticCurvePublicKey) and key.key_size < least:
        yield file.problem(f"its key has {key.key_size} bits only", "have it issued for RSA 2048 or more, or P-256")
    if signed_with is not None and signed_with.name in ("md5", "sha1"):
        yield file.problem(f"it is signed with {signed_with.name.upper()}", "have it signed with SHA-256 or better")


def _names(file: _Named, certificate: "Certificate") -> Iterator[TlsProblem]:
    from cryptography.x509 import ExtensionNotFound, SubjectAlternativeName

    try:
        certificate.extensions.get_extension_for_class(SubjectAlternativeName)
    except ExtensionNotFound:
        remedy = "have it issued with the host name and address in subjectAltName: senders that check will refuse it"
        yield file.problem("names no host (subjectAltName)", remedy, level="warn")
    except ValueError:
        yield file.problem("cannot be understood beyond its dates", "have it issued anew", level="warn")


def _match(file: _Named, key: "PrivateKeyTypes", chain: Sequence["Certificate"]) -> Iterator[TlsProblem]:
    if chain and chain[0].public_key() != key.public_key():
        remedy = "name the key that the certificate was issued for; our own certificate stands first in tls.certificate"
        yield file.problem("is not the key of tls.certificate", remedy)


def _open_to_others(file: _Named) -> Iterator[TlsProblem]:
    if file.path.stat().st_mode & (stat.S_IRWXO):
        yield file.problem("may be read by everybody on this machine", f"chmod o= {file.path}", level="warn")
