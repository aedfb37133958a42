"""Laws of geometry: however a patient was scanned, a voxel lies where DICOM says, or nobody is told that it does."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from reconstruction.assemble import assemble
from reconstruction.decode import Stored
from reconstruction.errors import NotAVolume, NotDicom
from reconstruction.geometry import Geometry, Points
from reconstruction.headers import Header, read_header
from reconstruction.resample import OUTSIDE_HU, regularise, slice_points_mm, straightened
from reconstruction.slices import Refused, Stack, stack_of, stacks_of
from reconstruction.volume import Bits, Hu, Volume

ROWS, COLUMNS = 7, 5

POSES = {
    "head first, supine": ((1, 0, 0), (0, 1, 0)),
    "head first, prone": ((-1, 0, 0), (0, -1, 0)),
    "head first, decubitus right": ((0, 1, 0), (-1, 0, 0)),
    "head first, decubitus left": ((0, -1, 0), (1, 0, 0)),
    "feet first, supine": ((-1, 0, 0), (0, 1, 0)),
    "feet first, prone": ((1, 0, 0), (0, -1, 0)),
    "coronal": ((1, 0, 0), (0, 0, -1)),
    "sagittal": ((0, 1, 0), (0, 0, -1)),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scan:
    """A series as a scanner would describe it; ``hu`` (kji) in the order of ``headers``."""

    headers: tuple[Header, ...]
    hu: Hu

    def read(self, header: Header) -> Stored:
        """Return the stored values of one slice."""
        place = next(n for n, h in enumerate(self.headers) if h.sop_instance_uid == header.sop_instance_uid)
        stored: Stored = self.hu[place].astype(np.int32)
        return stored


def turned(a: float, b: float, c: float) -> Points:
    """Turn about z, then y, then x."""
    about_z = np.array([[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0], [0, 0, 1]])
    about_y = np.array([[math.cos(b), 0, math.sin(b)], [0, 1, 0], [-math.sin(b), 0, math.cos(b)]])
    about_x = np.array([[1, 0, 0], [0, math.cos(c), -math.sin(c)], [0, math.sin(c), math.cos(c)]])
    return np.asarray(about_x @ about_y @ about_z)


def a_scan(
    positions: Sequence[float],
    *,
    axes: tuple[Points, Points],
    spacing: tuple[float, float] = (0.8, 0.5),
    tilt_deg: float = 0.0,
    origin: Sequence[float] = (0.0, 0.0, 0.0),
) -> Scan:
    """Describe slices at these distances along the normal, that drift along the columns by the gantry's tilt."""
    row, column = axes
    step = np.cross(row, column) + math.tan(math.radians(tilt_deg)) * column
    headers = tuple(
        Header(
            sop_instance_uid=f"1.2.{n}",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            series_instance_uid="1.9",
            modality="CT",
            instance_number=n + 1,
            rows=ROWS,
            columns=COLUMNS,
            orientation=(*row.tolist(), *column.tolist()),
            position_mm=(*(np.asarray(origin) + along * step).tolist(),),
            pixel_spacing_mm=spacing,
            frame_of_reference_uid="1.5",
            slice_thickness_mm=5.0,
            tilt_tag_deg=tilt_deg,
            rescale_slope=1.0,
            rescale_intercept=0.0,
        )
        for n, along in enumerate(positions)
    )
    hu = np.random.default_rng(len(positions)).integers(-900, 2000, (len(positions), ROWS, COLUMNS)).astype(np.int16)
    return Scan(headers=headers, hu=hu)


@st.composite
def axes(draw: st.DrawFn) -> tuple[Points, Points]:
    """A known pose of the patient, or any oblique one."""
    row, column = (np.array(v, dtype=np.float64) for v in POSES[draw(st.sampled_from(sorted(POSES)))])
    if draw(st.booleans()):
        turn = turned(*(draw(st.floats(-3.0, 3.0)) for _ in range(3)))
        row, column = turn @ row, turn @ column
    return row, column


