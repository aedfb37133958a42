"""Which acquired images does a derived picture name as its sources (PS3.3 C.7.6.1.1.4)?"""

import itertools
import math

import numpy as np
from pydicom.dataset import Dataset

from pacs_bridge.results.context import Context
from pacs_bridge.results.part10 import reference
from pipeline.model import ExaminedStack
from reconstruction.geometry import Points
from reconstruction.planes import Planes
from reconstruction.resample import positions_mm

_HEADER_ROUNDING = 1e-3  # of the distance of two slices


def source_images(context: Context, stack: ExaminedStack, span: tuple[int, int] | None = None) -> list[Dataset]:
    """Return one item for each image of a stack, or of its slices ``span`` (first, end), that can be referred to.

    Frames of one multi-frame image are named by their numbers in one item. Raises MissingHeaders.
    """
    first, end = span or (0, len(stack.instances))
    frames: dict[str, list[int]] = {}
    for place in range(first, end):
        numbers = frames.setdefault(stack.instances[place], [])
        numbers.extend(stack.frames[place : place + 1])
    return [_item(name, frames[str(name.SOPInstanceUID)]) for name in context.sources.referable(tuple(frames))]


def slices_shown(stack: ExaminedStack, planes: Planes, frame: int) -> tuple[int, int]:
    """Return which slices (first, end) of the stack lie within the slab that a picture stands for, or next to it.

    All of them where the Report says nothing of how they lie; at least one.
    """
    count = len(stack.instances)
    if stack.geometry is None or count != stack.geometry.shape[0]:
        return 0, count
    along = stack.geometry.to_index(_corners(planes, frame))[:, 0] * stack.geometry.slice_step_mm
    positions = positions_mm(stack.geometry, stack.slice_positions_mm)
    places = np.interp(along, positions, np.arange(count))
    first = math.floor(float(places.min()) + _HEADER_ROUNDING)
    last = math.ceil(float(places.max()) - _HEADER_ROUNDING)
    return min(first, count - 1), max(last, first) + 1


def _item(name: Dataset, frames: list[int]) -> Dataset:
    """Name an image, and the frames of it that are meant (0: it is one image)."""
    item = reference(name)
    if any(frames):
        item.ReferencedFrameNumber = sorted(frames)
    return item


def _corners(planes: Planes, frame: int) -> Points:
    """The eight corners of the slab, in LPS mm."""
    rows, columns = planes.hu.shape[1:]
    normal = np.cross(planes.row_direction, planes.column_direction)
    middle = (planes.to_mm(frame, row, column) for row, column in itertools.product((0, rows - 1), (0, columns - 1)))
    half = normal * planes.slice_thickness_mm / 2.0
    corners: Points = np.array([corner + side * half for corner in middle for side in (-1.0, 1.0)])
    return corners
