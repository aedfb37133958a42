"""Is it told what a peer does not hold of what it said it took, and is just that sent again?"""

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification
from typer.testing import CliRunner

from pacs_bridge.archive import Archive
from pacs_bridge.cli import app
from pacs_bridge.forward_ledger import ForwardLedger
from pacs_bridge.forward_reconcile import held_in_list
from pacs_bridge.forward_rules import rules_of
from pacs_bridge.instance import read_facts
from pacs_bridge.part10 import read_file
from pacs_bridge.send import Peer, send_files
from pacs_bridge.settings import Destination, Forward, Settings
from pacs_bridge.status import read_status
from scheduler.database import Database
from scheduler.sqlite_queue import SqliteQueue

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
Sent = Callable[..., Path]


@pytest.fixture
def files(shared_data: Path) -> list[Path]:
    """Return real slices of two studies."""
    heads = sorted((shared_data / "head_ge_tilted").glob("*.dcm"))[:3]
    return [*heads, *sorted((shared_data / "chest_1mm").glob("*.dcm"))[:2]]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Sent]:
    """Return a maker of a service's state in which files were passed on to pacs; gives the settings file."""
    databases: list[Database] = []

    def make(files: Sequence[Path], host: str = "127.0.0.1", port: int = 1, refused: int = 0) -> Path:
        pacs = Destination(name="pacs", ae_title="ORTHANC", host=host, port=port)
        settings = Settings(state_dir=tmp_path / "state", destination=(pacs,), forward=(Forward(to="pacs"),))
        settings.state_dir.mkdir()
        database = Database(settings.database)
        databases.append(database)
        archive = Archive(settings.state_dir, database, free_space_floor_bytes=0)
        SqliteQueue(database)
        forwards = ForwardLedger(database, rules_of(settings), settings.state_dir / "archive")
        for path in files:
            file = read_file(path)
            dataset = path.read_bytes()[file.offset :]
            facts = read_facts(dataset, file.transfer_syntax)
            archive.add(facts, archive.store(facts, dataset, file.transfer_syntax, "CT01"), "CT01", NOW)
            forwards.note(facts, "CT01", NOW)
        for waiting in forwards.unbatched():
            ids = [number for number, _ in forwards.unbatched_sizes(waiting)]
            number = forwards.make_batch(waiting, ids)
            refusals = dict.fromkeys(ids[:refused], "no such class")
            forwards.settle("pacs", number, arrived=ids[refused:], refused=refusals, at=NOW)
        config = tmp_path / "ctriage.toml"
        config.write_text(
            f'state_dir = "state"\n[[destination]]\nname = "pacs"\nae_title = "ORTHANC"\n'
            f'host = "{host}"\nport = {port}\n'
        )
        return config

    yield make
    for each in databases:
        each.close()


def uid_of(path: Path) -> str:
    return read_file(path).sop_instance_uid


def run(config: Path, *arguments: object) -> Any:
    return CliRunner().invoke(app, ["forward", *map(str, arguments), "--config", str(config)])


def pending(config: Path) -> int:
    rows = read_status(config.parent / "state" / "ctriage.sqlite")["forwards"]
    return sum(row["pending"] for row in rows)


def test_what_a_list_does_not_name_is_missing_and_sent_again(service: Sent, files: list[Path], tmp_path: Path) -> None:
    config = service(files)
    held = tmp_path / "held.csv"
    held.write_text("SOPInstanceUID;size\n" + "\n".join(f"{uid_of(path)};12" for path in files[1:]))
    told = run(config, "reconcile", "pacs", "--uids", held, "--json")
    found = json.loads(told.stdout)
    missing = {uid for study in found["studies"] for uid in study["missing"]}
    assert (1, {uid_of(files[0])}, 0, 5) == (
        told.exit_code,
        missing,
        found["resent"],
        sum(study["sent"] for study in found["studies"]),
    )
    assert 0 == pending(config)
    again = run(config, "reconcile", "pacs", "--uids", held, "--resend")
    assert (0, 1) == (again.exit_code, pending(config))
    assert "holds 4 of 5" in again.stdout
    assert uid_of(files[0]) not in again.stdout


def test_one_study_can_be_asked_for(service: Sent, files: list[Path], tmp_path: Path) -> None:
    config = service(files)
    empty = tmp_path / "held"
    empty.write_text("")
    keys = [row["study_key"] for row in read_status(tmp_path / "state" / "ctriage.sqlite")["studies"]]
    run(config, "reconcile", "pacs", "--uids", empty, "--study", keys[0], "--resend")
    assert pending(config) in (2, 3)
    assert 1 == run(config, "reconcile", "pacs", "--uids", empty, "--study", "0123456789ab").exit_code


def test_orthanc_is_asked_what_it_holds(service: Sent, files: list[Path], orthanc: Any) -> None:
    config = service(files, host=orthanc.host, port=orthanc.dicom_port)
    peer = Peer(ae_title=orthanc.ae_title, host=orthanc.host, port=orthanc.dicom_port)
    orthanc.put("/modalities/ctriage", ["CTRIAGE", orthanc.our_address, 104])
    assert len(files) - 1 == len(send_files(files[1:], peer, calling_ae="CTRIAGE").sent)
    told = run(config, "reconcile", "pacs", "--json")
    assert [uid_of(files[0])] == [uid for study in json.loads(told.stdout)["studies"] for uid in study["missing"]]
    send_files(files[:1], peer, calling_ae="CTRIAGE")
    whole = run(config, "reconcile", "pacs")
    assert (0, "pacs holds 5 of 5 image(s) that it was sent.\n") == (whole.exit_code, whole.stdout)


# pynetdicom drops the socket it could not connect instead of closing it; CPython closes it, and says so.
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
def test_a_peer_that_cannot_be_asked_is_told_with_the_remedy(service: Sent, files: list[Path]) -> None:
    told = run(service(files), "reconcile", "pacs")
    assert (1, True) == (told.exit_code, "--uids" in told.stderr)


def test_a_peer_that_takes_no_queries_is_told_so(service: Sent, files: list[Path]) -> None:
    entity = AE(ae_title="PACS")
    entity.add_supported_context(Verification)
    server = entity.start_server(("127.0.0.1", 0), block=False)
    try:
        told = run(service(files, port=server.server_address[1]), "reconcile", "pacs")
    finally:
        server.shutdown()
    assert (1, True, True) == (told.exit_code, "does not let us query it" in told.stderr, "--uids" in told.stderr)


def test_what_was_refused_is_tried_again(service: Sent, files: list[Path]) -> None:
    config = service(files, refused=1)
    assert 0 == pending(config)
    assert "2 image(s) will be sent to pacs again." in run(config, "retry", "pacs").stdout
    assert (2, 0) == (pending(config), run(config, "retry", "pacs").exit_code)


def test_a_destination_nobody_knows_is_a_mistake(service: Sent, files: list[Path]) -> None:
    told = run(service(files), "retry", "pasc")
    assert (2, True) == (told.exit_code, "the settings name pacs" in " ".join(told.stderr.split()))


def test_uids_are_found_in_any_list() -> None:
    held = held_in_list('"1.2.3.4",x\n1.2.840.5\t7 1.2.3.4.5.dcm a1.9.9')("study", "series")
    assert {"1.2.3.4", "1.2.840.5"} == held
