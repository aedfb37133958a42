"""What is changed in a seed: bits, lengths, value representations, order, depth. Everything follows from the number."""

import struct
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

LENGTHS: Final = (0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000,
                  0xFFFFFFF0, 0xFFFFFFFE, 0xFFFFFFFF)  # fmt: skip
TOKENS: Final = (
    # Items, their ends and those of sequences, in either order; pixels and sequences without a length.
    b"\xfe\xff\x00\xe0\xff\xff\xff\xff",
    b"\xfe\xff\x00\xe0\x00\x00\x00\x00",
    b"\xfe\xff\x0d\xe0\x00\x00\x00\x00",
    b"\xfe\xff\xdd\xe0\x00\x00\x00\x00",
    b"\xff\xfe\xe0\x00\xff\xff\xff\xff",
    b"\xe0\x7f\x10\x00OW\x00\x00\xff\xff\xff\xff",
    b"\xe0\x7f\x10\x00OB\x00\x00\x10\x00\x00\x00",
    b"\x08\x00\x40\x11SQ\x00\x00\xff\xff\xff\xff",
    b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 192",
    # The heads of PDUs and of fragments.
    b"\x04\x00\x00\x00\x00\x08\x00\x00\x00\x04\x01\x03",
    b"\x04\x00\xff\xff\xff\xff",
    # Value representations, and pieces of values.
    *(b"SQ", b"UN", b"OB", b"UT", b"US", b"  ", b"\0\0"),
    *(b"\\", b"\x1b$B", b"9" * 40, b"1e400", b"nan", b".", b"\xc3"),
)
CHANGES: Final = (1, 1, 1, 2, 3, 6)
HEAD_BYTES: Final = 4096
"""In large inputs, most changes are made where the header is: pixels are stepped over."""

Mutation = Callable[[bytearray, Random], None]


def mutated(seeds: Sequence[bytes], chosen: bytes, rng: Random) -> bytes:
    """Return a seed after one change or some; now and then they splice in a part of another."""
    content = bytearray(chosen)
    for _ in range(rng.choice(CHANGES)):
        change = rng.choice(_MUTATIONS)
        if change is None:
            other = rng.choice(seeds)[: 4 * HEAD_BYTES]
            _insert(content, rng, other[_place(other, rng) :][: rng.randint(1, 400)])
        else:
            change(content, rng)
    return bytes(content)


def _place(content: bytes | bytearray, rng: Random) -> int:
    end = len(content) if rng.random() < 0.1 else min(len(content), HEAD_BYTES)
    return rng.randrange(end) if end else 0


def _insert(content: bytearray, rng: Random, what: bytes) -> None:
    at = _place(content, rng)
    content[at:at] = what


def _flip(content: bytearray, rng: Random) -> None:
    if content:
        content[_place(content, rng)] ^= 1 << rng.randrange(8)


def _set(content: bytearray, rng: Random) -> None:
    if content:
        content[_place(content, rng)] = rng.choice((0, 1, 0x20, 0x5C, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _length(content: bytearray, rng: Random) -> None:
    """Write a telling number over two or four bytes, in either order."""
    form, at = rng.choice(("<H", ">H", "<L", ">L")), _place(content, rng)
    number = rng.choice((*LENGTHS, len(content), max(len(content) - at, 0)))
    room = struct.calcsize(form)
    content[at : at + room] = struct.pack(form, number & (2 ** (8 * room) - 1))


def _overwrite(content: bytearray, rng: Random) -> None:
    token, at = rng.choice(TOKENS), _place(content, rng)
    content[at : at + len(token)] = token


def _add(content: bytearray, rng: Random) -> None:
    _insert(content, rng, rng.choice(TOKENS) * rng.choice((1, 1, 1, 2, 70)))


def _cut(content: bytearray, rng: Random) -> None:
    del content[_place(content, rng) :]


def _remove(content: bytearray, rng: Random) -> None:
    at = _place(content, rng)
    del content[at : at + rng.randint(1, 64)]


def _repeat(content: bytearray, rng: Random) -> None:
    at = _place(content, rng)
    _insert(content, rng, bytes(content[at : at + rng.randint(1, 200)]) * rng.choice((1, 2, 50)))


_MUTATIONS: Final[Sequence[Mutation | None]] = (
    _flip, _flip, _set, _length, _length, _length, _overwrite, _overwrite, _add, _cut, _remove, _repeat, None,
)  # fmt: skip
