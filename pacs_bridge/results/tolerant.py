"""What can be read of a header of which some values are badly written?"""

import math
import struct
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.tag import BaseTag

_UNREADABLE = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    LookupError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)
"""What pydicom raises where the bytes of one element cannot be converted to its type."""
_NUMBERS: Mapping[str, type | tuple[type, ...]] = {"DS": (float, Decimal), "IS": int}


def element_of(header: Dataset, name: str | BaseTag) -> DataElement | None:
    """Return an attribute; None where it is absent or its value is none of its type."""
    try:
        element = header[name]
    except _UNREADABLE:
        return None
    return element if _is_of_its_type(element) else None


def value_of(header: Dataset, name: str | BaseTag) -> Any:
    """Return an attribute's value; None where it is absent, empty or none of its type."""
    element = element_of(header, name)
    return None if element is None else element.value


def badly_written(header: Dataset, name: str | BaseTag) -> set[str]:
    """Return the keyword of an attribute that is there and cannot be read, or of those within it."""
    if name not in header:
        return set()
    element = element_of(header, name)
    if element is None:
        return {name if isinstance(name, str) else keyword_for_tag(name) or str(name)}
    if element.VR != "SQ":
        return set()
    return {keyword for item in element.value for tag in sorted(item.keys()) for keyword in badly_written(item, tag)}


def _is_of_its_type(element: DataElement) -> bool:
    """Say whether numbers are numbers: pydicom reads a decimal that is none ("1,75") as text."""
    values = element.value if element.VM > 1 else [element.value]
    wanted = _NUMBERS.get(element.VR, object)
    return all(isinstance(value, wanted) and _is_finite(value) for value in values if value not in (None, ""))


def _is_finite(value: object) -> bool:
    return not isinstance(value, float) or math.isfinite(value)