@st.composite
def distances(draw: st.DrawFn) -> list[float]:
    """Even, overlapping, with gaps, with near-duplicates at seams of rotations, or altogether uneven."""
    count, step = draw(st.integers(2, 12)), draw(st.sampled_from([0.3, 0.625, 1.25, 3.0, 5.0, 7.5]))
    odd = draw(st.lists(st.tuples(st.integers(0, count - 1), st.sampled_from([0.05, 0.27, 1.0, 2.0, 3.7])), max_size=3))
    if draw(st.booleans()):
        return [step * odds for odds in draw(st.lists(st.floats(0.2, 3.0), min_size=count, max_size=count))]
    steps = [step] * count
    for n, times in odd:
        steps[n] = max(step * times, 0.02)
    return steps


@st.composite
def scans(draw: st.DrawFn) -> Scan:
    """Any scan of one stack: pose, tilt either way, pixels that are not square, slices even or not, either order."""
    along = np.concatenate([[0.0], np.cumsum(draw(distances()))])
    along = along * draw(st.sampled_from([1.0, -1.0])) + draw(st.floats(-900.0, 900.0))
    return a_scan(
        along.tolist(),
        axes=draw(axes()),
        spacing=(draw(st.floats(0.2, 1.5)), draw(st.floats(0.2, 1.5))),
        tilt_deg=draw(st.sampled_from([0.0, 7.4, 18.5, -18.5, 30.0, -0.05])),
        origin=[draw(st.floats(-400.0, 400.0)) for _ in range(3)],
    )


def stated_mm(header: Header, *, every: int = 1) -> Points:
    """Every pixel's place (or each few'th) by DICOM's own equation (PS3.3 C.7.6.2.1.1), (rows, columns, 3)."""
    assert header.position_mm is not None
    assert header.orientation is not None
    assert header.pixel_spacing_mm is not None
    across, down = np.array(header.orientation[:3]), np.array(header.orientation[3:])
    j, i = np.arange(0, header.rows, every)[:, None, None], np.arange(0, header.columns, every)[None, :, None]
    between_rows, between_columns = header.pixel_spacing_mm
    return np.asarray(np.array(header.position_mm) + across * between_columns * i + down * between_rows * j)


def placed_mm(stack: Stack) -> Points:
    """Every voxel's place by the stack's geometry, (slices, rows, columns, 3)."""
    kji = np.stack(np.meshgrid(*[np.arange(n) for n in stack.geometry.shape], indexing="ij"), axis=-1)
    return slice_points_mm(stack.geometry, kji, None if stack.even else stack.slice_positions_mm)


@settings(max_examples=150, deadline=None)
@given(scan=scans())
def test_every_acquired_pixel_lies_where_its_own_header_puts_it(scan: Scan) -> None:
    stack = stack_of(scan.headers)
    assert_allclose(placed_mm(stack), np.stack([stated_mm(h) for h in stack.headers]), atol=0.01 + drift_mm(stack))


def drift_mm(stack: Stack) -> float:
    """How far an even stack's slices may lie off its even grid: distances that differ by less than this are even."""
    return max(0.01 * stack.nominal_step_mm, 0.02) if stack.even and np.ptp(np.diff(stack.slice_positions_mm)) else 0.0


@settings(max_examples=100, deadline=None)
@given(scan=scans())
def test_a_tilted_stack_holds_its_shear_and_slices_between_it_and_the_normal_their_distance(scan: Scan) -> None:
    stack = stack_of(scan.headers)
    (tilt,) = {h.tilt_tag_deg for h in scan.headers}
    assert abs(tilt or 0.0) == pytest.approx(stack.geometry.tilt_deg, abs=1e-5)
    assert stack.geometry.slice_step_mm == pytest.approx(stack.nominal_step_mm, abs=1e-5)
    assert () == tuple(note for note in stack.notes if "tilt" in note)


