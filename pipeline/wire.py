"""How do Reports and per-series results rest between two jobs? As JSON, and back without loss.

One codec for all values of this package: dataclasses by their fields, arrays as compressed bits or nested lists. What
people and other programs read is ``report_json``; this form is ours alone and may change with the code version.
"""

import base64
import dataclasses
import json
import types
import typing
import zlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Any, TypeVar

import numpy as np

from reconstruction.geometry import Geometry
from reconstruction.volume import Mask

T = TypeVar("T")


def dumps(value: object) -> str:
    """Write a value of this package as JSON."""
    return json.dumps(_encode(value), separators=(",", ":"), ensure_ascii=False)


def loads(kind: type[T], text: str) -> T:
    """Read back what ``dumps`` wrote of a value of type ``kind``."""
    value: T = _decode(kind, json.loads(text))
    return value


def _encode(value: object) -> Any:
    if isinstance(value, Mask):
        return _encode_mask(value)
    if dataclasses.is_dataclass(value):
        return {f.name: _encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _encode(item) for key, item in value.items()}
    return _encode_plain(value)


def _encode_plain(value: object) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list | tuple):
        return [_encode(item) for item in value]
    return value


def _encode_mask(mask: Mask) -> dict[str, Any]:
    packed = zlib.compress(np.packbits(mask.bits).tobytes())
    return {
        "bits": base64.b64encode(packed).decode("ascii"),
        "shape": list(mask.bits.shape),
        "origin_kji": list(mask.origin_kji),
        "geometry": _encode(mask.geometry),
    }


def _decode(kind: Any, value: Any) -> Any:
    if kind is Mask:
        return _decode_mask(value)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _decode_dataclass(kind, value)
    origin = typing.get_origin(kind)
    if origin is not None:
        return _decode_generic(origin, typing.get_args(kind), value)
    return _decode_plain(kind, value)


def _decode_dataclass(kind: type, value: Mapping[str, Any]) -> Any:
    hints = typing.get_type_hints(kind)
    return kind(**{name: _decode(hints[name], item) for name, item in value.items()})


def _decode_generic(origin: Any, arguments: tuple[Any, ...], value: Any) -> Any:
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _decode(next(a for a in arguments if a is not type(None)), value)
    if origin is tuple:
        return _decode_tuple(arguments, value)
    if origin is np.ndarray:
        return np.array(value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {key: _decode(arguments[1], item) for key, item in value.items()}
    return value


def _decode_tuple(arguments: tuple[Any, ...], value: Sequence[Any]) -> tuple[Any, ...]:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_decode(arguments[0], item) for item in value)
    return tuple(_decode(kind, item) for kind, item in zip(arguments, value, strict=True))


def _decode_plain(kind: Any, value: Any) -> Any:
    if kind is datetime:
        return datetime.fromisoformat(value)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    return value


def _decode_mask(value: Mapping[str, Any]) -> Mask:
    shape = tuple(value["shape"])
    packed = np.frombuffer(zlib.decompress(base64.b64decode(value["bits"])), dtype=np.uint8)
    bits = np.unpackbits(packed, count=int(np.prod(shape))).astype(np.bool_).reshape(shape)
    k, j, i = value["origin_kji"]
    return Mask(bits=bits, origin_kji=(k, j, i), geometry=_decode(Geometry, value["geometry"]))
