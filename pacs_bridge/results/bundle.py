"""Which DICOM objects does a Report become?"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from pacs_bridge.results.context import Context
from pacs_bridge.results.derived import Reformat, build_derived_series
from pacs_bridge.results.encapsulated_stl import SurfaceModel, build_model
from pacs_bridge.results.key_objects import build_key_objects
from pacs_bridge.results.multi_frame_capture import TurnCapture, build_turn
from pacs_bridge.results.regions import Placed, place
from pacs_bridge.results.secondary_capture import Capture, build_capture
from pacs_bridge.results.seg import build_segmentation, segmentation_numbers
from pacs_bridge.results.sr import build_report_document
from pacs_bridge.results.texts import say
from pipeline.derive import Captured, Product, StackPlanes, StackSurface, StackTurn
from pipeline.model import Report, ResultObject

# What highdicom and pydicom raise over source values that they refuse: the SR with its findings leaves all the same
_REFUSED = (AttributeError, KeyError, TypeError, ValueError)


def build_flags(context: Context, report: Report) -> list[ResultObject]:
    """Build what must not wait for pictures: the SR, and SEG and key objects where there are findings.

    Pure: the same arguments give the same bytes. What else than the SR cannot be built is said in the SR, with the
    class of the error. Raises MissingHeaders.
    """
    findings, segmentations, notes = _segmented(context, report, place(context, report))
    key_objects, more_notes = _key_objects(context, report, findings)
    document = build_report_document(context, report, findings, [*notes, *more_notes])
    return [document, *segmentations, *key_objects]


def build_pictures(context: Context, report: Report, products: Iterable[Product]) -> Iterator[ResultObject]:
    """Build the DICOM objects of each product: derived CT series, captures, models; one object at a time.

    The next product is asked for when the last one's objects have been taken. A product's place among its kind gives
    its objects their UIDs: keep the order. Remarks become no object.
    """
    counts = Counter[str]()
    for product in products:
        yield from _objects_of(context, report, product, counts)
        del product


def _objects_of(context: Context, report: Report, product: Product, counts: Counter[str]) -> Iterable[ResultObject]:
    match product:
        case StackPlanes(planes=planes, stack=stack, images_before=before):
            counts["series"] += before == 0
            reformat = Reformat(planes=planes, stack=stack, images_before=before)
            return build_derived_series(context, report, reformat, counts["series"])
        case StackTurn(preset=preset, rgb=rgb, stack=stack):
            counts["turn"] += 1
            return [build_turn(context, report, TurnCapture(preset=preset, rgb=rgb, stack=stack), counts["turn"])]
        case StackSurface(tissue=tissue, stl=stl, stack=stack):
            counts["surface"] += 1
            model = SurfaceModel(tissue=tissue, stl=stl, stack=stack)
            return [build_model(context, report, model, counts["surface"])]
        case Captured(kind=kind):
            counts[kind] += 1
            return [build_capture(context, report, _capture(product), counts[kind])]
        case _:
            return ()


def _capture(product: Captured) -> Capture:
    return Capture(kind=product.kind, rgb=product.rgb, burned_in="NO", stack=product.stack)


def _segmented(
    context: Context, report: Report, findings: Sequence[Placed]
) -> tuple[list[Placed], list[ResultObject], list[str]]:
    """Build the SEGs; the findings of one that cannot be built lose their segment, and a note says so."""
    placed, built, notes = list(findings), [], []
    for number in segmentation_numbers(findings):
        try:
            built.append(build_segmentation(context, report, findings, number))
        except _REFUSED as error:
            notes.append(_no_segmentation(context, [p for p in findings if p.segmentation == number], error))
            placed = [replace(p, segmentation=None, segment=None) if p.segmentation == number else p for p in placed]
    return placed, built, notes


def _no_segmentation(context: Context, lost: Sequence[Placed], error: Exception) -> str:
    """Name the error by its class alone: its text may hold the source's values."""
    names = ", ".join(placed.tracking_id for placed in lost)
    return say("note.no_segmentation", context.language, findings=names, error=type(error).__name__)


def _key_objects(context: Context, report: Report, findings: Sequence[Placed]) -> tuple[list[ResultObject], list[str]]:
    try:
        return build_key_objects(context, report, findings), []
    except _REFUSED as error:
        return [], [say("note.no_key_objects", context.language, error=type(error).__name__)]
