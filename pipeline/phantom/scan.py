"""The scanner: planes through a body become slices, blurred, averaged, cupped and noisy."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import scipy.fft
from scipy import ndimage, sparse

from pipeline.phantom.canvas import Image, Plane, Vector
from reconstruction.geometry import Geometry
from reconstruction.volume import Volume

SUBPLANE_MM = 1.5
NOISE_THICKNESS_MM = 5.0
BODY_HU = -300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A reconstruction kernel: its blur (sigma) and where its noise spectrum ends."""

    blur_mm: float
    noise_end_per_mm: float
    noise_factor: float


KERNELS = {
    "STANDARD": Kernel(blur_mm=0.50, noise_end_per_mm=0.50, noise_factor=1.0),
    "BONE": Kernel(blur_mm=0.38, noise_end_per_mm=0.85, noise_factor=3.5),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanOptions:
    """How a body is scanned.

    ``slice_step_mm`` is measured along the slice normal; None spreads ``slice_count`` slices over the body.
    ``slice_thickness_mm`` None is as thick as the step. ``tilt_deg`` is the gantry's tilt, with its sign as in
    GantryDetectorTilt: the table moves along z, so the stack is sheared. ``noise_hu`` is the standard deviation in a
    slice of 5 mm at full dose; thinner slices and less ``dose`` raise it. ``cupping_hu``: brightening beside bone.
    ``slice_offsets_mm``: how far each slice lies from its even place, along the normal; empty for an even stack.
    ``detail_mm``: distance of the samples at which the body is drawn. Raises ValueError for a scan that cannot be.
    """

    rows: int = 512
    columns: int = 512
    slice_count: int = 36
    slice_step_mm: float | None = None
    slice_thickness_mm: float | None = None
    tilt_deg: float = 0.0
    field_of_view_mm: float | None = None
    noise_hu: float = 3.5
    dose: float = 1.0
    kernel: str = "STANDARD"
    cupping_hu: float = 4.0
    slice_offsets_mm: tuple[float, ...] = ()
    detail_mm: float = 0.9

    def __post_init__(self) -> None:
        if self.kernel not in KERNELS:
            raise ValueError(f"kernel {self.kernel!r} is none of {', '.join(KERNELS)}")
        if self.slice_offsets_mm and len(self.slice_offsets_mm) != self.slice_count:
            raise ValueError("slice_offsets_mm needs one offset for each slice")
        if min(self.rows, self.columns, self.slice_count) < 1 or min(self.dose, self.detail_mm) <= 0:
            raise ValueError("rows, columns, slice_count, dose and detail_mm must be above zero")


class Body(Protocol):
    """What can be scanned."""

    @property
    def extent_lps_mm(self) -> tuple[Vector, Vector]:
        """The low and the high corner of the box to scan."""
        ...

    @property
    def field_of_view_mm(self) -> float:
        """Side of the square a scanner's operator would choose."""
        ...

    def sample(self, plane: Plane, edge_mm: float) -> tuple[Image, Image]:
        """Return HU and the lesion's filled fraction (0..1) on a plane in LPS mm."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scanned:
    """A scan's slices and the truth on them.

    ``volume``: on the nominal, even grid. ``fraction``: the lesion's share of each voxel, the same grid.
    ``positions_lps_mm`` (k, 3): the centre of each slice's first pixel as scanned; off the grid in an uneven stack.
    ``thickness_mm``: of a slice.
    """

    volume: Volume
    fraction: npt.NDArray[np.float32]
    positions_lps_mm: Vector
    thickness_mm: float


def scan(body: Body, options: ScanOptions, rng: np.random.Generator) -> Scanned:
    """Scan ``body``; the same body, options and generator give the same bits. Errors: see ScanOptions."""
    geometry = plan(body, options)
    thickness = options.slice_thickness_mm or geometry.slice_step_mm
    offsets = np.array(options.slice_offsets_mm or [0.0] * options.slice_count)
    axis = geometry.affine[:3, 0] / geometry.slice_step_mm
    positions = geometry.to_mm([(k, 0, 0) for k in range(options.slice_count)]) + offsets[:, None] * axis
    hu = np.empty(geometry.shape, dtype=np.int16)
    fraction = np.zeros(geometry.shape, dtype=np.float32)
    noises = _noise(geometry, options, thickness, rng)
    for k, (position, noise) in enumerate(zip(positions, noises, strict=True)):
        ideal, fraction[k] = _slice(body, geometry, position, thickness, options)
        hu[k] = np.rint(np.clip(ideal + noise, -1024, 3071))
    return Scanned(
        volume=Volume(hu=hu, geometry=geometry), fraction=fraction, positions_lps_mm=positions, thickness_mm=thickness
    )


def plan(body: Body, options: ScanOptions) -> Geometry:
    """Return the even grid of a scan: k upwards along the table (LPS z), columns to the left, rows to the back."""
    low, high = body.extent_lps_mm
    tilt = np.radians(options.tilt_deg)
    step = options.slice_step_mm or round(float(high[2] - low[2]) / options.slice_count, 2)
    side_mm = options.field_of_view_mm or body.field_of_view_mm
    pixel = round(side_mm / max(options.rows, options.columns), 6)
    affine = np.eye(4)
    affine[:3, 0] = (0.0, 0.0, step / np.cos(tilt))
    affine[:3, 1] = np.array((0.0, np.cos(tilt), -np.sin(tilt))) * pixel
    affine[:3, 2] = (pixel, 0.0, 0.0)
    shape = (options.slice_count, options.rows, options.columns)
    affine[:3, 3] = (low + high) / 2 - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Geometry(affine=affine, shape=shape)


def _slice(
    body: Body, geometry: Geometry, position: Vector, thickness: float, options: ScanOptions
) -> tuple[Image, Image]:
    """Average the planes of one slice and bring them to its pixels."""
    pixel = geometry.spacing_mm[1]
    detail = max(options.detail_mm, 0.75 * pixel)
    flat, down, across = _sample_plane(body, geometry, position, detail)
    count = max(1, int(np.ceil(thickness / max(SUBPLANE_MM, detail))))
    hu, fraction = np.zeros(flat.shape, dtype=np.float32), np.zeros(flat.shape, dtype=np.float32)
    for share in (np.arange(count) + 0.5) / count - 0.5:
        plane = flat.moved(np.eye(3), -geometry.normal * (share * thickness))
        one, lesion = body.sample(plane, detail)
        hu, fraction = hu + one / np.float32(count), fraction + lesion / np.float32(count)
    hu += _cupping(hu, detail, options.cupping_hu)
    blur = np.hypot(max(KERNELS[options.kernel].blur_mm, 0.55 * detail), 0.29 * pixel)
    left, right = _spread(geometry.shape[1], pixel, down, blur), _spread(geometry.shape[2], pixel, across, blur)
    return _onto(hu + 1000, left, right) - 1000, _onto(fraction, left, right)


def _onto(samples: Image, left: sparse.csr_array, right: sparse.csr_array) -> Image:
    """Bring a drawn plane to the slice's pixels."""
    if not samples.any():
        return np.zeros((left.shape[0], right.shape[0]), dtype=np.float32)
    return np.asarray(left @ (right @ samples.T).T, dtype=np.float32)


def _sample_plane(body: Body, geometry: Geometry, position: Vector, detail: float) -> tuple[Plane, Vector, Vector]:
    """Return the plane to draw (the body's box only) and where its rows and columns lie, in mm from the first pixel."""
    low, high = body.extent_lps_mm
    row, column = (geometry.affine[:3, a] / geometry.spacing_mm[a] for a in (1, 2))
    reach = abs(float(row[2])) * 8.0 + 4.0
    top = max((float(low[1]) - reach - position[1]) / row[1], -2.0)
    left = max(float(low[0]) - 4.0 - position[0], -2.0)
    rows = int((min((float(high[1]) + reach - position[1]) / row[1], _side(geometry, 1) + 2.0) - top) / detail) + 1
    columns = int((min(float(high[0]) + 4.0 - position[0], _side(geometry, 2) + 2.0) - left) / detail) + 1
    plane = Plane(
        origin_mm=position + row * top + column * left,
        row_mm=row * detail,
        column_mm=column * detail,
        shape=(max(rows, 2), max(columns, 2)),
    )
    return plane, top + detail * np.arange(plane.shape[0]), left + detail * np.arange(plane.shape[1])


def _side(geometry: Geometry, axis: int) -> float:
    return geometry.shape[axis] * geometry.spacing_mm[axis]


def _spread(count: int, pixel: float, samples_mm: Vector, blur_mm: float) -> sparse.csr_array:
    """Return the sparse matrix (pixels, samples) of a Gaussian point spread; what is not drawn counts as nothing.

    The weights are made to add up on an endless lattice of samples: else a hundredth of them missing here and there
    would be ripples of several HU.
    """
    detail = float(samples_mm[1] - samples_mm[0])
    pixels_mm = np.arange(count) * pixel
    away = (pixels_mm[:, None] - samples_mm[None, :]) / blur_mm
    phase = (pixels_mm[:, None] - samples_mm[0]) % detail + detail * np.arange(-8, 9)[None, :]
    total = np.exp(-0.5 * (phase / blur_mm) ** 2).sum(axis=1, keepdims=True)
    weights = np.exp(-0.5 * away**2) * (np.abs(away) < 4.5) / total
    return sparse.csr_array(weights.astype(np.float32))


def _cupping(hu: Image, detail: float, cupping_hu: float) -> Image:
    """Return the brightening that uncorrected hardening leaves beside bone."""
    bone = np.clip(hu[::4, ::4] - 300, 0, 1200)
    near = ndimage.gaussian_filter(bone, 9.0 / (4 * detail))
    wide = np.repeat(np.repeat(near, 4, axis=0), 4, axis=1)[: hu.shape[0], : hu.shape[1]]
    smooth = ndimage.uniform_filter(wide, 5)
    return np.asarray(smooth * np.float32(cupping_hu / 300.0) * (hu > BODY_HU), dtype=np.float32)


def _noise(geometry: Geometry, options: ScanOptions, thickness: float, rng: np.random.Generator) -> Iterator[Image]:
    """Yield each slice's noise: white noise shaped by the kernel (filtered back projection: a ramp that ends)."""
    kernel = KERNELS[options.kernel]
    rows, columns = geometry.shape[1:]
    pixel = geometry.spacing_mm[1]
    frequency = np.hypot(scipy.fft.fftfreq(rows, pixel)[:, None], scipy.fft.rfftfreq(columns, pixel)[None, :])
    shape = np.sqrt(frequency + 0.01) * np.exp(-((frequency / kernel.noise_end_per_mm) ** 2))
    shape = (shape / np.sqrt(np.mean(shape**2))).astype(np.float32)
    strength = options.noise_hu * kernel.noise_factor * np.sqrt(NOISE_THICKNESS_MM / thickness / options.dose)
    for _ in range(geometry.shape[0]):
        white = rng.standard_normal((rows, columns), dtype=np.float32)
        shaped = scipy.fft.irfft2(scipy.fft.rfft2(white) * shape, s=(rows, columns))
        yield np.asarray(shaped * np.float32(strength), dtype=np.float32)
