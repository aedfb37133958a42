"""Is nothing lost in a short run of faults, and can the checks, the line and the sender of that run tell when it is?"""

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks import faults_proxy
from benchmarks.__main__ import main
from benchmarks.faults_load import Fault, Journal, make_study
from benchmarks.service import ReceivingPacs
from benchmarks.wire import CT_IMAGE, EXPLICIT_LE, SUCCESS, Broken, associate, associate_request

BREAKS_EVERYWHERE = {"service killed", "worker killed", "receiving PACS stopped"}


@pytest.fixture
def pacs() -> Iterator[ReceivingPacs]:
    pacs = ReceivingPacs()
    pacs.start()
    yield pacs
    pacs.stop()


def test_nothing_is_lost_whatever_breaks_and_planted_losses_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["faults", "--json", "--size", "toy", "--seed", "3"])
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert "violations" not in printed
    assert (0, "faults") == (status, printed["name"])
    assert printed["figures"]["faults"] >= 10
    assert {"violations": 0, "instances_lost": 0}.items() <= printed["figures"].items()
    happened = {row["fault"] for row in printed["rows"] if row.get("times")}
    assert happened >= BREAKS_EVERYWHERE
    assert printed["figures"]["instances_answered_success"] >= 72


def test_the_sender_hears_the_status_of_each_instance(pacs: ReceivingPacs) -> None:
    first, second = make_study(1, 1)[:2]
    with associate(("127.0.0.1", pacs.port), called=pacs.ae_title) as association:
        association.at_most(1000)
        for each in (first, second):
            assert SUCCESS == association.store(CT_IMAGE, each.sop_instance_uid, each.dataset)
        association.release()
    assert [first.dataset, second.dataset] == [each.dataset for each in pacs.arrived]


def test_the_sender_says_when_the_association_ends_before_its_answer(pacs: ReceivingPacs) -> None:
    (each, *_) = make_study(1, 1)
    association = associate(("127.0.0.1", pacs.port), called=pacs.ae_title)
    with association:
        request = association.store_request(CT_IMAGE, each.sop_instance_uid, each.dataset)
        association.send_raw(request[:1000])
        association.half_close()
        with pytest.raises(Broken):
            association.status()
    pacs.stop()
    with pytest.raises(Broken):
        associate(("127.0.0.1", pacs.port), called=pacs.ae_title)
    assert [] == pacs.arrived


def test_a_pacs_that_stops_and_starts_keeps_what_it_holds_once(pacs: ReceivingPacs) -> None:
    (each, *_) = make_study(1, 1)
    for _ in range(2):
        with associate(("127.0.0.1", pacs.port), called=pacs.ae_title) as association:
            association.store(CT_IMAGE, each.sop_instance_uid, each.dataset)
            association.release()
        pacs.stop()
        pacs.start()
    assert (2, [each.sop_instance_uid]) == (len(pacs.arrived), list(pacs.held()))


def test_a_line_flips_one_byte_and_remembers_what_it_passed_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as receiver:
        heard = bytearray()
        thread = threading.Thread(target=_hear, args=(receiver, heard))
        thread.start()
        flip = faults_proxy.Flip(at=3, mask=0x81)
        with (
            faults_proxy.flipping(receiver.getsockname(), flip) as line,
            socket.create_connection(line.address) as sender,
        ):
            sender.sendall(b"\0" * 6)
            sender.shutdown(socket.SHUT_WR)
            sender.recv(1)
        thread.join()
    assert (b"\0\0\0\x81\0\0", True) == (bytes(heard), line.has_flipped)
    assert bytes(heard) == bytes(line.forwarded)


def test_a_line_that_nobody_uses_or_answers_closes() -> None:
    flip = faults_proxy.Flip(at=3, mask=1)
    with socket.create_server(("127.0.0.1", 0)) as gone:
        nowhere = gone.getsockname()
    with faults_proxy.flipping(nowhere, flip) as unused:
        pass
    with faults_proxy.flipping(nowhere, flip) as unanswered, socket.create_connection(unanswered.address) as sender:
        assert b"" == sender.recv(1)
    assert (False, False) == (unused.has_flipped, unanswered.has_flipped)


def test_whole_data_sets_are_found_in_what_was_sent(pacs: ReceivingPacs) -> None:
    slices = make_study(2, 1)[:3]
    with associate(("127.0.0.1", pacs.port), called=pacs.ae_title) as association:
        association.at_most(777)
        said = [association.store_request(CT_IMAGE, each.sop_instance_uid, each.dataset) for each in slices]
    stream = associate_request("A", "B", [(CT_IMAGE, EXPLICIT_LE)]) + b"".join(said)
    expected = [each.dataset for each in slices]
    assert expected == faults_proxy.datasets_in(stream)
    assert expected[:2] == faults_proxy.datasets_in(stream[:-1])


def test_studies_of_a_run_have_names_of_their_own_and_the_same_ones_for_the_same_seed() -> None:
    names = [each.sop_instance_uid for number in range(3) for each in make_study(7, number)]
    assert len(names) == len(set(names))
    assert make_study(7, 2) == make_study(7, 2)
    assert make_study(7, 2)[0].sop_instance_uid != make_study(8, 2)[0].sop_instance_uid


def test_the_story_of_an_instance_tells_what_it_heard_and_what_broke_around_it() -> None:
    journal, (first, second, *_) = Journal(), make_study(1, 1)
    journal.fault(Fault.SERVICE_KILLED)
    journal.note("answered 0xa700", second)
    journal.accept(first, first.dataset)
    story = journal.story(first)
    assert "service killed" in story
    assert "answered Success" in story
    assert "0xa700" not in story


def _hear(receiver: socket.socket, heard: bytearray) -> None:
    connection, _ = receiver.accept()
    with connection:
        while some := connection.recv(100):
            heard.extend(some)
