"""What a header denies about its slice's place is noted, and nothing else is."""

import math
from dataclasses import replace
from typing import Any

import pytest

from reconstruction.headers import Header
from reconstruction.slices import stack_of


def even(count: int, **changes: Any) -> list[Header]:
    """Return the headers of an ordinary axial series, 5 mm apart."""
    header = Header(
        sop_instance_uid="1.2",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        series_instance_uid="1.9",
        modality="CT",
        rows=64,
        columns=64,
        orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        pixel_spacing_mm=(0.5, 0.5),
    )
    return [
        replace(
            header,
            sop_instance_uid=f"1.2.{n}",
            instance_number=n + 1,
            position_mm=(-10.0, -20.0, 5.0 * n),
            **changes,
        )
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"tilt_tag_deg": 18.5}, "a gantry tilt of 18.5 degrees is stated, the slices lie at 0.0: they are followed"),
        ({"tilt_tag_deg": 0.4}, None),
        (
            {"spacing_between_slices_mm": 2.5},
            "a distance of 2.5 mm between slices is stated, they lie 5.00 apart: they are followed",
        ),
        ({"spacing_between_slices_mm": 5.04}, None),
        ({"spacing_between_slices_mm": -5.0}, None),
        ({"spacing_between_slices_mm": math.inf}, None),
        ({"spacing_between_slices_mm": 0.0}, None),
        ({"tilt_tag_deg": math.nan}, None),
        (
            {"orientation": (1.0, 0.0, 9e-4, 0.0, 1.0, 0.0), "rows": 512, "columns": 512},
            "slices are turned or shifted by up to 0.23 mm against the common grid",
        ),
        (
            {"position_mm": (-10.0, -19.85, 20.0)},
            "slices are turned or shifted by up to 0.15 mm against the common grid",
        ),
    ],
)
def test_headers_that_deny_where_a_slice_lies_are_noted(changes: dict[str, Any], note: str | None) -> None:
    size = {key: changes[key] for key in ("rows", "columns") if key in changes}
    headers = even(11, **size)
    headers[4] = replace(headers[4], **changes)
    assert (() if note is None else (note,)) == stack_of(headers).notes


def test_a_slice_that_lies_elsewhere_than_its_number_says_is_noted() -> None:
    headers = even(20)
    headers[7] = replace(headers[7], position_mm=(-10.0, -20.0, 72.0))
    stack = stack_of(headers)
    assert "the slices' positions run against their instance numbers at 1 place(s): they are followed" in stack.notes
    assert "slices are unevenly spaced: 3 of the distances differ from 5 mm" in stack.notes


@pytest.mark.parametrize("stride", [-1, 3, 7])
def test_a_series_numbered_backwards_or_in_any_other_way_contradicts_nothing(stride: int) -> None:
    headers = [replace(h, instance_number=(40 + stride * n) % 41) for n, h in enumerate(even(20))]
    assert () == stack_of(headers).notes
