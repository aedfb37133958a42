"""The seams: what a detector and an output promise."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pipeline.model import Acquisition, Declined, Finding
from reconstruction.volume import Volume


class Detector(Protocol):
    """Looks for one kind of thing in one volume. Must pass ``pipeline.testing.DetectorContract``."""

    @property
    def name(self) -> str:
        """Stable lower-case name, as in the settings."""
        ...

    @property
    def version(self) -> str:
        """Changes whenever the same input may give another result."""
        ...

    @property
    def looks_for(self) -> tuple[str, ...]:
        """Kinds of findings it can return."""
        ...

    def declines(self, acquisition: Acquisition) -> str | None:
        """Return why this acquisition is not examined, from headers alone; None to accept it."""
        ...

    def __call__(self, volume: Volume, acquisition: Acquisition, /) -> Sequence[Finding] | Declined:
        """Examine an even, unsheared grid: the slices as acquired or, where tilted or uneven, their working grid.

        Spacing may differ along each axis and k may grow in any direction of the patient: ask ``volume.geometry``.
        Returns findings whose regions lie on ``volume.geometry``, an empty sequence when nothing was detected, or
        Declined with the reason. Never changes ``volume``. Deterministic.
        """
        ...


class Output(Protocol):
    """Delivers finished result objects to one destination. Must pass ``pipeline.testing.OutputContract``."""

    @property
    def name(self) -> str:
        """The destination's name in the settings."""
        ...

    def deliver(self, objects: Sequence[Path]) -> None:
        """Hand over these Part-10 files as they are; doing it again must be harmless.

        Raises scheduler's Transient (try again later) or Permanent (trying again cannot help).
        """
        ...
