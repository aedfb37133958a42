"""Which voxels does a picture in 3D need: how coarse a grid, and what of it beside the patient's own?"""

import math
from collections.abc import Sequence

import numba
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from reconstruction.convert import is_straight
from reconstruction.errors import NotAVolume, NothingToShow
from reconstruction.geometry import Geometry
from reconstruction.render_cast import HIGHEST_HU, RIM
from reconstruction.render_looks import AIR_HU, GHOST_HU, Preset
from reconstruction.resample import in_threads
from reconstruction.volume import Bits, Hu, Mask, Volume

LARGEST = 320  # the service's own: a cube of so many voxels along a side, 66 MB
_TISSUE_HU = -200
_COARSE_MM = 3.0
_FINE_MM = 1.5
_NEAR_MM = 6.0
_FLAKES_MM = 15.0
_BONE_HU = 150
_DENSE_HU = 350.0
_DENSE_ML = 1.0
_BONY_HU = 180.0
_GHOST_FROM_HU = 100  # what is no denser is left as it is: the shadow ends where the bone does
_CLOSED_MM = 9.0
_SMOOTH_MM = 1.0
_BEYOND_BRAIN_HU = -100.0
_PARTIAL_MM = 1.5  # as far from its bone the brain's edge is brightened by it
_ALL_ROUND = ndimage.generate_binary_structure(3, 3)

Coarse = tuple[int, int, int]


def prepared(volume: Volume, preset: Preset, *, largest: int = LARGEST, shown: Mask | None = None) -> Volume:
    """Return the grid a preset is cast from: reduced, without the couch, cropped to what is seen, in a rim of air.

    The volume must be straight. No more than ``largest``³ voxels are kept of it; beside that grid nothing of the
    volume's size is made. ``shown`` (on the volume's grid) makes air of what lies outside; the brain needs one.
    For vessels, bone becomes GHOST_HU; it is smoothed by 1 mm.
    Raises NothingToShow where too little would be seen, NotAVolume for a sheared volume or a region of another grid.
    """
    _refuse(volume, shown)
    if preset.name == "brain" and shown is None:
        raise NothingToShow("the brain is shown only where a region says what is brain: none was given")
    if shown is not None:
        small = _reduced_within(volume, shown, largest)
        return _cropped(_peeled(small) if preset.name == "brain" else small, preset, None, None)
    small = reduced(volume, largest=largest)
    ghosts = dense_bone(small) if preset.name == "vessel" else None
    return _cropped(small, preset, near_patient(small), ghosts)


def reduced(volume: Volume, *, largest: int = LARGEST) -> Volume:
    """Average whole blocks of voxels until no more than ``largest``³ are left, the finest axis first.

    Nothing of the volume's own size is copied.
    """
    factors = _factors(volume.geometry, largest)
    if factors == (1, 1, 1):
        return volume
    shape = _whole(volume.hu.shape, factors)
    return Volume(hu=_block_means(volume.hu, factors), geometry=_coarser(volume.geometry, factors, shape))


def near_patient(volume: Volume) -> tuple[Bits, Coarse]:
    """Say, on blocks of about 1.5 mm, what belongs to the patient, and how many voxels a block is long.

    The patient is the largest connected part once sheets thinner than about 4 mm are opened away (in the slices'
    plane), what lies within 6 mm of it, and bone within 15 mm that hangs together with bone of the patient: a picture
    may keep a strip of the couch, but may not lose a flake of bone.
    """
    every = _strides(volume.geometry, _FINE_MM)
    hu = volume.hu[:: every[0], :: every[1], :: every[2]]
    labels, count = ndimage.label(opened(hu > _TISSUE_HU))
    if count == 0:
        return np.ones(hu.shape, dtype=np.bool_), every
    patient = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    del labels
    apart_mm = _apart_mm(patient, volume.geometry, every)
    near = apart_mm <= _NEAR_MM
    pieces, _ = ndimage.label((hu > _BONE_HU) & (apart_mm <= _FLAKES_MM), _ALL_ROUND)
    own = np.zeros(int(pieces.max()) + 1, dtype=np.bool_)
    own[pieces[patient]] = True
    own[0] = False
    return near | grown(own[pieces]), every


