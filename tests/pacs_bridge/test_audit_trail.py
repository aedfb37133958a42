"""The audit trail: does every change show, is nothing lost that need not be, and may nobody else read it?"""

import json
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from pacs_bridge import audit
from pacs_bridge.audit import AuditSource, Party, StudyShare
from pacs_bridge.audit_chain import BEGINNING, Line, Link, Verdict, link_of, opened, sealed, verify
from pacs_bridge.audit_flood import MOST_KINDS, MOST_OF_A_KIND
from pacs_bridge.audit_trail import AuditTrail, NoTrail, kept, read_key, read_lines, segments
from pacs_bridge.cli import app
from pacs_bridge.settings import Audit, Settings

KEY = b"k" * 32
SHARE = StudyShare(study_instance_uid="1.2.3", patient_id="P1", study_key="k1", instances=(("1.2.840", 7),))
SOURCE = AuditSource(ae_title="CTRIAGE", machine="box", process_id=1)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 10, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


Open = Callable[..., AuditTrail]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@pytest.fixture
def open_trail(folder: Path, clock: Clock) -> Iterator[Open]:
    """Return an opener of the trail: opening it twice is another process."""
    trails: list[AuditTrail] = []

    def make(**options: Any) -> AuditTrail:
        trails.append(AuditTrail(folder, SOURCE, now=clock, **options))
        return trails[-1]

    yield make
    for each in trails:
        each.close()


def abort(reason: str) -> audit.AuditEvent:
    at = datetime(2026, 1, 10, tzinfo=UTC)
    return audit.instances_received(Party(name="X", address="10.0.0.9"), SHARE, at=at, problem=reason)


def refusal(reason: str) -> audit.AuditEvent:
    return audit.association_refused(
        Party(name="X", address="10.0.0.9"), called="CTRIAGE", reason=reason, at=datetime(2026, 1, 10, tzinfo=UTC)
    )


def verdict_of(folder: Path, noted: Link | None = None) -> Verdict:
    return verify(read_lines(folder), read_key(folder), noted=noted)


def said(folder: Path) -> list[str]:
    """Return what each record says, or which kind it is."""
    key, found = read_key(folder), []
    for line in read_lines(folder):
        record = opened(line.content, key)
        event = record.message["EventIdentification"] if record else {}
        kind = event.get("EventTypeCode", [event.get("EventID", {"originalText": "torn"})])[0]["originalText"]
        found.append(event.get("EventOutcomeDescription") or kind)
    return found


def test_what_is_recorded_is_there_in_order_and_the_chain_holds(open_trail: Open, folder: Path) -> None:
    trail = open_trail()
    for reason in ("a", "b", "c"):
        trail.record(abort(reason))
    assert ["Audit Recording Started", "a", "b", "c"] == said(folder)
    verdict = verdict_of(folder)
    assert (True, 4, trail.head) == (verdict.intact, verdict.records, verdict.head)


def test_a_new_start_goes_on_with_the_chain(open_trail: Open, folder: Path) -> None:
    open_trail().record(abort("before"))
    open_trail().record(abort("after"))
    assert ["Audit Recording Started", "before", "after"] == said(folder)
    assert verdict_of(folder).intact


def test_nobody_but_the_services_user_may_read_any_of_it(open_trail: Open, folder: Path) -> None:
    open_trail()
    assert 0o700 == stat.S_IMODE(folder.stat().st_mode)
    assert {0o600} == {stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()}


def test_many_threads_and_two_processes_record_into_one_chain(open_trail: Open, folder: Path) -> None:
    trails = [open_trail(), open_trail()]
    threads = [
        threading.Thread(target=lambda t=trail, n=n: [t.record(abort(f"{n}.{i}")) for i in range(50)])
        for n, trail in enumerate(trails * 2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    verdict = verdict_of(folder)
    assert ((), 201) == (verdict.breaks, verdict.records)


def test_a_torn_last_line_is_answered_for_by_the_next_start(open_trail: Open, folder: Path) -> None:
    with closing(open_trail()) as trail:
        trail.record(abort("whole"))
        trail.record(abort("torn"))
    (name,) = segments(folder)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-40])
    torn = verdict_of(folder)
    assert (False, f"{name} line 3") == (torn.intact, torn.breaks[0].place)
    open_trail().record(abort("later"))
    mended = verdict_of(folder)
    assert ((), (f"{name} line 3",)) == (mended.breaks, mended.tears)
    assert ["Audit Recording Started", "whole", "torn", "Audit Recording Started", "later"] == said(folder)


def test_a_new_key_does_not_answer_for_an_old_trail(open_trail: Open, folder: Path) -> None:
    with closing(open_trail()) as trail:
        trail.record(abort("a"))
    (folder / "key").unlink()
    with pytest.raises(NoTrail):
        read_key(folder)
    open_trail()
    assert not verdict_of(folder).intact


