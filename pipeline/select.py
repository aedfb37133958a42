"""Study -> the stacks to read, and the rest with reasons."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from pipeline.model import Acquisition, ExaminedStack, Role
from reconstruction.headers import Header
from reconstruction.multiframe import MULTI_FRAME_CT, is_multi_frame
from reconstruction.slices import Refused, Stack, stacks_of

_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
_CT_CLASSES = MULTI_FRAME_CT | {_CT_IMAGE}
_DOCUMENT_MODALITIES = frozenset({"SR", "DOC", "PR", "KO", "PLAN"})
_REFORMATS = frozenset({"MPR", "MIP", "MINIP", "REFORMATTED", "PROJECTION IMAGE", "VOLREN", "VRT", "3D", "CPR"})
_ROLES = tuple(Role)
_NOT_HOUNSFIELD = ("MATERIAL", "Z_EFF", "ZEFF", "RHO", "ELECTRON_DENSITY", "IODINE", "EFFECTIVE_Z")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Selected:
    """One stack of a series: what it is and, where it can be read, its slices in order."""

    row: ExaminedStack
    stack: Stack | None


def digest_of(sop_instance_uids: Iterable[str]) -> str:
    """Hash the sorted names of the instances that ``select`` may read."""
    return hashlib.sha256("\n".join(sorted(sop_instance_uids)).encode()).hexdigest()


def belongs_to_ct(modality: str, sop_class_uid: str) -> bool:
    """Say whether an instance belongs to a CT study: by modality (a scanner's pages too), or by SOP class.

    What does not is kept and forwarded, never read, and never changes a study's digest.
    """
    return modality.upper() == "CT" or sop_class_uid in _CT_CLASSES


def ct_instances(headers: Iterable[Header]) -> tuple[str, ...]:
    """Name the instances that count for a study's digest, each once."""
    return tuple(dict.fromkeys(h.sop_instance_uid for h in headers if belongs_to_ct(h.modality, h.sop_class_uid)))


def select_series(headers: Sequence[Header], refused: Sequence[Refused] = ()) -> tuple[Selected, ...]:
    """Sort one series into stacks, numbered from 1; volumes carry their Stack, everything else its reason.

    Of multi-frame instances ``headers`` holds their frames; ``refused`` are frames and instances that could not be
    told apart, which are volumes that nobody read.
    """
    by_role: dict[tuple[Role, str | None], list[Header]] = {}
    for header in headers:
        by_role.setdefault(role_of(header), []).append(header)
    slices, whole = _parted(by_role.pop((Role.VOLUME, None), []))
    selected = [_selected(part) for part in (*stacks_of(slices), *refused, *whole)]
    for role, reason in sorted(by_role, key=lambda key: (_ROLES.index(key[0]), key[1] or "")):
        selected.append(_left_out(by_role[role, reason], role, reason or ""))
    return tuple(replace(s, row=replace(s.row, stack=n)) for n, s in enumerate(selected, 1))


def _parted(headers: Sequence[Header]) -> tuple[list[Header], list[Refused]]:
    """Keep a multi-frame instance that was handed over whole from being taken for one slice."""
    whole = tuple(header for header in headers if is_multi_frame(header))
    slices = [header for header in headers if not is_multi_frame(header)]
    return slices, [Refused(headers=whole, reason="multi-frame instances whose frames were not told apart")][
        : len(whole)
    ]


def role_of(header: Header) -> tuple[Role, str | None]:
    """Say what an instance is for, from its header alone, and why it is not read (None for a volume's slice)."""
    if header.modality in _DOCUMENT_MODALITIES:
        return Role.DOCUMENT, f"a document ({header.modality}), not an image of the patient"
    if header.modality != "CT":
        return Role.NOT_CT, f"modality {header.modality or 'not stated'}, not CT"
    if header.sop_class_uid not in _CT_CLASSES or not header.has_pixels:
        return Role.DOCUMENT, "a page or screen capture, not a CT image"
    return _role_of_ct(header)


def _role_of_ct(header: Header) -> tuple[Role, str | None]:
    values = {value.upper() for value in header.image_type}
    if "LOCALIZER" in values:
        return Role.LOCALIZER, "a localizer (scout), not a cross-section"
    if "DERIVED" in values and values & _REFORMATS:
        return Role.DERIVED, "reformatted from another series"
    if any(mark in value for value in values for mark in _NOT_HOUNSFIELD):
        return Role.DERIVED, "not Hounsfield units (a material or effective-Z map)"
    return Role.VOLUME, None


def acquisition_of(headers: Sequence[Header], stack: Stack | None = None) -> Acquisition:
    """Collect how a stack was acquired from its first header; of the thickness, which may change, the median."""
    first = headers[0]
    thicknesses = [h.slice_thickness_mm for h in headers if h.slice_thickness_mm and h.slice_thickness_mm > 0]
    return Acquisition(
        modality=first.modality,
        kernel=first.kernel,
        contrast_agent=first.contrast_agent,
        body_part=first.body_part,
        series_description=first.series_description or None,
        study_description=first.study_description,
        protocol_name=first.protocol_name,
        manufacturer=first.manufacturer,
        slice_thickness_mm=median(thicknesses) if thicknesses else None,
        slice_count=len(headers),
        age_years=first.age_years,
        rescale_type=first.rescale_type,
        kvp=first.kvp,
        tilt_deg=None if stack is None else stack.geometry.tilt_deg,
    )


def _selected(part: Stack | Refused) -> Selected:
    if isinstance(part, Stack):
        return Selected(row=_stack_row(part), stack=part)
    return _left_out(part.headers, Role.DERIVED if part.repeats else Role.VOLUME, part.reason)


def _stack_row(stack: Stack) -> ExaminedStack:
    return replace(
        _row(stack.headers, Role.VOLUME, None),
        geometry=stack.geometry,
        slice_positions_mm=None if stack.even else stack.slice_positions_mm,
        nominal_step_mm=stack.nominal_step_mm,
        gaps_mm=stack.gaps_mm,
        notes=stack.notes,
        acquisition=acquisition_of(stack.headers, stack),
    )


def _left_out(headers: Sequence[Header], role: Role, reason: str) -> Selected:
    ordered = sorted(headers, key=lambda h: (h.instance_number or 0, h.sop_instance_uid, h.frame or 0))
    return Selected(row=_row(ordered, role, reason), stack=None)


def _row(headers: Sequence[Header], role: Role, reason: str | None) -> ExaminedStack:
    first = headers[0]
    return ExaminedStack(
        series_instance_uid=first.series_instance_uid,
        series_number=first.series_number,
        series_description=first.series_description,
        stack=1,
        role=role,
        instances=tuple(h.sop_instance_uid for h in headers),
        frames=tuple(h.frame or 0 for h in headers) if any(h.frame for h in headers) else (),
        reason=reason,
        acquisition=acquisition_of(headers),
    )
