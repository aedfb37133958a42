"""Real senders on real sockets: who gets in, and does everything sent lie in the archive?"""

import socket
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
import structlog
from pydicom.uid import UID
from pynetdicom import AE, build_context
from pynetdicom.dimse_primitives import C_STORE

from pacs_bridge.arrival import SeriesComplete
from pacs_bridge.front_desk import Known
from pacs_bridge.part10 import read_file
from pacs_bridge.transport import SOCKET_HANDLERS

EXPLICIT = "1.2.840.10008.1.2.1"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"


def associate(listener: Any, contexts: Any, calling: str = "CT01", called: str = "CTRIAGE") -> Any:
    entity = AE(ae_title=calling)
    where = ("127.0.0.1", listener.port)
    return entity.associate(*where, contexts=contexts, ae_title=called, evt_handlers=SOCKET_HANDLERS)


def _wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end


def send_bytes(association: Any, dataset: bytes, sop_class: str = CT_IMAGE, sop_instance: str = "1.2.3.4.1") -> int:
    """Send raw bytes as a data set, whatever they are; return the status."""
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = UID(sop_class), UID(sop_instance)
    request.DataSet = BytesIO(dataset)
    association._reactor_checkpoint.clear()
    _wait_until(lambda: association._is_paused)  # or its reactor would take the response
    context = next(each for each in association.accepted_contexts if each.abstract_syntax == sop_class)
    association.dimse.send_msg(request, context.context_id)
    _, response = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    return int(response.Status)


def data_set_of(path: Path) -> bytes:
    return path.read_bytes()[read_file(path).offset :]


def test_every_instance_storescu_sends_lies_in_the_archive_with_its_bytes(
    bridge: Any, listen: Any, dcmtk: Any, shared_data: Path, wait_until: Any
) -> None:
    sent = sorted((shared_data / "head_ge_tilted").glob("*.dcm"))
    listener = listen(bridge)
    done = dcmtk("storescu", "-aec", "CTRIAGE", "127.0.0.1", listener.port, *sent)
    assert done.returncode == 0, done.stderr
    (study,) = bridge.archive.studies()
    (series,) = bridge.archive.series_of(study.study_instance_uid)
    kept = bridge.archive.instances_of(study.study_instance_uid, series.series_instance_uid)
    assert sorted(map(data_set_of, sent)) == sorted(data_set_of(each.path) for each in kept)
    assert {"STORESCU"} == {each.calling_ae for each in kept}


def test_an_evenly_spaced_head_is_complete_when_storescu_releases(
    bridge: Any, listen: Any, dcmtk: Any, shared_data: Path, wait_until: Any
) -> None:
    sent = sorted((shared_data / "head_normal_3mm").glob("*.dcm"))
    assert dcmtk("storescu", "-aec", "CTRIAGE", "127.0.0.1", listen(bridge).port, *sent).returncode == 0
    wait_until(lambda: bridge.instructions)
    (complete,) = bridge.instructions
    assert isinstance(complete, SeriesComplete)
    assert ("contiguous", len(sent)) == (complete.evidence.label, complete.instances)


def test_dcmsend_and_echoscu_are_served(bridge: Any, listen: Any, dcmtk: Any, shared_data: Path) -> None:
    listener = listen(bridge)
    assert dcmtk("echoscu", "-aec", "CTRIAGE", "127.0.0.1", listener.port).returncode == 0
    folder = shared_data / "head_phantom_philips" / "exam_summary"
    sent = dcmtk("dcmsend", "-aec", "CTRIAGE", "127.0.0.1", listener.port, "+sd", folder, "+sp", "I*")
    assert sent.returncode == 0, sent.stderr


def test_every_transfer_syntax_is_taken_as_it_is(bridge: Any, listen: Any, shared_data: Path) -> None:
    listener = listen(bridge)
    syntaxes = set()
    for path in sorted((shared_data / "syntaxes").glob("*.dcm")):
        try:
            file = read_file(path)
            pydicom.dcmread(path, stop_before_pixels=True)
        except Exception:  # noqa: BLE001 - two of these files are broken on purpose
            continue
        association = associate(listener, [build_context(file.sop_class_uid, file.transfer_syntax)])
        status = send_bytes(association, data_set_of(path), file.sop_class_uid, file.sop_instance_uid)
        association.release()
        if status == 0:
            syntaxes.add(file.transfer_syntax)
    assert len(syntaxes) >= 12


def test_any_storage_class_is_taken_even_one_nobody_knows(
    bridge: Any, listen: Any, make_slice: Any, encode: Any
) -> None:
    private = "1.3.12.2.1107.5.9.1"
    association = associate(listen(bridge), [build_context(private, EXPLICIT)])
    assert send_bytes(association, encode(make_slice(SOPClassUID=private)), private) == 0
    association.release()


@pytest.mark.parametrize("garbage", [b"", b"garbage", bytes(2000), b"\x08\x00\x05\x00CS\xff\xff"])
def test_garbage_is_answered_and_the_next_instance_is_taken(
    bridge: Any, listen: Any, make_slice: Any, encode: Any, garbage: bytes
) -> None:
    association = associate(listen(bridge), [build_context(CT_IMAGE, EXPLICIT)])
    whole = encode(make_slice())
    assert send_bytes(association, garbage or whole[:-3]) == 0xC000
    assert send_bytes(association, whole) == 0
    association.release()