def test_a_month_has_its_own_file_and_the_chain_goes_through_all(open_trail: Open, folder: Path, clock: Clock) -> None:
    trail = open_trail()
    trail.record(abort("january"))
    clock.now += timedelta(days=30)
    trail.record(abort("february"))
    assert ["2026-01.jsonl", "2026-02.jsonl"] == segments(folder)
    clock.now -= timedelta(days=30)
    trail.record(abort("the clock was set back"))
    assert ["Audit Recording Started", "january", "february", "the clock was set back"] == said(folder)
    assert verdict_of(folder).intact


def test_only_whole_old_months_go_and_the_chain_says_so(open_trail: Open, folder: Path, clock: Clock) -> None:
    with closing(open_trail()) as trail:
        for month in ("january", "february", "march"):
            trail.record(abort(month))
            clock.now += timedelta(days=30)
        head_of_january = next(iter(read_lines(folder)))
    clock.now = datetime(2026, 4, 3, tzinfo=UTC)
    with closing(open_trail(keep=timedelta(days=32))):
        assert ["2026-03.jsonl", "2026-04.jsonl"] == segments(folder)
    verdict = verdict_of(folder)
    assert ((), 4) == (verdict.breaks, verdict.first and verdict.first.number)
    assert head_of_january.segment == "2026-01.jsonl"
    (folder / "2026-03.jsonl").unlink()
    assert not verdict_of(folder).intact


def test_a_noted_head_shows_that_the_end_was_cut_off(open_trail: Open, folder: Path) -> None:
    with closing(open_trail()) as trail:
        trail.record(abort("a"))
        early = trail.head
        trail.record(abort("b"))
        late = trail.head
    (name,) = segments(folder)
    lines = (folder / name).read_bytes().splitlines(keepends=True)
    (folder / name).write_bytes(b"".join(lines[:-1]))
    assert verdict_of(folder).intact
    assert verdict_of(folder, noted=early).intact
    assert ["record 3 is not the one that was noted, or is gone"] == [
        each.what for each in verdict_of(folder, noted=link_of(str(late))).breaks
    ]


