"""The values a study is made of, from the names of its images to the Report."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal

from reconstruction.geometry import Geometry
from reconstruction.volume import Mask

NOT_A_MEDICAL_DEVICE = "Not a medical device; for research and triage support"


class Role(StrEnum):
    """What a stack of instances is for."""

    VOLUME = "volume"
    LOCALIZER = "localizer"
    DOCUMENT = "document"
    DERIVED = "derived"
    NOT_CT = "not_ct"


class StudyStatus(StrEnum):
    """How much of a study was read."""

    ANALYSED = "analysed"
    PARTLY_ANALYSED = "partly_analysed"
    NOT_ANALYSED = "not_analysed"


class Priority(StrEnum):
    """How soon a person should look; None (unknown) sorts above ROUTINE."""

    STAT = "stat"
    URGENT = "urgent"
    ROUTINE = "routine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquisition:
    """How a stack was acquired, as its headers say; everything is optional because headers are."""

    modality: str = "CT"
    kernel: str | None = None
    contrast_agent: str | None = None
    body_part: str | None = None
    series_description: str | None = None
    study_description: str | None = None
    protocol_name: str | None = None
    manufacturer: str | None = None
    slice_thickness_mm: float | None = None
    slice_count: int = 0
    age_years: float | None = None
    rescale_type: str | None = None
    kvp: float | None = None
    tilt_deg: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """A coded concept: scheme (SCT, DCM, UCUM), value and meaning."""

    scheme: str
    value: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One number about a finding, with its coded name and UCUM unit."""

    name: Code
    value: float
    unit: Code


HEMORRHAGE = Code(scheme="SCT", value="1386000", meaning="Intracranial hemorrhage")
SKULL_FRACTURE = Code(scheme="SCT", value="71642004", meaning="Fracture of skull")

Kind = Literal["hemorrhage", "fracture"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Finding:
    """Something a detector saw.

    ``region`` lies on the grid the detector was given; in a Report it has been carried to the slices as acquired, and
    ``volume_ml`` and ``centroid_lps_mm`` count each slice with its share of the axis (overlaps once). A fracture's
    volume may be None.
    ``probability`` is 0..1. ``also_seen_in`` lists (series UID, stack) that show the same lesion.
    """

    kind: Kind
    subtype: str
    code: Code
    probability: float
    region: Mask
    volume_ml: float | None
    centroid_lps_mm: tuple[float, float, float]
    detector: str
    measurements: tuple[Measurement, ...] = ()
    series_instance_uid: str = ""
    stack: int = 1
    also_seen_in: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"a probability of {self.probability} is none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Declined:
    """A detector's refusal, with the reason a radiologist reads."""

    reason: str


DetectorStatus = Literal["ran", "declined", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorRun:
    """What one detector did with one stack; ``reason`` is None only when it ran."""

    name: str
    version: str
    looks_for: tuple[str, ...]
    status: DetectorStatus
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WorkingGrid:
    """The regular grid on which a tilted or uneven stack was examined or pictured.

    ``max_distance_to_slice_mm``: how far an output voxel can lie from the nearest acquired slice.
    """

    geometry: Geometry
    max_distance_to_slice_mm: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExaminedStack:
    """One stack of a series: what it is, how it lies, and what each detector did with it.

    ``instances`` are the SOP Instance UIDs in slice order (for a volume, as k grows); where they are frames of
    multi-frame instances ``frames`` holds, beside each, the frame's number (from 1; 0 for an instance that is one
    image), else it is empty.
    ``slice_positions_mm`` stands only where the stack is uneven. ``notes`` are remarks for people (clipped values,
    padding, duplicates).
    """

    series_instance_uid: str
    series_number: int | None
    series_description: str
    stack: int
    role: Role
    instances: tuple[str, ...]
    reason: str | None
    frames: tuple[int, ...] = ()
    detectors: tuple[DetectorRun, ...] = ()
    geometry: Geometry | None = None
    slice_positions_mm: tuple[float, ...] | None = None
    nominal_step_mm: float | None = None
    gaps_mm: tuple[float, ...] = ()
    working_grid: WorkingGrid | None = None
    covered_by: tuple[str, int] | None = None
    notes: tuple[str, ...] = ()
    acquisition: Acquisition = field(default_factory=Acquisition)

    @property
    def analysed(self) -> bool:
        """Say whether any detector ran on this stack."""
        return any(run.status == "ran" for run in self.detectors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Which code, detectors and settings made a Report."""

    code_version: str
    detector_versions: Mapping[str, str]
    settings_hash: str
    weights_hash: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Report:
    """What was looked at, what was not and why, and what was found: the product of one version of one study.

    ``version`` counts from 1; ``supersedes_digest`` names the earlier version that this one replaces and
    ``changes`` says in a sentence each what is new.
    """

    study_instance_uid: str
    study_digest: str
    status: StudyStatus
    priority: Priority | None
    examined: tuple[ExaminedStack, ...]
    findings: tuple[Finding, ...]
    provenance: Provenance
    version: int = 1
    supersedes_digest: str | None = None
    changes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    committed_at: datetime | None = None

    @property
    def skipped(self) -> tuple[ExaminedStack, ...]:
        """Return the stacks no detector ran on, each with its reason."""
        return tuple(stack for stack in self.examined if not stack.analysed)


SurfaceTissue = Literal["bone", "skin"]
TurnPreset = Literal["bone", "brain", "vessel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureOptions:
    """Which pictures are made, as the settings say."""

    mpr: bool = True
    mpr_thickness_mm: float = 3.0
    mpr_step_mm: float = 3.0
    mip: bool = True
    render: bool = True
    isotropic: bool = False
    isotropic_mm: float = 1.0  # 0: as fine as the stack
    surfaces: tuple[SurfaceTissue, ...] = ()
    turn: tuple[TurnPreset, ...] = ()
    turn_frames: int = 36


ObjectKind = Literal[
    "sr", "seg", "key_objects", "mpr", "mip", "minip", "isotropic", "curved", "needle", "surface", "render", "summary"
]
KeptKind = ObjectKind | Literal["rejection"]
"""Kinds of objects that are built and kept: a rejection note is no result that anybody selects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultObject:
    """One DICOM object ready to leave: its identity and its Part-10 bytes, fixed once and for all."""

    kind: KeptKind
    index: int
    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    part10: bytes = field(repr=False)
    label: str = ""
