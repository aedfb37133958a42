"""Does anything that comes over the wire crash, hang or fill us? Seeded mutations of a synthetic corpus.

Three readers: the instance intake (elements, facts, header), the receiver's P-DATA reader, and the sender's reader of
answers; each may refuse with its own error alone. And a whole receiver, over a socket. Input ``n`` follows from the
seed and ``n``, so that these name what went wrong. Where the test data are, real slices in 16 transfer syntaxes join
the corpus.
"""

import os
import resource
import signal
import sys
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any, Literal

from pydicom.filereader import read_file_meta_info

from benchmarks import fuzz_seeds
from benchmarks.figures import Bar, Result
from benchmarks.fuzz_mutations import mutated
from benchmarks.fuzz_seeds import SYNTAXES, Seed
from benchmarks.fuzz_socket import converse
from benchmarks.received import dataset_of
from pacs_bridge.arrived_header import header_of, in_file
from pacs_bridge.elements import Elements, elements_at_the_start, elements_of
from pacs_bridge.errors import BrokenProtocol, CannotUnderstand
from pacs_bridge.instance import InstanceFacts, facts_of
from pacs_bridge.receiving.command import read_command, store_response
from pacs_bridge.receiving.pdv import Messages, Step, pdvs_of
from pacs_bridge.sending.commands import read_store_response
from pacs_bridge.sending.pdu import Malformed, PduReader
from reconstruction.headers import pack

SLOW_S, HUNG_S = 1.0, 5.0
MEMORY_BOUND_MB = 512.0
"""How much all inputs together may raise the peak of our memory: an input of a megabyte must not become a gigabyte."""

MAXIMUM_PDU = 256 * 1024
REAL_SHARE = 0.03
SHOWN_BYTES = 64
TOY_INPUTS = 6000
TALKS = {"toy": 40, "full": 1000}
"""How many inputs a whole receiver is told over a socket, beside those that are counted."""

SHARES = {"intake": 0.5, "p_data": 0.25, "answer": 0.25}

Outcome = Literal["taken", "refused"]


class Hung(BaseException):
    """An input used HUNG_S seconds of the processor; not an Exception, so that nothing swallows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A reader: makes input from a generator of its own, and reads it."""

    make: Callable[[Random], Any]
    read: Callable[[Any], Outcome]


@dataclass(slots=True, kw_only=True)
class Tally:
    """What has been seen of one target."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0


def run(size: Literal["toy", "full"], inputs: int, seed: int) -> Result:
    """Read ``inputs`` inputs (toy: TOY_INPUTS at most), and the bombs; crashes, hangs and gluttony are violations."""
    count = min(inputs, TOY_INPUTS) if size == "toy" else inputs
    before_mb, started = _peak_mb(), time.perf_counter()
    fuzzing = Fuzzing(seed=seed, targets=targets())
    fuzzing.bombs()
    for name, share in SHARES.items():
        _say(f"{name}: {round(count * share)} inputs")
        fuzzing.feed(name, round(count * share))
    _say(f"socket: {TALKS[size]} inputs")
    with _watched():
        talked, problems = converse(seed, TALKS[size])
    fuzzing.violations.extend(problems)
    seconds, grown_mb = time.perf_counter() - started, _peak_mb() - before_mb
    if grown_mb > MEMORY_BOUND_MB:
        fuzzing.violations.append(f"memory grew by {grown_mb:.0f} MB, more than {MEMORY_BOUND_MB:.0f}")
    return Result(
        name="fuzz",
        figures={**fuzzing.figures(), "memory_growth_mb": grown_mb, "seconds": seconds},
        rows=[{"seed": seed}, *fuzzing.rows(), talked],
        bars={
            "violations": Bar("<=", 0),
            "slowest_s": Bar("<=", SLOW_S),
            "memory_growth_mb": Bar("<=", MEMORY_BOUND_MB),
        },
        violations=fuzzing.violations,
    )


@dataclass(slots=True, kw_only=True)
class Fuzzing:
    """One run: what each target made of its inputs, and what went wrong; limits in seconds of the processor."""

    seed: int
    targets: dict[str, Target]
    slow_s: float = SLOW_S
    hung_s: float = HUNG_S
    tallies: dict[str, Tally] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def feed(self, name: str, count: int) -> None:
        """Give a target so many inputs."""
        target = self.targets[name]
        with _watched():
            for number in range(count):
                self._one(name, target.read, target.make(Random(f"{self.seed} {name} {number}")), f"input {number}")

    def bombs(self) -> None:
        """Give the intake each bomb as it is."""
        with _watched():
            for number, bomb in enumerate(fuzz_seeds.bombs()):
                self._one("intake", self.targets["intake"].read, bomb, f"bomb {number}")

    def figures(self) -> dict[str, float]:
        """Return what the tallies say together."""
        every = self.tallies.values()
        return {
            "inputs": sum(each.outcomes.total() for each in every),
            "violations": len(self.violations),
            "crashes": sum(each.outcomes["crashed"] for each in every),
            "slow": sum(each.outcomes["slow"] for each in every),
            "slowest_s": max(each.slowest_s for each in every),
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each target."""
        return [
            {"target": name, **dict(sorted(each.outcomes.items())), "slowest_ms": each.slowest_s * 1000}
            for name, each in self.tallies.items()
        ]

    def _one(self, name: str, read: Callable[[Any], Outcome], given: Any, called: str) -> None:
        """Read one input against the clock of the processor: what others do on the machine does not count."""
        tally = self.tallies.setdefault(name, Tally())
        signal.setitimer(signal.ITIMER_PROF, self.hung_s)
        started = time.process_time()
        outcome, problem = self._outcome(read, given)
        took_s = time.process_time() - started
        tally.slowest_s = max(tally.slowest_s, took_s)
        if took_s > self.slow_s and problem is None:
            outcome, problem = "slow", f"took {took_s:.2f} s"
        tally.outcomes[outcome] += 1
        if problem is not None:
            shown = given.content if isinstance(given, Seed) else given
            start = shown[:SHOWN_BYTES].hex()
            self.violations.append(f"{name}, seed {self.seed}, {called} ({len(shown)} bytes, {start}...): {problem}")

    def _outcome(self, read: Callable[[Any], Outcome], given: Any) -> tuple[str, str | None]:
        """Return what became of an input, and what was wrong with that."""
        try:
            return read(given), None
        except Hung:
            return "slow", f"did not end within {self.hung_s:g} s"
        except Exception as crash:  # noqa: BLE001 - that nothing else is raised is what is being shown
            return "crashed", f"{type(crash).__name__}: {crash}"


