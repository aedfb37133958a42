"""An irregular rounded blob: the shape of a bleed."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.phantom.canvas import Image, Vector
from pipeline.phantom.waves import Waves, make_waves

EDGE_MM = 1.0


class NoRoom(ValueError):
    """The place given cannot hold the bleed: bone or air is there, or the soft tissue around is too small."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Blob:
    """A stretched, bulging and wrinkled ball round ``centre_mm``; its mean radius is about ``radius_mm``."""

    centre_mm: Vector
    radius_mm: float
    axes: npt.NDArray[np.float32]
    bulges: Waves
    wrinkles: Waves

    def level(self, points_mm: npt.NDArray[np.floating]) -> Image:
        """Return, at (..., 3) points, the share of the radius reached there: about 1 on the surface."""
        u = ((points_mm - self.centre_mm) / self.radius_mm).astype(np.float32)
        distance = np.linalg.norm(u @ self.axes, axis=-1)
        return np.asarray(distance * (1 + 0.15 * self.bulges.at(u) + 0.06 * self.wrinkles.at(u)), dtype=np.float32)

    def filled(self, levels: Image, threshold: float) -> Image:
        """Return the filled fraction (0..1) at points of those levels when the surface lies at ``threshold``."""
        return np.asarray(np.clip(0.5 + (np.float32(threshold) - levels) * np.float32(self.radius_mm / EDGE_MM), 0, 1))


def make_blob(rng: np.random.Generator, *, centre_mm: Vector, volume_ml: float) -> Blob:
    """Draw a blob of roughly ``volume_ml``; ``solve`` finds the threshold that makes it exact."""
    return Blob(
        centre_mm=centre_mm,
        radius_mm=float(np.cbrt(3000.0 * volume_ml / (4.0 * np.pi))),
        axes=_random_axes(rng),
        bulges=make_waves(rng, length_mm=2.4, count=7),
        wrinkles=make_waves(rng, length_mm=0.9, count=9),
    )


def solve(amount: Callable[[float], float], wanted: float, *, most: float) -> float | None:
    """Return the threshold in 0..``most`` at which a growing ``amount`` reaches ``wanted``; None if it never does."""
    low, high = 0.0, most
    if amount(high) < wanted:
        return None
    for _ in range(18):
        middle = (low + high) / 2
        low, high = (middle, high) if amount(middle) < wanted else (low, middle)
    return high


def _random_axes(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return a turned and stretched frame of determinant 1: the blob's three half axes differ."""
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    stretch = np.exp(rng.uniform(-0.25, 0.25, size=3))
    return np.asarray(turn * (stretch / np.cbrt(stretch.prod())), dtype=np.float32)
