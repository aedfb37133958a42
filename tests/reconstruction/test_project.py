"""Derived pictures must show the same tissue at the same millimetre, whatever the order of storage."""

import itertools
import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from reconstruction.errors import ImpossibleView, NotAVolume
from reconstruction.geometry import Geometry
from reconstruction.planes import Orientation, Planes, Projection, Slab
from reconstruction.project import slabs, standard
from reconstruction.resample import OUTSIDE_HU
from reconstruction.volume import PackedBits, Volume

SPACING_KJI = (2.0, 0.8, 0.8)
SHAPE = (20, 40, 48)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reformats:
    """The standard derived pictures of one volume."""

    coronal: Planes
    sagittal: Planes
    mips: tuple[Planes, Planes, Planes]


def reformat(volume: Volume, *, thickness_mm: float = 3.0, step_mm: float = 3.0) -> Reformats:
    """Return what ``standard`` yields, by name."""
    coronal, sagittal, *mips = standard(volume, thickness_mm=thickness_mm, step_mm=step_mm)
    return Reformats(coronal=coronal, sagittal=sagittal, mips=(mips[0], mips[1], mips[2]))


def straight(spacing: tuple[float, float, float] = SPACING_KJI) -> Geometry:
    """Axial slices upwards, rows to the back, columns to the left; about the middle of the patient."""
    return on_grid(SHAPE, spacing)


