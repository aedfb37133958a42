"""Does what was found agree with what is known to be there, for digital patients whose truth is written down?"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.model import StudyStatus

NEAR_MM: Final = 15.0
VOLUME_WITHIN: Final = 0.30
SIZED_KINDS: Final = frozenset({"hemorrhage"})
"""Kinds whose volume is compared; a fracture's may be unknown."""

Point = tuple[float, float, float]
_NOWHERE: Final = np.empty((0, 3))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lesion:
    """Something that was found or put in; ``points_lps_mm`` (n, 3) are its voxel centres where they are known."""

    kind: str
    centroid_lps_mm: Point
    volume_ml: float | None = None
    points_lps_mm: npt.NDArray[np.float64] = field(default_factory=lambda: _NOWHERE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What a digital patient's result must be: the lesions put in, and whether any detector examines such a study."""

    lesions: tuple[Lesion, ...]
    examined: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a study: its status, what was found, the reasons for what was not analysed, its pictures.

    ``undecided``: each detector that ran on no stack of the study, with its reason.
    """

    status: StudyStatus
    found: tuple[Lesion, ...]
    undecided: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    pictures: int = 0


def disagreements(expected: Expectation, outcome: Outcome) -> tuple[str, ...]:
    """Say in a sentence each how an outcome departs from the truth; empty when it agrees.

    A lesion put in must be found near by, with its volume where its kind is measured; parts of one lesion count
    together. Whatever else is found is a false alarm, and a detector that declined has found nothing absent. A study
    that no detector examines must say so, and be pictured.
    """
    if not expected.examined:
        return tuple(_not_read(outcome))
    if outcome.status is not StudyStatus.ANALYSED:
        return (f"the study is {outcome.status.value}, but it should have been analysed",)
    undecided = (f"undecided: {reason}" for reason in outcome.undecided)
    return (*_missed(expected.lesions, outcome.found), *_false_alarms(expected.lesions, outcome.found), *undecided)


def is_near(found: Lesion, truth: Lesion) -> bool:
    """Say whether two lesions are of one kind and within NEAR_MM, centre to centre or centre to nearest voxel."""
    if found.kind != truth.kind:
        return False
    if math.dist(found.centroid_lps_mm, truth.centroid_lps_mm) <= NEAR_MM:
        return True
    away = truth.points_lps_mm - np.asarray(found.centroid_lps_mm)
    return bool((np.square(away).sum(axis=1) <= NEAR_MM**2).any())


def _not_read(outcome: Outcome) -> Iterable[str]:
    if outcome.status is not StudyStatus.NOT_ANALYSED:
        yield f"the study is {outcome.status.value}, but no detector examines it"
    elif not any(outcome.reasons):
        yield "the study is not_analysed and no reason is given"
    if outcome.found:
        yield f"{len(outcome.found)} findings in a study that no detector examines"
    if not outcome.pictures:
        yield "no picture was made"


def _missed(truths: Sequence[Lesion], found: Sequence[Lesion]) -> Iterable[str]:
    for truth in truths:
        near = [each for each in found if is_near(each, truth)]
        if not near:
            yield f"the {truth.kind} at {_written(truth.centroid_lps_mm)} was not found"
        elif truth.kind in SIZED_KINDS and truth.volume_ml is not None:
            yield from _wrong_size(truth.kind, truth.volume_ml, math.fsum(each.volume_ml or 0.0 for each in near))


def _wrong_size(kind: str, true_ml: float, found_ml: float) -> Iterable[str]:
    if abs(found_ml - true_ml) > VOLUME_WITHIN * true_ml:
        yield f"the {kind} has {true_ml:.1f} ml, {found_ml:.1f} ml were found"


def _false_alarms(truths: Sequence[Lesion], found: Sequence[Lesion]) -> Iterable[str]:
    for each in found:
        if not any(is_near(each, truth) for truth in truths):
            yield f"a {each.kind} was found at {_written(each.centroid_lps_mm)}, where there is none"


def _written(point: Point) -> str:
    return "({:.0f}, {:.0f}, {:.0f}) mm".format(*point)
