"""Derived CT series and secondary captures."""

from io import BytesIO
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from pacs_bridge.results.bundle import build_pictures
from pacs_bridge.results.secondary_capture import Capture, build_captures
from pacs_bridge.results.testing import context_of, ct_headers, report_of, stack_of
from pipeline.derive import StackPlanes
from reconstruction.planes import Planes


def planes(**changes: Any) -> Planes:
    values: dict[str, Any] = {
        "hu": np.arange(3 * 5 * 7, dtype=np.int16).reshape(3, 5, 7) - 50,
        "origins_lps_mm": np.array([[-12, 3.0 * k / 7, 35] for k in range(3)]),
        "row_direction": np.array([1.0, 0, 0]),
        "column_direction": np.array([0, 0, -1.0]),
        "pixel_spacing_mm": (1 / 3, 0.5),
        "slice_thickness_mm": 3.0,
        "spacing_between_mm": 3.0,
        "orientation": "coronal",
        "kind": "mpr",
    }
    return Planes(**(values | changes))


def pictures_of(
    headers: list[Dataset], *wanted: Planes, captures: tuple[Capture, ...] = (), **changes: Any
) -> list[Dataset]:
    stack = stack_of(headers)
    context, report = context_of(headers, **changes), report_of([stack])
    products = [StackPlanes(planes=each, stack=stack) for each in wanted]
    built = [*build_pictures(context, report, products), *build_captures(context, report, captures)]
    return [pydicom.dcmread(BytesIO(o.part10)) for o in built]


def test_a_frame_keeps_its_hounsfield_units_and_its_plane() -> None:
    made = planes()
    for k, image in enumerate(pictures_of(ct_headers(), made)):
        assert np.array_equal(made.hu[k], image.pixel_array)
        assert (0, 1, "HU") == (image.RescaleIntercept, image.RescaleSlope, image.RescaleType)
        assert made.origins_lps_mm[k] == pytest.approx(np.array(image.ImagePositionPatient, dtype=float))
        assert [1, 0, 0, 0, 0, -1] == list(image.ImageOrientationPatient)
        assert made.pixel_spacing_mm == pytest.approx(tuple(image.PixelSpacing))
        assert (3, 3, k + 1) == (image.SliceThickness, image.SpacingBetweenSlices, image.InstanceNumber)


@pytest.mark.parametrize(("kind", "code"), [("mpr", "113072"), ("mip", "113078")])
def test_a_derived_image_says_how_and_from_what_it_was_made(kind: str, code: str) -> None:
    headers = ct_headers(LossyImageCompression="01")
    image = pictures_of(headers, planes(kind=kind), language="es")[0]
    assert ["DERIVED", "SECONDARY", "REFORMATTED", kind.upper()] == list(image.ImageType)
    assert code == image.DerivationCodeSequence[0].CodeValue
    sources = [item.ReferencedSOPInstanceUID for item in image.SourceImageSequence]
    assert [header.SOPInstanceUID for header in headers[6:]] == sources  # the picture ends at the last two slices
    assert ("2.25.4001", "01", "NO") == (
        image.FrameOfReferenceUID,
        image.LossyImageCompression,
        image.BurnedInAnnotation,
    )
    assert f"ctriage: {kind.upper()} coronal 3 mm" == image.SeriesDescription
    assert "No es dispositivo médico; para investigación y apoyo al triaje" == image.ImageComments


def test_series_of_derived_images_are_told_apart() -> None:
    images = pictures_of(ct_headers(), planes(), planes(orientation="sagittal"), planes(kind="mip"))
    assert 3 == len({image.SeriesInstanceUID for image in images})
    assert 3 == len({image.SeriesNumber for image in images})
    assert 9 == len({image.SOPInstanceUID for image in images})


def test_a_single_frame_has_no_spacing_between_slices() -> None:
    single = planes(hu=np.zeros((1, 4, 4), np.int16), origins_lps_mm=np.zeros((1, 3)), spacing_between_mm=None)
    assert "SpacingBetweenSlices" not in pictures_of(ct_headers(), single)[0]


def test_a_capture_keeps_its_colours_and_says_whether_text_names_the_patient() -> None:
    rgb = np.random.default_rng(1).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    headers = ct_headers()
    render = Capture(kind="render", rgb=rgb, burned_in="NO", stack=stack_of(headers))
    summary = Capture(kind="summary", rgb=rgb, burned_in="YES")
    images = pictures_of(headers, captures=(render, summary), language="es")
    for image in images:
        assert np.array_equal(rgb, image.pixel_array)
        assert "FrameOfReferenceUID" not in image
    assert ["NO", "YES"] == [image.BurnedInAnnotation for image in images]
    assert ["ctriage: reconstrucción 3D", "ctriage: página de resumen"] == [i.SeriesDescription for i in images]


def test_what_is_no_colour_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        Capture(kind="render", rgb=np.zeros((4, 4), np.uint8), burned_in="NO")
