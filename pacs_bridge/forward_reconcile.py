"""Does a peer still hold what it said it took? Compares by SOP Instance UID, asks by C-FIND, sends again on demand.

Works beside the running service: what is to be sent again becomes pending, and the service passes it on.
"""

import re
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from pydicom.dataset import Dataset

from pacs_bridge.beside_service import looked_at, opened
from pacs_bridge.destinations import Destination
from pacs_bridge.forward_ledger import bring_back
from pacs_bridge.sending.association import associated
from pacs_bridge.sending.peer import Peer, TimeLimits
from pacs_bridge.status import uid_of
from scheduler.database import statements
from scheduler.errors import Permanent, Transient

STUDY_ROOT_FIND: Final = "1.2.840.10008.5.1.4.1.2.2.1"
_SYNTAXES: Final = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
_PENDING: Final = (0xFF00, 0xFF01)
_UID: Final = re.compile(r"(?<![\w.])\d+(?:\.\d+)+(?![\w.])")

Held = Callable[[str, str], Collection[str]]
"""(study, series) -> the SOP Instance UIDs that the peer holds of it, or more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What of one study was sent to a destination, and what of that it does not hold (UIDs, and index numbers)."""

    study_instance_uid: str
    study_key: str
    sent: int
    missing: tuple[str, ...]
    missing_ids: tuple[int, ...]


def compare(database: Path, destination: str, held: Held, *, key: str | None = None) -> Sequence[Compared]:
    """Compare what was sent, of the study with this key or of all, with what the peer holds.

    Raises UnknownStudy, NoState, and what ``held`` raises.
    """
    with looked_at(database) as connection:
        compared = (_compared(connection, destination, study, held) for study in _studies(connection, destination, key))
        return [each for each in compared if each is not None]


def send_again(database: Path, destination: str, missing: Sequence[Compared], *, at: datetime) -> int:
    """Let what is missing be sent again; returns how many instances."""
    sql = statements("pacs_bridge", "sql/forwards.sql")["send_again"]
    rows = [
        {"destination": destination, "instance_id": each, "at": at.isoformat()}
        for study in missing
        for each in study.missing_ids
    ]
    with opened(database) as service, service.transaction() as connection:
        return connection.executemany(sql, rows).rowcount if rows else 0


def retry(database: Path, destination: str, *, key: str | None, at: datetime) -> int:
    """Let what a destination refused, of the study with this key or of all, be sent again; returns how many instances.

    Raises UnknownStudy, NoState.
    """
    with opened(database) as service, service.transaction() as connection:
        return bring_back(connection, destination, None if key is None else uid_of(connection, key), at=at)


def held_in_list(text: str) -> Held:
    """Take the UIDs that stand in a list, whatever stands between them."""
    uids = frozenset(_UID.findall(text))
    return lambda _study, _series: uids


def held_by_peer(destination: Destination) -> Held:
    """Ask the peer itself, series by series (C-FIND, Study Root, IMAGE level).

    The call raises Transient where it does not answer, Permanent where it does not let itself be asked.
    """
    return lambda study, series: _found(destination, study, series)


def _found(destination: Destination, study: str, series: str) -> frozenset[str]:
    assert destination.peer is not None
    query = Dataset()
    query.QueryRetrieveLevel = "IMAGE"
    query.StudyInstanceUID, query.SeriesInstanceUID, query.SOPInstanceUID = study, series, ""
    with _open(destination.peer, destination.calling_ae) as association:
        return frozenset(_answers(association.send_c_find(query, STUDY_ROOT_FIND), str(destination.peer)))


@contextmanager
def _open(peer: Peer, calling_ae: str) -> Iterator[Any]:
    """Open an association for queries alone."""
    contexts = [(STUDY_ROOT_FIND, syntax) for syntax in _SYNTAXES]
    with ExitStack() as stack:
        try:
            association = stack.enter_context(associated(peer, calling_ae, contexts, TimeLimits()))
        except Permanent as refused:
            raise Permanent(f"{peer} does not let us query it (C-FIND, Study Root): let it") from refused
        yield association


def _answers(responses: Any, peer: str) -> Iterator[str]:
    for status, identifier in responses:
        code = status.get("Status")
        if code is None:
            raise Transient(f"{peer} did not answer the query, or broke off")
        if code in _PENDING and identifier is not None:
            yield str(identifier.get("SOPInstanceUID", ""))
        elif code != 0:
            raise Permanent(f"{peer} answered the query with 0x{code:04X}")


def _studies(connection: sqlite3.Connection, destination: str, key: str | None) -> list[str]:
    if key is not None:
        return [uid_of(connection, key)]
    return [str(row["study_instance_uid"]) for row in _rows(connection, "sent_studies", destination=destination)]


def _compared(connection: sqlite3.Connection, destination: str, study: str, held: Held) -> Compared | None:
    rows = _rows(connection, "sent_to", destination=destination, study_instance_uid=study)
    missing: list[sqlite3.Row] = []
    for series, of_series in groupby(rows, key=lambda row: str(row["series_instance_uid"])):
        there = held(study, series)
        missing += [row for row in of_series if row["sop_instance_uid"] not in there]
    if not rows:
        return None
    return Compared(
        study_instance_uid=study,
        study_key=str(rows[0]["study_key"]),
        sent=len(rows),
        missing=tuple(row["sop_instance_uid"] for row in missing),
        missing_ids=tuple(row["instance_id"] for row in missing),
    )


def _rows(connection: sqlite3.Connection, statement: str, **values: str) -> list[sqlite3.Row]:
    """Read to the end at once: a peer may take long to be asked, and a long look lets SQLite's log grow."""
    return connection.execute(statements("pacs_bridge", "sql/forwards.sql")[statement], values).fetchall()
