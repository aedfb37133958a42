"""Which detectors run? Those the settings name; nothing is switched on by being installed."""

from collections.abc import Sequence
from importlib.metadata import entry_points

from pipeline.errors import UnknownDetector
from pipeline.ports import Detector

GROUP = "ctriage.detectors"


def known_detectors() -> tuple[str, ...]:
    """Return the names of all installed detectors."""
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


def load_detectors(names: Sequence[str]) -> tuple[Detector, ...]:
    """Make the named detectors, in the order named; raises UnknownDetector."""
    return tuple(_load(name) for name in names)


def _load(name: str) -> Detector:
    points = tuple(entry_points(group=GROUP, name=name))
    if not points:
        raise UnknownDetector(name, known_detectors())
    detector: Detector = points[0].load()()
    return detector
