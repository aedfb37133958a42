"""Which voxels does a surface enclose: bone without specks, or the patient without couch and without hollows?"""

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from reconstruction.convert import is_straight
from reconstruction.errors import NoSurface, NotAVolume
from reconstruction.render_grid import LARGEST, crossed, near_patient, opened, reduced, spread, within_rim
from reconstruction.volume import Bits, Hu, Volume

__all__ = ["LARGEST", "LEVELS_HU", "solid"]

# Half units: no voxel lies on the surface itself, so that no triangle shrinks to nothing.
LEVELS_HU: Mapping[str, float] = {"bone": 199.5, "skin": -300.5}
_OUTSIDE_HU = -1024
_INSIDE_HU = 40
_LEAST_ML = 1.0
_BRIDGED_MM = 4.0
_SHEET_MM = 4.0
_RIM = 2


def solid(volume: Volume, tissue: str, *, largest: int = LARGEST) -> Volume:
    """Return the reduced grid whose surface at LEVELS_HU encloses a tissue, cropped, in a rim of air.

    Bone: pieces of 1 mL and more that belong to the patient. Skin: the patient without what is thinner than about 4 mm
    in a slice (mats, blankets), hollows filled, and creases narrower than 8 mm (nostrils, ear canals) bridged. Raises
    NoSurface where there is no such tissue, NotAVolume when sheared.
    """
    if not is_straight(volume.geometry):
        raise NotAVolume("a sheared volume has no surface here; regularise it first")
    small = reduced(volume, largest=largest)
    hu = np.array(small.hu)
    kept = near_patient(small)
    for k in range(len(hu)):
        np.clip(hu[k], _OUTSIDE_HU, None, out=hu[k])
        hu[k][~spread(kept, k, hu.shape)] = _OUTSIDE_HU
    least = max(1, round(_LEAST_ML / small.geometry.voxel_ml))
    drawn = _bone(hu, least) if tissue == "bone" else _body(hu, least, small.geometry.spacing_mm)
    if not drawn.any():
        raise NoSurface(f"no {tissue} in the image: nothing of {_LEAST_ML:g} mL above {LEVELS_HU[tissue]:.0f} HU")
    box = ndimage.find_objects(drawn.astype(np.int8))[0]
    wider = tuple(slice(max(0, s.start - 1), min(n, s.stop + 1)) for s, n in zip(box, hu.shape, strict=True))
    return within_rim(hu, wider, small.geometry, _RIM)


def _bone(hu: Hu, least: int) -> Bits:
    """Make air of specks, in place; returns what stays."""
    bone = hu > LEVELS_HU["bone"]
    labels, _ = ndimage.label(bone)
    large = np.bincount(labels.ravel()) >= least
    large[0] = False
    stays: Bits = large[labels]
    hu[bone & ~stays] = _OUTSIDE_HU
    return stays


def _body(hu: Hu, least: int, spacing_mm: tuple[float, ...]) -> Bits:
    """Make air of what is not the patient's largest part and fill its hollows, in place; returns the whole body."""
    body = hu > LEVELS_HU["skin"]
    labels, count = ndimage.label(_without_sheets(body, spacing_mm))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    if sizes.max() < least:
        return np.zeros_like(body)
    largest = labels == sizes.argmax()
    del labels
    hu[body & ~largest] = _OUTSIDE_HU
    whole = _filled(largest, spacing_mm)
    hu[whole & (hu < _INSIDE_HU)] = np.where(largest, hu, _INSIDE_HU)[whole & (hu < _INSIDE_HU)]
    return whole


def _without_sheets(body: Bits, spacing_mm: tuple[float, ...]) -> Bits:
    """Leave out, slice by slice, what is thinner than about 4 mm: mats, blankets, and gowns against the skin."""
    rounds = max(1, round(_SHEET_MM / 2.0 / max(spacing_mm[1:])))
    thick = np.empty_like(body)
    for k in range(len(body)):
        thick[k] = (body[k : k + 1] & crossed(opened(body[k : k + 1], rounds=rounds)))[0]
    return thick


def _filled(body: Bits, spacing_mm: tuple[float, ...]) -> Bits:
    """Fill, slice by slice, what a body encloses once its narrow creases are bridged; then in space."""
    rounds = max(1, round(_BRIDGED_MM / max(spacing_mm[1:])))
    rim = 2 * rounds + 1
    whole = np.empty_like(body)
    for k, flat in enumerate(body):
        bridged = ~opened(~np.pad(flat, rim)[None], rounds=rounds)[0]
        labels, _ = ndimage.label(~bridged[rounds:-rounds, rounds:-rounds])
        inner = slice(rim - rounds, rounds - rim)
        whole[k] = flat | (labels != labels[0, 0])[inner, inner]
    return ~_reached_from_faces(~whole)


def _reached_from_faces(bits: Bits) -> Bits:
    """Keep the parts that reach a face of the grid."""
    labels, count = ndimage.label(bits)
    reach = np.zeros(count + 1, dtype=np.bool_)
    for axis in range(3):
        reach[np.take(labels, (0, -1), axis=axis)] = True
    reach[0] = False
    kept: Bits = reach[labels]
    return kept
