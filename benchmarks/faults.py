"""Is anything lost, whatever breaks? A whole service under load, hundreds of faults, and what is left is compared.

Scanners send studies and write down every answer; meanwhile the service and its processes are killed with -9, sockets
are cut in the middle of a PDU, the disk fills up, the PACS goes away, bytes are damaged on the wire, and instances come
twice, late and in any order. What must hold afterwards stands in ``faults_checks``; at the very end losses are planted,
so that a check that finds nothing has shown that it can.
"""

import random
import ssl
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import trustme

from benchmarks.faults_chaos import AROUND, Chaos, NoSmallDisk, small_disk
from benchmarks.faults_checks import LOST_BY_PLANTING, Evidence, Violation, Wrong, plant_losses, violations
from benchmarks.faults_load import CUTS, Fault, Journal, Peer, Scanner, StudyPlan, make_study
from benchmarks.figures import Bar, Result
from benchmarks.service import ReceivingPacs, Service, free_port, running, wait_until

AT_ONCE = 3
BREAKS_OF_A_STUDY = 4
FLIPS_OF_A_STUDY = 3
LATE_BY = 2
"""What a study's scanner holds back comes with so many groups of studies between."""

BETWEEN_S = 1.5
DONE_WITHIN_S = 300.0
SENT_KINDS = ("sr", "seg", "key_objects", "mpr")
FAULTS_WANTED = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many groups of AT_ONCE studies are sent, with one of each fault around them; slices come ``pace_s`` apart.

    ``disk_mb``: the service's disk; each version of a study leaves some 10 MB of pictures there.
    """

    groups: int
    pace_s: float
    disk_mb: int


PLANS = {"toy": Plan(groups=1, pace_s=0.1, disk_mb=400), "full": Plan(groups=30, pace_s=0.25, disk_mb=3000)}


def run(size: Literal["toy", "full"], seed: int) -> Result:
    """Break and compare. The result's violations are what was lost, or went wrong, each with its story."""
    started = time.monotonic()
    with ExitStack() as stack:
        bench = stack.enter_context(bench_for(seed, PLANS[size]))
        found = bench.break_all()
        found += [] if found else _unfound(bench.evidence)
    figures = {**_figures(bench, found), "seconds": time.monotonic() - started}
    bars = {"violations": Bar("<=", 0), **({"faults": Bar(">=", FAULTS_WANTED)} if size == "full" else {})}
    rows: list[dict[str, Any]] = [{"fault": str(fault), "times": bench.journal.faults[fault]} for fault in Fault]
    return Result(
        name="faults",
        figures=figures,
        rows=[{"seed": seed}, *rows],
        bars=bars,
        notes=bench.notes,
        violations=[str(each) for each in found],
    )


def _figures(bench: "Bench", found: Sequence[Violation]) -> dict[str, float]:
    pacs = bench.evidence.pacs
    return {
        "faults": bench.journal.faults.total(),
        "violations": len(found),
        "instances_lost": sum(each.wrong is Wrong.LOST for each in found),
        "instances_answered_success": len(bench.journal.accepted),
        "objects_in_pacs": len(pacs.held()),
        "objects_sent_again": len(pacs.arrived) - len(pacs.held()),
    }


