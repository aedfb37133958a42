"""Who decodes what strangers compressed? A child process: what a codec does to itself there ends no service."""

import os
import resource
import signal
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Future
from contextlib import suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

from pacs_bridge.errors import CannotTranscode
from pacs_bridge.sending.source import FileSource, Source
from scheduler.errors import Broke, Permanent, SchedulerError, Transient
from scheduler.executors import Processes

LIMIT_S: Final = 300.0
MOST_MEMORY_BYTES: Final = 2 * 2**30
"""What a child may take: 1.7 GiB for an object of 500 MiB, compressed or not (measured), with copies under way."""

Work = Callable[[Path, str], bytes]
"""(Part-10 file, transfer syntax) -> its data set in that; runs in the child, so it is a function of a module."""


def with_codecs(path: Path, transfer_syntax: str) -> bytes:
    """See `pacs_bridge.transcode.transcoded_file`, whose codecs only the child loads."""
    from pacs_bridge.transcode import transcoded_file

    return transcoded_file(path, transfer_syntax)


class Transcoder:
    """Transcodes one object at a time, in a child that starts when it is first needed. Threads may share it.

    The bytes come back through a file of ``folder`` that has no name any more when it is read.
    """

    def __init__(self, folder: Path, *, work: Work = with_codecs, limit_s: float = LIMIT_S) -> None:
        """Start nothing yet."""
        self._folder, self._work, self._limit_s = folder, work, limit_s
        self._turn, self._state = threading.Lock(), threading.Lock()
        self._child: Processes | None = None
        self._running: Future[None] | None = None
        self._is_closed = False

    def __call__(self, path: Path, transfer_syntax: str) -> Source:
        """Return the data set of a Part-10 file, without file meta information, in another transfer syntax.

        Raises Permanent where that cannot be done (it breaks its child, or takes too long or too much memory),
        Broke where the machine is in trouble and it may be done later.
        """
        made = self._folder / f"transcoded-{uuid4().hex}"
        with self._turn:
            try:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._make(path, transfer_syntax, made)
                return FileSource(made, 0)
            except OSError as refused:
                raise Broke(f"an object cannot be transcoded now: {refused.strerror}") from refused
            finally:
                with suppress(OSError):
                    made.unlink()

    def close(self) -> None:
        """End the child with whatever it does; who waits for it is told to try again."""
        with self._state:
            self._is_closed = True
            if self._child is not None:
                self._kill()
                self._child.shutdown(wait=False, cancel_futures=True)

    def _make(self, path: Path, transfer_syntax: str, made: Path) -> None:
        problem = self._problem(path, transfer_syntax, made)
        if isinstance(problem, BrokenExecutor) and not self._is_closed:
            # Once more: where memory is short, the system ends a child for what others took.
            problem = self._problem(path, transfer_syntax, made)
        if problem is not None:
            raise self._told(problem) from problem

    def _problem(self, path: Path, transfer_syntax: str, made: Path) -> BaseException | None:
        future = self._submitted(path, transfer_syntax, made)
        try:
            return future.exception(self._limit_s)  # and not wait(): that never hears of a cancelled one
        except CancelledError as cancelled:
            return cancelled
        except TimeoutError as overrun:
            with self._state:
                self._kill()
            with suppress(CancelledError):
                future.exception()
            return overrun

    def _submitted(self, path: Path, transfer_syntax: str, made: Path) -> Future[None]:
        with self._state:
            if self._is_closed:
                raise _stopping()
            try:
                self._child = self._child or Processes(1, _bounded)
                self._running = self._child.submit(_write, self._work, path, transfer_syntax, made)
            except SchedulerError as none:
                raise Broke("the process that transcodes does not start") from none
            return self._running

    def _kill(self) -> None:
        if self._child is not None and self._running is not None:
            with suppress(BrokenExecutor):  # it has gone already
                self._child.kill(self._running)

    def _told(self, problem: BaseException) -> Exception:
        """Sort what happened in the child: an object is not sent again for what will happen to it each time."""
        match problem:
            case Transient() | Permanent():
                return problem
            case BrokenExecutor() | CancelledError() | TimeoutError() if self._is_closed:
                return _stopping()
            case TimeoutError():
                return _refused(f"that takes longer than {self._limit_s:g} s")
            case OSError():
                return problem
            case BrokenExecutor():
                return _refused("decoding it ended the process that did it")
            case MemoryError():
                return _refused(f"that takes more than {MOST_MEMORY_BYTES >> 20} MiB of memory")
            case _:
                return _refused(f"an error of ours ({type(problem).__name__})")


def _stopping() -> Broke:
    return Broke("the service stops")


def _refused(reason: str) -> Permanent:
    return Permanent(str(CannotTranscode(reason)))


def _write(work: Work, path: Path, transfer_syntax: str, made: Path) -> None:
    with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as writing:
        writing.write(work(path, transfer_syntax))


def _bounded() -> None:
    """Take no more memory than allowed, go first where the machine has none left, and leave no image of it behind."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the driver ends it: a stop of the service is no object's fault
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    with suppress(OSError):  # no /proc: not Linux
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MOST_MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))
