"""Where do the bytes of a data set come from: a file, block by block, or memory."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

MOST_BUFFERS: Final = 512
"""One readv takes 1024 on Linux (IOV_MAX), and no fewer than 16 anywhere (POSIX)."""


class Source(Protocol):
    """A data set of ``size`` bytes that is read once, from its start."""

    @property
    def size(self) -> int:
        """Return how many bytes there are."""
        ...

    def read_into(self, buffers: Sequence[memoryview]) -> int:
        """Fill the buffers in order; returns how many bytes were read, fewer only at the end. Raises OSError."""
        ...

    def close(self) -> None:
        """Give back what is held."""
        ...


class FileSource:
    """The rest of a file from an offset on; never more of it in memory than the buffers hold."""

    def __init__(self, path: Path, offset: int) -> None:
        """Open the file. Raises OSError."""
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            self.size = max(0, os.fstat(self._descriptor).st_size - offset)
            os.lseek(self._descriptor, offset, os.SEEK_SET)
        except OSError:
            self.close()
            raise

    def read_into(self, buffers: Sequence[memoryview]) -> int:
        """See `Source`."""
        wanted = sum(map(len, buffers))
        read = os.readv(self._descriptor, buffers)
        while read < wanted and (more := self._read_rest(buffers, read)):
            read += more
        return read

    def close(self) -> None:
        """See `Source`."""
        os.close(self._descriptor)

    def _read_rest(self, buffers: Sequence[memoryview], done: int) -> int:
        """Read on after a short read (a network file system, a signal): into the buffer that is not full yet."""
        for buffer in buffers:
            if done < len(buffer):
                return os.readv(self._descriptor, [buffer[done:]])
            done -= len(buffer)
        return 0


class MemorySource:
    """A data set that is in memory already."""

    def __init__(self, dataset: bytes) -> None:
        """Read from ``dataset``, which is not copied."""
        self.size = len(dataset)
        self._rest = memoryview(dataset)

    def read_into(self, buffers: Sequence[memoryview]) -> int:
        """See `Source`."""
        read = 0
        for buffer in buffers:
            part = self._rest[: len(buffer)]
            buffer[: len(part)] = part
            self._rest = self._rest[len(part) :]
            read += len(part)
        return read

    def close(self) -> None:
        """See `Source`."""
        self._rest.release()
