"""Receiver processes: several on one port, replaced when one dies, gone with the driver."""

import threading
from pathlib import Path
from typing import Any

import psutil
import pytest
import structlog
import trustme
from pynetdicom import AE, build_context

from pacs_bridge.settings import Tls
from pacs_bridge.transport import SOCKET_HANDLERS

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"


@pytest.fixture(autouse=True)
def quiet_pynetdicom(caplog: pytest.LogCaptureFixture) -> None:
    """Keep what pynetdicom says of lost peers out of the output."""
    caplog.set_level("CRITICAL", logger="pynetdicom")


def associated(listener: Any) -> Any:
    entity = AE(ae_title="CT01")
    contexts = [build_context(CT_IMAGE, EXPLICIT)]
    return entity.associate(
        "127.0.0.1", listener.port, contexts=contexts, ae_title="CTRIAGE", evt_handlers=SOCKET_HANDLERS
    )


def receivers(listener: Any) -> list[psutil.Process]:
    """Return our children that accept on the listener's port."""
    children = psutil.Process().children(recursive=True)
    return [
        each
        for each in children
        if any(c.status == "LISTEN" and c.laddr.port == listener.port for c in each.net_connections("tcp"))
    ]


def test_a_receiver_that_dies_is_replaced_and_its_senders_send_again(
    bridge: Any, listen: Any, make_slice: Any, wait_until: Any
) -> None:
    listener = listen(bridge, options={"processes": 2})
    first = associated(listener)
    assert first.send_c_store(make_slice(1)).Status == 0
    killed = receivers(listener)
    assert 2 == len(killed)
    for each in killed:
        each.kill()
    wait_until(lambda: not listener._desk.open_associations)
    assert bridge.intake._state.studies["1.2.3"].series["1.2.3.4"].interrupted

    def sent_again() -> bool:
        again = associated(listener)
        if not again.is_established:
            return False
        statuses = [again.send_c_store(make_slice(n)).get("Status") for n in (1, 2, 3)]
        again.release()
        return statuses == [0, 0, 0]

    wait_until(sent_again, deadline_s=40.0)
    assert 3 == len(bridge.archive.instances_of("1.2.3", "1.2.3.4"))
    first.abort()


def test_a_receiver_that_cannot_start_is_not_replaced_for_ever(bridge: Any, listen: Any, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    for content, name in ((issued.cert_chain_pems[0], "cert"), (issued.private_key_pem, "key")):
        content.write_to_path(tmp_path / name)
    authority.cert_pem.write_to_path(tmp_path / "ca")
    tls = Tls(certificate=tmp_path / "cert", private_key=tmp_path / "key", authorities=tmp_path / "ca")
    listener = listen(bridge, options={"processes": 1, "tls_port": 0, "tls": tls, "most_deaths": 2})
    assert not listener.failed.done()
    (tmp_path / "key").write_text("no key any more")
    with structlog.testing.capture_logs() as logs:
        (receiver,) = receivers(listener)
        receiver.kill()
        with pytest.raises(OSError, match="again and again"):
            listener.failed.result(60)
    assert ["receiver_died", "receiver_died", "receiving_failed"] == [each["event"] for each in logs]


def test_a_receiver_that_hangs_is_ended_before_another_takes_its_place(bridge: Any, listen: Any) -> None:
    listener = listen(bridge, options={"processes": 1})
    (hanging,) = receivers(listener)
    hanging.suspend()
    (child,) = listener._children
    threading.Thread(target=child._link.close).start()
    hanging.wait(20)
    assert not hanging.is_running() or hanging.status() == psutil.STATUS_ZOMBIE


def test_the_limit_of_associations_holds_over_all_processes(bridge: Any, listen: Any, wait_until: Any) -> None:
    listener = listen(bridge, options={"processes": 2}, maximum_associations=3)
    some = [associated(listener) for _ in range(3)]
    assert [True] * 3 == [each.is_established for each in some]
    refused = associated(listener)
    assert (True, False) == (refused.is_rejected, refused.is_established)
    some[0].release()
    wait_until(lambda: listener._desk.open_associations == 2)
    again = associated(listener)
    assert again.is_established
    for each in (*some[1:], again):
        each.release()


def test_none_is_left_when_the_listener_stops(bridge: Any, listen: Any) -> None:
    listener = listen(bridge, options={"processes": 2})
    processes = receivers(listener)
    listener.stop()
    assert [] == [each for each in processes if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
