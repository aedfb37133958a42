"""Which pixels of the acquired slices belong to each finding, as Segmentation objects (PS3.3 A.51)?"""

from collections.abc import Sequence

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from pacs_bridge.results import codes
from pacs_bridge.results.context import Context
from pacs_bridge.results.frames import by_instance, reference_to, references_to
from pacs_bridge.results.identifiers import MANUFACTURER, frame_of_reference_uid
from pacs_bridge.results.part10 import (
    SERIES_NUMBERS,
    dress,
    finished,
    reference,
    series_uid_of,
    stand_in_image,
    uid_of,
)
from pacs_bridge.results.regions import Placed, on_slice, slice_indices
from pacs_bridge.results.sources import copy_lossy_history
from pacs_bridge.results.texts import say
from pipeline.model import ExaminedStack, Report, ResultObject


def segmentation_numbers(findings: Sequence[Placed]) -> list[int]:
    """Return the numbers of the SEG objects: one for each stack that has findings on its slices."""
    return sorted({placed.segmentation for placed in findings if placed.segmentation is not None})


def segmentation_uid(report: Report, number: int) -> str:
    """Name the SEG object with this number."""
    return uid_of(report, "seg", number)


def build_segmentation(context: Context, report: Report, findings: Sequence[Placed], number: int) -> ResultObject:
    """Build the binary SEG with this number, one segment for each of its findings."""
    findings = [placed for placed in findings if placed.segmentation == number]
    stack, slices = findings[0].stack, findings[0].slices
    assert stack is not None
    used = sorted({k for placed in findings for k in slice_indices(placed.finding)})
    sources = [slices[k] for k in used]
    segmentation: Dataset = hd.seg.Segmentation(
        source_images=[_stand_in(header, n, stack) for n, header in enumerate(sources)],
        pixel_array=_pixels(findings, used),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(placed, report) for placed in findings],
        series_instance_uid=series_uid_of(report, "seg", number),
        series_number=SERIES_NUMBERS["seg"] + number - 1,
        sop_instance_uid=segmentation_uid(report, number),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MANUFACTURER,
        software_versions=report.provenance.code_version,
        device_serial_number="1",
        content_label="FINDINGS",
        content_description=say("disclaimer", context.language),
        content_creator_name=None,
        series_description=say("series.seg", context.language),
    )
    _name_sources(segmentation, [findings[0].named(k) for k in used])
    _fix_dimension_uid(segmentation, uid_of(report, "dimensions", number))
    copy_lossy_history(sources, segmentation)
    dress(segmentation, context, report)
    return finished(segmentation, "seg", number)


def _pixels(findings: Sequence[Placed], used: Sequence[int]) -> npt.NDArray[np.uint8]:
    """Return a label map (slices, rows, columns) or, where findings overlap, one layer each along a fourth axis."""
    labels = np.zeros((len(used), *findings[0].finding.region.geometry.shape[1:]), dtype=np.uint8)
    for number, placed in enumerate(findings, start=1):
        region = placed.finding.region
        _, rows, columns = (slice(o, o + n) for o, n in zip(region.origin_kji, region.bits.shape, strict=True))
        for at, k in enumerate(used):
            if 0 <= k - region.origin_kji[0] < len(region.bits):
                box, bits = labels[at, rows, columns], region.bits[k - region.origin_kji[0]]
                if box[bits].any():
                    return _layers(findings, used)
                box[bits] = number
    return labels


def _layers(findings: Sequence[Placed], used: Sequence[int]) -> npt.NDArray[np.uint8]:
    layers = [np.stack([on_slice(placed.finding, k) for k in used]) for placed in findings]
    return np.stack(layers, axis=-1).astype(np.uint8)


def _segment(placed: Placed, report: Report) -> Dataset:
    finding = placed.finding
    algorithm = hd.AlgorithmIdentificationSequence(
        name=finding.detector,
        family=codes.MORPHOLOGICAL_OPERATIONS,
        version=report.provenance.detector_versions.get(finding.detector, report.provenance.code_version),
        source=MANUFACTURER,
    )
    description: Dataset = hd.seg.SegmentDescription(
        segment_number=placed.segment,
        segment_label=f"{finding.code.meaning} ({placed.tracking_id})"[:64],
        segmented_property_category=codes.MORPHOLOGICALLY_ABNORMAL,
        segmented_property_type=codes.concept(finding.code),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        tracking_uid=placed.tracking_uid,
        tracking_id=placed.tracking_id,
    )
    return description


def _stand_in(header: Dataset, place: int, stack: ExaminedStack) -> Dataset:
    """Return what highdicom sees of a slice: an image of its own, for it takes an image's frames only together."""
    stub = stand_in_image(header, frame_of_reference_uid(stack))
    stub.SOPInstanceUID = _place_uid(place)
    return stub


def _place_uid(place: int) -> str:
    return f"2.25.{place + 1}"


def _name_sources(segmentation: Dataset, sources: Sequence[tuple[Dataset, int | None]]) -> None:
    """Give every reference the source's true name, class and frame; highdicom saw stand-ins of class CT."""
    by_place = {_place_uid(place): source for place, source in enumerate(sources)}
    for item in _references(segmentation):
        name, frame = by_place[str(item.ReferencedSOPInstanceUID)]
        item.update(reference_to(name, [frame]))
    (series,) = segmentation.ReferencedSeriesSequence
    series.ReferencedInstanceSequence = [reference(name) for name, _ in by_instance(sources)]
    segmentation.SourceImageSequence = references_to(sources)


def _references(segmentation: Dataset) -> list[Dataset]:
    frames = segmentation.PerFrameFunctionalGroupsSequence
    derivations = [derivation for frame in frames for derivation in frame.get("DerivationImageSequence", [])]
    items = [item for derivation in derivations for item in derivation.SourceImageSequence]
    return list({id(item): item for item in items}.values())  # frames of one slice share theirs


def _fix_dimension_uid(segmentation: Dataset, uid: str) -> None:
    """Replace the random Dimension Organization UID: the same Report gives the same bytes."""
    segmentation.DimensionOrganizationSequence[0].DimensionOrganizationUID = uid
    for index in segmentation.DimensionIndexSequence:
        index.DimensionOrganizationUID = uid
