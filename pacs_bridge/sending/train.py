"""How do a command and a data set become P-DATA-TF PDUs without being copied twice?

One buffer holds a train of PDUs whose headers are written beforehand: a read fills the gaps between them, one write
sends the whole. Of a message, only the last header differs.
"""

import mmap
from typing import Final

from pacs_bridge.sending.errors import Unreadable
from pacs_bridge.sending.pdu import P_DATA_HEADER, Pdv, encode, fragments, put_header
from pacs_bridge.sending.source import MOST_BUFFERS, Source

TRAIN_BYTES: Final = 1024 * 1024
COMMAND_ROOM: Final = 4096
"""More than any C-STORE-RQ takes, in fragments of 2 bytes too."""


class Train:
    """Carries one message after the other to a peer that takes fragments of at most ``longest`` bytes."""

    def __init__(self, longest: int, train_bytes: int = TRAIN_BYTES) -> None:
        """Make room for about ``train_bytes`` bytes of data set."""
        count = max(1, min(train_bytes // longest, MOST_BUFFERS))
        step = P_DATA_HEADER.size + longest
        self._longest = longest
        # An anonymous mapping: of the room, small objects touch a few pages only.
        self._view = memoryview(mmap.mmap(-1, COMMAND_ROOM + count * step))
        self._heads = [COMMAND_ROOM + k * step for k in range(count)]
        starts = [head + P_DATA_HEADER.size for head in self._heads]
        self._gaps = [self._view[start : start + longest] for start in starts]
        self._start = COMMAND_ROOM
        self._headed = 0
        """So many of the PDUs have the header of a full fragment in this context, in order."""
        self._context_id = -1
        self._source: Source | None = None
        self._left = 0

    @property
    def left(self) -> int:
        """Return how many bytes of the data set have not been loaded yet."""
        return self._left

    def begin(self, command: bytes, context_id: int, source: Source) -> memoryview:
        """Load a message's command set and the first of its data set; returns what to send first.

        What is returned holds until the next call. Raises Unreadable. The source is closed as
        soon as it is loaded, or by `close`.
        """
        self.close()
        if context_id != self._context_id:
            self._context_id, self._headed = context_id, 0
        pdus = b"".join(map(encode, fragments(command, context_id, self._longest, is_command=True)))
        self._start = COMMAND_ROOM - len(pdus)
        self._view[self._start : COMMAND_ROOM] = pdus
        self._source, self._left = source, source.size
        return self._load()

    def more(self) -> memoryview:
        """Load what follows; returns what to send next. Raises as `begin` does."""
        self._start = COMMAND_ROOM
        return self._load()

    def close(self) -> None:
        """Close the source of the message, if there is one."""
        if self._source is not None:
            self._source.close()
            self._source = None

    def _load(self) -> memoryview:
        if self._source is None:
            raise Unreadable("nothing is left of it")
        length = min(self._left, len(self._gaps) * self._longest)
        full, rest = divmod(length, self._longest)
        gaps = [*self._gaps[:full], self._gaps[full][:rest]] if rest else self._gaps[:full]
        _fill(gaps, length, self._source)
        self._left -= length
        if not self._left:
            self.close()
        return self._view[self._start : self._finished(full, rest)]

    def _finished(self, full: int, rest: int) -> int:
        """Write the headers that lack, and mark where the data set ends (an empty one has one empty fragment)."""
        last = full if rest or not full else full - 1
        length = rest if rest or not full else self._longest
        for head in self._heads[self._headed : last + 1]:
            self._put_head(head, self._longest, is_last=False)
        self._headed = max(self._headed, last + 1)
        if not self._left:
            self._put_head(self._heads[last], length, is_last=True)
            self._headed = last
        return self._heads[last] + P_DATA_HEADER.size + length

    def _put_head(self, head: int, length: int, *, is_last: bool) -> None:
        pdv = Pdv(context_id=self._context_id, is_command=False, is_last=is_last, fragment=b"")
        put_header(pdv, length, self._view, head)


def _fill(gaps: list[memoryview], length: int, source: Source) -> None:
    try:
        read = source.read_into(gaps) if gaps else 0
    except OSError as failed:
        raise Unreadable(failed.strerror or "the disk fails") from failed
    if read < length:
        raise Unreadable(f"it ends {length - read} bytes or more early")
