"""``ctriage check``: does it see what would fail, and say the remedy?"""

import fcntl
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification
from trustme import CA

from pacs_bridge import check
from pacs_bridge.settings import Caller, Destination, Disk, Listener, Settings, Tls
from pacs_bridge.tls import server_context
from pacs_bridge.tls_testing import Hospital


@pytest.fixture
def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


@pytest.fixture
def peer_port() -> Iterator[int]:
    """Run a peer that answers C-ECHO, and only to those who call it PACS."""
    ae = AE(ae_title="PACS")
    ae.require_called_aet = True
    ae.add_supported_context(Verification)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_ECHO, lambda _: 0x0000)])
    yield server.socket.getsockname()[1]
    server.shutdown()


def peer(port: int, *, ae_title: str = "PACS", host: str = "127.0.0.1") -> Destination:
    return Destination(name="pacs", ae_title=ae_title, host=host, port=port)


def test_a_folder_that_does_not_exist_yet_is_fine_and_is_not_made(tmp_path: Path) -> None:
    found = list(check.check_state_dir(tmp_path / "a" / "b"))
    assert ["ok", "ok"] == [each.level.replace("warn", "ok") for each in found]
    assert [] == list(tmp_path.iterdir())


def test_a_state_dir_below_a_file_fails_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (found,) = check.check_state_dir(tmp_path / "file" / "state")
    assert "fail" == found.level
    assert "state_dir" in found.remedy


def test_a_free_port_is_fine(free_port: int) -> None:
    assert "ok" == check.check_port(Settings(listener=Listener(port=free_port))).level


def test_a_port_taken_by_something_else_fails(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        found = check.check_port(Settings(state_dir=tmp_path, listener=Listener(port=port)))
    assert ("fail", "stop that program or change listener.port") == (found.level, found.remedy)


def test_a_port_where_the_service_itself_listens_is_fine(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours, (tmp_path / check.SERVICE_LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = check.check_port(Settings(state_dir=tmp_path, listener=Listener(port=ours.getsockname()[1])))
    assert ("ok", True) == (found.level, found.detail.endswith("is where the service listens"))


def test_a_port_that_something_else_has_taken_fails_though_the_service_runs_on_another(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, (tmp_path / check.SERVICE_LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        port = other.getsockname()[1]
        settings = Settings(state_dir=tmp_path, listener=Listener(port=port))
        print(port + 1, 0, file=lock, flush=True)
        assert "fail" == check.check_port(settings).level
        print(port, file=lock, flush=True)
        assert "ok" == check.check_port(settings).level


def test_the_port_over_tls_is_looked_at_as_well(tmp_path: Path, free_port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        listener = Listener(port=0, tls_port=other.getsockname()[1])
        (taken,) = check.check_ports(Settings.model_construct(state_dir=tmp_path, listener=listener))
    assert ("fail", "stop that program or change listener.tls_port") == (taken.level, taken.remedy)
    both = Settings.model_construct(listener=Listener(port=free_port, tls_port=free_port))
    assert ["listener", "listener, TLS"] == [each.name for each in check.check_ports(both)]


def test_an_address_of_another_machine_is_told(free_port: int) -> None:
    found = check.check_port(Settings(listener=Listener(host="192.0.2.1", port=free_port)))
    assert ("fail", True) == (found.level, "0.0.0.0" in found.remedy)


def test_a_destination_that_answers_is_fine(peer_port: int) -> None:
    assert "ok" == check.check_destination(Settings(), peer(peer_port)).level


def test_a_destination_that_refuses_us_is_told_apart_from_a_dead_one(peer_port: int, free_port: int) -> None:
    refused = check.check_destination(Settings(), peer(peer_port, ae_title="OTHER"))
    dead = check.check_destination(Settings(), peer(free_port))
    assert ("fail", "fail") == (refused.level, dead.level)
    assert "refused the association: called ae title not recognised" in refused.detail
    assert "CTRIAGE" in refused.remedy
    assert "connection refused" in dead.detail


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(folder=tmp_path / "nodes")


@pytest.fixture
def secure_port(hospital: Hospital) -> Iterator[int]:
    """Run a peer that answers C-ECHO over TLS."""
    ae = AE(ae_title="PACS")
    ae.add_supported_context(Verification)
    context = server_context(hospital.node(), now=datetime.now(UTC))
    server = ae.start_server(("127.0.0.1", 0), block=False, ssl_context=context)
    yield server.socket.getsockname()[1]
    server.shutdown()


def test_a_destination_over_tls_answers_who_shows_the_right_certificate(
    hospital: Hospital, secure_port: int, peer_port: int
) -> None:
    def asked(tls: Tls, port: int = secure_port, host: str = "127.0.0.1") -> tuple[str, str]:
        secure = peer(port, host=host).model_copy(update={"tls": True})
        found = check.check_destination(Settings(tls=tls), secure)
        return found.level, found.detail.partition(": ")[2]

    assert ("ok", "") == asked(hospital.node())
    assert ("fail", True) == (
        asked(hospital.node(), port=peer_port)[0],
        "no TLS" in asked(hospital.node(), peer_port)[1],
    )
    nobody = hospital.node().model_copy(update={"certificate": None, "private_key": None})
    assert "asks for a certificate of ours" in asked(nobody)[1]
    assert "does not know who vouches for our certificate" in asked(hospital.node(authority=CA()))[1]
    assert "hostname mismatch" in asked(hospital.node(), host="localhost")[1]
    assert ("fail", "not asked") == asked(Tls(authorities=Path("/gone.pem")))


def test_certificates_are_looked_into_before_they_are_needed(hospital: Hospital) -> None:
    now = datetime.now(UTC)
    tls = hospital.node(until=now + timedelta(days=20))
    assert ["warn"] == [each.level for each in check.check_tls(tls, now=now)]
    assert ["fail"] == [each.level for each in check.check_tls(tls, now=now + timedelta(days=20))]
    assert ["ok"] == [each.level for each in check.check_tls(tls, now=now - timedelta(days=20))]
    assert [] == list(check.check_tls(Tls(), now=now))


def test_a_listener_on_the_network_that_lets_nobody_in_is_a_warning() -> None:
    network = Listener(host="0.0.0.0")
    caller = Caller(ae_title="CT01", address="10.1.2.3")
    assert ["warn"] == [each.level for each in check.check_callers(Settings(listener=network))]
    assert [] == list(check.check_callers(Settings(listener=network, caller=(caller,))))
    assert [] == list(check.check_callers(Settings()))


def test_the_libraries_of_this_environment_load() -> None:
    assert {"ok"} == {each.level for each in check.check_libraries()}


def test_a_detector_that_is_not_installed_fails_and_names_those_that_are() -> None:
    (found,) = check.check_detectors(("hemorhage",))
    assert ("fail", True) == (found.level, "installed are:" in found.detail)


def test_the_object_says_whether_anything_would_fail() -> None:
    good, bad = check.Check(name="a", level="warn", detail=""), check.Check(name="b", level="fail", detail="")
    assert (True, False) == (check.as_json([good])["ok"], check.as_json([good, bad])["ok"])


@pytest.mark.parametrize(
    ("free_mb", "level", "said"),
    [(99, "fail", "images are refused (0xA700)"), (100, "warn", "100 MB free"), (50_000, "ok", "52 GB free")],
)
def test_room_is_judged_by_what_must_stay_free(free_mb: int, level: str, said: str) -> None:
    found = check.room(free_mb * 2**20, Disk(free_mb=100))
    assert (level, True, level == "ok") == (found.level, said in found.detail, found.remedy == "")
