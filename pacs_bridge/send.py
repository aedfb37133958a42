"""How do DICOM files reach a peer, as the bytes they are: C-STORE as SCU.

Every pair of SOP class and transfer syntax is proposed by itself, so that nothing has to be decoded or converted.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydicom.uid import UID
from pynetdicom import AE, _config, build_context

from pacs_bridge.errors import CannotUnderstand
from pacs_bridge.part10 import DicomFile, read_file
from pacs_bridge.transport import SOCKET_HANDLERS
from scheduler.errors import Permanent, Transient

MOST_CONTEXTS: Final = 128
"""PS3.8, 9.3.2.2: presentation context IDs are the odd numbers of one byte."""
CONNECTION_TIMEOUT_S: Final = 10.0
ACSE_TIMEOUT_S: Final = 30.0
RESPONSE_TIMEOUT_S: Final = 120.0

_HELD_ALREADY: Final = 0x0111
_MAY_PASS: Final = (0x0110, 0x0213)  # processing failure, resource limitation (PS3.7, C.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Whom to send to."""

    ae_title: str
    host: str
    port: int

    def __str__(self) -> str:
        """Write it as people do."""
        return f"{self.ae_title}@{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SendFailure:
    """A file that did not arrive, and whether trying again may help."""

    path: Path
    problem: Transient | Permanent


@dataclass(frozen=True, slots=True, kw_only=True)
class SendResult:
    """What arrived (the peer said so) and what did not, each in the order given within its association."""

    sent: tuple[Path, ...] = ()
    failures: tuple[SendFailure, ...] = ()

    def raise_failure(self) -> None:
        """Raise the most hopeful problem: Transient if trying again helps any file, else Permanent, if any failed."""
        hopeful_first = sorted((each.problem for each in self.failures), key=lambda each: isinstance(each, Permanent))
        for problem in hopeful_first:
            others = f" (and {len(self.failures) - 1} more)" if len(self.failures) > 1 else ""
            raise type(problem)(problem.reason + others)


def send_files(
    paths: Sequence[Path],
    peer: Peer,
    *,
    calling_ae: str,
    progress: Callable[[Path], None] = lambda _: None,
) -> SendResult:
    """Send Part-10 files as they are; whatever goes wrong with the peer or a file is in the result.

    ``progress`` is called after each file, arrived or not.
    """
    sending = _Sending(peer=peer, calling_ae=calling_ae, progress=progress)
    files = [file for path in paths if (file := sending.read(path))]
    for batch in _batches(files):
        sending.send(batch)
    return SendResult(sent=tuple(sending.sent), failures=tuple(sending.failures))


def echo(peer: Peer, *, calling_ae: str) -> None:
    """Ask a peer whether it hears us (C-ECHO). Raises Transient or Permanent when it does not."""
    with _associated(peer, calling_ae, [("1.2.840.10008.1.1", "1.2.840.10008.1.2")]) as association:
        status = association.send_c_echo().get("Status")
    if status != 0:
        raise Transient(f"{peer} did not answer C-ECHO")


@dataclass(slots=True, kw_only=True)
class _Sending:
    """One call of `send_files` under way."""

    peer: Peer
    calling_ae: str
    progress: Callable[[Path], None]
    sent: list[Path] = field(default_factory=list)
    failures: list[SendFailure] = field(default_factory=list)

    def read(self, path: Path) -> DicomFile | None:
        try:
            return read_file(path)
        except CannotUnderstand as unreadable:
            self._fail(path, Permanent(str(unreadable)))
        except OSError as unreadable:
            self._fail(path, Permanent(f"a file cannot be read: {unreadable.strerror}"))
        return None

    def send(self, files: Sequence[DicomFile]) -> None:
        waiting = iter(files)
        try:
            with _associated(self.peer, self.calling_ae, list(dict.fromkeys(map(_context, files)))) as association:
                for file in waiting:
                    self._send_one(association, file)
        except (Transient, Permanent) as problem:
            done = {*self.sent, *(failure.path for failure in self.failures)}
            for file in files:
                if file.path not in done:
                    self._fail(file.path, problem)

    def _send_one(self, association: Any, file: DicomFile) -> None:
        if not association.is_established:
            raise Transient(f"{self.peer} broke the association off")
        try:
            status = association.send_c_store(file.path).get("Status")
        except ValueError:
            self._fail(file.path, Permanent(_refused(self.peer, [_context(file)])))
            return
        if status is None:
            raise Transient(f"{self.peer} did not answer within {RESPONSE_TIMEOUT_S:.0f} s, or broke off")
        problem = _problem(status, self.peer)
        if problem:
            self._fail(file.path, problem)
        else:
            self.sent.append(file.path)
            self.progress(file.path)

    def _fail(self, path: Path, problem: Transient | Permanent) -> None:
        self.failures.append(SendFailure(path=path, problem=problem))
        self.progress(path)


