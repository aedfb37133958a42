"""Does a receiver stay what it was: after a thousand associations, and through ten thousand instances on one?"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.ct_series import STEP_MM
from benchmarks.disk import settle
from benchmarks.figures import Bar
from benchmarks.received import dataset_of
from benchmarks.receivers import Receiver, ctriage, wait_until_calm
from benchmarks.service import family, pss_bytes
from benchmarks.wire import CT_IMAGE, IMPLICIT_LE, SUCCESS, VERIFICATION, associate

ALLOWED_GROWTH_MB = 4.0
"""Of all the service's processes together; an association that left 4 KB behind would be found by a thousand."""

BARS = {
    "association_growth_mb": Bar("<=", ALLOWED_GROWTH_MB),
    "association_growth_descriptors": Bar("<=", 0),
    "ten_thousand_slowdown": Bar("<=", 0.10),
}
ABORTED_EVERY, RESET_EVERY = 10, 7
"""Not every sender takes leave: so many abort, and the connection of so many dies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """``warm`` associations before, ``associations`` that count; ``instances`` on one.

    The first hundreds fill the allocator's pools (some 15 MB a process), which later ones use again. Of the instances,
    the pace of the last ``edge`` is compared with that of the first.
    """

    warm: int
    associations: int
    instances: int
    edge: int


class Refused(Exception):
    """The receiver did not answer Success."""


def measure(plan: Plan, slice_file: Path, disk: Path) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Measure both on one service of their own; ``slice_file`` is sent again and again under new names."""
    settle()
    folder = disk / "lasting"
    folder.mkdir()
    with ctriage(folder) as receiver:
        growth = growth_by_associations(plan, receiver)
        kept_up = pace(plan, receiver, dataset_of(slice_file))
    settle(folder)
    rows = [{"what": f"{plan.associations} associations", **growth}, {"what": f"{plan.instances} in a row", **kept_up}]
    kept = ("association_growth_mb", "association_growth_descriptors")
    return {**{name: growth[name] for name in kept}, "ten_thousand_slowdown": kept_up["ten_thousand_slowdown"]}, rows


def growth_by_associations(plan: Plan, receiver: Receiver) -> dict[str, float]:
    """Open and close associations, some without leave; return by how much that made the service larger."""
    assert receiver.pid is not None
    _open_and_close(receiver, plan.warm)
    before = _footprint(receiver.pid)
    started = time.perf_counter()
    _open_and_close(receiver, plan.associations)
    seconds = time.perf_counter() - started
    after = _footprint(receiver.pid)
    return {
        "association_growth_mb": (after.pss_bytes - before.pss_bytes) / 1e6,
        "association_growth_descriptors": after.descriptors - before.descriptors,
        "before_mb": before.pss_bytes / 1e6,
        "associations_per_s": plan.associations / seconds,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Footprint:
    pss_bytes: int
    descriptors: int


def _footprint(pid: int) -> _Footprint:
    wait_until_calm(pid)
    processes = family(pid)
    return _Footprint(pss_bytes=pss_bytes(processes), descriptors=sum(map(_descriptors, processes)))


def _descriptors(process: psutil.Process) -> int:
    try:
        return int(process.num_fds())
    except psutil.NoSuchProcess:
        return 0


def _open_and_close(receiver: Receiver, count: int) -> None:
    for number in range(count):
        contexts = [(VERIFICATION, IMPLICIT_LE), (CT_IMAGE, IMPLICIT_LE)]
        with associate(("127.0.0.1", receiver.port), called=receiver.ae_title, contexts=contexts) as association:
            association.echo()
            if number % ABORTED_EVERY == 1:
                association.abort()
            elif number % RESET_EVERY == 1:
                association.reset()
            else:
                association.release()


def pace(plan: Plan, receiver: Receiver, dataset: bytes) -> dict[str, float]:
    """Send so many instances over one association; compare the pace of the last ones with that of the first."""
    marks = {0: time.perf_counter()}
    with associate(("127.0.0.1", receiver.port), called=receiver.ae_title) as association:
        for number, (uid, renamed) in enumerate(_renamed(dataset, plan.instances), start=1):
            if association.store(CT_IMAGE, uid, renamed) != SUCCESS:
                raise Refused(f"instance {number} of {plan.instances}")
            if number in (plan.edge, plan.instances - plan.edge, plan.instances):
                marks[number] = time.perf_counter()
        held = receiver.held()
    if held != plan.instances:
        raise Refused(f"{held} of {plan.instances} instances are in the index")
    first = plan.edge / (marks[plan.edge] - marks[0])
    last = plan.edge / (marks[plan.instances] - marks[plan.instances - plan.edge])
    return {"first_per_s": first, "last_per_s": last, "ten_thousand_slowdown": 1 - last / first}


def _renamed(dataset: bytes, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield the data set of slice 0 as that of slices 0, 1, 2...: other names, numbers and places, the same length."""
    name, number, place = b"2.25.5000000", b"\x20\x00\x13\x00IS\x02\x001 ", b"-300.0000"
    if (dataset.count(name), dataset.count(number), dataset.count(place)) != (1, 1, 2):
        raise ValueError("the slice to be sent again and again is not the first one of a benchmark's series")
    for k in range(count):
        uid = f"2.25.5{k:06d}"
        instance = b"\x20\x00\x13\x00IS\x06\x00%6d" % (k + 1)
        yield (
            uid,
            dataset.replace(name, uid.encode()).replace(number, instance).replace(place, b"%9.4f" % (k * STEP_MM)),
        )
