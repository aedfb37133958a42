"""Every executor runs a task; a child process that dies takes only its own task with it, and dies with its driver."""

import itertools
import operator
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from pathlib import Path

import psutil
import pytest

import scheduler
from scheduler.errors import SchedulerError
from scheduler.executors import Processes, dask, inline, processes, threads

DEADLINE_S = 60.0


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    never = threading.Event()
    while not condition():
        assert time.monotonic() < end, "the condition never came true"
        never.wait(0.005)


NUMBERS = itertools.count()


def next_number() -> int:
    return next(NUMBERS)


@pytest.fixture(scope="module")
def pool() -> Iterator[Processes]:
    with processes(2) as pool:
        yield pool


def test_inline_runs_on_the_thread_that_submits() -> None:
    assert inline().submit(threading.get_ident).result() == threading.get_ident()


def test_inline_hands_a_failure_to_the_future() -> None:
    with pytest.raises(ZeroDivisionError):
        inline().submit(operator.truediv, 1, 0).result()


def test_threads_run_beside_each_other() -> None:
    meeting = threading.Barrier(2, timeout=DEADLINE_S)
    with threads(2) as pool:
        assert {0, 1} == {future.result() for future in [pool.submit(meeting.wait) for _ in range(2)]}


def test_processes_run_elsewhere_and_beside_each_other(pool: Processes) -> None:
    first, second = pool.submit(os.getpid), pool.submit(os.getpid)
    assert os.getpid() not in (first.result(), second.result())


def test_a_dying_task_fails_alone_and_its_child_is_replaced(pool: Processes) -> None:
    bystander = pool.submit(sum, range(3_000_000))
    dying = pool.submit(os._exit, 1)
    with pytest.raises(BrokenExecutor):
        dying.result(DEADLINE_S)
    assert bystander.result(DEADLINE_S) == sum(range(3_000_000))
    assert {pool.submit(os.getpid).result(DEADLINE_S) for _ in range(4)}


def test_a_task_that_hangs_can_be_killed(pool: Processes) -> None:
    hanging = pool.submit(signal.pause)
    pool.kill(hanging)
    with pytest.raises(BrokenExecutor):
        hanging.result(DEADLINE_S)
    pool.kill(hanging)
    assert pool.submit(pow, 2, 3).result(DEADLINE_S) == 8


def test_an_initializer_that_fails_is_told_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SchedulerError, match="initializer"):
        processes(1, os.abort)
    capfd.readouterr()


def test_children_end_when_their_driver_is_killed() -> None:
    driver = (
        "import os, signal, sys; from scheduler.executors import processes; pool = processes(1);"
        "print(pool.submit(os.getpid).result(), flush=True); pool.submit(signal.pause); sys.stdin.read()"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(scheduler.__file__).parents[1])}
    command = [sys.executable, "-c", driver]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        child = psutil.Process(int(process.stdout.readline()))
        process.kill()
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_a_dask_cluster_runs_each_attempt_anew() -> None:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None, protocol="tcp"
        ) as cluster,
        dask(cluster.scheduler_address) as executor,
    ):
        first, second = executor.submit(next_number), executor.submit(next_number)
        assert {first.result(DEADLINE_S), second.result(DEADLINE_S)} == {0, 1}
        with pytest.raises(ZeroDivisionError):
            executor.submit(operator.truediv, 1, 0).result(DEADLINE_S)
