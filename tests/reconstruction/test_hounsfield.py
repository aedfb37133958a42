"""Rescaling in place says bit for bit what stored values, widened and rescaled one step at a time, say."""

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from reconstruction.decode import as_stored
from reconstruction.headers import Header
from reconstruction.hounsfield import AIR_HU, rescale_in_place

EDGES = (0, 1, 1023, 2000, 2096, 0x7FF, 0x800, 0xFFF, 0x7FFF, 0x8000, 0xF830, 0xFFFF)
SLOPES = st.sampled_from([1.0, -1.0, 2.0, 0.5, 0.25, 2.0002442, 1e-3, 1e30, -1e300])
INTERCEPTS = st.one_of(
    st.sampled_from([0.0, -1024.0, -8192.0, 0.5, -1000.25, 32768.0, -32768.0, 1e12]), st.just(-1024.0)
)


def header(**changes: Any) -> Header:
    plain: dict[str, Any] = {
        "sop_instance_uid": "1",
        "sop_class_uid": "2",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "series_instance_uid": "3",
        "modality": "CT",
        "rescale_slope": 1.0,
        "rescale_intercept": -1024.0,
    }
    return Header(**{**plain, **changes})


@st.composite
def headers(draw: st.DrawFn) -> Header:
    """Draw a layout of the stored bits, a rescale and, mostly, a range of padding in the sign of the pixels."""
    allocated = draw(st.sampled_from([8, 16, 16, 16]))
    stored = draw(st.one_of(st.integers(1, allocated), st.just(allocated)))
    signed = draw(st.integers(0, 1))
    low = -(1 << (allocated - 1)) if signed else 0
    ends = st.one_of(
        st.sampled_from([e - (1 << allocated) if signed and e >= 1 << (allocated - 1) else e for e in EDGES]),
        st.integers(low, low + (1 << allocated) - 1),
    )
    padding = draw(st.none() | st.tuples(ends, ends).map(lambda two: (min(two), max(two))) | ends.map(lambda e: (e, e)))
    return header(
        bits_allocated=allocated,
        bits_stored=stored,
        pixel_representation=signed,
        pixel_padding=padding,
        rescale_slope=draw(st.one_of(st.just(1.0), SLOPES)),
        rescale_intercept=draw(INTERCEPTS),
    )


def step_by_step(raw: npt.NDArray[np.int16], of: Header) -> tuple[npt.NDArray[np.int16], int, npt.NDArray[np.bool_]]:
    """Rescale in float64 and Python integers: the definition."""
    stored = as_stored(raw, of)
    low, high = of.pixel_padding or (1, 0)
    padded = (stored >= low) & (stored <= high)
    assert of.rescale_slope is not None
    assert of.rescale_intercept is not None
    values = np.rint(stored.astype(np.float64) * of.rescale_slope + of.rescale_intercept)
    values[padded] = AIR_HU
    kept = np.clip(values, -32768, 32767)
    return kept.astype(np.int16), int((values != kept).sum()), padded


@settings(max_examples=200, deadline=None)
@given(
    of=headers(),
    raw=hnp.arrays(
        np.uint16, (3, 41), elements=st.one_of(st.sampled_from(EDGES), st.integers(0, 0xFFFF)), fill=st.nothing()
    ),
)
def test_one_pass_gives_what_the_steps_give(of: Header, raw: npt.NDArray[np.uint16]) -> None:
    values = (raw & ((1 << of.bits_allocated) - 1)).view(np.int16)
    hu, clipped, padded = step_by_step(values, of)
    made, mask = values.copy(), np.zeros(values.shape, dtype=np.bool_)
    assert (clipped, bool(padded.any())) == rescale_in_place(made, of, mask if of.pixel_padding else None)
    np.testing.assert_array_equal(made, hu)
    np.testing.assert_array_equal(mask, padded)


@given(of=headers(), value=st.sampled_from(EDGES))
def test_a_slice_of_one_value_is_no_special_case(of: Header, value: int) -> None:
    values = np.full((2, 3), value & ((1 << of.bits_allocated) - 1), dtype=np.uint16).view(np.int16)
    hu, clipped, padded = step_by_step(values, of)
    made, mask = values.copy(), np.zeros(values.shape, dtype=np.bool_)
    assert (clipped, bool(padded.any())) == rescale_in_place(made, of, mask)
    np.testing.assert_array_equal(made, hu)
    np.testing.assert_array_equal(mask, padded)
