"""What is asked of us besides storing: normalised DIMSE services, as values that cross from a receiver to the driver.

A receiver process speaks the protocol; whoever answers lives in the one process that owns the index.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

ServiceKind = Literal["n_create", "n_set", "n_action", "n_event_report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRequest:
    """One N-service request (PS3.7, 10.1): its names, and its data set as it was encoded.

    ``type_id`` is the Action Type ID or Event Type ID; None where the service has none. ``association`` names the
    association it came over, ``address`` the peer's IP address.
    """

    kind: ServiceKind
    sop_class_uid: str
    sop_instance_uid: str
    type_id: int | None
    dataset: bytes = field(repr=False)
    transfer_syntax: str
    calling_ae: str
    address: str
    association: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAnswer:
    """What the peer hears: a status (PS3.7, Annex C), and a data set where the service gives one.

    The data set is encoded in the request's transfer syntax; ``sop_instance_uid`` names what N-CREATE made where the
    request left that to us.
    """

    status: int
    dataset: bytes = field(default=b"", repr=False)
    sop_instance_uid: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventReport:
    """An N-EVENT-REPORT for a peer (PS3.7, 10.1.1); the data set in Implicit VR Little Endian."""

    sop_class_uid: str
    sop_instance_uid: str
    event_type_id: int
    dataset: bytes = field(repr=False)


Service = Callable[[ServiceRequest], ServiceAnswer]
"""Answers requests of one SOP class; runs in the driver, never raises, and is done within seconds."""
