"""Do these slices follow one another without a gap?"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, Protocol

EVEN_WITHIN: Final = 0.02
"""Steps along the normal may differ by this part of the commonest one and still be even."""
EVEN_WITHIN_MM: Final = 0.02
ABUT_WITHIN: Final = 1.1
"""Neighbours abut when they are no farther apart than this many times the thicker one's slice thickness."""
FEWEST_SLICES: Final = 3


class Placed(Protocol):
    """What is asked of a slice; ``position_mm`` lies along the normal of ``orientation``."""

    @property
    def instance_number(self) -> int | None:
        """Return its number in the series."""

    @property
    def position_mm(self) -> float | None:
        """Return where it lies."""

    @property
    def orientation(self) -> tuple[float, ...] | None:
        """Return its row and column cosines."""

    @property
    def slice_thickness_mm(self) -> float | None:
        """Return how thick it is."""


def contiguous(instances: Sequence[Placed]) -> bool:
    """Say whether these are slices along one normal without a gap, and numbered from 0 or 1 without holes.

    Without a gap: evenly spaced, or each abutting on or overlapping the next, as in a head scanned in steps of two
    thicknesses.
    """
    numbers = sorted(each.instance_number for each in instances if each.instance_number is not None)
    places = sorted((e.position_mm, e.slice_thickness_mm or 0.0) for e in instances if e.position_mm is not None)
    if len(instances) < FEWEST_SLICES or len(numbers) != len(instances) or len(places) != len(instances):
        return False
    numbered = numbers[0] in (0, 1) and numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    orientations = {tuple(round(cosine, 3) for cosine in each.orientation or ()) for each in instances}
    return numbered and len(orientations) == 1 and (_even([position for position, _ in places]) or _abut(places))


def _even(positions: Sequence[float]) -> bool:
    steps = sorted(after - before for before, after in pairwise(positions))
    middle = steps[len(steps) // 2]
    allowed = max(EVEN_WITHIN * middle, EVEN_WITHIN_MM)
    return middle > EVEN_WITHIN_MM and steps[-1] - middle <= allowed and middle - steps[0] <= allowed


def _abut(places: Sequence[tuple[float, float]]) -> bool:
    """Say whether each of these (position, thickness) in order reaches the next; the same place twice does not."""
    return all(
        EVEN_WITHIN_MM < after - before <= ABUT_WITHIN * max(thickness, next_thickness)
        for (before, thickness), (after, next_thickness) in pairwise(places)
    )
