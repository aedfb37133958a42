"""Smooth random fields: sums of plane waves that bend an analytic shape by seed."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Waves:
    """A smooth scalar field of unit strength: the sum of plane waves over LPS millimetres.

    ``vectors`` (n, 3) are in radians per mm, ``phases`` (n,) in radians.
    """

    vectors: npt.NDArray[np.float64]
    phases: npt.NDArray[np.float64]

    def at(self, points_mm: npt.NDArray[np.floating]) -> Field:
        """Return the field's value at (..., 3) points; its standard deviation over space is 1."""
        total = np.zeros(points_mm.shape[:-1], dtype=np.float32)
        points = points_mm.astype(np.float32, copy=False)
        for vector, phase in zip(self.vectors.astype(np.float32), self.phases.astype(np.float32), strict=True):
            total += np.cos(points @ vector + phase)
        return total * np.float32(np.sqrt(2.0 / len(self.phases)))

    def on_axes(self, axes_mm: tuple[Field, Field, Field]) -> Field:
        """Return the field on a grid whose axes run along x, y and z; array axes are (z, y, x)."""
        x, y, z = axes_mm
        total = np.zeros((len(z), len(y), len(x)), dtype=np.float32)
        for vector, phase in zip(self.vectors, self.phases, strict=True):
            plane = np.exp(1j * (vector[1] * y[:, None] + vector[0] * x[None, :] + phase)).astype(np.complex64)
            along = np.exp(1j * vector[2] * z).astype(np.complex64)
            total += plane.real[None] * along.real[:, None, None]
            total -= plane.imag[None] * along.imag[:, None, None]
        return total * np.float32(np.sqrt(2.0 / len(self.phases)))


def make_waves(rng: np.random.Generator, *, length_mm: float, count: int = 8, spread: float = 0.3) -> Waves:
    """Draw waves of about ``length_mm`` in random directions; lengths vary by a factor of e to the ``spread``."""
    directions = rng.normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    lengths = length_mm * np.exp(rng.uniform(-spread, spread, size=count))
    vectors = directions * (2 * np.pi / lengths)[:, None]
    return Waves(vectors=vectors, phases=rng.uniform(0, 2 * np.pi, size=count))
