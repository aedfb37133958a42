"""The corpus of the fuzzer: small synthetic data sets in every kind of encoding, associations, and answers.

All of it is made here, byte by byte, so that it may also be wrong in ways that a library would not write.
"""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from benchmarks.wire import CT_IMAGE, EXPLICIT_LE, IMPLICIT_LE

EXPLICIT_BE: Final = "1.2.840.10008.1.2.2"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"
JPEG_LOSSLESS: Final = "1.2.840.10008.1.2.4.70"
SYNTAXES: Final = (IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE, DEFLATED, JPEG_LOSSLESS)
UNDEFINED: Final = 0xFFFFFFFF
_LONG: Final = ("OB", "OW", "SQ", "UN", "UT", "OF")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """A data set and the transfer syntax it is said to be in."""

    transfer_syntax: str
    content: bytes = field(repr=False)


class Encoder:
    """Encodes elements by hand: ``order`` as struct names it; without VR where ``implicit``."""

    def __init__(self, *, order: str = "<", implicit: bool = False) -> None:
        """Choose the encoding."""
        self._order = order
        self._implicit = implicit

    def element(self, tag: int, vr: str, value: bytes, length: int | None = None) -> bytes:
        """Encode one element; ``length`` is stated instead of the true one, where given."""
        stated = len(value) if length is None else length
        head = struct.pack(self._order + "HH", tag >> 16, tag & 0xFFFF)
        if self._implicit or tag >> 16 == 0xFFFE:
            return head + struct.pack(self._order + "L", stated) + value
        if vr in _LONG:
            return head + vr.encode() + struct.pack(self._order + "HL", 0, stated) + value
        return head + vr.encode() + struct.pack(self._order + "H", stated) + value

    def short(self, tag: int, number: int) -> bytes:
        """Encode an unsigned short."""
        return self.element(tag, "US", struct.pack(self._order + "H", number))

    def text(self, tag: int, vr: str, text: bytes) -> bytes:
        """Encode text, padded to an even length."""
        return self.element(tag, vr, text + (b"\0" if vr == "UI" else b" ") * (len(text) % 2))

    def item(self, content: bytes, *, undefined: bool = False) -> bytes:
        """Encode an item of a sequence."""
        if undefined:
            return self.element(0xFFFEE000, "", content, UNDEFINED) + self.element(0xFFFEE00D, "", b"")
        return self.element(0xFFFEE000, "", content)

    def sequence(self, tag: int, content: bytes, *, undefined: bool = False) -> bytes:
        """Encode a sequence of items."""
        if undefined:
            return self.element(tag, "SQ", content, UNDEFINED) + self.element(0xFFFEE0DD, "", b"")
        return self.element(tag, "SQ", content)


def datasets() -> list[Seed]:
    """Return the data sets: each syntax, each shape of sequence, texts in other character sets, bombs left out."""
    seeds = [Seed(transfer_syntax=syntax, content=_in_syntax(syntax)) for syntax in SYNTAXES]
    seeds += [Seed(transfer_syntax=EXPLICIT_LE, content=ct_slice(Encoder(), nested=depth)) for depth in (1, 20, 40)]
    seeds += [
        Seed(transfer_syntax=EXPLICIT_LE, content=ct_slice(Encoder(), charset=declared, name=name))
        for declared, name in _NAMES
    ]
    return [*seeds, Seed(transfer_syntax=EXPLICIT_LE, content=b""), Seed(transfer_syntax=IMPLICIT_LE, content=bytes(8))]


