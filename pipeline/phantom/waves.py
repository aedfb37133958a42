"""Smooth random fields: sums of plane waves that bend an analytic shape by seed."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.phantom.canvas import Image, Plane


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Waves:
    """A smooth scalar field of unit strength: the sum of plane waves over a body's millimetres.

    ``vectors`` (n, 3) are in radians per mm, ``phases`` (n,) in radians.
    """

    vectors: npt.NDArray[np.float64]
    phases: npt.NDArray[np.float64]

    def at(self, points_mm: npt.NDArray[np.floating]) -> Image:
        """Return the field's value at (..., 3) points; its standard deviation over space is 1."""
        total = np.zeros(points_mm.shape[:-1], dtype=np.float32)
        points = points_mm.astype(np.float32, copy=False)
        for vector, phase in zip(self.vectors.astype(np.float32), self.phases.astype(np.float32), strict=True):
            total += np.cos(points @ vector + phase)
        return np.asarray(total * np.float32(np.sqrt(2.0 / len(self.phases))))

    def on(self, plane: Plane) -> Image:
        """Return the field on a plane; there each wave is an outer product, which is quick."""
        phases = self.phases + self.vectors @ plane.origin_mm
        down = np.outer(self.vectors @ plane.row_mm, np.arange(plane.shape[0])) + phases[:, None]
        along = np.outer(self.vectors @ plane.column_mm, np.arange(plane.shape[1]))
        left = np.concatenate([np.cos(down), -np.sin(down)]).astype(np.float32)
        right = np.concatenate([np.cos(along), np.sin(along)]).astype(np.float32)
        right *= np.float32(np.sqrt(2.0 / len(self.phases)))
        return _product(left.T, right)


def make_waves(rng: np.random.Generator, *, length_mm: float, count: int = 8, spread: float = 0.3) -> Waves:
    """Draw waves of about ``length_mm`` in random directions; lengths vary by a factor of e to the ``spread``."""
    directions = rng.normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    lengths = length_mm * np.exp(rng.uniform(-spread, spread, size=count))
    vectors = directions * (2 * np.pi / lengths)[:, None]
    return Waves(vectors=vectors, phases=rng.uniform(0, 2 * np.pi, size=count))


def _product(left: Image, right: Image) -> Image:
    """Multiply in bands of rows so small that no BLAS splits them over threads: quicker on busy cores."""
    out = np.empty((left.shape[0], right.shape[1]), dtype=np.float32)
    band = max(1, 200_000 // max(right.size, 1))
    for start in range(0, len(out), band):
        np.matmul(left[start : start + band], right, out=out[start : start + band])
    return out