def test_a_disk_that_takes_nothing_makes_events_wait_not_get_lost(open_trail: Open, folder: Path) -> None:
    trail = open_trail(most_waiting=50)
    full = (folder / segments(folder)[0]).stat().st_size + 100
    before, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (full, before[1]))
        for n in range(53):
            trail.record(abort(str(n)))
        assert ["Audit Recording Started"] == said(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    trail.flush()
    found = said(folder)
    assert ["more than 50 events waited for a disk that took none", "3", "4"] == found[1:4]
    assert (52, str(52)) == (len(found), found[-1])
    assert verdict_of(folder).intact


def test_nobody_fills_the_trail_by_knocking_and_all_knocks_are_counted(
    open_trail: Open, folder: Path, clock: Clock
) -> None:
    trail = open_trail()
    for _ in range(1000):
        trail.record(refusal("stranger"))
    trail.record(refusal("another reason"))
    clock.now += timedelta(seconds=61)
    trail.flush()
    for _ in range(5):
        trail.record(refusal("again"))
    trail.close()
    more, again = "997 more times within a minute: stranger", "2 more times within a minute: again"
    assert [*["stranger"] * 3, "another reason", more, *["again"] * 3, again] == said(folder)[1:]
    assert verdict_of(folder).intact


def test_who_makes_up_titles_does_not_fill_the_trail_either(open_trail: Open, folder: Path) -> None:
    with closing(open_trail()) as trail:
        for n in range(2000):
            trail.record(refusal(f"unknown caller {n}"))
        trail.record(abort("a transfer is recorded all the same"))
    assert MOST_KINDS + MOST_OF_A_KIND + 3 == len(said(folder))
    assert [
        "a transfer is recorded all the same",
        f"{2000 - MOST_KINDS - MOST_OF_A_KIND} more times within a minute: other reasons",
    ] == said(folder)[-2:]


def test_a_killed_service_leaves_what_it_recorded(folder: Path) -> None:
    source = (
        "import os, sys, pathlib, datetime\n"
        "from pacs_bridge import audit\n"
        "from pacs_bridge.audit_trail import AuditTrail\n"
        "now = lambda: datetime.datetime.now(datetime.UTC)\n"
        "source = audit.AuditSource(ae_title='A', machine='m', process_id=1)\n"
        "trail = AuditTrail(pathlib.Path(sys.argv[1]), source, now=now)\n"
        "for n in range(200): trail.record(audit.service_started(at=now()))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.run([sys.executable, "-c", source, str(folder)], check=False, timeout=60)
    verdict = verdict_of(folder)
    assert (-signal.SIGKILL, (), 201) == (ended.returncode, verdict.breaks, verdict.records)


def test_a_service_leaves_its_start_its_settings_and_its_end(folder: Path, clock: Clock) -> None:
    settings = Settings(state_dir=folder.parent, audit=Audit(days=40))
    with kept(settings, now=clock):
        pass
    with pytest.raises(RuntimeError), kept(settings, now=clock):
        raise RuntimeError
    begins = ["Application Start", "Security Configuration"]
    ends = ["Application Stop", *begins, "the service broke off"]
    assert ["Audit Recording Started", *begins, *ends] == said(folder)
    assert verdict_of(folder).intact


# ---- the chain, as a law --------------------------------------------------------------------------------------------


def chain(length: int) -> list[bytes]:
    """Return the lines of a chain, without their ends."""
    lines, link = [], BEGINNING
    for n in range(length):
        line, link = sealed({"ParticipantObjectIdentification": [], "n": n}, after=link, key=KEY)
        lines.append(line[:-1])
    return lines


def walked(lines: list[bytes], key: bytes = KEY) -> Verdict:
    return verify((Line(segment="s", number=n, content=line) for n, line in enumerate(lines, start=1)), key)


@given(length=st.integers(1, 6), at=st.integers(0, 5), byte=st.integers(0, 500), flip=st.integers(1, 255))
def test_no_byte_can_be_changed_unseen(length: int, at: int, byte: int, flip: int) -> None:
    lines = chain(length)
    assert walked(lines).intact
    changed = bytearray(lines[at % length])
    changed[byte % len(changed)] ^= flip
    lines[at % length] = bytes(changed)
    assert not walked(lines).intact


@given(length=st.integers(2, 6), at=st.integers(0, 5), data=st.data())
def test_no_record_can_be_taken_out_repeated_or_moved_unseen(length: int, at: int, data: st.DataObject) -> None:
    lines, at = chain(length), at % length
    without = lines[:at] + lines[at + 1 :]
    if at < length - 1:  # the last one alone may be cut off: a noted head shows it
        assert not walked(without).intact
    other = data.draw(st.integers(0, length - 1))
    assert not walked([*lines[:other], lines[at], *lines[other:]]).intact
    moved = list(without)
    moved.insert(other, lines[at])
    assert (moved == lines) == walked(moved).intact


def test_a_chain_made_with_another_key_is_none() -> None:
    assert not walked(chain(3), key=b"another").intact
    assert opened(b"", KEY) is None


# ---- the command ----------------------------------------------------------------------------------------------------


def ctriage(folder: Path, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["audit", *arguments, "--set", f"state_dir={folder.parent}"])
    return done.exit_code, done.output


def test_verify_prints_the_head_and_its_status_says_whether_the_chain_holds(open_trail: Open, folder: Path) -> None:
    with closing(open_trail()) as trail:
        trail.record(refusal("a"))
    assert (0, f"2 records; the chain holds. Head: {trail.head}\n") == ctriage(folder, "verify")
    assert 0 == ctriage(folder, "verify", "--head", str(trail.head))[0]
    status, shown = ctriage(folder, "verify", "--json", "--head", f"9:{'0' * 64}")
    assert (1, False, 1) == (status, json.loads(shown)["intact"], len(json.loads(shown)["breaks"]))
    assert 2 == ctriage(folder, "verify", "--head", "9:00")[0]
    segment = folder / segments(folder)[0]
    segment.write_bytes(segment.read_bytes().replace(b"10.0.0.9", b"10.0.0.8"))
    status, shown = ctriage(folder, "verify")
    assert (1, True, True) == (status, "2026-01.jsonl line 2" in shown, "the chain is broken" in shown)


def test_show_tells_who_sent_what_of_whom(open_trail: Open, folder: Path, clock: Clock) -> None:
    with closing(open_trail()) as trail:
        trail.record(audit.instances_received(Party(name="CT01", address="10.1.2.3"), SHARE, at=clock()))
        trail.record(refusal("unknown caller"))
        trail.record(audit.study_deleted(SHARE, why="by age", at=clock()))
    status, shown = ctriage(folder, "show")
    expected = ("from CT01@10.1.2.3", "k1", "P1", "7", "unknown caller", "by age")
    assert (0, True) == (status, all(each in shown for each in expected))
    _, of_study = ctriage(folder, "show", "--study", "1.2.3", "--json")
    assert [2, 4] == [each["number"] for each in json.loads(of_study)["records"]]
    assert [2, 4] == [
        each["number"] for each in json.loads(ctriage(folder, "show", "--study", "k1", "--json")[1])["records"]
    ]
    assert 4 == ctriage(folder, "show", "--xml")[1].count("<AuditMessage>")
    later = (clock() + timedelta(days=2)).strftime("%Y-%m-%d")
    assert [] == json.loads(ctriage(folder, "show", "--since", later, "--json")[1])["records"]


def test_without_a_trail_the_command_says_so(folder: Path) -> None:
    status, shown = ctriage(folder, "verify")
    assert (1, True) == (status, "there is no audit trail" in shown)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_another_user_is_told_to_be_the_services_user(open_trail: Open, folder: Path) -> None:
    open_trail().close()
    folder.chmod(0)
    try:
        assert (1, True) == (ctriage(folder, "show")[0], "as the user who runs" in ctriage(folder, "show")[1])
    finally:
        folder.chmod(0o700)
