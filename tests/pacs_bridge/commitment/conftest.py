"""A house of storage commitment over one folder, and peers that listen until the test ends."""

import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE, evt

from pacs_bridge.archive import Added
from pacs_bridge.commitment import (
    PUSH_MODEL,
    CommitmentLimits,
)
from pacs_bridge.commitment_testing import (
    EXPLICIT,
    SR,
    STUDY,
    Clock,
    House,
    MakeHouse,
    MakePeer,
    Peer,
    caller,
    desk_with,
)
from pacs_bridge.instance import read_facts
from pacs_bridge.settings import Caller, Destination, Settings, Tls
from pacs_bridge.storage_commitment import storage_commitment
from pacs_bridge.tls_testing import Hospital
from pacs_bridge.transport import SOCKET_HANDLERS
from scheduler.database import Database


@pytest.fixture
def make_house(tmp_path: Path, encode: Any, make_slice: Any) -> Iterator[MakeHouse]:
    """Return a maker of houses over one folder: making one twice is a restart."""
    databases: list[Database] = []

    def make(*callers: Caller, destination: tuple[Destination, ...] = (), tls: Tls | None = None, **more: Any) -> House:
        """``more``: rules of forwarding, and limits."""
        forward = more.pop("forward", ())
        settings = Settings(
            state_dir=tmp_path / "state", caller=callers, destination=destination, tls=tls or Tls(), forward=forward
        )
        settings.state_dir.mkdir(exist_ok=True)
        database, clock = Database(settings.database), Clock()
        databases.append(database)
        desk = desk_with(settings, database, clock)

        def take_in(number: int) -> None:
            content = encode(make_slice(number))
            facts = read_facts(content, EXPLICIT)
            stored = desk.archive.store(facts, content, EXPLICIT, "CT01")
            with database.transaction():
                if desk.archive.add(facts, stored, "CT01", clock.now) is Added.NEW:
                    desk.forwards.note(facts, "CT01", clock.now)
            desk.archive.set_series_state(STUDY, "1.2.3.4", "open")

        parts = storage_commitment(desk, database, limits=replace(CommitmentLimits(linger_s=0.0), **more))
        house = House(desk=desk, database=database, clock=clock, parts=parts, take_in=take_in)
        parts.surroundings.event_report = house.event_report
        parts.surroundings.declare = house.declared.append
        return house

    yield make
    for database in databases:
        database.close()


@pytest.fixture
def own(make_house: MakeHouse) -> House:
    return make_house(caller("own"))


@pytest.fixture
def make_peer() -> Iterator[MakePeer]:
    """Return a maker of peers that listen until the test ends."""
    servers: list[Any] = []

    def make(
        *,
        roles: tuple[bool, bool] | None = None,
        classes: tuple[str, ...] = (PUSH_MODEL, SR),
        tls: ssl.SSLContext | None = None,
        **of: Any,
    ) -> Peer:
        peer, entity = Peer(**of), AE(ae_title="PACS")
        for each in classes:
            scu, scp = roles or (None, None)
            entity.add_supported_context(each, scu_role=scu, scp_role=scp)
        handlers = [
            *SOCKET_HANDLERS,
            (evt.EVT_N_ACTION, peer.n_action),
            (evt.EVT_PDU_SENT, peer.pdu_sent),
            (evt.EVT_N_EVENT_REPORT, peer.n_event_report),
            (evt.EVT_C_STORE, peer.c_store),
        ]
        server = entity.start_server(("127.0.0.1", peer.port), block=False, evt_handlers=handlers, ssl_context=tls)
        servers.append(server)
        peer.port = server.server_address[1]
        return peer

    yield make
    for server in servers:
        server.shutdown()


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(folder=tmp_path / "nodes")
