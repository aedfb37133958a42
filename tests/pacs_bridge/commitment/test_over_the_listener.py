"""Do requests and reports find their way over the associations of the listener?"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any

import pytest
from pynetdicom import AE, evt
from pynetdicom.dsutils import encode as encode_dataset

from pacs_bridge.commitment import (
    COMMITTED,
    PUSH_MODEL,
    PUSH_MODEL_INSTANCE,
    CommitmentReport,
    CommitmentRequest,
    Reference,
    read_report,
    written_report,
    written_request,
)
from pacs_bridge.commitment_peers import tell
from pacs_bridge.commitment_testing import IMPLICIT, House, MakeHouse, MakePeer, caller, ct, pacs, read_information
from pacs_bridge.sending.peer import Peer as SendingPeer
from pacs_bridge.services import ServiceRequest
from pacs_bridge.transport import SOCKET_HANDLERS
from scheduler.errors import Permanent

# ---- over the listener ----------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Scanner:
    """An open association of a caller that asks, and hears a report on it; ``order``: what came, as it came."""

    association: Any
    order: list[str]
    told: list[CommitmentReport]

    def ask(self, *references: Reference, transaction: str = "1.9.1") -> int:
        request = CommitmentRequest(transaction_uid=transaction, references=references)
        content = read_information(written_request(request))
        status, _ = self.association.send_n_action(content, 1, PUSH_MODEL, PUSH_MODEL_INSTANCE)
        self.order.append("answer")
        return int(status.Status)


Connect = Callable[[int], Scanner]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Return a function that connects a scanner to a listener's port until the test ends."""
    open_ones: list[Any] = []

    def made(port: int) -> Scanner:
        order, told = list[str](), list[CommitmentReport]()

        def heard(event: Any) -> tuple[int, None]:
            raw = encode_dataset(event.event_information, True, True)  # noqa: FBT003 - pynetdicom's own
            told.append(read_report(raw or b"", IMPLICIT, event.event_type))
            order.append("report")
            return 0, None

        entity = AE(ae_title="CT01")
        entity.add_requested_context(PUSH_MODEL)
        handlers = [*SOCKET_HANDLERS, (evt.EVT_N_EVENT_REPORT, heard)]
        association = entity.associate("127.0.0.1", port, ae_title="CTRIAGE", evt_handlers=handlers)
        open_ones.append(association)
        return Scanner(association=association, order=order, told=told)

    yield made
    for each in open_ones:
        each.release()


def test_a_report_never_overtakes_the_answer_to_its_request(
    own: House, bridge: Any, listen: Any, connect: Connect
) -> None:
    report = written_report(CommitmentReport(transaction_uid="1.9.1", outcomes={ct(1): COMMITTED}))
    reporting: list[Future[bool]] = []

    def hasty(request: ServiceRequest) -> Any:
        answer = own.parts.service(request)
        reporting.append(threads.submit(lambda: listener.event_report(request.association, report)))
        assert not wait(reporting, timeout=0.3).done  # the answer has not left
        return answer

    listener = listen(bridge, services={PUSH_MODEL: hasty})
    with ThreadPoolExecutor(1) as threads:
        scanner = connect(listener.port)
        assert (0, True) == (scanner.ask(ct(1)), reporting[0].result())
    assert ["1.9.1"] == [each.transaction_uid for each in scanner.told]


def test_a_scanner_hears_on_the_association_over_which_it_asked(
    own: House, bridge: Any, listen: Any, connect: Connect, wait_until: Any
) -> None:
    listener = listen(bridge, services={PUSH_MODEL: own.parts.service})
    own.parts.surroundings.event_report = listener.event_report
    scanner = connect(listener.port)
    assert 0 == scanner.ask(*own.receive(1, 2))
    own.run()
    wait_until(lambda: scanner.told)
    assert ["answer", "report"] == scanner.order
    assert [COMMITTED, COMMITTED] == list(scanner.told[0].outcomes.values())


def test_a_pacs_reports_on_an_association_of_its_own_in_the_role_of_the_scp(
    make_house: MakeHouse, make_peer: MakePeer, bridge: Any, listen: Any
) -> None:
    peer = make_peer(keeps={ct(1).sop_instance_uid}, reports=False)
    house = make_house(caller("relay"), destination=(pacs(peer),))
    listener = listen(bridge, services={PUSH_MODEL: house.parts.service})
    house.ask(*house.receive(1))
    house.run()
    us = SendingPeer(ae_title="CTRIAGE", host="127.0.0.1", port=listener.port)
    tell(us, written_report(peer.verdict(peer.requests[0])), calling_ae="PACS")
    house.run()
    assert [COMMITTED] == house.outcomes
    with pytest.raises(Permanent, match="0x0115"):
        tell(us, written_report(replace(peer.verdict(peer.requests[0]), transaction_uid="1.9.9")), calling_ae="PACS")
