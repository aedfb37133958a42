"""A digital patient by kind and seed: body, lesion, scan, and the truth about it."""

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from pipeline.model import HEMORRHAGE, SKULL_FRACTURE, Finding
from pipeline.phantom.blob import NoRoom
from pipeline.phantom.canvas import Vector
from pipeline.phantom.head import Head, make_head
from pipeline.phantom.lesions import Lesion, make_bleed, make_fracture, make_subdural
from pipeline.phantom.scan import Body, Scanned, ScanOptions, scan
from pipeline.phantom.torso import make_torso
from reconstruction.geometry import Geometry
from reconstruction.volume import Mask, Volume

KINDS = {
    "head": "a normal head",
    "head-bleed": "a head with an intraparenchymal bleed of 4 to 40 mL",
    "head-fracture": "a head with a depressed skull fracture",
    "torso": "a normal chest and upper abdomen",
}

_DEFAULT_OPTIONS = {"torso": ScanOptions(slice_count=100, slice_step_mm=3.0, noise_hu=9.0, detail_mm=1.5)}

# Where bleeds are common, in the head's own mm on the left side: putamen, thalamus, three lobes, cerebellum.
_BLEED_SITES = (
    (26.0, -3.0, 4.0),
    (14.0, 11.0, 8.0),
    (28.0, -42.0, 26.0),
    (33.0, 30.0, 34.0),
    (44.0, 8.0, -14.0),
    (24.0, 50.0, -40.0),
)


class UnknownKind(ValueError):
    """A kind of patient that is none of KINDS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BleedWish:
    """What the caller wants of a bleed; None leaves it to the seed. ``centre_lps_mm`` places a clot in the brain."""

    volume_ml: float | None = None
    bleed_hu: float | None = None
    centre_lps_mm: tuple[float, float, float] | None = None
    subtype: Literal["intraparenchymal", "subdural"] = "intraparenchymal"


@dataclass(frozen=True, slots=True, kw_only=True)
class FractureWish:
    """What the caller wants of a fracture; None leaves it to the seed.

    ``towards_lps``: the direction from the middle of the head in which the vault is broken. ``drop_mm``: how deep.
    """

    drop_mm: float | None = None
    towards_lps: tuple[float, float, float] | None = None


Wish = BleedWish | FractureWish


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Patient:
    """A scanned digital patient and what is known to be in it.

    ``volume`` lies on the nominal even grid (LPS); ``positions_lps_mm`` (k, 3) says where each slice truly lies.
    ``wish`` is what the caller asked for, and with kind, seed and options makes the patient's identity.
    """

    kind: str
    seed: int
    options: ScanOptions
    volume: Volume
    positions_lps_mm: Vector
    thickness_mm: float
    findings: tuple[Finding, ...] = ()
    wish: Wish | None = field(default=None)


def make_patient(kind: str, *, seed: int = 0, options: ScanOptions | None = None, wish: Wish | None = None) -> Patient:
    """Make the patient of that kind and seed: the same arguments give the same bits.

    One seed is one anatomy: ``head`` and ``head-bleed`` differ by the bleed alone. Raises UnknownKind, and NoRoom
    where a wish cannot be met.
    """
    if kind not in KINDS:
        raise UnknownKind(f"{kind!r} is none of {', '.join(KINDS)}")
    chosen = options or _DEFAULT_OPTIONS.get(kind, ScanOptions())
    body = _body(kind, seed, wish)
    scanned = scan(body, chosen, np.random.default_rng([seed, 3]))
    lesion = body.lesion if isinstance(body, Head) else None
    return Patient(
        kind=kind,
        seed=seed,
        options=chosen,
        volume=scanned.volume,
        positions_lps_mm=scanned.positions_lps_mm,
        thickness_mm=scanned.thickness_mm,
        findings=() if lesion is None else (_finding(kind, wish, scanned),),
        wish=wish,
    )


def _body(kind: str, seed: int, wish: Wish | None) -> Body:
    rng = np.random.default_rng([seed, 1])
    if kind == "torso":
        return make_torso(rng)
    head = make_head(rng)
    if kind == "head":
        return head
    ill = np.random.default_rng([seed, 2])
    if kind == "head-bleed":
        return replace(head, lesion=_bleed(head, ill, wish if isinstance(wish, BleedWish) else BleedWish()))
    return replace(head, lesion=_fracture(head, ill, wish if isinstance(wish, FractureWish) else FractureWish()))


def _bleed(head: Head, rng: np.random.Generator, wish: BleedWish) -> Lesion:
    """Draw a bleed; where the seed's own place has no room for its volume, draw again."""
    volume_ml = wish.volume_ml or float(np.exp(rng.uniform(np.log(4.0), np.log(40.0))))
    hu = wish.bleed_hu or float(rng.uniform(58.0, 72.0))
    if wish.subtype == "subdural":
        return make_subdural(rng, pose=head.pose, skull=head.skull, volume_ml=volume_ml, hu=hu)
    tries = 1 if wish.centre_lps_mm else 12
    for attempt in range(tries):
        centre = _bleed_centre(head, rng, wish)
        try:
            return make_bleed(rng, pose=head.pose, skull=head.skull, centre_mm=centre, volume_ml=volume_ml, hu=hu)
        except NoRoom:
            if attempt == tries - 1:
                raise
    raise NoRoom("unreachable: the last try has raised")