def test_a_full_disk_is_heard_by_the_sender(make_bridge: Any, listen: Any, dcmtk: Any, shared_data: Path) -> None:
    bridge = make_bridge(free_bytes=lambda _folder: 0)
    one = sorted((shared_data / "head_ge_tilted").glob("*.dcm"))[0]
    heard = dcmtk("storescu", "-v", "-aec", "CTRIAGE", "127.0.0.1", listen(bridge).port, one)
    assert "OutOfResources" in heard.stdout + heard.stderr
    assert bridge.archive.studies() == []


def test_what_breaks_inside_is_a_failure_for_the_sender_and_no_end_for_the_listener(
    bridge: Any, listen: Any, make_slice: Any, encode: Any
) -> None:
    def broken(_header: object) -> bool:
        raise ZeroDivisionError

    association = associate(listen(bridge), [build_context(CT_IMAGE, EXPLICIT)])
    healthy, bridge.intake._is_ours = bridge.intake._is_ours, broken
    assert send_bytes(association, encode(make_slice())) == 0x0110
    bridge.intake._is_ours = healthy
    assert send_bytes(association, encode(make_slice())) == 0
    association.release()


def test_a_sender_that_breaks_off_leaves_its_series_to_the_quiet_period(
    bridge: Any, listen: Any, make_slice: Any, encode: Any, wait_until: Any
) -> None:
    association = associate(listen(bridge), [build_context(CT_IMAGE, EXPLICIT)])
    for n in (1, 2, 3):
        assert send_bytes(association, encode(make_slice(n)), sop_instance=f"1.2.3.4.{n}") == 0
    association.dul.socket.socket.shutdown(socket.SHUT_RDWR)
    wait_until(lambda: bridge.intake._state.studies["1.2.3"].series["1.2.3.4"].interrupted)
    bridge.intake.tick()
    assert bridge.instructions == []
    bridge.clock.advance(60)
    bridge.intake.tick()
    assert ["quiet_period"] == [each.evidence.label for each in bridge.instructions if isinstance(each, SeriesComplete)]


def test_a_sender_that_breaks_off_within_an_instance_leaves_nothing_of_it(
    bridge: Any, listen: Any, make_slice: Any, encode: Any, wait_until: Any
) -> None:
    listener = listen(bridge)
    association = associate(listener, [build_context(CT_IMAGE, EXPLICIT)])
    raw = association.dul.socket.socket
    raw.sendall(b"\x04\x00" + (100_000).to_bytes(4, "big") + bytes(5000))
    raw.shutdown(socket.SHUT_RDWR)
    wait_until(lambda: not listener._desk.open_associations)
    assert bridge.archive.studies() == []
    again = associate(listener, [build_context(CT_IMAGE, EXPLICIT)])
    assert send_bytes(again, encode(make_slice())) == 0
    again.release()


def rejected(listener: Any, **titles: str) -> tuple[bool, list[Any]]:
    with structlog.testing.capture_logs() as logs:
        association = associate(listener, [build_context(VERIFICATION)], **titles)
    return bool(association.is_rejected), [dict(entry) for entry in logs]


def test_an_unknown_caller_is_rejected_and_the_log_says_what_to_add(bridge: Any, listen: Any) -> None:
    listener = listen(
        bridge, known=[Known(ae_title="CT01", address="127.0.0.1"), Known(ae_title="CT02", address="10.1.2.3")]
    )
    refused, logs = rejected(listener, calling="CT99")
    assert refused
    (entry,) = [each for each in logs if each["event"] == "association_rejected"]
    assert "unknown caller CT99 from 127.0.0.1" == entry["reason"]
    assert '[[caller]]\nae_title = "CT99"\naddress = "127.0.0.1"' in entry["remedy"]


def test_a_known_title_from_another_address_is_rejected(bridge: Any, listen: Any) -> None:
    refused, _ = rejected(listen(bridge, known=[Known(ae_title="CT02", address="10.1.2.3")]), calling="CT02")
    assert refused


def test_a_known_caller_is_let_in(bridge: Any, listen: Any) -> None:
    refused, _ = rejected(listen(bridge, known=[Known(ae_title="CT01", address="127.0.0.0/8")]), calling="CT01")
    assert not refused


def test_a_wrong_called_title_is_rejected(bridge: Any, listen: Any) -> None:
    refused, logs = rejected(listen(bridge), called="OTHER")
    assert refused
    assert ["caller CT01 called us OTHER"] == [each["reason"] for each in logs]


def test_many_senders_at_once_lose_nothing(
    bridge: Any, listen: Any, make_slice: Any, encode: Any, wait_until: Callable[..., None]
) -> None:
    listener = listen(bridge)
    open_ones = [associate(listener, [build_context(CT_IMAGE, EXPLICIT)]) for _ in range(12)]
    for number, association in enumerate(open_ones, 1):
        dataset = encode(make_slice(number))
        assert send_bytes(association, dataset, sop_instance=f"1.2.3.4.{number}") == 0
    for association in open_ones:
        association.release()
    assert len(bridge.archive.instances_of("1.2.3", "1.2.3.4")) == 12
