"""Is what the conformance statement tells of created objects what is built?"""

from io import BytesIO
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset

from pacs_bridge.conformance_objects import COMMON, CREATED, WHERE_KNOWN, CreatedObject
from pacs_bridge.results.bundle import build_flags, build_pictures
from pacs_bridge.results.context import DocumentReference
from pacs_bridge.results.rejection_note import build_rejection_note
from pacs_bridge.results.sources import ACQUISITION
from pacs_bridge.results.testing import blob, context_of, ct_header, ct_headers, report_of, stack_of
from pipeline.derive import Captured, Product, StackPlanes, StackSurface, StackTurn
from pipeline.model import ExaminedStack, StudyStatus
from reconstruction.planes import Planes
from reconstruction.surface import Mesh, to_stl

EARLIER = DocumentReference(
    study_instance_uid="2.25.1001",
    series_instance_uid="2.25.9",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34",
    sop_instance_uid="2.25.99",
)
EXAMPLES = {"PN": "A^B", "DA": "20260101", "TM": "101010", "DS": "1", "IS": "1", "AS": "040Y", "US": 4}


def stuffed_headers() -> list[Dataset]:
    """Make headers that hold everything that may be copied."""
    told: dict[str, Any] = {
        "AcquisitionDateTime": "20261121230000",
        "LossyImageCompression": "01",
        "InstitutionName": "Hospital",
    }
    told |= {"LossyImageCompressionMethod": "ISO_10918_1", "LossyImageCompressionRatio": 4}
    known = dict(ct_header(0).items())
    for keyword in (*WHERE_KNOWN, *ACQUISITION):
        if keyword not in known and keyword not in ("SpecificCharacterSet", "ContributingEquipmentSequence"):
            told[keyword] = value_for(keyword)
    told |= {"SpecificCharacterSet": "ISO_IR 100", "TimezoneOffsetFromUTC": "+0100"}
    return ct_headers(**told)


def value_for(keyword: str) -> Any:
    vr = dictionary_VR(keyword)
    if vr == "SQ":
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "1", "99X", "x"
        return [item]
    return EXAMPLES.get(vr, "X")


def products(stack: ExaminedStack) -> list[Product]:
    coronal = Planes(
        hu=np.zeros((2, 5, 7), np.int16),
        origins_lps_mm=np.array([[0.1, 0, 0], [0.1, 3.3, 0]]),
        row_direction=np.array([1.0, 0, 0]),
        column_direction=np.array([0, 0, -1.0]),
        pixel_spacing_mm=(0.33, 0.33),
        slice_thickness_mm=3.0,
        spacing_between_mm=3.0,
        orientation="coronal",
        kind="mpr",
    )
    rgb = np.zeros((5, 7, 3), np.uint8)
    one = Mesh(
        vertices_lps_mm=np.eye(4, 3, dtype=np.float32),
        triangles=np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]], np.int32),
    )
    return [
        StackPlanes(planes=coronal, stack=stack),
        StackTurn(preset="bone", rgb=np.zeros((2, 5, 7, 3), np.uint8), stack=stack),
        StackSurface(tissue="bone", stl=to_stl(one), stack=stack),
        Captured(kind="render", rgb=rgb, label="anterior", stack=stack),
        Captured(kind="summary", rgb=rgb, label="summary"),
    ]


def built(headers: list[Dataset], status: StudyStatus) -> list[Dataset]:
    stack = stack_of(headers)
    report = report_of([stack], [blob(stack, (3, 30, 25))], status=status)
    context = context_of(headers, predecessor=EARLIER if status is StudyStatus.PARTLY_ANALYSED else None)
    note = build_rejection_note(context, report, [EARLIER], "pacs")
    objects = [*build_flags(context, report), *build_pictures(context, report, products(stack)), note]
    return [pydicom.dcmread(BytesIO(each.part10)) for each in objects]


@pytest.fixture(scope="module")
def objects() -> list[Dataset]:
    return [*built(ct_headers(), StudyStatus.ANALYSED), *built(stuffed_headers(), StudyStatus.PARTLY_ANALYSED)]


def of_class(objects: list[Dataset], told: CreatedObject) -> list[Dataset]:
    return [each for each in objects if each.SOPClassUID == told.sop_class_uid]


@pytest.mark.parametrize("told", CREATED, ids=lambda told: told.name)
def test_every_attribute_of_an_object_stands_in_the_statement(objects: list[Dataset], told: CreatedObject) -> None:
    known = {*COMMON, *WHERE_KNOWN, *told.own}
    assert of_class(objects, told)
    for each in of_class(objects, told):
        assert {element.keyword for element in each} <= known


@pytest.mark.parametrize("told", CREATED, ids=lambda told: told.name)
def test_the_statement_tells_no_attribute_that_no_object_has(objects: list[Dataset], told: CreatedObject) -> None:
    seen = {element.keyword for each in of_class(objects, told) for element in each}
    assert set() == {*told.own, *COMMON, *WHERE_KNOWN} - seen


def test_every_class_that_is_made_stands_in_the_statement(objects: list[Dataset]) -> None:
    assert {each.SOPClassUID for each in objects} == {told.sop_class_uid for told in CREATED}


def test_no_object_holds_a_private_attribute(objects: list[Dataset]) -> None:
    assert not any(element.tag.is_private for each in objects for element in each.iterall())