def dense_bone(volume: Volume) -> tuple[Bits, Coarse]:
    """Say, on blocks of about 3 mm, what is bone beyond doubt: dense, in pieces of 1 mL, and what they enclose."""
    every = _strides(volume.geometry, _COARSE_MM)
    spacing = [n * mm for n, mm in zip(every, volume.geometry.spacing_mm, strict=True)]
    means = _block_means(volume.hu, every)
    labels, count = ndimage.label(means > _DENSE_HU, _ALL_ROUND)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    bone = (sizes * float(np.prod(spacing)) / 1000.0 >= _DENSE_ML)[labels]
    if not bone.any():
        return bone, every
    near = ndimage.distance_transform_edt(~bone, sampling=spacing) <= _CLOSED_MM
    bone = ndimage.binary_propagation(bone, mask=near & (means > _BONY_HU))
    wide = ndimage.distance_transform_edt(~bone, sampling=spacing) <= _CLOSED_MM
    filled = ndimage.distance_transform_edt(np.pad(wide, 1, mode="edge"), sampling=spacing)[1:-1, 1:-1, 1:-1]
    edge = ndimage.binary_dilation(bone, ndimage.generate_binary_structure(3, 1))
    return (filled > _CLOSED_MM) | edge, every


def spread(coarse: tuple[Bits, Coarse], k: int, shape: tuple[int, ...]) -> Bits:
    """Return one slice of a volume's shape from bits on blocks; what lies beyond the last block follows it."""
    bits, every = coarse
    rows = np.minimum(np.arange(shape[1]) // every[1], bits.shape[1] - 1)
    columns = np.minimum(np.arange(shape[2]) // every[2], bits.shape[2] - 1)
    flat = bits[min(k // every[0], bits.shape[0] - 1)]
    return np.asarray(flat[rows][:, columns])


def opened(bits: Bits, *, rounds: int = 1) -> Bits:
    """Take away, slice by slice, where no cross of five bits, widened so often, fits; by shifts, quicker than scipy."""
    core = bits
    for _ in range(rounds):
        narrow = np.zeros_like(core)
        narrow[:, 1:-1, 1:-1] = core[:, 1:-1, 1:-1] & core[:, :-2, 1:-1] & core[:, 2:, 1:-1]
        narrow[:, 1:-1, 1:-1] &= core[:, 1:-1, :-2] & core[:, 1:-1, 2:]
        core = narrow
    return crossed(core, rounds=rounds)


def crossed(bits: Bits, *, rounds: int = 1) -> Bits:
    """Add every bit's four neighbours in its slice, so often."""
    for _ in range(rounds):
        wide = bits.copy()
        _widen(wide, bits, 1)
        _widen(wide, bits, 2)
        bits = wide
    return bits


def grown(bits: Bits) -> Bits:
    """Add every bit's 26 neighbours."""
    for axis in range(3):
        wide = bits.copy()
        _widen(wide, bits, axis)
        bits = wide
    return bits


def _widen(wide: Bits, bits: Bits, axis: int) -> None:
    to, from_ = np.moveaxis(wide, axis, 0), np.moveaxis(bits, axis, 0)
    to[1:] |= from_[:-1]
    to[:-1] |= from_[1:]


def _bony(coarse: tuple[Bits, Coarse], k: int, shape: Coarse) -> Bits:
    """Return one slice of bits on blocks, their steps rounded off: linear between the blocks' middles in a slice."""
    bits, every = coarse
    flat = bits[min(k // every[0], bits.shape[0] - 1)].astype(np.float32)
    if not flat.any():
        return np.zeros(shape[1:], dtype=np.bool_)
    tall = _stretched(flat, shape[1], every[1])
    return np.asarray(_stretched(tall.T, shape[2], every[2]).T >= 0.5)


def _stretched(flat: npt.NDArray[np.float32], count: int, every: int) -> npt.NDArray[np.float32]:
    places = np.clip((np.arange(count) + 0.5) / every - 0.5, 0, len(flat) - 1)
    below = np.minimum(places.astype(np.intp), max(len(flat) - 2, 0))
    share = (places - below).astype(np.float32)[:, None]
    between: npt.NDArray[np.float32] = flat[below] * (1 - share) + flat[np.minimum(below + 1, len(flat) - 1)] * share
    return between


def within_rim(hu: Hu, box: tuple[slice, ...], geometry: Geometry, rim: int) -> Volume:
    """Cut a box out of a grid and lay a rim of air round it: at the very edge nothing has a gradient."""
    cut = np.pad(hu[box], rim, constant_values=AIR_HU)
    first = [side.start - rim for side in box]
    affine = geometry.affine.copy()
    affine[:3, 3] = geometry.to_mm(first)
    k, j, i = cut.shape
    frame = geometry.frame_of_reference_uid
    return Volume(hu=cut, geometry=Geometry(affine=affine, shape=(k, j, i), frame_of_reference_uid=frame))


def _refuse(volume: Volume, shown: Mask | None) -> None:
    if not is_straight(volume.geometry):
        raise NotAVolume("a sheared volume cannot be rendered; regularise it first")
    if shown is not None and not shown.geometry.agrees_with(volume.geometry, within_mm=0.01):
        raise NotAVolume("the region to show lies on another grid than the volume")


def _factors(geometry: Geometry, largest: int) -> Coarse:
    factors, spacing = [1, 1, 1], geometry.spacing_mm
    while math.prod(_whole(geometry.shape, factors)) > max(largest, 1) ** 3:
        can = [a for a in range(3) if geometry.shape[a] // (factors[a] + 1) >= 1]
        finest = min(can, key=lambda axis: (factors[axis] * spacing[axis], -geometry.shape[axis] / factors[axis]))
        factors[finest] += 1
    return factors[0], factors[1], factors[2]


def _strides(geometry: Geometry, about_mm: float) -> Coarse:
    """How many voxels make a block of that size, leaving at least three blocks along an axis that has them."""
    k, j, i = (
        max(1, min(round(about_mm / mm), n // 3)) for mm, n in zip(geometry.spacing_mm, geometry.shape, strict=True)
    )
    return k, j, i


def _whole(shape: Sequence[int], factors: Sequence[int]) -> Coarse:
    k, j, i = (n // f for n, f in zip(shape, factors, strict=True))
    return k, j, i


def _coarser(geometry: Geometry, factors: Coarse, shape: Coarse) -> Geometry:
    affine = geometry.affine.copy()
    affine[:3, :3] *= factors
    affine[:3, 3] = geometry.to_mm([(f - 1) / 2.0 for f in factors])
    return Geometry(affine=affine, shape=shape, frame_of_reference_uid=geometry.frame_of_reference_uid)


def _block_means(hu: Hu, factors: Coarse) -> Hu:
    """Average whole blocks, rounded half up; an incomplete last block is left out."""
    means = np.empty(_whole(hu.shape, factors), dtype=np.int16)
    in_threads(lambda span: _average(hu, factors, means, span), means.shape[0])
    return means


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _average(hu: Hu, factors: Coarse, means: Hu, span: tuple[int, int]) -> None:
    count = factors[0] * factors[1] * factors[2]
    row = np.empty(means.shape[2] * factors[2], dtype=np.int64)
    for k in range(span[0], span[1]):
        for j in range(means.shape[1]):
            row[:] = 0
            for z in range(k * factors[0], (k + 1) * factors[0]):
                for y in range(j * factors[1], (j + 1) * factors[1]):
                    for x in range(row.size):
                        row[x] += hu[z, y, x]
            for i in range(means.shape[2]):
                total = count // 2
                for x in range(i * factors[2], (i + 1) * factors[2]):
                    total += row[x]
                means[k, j, i] = np.int16(total // count)


def _reduced_within(volume: Volume, shown: Mask, largest: int) -> Volume:
    """Reduce a region's box; what is outside of the region counts as air, so that its edge is smooth."""
    geometry = volume.geometry.cropped(shown.origin_kji, _shape(shown.bits))
    factors = _factors(geometry, largest)
    shape = _whole(geometry.shape, factors)
    k, j, i = shown.origin_kji
    hu = np.empty(shape, dtype=np.int16)
    for n in range(shape[0]):
        span = slice(n * factors[0], (n + 1) * factors[0])
        bits = shown.bits[span]
        slab = volume.hu[k + span.start : k + span.stop, j : j + bits.shape[1], i : i + bits.shape[2]]
        hu[n] = _block_means(np.where(bits, slab, AIR_HU).astype(np.int16), factors)[0]
    return Volume(hu=hu, geometry=_coarser(geometry, factors, shape))


def _peeled(volume: Volume) -> Volume:
    """Take the bone's partial volume off a brain, smooth it within itself, and let its edge fade out evenly."""
    spacing = volume.geometry.spacing_mm
    inside = ndimage.distance_transform_edt(volume.hu > _BEYOND_BRAIN_HU, sampling=spacing) > _PARTIAL_MM
    sigma = [_SMOOTH_MM / mm for mm in spacing]
    weight = ndimage.gaussian_filter(inside.astype(np.float32), sigma)
    values = ndimage.gaussian_filter(np.where(inside, volume.hu, 0).astype(np.float32), sigma)
    values /= np.maximum(weight, 1e-3)
    share = np.clip((weight - 0.25) * 2.0, 0.0, 1.0)
    hu = np.rint(values * share + _BEYOND_BRAIN_HU * (1.0 - share)).astype(np.int16)
    return Volume(hu=hu, geometry=volume.geometry)


def _apart_mm(bits: Bits, geometry: Geometry, every: Coarse) -> npt.NDArray[np.float32]:
    """How far each block lies from a region, by blocks twice as long: to a block, and eight times as quickly."""
    spacing = [2.0 * n * mm for n, mm in zip(every, geometry.spacing_mm, strict=True)]
    apart = ndimage.distance_transform_edt(~bits[::2, ::2, ::2], sampling=spacing).astype(np.float32)
    wide = apart.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    return wide[: bits.shape[0], : bits.shape[1], : bits.shape[2]]


def _shape(array: npt.NDArray[np.generic]) -> Coarse:
    k, j, i = array.shape
    return k, j, i


def _cropped(
    volume: Volume, preset: Preset, kept: tuple[Bits, Coarse] | None, ghosts: tuple[Bits, Coarse] | None
) -> Volume:
    """Make air and ghosts, then crop to what is seen; slice by slice, in one new grid."""
    hu = np.empty_like(volume.hu)
    sides = [np.zeros(n, dtype=np.bool_) for n in volume.hu.shape]
    in_plane, count = [_SMOOTH_MM / mm for mm in volume.geometry.spacing_mm[1:]], 0
    for k in range(hu.shape[0]):
        flat = volume.hu[k] if ghosts is None else ndimage.gaussian_filter(volume.hu[k], in_plane)
        np.clip(flat, AIR_HU, HIGHEST_HU, out=hu[k])
        if kept is not None:
            hu[k][~spread(kept, k, hu.shape)] = AIR_HU
        if ghosts is not None:
            hu[k][_bony(ghosts, k, hu.shape) & (hu[k] > _GHOST_FROM_HU)] = GHOST_HU
        seen = hu[k] > preset.seen_from_hu
        count += int(np.count_nonzero(seen))
        drawn = seen | (hu[k] == GHOST_HU)
        sides[0][k] = drawn.any()
        sides[1] |= drawn.any(axis=1)
        sides[2] |= drawn.any(axis=0)
    if count * volume.geometry.voxel_ml < preset.least_ml:
        raise NothingToShow(preset.missing)
    box = tuple(slice(int(np.argmax(side)), len(side) - int(np.argmax(side[::-1]))) for side in sides)
    wider = tuple(slice(max(0, s.start - 1), min(n, s.stop + 1)) for s, n in zip(box, hu.shape, strict=True))
    return within_rim(hu, wider, volume.geometry, RIM)
