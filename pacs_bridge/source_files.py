"""What do the files of a study say: the headers of all, and the data sets of those few that are asked to speak?"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydicom.dataset import Dataset

from pacs_bridge.results.sources import SourceHeaders
from pipeline.process import Source
from reconstruction.errors import NotDicom
from reconstruction.headers import Header, read_dataset, read_headers, unpack


def read_sources(files: Mapping[str, str], packed: Mapping[str, str]) -> tuple[dict[str, Source], tuple[str, ...]]:
    """Pair the files of instances with their headers: as indexed at arrival where they are, else from the file.

    What cannot be read is left out and said in a note.
    """
    paths = {uid: Path(file) for uid, file in files.items()}
    indexed = {uid: _indexed(path, packed.get(uid)) for uid, path in paths.items()}
    unread = [uid for uid, header in indexed.items() if header is None]
    read = dict(zip(unread, read_headers([paths[uid] for uid in unread]), strict=True))
    sources: dict[str, Source] = {}
    reasons: Counter[str] = Counter()
    for uid, path in paths.items():
        header = indexed[uid] or read[uid]
        if isinstance(header, NotDicom):
            reasons[header.reason] += 1
        else:
            sources[uid] = Source(header=header, path=path)
    return sources, tuple(f"{count} image(s) could not be read: {reason}" for reason, count in reasons.items())


def source_headers(sources: Mapping[str, Source]) -> SourceHeaders:
    """Return what results may say of these instances."""
    return SourceHeaders(
        headers={uid: source.header for uid, source in sources.items()},
        datasets=DatasetsOnDisk({uid: source.path for uid, source in sources.items()}),
    )


class DatasetsOnDisk(Mapping[str, Dataset]):
    """The data sets (without pixels) of files by SOP Instance UID, each read once, when it is asked for.

    One that pydicom cannot read is a KeyError, as if it were not there.
    """

    def __init__(self, paths: Mapping[str, Path]) -> None:
        """Take the files; nothing is read yet."""
        self._paths = paths
        self._read: dict[str, Dataset] = {}

    def __getitem__(self, uid: str) -> Dataset:
        """Return one data set."""
        if uid not in self._read:
            try:
                self._read[uid] = read_dataset(self._paths[uid])
            except NotDicom as error:
                raise KeyError(uid) from error
        return self._read[uid]

    def __contains__(self, uid: object) -> bool:
        """Say whether there is a file, without reading it."""
        return uid in self._paths

    def __iter__(self) -> Iterator[str]:
        """Go over the SOP Instance UIDs."""
        return iter(self._paths)

    def __len__(self) -> int:
        """Return how many files there are."""
        return len(self._paths)


def _indexed(path: Path, packed: str | None) -> Header | None:
    """Unpack a header whose file is still there: one that is gone shall be said to be, not assembled."""
    return unpack(packed) if packed and path.exists() else None