@contextmanager
def _watched() -> Iterator[None]:
    """Turn the alarm of `Fuzzing` into Hung, and keep pydicom from telling of every strange character set."""
    before = signal.signal(signal.SIGPROF, _hung)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _hung(_signal: int, _frame: FrameType | None) -> None:
    raise Hung


# ---- the readers ----------------------------------------------------------------------------------------------------


def targets() -> dict[str, Target]:
    """Return the readers with their corpora."""
    synthetic, real = fuzz_seeds.datasets(), real_slices()
    plain = [seed.content for seed in synthetic]
    streams, answers = fuzz_seeds.streams(), fuzz_seeds.answers()

    def dataset(rng: Random) -> Seed:
        chosen = rng.choice(real) if real and rng.random() < REAL_SHARE else rng.choice(synthetic)
        syntax = rng.choice(SYNTAXES) if rng.random() < 0.05 else chosen.transfer_syntax
        return Seed(transfer_syntax=syntax, content=mutated(plain, chosen.content, rng))

    return {
        "intake": Target(make=dataset, read=read_dataset),
        "p_data": Target(make=lambda rng: mutated(streams, rng.choice(streams), rng), read=read_stream),
        "answer": Target(make=lambda rng: mutated(answers, rng.choice(answers), rng), read=read_answers),
    }


def read_dataset(seed: Seed) -> Outcome:
    """Do with a data set what the receiver does: read its beginning ahead, then the whole, to the same result.

    Raises AssertionError where the two differ.
    """
    beginning = seed.content[: zlib.crc32(seed.content) % (len(seed.content) + 1)]
    ahead = elements_at_the_start(beginning, seed.transfer_syntax)
    early = None if ahead is None else _facts_and_header(ahead, seed.transfer_syntax)
    try:
        whole = _facts_and_header(elements_of(seed.content, seed.transfer_syntax), seed.transfer_syntax)
    except CannotUnderstand:
        return "refused"
    if whole is None:
        return "refused"
    if early is not None and early != whole:
        raise AssertionError("read ahead, it is another than read whole")
    return "taken"


def _facts_and_header(elements: Elements, transfer_syntax: str) -> tuple[InstanceFacts, str | None] | None:
    try:
        facts = facts_of(elements, transfer_syntax)
    except CannotUnderstand:
        return None
    facts.as_json()
    header = header_of(elements, transfer_syntax) if facts.is_ct else None
    return facts, None if header is None else pack(in_file(header, 400))


def read_stream(stream: bytes) -> Outcome:
    """Do with what a sender says what the receiver does, but for the disk."""
    messages, at = Messages(), 0
    dataset_bytes = 0
    try:
        while at + 6 <= len(stream) and stream[at] == 4:
            length = int.from_bytes(stream[at + 2 : at + 6], "big")
            if length > MAXIMUM_PDU:
                return "refused"  # larger than was agreed
            if at + 6 + length > len(stream):
                break  # the rest is waited for
            for pdv in pdvs_of(memoryview(stream)[at + 6 : at + 6 + length]):
                step = messages.take(pdv)
                dataset_bytes += len(pdv.fragment) if step in (Step.PART_OF_DATASET, Step.DATASET) else 0
                if step in (Step.COMMAND, Step.DATASET):
                    read_command(store_response(messages.command, pdv.context_id, 0, "said")[12:])
            at += 6 + length
    except BrokenProtocol:
        return "refused"
    if dataset_bytes > len(stream):
        raise AssertionError("more came out than went in")
    return "taken"


def read_answers(stream: bytes) -> Outcome:
    """Do with what a receiver says what the sender does; bytes come in pieces of any size."""
    reader, command = PduReader(), b""
    rng = Random(len(stream))
    try:
        while stream:
            count = rng.randint(1, 64)
            reader.feed(stream[:count])
            stream = stream[count:]
            for pdv in reader.next_p_data() or ():
                command += pdv.fragment
                if pdv.is_last:
                    read_store_response(command)
                    command = b""
    except Malformed:
        return "refused"
    return "taken"


def real_slices() -> list[Seed]:
    """Return the data sets of the test data's slices in many transfer syntaxes; none where they are not here."""
    folder = Path(os.environ.get("CTRIAGE_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data") / "syntaxes"
    files = sorted(folder.glob("*.dcm")) if folder.is_dir() else []
    return [
        Seed(transfer_syntax=str(read_file_meta_info(path).TransferSyntaxUID), content=dataset_of(path))
        for path in files
    ]


def _peak_mb() -> float:
    """Return the most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _say(what: str) -> None:
    sys.stderr.write(what + "\n")
