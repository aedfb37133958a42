"""Regions as segmentations, and the key slices that go with them."""

from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom.dataset import Dataset

from pacs_bridge.results.bundle import build_flags
from pacs_bridge.results.identifiers import frame_of_reference_uid
from pacs_bridge.results.testing import blob, context_of, ct_headers, report_of, reread, stack_of
from pipeline.model import Finding


def flags_of(headers: list[Dataset], *findings: Finding) -> list[Dataset]:
    report = report_of([stack_of(headers)], findings)
    return [pydicom.dcmread(BytesIO(o.part10)) for o in build_flags(context_of(headers), report)]


def masks_by_source(segmentation: Dataset) -> dict[tuple[int, str], npt.NDArray[Any]]:
    """Return each frame by its segment and the source instance that it names."""
    frames = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    masks = {}
    for frame, group in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        holder = group if "SegmentIdentificationSequence" in group else shared
        segment = holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        source = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        masks[segment, source] = frame
    return masks


@pytest.mark.parametrize("second", [(5, 40, 30), (4, 33, 22)], ids=["apart", "overlapping"])
def test_every_slice_of_every_region_comes_back_on_its_source_slice(second: tuple[int, int, int]) -> None:
    headers = ct_headers()
    stack = stack_of(headers)
    findings = [blob(stack, (2, 20, 14)), blob(stack, second)]
    masks = masks_by_source(flags_of(headers, *findings)[1])
    expected = {
        (number, str(headers[k].SOPInstanceUID))
        for number, finding in enumerate(findings, start=1)
        for k in np.flatnonzero(finding.region.full().any(axis=(1, 2)))
    }
    assert expected == set(masks)
    uids = [str(header.SOPInstanceUID) for header in headers]
    for (segment, source), mask in masks.items():
        assert np.array_equal(findings[segment - 1].region.full()[uids.index(source)], mask)


def test_frames_stand_at_the_positions_of_uneven_and_tilted_sources() -> None:
    tilted = [1.0, 0.0, 0.0, 0.0, 0.9483237, -0.3173047]
    headers = ct_headers(ImageOrientationPatient=tilted, SliceThickness=None)
    for header, z in zip(headers, (0, 4, 8, 12, 13.08, 20, 27, 34), strict=True):
        header.ImagePositionPatient = ["-12.123456789", "-16", str(z)]
    segmentation = flags_of(headers, blob(stack_of(headers), (4, 30, 20), 12))[1]
    positions = {str(h.SOPInstanceUID): list(h.ImagePositionPatient) for h in headers}
    for group in segmentation.PerFrameFunctionalGroupsSequence:
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        placed = group.PlanePositionSequence[0].ImagePositionPatient
        assert positions[source.ReferencedSOPInstanceUID] == pytest.approx(list(placed))
        assert "YES" == source.SpatialLocationsPreserved
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    assert tilted == pytest.approx(list(shared.PlaneOrientationSequence[0].ImageOrientationPatient))


def test_a_missing_frame_of_reference_is_the_one_derived_from_the_series() -> None:
    headers = ct_headers(FrameOfReferenceUID=None)
    segmentation = flags_of(headers, blob(stack_of(headers), (4, 30, 20)))[1]
    assert frame_of_reference_uid(stack_of(headers)) == segmentation.FrameOfReferenceUID


def test_a_segment_says_what_it_is_and_who_drew_it() -> None:
    headers = ct_headers(LossyImageCompression="01", LossyImageCompressionMethod="ISO_10918_1")
    segmentation = flags_of(headers, blob(stack_of(headers), (4, 30, 20)))[1]
    segment = segmentation.SegmentSequence[0]
    assert "1386000" == segment.SegmentedPropertyTypeCodeSequence[0].CodeValue
    assert "AUTOMATIC" == segment.SegmentAlgorithmType
    algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
    assert ("hemorrhage", "1.0") == (algorithm.AlgorithmName, algorithm.AlgorithmVersion)
    assert ("BINARY", "01") == (segmentation.SegmentationType, segmentation.LossyImageCompression)
    assert "Not a medical device; for research and triage support" == segmentation.ContentDescription


def test_the_key_slice_is_where_the_region_is_largest() -> None:
    headers = ct_headers()
    stack = stack_of(headers)
    document = flags_of(headers, blob(stack, (2, 20, 14)), blob(stack, (5, 40, 30)))[-1]
    assert "113000" == document.ConceptNameCodeSequence[0].CodeValue
    images = [item for item in document.ContentSequence if item.ValueType == "IMAGE"]
    named = [image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for image in images]
    assert [headers[2].SOPInstanceUID, headers[5].SOPInstanceUID] == named


def test_decimal_strings_that_are_too_long_stop_nothing() -> None:
    with pydicom.config.disable_value_validation():
        headers = [reread(h) for h in ct_headers(PixelSpacing=["0.48828125000000001", "0.48828125000000001"])]
    segmentation = flags_of(headers, blob(stack_of(headers), (4, 30, 20)))[1]
    measures = segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert [0.48828125, 0.48828125] == list(measures.PixelSpacing)


def test_without_findings_there_is_neither_seg_nor_key_object() -> None:
    assert ["SR"] == [result.Modality for result in flags_of(ct_headers())]
