"""Derived CT in its kinds and batches: what each image says it is, and of which slices."""

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from pacs_bridge.results.derived import Reformat, build_derived_series
from pacs_bridge.results.testing import context_of, ct_headers, report_of, stack_of
from pacs_bridge.results.texts import Language
from pipeline.model import ExaminedStack, Role
from pipeline.select import role_of
from reconstruction.headers import Header
from reconstruction.planes import Planes, PlanesKind

HEADERS = ct_headers(WindowCenter=40, WindowWidth=400, BodyPartExamined="HEAD")  # slices at 0, 5 .. 35 mm
STACK = stack_of(HEADERS)


def axial_at(*places_mm: float, **changes: Any) -> Planes:
    values: dict[str, Any] = {
        "hu": np.full((len(places_mm), 6, 8), 7, dtype=np.int16),
        "origins_lps_mm": np.array([[-12.0, -16.0, z] for z in places_mm]),
        "row_direction": np.array([1.0, 0, 0]),
        "column_direction": np.array([0, 1.0, 0]),
        "pixel_spacing_mm": (1.0, 1.0),
        "slice_thickness_mm": 1.0,
        "spacing_between_mm": 1.0,
        "orientation": "axial",
        "kind": "isotropic",
    }
    return Planes(**(values | changes))


def images_of(*reformats: Reformat, number: int = 1, language: Language = "en") -> list[Dataset]:
    context, report = context_of(HEADERS, language=language), report_of([STACK])
    built = [each for reformat in reformats for each in build_derived_series(context, report, reformat, number)]
    return [pydicom.dcmread(BytesIO(each.part10)) for each in built]


def sources_of(image: Dataset) -> list[int]:
    uids = [header.SOPInstanceUID for header in HEADERS]
    return [uids.index(item.ReferencedSOPInstanceUID) for item in image.SourceImageSequence]


KINDS = [
    ("mpr", "MPR", "113072", "ctriage: MPR axial 1 mm"),
    ("mip", "MIP", "113078", "ctriage: MIP axial 1 mm"),
    ("minip", "MINIP", "113079", "ctriage: MinIP axial 1 mm"),
    ("isotropic", "RESAMPLED", "113085", "ctriage: isotropic axial 1 mm"),
]


@pytest.mark.parametrize(("kind", "contrast", "code", "description"), KINDS)
def test_each_kind_says_how_it_was_made(kind: PlanesKind, contrast: str, code: str, description: str) -> None:
    (image,) = images_of(Reformat(planes=axial_at(10, kind=kind), stack=STACK))
    assert ["DERIVED", "SECONDARY", "REFORMATTED", contrast] == list(image.ImageType)
    assert (code, "DCM") == (
        image.DerivationCodeSequence[0].CodeValue,
        image.DerivationCodeSequence[0].CodingSchemeDesignator,
    )
    assert description == image.SeriesDescription


@pytest.mark.parametrize(("kind", "contrast", "code", "description"), KINDS)
def test_no_kind_is_ever_read_as_a_scan(kind: PlanesKind, contrast: str, code: str, description: str) -> None:
    (image,) = images_of(Reformat(planes=axial_at(10, kind=kind), stack=STACK))
    assert Role.DERIVED == role_of(Header.from_dataset(image, "1.2.840.10008.1.2.1"))[0]


@pytest.mark.parametrize(
    ("place_mm", "thickness_mm", "slices"),
    [(10.0, 1.0, [1, 2, 3]), (12.0, 1.0, [2, 3]), (12.5, 20.0, [0, 1, 2, 3, 4, 5]), (-9.0, 1.0, [0]), (80, 1, [7])],
)
def test_an_image_names_the_slices_that_its_slab_touches(
    place_mm: float, thickness_mm: float, slices: list[int]
) -> None:
    (image,) = images_of(Reformat(planes=axial_at(place_mm, slice_thickness_mm=thickness_mm), stack=STACK))
    assert slices == sources_of(image)


def test_on_uneven_slices_the_nearest_are_named() -> None:
    uneven = replace(STACK, slice_positions_mm=(0.0, 5.0, 10.0, 15.0, 50.0, 55.0, 60.0, 65.0))
    (image,) = images_of(Reformat(planes=axial_at(30.0), stack=uneven))
    assert [3, 4] == sources_of(image)


def test_batches_of_one_series_go_on_numbering_and_repeat_no_name() -> None:
    whole = images_of(Reformat(planes=axial_at(10, 11, 12, 13), stack=STACK))
    first = Reformat(planes=axial_at(10, 11), stack=STACK)
    second = Reformat(planes=axial_at(12, 13), stack=STACK, images_before=2)
    parts = images_of(first, second)
    assert [1, 2, 3, 4] == [image.InstanceNumber for image in parts]
    assert [image.SOPInstanceUID for image in whole] == [image.SOPInstanceUID for image in parts]
    assert 1 == len({image.SeriesInstanceUID for image in parts})
    assert [10, 11, 12, 13] == [image.ImagePositionPatient[2] for image in parts]


def test_planes_along_a_needle_are_their_own_kind() -> None:
    reformat = Reformat(planes=axial_at(10, kind="mpr", orientation="oblique"), stack=STACK, kind="needle")
    (built,) = build_derived_series(context_of(HEADERS, language="es"), report_of([STACK]), reformat, 1)
    image = pydicom.dcmread(BytesIO(built.part10))
    assert ("needle", "MPR") == (built.kind, image.ImageType[3])
    assert "ctriage: vista de aguja oblicuo 1 mm" == image.SeriesDescription
    assert image.SeriesInstanceUID != images_of(replace(reformat, kind=None))[0].SeriesInstanceUID


def frames_stack() -> ExaminedStack:
    """Make a stack whose slices are the frames of two multi-frame images."""
    one, two = (str(header.SOPInstanceUID) for header in HEADERS[:2])
    return replace(STACK, instances=(one,) * 4 + (two,) * 4, frames=(1, 2, 3, 4, 4, 3, 2, 1))


def test_frames_of_a_multi_frame_image_are_named_by_their_numbers() -> None:
    (image,) = images_of(Reformat(planes=axial_at(17.5, slice_thickness_mm=10.0), stack=frames_stack()))
    named = {item.ReferencedSOPInstanceUID: item.ReferencedFrameNumber for item in image.SourceImageSequence}
    assert {HEADERS[0].SOPInstanceUID: [3, 4], HEADERS[1].SOPInstanceUID: [3, 4]} == named


@pytest.mark.parametrize("kind", ["minip", "isotropic", "mpr"])
def test_dciodvfy_accepts_each_kind(
    kind: PlanesKind, dciodvfy_errors: Callable[[Path], set[str]], tmp_path: Path
) -> None:
    oblique = axial_at(10, 11, kind=kind, orientation="oblique", row_direction=np.array([0.8, 0.0, 0.6]))
    for index, image in enumerate(images_of(Reformat(planes=oblique, stack=STACK), language="es")):
        path = tmp_path / f"{index}.dcm"
        image.save_as(path)
        assert set() == dciodvfy_errors(path)
