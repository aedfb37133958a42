"""Are the command sets of C-STORE those of PS3.7?"""

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pynetdicom.dsutils import decode, encode

from pacs_bridge.sending.commands import C_STORE_RSP, StoreResponse, read_store_response, store_request
from pacs_bridge.sending.pdu import Malformed

UIDS = st.lists(st.integers(0, 99999), min_size=2, max_size=10).map(lambda parts: ".".join(map(str, parts)))


def response(**elements: object) -> bytes:
    command = Dataset()
    for name, value in elements.items():
        setattr(command, name, value)
    return bytes(encode(command, True, True) or b"")  # noqa: FBT003 - pynetdicom's


@given(message_id=st.integers(0, 0xFFFF), sop_class=UIDS, instance=UIDS)
def test_pydicom_reads_the_request_that_we_encode(message_id: int, sop_class: str, instance: str) -> None:
    encoded = store_request(message_id, sop_class, instance)
    command = decode(BytesIO(encoded), True, True)  # noqa: FBT003 - pynetdicom's
    assert len(encoded) == command.CommandGroupLength + 12
    assert (1, message_id, 0, 1) == (command.CommandField, command.MessageID, command.Priority, 1)
    assert command.CommandDataSetType != 0x0101
    assert (sop_class, instance) == (command.AffectedSOPClassUID, command.AffectedSOPInstanceUID)


@given(message_id=st.integers(0, 0xFFFF), status=st.integers(0, 0xFFFF), comment=st.text("abc ", max_size=60))
def test_a_response_is_read_with_whatever_a_peer_adds(message_id: int, status: int, comment: str) -> None:
    encoded = response(
        CommandGroupLength=0,
        AffectedSOPClassUID="1.2.3",
        CommandField=C_STORE_RSP,
        MessageIDBeingRespondedTo=message_id,
        CommandDataSetType=0x0101,
        Status=status,
        ErrorComment=comment,
    )
    assert StoreResponse(message_id=message_id, status=status) == read_store_response(encoded)


@given(command=st.binary(max_size=120))
def test_arbitrary_bytes_are_malformed_and_nothing_else(command: bytes) -> None:
    with pytest.raises(Malformed):
        read_store_response(command)


@given(at=st.integers(0, 61), value=st.integers(0, 255), cut=st.integers(0, 62))
def test_a_damaged_response_is_read_or_malformed_and_nothing_else(at: int, value: int, cut: int) -> None:
    whole = bytearray(response(CommandField=C_STORE_RSP, MessageIDBeingRespondedTo=7, CommandDataSetType=257, Status=0))
    whole[at % len(whole)] = value
    try:
        read = read_store_response(bytes(whole[:cut]))
    except Malformed:
        return
    assert read.message_id in range(0x10000)


def test_another_command_is_no_answer_to_a_c_store() -> None:
    with pytest.raises(Malformed, match="0x8030"):
        read_store_response(response(CommandField=0x8030, MessageIDBeingRespondedTo=1, Status=0))
