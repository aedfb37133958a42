"""Where are audit records kept, and do they survive a power cut? One file a month, appended to, never rewritten."""

import fcntl
import hashlib
import os
import re
import secrets
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import structlog

from pacs_bridge.audit import (
    AuditEvent,
    AuditSource,
    message_of,
    service_started,
    service_stopped,
    settings_in_force,
    trail_begins,
    trail_had_a_gap,
    trail_shortened,
)
from pacs_bridge.audit_chain import BEGINNING, REMOVED, TORN, Line, Link, Record, opened, sealed
from pacs_bridge.audit_flood import WINDOW, Flood
from pacs_bridge.errors import BridgeError
from pacs_bridge.settings import Settings

KEY_FILE: Final = "key"
LOCK_FILE: Final = "lock"
FLUSH_EVERY_S: Final = 1.0
"""What a power cut may take: the last second. A killed service loses nothing, for the system holds what was written."""
MOST_WAITING: Final = 10_000
"""Events held in memory while the disk takes none."""

_TAIL_BYTES: Final = 2**20
_SEGMENT: Final = re.compile(r"\d{4}-\d{2}\.jsonl")
_log = structlog.get_logger()


def folder_of(settings: Settings) -> Path:
    """Name the folder of a service's trail."""
    return settings.state_dir / "audit"


@contextmanager
def kept(settings: Settings, *, now: Callable[[], datetime]) -> Iterator["AuditTrail"]:
    """Keep a service's trail from its start to its end, and say in it when these were. Raises OSError."""
    source = AuditSource(ae_title=settings.listener.ae_title, machine=socket.gethostname(), process_id=os.getpid())
    keep = timedelta(days=settings.audit.days) if settings.audit.days else None
    trail = AuditTrail(folder_of(settings), source, now=now, keep=keep)
    problem = "the service broke off"
    try:
        trail.record(service_started(at=now()))
        trail.record(settings_in_force(hashlib.sha256(settings.model_dump_json().encode()).hexdigest(), at=now()))
        yield trail
        problem = ""
    finally:
        trail.record(service_stopped(at=now(), problem=problem))
        trail.close()


@dataclass(eq=False)
class NoTrail(BridgeError):
    """There is no audit trail in this folder, or its key is gone."""

    folder: str

    def __str__(self) -> str:
        return f"there is no audit trail, or not its key, in {self.folder}: has a service run with this state_dir?"


