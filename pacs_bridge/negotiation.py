"""What does an association negotiate? The one table that the listener takes and the conformance statement tells."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from pacs_bridge.settings import Settings

VERIFICATION: Final = "1.2.840.10008.1.1"
PROCEDURE_STEP: Final = "1.2.840.10008.3.1.2.3.3"
STORAGE_COMMITMENT: Final = "1.2.840.10008.1.20.1"

IMPLICIT_LITTLE: Final = "1.2.840.10008.1.2"
EXPLICIT_LITTLE: Final = "1.2.840.10008.1.2.1"
_STANDARD: Final = "1.2.840.10008.1.2"
_NO_DATA_SET: Final = "1.2.840.10008.1.2.6."
"""Retired encodings as e-mail and as XML (PS3.6, A-1): no elements follow one another in them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SupportedContext:
    """An abstract syntax that is accepted by name, in order of preference of its transfer syntaxes.

    ``scu`` and ``scp`` are the roles that a requestor may have after SCP/SCU role selection (PS3.7, D.3.3.4); without
    it the requestor is the SCU.
    """

    sop_class_uid: str
    name: str
    transfer_syntaxes: tuple[str, ...] = (IMPLICIT_LITTLE, EXPLICIT_LITTLE)
    scu: bool = True
    scp: bool = False


_BY_NAME: Final = (
    SupportedContext(sop_class_uid=VERIFICATION, name="Verification"),
    SupportedContext(sop_class_uid=PROCEDURE_STEP, name="Modality Performed Procedure Step"),
    # The requestor is SCP where a PACS reports on an association of its own what it has committed to (PS3.4, J.3.3).
    SupportedContext(sop_class_uid=STORAGE_COMMITMENT, name="Storage Commitment Push Model", scp=True),
)


def services_of(settings: Settings) -> tuple[str, ...]:
    """Name the SOP classes that these settings offer beside Verification and Storage."""
    keeps = any(caller.commitment in ("relay", "own") for caller in settings.caller)
    asks = any(destination.commitment for destination in settings.destination)
    return (PROCEDURE_STEP, STORAGE_COMMITMENT) if keeps or asks else (PROCEDURE_STEP,)


def supported_contexts(services: Collection[str]) -> tuple[SupportedContext, ...]:
    """Return what is accepted by name where ``services`` are answered; storage goes by `is_storage`."""
    return tuple(each for each in _BY_NAME if each.sop_class_uid == VERIFICATION or each.sop_class_uid in services)


def is_storage(sop_class_uid: str) -> bool:
    """Say whether instances of this class are taken: any storage class, any private one, and any not known yet.

    One transfer syntax of those proposed is accepted with it (`syntax_of_choice`). Objects of no
    patient (hanging protocols, implant templates, palettes) and DICOMDIRs are no images of a study, and are refused.
    """
    from pydicom.uid import UID
    from pynetdicom import sop_class

    uid = UID(sop_class_uid)
    known = hasattr(sop_class, uid.keyword) if uid.keyword else False
    return uid.is_private or not known or uid in storage_classes()


def syntax_of_choice(proposed: Sequence[str]) -> str:
    """Choose of the transfer syntaxes that are proposed for storage: the first of the standard's, else the first.

    No pixel is decoded on the way in, so any that writes elements as the standard does will do. A private one may do
    otherwise (GE's 1.2.840.113619.5.2 mixes byte orders), and a sender that proposes it has a standard one as well.
    """
    standard = (uid for uid in proposed if uid.startswith(_STANDARD) and not uid.startswith(_NO_DATA_SET))
    return next(standard, proposed[0])


def class_name(uid: str) -> str:
    """Name a SOP class or transfer syntax as PS3.6 does, or by the keyword of one newer than pydicom's dictionary."""
    from pydicom.uid import UID
    from pynetdicom.sop_class import _STORAGE_CLASSES

    name = UID(uid).name
    newer = {str(known): keyword for keyword, known in _STORAGE_CLASSES.items()}
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", newer.get(uid, uid)) if name == uid else name


def storage_classes() -> tuple[str, ...]:
    """List the storage classes that are known by name (PS3.4, B.5)."""
    from pynetdicom.presentation import AllStoragePresentationContexts

    return tuple(sorted(str(each.abstract_syntax) for each in AllStoragePresentationContexts))
