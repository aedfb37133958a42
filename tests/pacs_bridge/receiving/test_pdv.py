"""Fragments become messages whatever way they were cut, and nothing else is taken for one."""

import struct
from collections.abc import Iterable
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs_bridge.errors import BrokenProtocol
from pacs_bridge.receiving.command import C_STORE_RQ, NO_DATASET, Command, read_command, store_response
from pacs_bridge.receiving.pdv import MAX_COMMAND_BYTES, Messages, Pdv, Step, pdvs_of


def element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHL", 0, number, len(value)) + value


def command_set(field: int = C_STORE_RQ, dataset_type: int = 1) -> bytes:
    return b"".join(
        (
            element(0x0002, b"1.2.840.10008.5.1.4.1.1.2\0"),
            element(0x0100, struct.pack("<H", field)),
            element(0x0110, struct.pack("<H", 7)),
            element(0x0800, struct.pack("<H", dataset_type)),
            element(0x1000, b"1.2.3\0"),
        )
    )


def pdv(content: bytes, *, command: bool, last: bool, context: int = 1) -> bytes:
    return struct.pack(">LBB", len(content) + 2, context, command | last << 1) + content


def cut(content: bytes, cuts: Iterable[int], *, command: bool) -> list[bytes]:
    places = sorted({0, len(content), *(at for at in cuts if 0 < at < len(content))})
    parts = [content[a:b] for a, b in pairwise(places)] or [b""]
    return [pdv(part, command=command, last=n == len(parts) - 1) for n, part in enumerate(parts)]


def taken(messages: Messages, payload: bytes) -> list[tuple[Step, bytes]]:
    return [(messages.take(each), bytes(each.fragment)) for each in pdvs_of(memoryview(payload))]


cuts = st.lists(st.integers(1, 400), max_size=6)


@given(dataset=st.binary(min_size=1, max_size=500), command_cuts=cuts, dataset_cuts=cuts, together=st.integers(1, 5))
def test_a_message_is_the_same_however_it_is_cut(
    dataset: bytes, command_cuts: list[int], dataset_cuts: list[int], together: int
) -> None:
    messages = Messages()
    fragments = cut(command_set(), command_cuts, command=True) + cut(dataset, dataset_cuts, command=False)
    steps = []
    for start in range(0, len(fragments), together):
        steps += taken(messages, b"".join(fragments[start : start + together]))
    of_dataset = [content for step, content in steps if step in (Step.PART_OF_DATASET, Step.DATASET)]
    assert dataset == b"".join(of_dataset)
    assert (Step.DATASET, True) == (steps[-1][0], messages.is_idle)
    assert (True, 7, "1.2.3") == (
        messages.command.is_store,
        messages.command.message_id,
        messages.command.sop_instance_uid,
    )


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_fragments_or_broken_and_nothing_else(payload: bytes) -> None:
    messages = Messages()
    with suppress(BrokenProtocol):
        for each in pdvs_of(memoryview(payload)):
            assert isinstance(messages.take(each), Step)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_a_command_set_or_broken_and_nothing_else(content: bytes) -> None:
    with suppress(BrokenProtocol):
        assert isinstance(read_command(content), Command)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\0\0\0",
        struct.pack(">LBB", 1, 1, 3),
        struct.pack(">LBB", 100, 1, 3) + b"short",
        struct.pack(">LBB", 0xFFFFFFFF, 1, 3),
    ],
)
def test_a_cut_off_value_is_broken(payload: bytes) -> None:
    with pytest.raises(BrokenProtocol):
        list(pdvs_of(memoryview(payload)))


def test_fragments_of_two_contexts_are_never_mixed() -> None:
    messages = Messages()
    taken(messages, pdv(command_set(), command=True, last=True, context=1))
    with pytest.raises(BrokenProtocol, match="two presentation contexts"):
        taken(messages, pdv(b"x", command=False, last=True, context=3))


def test_a_data_set_needs_a_command_before_it() -> None:
    with pytest.raises(BrokenProtocol, match="before a command"):
        taken(Messages(), pdv(b"x", command=False, last=True))


def test_a_command_inside_a_data_set_is_broken() -> None:
    messages = Messages()
    taken(messages, pdv(command_set(), command=True, last=True) + pdv(b"x", command=False, last=False))
    with pytest.raises(BrokenProtocol, match="inside a data set"):
        taken(messages, pdv(command_set(), command=True, last=True))


def test_a_command_without_end_is_given_up() -> None:
    messages = Messages()
    part = bytes(MAX_COMMAND_BYTES // 2 + 1)
    taken(messages, pdv(part, command=True, last=False))
    with pytest.raises(BrokenProtocol, match="without end"):
        taken(messages, pdv(part, command=True, last=False))


def test_a_command_without_data_set_ends_its_message() -> None:
    messages = Messages()
    assert [Step.COMMAND] == [
        step for step, _ in taken(messages, pdv(command_set(0x30, NO_DATASET), command=True, last=True))
    ]
    assert messages.is_idle
    assert not messages.command.is_store


def test_the_response_is_a_command_set_for_the_request() -> None:
    request = read_command(command_set())
    pdu = store_response(request, 5, 0xA700, "the disk is full")
    assert (4, len(pdu) - 6) == (pdu[0], int.from_bytes(pdu[2:6], "big"))
    (only,) = pdvs_of(memoryview(pdu)[6:])
    assert isinstance(only, Pdv)
    assert (5, True, True) == (only.context_id, only.is_command, only.is_last)
    content = bytes(only.fragment)
    response = read_command(content)
    assert (0x8001, False, "1.2.3") == (response.field, response.has_dataset, response.sop_instance_uid)
    assert struct.pack("<HHLH", 0, 0x0900, 2, 0xA700) in content
    assert struct.pack("<HHLH", 0, 0x0120, 2, 7) in content
    assert struct.unpack_from("<L", content, 8)[0] == len(content) - 12
    assert b"the disk is full" in content