@settings(max_examples=60, deadline=None)
@given(scan=scans(), data=st.data())
def test_the_order_of_the_slices_changes_no_voxel(scan: Scan, data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(scan.headers))
    one, other = stack_of(scan.headers), stack_of(shuffled)
    np.testing.assert_array_equal(one.geometry.affine, other.geometry.affine)
    np.testing.assert_array_equal(assemble(one, scan.read).volume.hu, assemble(other, scan.read).volume.hu)
    assert (one.slice_positions_mm, one.gaps_mm, one.notes) == (other.slice_positions_mm, other.gaps_mm, other.notes)


@settings(max_examples=60, deadline=None)
@given(scan=scans())
def test_each_slices_pixels_stand_at_their_own_place(scan: Scan) -> None:
    stack = stack_of(scan.headers)
    hu = assemble(stack, scan.read).volume.hu
    for k, header in enumerate(stack.headers):
        np.testing.assert_array_equal(scan.read(header), hu[k])


@settings(max_examples=100, deadline=None)
@given(scan=scans(), index=st.tuples(*[st.floats(-500.0, 500.0)] * 3))
def test_a_place_comes_back_from_its_index_in_every_stack(scan: Scan, index: tuple[float, float, float]) -> None:
    geometry = stack_of(scan.headers).geometry
    assert_allclose(geometry.to_index(geometry.to_mm(index)), index, atol=1e-6)


def regularised_by_hand(
    volume: Volume, positions: Points, grid: Geometry, padding: Bits, *, slack: float = -1e-3
) -> tuple[Points, Bits]:
    """Each voxel's value, blended between the two slices below and above it, and whether one of them misses it."""
    kji = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), axis=-1)
    places = grid.to_mm(kji)
    along = (places - volume.geometry.to_mm((0, 0, 0))) @ volume.geometry.normal
    below = np.clip(np.searchsorted(positions, along, side="right") - 1, 0, len(positions) - 2)
    share = np.clip((along - positions[below]) / np.diff(positions)[below], 0, 1)
    values, outside = np.zeros(grid.shape), np.zeros(grid.shape, dtype=np.bool_)
    for a, weight in ((below, 1 - share), (below + 1, share)):
        from_origin = places - slice_points_mm(volume.geometry, zeros(a), positions.tolist())
        value, missed = read_by_hand(volume, from_origin, a, padding, slack)
        values += weight * value
        outside |= missed & (weight > 1e-4 * (2.0 if slack > 0 else 0.5))
    return np.where(outside, float(OUTSIDE_HU), values), outside