def bombs() -> list[Seed]:
    """Return what is small and wants to be large: for its reader's memory, time or stack."""
    encoder = Encoder()
    deep = encoder.element(0x00081140, "SQ", encoder.element(0xFFFEE000, "", b"", UNDEFINED), UNDEFINED)
    many = encoder.element(0x00090010, "LO", b"") * 200_000
    wide = encoder.sequence(0x00081140, encoder.item(b"") * 100_000, undefined=True)
    return [
        Seed(transfer_syntax=DEFLATED, content=_deflated_zeros(2**30)),
        Seed(transfer_syntax=EXPLICIT_LE, content=deep * 100_000),
        Seed(transfer_syntax=EXPLICIT_LE, content=many),
        Seed(transfer_syntax=EXPLICIT_LE, content=wide + ct_slice(encoder)),
        Seed(
            transfer_syntax=EXPLICIT_LE, content=encoder.text(0x00080005, "CS", b"\\".join([b"ISO 2022 IR 87"] * 3000))
        ),
        Seed(transfer_syntax=EXPLICIT_LE, content=ct_slice(encoder, name=b"\x1b$B" * 20_000)),
        Seed(transfer_syntax=EXPLICIT_LE, content=ct_slice(encoder, number=b"9" * 60_000)),
    ]