class AuditTrail:
    """Appends events to the trail in a folder; any thread may record, other processes too, one at a time.

    ``keep``: how long records stay; whole months are removed once all of them is older, None: never.
    """

    def __init__(
        self,
        folder: Path,
        source: AuditSource,
        *,
        now: Callable[[], datetime],
        keep: timedelta | None = None,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        """Open the trail, and chain over what a power cut has torn. Raises OSError."""
        self._folder, self._source, self._now, self._keep = folder, source, now, keep
        self._most_waiting = most_waiting
        self._waiting: deque[AuditEvent] = deque()
        self._flood = Flood()
        self._lost = 0
        self._refused = False
        self._mutex = threading.Lock()
        self._unflushed = threading.Event()
        self._closing = threading.Event()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        with self._alone():
            self._key = _key_in(folder)
            self._end = _end_of(folder, self._key)
        self.flush()
        self._tidy()
        self._flusher = threading.Thread(target=self._flush_often, name="audit", daemon=True)
        self._flusher.start()

    @property
    def head(self) -> Link:
        """Return the place of the last record written here: worth noting elsewhere."""
        return self._end.head

    def record(self, event: AuditEvent) -> None:
        """Write an event, durable within a second; while the disk takes none it waits in memory. Never raises."""
        with self._mutex:
            if not self._flood.lets_through(event, now=self._now()):
                return
            self._wait(event)
            if not self._refused:  # else the flusher tries again, once a second: a full disk is no place to hurry
                self._write_waiting()
            self._unflushed.set()

    def flush(self) -> None:
        """Make what was recorded outlive a power cut; who records meanwhile does not wait for the disk."""
        with self._mutex:
            self._unflushed.clear()
            for event in self._flood.over(self._now()):
                self._wait(event)
            self._write_waiting()
            file = self._end.to_sync()
        try:
            _sync(file)
        except OSError as refused:
            self._end.unsynced = True
            self._unflushed.set()
            _log.error("the audit trail cannot be flushed", reason=refused.strerror)

    def close(self) -> None:
        """Flush and let go of the files; recording after that is a mistake, closing again is none."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._unflushed.set()
        self._flusher.join()
        with self._mutex:
            self._waiting.extend(self._flood.over(self._now() + WINDOW))
        self.flush()
        with self._mutex:
            if self._waiting:
                _log.error("audit events are lost: the trail could not be written", events=len(self._waiting))
            self._end.close()
            os.close(self._lock)

    def _wait(self, event: AuditEvent) -> None:
        if len(self._waiting) == self._most_waiting:
            self._waiting.popleft()
            self._lost += 1
        self._waiting.append(event)

    # ---- writing ----------------------------------------------------------------------------------------------------

    def _write_waiting(self) -> None:
        """Write what waits, under the lock; what the disk does not take goes on waiting."""
        try:
            with self._alone():
                self._follow()
                while self._waiting:
                    self._tell_of_loss()
                    self._append(self._waiting[0])
                    self._waiting.popleft()
        except OSError as refused:
            self._unflushed.set()
            self._say_once(refused)
        else:
            self._refused = False

    def _say_once(self, refused: OSError) -> None:
        if not self._refused:
            _log.error("audit events wait: the trail cannot be written", reason=refused.strerror)
        self._refused = True

    def _follow(self) -> None:
        """Go on where the trail ends now: another process may have recorded since, or a power cut torn it."""
        self._end = _followed(self._end, self._folder, self._key)
        if self._end.head == BEGINNING or self._end.torn:
            self._mend()

    def _tell_of_loss(self) -> None:
        if self._lost:
            reason = f"more than {self._most_waiting} events waited for a disk that took none"
            self._append(trail_had_a_gap(at=self._now(), lost=self._lost, reason=reason))
            self._lost = 0

    def _append(self, event: AuditEvent) -> None:
        segment = max(f"{self._now():%Y-%m}.jsonl", self._end.segment)
        if segment != self._end.segment:
            self._end = self._end.in_new_segment(self._folder, segment)
        line, link = sealed(message_of(event, self._source), after=self._end.head, key=self._key)
        self._end.append(line)
        self._end.head = link

    def _mend(self) -> None:
        """Begin, or go on after a torn line: its bytes stay, and the next record answers for them."""
        torn, details = self._end.torn, {}
        if torn:
            self._end.end_torn_line()
            details = {TORN: hashlib.sha256(torn.removesuffix(b"\n")).hexdigest()}
        self._append(trail_begins(at=self._now(), details=details))
        self._end.torn = b""
        if torn:
            _log.warning("the audit trail ended in a torn line", segment=self._end.segment, bytes=len(torn))

    # ---- keeping ----------------------------------------------------------------------------------------------------

    def _flush_often(self) -> None:
        looked_on = self._now().date()
        while not self._closing.wait(FLUSH_EVERY_S):
            self.flush()
            if self._now().date() != looked_on:
                looked_on = self._now().date()
                self._tidy()
            self._unflushed.wait(60)

    def _tidy(self) -> None:
        with self._mutex:
            try:
                with self._alone():
                    self._follow()
                    self._remove_old()
            except OSError as refused:
                self._say_once(refused)

    def _remove_old(self) -> None:
        """Remove the oldest months; first a record says so, and where the chain goes on."""
        old = self._old_segments()
        if not old:
            return
        last = _last_record(self._folder / old[-1], self._key)
        details = {"segments": ", ".join(old), REMOVED: str(last.link) if last else ""}
        self._append(trail_shortened(at=self._now(), details=details))
        _sync(self._end.to_sync())
        for name in old:
            (self._folder / name).unlink()
        _sync_folder(self._folder)

    def _old_segments(self) -> list[str]:
        if self._keep is None:
            return []
        names = [each for each in segments(self._folder) if each != self._end.segment]
        return [name for name in names if _ended_at(name) < self._now() - self._keep]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes that record (an administrator's command) out for a moment."""
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)