def _bleed_centre(head: Head, rng: np.random.Generator, wish: BleedWish) -> Vector:
    if wish.centre_lps_mm is not None:
        return head.pose.to_own(np.asarray(wish.centre_lps_mm))
    site = np.array(_BLEED_SITES[int(rng.integers(len(_BLEED_SITES)))]) + rng.normal(0, 2.5, size=3)
    return np.asarray(site * (rng.choice([-1.0, 1.0]), 1.0, 1.0))


def _fracture(head: Head, rng: np.random.Generator, wish: FractureWish) -> Lesion:
    azimuth, height = np.radians(rng.uniform(-55, 55)), np.radians(rng.uniform(15, 42))
    side = rng.choice([-1.0, 1.0])
    towards = np.array([side * np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)])
    if wish.towards_lps is not None:
        towards = np.asarray(wish.towards_lps, dtype=np.float64) @ head.pose.turn
    drop_mm = wish.drop_mm or float(rng.uniform(6.0, 10.0))
    return make_fracture(rng, skull=head.skull, towards=towards / np.linalg.norm(towards), drop_mm=drop_mm)


def _finding(kind: str, wish: Wish | None, scanned: Scanned) -> Finding:
    """Return the truth: every voxel counts with its filled fraction, every slice with its share of the axis."""
    geometry = scanned.volume.geometry
    fraction = scanned.fraction
    ml = fraction.sum(axis=(1, 2), dtype=np.float64) * _slice_ml(geometry, scanned.positions_lps_mm)
    bleed = kind == "head-bleed"
    subtype = wish.subtype if isinstance(wish, BleedWish) else "intraparenchymal"
    return Finding(
        kind="hemorrhage" if bleed else "fracture",
        subtype=subtype if bleed else "depressed",
        code=HEMORRHAGE if bleed else SKULL_FRACTURE,
        probability=1.0,
        region=Mask.cropped_from(np.asarray(fraction > (0.5 if bleed else 0.35)), geometry),
        volume_ml=float(ml.sum()) if bleed else None,
        centroid_lps_mm=_centroid(fraction, ml, geometry, scanned.positions_lps_mm),
        detector="truth",
    )


def _slice_ml(geometry: Geometry, positions: Vector) -> Vector:
    """Return the volume that one pixel of each slice stands for: half the way to each neighbour."""
    along = positions @ geometry.normal
    if len(along) == 1:
        return np.array([geometry.voxel_ml])
    gaps = np.diff(along)
    share = (np.concatenate([gaps[:1], gaps]) + np.concatenate([gaps, gaps[-1:]])) / 2
    return np.asarray(share / geometry.slice_step_mm * geometry.voxel_ml)


def _centroid(
    fraction: np.ndarray[tuple[int, ...], np.dtype[np.float32]], ml: Vector, geometry: Geometry, positions: Vector
) -> tuple[float, float, float]:
    down, along = fraction.sum(axis=2, dtype=np.float64), fraction.sum(axis=1, dtype=np.float64)
    filled = np.maximum(down.sum(axis=1), 1e-12)
    j, i = down @ np.arange(down.shape[1]) / filled, along @ np.arange(along.shape[1]) / filled
    centres = positions + j[:, None] * geometry.affine[:3, 1] + i[:, None] * geometry.affine[:3, 2]
    x, y, z = (float(c) for c in ml @ centres / ml.sum())
    return x, y, z
