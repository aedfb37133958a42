"""A model for 3D printing: the file inside is the file that went in, and the object says what it is of."""

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from pacs_bridge.results.encapsulated_stl import SurfaceModel, build_model
from pacs_bridge.results.testing import context_of, ct_headers, report_of, stack_of
from pipeline.model import ResultObject, SurfaceTissue

HEADERS = ct_headers(AcquisitionDateTime="20261121230000")
STACK = stack_of(HEADERS)


def stl(triangles: int) -> bytes:
    return b"ctriage".ljust(80) + triangles.to_bytes(4, "little") + bytes(range(50)) * triangles


def built(tissue: SurfaceTissue = "bone", triangles: int = 4, number: int = 1) -> ResultObject:
    model = SurfaceModel(tissue=tissue, stl=stl(triangles), stack=STACK)
    return build_model(context_of(HEADERS, language="es"), report_of([STACK]), model, number)


def read(result: ResultObject) -> Dataset:
    return pydicom.dcmread(BytesIO(result.part10))


@pytest.mark.parametrize("triangles", [1, 4, 5])
def test_the_file_inside_is_whole(triangles: int) -> None:
    document = read(built(triangles=triangles))
    length = document.EncapsulatedDocumentLength
    assert stl(triangles) == document.EncapsulatedDocument[:length]
    assert 0 == len(document.EncapsulatedDocument) % 2
    assert ("model/stl", "M3D", "1.2.840.10008.5.1.4.1.1.104.3") == (
        document.MIMETypeOfEncapsulatedDocument,
        document.Modality,
        document.SOPClassUID,
    )


def test_a_model_says_its_unit_its_place_and_its_sources() -> None:
    document = read(built())
    assert ("mm", "UCUM") == (
        document.MeasurementUnitsCodeSequence[0].CodeValue,
        document.MeasurementUnitsCodeSequence[0].CodingSchemeDesignator,
    )
    assert ("2.25.4001", "NO", "NO") == (
        document.FrameOfReferenceUID,
        document.BurnedInAnnotation,
        document.ModelModification,
    )
    sources = [item.ReferencedSOPInstanceUID for item in document.SourceInstanceSequence]
    assert [header.SOPInstanceUID for header in HEADERS] == sources


def test_frames_of_one_instance_are_one_source() -> None:
    frames = replace(STACK, instances=(STACK.instances[0],) * 8, frames=tuple(range(1, 9)))
    model = SurfaceModel(tissue="bone", stl=stl(1), stack=frames)
    document = read(build_model(context_of(HEADERS), report_of([frames]), model, 1))
    (source,) = document.SourceInstanceSequence
    assert (STACK.instances[0], False) == (source.ReferencedSOPInstanceUID, "ReferencedFrameNumber" in source)


@pytest.mark.parametrize(
    ("tissue", "code", "title"),
    [("bone", "272673000", "superficie ósea"), ("skin", "39937001", "superficie de la piel")],
)
def test_a_model_says_what_it_is_of(tissue: SurfaceTissue, code: str, title: str) -> None:
    document = read(built(tissue))
    assert ("85040-4", code) == (
        document.ConceptNameCodeSequence[0].CodeValue,
        document.DocumentClassCodeSequence[0].CodeValue,
    )
    assert (title, f"ctriage: modelo 3D, {title}") == (document.DocumentTitle, document.SeriesDescription)


def test_only_of_the_skin_it_is_said_that_a_face_may_be_known() -> None:
    assert ("YES", None) == (
        read(built("skin")).get("RecognizableVisualFeatures"),
        read(built("bone")).get("RecognizableVisualFeatures"),
    )


def test_models_are_told_apart_and_made_again_are_the_same() -> None:
    assert built("bone").series_instance_uid != built("skin", number=2).series_instance_uid
    assert built().part10 == built().part10


@pytest.mark.parametrize("content", [b"", stl(0), stl(2)[:-1], stl(2) + b"\0", b"solid ascii\nendsolid ascii\n"])
def test_what_is_no_binary_stl_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="binary STL"):
        SurfaceModel(tissue="bone", stl=content, stack=STACK)


@pytest.mark.parametrize("tissue", ["bone", "skin"])
def test_dciodvfy_accepts_a_model(
    tissue: SurfaceTissue, dciodvfy_errors: Callable[[Path], set[str]], tmp_path: Path
) -> None:
    path = tmp_path / "model.dcm"
    path.write_bytes(built(tissue).part10)
    assert set() == dciodvfy_errors(path)
