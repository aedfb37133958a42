"""Is what has ended forgotten after a time, and no promise with it, also not by an upgrade?"""

from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

from pacs_bridge.commitment import COMMITTED, CommitmentRequest, Reference
from pacs_bridge.commitment_testing import SR, STUDY, House, MakeHouse, MakePeer, caller, ct, pacs, publish, rows
from pacs_bridge.commitments import Asking, Commitments
from scheduler.database import Database
from scheduler.job import Status

DAY_S = 86400.0
TABLES = ("commitment_requests", "peer_commitments", "peer_transactions", "peer_commitment_references")


def counted(house: House) -> list[int]:
    return [rows(house, table) for table in TABLES]


def test_a_promise_outlives_the_request_it_was_given_to(own: House) -> None:
    own.ask(*own.receive(1, 2))
    own.run_until(31 * DAY_S)
    own.ask(ct(1), transaction="1.9.2")
    own.run()
    assert [1, 0, 0, 0] == counted(own)
    assert (2, True) == (rows(own, "committed_instances"), own.parts.commitments.is_promised(STUDY))


def test_what_peers_were_asked_is_forgotten_with_the_request_it_was_for(
    make_house: MakeHouse, make_peer: MakePeer
) -> None:
    peer = make_peer(keeps={ct(1).sop_instance_uid})
    house = make_house(caller("relay"), destination=(pacs(peer),), linger_s=10.0)
    house.ask(*house.receive(1))
    house.run()
    assert [1, 1, 1, 0] == counted(house)
    house.run_until(29 * DAY_S)
    house.ask(ct(1), transaction="1.9.2")
    assert 2 == rows(house, "commitment_requests")
    house.run()
    house.run_until(2 * DAY_S)
    house.ask(ct(1), transaction="1.9.3")
    house.run()
    assert [2, 2, 2, 0] == counted(house)


def test_a_number_is_never_used_again_or_its_jobs_would_be_done_already(own: House) -> None:
    own.ask(*own.receive(1))
    own.run_until(31 * DAY_S)
    own.ask(ct(1), transaction="1.9.1")
    own.run()
    assert ["1.9.1", "1.9.1"] == [report.transaction_uid for _, report in own.told]
    assert [COMMITTED] == own.outcomes


def test_what_somebody_still_waits_for_is_not_forgotten(make_house: MakeHouse, make_peer: MakePeer) -> None:
    peer = make_peer()
    house = make_house(caller("own"), destination=(pacs(peer),), linger_s=10.0)
    publish(house)
    house.open = set()
    house.ask(ct(1))
    house.run_until(600)
    assert Status.BURIED in {job.status for job in house.desk.queue.jobs()}
    before = counted(house)
    house.clock.now = datetime(2026, 6, 1, tzinfo=UTC)
    house.ask(ct(1), transaction="1.9.2", calling_ae="CT01")
    assert "decided" == house.parts.commitments.request(1).state
    assert [before[0] + 1, 1] == counted(house)[:2]  # the round that was given up, for a person to look at


def test_an_upgrade_keeps_promises_requests_and_what_peers_were_asked(tmp_path: Path) -> None:
    database = Database(tmp_path / "old.sqlite")
    _as_it_was_before_009(database)
    commitments = Commitments(database, tmp_path)
    request = commitments.request(7)
    assert ("CT01", "10.1.2.3", 3) == (request.asking.caller, request.asking.address, request.times)
    assert {Reference(sop_class_uid=SR, sop_instance_uid="1.5"): None} == request.outcomes
    assert {"pacs"} == set(commitments.said_of_request(7))
    with database.read() as connection:
        assert [("1.5", 7)] == [tuple(row)[:2] for row in connection.execute("select * from committed_instances")]
        assert [] == connection.execute("pragma foreign_key_check").fetchall()
    connection.execute("create table jobs (key text, status text)")
    asked = CommitmentRequest(transaction_uid="1.9", references=tuple(request.outcomes))
    other = Asking(caller="CT01", address="10.1.2.4", association="B", mode="own")
    assert 8 == commitments.accept(other, asked, at=datetime(2026, 1, 2, tzinfo=UTC))
    database.close()


def _as_it_was_before_009(database: Database) -> None:
    with database.read() as connection:
        connection.executescript(
            "create table schema_migrations (package text not null, number integer not null, applied_at text not null"
            " default '', primary key (package, number)) strict"
        )
        for each in sorted(files("pacs_bridge").joinpath("sql/migrations").iterdir(), key=lambda each: each.name):
            if each.name < "009":
                connection.executescript(each.read_text(encoding="utf-8"))
                connection.execute("insert into schema_migrations values ('pacs_bridge', ?, '')", (int(each.name[:3]),))
        connection.executescript(
            f"""
            insert into commitment_requests values
              (7, 'CT01', '10.1.2.3', 'A', '1.9', 'digest', 'relay', '2026-01-01T00:00:00+00:00', 3, 1, 'open');
            insert into commitment_references values (7, 0, '{SR}', '1.5', null);
            insert into committed_instances values ('1.5', 7, '2026-01-01T00:00:00+00:00');
            insert into peer_commitments values (1, 'job', 'pacs', 7, null, 0);
            insert into peer_commitment_references values (1, '{SR}', '1.5', null, 0);
            insert into peer_transactions values ('1.8', 1, '2026-01-01T00:00:00+00:00', 0);
            """
        )