def _unfound(evidence: Evidence) -> list[Violation]:
    """Plant losses, and return those that the checks do not find: then they prove nothing."""
    planted = plant_losses(evidence)
    found = [each.wrong for each in violations(evidence)]
    missed = [what for wrong, what in planted.items() if wrong not in found]
    if found.count(Wrong.LOST) < LOST_BY_PLANTING:
        missed.append(f"only {found.count(Wrong.LOST)} of {LOST_BY_PLANTING} planted losses of instances")
    return [Violation(wrong=Wrong.BLIND, story=each) for each in missed]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A running service with all that is done to it."""

    seed: int
    plan: Plan
    service: Service
    chaos: Chaos
    tls: ssl.SSLContext
    tls_port: int
    evidence: Evidence
    notes: list[str]

    @property
    def journal(self) -> Journal:
        """Return what was heard and broken."""
        return self.evidence.journal

    def break_all(self) -> list[Violation]:
        """Send all groups while things break, wait until all is done, restart, and return what is wrong."""
        try:
            self._send_all()
            self._come_to_rest()
        except RuntimeError as gone:
            return [Violation(wrong=Wrong.NOT_STARTED, story=str(gone)), *violations(self.evidence)]
        return violations(self.evidence)

    def _send_all(self) -> None:
        groups = [self._group(number) for number in range(self.plan.groups)]
        late: Sequence[Scanner] = ()
        for number, group in enumerate(groups):
            _say(f"group {number + 1} of {self.plan.groups}, {self.journal.faults.total()} faults so far")
            late = groups[number - LATE_BY] if number >= LATE_BY else ()
            self._at_once(group, late)
        for group in groups[-LATE_BY:]:
            self._wait_for_rest()
            self._at_once((), group)

    def _at_once(self, now: Sequence[Scanner], late: Sequence[Scanner]) -> None:
        """Let scanners send side by side, while one of each fault happens around those that begin."""
        with ThreadPoolExecutor(2 * AT_ONCE) as pool:
            sending = [pool.submit(each.send) for each in now] + [pool.submit(each.send_late) for each in late]
            for fault in self._around() if now else ():
                self.chaos.after(BETWEEN_S, fault)
            for each in sending:
                each.result()

    def _around(self) -> Sequence[Fault]:
        return self.chaos.rng.sample(AROUND, len(AROUND))

    def _group(self, group: int) -> list[Scanner]:
        return [self._scanner(group * AT_ONCE + place, group, place) for place in range(AT_ONCE)]

    def _scanner(self, number: int, group: int, place: int) -> Scanner:
        rng = random.Random(f"{self.seed} {number}")
        is_flipped = group % 2 == 0 and place > 0
        plan = _flipped(self.seed, number, tls=place == 1) if is_flipped else _broken(self.seed, number, rng)
        return Scanner(
            plan=plan,
            to=Peer(port=self.service.port, tls_port=self.tls_port, tls=self.tls),
            pace_s=self.plan.pace_s,
            journal=self.journal,
            rng=rng,
        )

    def _wait_for_rest(self) -> None:
        try:
            wait_until(self.service.is_idle, within_s=DONE_WITHIN_S, what="the service to have done all")
        except TimeoutError as late:
            self.journal.note(str(late))  # which the checks tell by what is stuck

    def _come_to_rest(self) -> None:
        """Let the service end its work, then start it once more: what is half-written must go then."""
        self._wait_for_rest()
        self.service.stop()
        self.service.start()
        self._wait_for_rest()
        self.service.stop()


def _broken(seed: int, number: int, rng: random.Random) -> StudyPlan:
    """Plan a study whose sender breaks off, repeats itself, shuffles and forgets."""
    slices = list(make_study(seed, number))
    at = rng.sample(range(len(slices)), BREAKS_OF_A_STUDY)
    breaks = {each: rng.choice(CUTS) for each in at[1:]} | {at[0]: Fault.SENT_TWICE}
    late = [slices.pop(rng.randrange(len(slices))) for _ in range(rng.choice((0, 1, 2)))]
    if rng.random() < 0.5:
        rng.shuffle(slices)
    return StudyPlan(slices=tuple(slices), breaks=breaks, late=late, tls=rng.random() < 0.25)


def _flipped(seed: int, number: int, *, tls: bool) -> StudyPlan:
    return StudyPlan(slices=make_study(seed, number), breaks={}, tls=tls, flips=FLIPS_OF_A_STUDY)


@contextmanager
def bench_for(seed: int, plan: Plan) -> Iterator[Bench]:
    """Start a service on a small disk, with TLS and a PACS; all of it ends with the block."""
    notes: list[str] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ctriage-faults-")))
        state_dir = folder / "state"
        ballast: Path | None = state_dir / "ballast"
        try:
            stack.enter_context(small_disk(state_dir, plan.disk_mb))
        except NoSmallDisk as none:
            ballast = None
            notes.append(f"{Fault.DISK_FILLED}: {none}")
        pacs, journal = ReceivingPacs(), Journal()
        pacs.start()
        stack.callback(pacs.stop)
        settings, context = _with_tls(folder)
        service = stack.enter_context(running(Service(state_dir, {**settings, "destination": [_destination(pacs)]})))
        chaos = Chaos(service=service, pacs=pacs, journal=journal, rng=random.Random(seed), ballast=ballast)
        yield Bench(
            seed=seed,
            plan=plan,
            service=service,
            chaos=chaos,
            tls=context,
            tls_port=settings["listener"]["tls_port"],
            evidence=Evidence(state_dir=state_dir, journal=journal, pacs=pacs, sent_kinds=SENT_KINDS),
            notes=notes,
        )


def _destination(pacs: ReceivingPacs) -> dict[str, Any]:
    peer = {"name": "pacs", "ae_title": pacs.ae_title, "host": "127.0.0.1", "port": pacs.port}
    return {**peer, "send": SENT_KINDS}


def _with_tls(folder: Path) -> tuple[Mapping[str, Any], ssl.SSLContext]:
    """Return the service's settings, and how a scanner with a certificate speaks to it."""
    authority = trustme.CA()
    ours, scanner = authority.issue_cert("localhost"), authority.issue_cert("scanner.example")
    authority.cert_pem.write_to_path(folder / "authority.pem")
    ours.private_key_pem.write_to_path(folder / "key.pem")
    chain = b"".join(each.bytes() for each in ours.cert_chain_pems)
    (folder / "certificate.pem").write_bytes(chain)
    (folder / "key.pem").chmod(0o600)
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    authority.configure_trust(context)
    scanner.configure_cert(context)
    settings = {
        "arrival": {"quiet_s": 2, "settle_s": 1},
        "disk": {"free_mb": 64},
        "outputs": {"render": False, "mip": False, "mpr_step_mm": 40, "mpr_thickness_mm": 40},
        "listener": {"tls_port": free_port()},
        "tls": {
            "certificate": str(folder / "certificate.pem"),
            "private_key": str(folder / "key.pem"),
            "authorities": str(folder / "authority.pem"),
        },
    }
    return settings, context


def _say(what: str) -> None:
    sys.stderr.write(what + "\n")
