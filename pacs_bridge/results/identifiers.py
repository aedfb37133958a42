"""How are results named, and how is something that ctriage made recognised?"""

import uuid
from typing import Any

from pydicom.dataset import Dataset

from pipeline.model import ExaminedStack, Provenance

MANUFACTURER = "ctriage"
MODEL_NAME = "ctriage"
IMPLEMENTATION_CLASS_UID = "2.25.333699420353618418804873788487963684025"
IMPLEMENTATION_VERSION_NAME = "CTRIAGE_1"
DEVICE_UID = "2.25.296603800561115225544385252773071350484"
CODING_SCHEME_UID = "2.25.293301163004862210893999569526643682125"

_NAMESPACE = uuid.UUID("6d0c7d5e-6c9b-5b59-9a43-3f7d9a0c5d11")


def named_uid(*parts: str) -> str:
    """Return "2.25." and the integer of a UUIDv5 of these parts (PS3.5 B.2): the same parts, the same UID."""
    name = "\x1f".join(parts)
    return f"2.25.{uuid.uuid5(_NAMESPACE, name).int}"


def result_uid(provenance: Provenance, study_instance_uid: str, digest: str, kind: str, index: int) -> str:
    """Name one result object or series of one version of a study; series have the kind ``series:<kind>``."""
    detectors = (f"{name}={version}" for name, version in sorted(provenance.detector_versions.items()))
    return named_uid(
        study_instance_uid,
        digest,
        kind,
        str(index),
        provenance.code_version,
        *detectors,
        f"weights={provenance.weights_hash}",
        f"settings={provenance.settings_hash}",
    )


def tracking_uid(study_instance_uid: str, digest: str, detector: str, index: int) -> str:
    """Name a finding: the ``index``-th of this detector in this version of the study's images."""
    return named_uid("tracking", study_instance_uid, digest, detector, str(index))


def stated_frame_of_reference_uid(stack: ExaminedStack) -> str | None:
    """Return the frame of reference that a stack is taken to state; headers may each name one that none shares."""
    return stack.geometry.frame_of_reference_uid if stack.geometry is not None else None


def frame_of_reference_uid(stack: ExaminedStack) -> str:
    """Return a stack's frame of reference, or the one its series stands for where it states none."""
    return stated_frame_of_reference_uid(stack) or named_uid("frame of reference", stack.series_instance_uid)


def is_ours(header: Dataset) -> bool:
    """Say whether ctriage made this object: Implementation Class UID of the file, or Manufacturer.

    A PACS rewrites the file meta information when it sends, hence the second mark.
    """
    meta: Any = getattr(header, "file_meta", None)
    implementation = None if meta is None else meta.get("ImplementationClassUID")
    return bears_our_mark(str(implementation or ""), str(header.get("Manufacturer") or ""))


def bears_our_mark(implementation_class_uid: str | None, manufacturer: str | None) -> bool:
    """Say by these two whether ctriage made an object: see ``is_ours``."""
    return implementation_class_uid == IMPLEMENTATION_CLASS_UID or (manufacturer or "").strip() == MANUFACTURER
