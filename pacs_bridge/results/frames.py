"""Which frame of a multi-frame instance is a slice, where does it lie, and how is it referred to?"""

from collections.abc import Mapping, Sequence
from typing import overload

from pydicom.dataset import Dataset

from pacs_bridge.results.part10 import reference
from pacs_bridge.results.sources import SourceHeaders
from pacs_bridge.results.tolerant import element_of, value_of
from pipeline.model import ExaminedStack

_OF_INSTANCE = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "Rows", "Columns",
    "PositionReferenceIndicator", "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
)  # fmt: skip
_OF_GROUPS: Mapping[str, tuple[str, ...]] = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness"),
}


def frame_number(stack: ExaminedStack, k: int) -> int | None:
    """Return which frame of its instance slice ``k`` of a stack is, from 1; None where the instance is one image."""
    return stack.frames[k] or None if stack.frames else None


def reference_to(name: Dataset, frames: Sequence[int | None]) -> Dataset:
    """Return one item that names an instance, and those of its frames that are meant (PS3.3 10.3)."""
    item = reference(name)
    if numbers := sorted(frame for frame in frames if frame):
        item.ReferencedFrameNumber = numbers[0] if len(numbers) == 1 else numbers
    return item


def references_to(slices: Sequence[tuple[Dataset, int | None]]) -> list[Dataset]:
    """Return one item for each instance among these slices, with those of its frames that are among them."""
    return [reference_to(name, frames) for name, frames in by_instance(slices)]


def by_instance(slices: Sequence[tuple[Dataset, int | None]]) -> list[tuple[Dataset, list[int | None]]]:
    """Group slices, each a name and a frame number, by their instance, in the order in which these come first."""
    grouped: dict[str, tuple[Dataset, list[int | None]]] = {}
    for name, frame in slices:
        grouped.setdefault(str(name.SOPInstanceUID), (name, []))[1].append(frame)
    return list(grouped.values())


def referable_slices(sources: SourceHeaders, stack: ExaminedStack) -> list[tuple[Dataset, int | None]]:
    """Return name and frame number of each slice of a stack that can be referred to; raises MissingHeaders."""
    referable = sources.referable(tuple(dict.fromkeys(stack.instances)))
    names = {str(name.SOPInstanceUID): name for name in referable}
    return [(names[uid], frame_number(stack, k)) for k, uid in enumerate(stack.instances) if uid in names]


class SliceHeaders(Sequence[Dataset]):
    """The headers of a stack's slices, each made when it is asked for: an instance's own, or its frame's."""

    def __init__(self, stack: ExaminedStack, instances: Sequence[Dataset]) -> None:
        """Take the stack and, beside each slice, its instance's data set."""
        self._stack = stack
        self._instances = instances

    def __len__(self) -> int:
        """Return how many slices there are."""
        return len(self._instances)

    @overload
    def __getitem__(self, k: int) -> Dataset: ...
    @overload
    def __getitem__(self, k: slice) -> Sequence[Dataset]: ...
    def __getitem__(self, k: int | slice) -> Dataset | Sequence[Dataset]:
        """Return the header of slice ``k``, or those of several."""
        if isinstance(k, slice):
            return [self[n] for n in range(len(self))[k]]
        frame = frame_number(self._stack, k)
        return self._instances[k] if frame is None else frame_header(self._instances[k], frame)


def frame_header(instance: Dataset, frame: int) -> Dataset:
    """Return the names and the plane of one frame (from 1) as a single-frame header would say them.

    What neither the frame's functional groups nor the shared ones state is absent (PS3.3 C.7.6.16).
    """
    header = Dataset()
    for keyword in _OF_INSTANCE:
        _copy(instance, header, keyword)
    groups = [_item(instance, "PerFrameFunctionalGroupsSequence", frame - 1)]
    groups.append(_item(instance, "SharedFunctionalGroupsSequence", 0))
    for name, keywords in _OF_GROUPS.items():
        items = [_item(group, name, 0) for group in groups if group is not None]
        for keyword in keywords:
            _copy_first(items, header, keyword)
    return header


def _copy_first(items: Sequence[Dataset | None], header: Dataset, keyword: str) -> None:
    for item in items:
        if item is not None and _copy(item, header, keyword):
            return


def _copy(source: Dataset, target: Dataset, keyword: str) -> bool:
    element = element_of(source, keyword)
    if element is not None:
        target[element.tag] = element
    return element is not None


def _item(dataset: Dataset, keyword: str, place: int) -> Dataset | None:
    items = value_of(dataset, keyword)
    return items[place] if items and place < len(items) else None
