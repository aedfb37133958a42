"""How fast are slices received, by ctriage and by others, does it stay so, and how fast are results sent on?

DCMTK's storescu sends the same slices of 512x512 to each receiver in turn, in interleaved rounds, with TCP_NODELAY=1 in
every program's environment. Senders read from memory's file system; receivers write to one disk, which has taken what
the run before wrote when the next one begins. A receiver that has not kept everything ends the benchmark.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

from benchmarks import endurance, received, sending
from benchmarks.clock import others_percent, quietness
from benchmarks.ct_series import paint_torso, write_series
from benchmarks.disk import file_system, settle
from benchmarks.figures import Bar, Result
from benchmarks.receivers import NODELAY, RECEIVERS, Missing, Receiver

IN_MEMORY = Path("/dev/shm")
AT_ONCE = 8
IN_PARALLEL = ("ctriage", "orthanc")
"""storescp and pynetdicom's application are no servers for eight."""

BARS = {
    "ratio_to_orthanc": Bar(">=", 2.5),
    "ratio_to_storescp": Bar(">=", 0.5),
    "eight_ratio_to_orthanc": Bar(">=", 4.0),
    "eight_to_own_single": Bar(">=", 1.0),
    **endurance.BARS,
    **sending.BARS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is sent: pixels a side, slices of one association and of each of eight, rounds; and what has to last."""

    side: int
    slices: int
    slices_of_each: int
    rounds: int
    lasting: endurance.Plan


PLANS = {
    "toy": Plan(
        side=64,
        slices=12,
        slices_of_each=2,
        rounds=1,
        lasting=endurance.Plan(warm=10, associations=20, instances=40, edge=10),
    ),
    "full": Plan(
        side=512,
        slices=500,
        slices_of_each=250,
        rounds=5,
        lasting=endurance.Plan(warm=1000, associations=1000, instances=10_000, edge=2000),
    ),
}


class Lost(Exception):
    """A receiver let its sender believe in more than it has kept."""


def run(size: Literal["toy", "full"]) -> Result:
    """Measure all. Raises Lost where a receiver has not kept what it was sent, or with other bytes."""
    plan = PLANS[size]
    row, notes = quietness(others_percent())
    with ExitStack() as stack:
        disk = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ctriage-receive-")))
        memory = stack.enter_context(tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None))
        _say("painting and writing slices")
        slices = max(plan.slices, AT_ONCE * plan.slices_of_each)
        files = write_series(paint_torso(side=plan.side, painted=10), slices, Path(memory) / "series")
        race = _Race(plan=plan, files=files, disk=disk, notes=notes)
        race.run()
        _say("what has to last")
        lasting, lasting_rows = endurance.measure(plan.lasting, files[0], disk)
        _say("sending")
        sent, sent_rows = _sending(size, disk, notes)
    figures = {**race.figures(), **lasting, **sent}
    rows = [{**row, "file_system": file_system(disk.parent)}, *race.rows, *lasting_rows, *sent_rows]
    return Result(name="receive", figures=figures, rows=rows, bars=BARS, notes=notes)


def _sending(
    size: Literal["toy", "full"], disk: Path, notes: list[str]
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Measure sending too; of its figures, those that are held against something."""
    try:
        figures, rows = sending.measure(size, disk / "sending")
    except Missing as missing:
        notes.append(f"sending: {missing}")
        return {}, []
    return {name: figure for name, figure in figures.items() if name in sending.BARS}, rows


@dataclass(slots=True, kw_only=True)
class _Race:
    """The interleaved rounds; ``rows`` has one for each run."""

    plan: Plan
    files: Sequence[Path]
    disk: Path
    notes: list[str]
    rows: list[dict[str, Any]] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)

    def run(self) -> None:
        names = list(RECEIVERS)
        for number in range(self.plan.rounds):
            first = number % len(names)
            for name in [*names[first:], *names[:first]]:
                self._turn(name, number)

    def figures(self) -> dict[str, float]:
        """Return the medians and the ratios of medians."""
        alone, eight = (self._medians(associations) for associations in (1, AT_ONCE))
        figures = {f"{name}_per_s": rate for name, rate in alone.items()}
        figures |= {f"eight_{name}_per_s": rate for name, rate in eight.items()}
        figures |= {f"ratio_to_{name}": alone["ctriage"] / rate for name, rate in alone.items() if name != "ctriage"}
        figures |= {f"eight_ratio_to_{n}": eight["ctriage"] / rate for n, rate in eight.items() if n != "ctriage"}
        return {**figures, "eight_to_own_single": eight["ctriage"] / alone["ctriage"]}

    def _medians(self, associations: int) -> Mapping[str, float]:
        rates: dict[str, list[float]] = {}
        for row in self.rows:
            if row["associations"] == associations:
                rates.setdefault(row["receiver"], []).append(row["instances_per_s"])
        return {name: median(each) for name, each in rates.items()}

    def _turn(self, name: str, number: int) -> None:
        if name in self.missing:
            return
        try:
            self._measure(name, number, [self.files[: self.plan.slices]])
            if name in IN_PARALLEL:
                sent = self.files[: AT_ONCE * self.plan.slices_of_each]
                self._measure(name, number, [sent[at::AT_ONCE] for at in range(AT_ONCE)])
        except Missing as missing:
            self.missing.add(name)
            self.notes.append(f"{name}: {missing}")

    def _measure(self, name: str, number: int, shares: Sequence[Sequence[Path]]) -> None:
        """Send each share by a storescu of its own, all at once, to a receiver that was started for it."""
        _say(f"round {number + 1} of {self.plan.rounds}: {name}, {len(shares)} at once")
        folder = self.disk / f"{name}-{number}-{len(shares)}"
        folder.mkdir()
        settle()
        with RECEIVERS[name](folder) as receiver:
            seconds = send_with_storescu(receiver, shares)
            count = sum(map(len, shares))
            check(name, receiver, count)
            if name == "ctriage":
                received.check_sample([path for share in shares for path in share], folder / "state")
        settle(folder)
        rate = {"instances_per_s": count / seconds, "seconds": seconds}
        self.rows.append({"receiver": name, "associations": len(shares), "round": number + 1, **rate})


def send_with_storescu(receiver: Receiver, shares: Sequence[Sequence[Path]]) -> float:
    """Send shares side by side, each over one association; returns the seconds until the last has ended.

    Raises Lost where a sender was refused anything.
    """
    peer = ["127.0.0.1", str(receiver.port)]
    commands = [
        [*receiver.inside, "storescu", "-aet", "BENCH", "-aec", receiver.ae_title, *peer, *map(str, share)]
        for share in shares
    ]
    started = time.perf_counter()
    senders = [subprocess.Popen(command, env=NODELAY, stdout=subprocess.DEVNULL) for command in commands]
    statuses = [sender.wait() for sender in senders]
    seconds = time.perf_counter() - started
    if any(statuses):
        raise Lost(f"storescu ended with {statuses}")
    return seconds


def check(name: str, receiver: Receiver, count: int) -> None:
    """Raise Lost where a receiver does not hold as many instances as were sent."""
    held = receiver.held()
    if held != count:
        raise Lost(f"{name} holds {held} of {count} instances")


def _say(what: str) -> None:
    sys.stderr.write(what + "\n")