def zeros(slices: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """The index of the first pixel of each of these slices."""
    return np.stack([slices, np.zeros_like(slices), np.zeros_like(slices)], axis=-1)


def read_by_hand(
    volume: Volume, from_origin_mm: Points, slices: npt.NDArray[np.intp], padding: Bits, slack: float
) -> tuple[Points, Bits]:
    """Read a slice bilinearly at places in mm from its first pixel; say where it does not reach, or is padded.

    ``slack``: by how many pixels its border is moved outwards, and by which weight padding is let pass.
    """
    spacing = np.array(volume.geometry.spacing_mm[1:])
    index = from_origin_mm @ (volume.geometry.affine[:3, 1:3] / spacing**2)
    size = np.array(volume.geometry.shape[1:])
    missed = ~((index >= -0.5 - slack) & (index <= size - 0.5 + slack)).all(axis=-1)
    index = np.clip(index, 0, size - 1)
    low = np.minimum(index.astype(int), size - 2)
    values = np.zeros(missed.shape)
    for corner in np.ndindex(2, 2):
        weight = np.abs(1 - np.array(corner) - (index - low)).prod(axis=-1)
        j, i = np.moveaxis(low + corner, -1, 0)
        values += weight * volume.hu[slices, j, i]
        missed |= (weight > max(slack, 0.0)) & padding[slices, j, i]
    return values, missed


@settings(max_examples=60, deadline=None)
@given(scan=scans(), padded=st.booleans(), spacing_mm=st.sampled_from([0.7, 1.1, 2.3]))
def test_regularised_values_are_blended_and_never_invented(scan: Scan, padded: bool, spacing_mm: float) -> None:  # noqa: FBT001
    stack = stack_of(scan.headers)
    hu = assemble(stack, scan.read).volume.hu
    padding = np.zeros(hu.shape, dtype=np.bool_)
    padding[:, :2, :2] = padded
    volume, positions = Volume(hu=hu, geometry=stack.geometry), np.array(stack.slice_positions_mm)
    result = regularise(volume, slice_positions_mm=stack.slice_positions_mm, spacing_mm=spacing_mm, padding=padding)
    values, outside = regularised_by_hand(volume, positions, result.volume.geometry, padding)
    _, within = regularised_by_hand(volume, positions, result.volume.geometry, padding, slack=1e-3)
    edge = outside != within  # a voxel on the very border may fall on either side of it
    np.testing.assert_array_equal(outside[~edge], result.outside[~edge])
    assert np.abs(values - result.volume.hu)[~edge].max(initial=0.0) <= 1.01
    assert {OUTSIDE_HU} >= set(result.volume.hu[result.outside].tolist())


@settings(max_examples=60, deadline=None)
@given(scan=scans(), spacing_mm=st.sampled_from([None, 0.5, 1.7]))
def test_the_distance_that_is_reported_is_the_largest_there_is(scan: Scan, spacing_mm: float | None) -> None:
    stack = stack_of(scan.headers)
    volume = Volume(hu=np.zeros(stack.geometry.shape, dtype=np.int16), geometry=stack.geometry)
    result = regularise(volume, slice_positions_mm=stack.slice_positions_mm, spacing_mm=spacing_mm)
    grid = result.volume.geometry
    k = np.stack([np.arange(grid.shape[0]), *[np.zeros(grid.shape[0])] * 2], axis=1)
    origins = np.array([h.position_mm for h in stack.headers])
    apart = np.abs((grid.to_mm(k)[:, None] - origins[None]) @ stack.geometry.normal)
    assert result.max_distance_to_slice_mm == pytest.approx(float(apart.min(axis=1).max()), abs=1e-6)
    widest = max(b - a for a, b in pairwise(stack.slice_positions_mm))
    assert result.max_distance_to_slice_mm <= widest / 2 + 1e-6
    assert grid.tilt_deg < 1e-5
    assert_allclose(grid.spacing_mm, grid.spacing_mm[0], rtol=1e-9)


@settings(max_examples=20, deadline=None)
@given(scan=scans(), seed=st.integers(0, 9))
def test_what_stands_in_padding_never_reaches_a_voxel(scan: Scan, seed: int) -> None:
    stack = stack_of(scan.headers)
    rng = np.random.default_rng(seed)
    hu = assemble(stack, scan.read).volume.hu
    padding = rng.random(hu.shape) < 0.2
    garbage = np.where(padding, rng.integers(-30000, 30000, hu.shape), hu).astype(np.int16)
    one, other = (
        regularise(
            Volume(hu=np.array(pixels), geometry=stack.geometry),
            slice_positions_mm=stack.slice_positions_mm,
            padding=padding,
        )
        for pixels in (hu, garbage)
    )
    np.testing.assert_array_equal(one.volume.hu, other.volume.hu)
    np.testing.assert_array_equal(one.outside, other.outside)


SUPINE = (np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0]))


