"""Results over multi-frame instances name the frames that they mean, and lie where these lie."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage

from pacs_bridge.results.bundle import build_flags
from pacs_bridge.results.frames import frame_header
from pacs_bridge.results.testing import blob, context_of, ct_headers, report_of, stack_of
from pipeline.model import ExaminedStack, Finding, ResultObject
from pipeline.phantom.multi_frame import enhanced_ct

Z_MM = (0, 4, 8, 12, 13.08, 20, 27, 34)
ORDER = (5, 2, 7, 0, 3, 6, 1, 4)
"""Which slice each frame of the instance is."""


def slices(**changes: Any) -> list[Dataset]:
    headers = ct_headers(ImageOrientationPatient=[1.0, 0.0, 0.0, 0.0, 0.9483237, -0.3173047], **changes)
    for header, z in zip(headers, Z_MM, strict=True):
        header.ImagePositionPatient = ["-12.123456789", "-16", str(z)]
        header.PixelData = b""
    return headers


def instance_of(headers: Sequence[Dataset], uid: str = "2.25.31") -> Dataset:
    enhanced = enhanced_ct(headers)
    del enhanced.PixelData
    enhanced.SOPInstanceUID = uid
    return enhanced


def as_frames(headers: Sequence[Dataset]) -> tuple[list[Dataset], ExaminedStack]:
    """Return one instance that holds all slices, in scrambled order, and the stack that they form."""
    numbers = tuple(ORDER.index(k) + 1 for k in range(len(headers)))
    instance = instance_of([headers[k] for k in ORDER])
    return [instance], replace(stack_of(headers), instances=("2.25.31",) * len(headers), frames=numbers)


def as_two_instances(headers: Sequence[Dataset]) -> tuple[list[Dataset], ExaminedStack]:
    """Return two instances of a concatenation, of three slices and of five, and the stack that they form."""
    instances = [instance_of(headers[:3]), instance_of(headers[3:], "2.25.32")]
    names = ("2.25.31",) * 3 + ("2.25.32",) * 5
    return instances, replace(stack_of(headers), instances=names, frames=(1, 2, 3, 1, 2, 3, 4, 5))


Split = Callable[[Sequence[Dataset]], tuple[list[Dataset], ExaminedStack]]
both = pytest.mark.parametrize("split", [as_frames, as_two_instances])


def flags(instances: Sequence[Dataset], stack: ExaminedStack, *findings: Finding) -> list[ResultObject]:
    return build_flags(context_of(instances), report_of([stack], findings))


def read(built: ResultObject) -> Dataset:
    return pydicom.dcmread(BytesIO(built.part10))


def items(node: Dataset) -> Iterator[Dataset]:
    for item in node.get("ContentSequence", []):
        yield item
        yield from items(item)


def image_references(document: Dataset, meaning: str) -> list[Dataset]:
    images = (item for item in items(document) if item.ValueType == "IMAGE" and "ConceptNameCodeSequence" in item)
    return [i.ReferencedSOPSequence[0] for i in images if i.ConceptNameCodeSequence[0].CodeMeaning == meaning]


def named(reference: Dataset) -> tuple[str, list[int]]:
    numbers = reference.get("ReferencedFrameNumber") or []
    return str(reference.ReferencedSOPInstanceUID), [numbers] if isinstance(numbers, int) else [int(n) for n in numbers]


@both
def test_segmented_frames_lie_on_the_frames_they_name(split: Split) -> None:
    headers = slices()
    instances, stack = split(headers)
    finding = blob(stack, (4, 30, 20), 12)
    segmentation = read(flags(instances, stack, finding)[1])
    masks = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    places = {name: k for k, name in enumerate(zip(stack.instances, stack.frames, strict=True))}
    seen = set()
    for mask, group in zip(masks, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        k = places[str(source.ReferencedSOPInstanceUID), source.ReferencedFrameNumber]
        assert str(EnhancedCTImageStorage) == source.ReferencedSOPClassUID
        assert np.array_equal(finding.region.full()[k], mask)
        placed = group.PlanePositionSequence[0].ImagePositionPatient
        assert [float(v) for v in headers[k].ImagePositionPatient] == pytest.approx(list(placed))
        seen.add(k)
    assert set(np.flatnonzero(finding.region.full().any(axis=(1, 2)))) == seen


@both
def test_a_segmentation_names_each_instance_once_with_the_frames_used(split: Split) -> None:
    instances, stack = split(slices())
    segmentation = read(flags(instances, stack, blob(stack, (4, 30, 20), 12))[1])
    (series,) = segmentation.ReferencedSeriesSequence
    expected = {str(instance.SOPInstanceUID) for instance in instances}
    listed = [str(item.ReferencedSOPInstanceUID) for item in series.ReferencedInstanceSequence]
    assert (expected, len(expected)) == (set(listed), len(listed))
    used = dict(map(named, segmentation.SourceImageSequence))
    groups = segmentation.PerFrameFunctionalGroupsSequence
    frames = [named(group.DerivationImageSequence[0].SourceImageSequence[0]) for group in groups]
    assert {uid: sorted(n for name, (n,) in frames if name == uid) for uid in used} == used


@both
def test_the_report_names_its_sources_frames(split: Split) -> None:
    instances, stack = split(slices())
    document = read(flags(instances, stack, blob(stack, (4, 30, 20), 12))[0])
    library = dict(map(named, image_references(document, "Source")))
    expected: dict[str, list[int]] = {}
    for uid, frame in zip(stack.instances, stack.frames, strict=True):
        expected.setdefault(uid, []).append(frame)
    assert {uid: sorted(frames) for uid, frames in expected.items()} == library
    evidence = document.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    uids = [item.ReferencedSOPInstanceUID for series in evidence for item in series.ReferencedSOPSequence]
    assert len(uids) == len(set(uids)) == len(instances) + 1


def test_a_finding_off_the_slices_names_the_frames_that_were_read() -> None:
    instances, stack = as_frames(slices())
    foreign = blob(stack_of(ct_headers(3)), (1, 30, 20), series_instance_uid=stack.series_instance_uid)
    document = read(flags(instances, stack, foreign)[0])
    assert [("2.25.31", [1, 2, 3, 4, 5, 6, 7, 8])] == list(
        map(named, image_references(document, "Source of Measurement"))
    )


def test_a_centre_without_a_frame_of_reference_is_on_its_frame() -> None:
    instances, stack = as_frames(slices(FrameOfReferenceUID=None))
    document = read(flags(instances, stack, blob(stack, (4, 30, 20)))[0])
    (center,) = (i for i in items(document) if i.ValueType == "SCOORD")
    assert ("2.25.31", [stack.frames[4]]) == named(center.ContentSequence[0].ReferencedSOPSequence[0])


@both
def test_key_objects_are_frames(split: Split) -> None:
    instances, stack = split(slices())
    first, second = blob(stack, (2, 20, 14)), blob(stack, (5, 40, 30))
    document = read(flags(instances, stack, first, second, replace(second, detector="skull_fracture"))[-1])
    assert "KO" == document.Modality
    assert [(stack.instances[k], [stack.frames[k]]) for k in (2, 5)] == list(
        map(named, image_references(document, "Source"))
    )


@both
def test_dciodvfy_accepts_results_that_name_frames(
    split: Split, dciodvfy_errors: Callable[[Path], set[str]], tmp_path: Path
) -> None:
    instances, stack = split(slices())
    objects = flags(instances, stack, blob(stack, (2, 20, 14)), blob(stack, (4, 33, 22)), blob(stack, (5, 40, 30)))
    assert ["sr", "seg", "key_objects"] == [built.kind for built in objects]
    for built in objects:
        path = tmp_path / f"{built.kind}.dcm"
        path.write_bytes(built.part10)
        assert set() == dciodvfy_errors(path)


def test_a_frame_whose_plane_nobody_states_takes_its_segment_with_it_and_leaves_the_finding() -> None:
    instances, stack = as_frames(slices())
    del instances[0].PerFrameFunctionalGroupsSequence
    built = flags(instances, stack, blob(stack, (4, 30, 20)))
    assert ["sr", "key_objects"] == [each.kind for each in built]
    assert "hemorrhage 1" in built[0].part10.decode("latin-1")


def test_a_frame_header_prefers_what_the_frame_says_and_is_silent_where_nobody_speaks() -> None:
    instance = instance_of(slices())
    shared = instance.SharedFunctionalGroupsSequence[0]
    assert [0.5, 0.5] == list(frame_header(instance, 3).PixelSpacing)
    measures = Dataset()
    measures.PixelSpacing = [0.7, 0.7]
    instance.PerFrameFunctionalGroupsSequence[2].PixelMeasuresSequence = [measures]
    header = frame_header(instance, 3)
    assert ([0.7, 0.7], 5, 8.0) == (list(header.PixelSpacing), header.SliceThickness, header.ImagePositionPatient[2])
    del shared.PixelMeasuresSequence
    assert "PixelSpacing" not in frame_header(instance, 4)
    assert "ImagePositionPatient" not in frame_header(instance, 99)
