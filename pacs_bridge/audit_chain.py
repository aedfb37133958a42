"""How do records of the audit trail hang together, so that one that is changed, taken out or put in shows?

Each line is a JSON object with its number, the hash of the record before it, the message, and last its own hash: an
HMAC-SHA256 of all that stands before it on the line, under a key that lies beside the trail. So nobody without the key
can change a copy unseen. Whoever holds the key (the service's own user, and root) could write the trail anew: against
them helps only a head (number and hash) that was noted elsewhere, for no chain without the key leads through it.
"""

import hashlib
import hmac
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

_HASH_DIGITS: Final = 64
_SEAL: Final = b',"hash":"%s"}'
_SEAL_BYTES: Final = len(_SEAL) - 2 + _HASH_DIGITS

TORN: Final = "sha256 of a torn line"
"""The detail in which a record answers for bytes before it that are no record."""
REMOVED: Final = "removed up to record"
"""The detail in which a record answers for records that the settings have had removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A place in the chain: a record's number and hash. Written as ``NUMBER:HASH``."""

    number: int
    hash: str

    def __str__(self) -> str:
        return f"{self.number}:{self.hash}"


def link_of(text: str) -> Link:
    """Read ``NUMBER:HASH``. Raises ValueError."""
    number, _, digest = text.partition(":")
    if len(bytes.fromhex(digest)) * 2 != _HASH_DIGITS:
        raise ValueError(f"{text!r} is no NUMBER:HASH")
    return Link(number=int(number), hash=digest.lower())


BEGINNING: Final = Link(number=0, hash="0" * _HASH_DIGITS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A record whose own hash is right."""

    link: Link
    previous: str
    message: dict[str, Any]

    def details(self, name: str) -> list[str]:
        """Return the values of the details of this name, of whatever the message is about."""
        objects = self.message.get("ParticipantObjectIdentification", ())
        found = (detail for each in objects for detail in each.get("ParticipantObjectDetail", ()))
        return [str(detail.get("value")) for detail in found if detail.get("type") == name]


def sealed(message: dict[str, Any], *, after: Link, key: bytes) -> tuple[bytes, Link]:
    """Return the line (with its end) that holds ``message`` after a record, and its own place in the chain."""
    content = {"number": after.number + 1, "previous": after.hash, "message": message}
    start = json.dumps(content, separators=(",", ":"))[:-1].encode("ascii")
    digest = _hash(start, key)
    return start + _SEAL % digest.encode("ascii") + b"\n", Link(number=after.number + 1, hash=digest)


def opened(line: bytes, key: bytes) -> Record | None:
    """Read a line (without its end); None where it is no record made with this key."""
    start, seal = line[:-_SEAL_BYTES], line[-_SEAL_BYTES:]
    digest = _hash(start, key)
    if not start or not hmac.compare_digest(seal, _SEAL % digest.encode("ascii")):
        return None
    content = json.loads(start + b"}")
    link = Link(number=content["number"], hash=digest)
    return Record(link=link, previous=content["previous"], message=content["message"])


def _hash(content: bytes, key: bytes) -> str:
    return hmac.digest(key, content, "sha256").hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of a segment, without its end, and where it stands."""

    segment: str
    number: int
    content: bytes

    @property
    def place(self) -> str:
        """Name the file and the line."""
        return f"{self.segment} line {self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """Where the chain does not hold, and what is wrong there."""

    place: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a walk along the whole chain found. ``tears`` are torn lines that the record after them answers for."""

    records: int
    first: Link | None
    head: Link | None
    breaks: tuple[Break, ...]
    tears: tuple[str, ...]

    @property
    def intact(self) -> bool:
        """Say whether every record is where and as it was written."""
        return not self.breaks


def verify(lines: Iterable[Line], key: bytes, *, noted: Link | None = None) -> Verdict:
    """Walk along the chain. ``noted``: a head that was written down before; the chain must still lead through it."""
    walk = _Walk(key=key, noted=noted)
    for line in lines:
        walk.take(line)
    return walk.verdict()


@dataclass(slots=True, kw_only=True)
class _Walk:
    key: bytes
    noted: Link | None
    records: int = 0
    first: Record | None = None
    first_place: str = ""
    last: Record | None = None
    unread: list[Line] = field(default_factory=list)
    breaks: list[Break] = field(default_factory=list)
    tears: list[str] = field(default_factory=list)
    removed: set[str] = field(default_factory=set)
    met_noted: bool = False

    def take(self, line: Line) -> None:
        record = opened(line.content, self.key)
        if record is None:
            self.unread.append(line)
            return
        self._answer_for_unread(record)
        self._join(record, line.place)
        self.removed.update(record.details(REMOVED))
        self.met_noted |= record.link == self.noted
        self.last = record
        self.records += 1

    def _join(self, record: Record, place: str) -> None:
        if self.last is None:
            self.first, self.first_place = record, place
        elif (record.previous, record.link.number) != (self.last.link.hash, self.last.link.number + 1):
            between = f"record {self.last.link.number} is followed by record {record.link.number}"
            self.breaks.append(Break(place=place, what=f"{between}, which was written after another one"))

    def _answer_for_unread(self, record: Record) -> None:
        if not self.unread:
            return
        torn = b"\n".join(each.content for each in self.unread)
        if self.last is None:  # nobody tears a trail at its beginning; a new key would answer for a whole old one
            self._blame_unread("is no record made with this key: the key was exchanged, or the line was changed")
        elif hashlib.sha256(torn).hexdigest() in record.details(TORN):
            self.tears += [each.place for each in self.unread]
        else:
            self._blame_unread("is no record of this trail: it was changed, or damaged")
        self.unread.clear()

    def _blame_unread(self, what: str) -> None:
        self.breaks += [Break(place=each.place, what=what) for each in self.unread]

    def verdict(self) -> Verdict:
        self._blame_unread("is no record: torn by a power cut (the service's next start answers for it), or damaged")
        self.breaks += self._missing()
        return Verdict(
            records=self.records,
            first=self.first.link if self.first else None,
            head=self.last.link if self.last else None,
            breaks=tuple(self.breaks),
            tears=tuple(self.tears),
        )

    def _missing(self) -> Iterator[Break]:
        """Tell what is not there at all: the beginning, unless a later record answers for it, or the head noted."""
        if self.first is not None and self.first.link.number != 1:
            before = Link(number=self.first.link.number - 1, hash=self.first.previous)
            if str(before) not in self.removed:
                what = f"records 1 to {before.number} are missing, and no record says that the settings removed them"
                yield Break(place=self.first_place, what=what)
        if self.noted is not None and not self.met_noted and str(self.noted) not in self.removed:
            yield Break(place="the end", what=f"record {self.noted.number} is not the one that was noted, or is gone")
