"""The load: small studies, and scanners that send them while things break; every answer is written down.

A scanner does what scanners do: it sends an instance again until it hears Success. What breaks on its side (its socket,
its order, its memory of what it has sent) is planned beforehand, from a seed.
"""

import random
import ssl
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from benchmarks.faults_proxy import Flip, FlippingLine, datasets_in, flipping
from benchmarks.wire import CT_IMAGE, SUCCESS, Association, Broken, associate
from pipeline.phantom.patient import make_patient
from pipeline.phantom.scan import ScanOptions
from pipeline.phantom.series import write_series

SLICES, SIDE = 24, 64
PDU_BYTES = 3000
"""Small enough for an instance to be several PDUs."""

ANSWER_WITHIN_S = 30.0
DAMAGED_ANSWER_WITHIN_S = 4.0
"""A damaged length makes both sides wait for the other."""

SENT_WITHIN_S = 240.0
STORY_EVENTS = 40
PAUSE_S = 0.25
MAY_PASS = (0xA700, 0x0110)
"""Statuses after which a scanner tries again: out of resources, processing failure."""


class Fault(StrEnum):
    """What breaks, in the words that are printed."""

    SERVICE_KILLED = "service killed"
    RECEIVER_KILLED = "receiver process killed"
    WORKER_KILLED = "worker killed"
    PACS_STOPPED = "receiving PACS stopped"
    DISK_FILLED = "disk filled"
    SOCKET_RESET = "socket reset"
    HALF_CLOSED = "socket half closed"
    ABORTED = "association aborted"
    SENT_TWICE = "instance sent twice"
    SENT_LATE = "instance sent late"
    OUT_OF_ORDER = "study sent out of order"
    FLIPPED_PLAIN = "byte flipped in clear"
    FLIPPED_TLS = "byte flipped under TLS"


CUTS = (Fault.SOCKET_RESET, Fault.HALF_CLOSED, Fault.ABORTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """An instance as its scanner has it."""

    study: int
    number: int
    sop_instance_uid: str
    dataset: bytes = field(repr=False)

    @property
    def name(self) -> str:
        """Name it in a story."""
        return f"study {self.study}, slice {self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPlan:
    """How a study is sent: in which order, what breaks at which slice, what comes late, and over which line.

    ``flips``: so many of its associations have one byte damaged, each.
    """

    slices: Sequence[Slice]
    breaks: dict[int, Fault]
    late: Sequence[Slice] = ()
    tls: bool = False
    flips: int = 0

    @property
    def is_damaged(self) -> bool:
        """Say whether bytes of it may reach the receiver changed, with nobody to notice."""
        return bool(self.flips) and not self.tls


@lru_cache(maxsize=1)
def _patient_slices() -> tuple[Dataset, ...]:
    """Make one digital patient with a bleed, whose slices all studies are made of."""
    options = ScanOptions(rows=SIDE, columns=SIDE, slice_count=SLICES)
    with tempfile.TemporaryDirectory() as folder:
        files = write_series(make_patient("head-bleed", seed=1, options=options), Path(folder)).files
        return tuple(pydicom.dcmread(path) for path in files)


def make_study(seed: int, number: int) -> tuple[Slice, ...]:
    """Return the slices of study ``number`` of a run, feet to head: a patient, study and series of their own."""
    slices = []
    root = f"2.25.9{seed % 10**6:06d}{number:06d}"
    for at, header in enumerate(_patient_slices()):
        header.PatientID = f"FAULTS-{number}"
        header.StudyInstanceUID, header.SeriesInstanceUID = f"{root}1", f"{root}2"
        header.SOPInstanceUID = f"{root}3{at:04d}"
        uid = str(header.SOPInstanceUID)
        slices.append(Slice(study=number, number=at, sop_instance_uid=uid, dataset=_encoded(header)))
    return tuple(slices)


def _encoded(header: Dataset) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, header)
    return buffer.getvalue()


def digest(dataset: bytes) -> bytes:
    """Name a content."""
    return blake2b(dataset, digest_size=16).digest()


