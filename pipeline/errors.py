"""What can go wrong between a study and its Report."""

from dataclasses import dataclass


class PipelineError(Exception):
    """Base of everything this package raises on purpose."""


@dataclass(eq=False)
class UnknownDetector(PipelineError):
    """A detector named in the settings that no installed package provides."""

    name: str
    known: tuple[str, ...]

    def __str__(self) -> str:
        return f"no detector is called {self.name!r}; installed are: {', '.join(self.known) or 'none'}"


@dataclass(eq=False)
class SeriesBrokenOff(PipelineError):
    """A derived series of which some pictures are made and the rest cannot be: half of one must not look whole."""

    images: int

    def __str__(self) -> str:
        return f"a derived series broke off after {self.images} images"
