"""Can what waits for a destination that is gone be given up, and only that?"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pacs_bridge.archive import Archive
from pacs_bridge.cli import app
from pacs_bridge.forward_ledger import ForwardLedger
from pacs_bridge.forward_rules import rules_of
from pacs_bridge.instance import InstanceFacts
from pacs_bridge.settings import Destination, Forward, Settings
from scheduler.database import Database
from scheduler.job import JobRequest, Status
from scheduler.sqlite_queue import SqliteQueue

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
EXPLICIT = "1.2.840.10008.1.2.1"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Return a state in which three images are promised to old and new: sent, in a held job, and without one."""
    names = ("old", "new")
    peers = tuple(Destination(name=name, ae_title=name.upper(), host="127.0.0.1", port=1) for name in names)
    settings = Settings(
        state_dir=tmp_path / "state", destination=peers, forward=tuple(Forward(to=each.name) for each in peers)
    )
    settings.state_dir.mkdir()
    found = Database(settings.database)
    archive = Archive(settings.state_dir, found, free_space_floor_bytes=0)
    forwards, queue = ForwardLedger(found, rules_of(settings), tmp_path), SqliteQueue(found)
    for number in range(3):
        facts = InstanceFacts(
            study_instance_uid="1.2.3",
            series_instance_uid="1.2.3.4",
            sop_instance_uid=f"1.2.3.4.{number}",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        )
        archive.add(facts, archive.store(facts, b"%d" % number, EXPLICIT, "CT01"), "CT01", NOW)
        forwards.note(facts, "CT01", NOW)
    for waiting in forwards.unbatched():
        ids = [number for number, _ in forwards.unbatched_sizes(waiting)]
        batch = forwards.make_batch(waiting, ids[:2])
        forwards.settle(waiting.destination, batch, arrived=ids[:1], refused={}, at=NOW)
        for kind in ("forward", "deliver"):
            key = f"{kind}:{waiting.destination}"
            queue.submit(JobRequest(key=f"{key}:{batch}", kind=key), now=NOW)
            queue.hold(f"{key}:{batch}", "not in the settings")
    yield found
    found.close()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return settings that name new, and not old any more."""
    path = tmp_path / "ctriage.toml"
    path.write_text(
        'state_dir = "state"\n[[destination]]\nname = "new"\nae_title = "NEW"\nhost = "127.0.0.1"\nport = 1\n'
    )
    return path


def run(config: Path, name: str) -> Any:
    return CliRunner().invoke(app, ["forward", "drop", name, "--config", str(config)])


def standing(database: Database) -> list[tuple[str, str]]:
    with database.read() as connection:
        rows = connection.execute("select destination, state from forwards order by destination, state").fetchall()
    return [(row["destination"], row["state"]) for row in rows]


def test_what_waits_for_a_lost_destination_is_given_up_and_what_it_got_stays_noted(
    database: Database, config: Path
) -> None:
    told = run(config, "old")
    assert (0, "2 image(s) and 2 job(s) that waited for old are given up.\n") == (told.exit_code, told.stdout)
    assert [("new", "pending"), ("new", "pending"), ("new", "sent"), ("old", "sent")] == standing(database)
    jobs = {job.kind: job.status for job in SqliteQueue(database).jobs()}
    assert {
        "forward:old": Status.CANCELLED,
        "deliver:old": Status.CANCELLED,
        "forward:new": Status.HELD,
        "deliver:new": Status.HELD,
    } == jobs
    assert "0 image(s) and 0 job(s)" in run(config, "old").stdout


@pytest.mark.parametrize("name", ["new", "results"])
def test_a_destination_that_there_is_is_not_dropped(database: Database, config: Path, name: str) -> None:
    before = standing(database)
    assert (2, before) == (run(config, name).exit_code, standing(database))
