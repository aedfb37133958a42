"""Is nothing promised whose way to the disk has failed once, however well a second try seems to go?"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from pacs_bridge.commitment import COMMITTED, PROCESSING_FAILURE
from pacs_bridge.commitment_durability import Durability
from pacs_bridge.commitment_handlers import DecideHandler
from pacs_bridge.commitment_jobs import DECIDE
from pacs_bridge.commitment_testing import STUDY, House, MakeHouse, caller, ct, rows


@dataclass(kw_only=True)
class Disk:
    """A disk as Linux shows it: it tells of a failed write once for each file, and of none after that."""

    failing: set[int] = field(default_factory=set)
    takes_copies: bool = True
    synced: list[int] = field(default_factory=list)
    first_files: set[int] = field(default_factory=set)

    def sync(self, descriptor: int) -> None:
        inode = os.fstat(descriptor).st_ino
        if inode in self.failing:
            self.failing.remove(inode)
            raise OSError(5, "Input/output error")
        if not self.takes_copies and inode not in self.first_files:
            raise OSError(5, "Input/output error")
        self.synced.append(inode)


def on(house: House, disk: Disk, *, sync_names: Callable[[Path], None] | None = None) -> House:
    """Let a house's requests be decided about by what this disk says."""
    disk.first_files = {file_of(house, n).stat().st_ino for n in range(1, 1 + rows(house, "instances"))}
    archive_dir = house.desk.settings.state_dir / "archive"
    durability = Durability(
        commitments=house.parts.commitments, archive_dir=archive_dir, now=house.clock, sync=disk.sync
    )
    if sync_names:
        durability = replace(durability, sync_names=sync_names)
    handler = house.parts.handlers[DECIDE]
    assert isinstance(handler, DecideHandler)
    decide = replace(handler, durability=durability)
    house.parts = replace(house.parts, handlers={**house.parts.handlers, DECIDE: decide})
    return house


def heard(house: House, *numbers: int) -> list[int]:
    """Return the outcomes of slices in the last report."""
    return [house.told[-1][1].outcomes[ct(number)] for number in numbers]


def file_of(house: House, number: int) -> Path:
    held = house.parts.commitments.held([ct(number).sop_instance_uid])
    return held[ct(number).sop_instance_uid].path


def test_a_failed_fsync_is_a_failure_and_the_file_is_written_anew(own: House) -> None:
    own.receive(1, 2)
    broken = file_of(own, 1)
    content, inode = broken.read_bytes(), broken.stat().st_ino
    disk = Disk(failing={inode})
    on(own, disk)
    own.ask(ct(1), ct(2))
    own.run()
    assert [PROCESSING_FAILURE, COMMITTED] == heard(own, 1, 2)
    assert (content, True) == (broken.read_bytes(), broken.stat().st_ino != inode)
    assert broken.stat().st_ino in disk.synced
    own.ask(ct(1), ct(2), transaction="1.9.2")
    own.run()
    assert [COMMITTED, COMMITTED] == own.outcomes
    assert 0 == rows(own, "files_in_doubt")


def test_what_could_not_be_written_anew_stays_in_doubt_over_a_restart(make_house: MakeHouse) -> None:
    house = make_house(caller("own"))
    house.receive(1)
    inode = file_of(house, 1).stat().st_ino
    on(house, Disk(failing={inode}, takes_copies=False))
    house.ask(ct(1))
    house.run()
    assert ([PROCESSING_FAILURE], 1) == (house.outcomes, rows(house, "files_in_doubt"))
    for transaction in ("1.9.2", "1.9.3"):  # its own fsync would succeed from now on
        house = on(make_house(caller("own")), Disk(takes_copies=False))
        house.ask(ct(1), transaction=transaction)
        house.run()
        assert [PROCESSING_FAILURE] == house.outcomes
    mended = on(make_house(caller("own")), Disk())
    mended.ask(ct(1), transaction="1.9.4")
    mended.run()
    assert ([COMMITTED], 0) == (mended.outcomes, rows(mended, "files_in_doubt"))


def test_a_file_whose_content_has_changed_is_not_written_anew(own: House) -> None:
    own.receive(1)
    broken = file_of(own, 1)
    damaged = bytearray(broken.read_bytes())
    damaged[-1] ^= 1
    broken.write_bytes(damaged)
    inode = broken.stat().st_ino
    on(own, Disk(failing={inode}))
    for transaction in ("1.9.1", "1.9.2"):
        own.ask(ct(1), transaction=transaction)
        own.run()
        assert [PROCESSING_FAILURE] == own.outcomes
    assert inode == broken.stat().st_ino
    assert [] == list((own.desk.settings.state_dir / "archive" / "incoming").iterdir())


def test_names_that_cannot_be_synced_are_a_failure_of_all_files_of_their_folder(own: House) -> None:
    own.receive(1, 2)
    folder, failed = file_of(own, 1).parent, list[Path]()

    def sync_names(of: Path) -> None:
        if of == folder and not failed:
            failed.append(of)
            raise OSError(5, "Input/output error")

    on(own, Disk(), sync_names=sync_names)
    own.ask(ct(1), ct(2))
    own.run()
    expected = [PROCESSING_FAILURE if file_of(own, n).parent == folder else COMMITTED for n in (1, 2)]
    assert expected == heard(own, 1, 2)
    assert own.parts.commitments.is_promised(STUDY) == (COMMITTED in expected)


def test_a_doubt_that_cannot_be_noted_is_remembered_all_the_same(own: House) -> None:
    own.receive(1)
    on(own, disk := Disk(failing={file_of(own, 1).stat().st_ino}, takes_copies=False))
    with own.database.transaction() as connection:
        connection.execute("create trigger full before insert on files_in_doubt begin select raise(abort, 'full'); end")
    own.ask(ct(1))
    own.run()
    assert ([], set()) == (own.told, disk.failing)
    with own.database.transaction() as connection:
        connection.execute("drop trigger full")
    own.run_until(300)
    assert [PROCESSING_FAILURE] == own.outcomes