_NAMES: Final = (
    (b"ISO_IR 100", b"Mu\xf1oz^\xcd\xf1igo"),
    (b"ISO_IR 192", "Muñoz^Íñigo".encode()),
    (b"\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"),
    (b"ISO 2022 IR 6\\ISO 2022 IR 149", b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7"),
    (b"NONE AT ALL", b"\xff\xfe\x1b\x1b$"),
)


def ct_slice(
    encoder: Encoder, *, nested: int = 1, charset: bytes = b"ISO_IR 100", name: bytes = b"A^B", number: bytes = b"1"
) -> bytes:
    """Encode a CT slice of 4x4 pixels whose sequences are nested so deep, defined and undefined in turn."""
    inner = encoder.text(0x00081155, "UI", b"1.2.3")
    for depth in range(nested):
        is_undefined = depth % 2 == 1
        inner = encoder.sequence(0x00081140, encoder.item(inner, undefined=is_undefined), undefined=is_undefined)
    return b"".join(
        (
            encoder.text(0x00080005, "CS", charset),
            encoder.text(0x00080008, "CS", b"ORIGINAL\\PRIMARY\\AXIAL"),
            encoder.text(0x00080016, "UI", CT_IMAGE.encode()),
            encoder.text(0x00080018, "UI", b"1.2.3.4.5"),
            encoder.text(0x00080060, "CS", b"CT"),
            encoder.text(0x00081030, "LO", b"Head"),
            inner,
            encoder.element(0x00090010, "LO", b"MAKER 1 "),
            encoder.element(0x00091001, "UN", bytes(64)),
            encoder.text(0x00100010, "PN", name),
            encoder.text(0x00180050, "DS", b"2.5"),
            encoder.text(0x0020000D, "UI", b"1.2.3"),
            encoder.text(0x0020000E, "UI", b"1.2.3.4"),
            encoder.text(0x00200013, "IS", number),
            encoder.text(0x00200032, "DS", b"-100\\-100\\42.5"),
            encoder.text(0x00200037, "DS", b"1\\0\\0\\0\\1\\0"),
            encoder.text(0x00201002, "IS", b"24"),
            encoder.short(0x00280002, 1),
            encoder.text(0x00280004, "CS", b"MONOCHROME2"),
            encoder.short(0x00280010, 4),
            encoder.short(0x00280011, 4),
            encoder.text(0x00280030, "DS", b"0.5\\0.5"),
            encoder.short(0x00280100, 16),
            encoder.short(0x00280101, 12),
            encoder.short(0x00280103, 0),
            encoder.text(0x00281052, "DS", b"-1024"),
            encoder.text(0x00281053, "DS", b"1"),
            encoder.element(0x7FE00010, "OW", bytes(32)),
        )
    )


def _in_syntax(syntax: str) -> bytes:
    encoder = Encoder(order=">" if syntax == EXPLICIT_BE else "<", implicit=syntax == IMPLICIT_LE)
    content = ct_slice(encoder, nested=3)
    if syntax == DEFLATED:
        packed = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        return packed.compress(content) + packed.flush()
    if syntax == JPEG_LOSSLESS:
        fragments = encoder.item(b"") + encoder.item(bytes(40)) + encoder.item(bytes(40))
        pixels = encoder.element(0x7FE00010, "OB", fragments, UNDEFINED) + encoder.element(0xFFFEE0DD, "", b"")
        return content[: -len(encoder.element(0x7FE00010, "OW", bytes(32)))] + pixels
    return content


def _deflated_zeros(count: int) -> bytes:
    """Deflate a header and so many zero bytes of pixels; a full flush makes blocks that can be repeated."""
    encoder, block = Encoder(), 2**24
    head = encoder.text(0x00080016, "UI", CT_IMAGE.encode()) + encoder.element(0x7FE00010, "OW", b"", count)
    packed = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    first = packed.compress(head) + packed.flush(zlib.Z_FULL_FLUSH)
    again = packed.compress(bytes(block)) + packed.flush(zlib.Z_FULL_FLUSH)
    return first + again * (count // block) + packed.flush()


# ---- messages -------------------------------------------------------------------------------------------------------


def command_set(*elements: tuple[int, bytes]) -> bytes:
    """Encode a command set with its group length."""
    encoder = Encoder(implicit=True)
    body = b"".join(encoder.element(number, "", value) for number, value in elements)
    return encoder.element(0, "", struct.pack("<L", len(body))) + body


def pdu(*values: tuple[int, int, bytes]) -> bytes:
    """Encode a P-DATA-TF PDU of (context, control, fragment)."""
    body = b"".join(struct.pack(">LBB", len(part) + 2, context, control) + part for context, control, part in values)
    return struct.pack(">BxL", 4, len(body)) + body


def _request(field_value: int, *, with_dataset: bool = True) -> bytes:
    return command_set(
        (0x0002, CT_IMAGE.encode() + b"\0"),
        (0x0100, struct.pack("<H", field_value)),
        (0x0110, b"\1\0"),
        (0x0700, b"\0\0"),
        (0x0800, b"\1\0" if with_dataset else b"\1\1"),
        (0x1000, b"1.2.3.4.5\0"),
    )


def streams() -> Sequence[bytes]:
    """Return what senders say after they were let in: requests in one PDU and in many, and other services."""
    store, dataset = _request(0x0001), ct_slice(Encoder())
    halves = [pdu((1, 1, store[:50])), pdu((1, 3, store[50:])), pdu((1, 0, dataset[:99])), pdu((1, 2, dataset[99:]))]
    return (
        pdu((1, 3, store)) + pdu((1, 2, dataset)),
        pdu((1, 3, store), (1, 2, dataset)),
        b"".join(halves),
        b"".join(pdu((1, 0, dataset[at : at + 40])) for at in range(0, 400, 40)),
        pdu((3, 3, _request(0x0030, with_dataset=False))) * 2,
        pdu((1, 3, store)) + pdu((3, 3, _request(0x0030, with_dataset=False))),
        pdu((1, 3, _request(0x0130))) + pdu((1, 2, b"")),
        pdu((1, 3, store)) + pdu((1, 2, dataset)) + b"\5\0\0\0\0\4\0\0\0\0",
    )


def answers() -> Sequence[bytes]:
    """Return what receivers say: C-STORE responses, whole, in parts, with comments, and what is none."""
    response = [
        (0x0002, CT_IMAGE.encode() + b"\0"),
        (0x0100, b"\1\x80"),
        (0x0120, b"\1\0"),
        (0x0800, b"\1\1"),
        (0x0900, b"\0\0"),
    ]
    plain = command_set(*response)
    told = command_set(*response[:-1], (0x0900, b"\0\xa7"), (0x0902, b"disk is full"), (0x1000, b"1.2.3.4.5\0"))
    return (
        pdu((1, 3, plain)),
        pdu((1, 3, told)),
        pdu((1, 1, plain[:30])) + pdu((1, 3, plain[30:])),
        pdu((1, 1, told[:30]), (1, 1, told[30:60]), (1, 3, told[60:])),
        pdu((1, 3, plain)) * 3,
        b"\7\0\0\0\0\4\0\0\2\0",
    )