def on_grid(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Geometry:
    """The same for any shape."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *spacing, 1.0
    affine[:3, 3] = (-18.0, -15.0, 100.0)
    return Geometry(affine=affine, shape=shape)


def reference() -> Volume:
    """Linear in space, so that any mean over a slab is the value at its middle."""
    geometry = straight()
    points = geometry.to_mm(np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"), axis=-1))
    return Volume(hu=np.rint(points @ (7.0, -11.0, 5.0)).astype(np.int16), geometry=geometry)


def stored_otherwise(volume: Volume, flips: tuple[bool, ...], order: tuple[int, ...]) -> Volume:
    """Write the same voxels in another order of axes and directions."""
    affine, hu = volume.geometry.affine.copy(), volume.hu
    for axis, flipped in enumerate(flips):
        if flipped:
            affine[:3, 3] += affine[:3, axis] * (hu.shape[axis] - 1)
            affine[:3, axis] *= -1.0
            hu = np.flip(hu, axis)
    affine[:3, :3] = affine[:3, list(order)]
    hu = np.ascontiguousarray(hu.transpose(order))
    k, j, i = hu.shape
    return Volume(hu=hu, geometry=Geometry(affine=affine, shape=(k, j, i)))


def planes_of(result: Reformats) -> list[Planes]:
    return [result.coronal, result.sagittal, *result.mips]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", list(itertools.product([False, True], repeat=3)))
def test_the_order_of_storage_changes_no_picture(flips: tuple[bool, ...], order: tuple[int, ...]) -> None:
    expected = planes_of(reformat(reference(), thickness_mm=3.0, step_mm=3.0))
    actual = planes_of(reformat(stored_otherwise(reference(), flips, order), thickness_mm=3.0, step_mm=3.0))
    for one, other in zip(expected, actual, strict=True):
        assert_allclose(one.hu, other.hu, atol=1)
        assert_allclose(one.origins_lps_mm, other.origins_lps_mm, atol=1e-9)
        assert_array_equal(one.row_direction, other.row_direction)
        assert_array_equal(one.column_direction, other.column_direction)


@pytest.mark.parametrize("name", ["coronal", "sagittal"])
def test_a_pixel_shows_the_tissue_of_its_millimetre(name: str) -> None:
    planes: Planes = getattr(reformat(reference(), thickness_mm=3.0, step_mm=3.0), name)
    frames, rows, columns = planes.hu.shape
    for frame, row, column in itertools.product((0, frames - 1), (0, rows - 1), (0, columns // 2, columns - 1)):
        expected = planes.to_mm(frame, row, column) @ np.array([7.0, -11.0, 5.0])
        assert abs(float(planes.hu[frame, row, column]) - expected) <= 1.01


def test_pictures_read_the_radiological_way_and_have_square_pixels() -> None:
    result = reformat(reference())
    directions = [(p.orientation, p.row_direction.tolist(), p.column_direction.tolist()) for p in planes_of(result)]
    coronal, sagittal = ("coronal", [1, 0, 0], [0, 0, -1]), ("sagittal", [0, 1, 0], [0, 0, -1])
    assert directions == [coronal, sagittal, ("axial", [1, 0, 0], [0, 1, 0]), coronal, sagittal]
    assert {p.pixel_spacing_mm for p in planes_of(result)} == {(0.8, 0.8)}
    assert result.coronal.spacing_between_mm == 3.0
    assert result.coronal.slice_thickness_mm == pytest.approx(3.0)


def test_a_maximum_projection_holds_the_brightest_of_every_line() -> None:
    rng = np.random.default_rng(3)
    volume = Volume(hu=rng.integers(-1000, 3000, SHAPE, dtype=np.int16), geometry=straight((0.8, 0.8, 0.8)))
    axial, coronal, sagittal = reformat(volume).mips
    assert_array_equal(axial.hu[0], volume.hu.max(axis=0))
    assert_array_equal(coronal.hu[0], volume.hu.max(axis=1)[::-1])
    assert_array_equal(sagittal.hu[0], volume.hu.max(axis=2)[::-1])


def test_slabs_of_whole_pixels_are_plain_means() -> None:
    rng = np.random.default_rng(4)
    volume = Volume(hu=rng.integers(-1000, 3000, SHAPE, dtype=np.int16), geometry=straight((1.0, 1.0, 1.0)))
    planes = reformat(volume, thickness_mm=4.0, step_mm=4.0)
    expected: npt.NDArray[np.float64] = volume.hu.reshape(20, 10, 4, 48).mean(axis=2).transpose(1, 0, 2)[:, ::-1]
    frames_towards_back = planes.coronal.origins_lps_mm[-1, 1] > planes.coronal.origins_lps_mm[0, 1]
    assert_allclose(planes.coronal.hu if frames_towards_back else planes.coronal.hu[::-1], expected, atol=0.51)


def test_a_volume_thinner_than_a_slab_still_gives_one_frame() -> None:
    volume = Volume(hu=np.zeros((5, 3, 3), dtype=np.int16), geometry=Geometry(affine=np.eye(4), shape=(5, 3, 3)))
    planes = reformat(volume, thickness_mm=10.0, step_mm=10.0)
    assert (len(planes.coronal.hu), planes.coronal.spacing_between_mm) == (1, None)


def test_a_sheared_volume_is_refused() -> None:
    affine = straight().affine.copy()
    affine[1, 0] = 0.3
    volume = Volume(hu=np.zeros(SHAPE, dtype=np.int16), geometry=Geometry(affine=affine, shape=SHAPE))
    with pytest.raises(NotAVolume, match="regularise"):
        reformat(volume)


def test_each_picture_is_made_alone_and_is_the_one_that_reformat_makes() -> None:
    expected = planes_of(reformat(reference(), thickness_mm=4.0, step_mm=2.0))
    actual = list(standard(reference(), thickness_mm=4.0, step_mm=2.0))
    assert [(p.orientation, p.kind) for p in expected] == [(p.orientation, p.kind) for p in actual]
    for one, other in zip(expected, actual, strict=True):
        assert_array_equal(one.hu, other.hu)
    assert ["mip"] * 3 == [p.kind for p in standard(reference(), mpr=False)]
    assert ["mpr"] * 2 == [p.kind for p in standard(reference(), mip=False)]


def test_making_pictures_takes_little_more_memory_than_the_largest_of_them() -> None:
    volume = Volume(hu=np.zeros((120, 128, 128), dtype=np.int16), geometry=on_grid((120, 128, 128), (1.0, 1.0, 1.0)))
    biggest = max(planes.hu.nbytes for planes in standard(volume))
    tracemalloc.start()
    try:
        for planes in standard(volume):
            del planes
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < biggest + 0.1 * volume.hu.nbytes


def packed(bits: npt.NDArray[np.bool_]) -> PackedBits:
    return PackedBits(packed=np.packbits(bits, axis=-1), columns=bits.shape[-1])


_EXTREMES: dict[Projection, Callable[..., npt.NDArray[np.float64]]] = {
    "mean": np.average,
    "mip": lambda values, axis, weights: values[:, weights > 0].max(axis=axis),
    "minip": lambda values, axis, weights: values[:, weights > 0].min(axis=axis),
}


def plainly(hu: npt.NDArray[np.float64], edges: tuple[float, float], projection: Projection) -> npt.NDArray[np.float64]:
    """One slab across axis 1 in plain numpy: shares for a mean, centres inside for an extreme."""
    places = np.arange(hu.shape[1])
    shares = np.clip(np.minimum(edges[1], places + 0.5) - np.maximum(edges[0], places - 0.5), 0.0, None)
    inside = ((places >= edges[0] - 1e-6) & (places <= edges[1] + 1e-6)).astype(float)
    return _EXTREMES[projection](hu, axis=1, weights=shares if projection == "mean" else inside)


@settings(max_examples=40, deadline=None)
@given(
    orientation=st.sampled_from(["axial", "coronal", "sagittal"]),
    projection=st.sampled_from(["mean", "mip", "minip"]),
    thickness_mm=st.floats(0.0, 9.0),
    step_mm=st.floats(0.7, 5.0),
    flips=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    seed=st.integers(0, 9),
)
def test_a_slab_is_what_plain_numpy_makes_of_its_voxels(
    orientation: Orientation,
    projection: Projection,
    thickness_mm: float,
    step_mm: float,
    flips: tuple[bool, ...],
    seed: int,
) -> None:
    shape = (9, 11, 12)
    hu = np.random.default_rng(seed).integers(-1000, 3000, shape, dtype=np.int16)
    volume = stored_otherwise(Volume(hu=hu, geometry=on_grid(shape, (0.8, 0.8, 0.8))), flips, (0, 1, 2))
    planes = slabs(volume, orientation, slab=Slab(thickness_mm=thickness_mm, step_mm=step_mm, projection=projection))
    across = ("axial", "coronal", "sagittal").index(orientation)
    for frame in range(len(planes.hu)):
        middle = float(on_grid(shape, (0.8, 0.8, 0.8)).to_index(planes.origins_lps_mm[frame])[across])
        half = planes.slice_thickness_mm / 0.8 / 2.0
        first = np.moveaxis(hu, (across, 1 if across == 0 else 0), (1, 0)).astype(np.float64)
        expected = plainly(first, (middle - half, middle + half), projection)
        shown = expected if orientation == "axial" else expected[::-1]
        assert_allclose(planes.hu[frame], shown, atol=0.501 if projection == "mean" else 0)


@pytest.mark.parametrize("orientation", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_what_is_outside_wins_no_projection(orientation: Orientation, order: tuple[int, int, int]) -> None:
    """The -1024 in a regularised grid's corners is no air."""
    shape = (10, 11, 12)
    rng = np.random.default_rng(5)
    outside = rng.random(shape) < 0.4
    outside[:, :, :3] = True
    hu = rng.integers(-900, 3000, shape, dtype=np.int16)
    hidden = np.where(outside, OUTSIDE_HU, hu).astype(np.int16)
    volume = stored_otherwise(Volume(hu=hidden, geometry=on_grid(shape, (1.0, 1.0, 1.0))), (False,) * 3, order)
    across = ("axial", "coronal", "sagittal").index(orientation)
    ways: list[tuple[Projection, Callable[..., Any]]] = [("minip", np.nanmin), ("mip", np.nanmax), ("mean", np.nanmean)]
    for projection, plain in ways:
        slab = Slab(thickness_mm=20, count=1, projection=projection)
        stored = np.ascontiguousarray(outside.transpose(order))
        planes = slabs(volume, orientation, slab=slab, outside=stored)
        assert_array_equal(planes.hu, slabs(volume, orientation, slab=slab, outside=packed(stored)).hu)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a line without any voxel is the point
            wanted = plain(np.where(outside, np.nan, hu), axis=across)
        expected = np.nan_to_num(wanted, nan=OUTSIDE_HU)
        assert_allclose(planes.hu[0], expected if orientation == "axial" else expected[::-1], atol=0.51)


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("slice_mm", [0.7, 1.0, 1.3])
def test_what_is_packed_counts_as_what_is_not_however_many_rows_there_are(*, flipped: bool, slice_mm: float) -> None:
    """Packed it is spread for some rows at a time, which must not show at their seams."""
    shape = (150, 9, 11)
    rng = np.random.default_rng(6)
    outside = rng.random(shape) < 0.3
    hu = np.where(outside, OUTSIDE_HU, rng.integers(-900, 3000, shape)).astype(np.int16)
    volume = stored_otherwise(
        Volume(hu=hu, geometry=on_grid(shape, (slice_mm, 1.0, 1.0))), (flipped, False, False), (0, 1, 2)
    )
    stored = np.ascontiguousarray(outside[::-1] if flipped else outside)
    plain = standard(volume, thickness_mm=2.5, step_mm=2.0, outside=stored)
    tight = standard(volume, thickness_mm=2.5, step_mm=2.0, outside=packed(stored))
    for one, other in zip(plain, tight, strict=True):
        assert_array_equal(one.hu, other.hu)


def test_rows_between_a_covered_and_an_outside_slice_follow_the_nearer() -> None:
    shape = (3, 4, 4)
    hu = np.full(shape, 100, dtype=np.int16)
    outside = np.zeros(shape, dtype=np.bool_)
    hu[2], outside[2] = OUTSIDE_HU, True
    volume = Volume(hu=hu, geometry=on_grid(shape, (5.0, 1.0, 1.0)))
    picture = slabs(volume, "coronal", slab=Slab(thickness_mm=1, count=1), outside=outside).hu[0]
    assert [OUTSIDE_HU] * 3 + [100] * 8 == picture[:, 0].tolist()


def test_slabs_that_cannot_be_are_refused() -> None:
    for wrong in ({"thickness_mm": float("nan")}, {"step_mm": 0.0}, {"count": 0}, {"projection": "median"}):
        with pytest.raises(ImpossibleView):
            Slab(**wrong)
    with pytest.raises(ImpossibleView, match="room for 12"):
        slabs(reference(), "coronal", slab=Slab(thickness_mm=2.6, count=40))
    with pytest.raises(ImpossibleView, match="oblique"):
        slabs(reference(), "oblique", slab=Slab())
    with pytest.raises(NotAVolume, match="shape"):
        slabs(reference(), "axial", slab=Slab(), outside=np.ones((2, 2, 2), dtype=np.bool_))
