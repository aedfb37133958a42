"""How do DICOM files reach a peer, as the bytes they are: C-STORE as SCU.

Every pair of SOP class and transfer syntax is proposed by itself, so that nothing has to be decoded or converted; what
a peer does not take as it is may be transcoded where the sender offers that.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pacs_bridge.errors import CannotUnderstand
from pacs_bridge.part10 import DicomFile
from pacs_bridge.sending.association import MOST_CONTEXTS, Context, accepted, associated, borrowed, refused
from pacs_bridge.sending.errors import BrokenOff, TooSlow, Unreadable
from pacs_bridge.sending.pdu import Malformed
from pacs_bridge.sending.peer import Peer as Peer
from pacs_bridge.sending.peer import TimeLimits as TimeLimits
from pacs_bridge.sending.quick_meta import read_file_meta
from pacs_bridge.sending.source import FileSource, Source
from pacs_bridge.sending.store import Carrier, Loaded
from scheduler.errors import Broke, Permanent, Transient

EXPLICIT_LE: Final = "1.2.840.10008.1.2.1"
IMPLICIT_LE: Final = "1.2.840.10008.1.2"

_VERIFICATION: Final = ("1.2.840.10008.1.1", IMPLICIT_LE)
_HELD_ALREADY: Final = 0x0111
_MAY_PASS: Final = (0x0110, 0x0213)  # processing failure, resource limitation (PS3.7, C.5)
_LONGEST_UID: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class SendOptions:
    """How to send, where it is not simply the bytes as they are and as fast as they go.

    ``transcode(path, transfer_syntax)`` opens the data set of a file (without file meta information) in Explicit or
    Implicit VR Little Endian, or None where it cannot; both syntaxes are then proposed besides the file's own, and it
    is asked only where the peer does not take that. It may raise Transient or Permanent. ``throttle`` is called before
    each object with the number of bytes of its data set, and returns when they may go.
    """

    transcode: Callable[[Path, str], Source | None] | None = None
    throttle: Callable[[int], None] = lambda _: None
    limits: TimeLimits = field(default_factory=TimeLimits)


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
        """Raise the most hopeful problem: Transient if trying again helps any file, else Permanent, if any failed.

        What the peer did comes before what this machine did (Broke), which says nothing about the peer.
        """
        problems = (each.problem for each in self.failures)
        for problem in sorted(problems, key=lambda each: (isinstance(each, Permanent), isinstance(each, Broke))):
            others = f" ({len(self.failures)} objects did not arrive)" if len(self.failures) > 1 else ""
            raise type(problem)(problem.reason + others)


_Ready = Loaded | Transient | Permanent


def send_files(
    paths: Sequence[Path],
    peer: Peer,
    *,
    calling_ae: str,
    progress: Callable[[Path], None] = lambda _: None,
    options: SendOptions = SendOptions(),
) -> SendResult:
    """Send Part-10 files as they are; whatever goes wrong with the peer or a file is in the result.

    ``progress`` is called after each file, arrived or not.
    """
    sending = _Sending(peer=peer, calling_ae=calling_ae, progress=progress, options=options)
    files = [file for path in paths if (file := sending.read(path))]
    for batch in _batches(files, sending.offered):
        sending.send(batch)
    return SendResult(sent=tuple(sending.sent), failures=tuple(sending.failures))


def echo(peer: Peer, *, calling_ae: str) -> None:
    """Ask a peer whether it hears us (C-ECHO). Raises Transient or Permanent when it does not."""
    with associated(peer, calling_ae, [_VERIFICATION], TimeLimits()) as association:
        status = association.send_c_echo().get("Status")
    if status != 0:
        raise Transient(f"{peer} did not answer C-ECHO")


@dataclass(slots=True, kw_only=True)
class _Sending:
    """One call of `send_files` under way."""

    peer: Peer
    calling_ae: str
    progress: Callable[[Path], None]
    options: SendOptions
    sent: list[Path] = field(default_factory=list)
    failures: list[SendFailure] = field(default_factory=list)

    def read(self, path: Path) -> DicomFile | None:
        try:
            file = read_file_meta(path)
            _check_uids(file)
        except CannotUnderstand as unreadable:
            self._fail(path, Permanent(str(unreadable)))
        except OSError as unreadable:
            self._fail(path, unreadable_file(unreadable))
        else:
            return file
        return None

    def offered(self, file: DicomFile) -> list[Context]:
        """Return what is proposed for a file, its own transfer syntax first."""
        others = (EXPLICIT_LE, IMPLICIT_LE) if self.options.transcode else ()
        return [(file.sop_class_uid, syntax) for syntax in dict.fromkeys((file.transfer_syntax, *others))]

    def send(self, files: Sequence[DicomFile]) -> None:
        """Send over one association; the rest over another where a file cannot be read to its end."""
        while files:
            files = self._send_until_a_file_breaks(files)

    def _send_until_a_file_breaks(self, files: Sequence[DicomFile]) -> Sequence[DicomFile]:
        done = len(self.sent) + len(self.failures)
        try:
            self._send_over_one(files)
        except Unreadable as broken:
            rest = files[len(self.sent) + len(self.failures) - done :]
            self._fail(rest[0].path, _told(broken))
            return rest[1:]
        except (BrokenOff, TooSlow) as ended:
            self._fail_rest(files, done, Transient(f"{self.peer} {ended}"))
        except Malformed as wrong:
            self._fail_rest(files, done, Transient(f"{self.peer} sent {wrong}"))
        except (Transient, Permanent) as problem:
            self._fail_rest(files, done, problem)
        return ()

    def _send_over_one(self, files: Sequence[DicomFile]) -> None:
        contexts = list(dict.fromkeys(context for file in files for context in self.offered(file)))
        limits = self.options.limits
        with (
            associated(self.peer, self.calling_ae, contexts, limits) as association,
            borrowed(association, limits) as wire,
            Carrier(wire, association.acceptor.maximum_length or 0, limits) as carrier,
        ):
            self._carry(files, carrier, accepted(association))

    def _carry(self, files: Sequence[DicomFile], carrier: Carrier, contexts: dict[Context, int]) -> None:
        """Send one after the other; while the peer works on one, the next is made ready."""
        ready: _Ready | None = self._load(files[0], carrier, contexts)
        for file, following in zip(files, [*files[1:], None], strict=True):
            if isinstance(ready, Loaded):
                self.options.throttle(ready.size)
                carrier.send(ready)
            upcoming = self._load(following, carrier, contexts) if following else None
            problem = _problem(carrier.status(ready), self.peer) if isinstance(ready, Loaded) else ready
            self._settle(file.path, problem)
            ready = upcoming

    def _load(self, file: DicomFile, carrier: Carrier, contexts: dict[Context, int]) -> _Ready:
        try:
            context = self._chosen(file, contexts)
            source = self._source(file, context[1])
            return carrier.load(file.sop_class_uid, file.sop_instance_uid, contexts[context], source)
        except (Transient, Permanent) as problem:
            return problem
        except Unreadable as unreadable:
            return _told(unreadable)

    def _chosen(self, file: DicomFile, contexts: dict[Context, int]) -> Context:
        offered = self.offered(file)
        for context in offered:
            if context in contexts:
                return context
        raise Permanent(refused(self.peer, offered[:1]))

    def _source(self, file: DicomFile, transfer_syntax: str) -> Source:
        if transfer_syntax == file.transfer_syntax:
            try:
                return FileSource(file.path, file.offset)
            except OSError as unreadable:
                raise unreadable_file(unreadable) from unreadable
        source = self.options.transcode(file.path, transfer_syntax) if self.options.transcode else None
        if source is None:
            raise Permanent(refused(self.peer, [(file.sop_class_uid, file.transfer_syntax)]))
        return source

    def _settle(self, path: Path, problem: Transient | Permanent | None) -> None:
        if problem:
            self._fail(path, problem)
        else:
            self.sent.append(path)
            self.progress(path)

    def _fail(self, path: Path, problem: Transient | Permanent) -> None:
        self.failures.append(SendFailure(path=path, problem=problem))
        self.progress(path)

    def _fail_rest(self, files: Sequence[DicomFile], done_before: int, problem: Transient | Permanent) -> None:
        for file in files[len(self.sent) + len(self.failures) - done_before :]:
            self._fail(file.path, problem)


def unreadable_file(problem: OSError) -> Broke | Permanent:
    """Sort what keeps a file from being read: one that is gone stays so, but a machine's trouble passes.

    It is no fault of the peer's, whose other objects need not wait for it.
    """
    said = f"a file cannot be read: {problem.strerror}"
    return Permanent(said) if isinstance(problem, FileNotFoundError) else Broke(said)


def _told(unreadable: Unreadable) -> Broke | Permanent:
    by_system = isinstance(unreadable.__cause__, OSError)
    return Broke(str(unreadable)) if by_system else Permanent(str(unreadable))


def _check_uids(file: DicomFile) -> None:
    for uid in (file.sop_class_uid, file.sop_instance_uid):
        if not uid.isascii() or not 0 < len(uid) <= _LONGEST_UID:
            raise CannotUnderstand("its file meta information names no SOP class or instance")


def _batches(
    files: Sequence[DicomFile], offered: Callable[[DicomFile], Sequence[Context]]
) -> Iterator[list[DicomFile]]:
    """Part the files so that each association stays within the number of contexts; most need just one."""
    batch_of: dict[Context, int] = {}
    batch, contexts = 0, set[Context]()
    for file in files:
        own, *others = offered(file)
        if own in batch_of:
            continue
        if len(contexts | {own, *others}) > MOST_CONTEXTS:
            batch, contexts = batch + 1, set()
        contexts |= {own, *others}
        batch_of[own] = batch
    for number in range(batch + 1 if files else 0):
        yield [file for file in files if batch_of[offered(file)[0]] == number]


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
