"""Are PDUs encoded and read as PS3.8 has them, whatever comes?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.pdu import P_DATA_TF as ReferencePdu

from pacs_bridge.sending.pdu import (
    LONGEST_FRAGMENT,
    LONGEST_RECEIVED,
    PDU_HEADER,
    Malformed,
    PduReader,
    Pdv,
    encode,
    fragments,
    longest_fragment,
)

PDVS = st.builds(
    Pdv,
    context_id=st.integers(1, 255),
    is_command=st.booleans(),
    is_last=st.booleans(),
    fragment=st.binary(max_size=300),
)


def read_in_pieces(stream: bytes, pieces: list[int]) -> list[Pdv]:
    reader, read, at = PduReader(), list[Pdv](), 0
    for length in [*pieces, len(stream)]:
        reader.feed(stream[at : at + length])
        at += length
        while (pdvs := reader.next_p_data()) is not None:
            read += pdvs
    assert b"" == bytes(reader.unread)
    return read


@given(pdvs=st.lists(PDVS, max_size=5), pieces=st.lists(st.integers(1, 50), max_size=20))
def test_what_was_encoded_is_read_again_however_the_stream_is_cut(pdvs: list[Pdv], pieces: list[int]) -> None:
    assert pdvs == read_in_pieces(b"".join(map(encode, pdvs)), pieces)


@given(pdv=PDVS)
def test_pynetdicom_reads_what_we_encode(pdv: Pdv) -> None:
    reference = ReferencePdu()
    reference.decode(encode(pdv))
    (item,) = reference.presentation_data_value_items
    control = (2 if pdv.is_last else 0) | (1 if pdv.is_command else 0)
    assert (pdv.context_id, bytes([control]) + pdv.fragment) == (item.context_id, item.data)


@given(pdvs=st.lists(PDVS, min_size=1, max_size=5))
def test_several_values_in_one_pdu_are_all_read(pdvs: list[Pdv]) -> None:
    body = b"".join(encode(pdv)[PDU_HEADER.size :] for pdv in pdvs)
    assert pdvs == read_in_pieces(PDU_HEADER.pack(4, len(body)) + body, [])


@given(stream=st.one_of(st.binary(max_size=200), st.binary(max_size=60).map(lambda tail: b"\x04\0\0\0\0\x10" + tail)))
def test_arbitrary_bytes_are_malformed_or_wait_for_more_and_nothing_else(stream: bytes) -> None:
    reader = PduReader()
    reader.feed(stream)
    try:
        while reader.next_p_data() is not None:
            pass
    except Malformed:
        return
    assert len(reader.unread) < PDU_HEADER.size + LONGEST_RECEIVED


@given(message=st.binary(max_size=400), longest=st.integers(1, 200).map(lambda half: 2 * half), command=st.booleans())
def test_fragments_make_up_the_message_and_only_the_last_says_so(
    message: bytes, longest: int, *, command: bool
) -> None:
    parts = list(fragments(message, 5, longest, is_command=command))
    assert message == b"".join(part.fragment for part in parts)
    assert [False] * (len(parts) - 1) + [True] == [part.is_last for part in parts]
    assert all(len(part.fragment) == longest for part in parts[:-1])


@given(maximum=st.integers(8, 2**32 - 1))
def test_a_fragment_and_its_headers_stay_within_what_the_peer_takes(maximum: int) -> None:
    longest = longest_fragment(maximum)
    assert longest % 2 == 0
    assert 0 < longest <= LONGEST_FRAGMENT
    assert len(encode(Pdv(context_id=1, is_command=False, is_last=True, fragment=bytes(longest)))) <= maximum + 6


def test_a_peer_without_limit_gets_long_fragments_and_one_that_takes_nothing_none() -> None:
    assert longest_fragment(0) == LONGEST_FRAGMENT
    for maximum in range(1, 8):
        with pytest.raises(Malformed, match="no data"):
            longest_fragment(maximum)


def test_a_pdu_that_announces_gigabytes_is_refused_before_it_is_read() -> None:
    reader = PduReader()
    reader.feed(PDU_HEADER.pack(4, 2**31))
    with pytest.raises(Malformed, match="2147483648"):
        reader.next_p_data()
