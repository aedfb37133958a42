"""Where does each finding of a Report stand: its stack, its key slice, its segment, its tracking names?"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from pacs_bridge.results.context import Context
from pacs_bridge.results.frames import SliceHeaders, frame_number
from pacs_bridge.results.identifiers import tracking_uid
from pacs_bridge.results.sources import can_be_referred_to
from pacs_bridge.results.tolerant import value_of
from pipeline.model import ExaminedStack, Finding, Report


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Placed:
    """A finding with its names and places.

    ``slices`` are the headers of its stack in slice order, read when asked for, and ``names`` their UIDs alone; empty
    where the Report does not say which stack or a slice lacks a name by which to refer to it. A slice that is a frame
    of a multi-frame instance has the frame's plane and the instance's name.
    ``segmentation`` (index of the SEG object, from 1) and ``segment`` are None where the region does not lie on
    these slices. ``key_slice`` indexes ``slices``.
    """

    finding: Finding
    stack: ExaminedStack | None
    slices: Sequence[Dataset]
    names: Sequence[Dataset]
    tracking_uid: str
    tracking_id: str
    key_slice: int | None
    segmentation: int | None = None
    segment: int | None = None

    def named(self, k: int) -> tuple[Dataset, int | None]:
        """Return the name of slice ``k`` and which frame of that instance it is."""
        return self.names[k], frame_number(self.stack, k) if self.stack else None


def place(context: Context, report: Report) -> tuple[Placed, ...]:
    """Place every finding, in the Report's order."""
    objects: dict[tuple[str, int], int] = {}
    per_object: Counter[int] = Counter()
    per_detector: Counter[str] = Counter()
    placed = []
    for finding in report.findings:
        per_detector[finding.detector] += 1
        stack = _stack_of(finding, report)
        slices, names = _slices(context, stack)
        fits = _lies_on(finding, slices)
        where = objects.setdefault((finding.series_instance_uid, finding.stack), len(objects) + 1) if fits else None
        if where:
            per_object[where] += 1
        placed.append(
            Placed(
                finding=finding,
                stack=stack,
                slices=slices,
                names=names,
                tracking_uid=_tracking_uid(report, finding, per_detector[finding.detector]),
                tracking_id=f"{finding.detector} {per_detector[finding.detector]}",
                key_slice=_key_slice(finding) if fits else None,
                segmentation=where,
                segment=per_object[where] if where else None,
            )
        )
    return tuple(placed)


def _stack_of(finding: Finding, report: Report) -> ExaminedStack | None:
    key = (finding.series_instance_uid, finding.stack)
    return next((stack for stack in report.examined if (stack.series_instance_uid, stack.stack) == key), None)


def _slices(context: Context, stack: ExaminedStack | None) -> tuple[Sequence[Dataset], Sequence[Dataset]]:
    instances = tuple(dict.fromkeys(stack.instances)) if stack else ()
    names = dict(zip(instances, context.sources.names(instances), strict=True))
    if stack is None or not all(can_be_referred_to(name) for name in names.values()):
        return [], []
    slices = SliceHeaders(stack, context.sources.of(stack.instances))
    return slices, [names[uid] for uid in stack.instances]


def _tracking_uid(report: Report, finding: Finding, index: int) -> str:
    return tracking_uid(report.study_instance_uid, report.study_digest, finding.detector, index)


def _lies_on(finding: Finding, slices: Sequence[Dataset]) -> bool:
    if not slices or not finding.region.bits.any():
        return False
    frame = (value_of(slices[0], "Rows"), value_of(slices[0], "Columns"))
    return (len(slices), *frame) == finding.region.geometry.shape


def _key_slice(finding: Finding) -> int:
    areas = np.count_nonzero(finding.region.bits, axis=(1, 2))
    return finding.region.origin_kji[0] + int(np.argmax(areas))


def slice_indices(finding: Finding) -> list[int]:
    """Return the slices of the stack on which the region has voxels."""
    first = finding.region.origin_kji[0]
    return [first + int(k) for k in np.flatnonzero(finding.region.bits.any(axis=(1, 2)))]


def on_slice(finding: Finding, k: int) -> npt.NDArray[np.bool_]:
    """Return the region's pixels on slice ``k`` of the stack, (rows, columns)."""
    shape = finding.region.geometry.shape
    pixels = np.zeros(shape[1:], dtype=np.bool_)
    first, row, column = finding.region.origin_kji
    depth, height, width = finding.region.bits.shape
    if first <= k < first + depth:
        pixels[row : row + height, column : column + width] = finding.region.bits[k - first]
    return pixels


def center_on_key_slice(placed: Placed) -> tuple[float, float]:
    """Return (column, row) of the region's centre on its key slice; the first pixel's centre is (0.5, 0.5) (SCOORD)."""
    assert placed.key_slice is not None
    rows, columns = np.nonzero(on_slice(placed.finding, placed.key_slice))
    return float(columns.mean()) + 0.5, float(rows.mean()) + 0.5
