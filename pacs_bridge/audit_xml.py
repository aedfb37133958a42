"""How is an audit message written for an Audit Record Repository: as XML, by the schema of PS3.15, A.5.1?"""

import base64
import re
from collections.abc import Mapping
from typing import Any, Final
from xml.etree import ElementTree

_ELEMENTS: Final = {
    "AuditMessage": (
        "EventIdentification",
        "ActiveParticipant",
        "AuditSourceIdentification",
        "ParticipantObjectIdentification",
    ),
    "EventIdentification": ("EventID", "EventTypeCode", "EventOutcomeDescription"),
    "ActiveParticipant": ("RoleIDCode",),
    "AuditSourceIdentification": ("AuditSourceTypeCode",),
    "ParticipantObjectIdentification": (
        "ParticipantObjectIDTypeCode",
        "ParticipantObjectName",
        "ParticipantObjectDetail",
        "ParticipantObjectDescription",
    ),
    "ParticipantObjectDescription": ("SOPClass",),
}
"""Which parts of an element are elements, in the schema's order; all others are attributes."""

_NO_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def as_xml(message: Mapping[str, Any]) -> str:
    """Return a message as one line of XML; values of details in base64, as the schema has them."""
    return ElementTree.tostring(_element("AuditMessage", message), encoding="unicode")


def _element(name: str, content: Mapping[str, Any] | str) -> ElementTree.Element:
    element = ElementTree.Element(name)
    if not isinstance(content, Mapping):
        element.text = _text(content)
        return element
    inside = _ELEMENTS.get(name, ())
    for key, value in content.items():
        if key not in inside:
            element.set(key, _attribute(name, key, value))
    for key in inside:
        parts = content.get(key, [])
        element.extend(_element(key, part) for part in (parts if isinstance(parts, list) else [parts]))
    return element


def _attribute(element: str, name: str, value: object) -> str:
    if (element, name) == ("ParticipantObjectDetail", "value"):
        return base64.b64encode(str(value).encode("utf-8", "replace")).decode("ascii")
    return str(value).lower() if isinstance(value, bool) else _text(str(value))


def _text(text: str) -> str:
    """Replace what XML cannot say: a stranger's AE title may hold anything."""
    return " ".join(_NO_XML.sub("\ufffd", text).split())
