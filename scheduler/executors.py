"""Where does a task run? Inline, on threads, in processes or on a Dask cluster: each a concurrent.futures.Executor."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any, ParamSpec, Protocol, TypeVar, runtime_checkable

from scheduler.errors import SchedulerError

P = ParamSpec("P")
R = TypeVar("R")


@runtime_checkable
class Kills(Protocol):
    """An executor that can end a task which runs for too long."""

    def kill(self, future: Future[Any]) -> None:
        """End the task; its future then fails. Does nothing once the future is done."""


def inline() -> Executor:
    """Run each task at once, on the submitting thread."""
    return _Inline()


def threads(count: int) -> Executor:
    """Run tasks on threads: for work that waits, like deliveries."""
    return ThreadPoolExecutor(max_workers=count, thread_name_prefix="ctriage-io")


def processes(
    count: int, initializer: Callable[[], object] | None = None, *, preload: Sequence[str] = ()
) -> "Processes":
    """Run tasks in child processes; returns when all of them are up. Raises SchedulerError when one cannot start.

    ``preload`` names modules that are imported once, by the server all children are forked from: they start at once
    and share that memory. The first call of a process decides for all of its calls.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(preload))
    return Processes(count, initializer)


def dask(address: str) -> Executor:
    """Run tasks on the Dask cluster whose scheduler has this address; raises SchedulerError without the extra."""
    try:
        from distributed import Client
    except ImportError as error:
        raise SchedulerError("Dask is not installed: pip install 'ctriage[cluster]', or use processes") from error
    return _Dask(Client(address, set_as_default=False))


class Processes(Executor):
    """One pool per child process, so that a task that takes its process down fails alone.

    A pool of several would fail every task it holds and could not tell which was to blame. A child that has died is
    replaced at the next task. Children ignore Ctrl-C, which is the driver's to handle, and end with the driver even
    when it is killed.
    """

    def __init__(self, count: int, initializer: Callable[[], object] | None = None) -> None:
        """Start the children, forked from a server without threads, and wait for them."""
        self._lock = threading.Lock()
        self._children = [_Child(initializer) for _ in range(count)]
        try:
            for child in self._children:
                child.ready.result()
        except BrokenExecutor as error:
            self.shutdown()
            raise SchedulerError("the worker processes do not start: run the initializer by hand to see why") from error

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Run the call in the child with the least to do."""
        with self._lock:
            child = min(self._children, key=_Child.pending)
            return child.submit(fn, *args, **kwargs)

    def kill(self, future: Future[Any]) -> None:
        """Kill the child that runs the task; its future fails with BrokenProcessPool."""
        with self._lock:
            for child in self._children:
                if future in child.futures and not future.done():
                    child.kill()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - Executor's
        """Stop the children once they have done what was submitted; with `wait`, return when they have."""
        for child in self._children:
            child.pool.shutdown(wait=wait, cancel_futures=cancel_futures)


class _Child:
    def __init__(self, initializer: Callable[[], object] | None) -> None:
        self._initializer = initializer
        self.futures: set[Future[Any]] = set()
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        self.pool = ProcessPoolExecutor(1, mp_context=context, initializer=_begin, initargs=(self._initializer,))
        self.ready = self.pool.submit(os.getpid)

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        try:
            future = self.pool.submit(fn, *args, **kwargs)
        except BrokenExecutor:
            self.pool.shutdown(wait=False)
            self._start()
            future = self.pool.submit(fn, *args, **kwargs)
        self.futures.add(future)
        return future

    def pending(self) -> int:
        self.futures = {future for future in self.futures if not future.done()}
        return len(self.futures)

    def kill(self) -> None:
        for child in multiprocessing.active_children():
            if child.pid == self.ready.result():
                child.kill()


class _Inline(Executor):
    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        future: Future[R] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - an executor hands every failure on, to the future's reader
            future.set_exception(error)
        return future


class _Dask(Executor):
    def __init__(self, client: Any) -> None:
        self._client = client
        # Retries live in the queue alone; impure, since the same call twice is two attempts.
        self._executor: Executor = client.get_executor(pure=False, retries=0)

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        return self._executor.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - Executor's
        # Dask's own shutdown takes `wait` alone; without waiting it cancels what it holds.
        self._executor.shutdown(wait=wait and not cancel_futures)
        self._client.close()


def _begin(initializer: Callable[[], object] | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_driver, daemon=True).start()
    if initializer is not None:
        initializer()


def _end_with_the_driver() -> None:
    # A child holds both ends of its own queue's pipe, so it would never see that a killed driver has gone.
    driver = multiprocessing.parent_process()
    if driver is not None:
        driver.join()
        os._exit(1)
