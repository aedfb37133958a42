"""Every instance of a series gets a role, a row and, where it is not read, a reason."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.model import Role
from pipeline.select import Selected, acquisition_of, belongs_to_ct, ct_instances, digest_of, role_of, select_series
from reconstruction.errors import NotDicom
from reconstruction.headers import Header, read_header
from reconstruction.slices import stack_of

CT = "1.2.840.10008.5.1.4.1.1.2"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"


def image(number: int = 1, **changes: Any) -> Header:
    header = Header(
        sop_instance_uid=f"1.2.{number:03d}",
        sop_class_uid=CT,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        series_instance_uid="1.9",
        modality="CT",
        image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
        series_number=3,
        series_description="Head",
        instance_number=number,
        rows=64,
        columns=64,
        orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        position_mm=(0.0, 0.0, 5.0 * number),
        pixel_spacing_mm=(0.5, 0.5),
        frame_of_reference_uid="1.5",
        slice_thickness_mm=5.0,
        kernel="H30",
    )
    return replace(header, **changes)


def rows(selected: tuple[Selected, ...]) -> list[tuple[int, str, int, str | None]]:
    return [(s.row.stack, s.row.role.value, len(s.row.instances), s.row.reason) for s in selected]


@pytest.mark.parametrize(
    ("changes", "role", "reason"),
    [
        ({}, Role.VOLUME, None),
        ({"image_type": ()}, Role.VOLUME, None),
        ({"image_type": ("DERIVED", "SECONDARY", "AXIAL")}, Role.VOLUME, None),
        ({"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}, Role.LOCALIZER, "a localizer"),
        ({"image_type": ("ORIGINAL", "PRIMARY", "localizer")}, Role.LOCALIZER, "a localizer"),
        ({"image_type": ("DERIVED", "SECONDARY", "MPR")}, Role.DERIVED, "reformatted"),
        ({"image_type": ("DERIVED", "PRIMARY", "AXIAL", "MATERIAL_IODINE")}, Role.DERIVED, "not Hounsfield units"),
        ({"image_type": ("ORIGINAL", "PRIMARY", "Z_EFF")}, Role.DERIVED, "not Hounsfield units"),
        ({"modality": "SR"}, Role.DOCUMENT, "a document (SR)"),
        ({"modality": "MR"}, Role.NOT_CT, "modality MR, not CT"),
        ({"modality": ""}, Role.NOT_CT, "modality not stated, not CT"),
        ({"sop_class_uid": SECONDARY_CAPTURE}, Role.DOCUMENT, "a page or screen capture"),
        ({"rows": 0}, Role.DOCUMENT, "a page or screen capture"),
    ],
)
def test_an_instance_tells_its_role_and_why_it_is_not_read(
    changes: dict[str, Any], role: Role, reason: str | None
) -> None:
    told, why = role_of(image(**changes))
    assert role == told
    assert (why or "").startswith(reason or "")
    assert (reason is None) == (why is None)


MIXED = [
    *[image(n) for n in range(1, 6)],
    image(20, image_type=("ORIGINAL", "PRIMARY", "LOCALIZER")),
    image(21, sop_class_uid=SECONDARY_CAPTURE),
    image(22, modality="SR"),
    image(23, image_type=("DERIVED", "SECONDARY", "MPR")),
    image(24, position_mm=None),
    image(25, sop_class_uid=ENHANCED_CT, number_of_frames=2),
]


def test_volumes_come_first_and_every_other_row_has_its_reason() -> None:
    assert [
        (1, "volume", 5, None),
        (2, "volume", 1, "a slice has no Image Position (Patient)"),
        (3, "volume", 1, "multi-frame instances whose frames were not told apart"),
        (4, "localizer", 1, "a localizer (scout), not a cross-section"),
        (5, "document", 1, "a document (SR), not an image of the patient"),
        (6, "document", 1, "a page or screen capture, not a CT image"),
        (7, "derived", 1, "reformatted from another series"),
    ] == rows(select_series(MIXED))


@settings(max_examples=30)
@given(headers=st.permutations(MIXED))
def test_rows_and_their_numbers_do_not_depend_on_the_order_of_arrival(headers: list[Header]) -> None:
    expected, actual = select_series(MIXED), select_series(headers)
    assert rows(expected) == rows(actual)
    assert [s.row.instances for s in expected] == [s.row.instances for s in actual]


def test_a_volumes_row_shows_how_it_lies() -> None:
    (selected,) = select_series([image(n) for n in (1, 2, 4, 5)])
    row = selected.row
    assert selected.stack is not None
    assert ("1.9", 3, "Head", 1) == (row.series_instance_uid, row.series_number, row.series_description, row.stack)
    assert ("1.2.001", "1.2.002", "1.2.004", "1.2.005") == row.instances
    assert ((10.0,), (0.0, 5.0, 15.0, 20.0), 5.0) == (row.gaps_mm, row.slice_positions_mm, row.nominal_step_mm)
    assert ("1 slice(s) seem to be missing: 1 gap(s) of a multiple of 5 mm",) == row.notes
    assert row.geometry is selected.stack.geometry


def test_an_even_volume_lists_no_positions() -> None:
    (selected,) = select_series([image(n) for n in range(3)])
    assert (None, ()) == (selected.row.slice_positions_mm, selected.row.gaps_mm)


def test_slices_that_only_repeat_others_count_as_derived() -> None:
    selected = select_series([*[image(n) for n in range(5)], image(9, position_mm=(0.0, 0.0, 5.0))])
    assert [
        (1, "volume", 5, None),
        (2, "derived", 1, "1 slice(s) repeat positions of another stack of this series"),
    ] == rows(selected)


def test_an_acquisition_is_what_the_headers_say() -> None:
    headers = [image(n, age_years=61.0, body_part="HEAD", kvp=120.0, contrast_agent="Iohexol") for n in range(4)]
    acquisition = acquisition_of(headers, stack_of(headers))
    assert ("H30", 61.0, "HEAD", 120.0, "Iohexol", 4, 0.0) == (
        acquisition.kernel,
        acquisition.age_years,
        acquisition.body_part,
        acquisition.kvp,
        acquisition.contrast_agent,
        acquisition.slice_count,
        acquisition.tilt_deg,
    )


@given(uids=st.lists(st.text("0123456789.", min_size=1, max_size=64), unique=True), data=st.data())
def test_the_digest_names_a_set_of_instances_whatever_their_order(uids: list[str], data: st.DataObject) -> None:
    assert digest_of(uids) == digest_of(data.draw(st.permutations(uids)))
    assert digest_of(uids) != digest_of([*uids, "another"])


def test_names_that_run_together_are_told_apart() -> None:
    assert digest_of(["1.2", "3"]) != digest_of(["1.23"])


@pytest.fixture
def real(shared_data: Path) -> Callable[[str], list[Header]]:
    """Return a reader of all instances of a folder of real scans, DICOMDIR left out."""

    def read(folder: str) -> list[Header]:
        headers = []
        for path in sorted((shared_data / folder).iterdir()):
            try:
                headers.append(read_header(path))
            except NotDicom as foreign:
                assert foreign.is_foreign  # noqa: PT017 - a DICOMDIR among the scans
        return headers

    return read


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("head_phantom_philips/scout", [("localizer", 1)]),
        ("head_phantom_philips/exam_summary", [("document", 6)]),
        ("head_phantom_philips/brain_5mm", [("volume", 28)]),
        ("geometry_faults/slicecount/001", [("not_ct", 2)]),
        ("geometry_faults/notavolume/001", [("volume", 4)]),
        ("enhanced_ct", [("volume", 1)]),
        ("chest_1mm", [("volume", 80)]),
    ],
)
def test_real_series_are_told_apart(
    real: Callable[[str], list[Header]], folder: str, expected: list[tuple[str, int]]
) -> None:
    assert expected == [(role, count) for _, role, count, _ in rows(select_series(real(folder)))]


@pytest.mark.parametrize(
    ("modality", "sop_class_uid", "expected"),
    [
        ("CT", CT, True),
        ("CT", SECONDARY_CAPTURE, True),
        ("ct", SECONDARY_CAPTURE, True),
        ("PT", CT, True),
        ("", ENHANCED_CT, True),
        ("", "1.2.840.10008.5.1.4.1.1.2.2", True),
        ("SR", "1.2.840.10008.5.1.4.1.1.88.67", False),
        ("MR", "1.2.840.10008.5.1.4.1.1.4", False),
        ("", "", False),
    ],
)
def test_an_instance_belongs_to_a_ct_study_by_its_modality_or_its_class(
    modality: str, sop_class_uid: str, *, expected: bool
) -> None:
    assert expected == belongs_to_ct(modality, sop_class_uid)
    header = image(modality=modality, sop_class_uid=sop_class_uid)
    assert ((header.sop_instance_uid,) if expected else ()) == ct_instances([header])