def faulty(name: str) -> list[Header]:
    """An ordinary scan of 12 slices with one thing wrong with it."""
    headers = list(a_scan([5.0 * n for n in range(12)], axes=SUPINE, tilt_deg=10.0 * name.startswith("tilt")).headers)
    again = [replace(h, sop_instance_uid=f"{h.sop_instance_uid}.2") for h in headers]
    scout = replace(
        headers[0], sop_instance_uid="1.3", orientation=(0.0, 1.0, 0.0, 0.0, 0.0, -1.0), image_type=("LOCALIZER",)
    )
    uneven = list(a_scan([0, 4, 8, 15, 22, 23.1, 27, 31], axes=SUPINE, tilt_deg=10.0).headers)
    return {
        "a missing slice": headers[:4] + headers[5:],
        "duplicates of some": headers + again[3:5],
        "twins of all": headers + again,
        "a localizer among them": [*headers, scout],
        "a lone slice": headers[:1],
        "two frames of reference": headers[:6] + [replace(h, frame_of_reference_uid="1.6") for h in headers[6:]],
        "tilt and a missing slice": headers[:4] + headers[5:],
        "tilt and uneven": uneven,
        "one position": [replace(h, position_mm=(0.0, 0.0, 0.0)) for h in headers],
        "one without frame of reference": [replace(headers[0], frame_of_reference_uid=None), *headers[1:]],
        "one position wrong": [replace(headers[3], position_mm=(70.0, 0.0, 15.0)), *headers[:3], *headers[4:]],
        "another matrix": [replace(headers[3], rows=9), *headers[:3], *headers[4:]],
    }[name]


Ending = tuple[str, int, str]

ENDINGS: Mapping[str, list[Ending]] = {
    "a missing slice": [("regularised", 11, "1 slice(s) seem to be missing: 1 gap(s) of a multiple of 5 mm")],
    "duplicates of some": [
        ("exact", 12, ""),
        ("refused", 2, "2 slice(s) repeat positions of another stack of this series"),
    ],
    "twins of all": [("exact", 12, ""), ("exact", 12, "")],
    "a localizer among them": [("exact", 12, ""), ("refused", 1, "1 slice(s): fewer than 3 are no volume")],
    "a lone slice": [("refused", 1, "1 slice(s): fewer than 3 are no volume")],
    "two frames of reference": [("exact", 6, ""), ("exact", 6, "")],
    "tilt and a missing slice": [("regularised", 11, "1 slice(s) seem to be missing: 1 gap(s) of a multiple of 5 mm")],
    "tilt and uneven": [("regularised", 8, "slices are unevenly spaced: 4 of the distances differ from 4 mm")],
    "one position": [("refused", 12, "all 12 slices lie at the same position")],
    "one without frame of reference": [
        ("exact", 12, "1 slice(s) name no frame of reference; the one of the series is taken")
    ],
    "one position wrong": [
        ("regularised", 11, "1 slice(s) seem to be missing: 1 gap(s) of a multiple of 5 mm"),
        ("refused", 1, "1 slice(s) lie away from the line of the others, by up to 70.0 mm"),
    ],
    "another matrix": [
        ("regularised", 11, "1 slice(s) seem to be missing: 1 gap(s) of a multiple of 5 mm"),
        ("refused", 1, "1 slice(s): fewer than 3 are no volume"),
    ],
}


def ending(result: Stack | Refused) -> Ending:
    """What became of slices: held exactly, to be regularised (and by how much), or refused; and what is said of it."""
    if isinstance(result, Refused):
        return "refused", len(result.headers), result.reason
    assert_allclose(placed_mm(result), np.stack([stated_mm(h) for h in result.headers]), atol=0.01)
    if not result.even:
        straight = straightened(result.geometry, slice_positions_mm=result.slice_positions_mm)
        assert 0 < straight.max_distance_to_slice_mm <= max(np.diff(result.slice_positions_mm)) / 2 + 1e-6
    return "exact" if result.even else "regularised", len(result.headers), "; ".join(result.notes)


@pytest.mark.parametrize("name", ENDINGS)
def test_each_fault_is_held_exactly_or_regularised_or_refused_with_its_reason(name: str) -> None:
    headers = faulty(name)
    results = stacks_of(headers)
    assert sorted(ENDINGS[name]) == sorted(ending(result) for result in results)
    assert sorted(h.sop_instance_uid for h in headers) == sorted(h.sop_instance_uid for r in results for h in r.headers)


