"""What has been asked of us, promised by us and asked of peers, in storage commitment: the tables, and what they hold.

Writing joins an open transaction. A promise outlives all: retention asks `is_promised` before it removes a study.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from sqlite3 import Row
from typing import Any, Final, Literal

from pacs_bridge.commitment import (
    DUPLICATE_TRANSACTION,
    CommitmentReport,
    CommitmentRequest,
    Placed,
    Reference,
    Said,
)
from scheduler.database import Database, migrate, statements

Mode = Literal["own", "relay"]
RequestState = Literal["open", "decided", "reported"]

KEPT_FOR: Final = timedelta(days=30)
"""How long a request or a transaction that has ended is known; a report or the same request after that is a new one."""
_ENDED: Final = ("ended_commitments", "unasked_commitments")
_FORGET: Final = ("forget_peer_references", "forget_transactions", "forget_peer_commitment")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Who asks, over which association, and how it is to be answered."""

    caller: str
    address: str
    association: str
    mode: Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRequest:
    """A request that was answered Success, and what has become of each of its instances so far (None: open).

    ``times``: how often its caller has asked the same; ``openings``: how often that had to be decided about.
    """

    id: int
    asking: Asking
    transaction_uid: str
    asked_at: datetime
    times: int
    openings: int
    state: RequestState
    outcomes: Mapping[Reference, int | None] = field(repr=False)

    def report(self) -> CommitmentReport:
        """Return what its caller is to hear, once it is decided."""
        decided = {reference: outcome for reference, outcome in self.outcomes.items() if outcome is not None}
        if len(decided) < len(self.outcomes):
            raise ValueError("a request is reported when it is decided")
        return CommitmentReport(transaction_uid=self.transaction_uid, outcomes=decided)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What the archive holds under a SOP Instance UID; ``arriving``: as part of a CT series that still arrives."""

    sop_class_uid: str
    path: Path
    content_hash: str
    study: str
    series: str
    arriving: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerCommitment:
    """What a job asks a peer to keep, for the caller's request ``request_id`` or, where that is None, for us.

    ``decided_by``: the job that waits for the peer's word to decide about the request.
    """

    job: str
    destination: str
    request_id: int | None
    decided_by: str | None
    id: int = 0


class Commitments:
    """The tables of storage commitment, in the same file as index and queue. Threads may share it."""

    def __init__(self, database: Database, archive_dir: Path) -> None:
        """Bring the tables up to date; ``archive_dir`` is where paths of the index start."""
        self._database = database
        self._archive_dir = archive_dir
        migrate(database, "pacs_bridge", "sql/migrations")
        self._sql = statements("pacs_bridge", "sql/commitment.sql")

    # ---- asked of us ------------------------------------------------------------------------------------------------

    def accept(self, asking: Asking, request: CommitmentRequest, *, at: datetime) -> int:
        """Keep a request and return its number; the same request again is the same one, to be reported once more.

        Once it was reported it is open again, for what failed may have come since.

        A Transaction UID that is in use for other instances makes a request that has failed (PS3.4, J.3.3: 0131).
        """
        who = {"caller": asking.caller, "address": asking.address, "association": asking.association}
        with self._database.transaction() as connection:
            self._forget(before=at - KEPT_FOR)
            known = connection.execute(
                self._sql["transactions_of"], {**who, "transaction_uid": request.transaction_uid}
            ).fetchall()
            same = next((row for row in known if row["digest"] == request.digest), None)
            if same is not None:
                connection.execute(self._sql["ask_again"], {**who, "id": same["id"], "asked_at": at.isoformat()})
                if same["state"] == "reported":
                    self._refer(same["id"], request)
                return int(same["id"])
            number = self._added(who, asking.mode, request, at)
            if known:
                self.decide(number, dict.fromkeys(request.references, DUPLICATE_TRANSACTION))
            return number

    def _added(self, who: Mapping[str, str], mode: Mode, request: CommitmentRequest, at: datetime) -> int:
        with self._database.transaction() as connection:
            row = {
                **who,
                "transaction_uid": request.transaction_uid,
                "digest": request.digest,
                "mode": mode,
                "asked_at": at.isoformat(),
            }
            number = int(connection.execute(self._sql["add_request"], row).fetchone()["id"])
            self._refer(number, request)
            return number

    def _refer(self, number: int, request: CommitmentRequest) -> None:
        rows = [_row(each) | {"request_id": number, "place": place} for place, each in enumerate(request.references)]
        with self._database.transaction() as connection:
            connection.executemany(self._sql["add_reference"], rows)

    def request(self, number: int) -> KeptRequest:
        """Return a request by its number. Raises KeyError."""
        with self._database.read() as connection:
            row = connection.execute(self._sql["request"], {"id": number}).fetchone()
            references = connection.execute(self._sql["references_of"], {"id": number}).fetchall()
        if row is None:
            raise KeyError(number)
        return KeptRequest(
            id=row["id"],
            asking=Asking(
                caller=row["caller"], address=row["address"], association=row["association"], mode=row["mode"]
            ),
            transaction_uid=row["transaction_uid"],
            asked_at=datetime.fromisoformat(row["asked_at"]),
            times=row["times"],
            openings=row["openings"],
            state=row["state"],
            outcomes={_reference(each): each["outcome"] for each in references},
        )

    def held(self, sop_instance_uids: Collection[str]) -> Mapping[str, Held]:
        """Return what the archive holds of these instances."""
        named = {"uids": json.dumps(list(sop_instance_uids))}
        return {
            row["sop_instance_uid"]: Held(
                sop_class_uid=row["sop_class_uid"],
                path=self._archive_dir / row["path"],
                content_hash=row["content_hash"],
                study=row["study_instance_uid"],
                series=row["series_instance_uid"],
                arriving=bool(row["arriving"]),
            )
            for row in self._rows("held", **named)
        }

    def in_doubt(self) -> Collection[str]:
        """Return the files of the archive whose fsync has failed: paths below its folder."""
        return [row["path"] for row in self._rows("in_doubt")]

    def doubt(self, paths: Collection[str], *, at: datetime) -> None:
        """Note that an fsync of these files has failed."""
        with self._database.transaction() as connection:
            rows = [{"path": each, "at": at.isoformat()} for each in paths]
            connection.executemany(self._sql["doubt"], rows)

    def trust(self, paths: Collection[str]) -> None:
        """Note that these files have been written anew."""
        with self._database.transaction() as connection:
            connection.executemany(self._sql["trust"], [{"path": each} for each in paths])

    def decide(self, number: int, outcomes: Mapping[Reference, int]) -> None:
        """Note what becomes of every instance of a request; its caller is to hear it next."""
        with self._database.transaction() as connection:
            places = {_reference(row): row["place"] for row in self._rows("references_of", id=number)}
            connection.executemany(
                self._sql["decide"],
                [{"id": number, "place": places[each], "outcome": outcome} for each, outcome in outcomes.items()],
            )
            connection.execute(self._sql["set_request_state"], {"id": number, "state": "decided"})

    def promise(self, number: int, sop_instance_uids: Collection[str], *, at: datetime) -> None:
        """Promise that this archive keeps these instances."""
        with self._database.transaction() as connection:
            connection.executemany(
                self._sql["promise"],
                [{"sop_instance_uid": uid, "id": number, "at": at.isoformat()} for uid in sop_instance_uids],
            )

    def set_reported(self, number: int) -> None:
        """Note that the caller has heard what became of its request, and forget its instances: a day has millions."""
        with self._database.transaction() as connection:
            connection.execute(self._sql["set_request_state"], {"id": number, "state": "reported"})
            connection.execute(self._sql["forget_references"], {"id": number})
            connection.execute(self._sql["forget_said_of_request"], {"id": number})

    def unreported_of(self, asking: Asking) -> list[KeptRequest]:
        """Return the decided requests of which this caller, at this address, has not heard yet, the oldest first."""
        rows = self._rows("unreported_of", caller=asking.caller, address=asking.address)
        return [self.request(row["id"]) for row in rows]

    def is_promised(self, study: str) -> bool:
        """Say whether a study holds anything that was promised to a sender, or is being asked for."""
        return bool(self._rows("is_promised", study_instance_uid=study))

    # ---- asked of peers ---------------------------------------------------------------------------------------------

    def peer_commitment(self, asking: PeerCommitment, references: Collection[Reference]) -> PeerCommitment:
        """Keep what a job asks of a peer, the first time, and return it with its number."""
        row = {
            "job": asking.job,
            "destination": asking.destination,
            "request_id": asking.request_id,
            "decided_by": asking.decided_by,
        }
        with self._database.transaction() as connection:
            connection.execute(self._sql["add_peer_commitment"], row)
            number = int(connection.execute(self._sql["peer_commitment"], row).fetchone()["id"])
            connection.executemany(
                self._sql["add_peer_reference"], [_row(each) | {"id": number} for each in references]
            )
        return replace(asking, id=number)

    def forget_said(self, job: str) -> None:
        """Forget what a peer has said to a job that has ended; a later report is taken and changes nothing."""
        with self._database.transaction() as connection:
            connection.execute(self._sql["forget_said"], {"job": job})

    def said(self, commitment: PeerCommitment) -> Mapping[Reference, Said]:
        """Return what the peer has said so far of each instance."""
        rows = self._rows("peer_references", id=commitment.id)
        return {_reference(row): Said(outcome=row["outcome"], failures=row["failures"]) for row in rows}

    def said_of_request(self, number: int) -> Mapping[str, Mapping[str, Said]]:
        """Return what each destination has said so far of a caller's request: by destination and SOP Instance UID."""
        said: dict[str, dict[str, Said]] = {}
        for row in self._rows("said_of_request", request_id=number):
            of_destination = said.setdefault(row["destination"], {})
            of_destination[row["sop_instance_uid"]] = Said(
                outcome=row["outcome"], failures=row["failures"], given_up=bool(row["given_up"])
            )
        return said

    def give_up(self, job: str) -> None:
        """Note that a job asks its peer no more."""
        with self._database.transaction() as connection:
            connection.execute(self._sql["give_up"], {"job": job})

    def begin(self, commitment: PeerCommitment, transaction_uid: str, *, at: datetime) -> None:
        """Note an N-ACTION before it is sent: its report may come at any time from then on."""
        row = {"id": commitment.id, "transaction_uid": transaction_uid, "asked_at": at.isoformat()}
        with self._database.transaction() as connection:
            self._forget(before=at - KEPT_FOR)
            connection.execute(self._sql["add_transaction"], row)

    def end(self, transaction_uid: str) -> None:
        """Wait no longer for the report of an N-ACTION; it is taken nevertheless, should it come."""
        with self._database.transaction() as connection:
            connection.execute(self._sql["end_transaction"], {"transaction_uid": transaction_uid})

    def waiting_since(self, commitment: PeerCommitment) -> datetime | None:
        """Return when the report that is waited for was last asked for; None where none is."""
        (row,) = self._rows("waiting_since", id=commitment.id)
        return None if row["asked_at"] is None else datetime.fromisoformat(row["asked_at"])

    def transaction(self, transaction_uid: str) -> PeerCommitment | None:
        """Return what was asked under a Transaction UID of ours; None where it is none."""
        for row in self._rows("transaction", transaction_uid=transaction_uid):
            return PeerCommitment(**row)
        return None

    def still_to_forward(self, destination: str, sop_instance_uids: Collection[str]) -> Collection[str]:
        """Return the instances that are still on their way to a destination."""
        uids = json.dumps(list(sop_instance_uids))
        return [row["sop_instance_uid"] for row in self._rows("still_to_forward", destination=destination, uids=uids)]

    def passed_on_to(self, sop_instance_uids: Collection[str]) -> Mapping[str, Collection[str]]:
        """Return the destinations that instances are passed on to, or were; none is named where no rule says so."""
        names: dict[str, list[str]] = {}
        for row in self._rows("passed_on_to", uids=json.dumps(list(sop_instance_uids))):
            names.setdefault(row["sop_instance_uid"], []).append(row["destination"])
        return names

    def hear(self, commitment: PeerCommitment, report: CommitmentReport) -> None:
        """Note what a peer reports; instances that were not asked for are passed over."""
        with self._database.transaction() as connection:
            connection.executemany(
                self._sql["peer_said"],
                [
                    {"id": commitment.id, "sop_instance_uid": each.sop_instance_uid, "outcome": outcome}
                    for each, outcome in report.outcomes.items()
                ],
            )
            self.end(report.transaction_uid)

    def _forget(self, *, before: datetime) -> None:
        """Forget what was asked before that instant and has ended, some of it at a time: promises alone stay."""
        long_ago = {"before": before.isoformat()}
        with self._database.transaction() as connection:
            ended = [{"id": row["id"]} for name in _ENDED for row in self._rows(name, **long_ago)]
            for statement in _FORGET:
                connection.executemany(self._sql[statement], ended)
            connection.execute(self._sql["forget_requests"], long_ago)

    def _rows(self, statement: str, **values: Any) -> list[Row]:
        with self._database.read() as connection:
            return connection.execute(self._sql[statement], values).fetchall()


def arriving(request: CommitmentRequest, held: Mapping[str, Held]) -> list[Placed]:
    """Name the instances of a request that belong to CT series which are still arriving."""
    return [
        Placed(study=found.study, series=found.series, reference=each)
        for each in request.references
        if (found := held.get(each.sop_instance_uid)) and found.arriving
    ]


def _reference(row: Row) -> Reference:
    return Reference(sop_class_uid=row["sop_class_uid"], sop_instance_uid=row["sop_instance_uid"])


def _row(reference: Reference) -> dict[str, Any]:
    return {"sop_class_uid": reference.sop_class_uid, "sop_instance_uid": reference.sop_instance_uid}
