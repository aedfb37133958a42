"""How are the jobs of storage commitment done: decide about a request, report it, ask a peer to commit?

Tasks run on threads of this process, so that one may write before it speaks: a report can come at any time after.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from sqlite3 import Connection

import structlog
from pydicom.uid import generate_uid

from pacs_bridge import commitment_peers
from pacs_bridge.commitment import (
    COMMITTED,
    NO_SUCH_INSTANCE,
    PROCESSING_FAILURE,
    CommitmentLimits,
    CommitmentRequest,
    Reference,
    Refused,
    Said,
    keepers,
    own_outcome,
    relayed_outcome,
    worded,
    written_report,
)
from pacs_bridge.commitment_audit import given, tell_taken
from pacs_bridge.commitment_durability import Durability
from pacs_bridge.commitment_jobs import (
    MOST_ROUNDS,
    REQUEST,
    committing,
    decided_by,
    delivery_again,
    report_job,
    request_of,
    round_of,
)
from pacs_bridge.commitment_service import Ear, Surroundings, caller_of
from pacs_bridge.commitments import Commitments, Held, KeptRequest, PeerCommitment
from pacs_bridge.deliveries import DELIVER, objects_of
from pacs_bridge.desk import Desk
from pacs_bridge.send import Peer
from pacs_bridge.settings import Settings
from pacs_bridge.tls import client_context
from scheduler.errors import Permanent, Transient
from scheduler.job import Job
from scheduler.worker import Nothing, Task

Outcomes = Mapping[Reference, int]
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class DecideHandler:
    """Decides about a caller's request: by what is here ("own"), or by what peers have said ("relay")."""

    desk: Desk
    commitments: Commitments
    durability: Durability
    limits: CommitmentLimits = field(default_factory=CommitmentLimits)

    def prepare(self, job: Job) -> Task[Outcomes] | Nothing:
        """Judge each instance; raises Transient while some may still come, or be taken on."""
        request = self.commitments.request(request_of(job))
        if request.state != "open":
            return Nothing("it is decided already")
        return self._own(request) if request.asking.mode == "own" else self._relayed(request)

    def _own(self, request: KeptRequest) -> Task[Outcomes]:
        held = self.commitments.held([each.sop_instance_uid for each in request.outcomes])
        missing = sum(each.sop_instance_uid not in held for each in request.outcomes)
        if missing and not self._is_over(request, self.limits.patience_s):
            raise Transient(f"{missing} of {len(request.outcomes)} instances are not here yet")
        return Task(_judged, (tuple(request.outcomes), held, self.durability))

    def _relayed(self, request: KeptRequest) -> Task[Outcomes]:
        is_due = self._is_over(request, self.limits.relay_s)
        said, to = self._said(request), self._passed_on_to(request)
        outcomes: dict[Reference, int] = {}
        for each in request.outcomes:
            uid = each.sop_instance_uid
            of_instance = [said[name].get(uid, Said()) for name in sorted(keepers(said, to.get(uid, ())))]
            outcome = relayed_outcome(of_instance, rounds=self.limits.rounds, is_due=is_due)
            if outcome is not None:
                outcomes[each] = outcome
        left = len(request.outcomes) - len(outcomes)
        if left:
            raise Transient(f"waiting for commitment of {left} instances by {', '.join(said)}")
        return Task(dict, (outcomes,))

    def _said(self, request: KeptRequest) -> Mapping[str, Mapping[str, Said]]:
        """Return what each destination has said: nothing yet where it has not been asked.

        Those that the settings do not name any more are not waited for: what they said counts where none is named.
        """
        said, named = self.commitments.said_of_request(request.id), committing(self.desk.settings)
        uids = [each.sop_instance_uid for each in request.outcomes]
        if not named:
            return {name: _given_up(of_it) for name, of_it in said.items()}
        return {name: marked(said.get(name, {}), self.commitments.still_to_forward(name, uids)) for name in named}

    def _passed_on_to(self, request: KeptRequest) -> Mapping[str, Collection[str]]:
        return self.commitments.passed_on_to([each.sop_instance_uid for each in request.outcomes])

    def _is_over(self, request: KeptRequest, after_s: float) -> bool:
        return self.desk.now() >= request.asked_at + timedelta(seconds=after_s)

    def commit(self, job: Job, result: Outcomes, connection: Connection) -> None:
        """Promise what is kept, and queue the report. What went since it was looked at is not promised."""
        request, outcomes = self.commitments.request(request_of(job)), dict(result)
        if request.asking.mode == "own":
            kept = [each.sop_instance_uid for each, outcome in outcomes.items() if outcome == COMMITTED]
            held = self.commitments.held(kept)
            for each, outcome in result.items():
                if outcome == COMMITTED and each.sop_instance_uid not in held:
                    outcomes[each] = NO_SUCH_INSTANCE
            self.commitments.promise(request.id, list(held), at=self.desk.now())
        self._decide(request, outcomes)

    def failed(self, job: Job, reason: str, connection: Connection) -> None:
        """Nothing could be found out in all attempts: the caller hears so, for it was promised an answer."""
        request = self.commitments.request(request_of(job))
        self._decide(request, dict.fromkeys(request.outcomes, PROCESSING_FAILURE))

    def _decide(self, request: KeptRequest, outcomes: Outcomes) -> None:
        self.commitments.decide(request.id, outcomes)
        held = self.commitments.held([each.sop_instance_uid for each in outcomes])
        for event in given(request.asking, outcomes, held, share_of=self.desk.share_of, at=self.desk.now()):
            self.desk.audit(event)
        self.desk.queue.submit(report_job(request), now=self.desk.now())
        failures = {each: outcome for each, outcome in outcomes.items() if outcome != COMMITTED}
        if failures:
            _log.warning("commitment_failed", caller=request.asking.caller, failures=worded(failures))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportHandler:
    """Tells a caller what became of its request: over an association it has open, else over one of our own."""

    desk: Desk
    commitments: Commitments
    surroundings: Surroundings
    peer_of: Callable[[str, str], Peer | None]

    def prepare(self, job: Job) -> Task[None] | Nothing:
        """Name the report and its ways."""
        request = self.commitments.request(request_of(job))
        if request.state != "decided":
            return Nothing("it is reported already")
        return Task(self._tell, (request,))

    def _tell(self, request: KeptRequest) -> None:
        asking, report = request.asking, written_report(request.report())
        ways = dict.fromkeys(
            (asking.association, self.surroundings.associations.get((asking.caller, asking.address), ""))
        )
        if any(self.surroundings.event_report(way, report) for way in ways if way):
            return
        peer = self.peer_of(asking.caller, asking.address)
        if peer is None:
            raise Transient(
                f"{asking.caller} has hung up and names no port for its report: give its [[caller]] port, "
                "or let it ask again"
            )
        commitment_peers.tell(peer, report, calling_ae=self.desk.settings.listener.ae_title)

    def commit(self, job: Job, result: None, connection: Connection) -> None:
        """Note that it is told, unless it has asked again meanwhile: then it is told again."""
        request = self.commitments.request(request_of(job))
        if request.times == job.payload["times"]:
            self.commitments.set_reported(request.id)

    def failed(self, job: Job, reason: str, connection: Connection) -> None:
        """The buried job is shown by `ctriage status`; a person may bring it back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitHandler:
    """Asks a peer to commit: to what a caller wants kept, or to what we have delivered."""

    desk: Desk
    commitments: Commitments
    ear: Ear
    limits: CommitmentLimits = field(default_factory=CommitmentLimits)

    def prepare(self, job: Job) -> Task[Outcomes] | Nothing:
        """Name the peer and the instances."""
        name = str(job.payload["destination"])
        if name not in committing(self.desk.settings):
            return Nothing("the settings do not say any more that it commits to what it is sent")
        if REQUEST not in job.payload:
            objects = objects_of(self.desk, job)
            references = tuple(
                Reference(sop_class_uid=each.sop_class_uid, sop_instance_uid=each.sop_instance_uid) for each in objects
            )
            return Task(self._ask, (job, name, references)) if references else Nothing("nothing was delivered")
        request = self.commitments.request(request_of(job))
        if request.state != "open":
            return Nothing("its caller has been answered")
        return Task(self._ask, (job, name, tuple(request.outcomes)))

    def _ask(self, job: Job, name: str, references: Sequence[Reference]) -> Outcomes:
        """Ask for what is left, once at a time; return the failures when the peer has spoken about everything."""
        asking = PeerCommitment(
            job=job.key,
            destination=name,
            request_id=request_of(job) if REQUEST in job.payload else None,
            decided_by=decided_by(job),
        )
        commitment = self.commitments.peer_commitment(asking, references)
        left = self._left(commitment)
        since = self.commitments.waiting_since(commitment)
        if left and (since is None or self.desk.now() >= since + timedelta(seconds=self.limits.ask_again_s)):
            self._speak(commitment, left)
            left = self._left(commitment)
        if left:
            raise Transient(self._still_waiting(commitment, left))
        said = self.commitments.said(commitment)
        return {each: of.outcome for each, of in said.items() if of.outcome is not None and of.outcome != COMMITTED}

    def _speak(self, commitment: PeerCommitment, left: Sequence[Reference]) -> None:
        peer = self.desk.destinations[commitment.destination].peer
        if peer is None:
            raise Permanent(f"{commitment.destination} is a folder: it commits to nothing")
        request = CommitmentRequest(transaction_uid=str(generate_uid(prefix=None)), references=tuple(left))
        self.commitments.begin(commitment, request.transaction_uid, at=self.desk.now())
        linger = commitment_peers.Linger(most_s=self.limits.linger_s, is_over=lambda: not self._left(commitment))
        try:
            commitment_peers.ask(
                peer,
                request,
                calling_ae=self.desk.settings.listener.ae_title,
                hear=lambda *said: self._hear(commitment, *said),
                linger=linger,
            )
        except (Transient, Permanent):
            self.commitments.end(request.transaction_uid)
            raise

    def _hear(self, commitment: PeerCommitment, dataset: bytes, transfer_syntax: str, event_type_id: int) -> int:
        try:
            self.ear.hear(dataset, transfer_syntax, event_type_id, is_from=lambda name: name == commitment.destination)
        except Refused as refused:
            return refused.status
        return 0

    def _left(self, commitment: PeerCommitment) -> list[Reference]:
        """Return what the peer is to be asked: what it has not spoken of, and what it may take on when it is there."""
        said = self.commitments.said(commitment)
        if commitment.request_id is None:
            return [each for each, of_it in said.items() if of_it.outcome is None]
        by_uid = {each.sop_instance_uid: of_it for each, of_it in said.items()}
        known = marked(by_uid, self.commitments.still_to_forward(commitment.destination, list(by_uid)))
        return [each for each in said if not known[each.sop_instance_uid].is_final(self.limits.rounds)]

    def _still_waiting(self, commitment: PeerCommitment, left: Sequence[Reference]) -> str:
        said = self.commitments.said(commitment)
        failures = {each: outcome for each in left if (outcome := said[each].outcome) is not None}
        if failures:
            return f"{commitment.destination} does not commit yet to {worded(failures)}"
        return f"waiting for commitment of {len(left)} objects by {commitment.destination}"

    def commit(self, job: Job, result: Outcomes, connection: Connection) -> None:
        """Let a caller's request be decided; send again what a peer did not take on of ours.

        Raises Permanent when sending again has not helped either.
        """
        waiting = decided_by(job)
        if waiting is not None:
            self.desk.queue.hurry(waiting, now=self.desk.now())
            return
        self.commitments.forget_said(job.key)
        tell_taken(self.desk, job, objects_of(self.desk, job), result)
        if result and round_of(job) >= MOST_ROUNDS:
            raise Permanent(f"{job.payload['destination']} does not commit to {worded(result)}: look into its log")
        if result:
            kind = DELIVER + str(job.payload["destination"])
            self.desk.queue.submit(delivery_again(job, list(result), kind=kind), now=self.desk.now())

    def failed(self, job: Job, reason: str, connection: Connection) -> None:
        """Ask this peer no more; what a caller wants is decided without it."""
        self.commitments.give_up(job.key)
        waiting = decided_by(job)
        if waiting is not None:
            self.desk.queue.hurry(waiting, now=self.desk.now())


def marked(said: Mapping[str, Said], awaited: Collection[str]) -> Mapping[str, Said]:
    """Mark the instances that are still on their way."""
    on_the_way = frozenset(awaited)
    return {uid: replace(each, awaited=uid in on_the_way) for uid, each in said.items()}


def _given_up(said: Mapping[str, Said]) -> Mapping[str, Said]:
    return {uid: replace(each, given_up=True) for uid, each in said.items()}


def caller_peers(settings: Settings) -> Callable[[str, str], Peer | None]:
    """Return who is called with a report: the caller's own port, where the settings name one. Raises SettingsError.

    Over TLS where the caller has it; its certificate must then name its address.
    """
    secure = any(each.tls and each.port for each in settings.caller) and settings.tls.authorities
    context = client_context(settings.tls, now=datetime.now(UTC)) if secure else None

    def peer_of(ae_title: str, address: str) -> Peer | None:
        caller = caller_of(settings, ae_title, address)
        if not caller.port:
            return None
        if caller.tls and context is None:
            raise Transient(f"the report to {ae_title} must go over TLS, which needs tls.authorities: give it")
        return Peer(ae_title=ae_title, host=address, port=caller.port, tls=context if caller.tls else None)

    return peer_of


def _judged(references: Sequence[Reference], held: Mapping[str, Held], durability: Durability) -> Outcomes:
    """Judge what is here, once it is on the disk for good: an index row may be a moment older than that of its file."""
    durable = frozenset(durability.of(held))
    outcomes = {}
    for each in references:
        found = held.get(each.sop_instance_uid)
        held_class = None if found is None else found.sop_class_uid
        outcomes[each] = own_outcome(each, held_class=held_class, has_file=each.sop_instance_uid in durable)
    return outcomes