# ---- the end of the trail -------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class _End:
    """The segment that is written to, and the last record; ``torn`` are bytes after it that are no record."""

    segment: str
    file: int | None
    size: int
    head: Link
    torn: bytes = b""
    unsynced: bool = field(default=False)

    def append(self, line: bytes) -> None:
        """Write a line whole, or nothing of it. Raises OSError."""
        assert self.file is not None
        try:
            _write_all(self.file, line)
        except OSError:
            os.ftruncate(self.file, self.size)
            raise
        self.size += len(line)
        self.unsynced = True

    def end_torn_line(self) -> None:
        if not self.torn.endswith(b"\n"):
            self.append(b"\n")
            self.torn += b"\n"

    def in_new_segment(self, folder: Path, segment: str) -> "_End":
        _sync(self.to_sync())
        file = os.open(folder / segment, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        _sync_folder(folder)
        self.close()
        return _End(segment=segment, file=file, size=os.fstat(file).st_size, head=self.head)

    def to_sync(self) -> int | None:
        """Return a descriptor of what is not on the disk for certain, to be closed; None where all of it is."""
        if self.file is None or not self.unsynced:
            return None
        self.unsynced = False
        return os.dup(self.file)

    def close(self) -> None:
        if self.file is not None:
            os.close(self.file)
            self.file = None


def _write_all(file: int, line: bytes) -> None:
    """Write in one call, so that a killed service leaves no half of a line; goes on where the disk took a part."""
    while line:
        line = line[os.write(file, line) :]


def _sync(file: int | None) -> None:
    if file is not None:
        try:
            os.fdatasync(file)
        finally:
            os.close(file)


def _end_of(folder: Path, key: bytes) -> _End:
    """Find the last record and what stands after it, in the newest segment that holds anything."""
    names = [name for name in segments(folder) if (folder / name).stat().st_size]
    if not names:
        return _End(segment="", file=None, size=0, head=BEGINNING)
    file = os.open(folder / names[-1], os.O_RDWR | os.O_APPEND)
    size = os.fstat(file).st_size
    record, torn = _tail(file, size, key)
    head = record.link if record else _head_before(folder, names[:-1], key)
    return _End(segment=names[-1], file=file, size=size, head=head, torn=torn)


def _head_before(folder: Path, names: Sequence[str], key: bytes) -> Link:
    """Return the last record of the segments before one that holds none: a power cut may tear its first line."""
    record = _last_record(folder / names[-1], key) if names else None
    return record.link if record else BEGINNING


def _tail(file: int, size: int, key: bytes) -> tuple[Record | None, bytes]:
    start = max(0, size - _TAIL_BYTES)
    content = os.pread(file, size - start, start)
    end = len(content)
    while end > 0:
        begin = content.rfind(b"\n", 0, end - 1) + 1
        record = opened(content[begin : end - 1], key) if content[end - 1 : end] == b"\n" else None
        if record:
            return record, content[end:]
        end = begin
    return None, content


def _followed(end: _End, folder: Path, key: bytes) -> _End:
    """Return the trail's end as it is now: another process may have recorded since."""
    names = segments(folder)
    there = names[-1] if names else ""
    if there == end.segment and (not there or (folder / there).stat().st_size == end.size):
        return end
    _sync(end.to_sync())
    end.close()
    return _end_of(folder, key)


def _last_record(path: Path, key: bytes) -> Record | None:
    file = os.open(path, os.O_RDONLY)
    try:
        return _tail(file, os.fstat(file).st_size, key)[0]
    finally:
        os.close(file)


# ---- reading --------------------------------------------------------------------------------------------------------


def segments(folder: Path) -> list[str]:
    """Name the files of the trail, the oldest first."""
    return sorted(each.name for each in folder.iterdir() if _SEGMENT.fullmatch(each.name))


def read_key(folder: Path) -> bytes:
    """Return the key the trail is sealed with. Raises NoTrail."""
    try:
        return bytes.fromhex((folder / KEY_FILE).read_text("ascii"))
    except (FileNotFoundError, ValueError):
        raise NoTrail(str(folder)) from None


def read_lines(folder: Path) -> Iterator[Line]:
    """Yield every line, the oldest first; a service that is writing may go on."""
    for name in segments(folder):
        with (folder / name).open("rb") as segment:
            for number, line in enumerate(_up_to(segment.fileno(), folder), start=1):
                yield Line(segment=name, number=number, content=line)


def _up_to(file: int, folder: Path) -> Iterator[bytes]:
    """Yield the lines written so far, none of them half."""
    with _nobody_writing(folder):
        size = os.fstat(file).st_size
    with os.fdopen(os.dup(file), "rb") as content:
        while content.tell() < size:
            yield content.readline().removesuffix(b"\n")


@contextmanager
def _nobody_writing(folder: Path) -> Iterator[None]:
    try:
        lock = os.open(folder / LOCK_FILE, os.O_RDONLY)
    except FileNotFoundError:  # a copy, somewhere else
        yield
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield
    finally:
        os.close(lock)


def _key_in(folder: Path) -> bytes:
    try:
        return read_key(folder)
    except NoTrail:
        key = secrets.token_bytes(32)
    made = os.open(folder / KEY_FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(made, key.hex().encode("ascii"))
        os.fsync(made)
    finally:
        os.close(made)
    _sync_folder(folder)
    return key


def _sync_folder(folder: Path) -> None:
    opened_folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened_folder)
    finally:
        os.close(opened_folder)


def _ended_at(name: str) -> datetime:
    year, month = int(name[:4]), int(name[5:7])
    return datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
