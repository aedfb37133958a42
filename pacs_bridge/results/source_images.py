"""Which acquired images does a derived picture name as its sources (PS3.3 C.7.6.1.1.4)?"""

import itertools
import math
from dataclasses import replace
from io import BytesIO

import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset

from pacs_bridge.results.alike import Pieces, item, long_element, text_element
from pacs_bridge.results.context import Context
from pacs_bridge.results.frames import referable_slices, references_to
from pipeline.model import ExaminedStack
from reconstruction.geometry import Points
from reconstruction.planes import Planes
from reconstruction.resample import positions_mm

SOURCE_IMAGE_SEQUENCE = 0x00082112
_REFERENCED_SOP_CLASS_UID = 0x00081150
_REFERENCED_SOP_INSTANCE_UID = 0x00081155
_HEADER_ROUNDING = 1e-3  # of the distance of two slices


def source_images(context: Context, stack: ExaminedStack, span: tuple[int, int] | None = None) -> list[Dataset]:
    """Return one item for each image of a stack, or of its slices ``span`` (first, end), that can be referred to.

    Frames of one multi-frame image are named by their numbers in one item. Raises MissingHeaders.
    """
    first, end = span or (0, len(stack.instances))
    part = replace(stack, instances=stack.instances[first:end], frames=stack.frames[first:end])
    return references_to(referable_slices(context.sources, part))


class EncodedSources:
    """The Source Image Sequences of a stack's images, as ``source_images`` says them, in bytes.

    Each slice is encoded once: hundreds of pictures name thousands of slices.
    """

    def __init__(self, context: Context, stack: ExaminedStack) -> None:
        """Take the stack; nothing is encoded yet."""
        self._context = context
        self._stack = stack
        self._items: list[bytes | None] = [None] * len(stack.instances)
        self._last: tuple[tuple[int, int], Pieces] | None = None

    def element(self, span: tuple[int, int]) -> Pieces:
        """Return the encoded element that names the slices ``span`` (first, end); raises MissingHeaders."""
        if self._last is None or self._last[0] != span:
            self._last = span, self._frames(span) if self._stack.frames else self._images(span)
        return self._last[1]

    def _images(self, span: tuple[int, int]) -> Pieces:
        for k in range(*span):
            if self._items[k] is None:
                self._items[k] = self._image(self._stack.instances[k])
        return long_element(SOURCE_IMAGE_SEQUENCE, "SQ", b"".join(each or b"" for each in self._items[slice(*span)]))

    def _image(self, sop_instance_uid: str) -> bytes:
        """Encode the item of one image; it is empty where that cannot be referred to."""
        found = self._context.sources.class_and_name(sop_instance_uid)
        if found is None:
            return b""
        pairs = zip((_REFERENCED_SOP_CLASS_UID, _REFERENCED_SOP_INSTANCE_UID), found, strict=True)
        return item(*(text_element(tag, "UI", uid) for tag, uid in pairs))

    def _frames(self, span: tuple[int, int]) -> Pieces:
        """Frames of one instance share an item, which so differs from span to span."""
        named, buffer = Dataset(), BytesIO()
        named.SourceImageSequence = source_images(self._context, self._stack, span)
        dcmwrite(buffer, named, implicit_vr=False, little_endian=True)
        return (buffer.getvalue(),)


def source_instances(context: Context, stack: ExaminedStack) -> list[Dataset]:
    """Return one item for each instance of a stack, whole, that can be referred to. Raises MissingHeaders."""
    return source_images(context, replace(stack, frames=()))


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


def _corners(planes: Planes, frame: int) -> Points:
    """The eight corners of the slab, in LPS mm."""
    rows, columns = planes.hu.shape[1:]
    normal = np.cross(planes.row_direction, planes.column_direction)
    middle = (planes.to_mm(frame, row, column) for row, column in itertools.product((0, rows - 1), (0, columns - 1)))
    half = normal * planes.slice_thickness_mm / 2.0
    corners: Points = np.array([corner + side * half for corner in middle for side in (-1.0, 1.0)])
    return corners
