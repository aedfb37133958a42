"""What can go wrong between instances and a volume."""

from dataclasses import dataclass


class ReconstructionError(Exception):
    """Base of everything this package raises on purpose; its text can be shown to a radiologist."""


@dataclass(eq=False)
class NotAVolume(ReconstructionError):
    """Slices that cannot form a volume; ``reason`` is what a Report shows as NOT ANALYSED."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(eq=False)
class UnreadablePixels(ReconstructionError):
    """Pixel data that cannot be decoded, or not to the size its header announces."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(eq=False)
class NotDicom(ReconstructionError):
    """Bytes that hold no DICOM instance we can read; ``is_foreign`` where nothing suggests that they ever should."""

    reason: str
    is_foreign: bool = False

    def __str__(self) -> str:
        return self.reason


@dataclass(eq=False)
class ImpossibleView(ReconstructionError):
    """A plane, slab, path or curve that cannot be shown of this volume; ``reason`` says why and what would do."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(eq=False)
class RenderingUnavailable(ReconstructionError):
    """A rendering in 3D cannot be made; ``reason`` says why."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(eq=False)
class NothingToShow(RenderingUnavailable):
    """A rendering that would be black: nothing of what its preset shows is in the image."""


@dataclass(eq=False)
class NoSurface(ReconstructionError):
    """A closed surface cannot be made of this volume, or not on this system; ``reason`` says why."""

    reason: str

    def __str__(self) -> str:
        return self.reason