class Journal:
    """What the scanners heard and what was broken when. Threads share it."""

    def __init__(self) -> None:
        """Begin at zero seconds."""
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._events: list[tuple[float, str, Slice | None]] = []
        self.faults: Counter[Fault] = Counter()
        self.accepted: dict[tuple[str, bytes], Slice] = {}
        """(SOP Instance UID, content) of all that was answered Success."""
        self.reached: set[bytes] = set()
        """Every content that a receiver may have understood."""
        self.problems: list[str] = []

    def fault(self, fault: Fault, of: Slice | None = None, detail: str = "") -> None:
        """Count a fault."""
        with self._lock:
            self.faults[fault] += 1
        self.note(f"{fault} {detail}".strip(), of)

    def note(self, what: str, of: Slice | None = None) -> None:
        """Write down what happened, to one instance or to all."""
        with self._lock:
            self._events.append((time.monotonic() - self._started, what, of))

    def accept(self, each: Slice, dataset: bytes) -> None:
        """Write down that the receiver answered Success to a content."""
        with self._lock:
            self.accepted[(each.sop_instance_uid, digest(dataset))] = each
        self.note("answered Success", each)

    def reach(self, dataset: bytes) -> None:
        """Write down that a content was on its way."""
        with self._lock:
            self.reached.add(digest(dataset))

    def problem(self, what: str, of: Slice) -> None:
        """Write down what must not happen while sending."""
        with self._lock:
            self.problems.append(f"{of.name}: {what}; {self._story(of)}")

    def story(self, of: Slice) -> str:
        """Tell what happened to an instance, and to everybody around the time of its last answer."""
        with self._lock:
            return self._story(of)

    def _story(self, of: Slice) -> str:
        own = [at for at, _, who in self._events if who == of]
        last = own[-1] if own else 0.0
        told = [
            f"{at:.2f} s {what}"
            for at, what, who in self._events
            if who == of or (who is None and own and own[0] - 1 < at < last + 6)
        ]
        return "; ".join(
            told if len(told) <= STORY_EVENTS else [*told[: STORY_EVENTS // 2], "...", *told[-STORY_EVENTS // 2 :]]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Where the service listens on this machine, in clear and under TLS."""

    port: int
    tls_port: int
    tls: ssl.SSLContext


@dataclass(kw_only=True)
class Scanner:
    """Sends one study to the end, whatever breaks; an image is ready every ``pace_s``, now sooner, now later."""

    plan: StudyPlan
    to: Peer
    pace_s: float
    journal: Journal
    rng: random.Random
    _pause: threading.Event = field(default_factory=threading.Event)

    def send(self) -> None:
        """Send all but what comes late, until each instance was answered Success; problems are in the journal."""
        if list(self.plan.slices) != sorted(self.plan.slices, key=lambda each: each.number):
            self.journal.fault(Fault.OUT_OF_ORDER, self.plan.slices[0])
        self._send(deque(self.plan.slices))

    def send_late(self) -> None:
        """Send what was held back."""
        for each in self.plan.late:
            self.journal.fault(Fault.SENT_LATE, each)
        self._send(deque(self.plan.late))

    def _send(self, pending: deque[Slice]) -> None:
        deadline = time.monotonic() + SENT_WITHIN_S
        flips = self.plan.flips
        breaks = dict(self.plan.breaks)
        while pending:
            if time.monotonic() > deadline:
                self.journal.problem(f"could not be sent within {SENT_WITHIN_S:.0f} s", pending[0])
                return
            try:
                if flips:
                    flips -= self._pass_damaged(pending)
                else:
                    self._pass(pending, breaks, deadline)
            except Broken as broken:
                self.journal.note(f"association broke: {broken}", pending[0] if pending else None)
                self._pause.wait(self.rng.uniform(0, 2 * PAUSE_S))

    # ---- a line that is whole ---------------------------------------------------------------------------------------

    def _pass(self, pending: deque[Slice], breaks: dict[int, Fault], until: float) -> None:
        """Send over one association until all is sent, or it is to break here, or breaks by itself."""
        with self._associated(self._target, ANSWER_WITHIN_S) as association:
            while pending and time.monotonic() < until:
                each = pending[0]
                fault = breaks.pop(each.number, None)
                self._pause.wait(self.rng.uniform(0, 2 * self.pace_s))
                if fault in CUTS:
                    self._cut(association, each, fault)
                    return
                self._store(association, each, pending)
                if fault is Fault.SENT_TWICE:
                    self.journal.fault(fault, each)
                    self._store(association, each, pending)
            association.release()

    def _store(self, association: Association, each: Slice, pending: deque[Slice]) -> None:
        self.journal.reach(each.dataset)
        status = association.store(CT_IMAGE, each.sop_instance_uid, each.dataset)
        if status == SUCCESS:
            self.journal.accept(each, each.dataset)
        elif status in MAY_PASS:
            self.journal.note(f"answered {status:#06x}", each)
            self._pause.wait(self.rng.uniform(0, 2 * PAUSE_S))
            return
        else:
            self.journal.problem(f"a whole instance was refused with {status:#06x}", each)
        if pending and pending[0] is each:
            pending.popleft()

    def _cut(self, association: Association, each: Slice, fault: Fault) -> None:
        """Break off somewhere in a request, or after its end, before the answer."""
        request = association.store_request(CT_IMAGE, each.sop_instance_uid, each.dataset)
        at = self.rng.randint(1, len(request))
        self.journal.reach(each.dataset)
        association.send_raw(request[:at])
        self.journal.fault(fault, each, f"after {at} of {len(request)} bytes")
        if fault is Fault.SOCKET_RESET:
            association.reset()
        elif fault is Fault.ABORTED:
            association.abort()
        else:
            association.half_close()
            self._hear_the_end(association, each)

    def _hear_the_end(self, association: Association, each: Slice) -> None:
        """Listen on after saying that nothing more comes: a whole request may still be answered."""
        try:
            if association.status() == SUCCESS:
                self.journal.accept(each, each.dataset)
        except Broken as broken:
            self.journal.note(f"after the half close: {broken}", each)

    # ---- a line that flips a byte -----------------------------------------------------------------------------------

    def _pass_damaged(self, pending: deque[Slice]) -> bool:
        """Send over one association of which one byte is damaged; returns whether so much was sent that it was."""
        about = sum(len(each.dataset) + 200 for each in pending)
        flip = Flip(at=self.rng.randrange(about), mask=1 << self.rng.randrange(8))
        heard: list[tuple[Slice, int]] = []
        with flipping(self._target, flip) as line:
            try:
                with self._associated(line.address, DAMAGED_ANSWER_WITHIN_S) as association:
                    self._store_all(association, pending, heard)
            except Broken as broken:
                self.journal.note(f"damaged association broke: {broken}", pending[0] if pending else None)
                self._pause.wait(self.rng.uniform(0, 2 * PAUSE_S))
        self._conclude(line, heard, flip)
        return line.has_flipped

    def _store_all(self, association: Association, pending: deque[Slice], heard: list[tuple[Slice, int]]) -> None:
        for each in list(pending):
            self._pause.wait(self.rng.uniform(0, 2 * self.pace_s))
            if self.plan.tls:
                self.journal.reach(each.dataset)
            status = association.store(CT_IMAGE, each.sop_instance_uid, each.dataset)
            heard.append((each, status))
            self.journal.note(f"over a damaged line: answered {status:#06x}", each)
            if status == SUCCESS:
                pending.remove(each)
        association.release()

    def _conclude(self, line: FlippingLine, heard: Sequence[tuple[Slice, int]], flip: Flip) -> None:
        """Note what the receiver has promised to keep: under TLS what was sent, in clear what reached its socket."""
        if line.has_flipped:
            fault = Fault.FLIPPED_TLS if self.plan.tls else Fault.FLIPPED_PLAIN
            self.journal.fault(fault, self.plan.slices[0], f"at {flip.at}, bits {flip.mask:#04x}")
        reached = [each.dataset for each, _ in heard] if self.plan.tls else datasets_in(bytes(line.forwarded))
        for dataset in reached:
            self.journal.reach(dataset)
        for at, (each, status) in enumerate(heard):
            if status != SUCCESS:
                continue
            if at < len(reached):
                self.journal.accept(each, reached[at])
            else:
                self.journal.problem("Success for what never reached the receiver whole", each)

    @property
    def _target(self) -> tuple[str, int]:
        return ("127.0.0.1", self.to.tls_port if self.plan.tls else self.to.port)

    @contextmanager
    def _associated(self, address: tuple[str, int], answer_within_s: float) -> Iterator[Association]:
        tls = self.to.tls if self.plan.tls else None
        with associate(address, calling="SCANNER", tls=tls, timeout_s=answer_within_s) as association:
            association.at_most(PDU_BYTES)
            yield association