def of_folder(folder: Path) -> list[Header]:
    headers = []
    for path in sorted(folder.iterdir()):
        try:
            headers.append(read_header(path))
        except NotDicom as foreign:
            assert foreign.is_foreign  # noqa: PT017 - a DICOMDIR or a README among the scans
    return headers


@pytest.mark.parametrize(
    ("folder", "tilt_deg"),
    [
        ("head_ge_tilted", 18.5),
        ("head_phantom_philips/tilt_minus_18", 18.5),
        ("head_phantom_philips/tilt_plus_16", 16.5),
        ("head_normal_3mm", 7.4),
        ("geometry_faults/gantrytilting/001", 14.0),
        ("chest_1mm", 0.0),
        ("abdomen_ge_revolution", 0.0),
    ],
)
def test_every_real_series_leaves_its_normal_by_its_tilt_tag_and_every_pixel_is_where_dicom_says(
    shared_data: Path, folder: str, tilt_deg: float
) -> None:
    stack = stack_of(of_folder(shared_data / folder))
    tags = {abs(h.tilt_tag_deg) for h in stack.headers if h.tilt_tag_deg is not None}
    assert tags <= {tilt_deg}
    assert tilt_deg == pytest.approx(stack.geometry.tilt_deg, abs=0.0005)
    for k, header in enumerate(stack.headers):
        corners = [[(k, j, i) for i in range(0, header.columns, 73)] for j in range(0, header.rows, 73)]
        placed = slice_points_mm(stack.geometry, corners, None if stack.even else stack.slice_positions_mm)
        assert_allclose(placed, stated_mm(header, every=73), atol=0.001)


def big(slices: int, step_mm: float, pixel_mm: float, pixels: int = 512) -> Geometry:
    affine = np.diag([step_mm, pixel_mm, pixel_mm, 1.0])[[2, 1, 0, 3]]
    return Geometry(affine=affine, shape=(slices, pixels, pixels))


def volume_of(geometry: Geometry) -> Volume:
    """A volume that takes no memory, however large."""
    return Volume(hu=np.broadcast_to(np.int16(0), geometry.shape).view(), geometry=geometry)


@pytest.mark.parametrize(
    ("spacing_mm", "reason"),
    [
        (0.2, r"a straight grid of 5001 x 2561 x 2561 voxels of 0.2 mm is too large to be held; take 0.63 mm or more"),
        (0.001, "a spacing of 0.001 mm is too fine for slices that reach over 1000 mm"),
        (0.0, "a spacing of 0 mm is none"),
        (-1.0, "a spacing of -1 mm is none"),
        (math.nan, "a spacing of nan mm is none"),
        (math.inf, "a spacing of inf mm is none"),
    ],
)
def test_a_grid_that_cannot_be_is_refused_before_memory_is_asked_for(spacing_mm: float, reason: str) -> None:
    with pytest.raises(NotAVolume) as refused:
        regularise(volume_of(big(201, 5.0, 1.002)), spacing_mm=spacing_mm)
    assert reason == refused.value.reason


def test_a_grid_that_would_be_too_large_at_one_millimetre_is_refused() -> None:
    with pytest.raises(NotAVolume, match=r"3000 x 1998 x 1998 voxels of 1 mm is too large to be held; take 2\.24 mm"):
        regularise(volume_of(big(600, 5.008, 3.9099)))


def test_axes_that_are_not_at_right_angles_are_refused() -> None:
    affine = big(3, 5.0, 1.0, 4).affine.copy()
    affine[:3, 1] += 0.1 * affine[:3, 2]
    with pytest.raises(NotAVolume, match="not at right angles"):
        regularise(volume_of(Geometry(affine=affine, shape=(3, 4, 4))))


def test_padding_of_another_shape_is_refused() -> None:
    with pytest.raises(NotAVolume, match="padding of shape"):
        regularise(volume_of(big(3, 5.0, 1.0, 4)), padding=np.zeros((3, 4, 5), dtype=np.bool_))
