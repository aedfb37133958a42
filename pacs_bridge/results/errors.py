"""What can go wrong between a Report and its DICOM objects."""

from dataclasses import dataclass


class ResultsError(Exception):
    """Base of everything this package raises on purpose."""


@dataclass(eq=False)
class MissingHeaders(ResultsError):
    """The Report speaks of instances whose headers were not handed over."""

    missing: int

    def __str__(self) -> str:
        return f"the headers of {self.missing} instances are missing: hand over every instance that the Report names"


@dataclass(eq=False)
class NaiveInstant(ResultsError):
    """A commit time without a time zone."""

    def __str__(self) -> str:
        return "committed_at has no time zone: pass an aware datetime"
