"""A stack becomes Hounsfield units exactly, or is refused: no invented slice, no value that is none."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.encaps import encapsulate

from reconstruction.assemble import AIR_HU, Assembled, PixelReader, assemble, pixel_reader, refuse_non_hounsfield
from reconstruction.decode import Stored
from reconstruction.errors import NotAVolume, UnreadablePixels
from reconstruction.headers import Header, read_header
from reconstruction.slices import Stack, stack_of

WriteCt = Callable[..., Path]


def stack(changes: Sequence[Mapping[str, Any]] = ({}, {}, {})) -> Stack:
    """Return a stack of 2 x 3 pixels, one slice for each set of changes."""
    headers = [
        replace(
            Header(
                sop_instance_uid=str(n),
                sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                series_instance_uid="1.9",
                modality="CT",
                instance_number=10 + n,
                rows=2,
                columns=3,
                pixel_representation=1,
                orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
                position_mm=(0.0, 0.0, 5.0 * n),
                pixel_spacing_mm=(0.5, 0.5),
                rescale_slope=1.0,
                rescale_intercept=-1024.0,
            ),
            **each,
        )
        for n, each in enumerate(changes)
    ]
    return stack_of(headers)


def same(**changes: Any) -> Stack:
    return stack([changes] * 3)


def holding(values: Mapping[str, Any] | Any) -> PixelReader:
    """Return a reader of these stored values, for every slice or by SOP Instance UID."""

    def read(header: Header) -> Stored:
        chosen = values[header.sop_instance_uid] if isinstance(values, dict) else values
        return np.broadcast_to(np.asarray(chosen, dtype=np.int32), (2, 3)).copy()

    return read


def hu(assembled: Assembled) -> npt.NDArray[np.int16]:
    return assembled.volume.hu


@given(
    slope=st.sampled_from([1.0, -1.0, 0.5, 0.25, 2.0, 2.0002442, 1e-3]),
    intercept=st.sampled_from([-1024.0, 0.0, -1000.5, 0.5, 31.25]),
    stored=st.integers(-5000, 5000),
)
def test_hounsfield_units_are_rounded_half_to_even(slope: float, intercept: float, stored: int) -> None:
    made = assemble(same(rescale_slope=slope, rescale_intercept=intercept), holding(stored), threads=1)
    assert {round(slope * stored + intercept)} == set(hu(made).ravel().tolist())
    assert ("int16", (3, 2, 3), 0) == (hu(made).dtype.name, hu(made).shape, made.clipped_voxels)


def test_every_slice_is_rescaled_with_its_own_numbers() -> None:
    each = [{"rescale_slope": s, "rescale_intercept": i} for s, i in [(1.0, -1024.0), (2.0, 0.0), (0.5, 0.5)]]
    assert [-924, 200, 50] == hu(assemble(stack(each), holding(100)))[:, 0, 0].tolist()


def test_slices_stand_where_their_headers_place_them() -> None:
    reversed_stack = stack([{"position_mm": (0.0, 0.0, -5.0 * n)} for n in range(3)])
    assert [-1022, -1023, -1024] == hu(assemble(reversed_stack, holding({"0": 0, "1": 1, "2": 2})))[:, 1, 2].tolist()


@pytest.mark.parametrize("odd_one", [0, 2])
def test_a_slope_that_is_no_integer_is_noted_whichever_slice_has_it(odd_one: int) -> None:
    changes: list[dict[str, Any]] = [{}, {}, {}]
    changes[odd_one] = {"rescale_slope": 2.0002442}
    notes = assemble(stack(changes), holding(0)).notes
    assert ("rescale slope 2.00024: Hounsfield units are rounded, by at most 0.5",) == notes
    assert () == assemble(same(rescale_slope=2.0), holding(0)).notes


@pytest.mark.parametrize("threads", [1, 2])
def test_progress_rises_to_all_slices_in_small_steps(threads: int) -> None:
    told: list[int] = []
    many = stack([{}] * 60)
    assemble(many, holding(0), threads=threads, on_progress=told.append)
    assert sorted(set(told)) == told
    assert 60 == told[-1]
    assert all(after - before <= 30 for before, after in zip([0, *told], told, strict=False))


@pytest.mark.parametrize(
    ("stored", "slope", "intercept", "expected", "clipped"),
    [
        (32767, 1.0, 0.0, 32767, 0),
        (32767, 1.0, 1.0, 32767, 18),
        (-32768, 1.0, -1024.0, -32768, 18),
        (-32768, -1.0, 0.0, 32767, 18),
        (32767, 1.0, 0.4, 32767, 0),  # rounds back into the range: nothing is lost
        (5, 1.0, 1e12, 32767, 18),
        (5, 1e30, 0.0, 32767, 18),
        (0, 1.0, -1e300, -32768, 18),
    ],
)
def test_values_outside_int16_saturate_and_are_counted(
    stored: int, slope: float, intercept: float, expected: int, clipped: int
) -> None:
    made = assemble(same(rescale_slope=slope, rescale_intercept=intercept), holding(stored))
    assert ({expected}, clipped) == (set(hu(made).ravel().tolist()), made.clipped_voxels)
    assert bool(clipped) == any("saturated" in note for note in made.notes)


def test_32_bit_values_saturate_without_wrapping() -> None:
    made = assemble(same(bits_allocated=32, bits_stored=32, rescale_intercept=-10.0), holding(-(2**31)))
    assert ({-32768}, 18) == (set(hu(made).ravel().tolist()), made.clipped_voxels)


def test_padding_is_masked_as_air_and_counts_as_no_saturation() -> None:
    plane = [[-32768, 0, 5], [10, -32768, -2000]]
    made = assemble(same(pixel_padding=(-32768, -32768)), holding(plane))
    assert made.padding is not None
    assert [[True, False, False], [False, True, False]] == made.padding[0].tolist()
    assert [[AIR_HU, -1024, -1019], [-1014, AIR_HU, -3024]] == hu(made)[2].tolist()
    assert (0, ("padded pixels hold no measurement and are masked",)) == (made.clipped_voxels, made.notes)


def test_a_range_of_padding_is_masked_with_both_ends() -> None:
    made = assemble(same(pixel_padding=(-5, -3)), holding([[-6, -5, -4], [-3, -2, 0]]))
    assert made.padding is not None
    assert [[False, True, True], [True, False, False]] == made.padding[0].tolist()


def test_padding_of_one_slice_leaves_the_others_alone() -> None:
    made = assemble(stack([{"pixel_padding": (7, 7)}, {}, {}]), holding(7))
    assert made.padding is not None
    assert [6, 0, 0] == made.padding.sum(axis=(1, 2)).tolist()
    assert [AIR_HU, -1017, -1017] == hu(made)[:, 0, 0].tolist()


def test_padding_that_never_occurs_is_none() -> None:
    made = assemble(same(pixel_padding=(-2000, -2000)), holding(0))
    assert (None, ()) == (made.padding, made.notes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rescale_type": "US"}, "not Hounsfield units (rescale type US)"),
        ({"rescale_type": "MGML"}, "not Hounsfield units (rescale type MGML)"),
        ({"rescale_slope": None}, "not Hounsfield units (no rescale slope and intercept)"),
        ({"rescale_intercept": None}, "not Hounsfield units (no rescale slope and intercept)"),
        ({"rescale_slope": float("nan")}, "the rescale slope or intercept is no usable number"),
        ({"rescale_intercept": float("inf")}, "the rescale slope or intercept is no usable number"),
        ({"rescale_slope": 0.0}, "the rescale slope or intercept is no usable number"),
    ],
)
def test_what_is_not_hounsfield_units_is_refused_unread(changes: dict[str, Any], reason: str) -> None:
    def unread(header: Header) -> Stored:
        pytest.fail(f"slice {header.instance_number} was read")

    one_bad = stack([{}, {}, {k: v for k, v in changes.items() if k != "rescale_type"}])
    for refused_stack in [same(**changes), *([one_bad] if "rescale_type" not in changes else [])]:
        with pytest.raises(NotAVolume) as refused:
            assemble(refused_stack, unread)
        assert reason == refused.value.reason


def test_hu_or_no_rescale_type_is_accepted() -> None:
    for rescale_type in ("HU", None):
        refuse_non_hounsfield(same(rescale_type=rescale_type).headers[0])


@pytest.mark.parametrize(("number", "name"), [(42, "slice 42"), (None, "slice 2")])
def test_one_unreadable_slice_refuses_the_volume_and_is_named(number: int | None, name: str) -> None:
    def read(header: Header) -> Stored:
        if header.sop_instance_uid == "1":
            raise UnreadablePixels("the pixel data is missing")
        return np.zeros((2, 3), dtype=np.int32)

    with pytest.raises(UnreadablePixels) as refused:
        assemble(stack([{}, {"instance_number": number}, {}]), read)
    assert f"{name}: the pixel data is missing" == refused.value.reason


def test_a_matrix_that_no_memory_holds_is_refused_before_it_is_asked_for() -> None:
    with pytest.raises(UnreadablePixels, match="65535x65535 pixels announced"):
        assemble(same(rows=65535, columns=65535, pixel_spacing_mm=(0.01, 0.01)), holding(0))


def test_a_volume_of_gigabytes_out_of_a_few_kilobytes_is_refused_before_memory_is_asked_for(write_ct: WriteCt) -> None:
    """Blank images of 8,192 pixels a side compress to 400 bytes: nine of them make a gigabyte of memory."""
    frame = bytes(imagecodecs.jpeg2k_encode(np.zeros((8, 8), np.uint16), reversible=True, codecformat="j2k"))
    paths = [
        write_ct(
            f"{n}.dcm",
            pixels=encapsulate([frame]),
            transfer_syntax="1.2.840.10008.1.2.4.90",
            **{"SOPInstanceUID": f"1.{n}", "ImagePositionPatient": [0, 0, 5 * n], "PixelSpacing": [0.1, 0.1]},
            **{"Rows": 8192, "Columns": 8192},
        )
        for n in range(9)
    ]
    headers = [read_header(path) for path in paths]
    read = pixel_reader({header.sop_instance_uid: path for header, path in zip(headers, paths, strict=True)})
    with pytest.raises(NotAVolume, match=r"9 slices would inflate from [0-9]+ kB to 1152 MB"):
        assemble(stack_of(headers), read)


@pytest.mark.parametrize("folder", ["head_ge_tilted"])
def test_threads_change_nothing(shared_data: Path, folder: str) -> None:
    paths = {read_header(p).sop_instance_uid: p for p in sorted((shared_data / folder).iterdir())}
    real = stack_of([read_header(p) for p in paths.values()])
    one, two = (assemble(real, pixel_reader(paths), threads=n) for n in (1, 2))
    np.testing.assert_array_equal(hu(one), hu(two))
    assert (one.notes, one.clipped_voxels) == (two.notes, two.clipped_voxels)


def test_files_are_read_by_their_names_and_a_damaged_one_is_unreadable(write_ct: WriteCt) -> None:
    pixels = np.arange(24, dtype=np.int16).reshape(4, 6)
    path = write_ct(pixels=pixels)
    header = read_header(path)
    np.testing.assert_array_equal(pixel_reader({"2.25.1": path})(header), pixels)
    path.write_bytes(b"gone")
    with pytest.raises(UnreadablePixels, match="not a DICOM file"):
        pixel_reader({"2.25.1": path})(header)
