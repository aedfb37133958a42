"""Is what an archive holds what was sent, byte for byte?"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pydicom

from scheduler.database import statements

SAMPLE = 20


class Differs(Exception):
    """The archive holds other bytes than those that were sent, or none."""


@contextmanager
def read_only(database: Path) -> Iterator[sqlite3.Connection]:
    """Open the service's database for looking; rows have names."""
    connection = sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=10)
    connection.row_factory = sqlite3.Row
    try:
        yield connection
    finally:
        connection.close()


def check_sample(sent: Sequence[Path], state_dir: Path) -> None:
    """Compare SAMPLE of the files of one series with what the archive made of them.

    Raises Differs where one is absent from the index, or its data set is not, byte for byte, what was in the file.
    """
    wanted = sent[:: max(1, len(sent) // SAMPLE)]
    header = pydicom.dcmread(wanted[0], stop_before_pixels=True)
    held = files_of_series(state_dir, str(header.StudyInstanceUID), str(header.SeriesInstanceUID))
    for path in wanted:
        uid = str(pydicom.dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)
        if uid not in held:
            raise Differs("an instance that was answered Success is not in the index")
        if dataset_of(path) != dataset_of(held[uid]):
            raise Differs("an instance lies in the archive with other bytes than were sent")


def files_of_series(state_dir: Path, study: str, series: str) -> dict[str, Path]:
    """Return the archive's files of a series by SOP Instance UID."""
    sql = statements("pacs_bridge", "sql/archive.sql")["instances_of"]
    with read_only(state_dir / "ctriage.sqlite") as connection:
        rows = connection.execute(sql, {"study_instance_uid": study, "series_instance_uid": series})
        return {row["sop_instance_uid"]: state_dir / "archive" / row["path"] for row in rows}


def dataset_of(path: Path) -> bytes:
    """Return the bytes of a Part-10 file behind its file meta information (PS3.10, 7.1)."""
    content = path.read_bytes()
    # (0002,0000) UL, always first: how many bytes of meta information follow it.
    return content[144 + int.from_bytes(content[140:144], "little") :]
