"""Does every byte of a message get into its PDUs, whatever the lengths, with nothing of the message before?"""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacs_bridge.sending.errors import Unreadable
from pacs_bridge.sending.pdu import PduReader, Pdv
from pacs_bridge.sending.source import FileSource, MemorySource
from pacs_bridge.sending.train import TRAIN_BYTES, Train

COMMAND = bytes(range(180))


def carried(train: Train, context_id: int, source: MemorySource | FileSource) -> tuple[list[Pdv], int]:
    """Return all PDVs of a message, and how many bytes the longest train had."""
    reader, pdvs = PduReader(), list[Pdv]()
    trains = [bytes(train.begin(COMMAND, context_id, source))]
    while train.left:
        trains.append(bytes(train.more()))
    reader.feed(b"".join(trains))
    while (more := reader.next_p_data()) is not None:
        pdvs += more
    assert b"" == bytes(reader.unread)
    return pdvs, max(map(len, trains))


def data_of(pdvs: Sequence[Pdv]) -> bytes:
    return b"".join(pdv.fragment for pdv in pdvs if not pdv.is_command)


MESSAGES = st.lists(st.tuples(st.integers(0, 127), st.binary(max_size=500)), min_size=1, max_size=4)


@settings(max_examples=200)
@given(messages=MESSAGES, longest=st.integers(1, 150).map(lambda half: 2 * half), room=st.integers(1, 400))
def test_messages_after_one_another_are_carried_whole(
    messages: list[tuple[int, bytes]], longest: int, room: int
) -> None:
    train = Train(longest, room)
    for number, dataset in messages:
        context_id = 2 * number + 1
        pdvs, _ = carried(train, context_id, MemorySource(dataset))
        commands = [pdv for pdv in pdvs if pdv.is_command]
        data = [pdv for pdv in pdvs if not pdv.is_command]
        assert pdvs == commands + data
        assert (COMMAND, dataset) == (b"".join(pdv.fragment for pdv in commands), data_of(pdvs))
        assert {context_id} == {pdv.context_id for pdv in pdvs}
        assert [False] * (len(data) - 1) + [True] == [pdv.is_last for pdv in data]
        assert all(len(pdv.fragment) == longest for pdv in data[:-1])


def test_a_long_file_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "long"
    content = bytes(range(256)) * 40_000
    path.write_bytes(content)
    pdvs, longest_train = carried(Train(16376), 1, FileSource(path, 5))
    assert content[5:] == data_of(pdvs)
    assert longest_train < 1.1 * TRAIN_BYTES < len(content) / 5


def test_a_file_that_shrinks_is_unreadable_and_closed(tmp_path: Path) -> None:
    path = tmp_path / "shrinking"
    path.write_bytes(bytes(1000))
    train = Train(100, 200)
    train.begin(COMMAND, 1, FileSource(path, 0))
    path.write_bytes(bytes(150))
    with pytest.raises(Unreadable, match="early"):
        train.more()
    train.close()
    with pytest.raises(Unreadable):
        train.more()


def test_an_offset_behind_the_end_leaves_an_empty_data_set(tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(b"abc")
    pdvs, _ = carried(Train(100), 1, FileSource(path, 10))
    assert b"" == data_of(pdvs)
    assert pdvs[-1].is_last


@given(content=st.binary(max_size=300), lengths=st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_a_file_and_memory_give_the_same(content: bytes, lengths: list[int], tmp_path_factory: object) -> None:
    from tempfile import TemporaryFile

    with TemporaryFile() as file:
        file.write(content)
        file.flush()
        from_file = FileSource(Path(f"/dev/fd/{file.fileno()}"), 0)
        read = [bytearray(length) for length in lengths]
        other = [bytearray(length) for length in lengths]
        counts = (
            from_file.read_into([memoryview(each) for each in read]),
            MemorySource(content).read_into([memoryview(each) for each in other]),
        )
        from_file.close()
    assert counts[0] == counts[1]
    assert b"".join(read) == b"".join(other)