_Context = tuple[str, str]


def _context(file: DicomFile) -> _Context:
    return file.sop_class_uid, file.transfer_syntax


def _batches(files: Sequence[DicomFile]) -> Iterator[list[DicomFile]]:
    """Part the files so that each association stays within the number of contexts; most need just one."""
    contexts = list(dict.fromkeys(map(_context, files)))
    for start in range(0, len(contexts), MOST_CONTEXTS):
        chosen = set(contexts[start : start + MOST_CONTEXTS])
        yield [file for file in files if _context(file) in chosen]


@contextmanager
def _associated(peer: Peer, calling_ae: str, contexts: Sequence[_Context]) -> Iterator[Any]:
    """Open an association and release it at the end. Raises Transient or Permanent when there is none to be had."""
    _config.STORE_SEND_CHUNKED_DATASET = True  # process-wide: a path is sent as the bytes that lie there
    association = _entity(calling_ae).associate(
        peer.host,
        peer.port,
        contexts=[build_context(sop_class, syntax) for sop_class, syntax in contexts],
        ae_title=peer.ae_title,
        evt_handlers=SOCKET_HANDLERS,
    )
    if not association.is_established:
        raise _why_not(association, peer, contexts)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def _entity(calling_ae: str) -> Any:
    entity = AE(ae_title=calling_ae)
    entity.connection_timeout = CONNECTION_TIMEOUT_S
    entity.acse_timeout = ACSE_TIMEOUT_S
    entity.dimse_timeout = RESPONSE_TIMEOUT_S
    entity.network_timeout = RESPONSE_TIMEOUT_S
    return entity


def _why_not(association: Any, peer: Peer, contexts: Sequence[_Context]) -> Transient | Permanent:
    answer = association.acceptor.primitive
    if association.is_rejected:
        # Transient even where the peer says "permanent": so it answers until somebody has entered our AE title there.
        why = "for now" if answer is None else answer.reason_str
        return Transient(f"{peer} rejected us ({why}): enter our AE title and address there, or correct its own here")
    if association.rejected_contexts and not association.accepted_contexts:
        return Permanent(_refused(peer, contexts))
    return Transient(f"no association with {peer}: nobody listens there, or it does not answer; check host and port")


def _refused(peer: Peer, contexts: Sequence[_Context]) -> str:
    named = "; ".join(f"{UID(sop_class).name} in {UID(syntax).name}" for sop_class, syntax in contexts)
    return f"{peer} does not take {named}: let it accept these, or do not send them there"


def _problem(status: int, peer: Peer) -> Transient | Permanent | None:
    """Sort a C-STORE status (PS3.4, B.2.3); warnings mean stored, and so does a duplicate."""
    if status in (0, _HELD_ALREADY) or status >> 12 == 0xB:
        return None
    said = f"{peer} answered 0x{status:04X}"
    if status >> 8 == 0xA7:
        return Transient(f"{said}: it is out of resources")
    if status in _MAY_PASS:
        return Transient(f"{said}: it could not process the instance")
    return Permanent(f"{said}: it refuses the instance")
