"""Which frames does a multi-frame CT instance hold, and what does each say of its pixels and their place?

Enhanced CT (PS3.3 A.38) and Legacy Converted Enhanced CT (A.70): one Header a frame, so that frames form stacks as
single images do.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from reconstruction.functional_groups import IMPLICIT_LE, Attributes, dimensions, encoded, in_file, per_frame
from reconstruction.headers import Header, read_dataset
from reconstruction.placing import MINIMUM_SLICES
from reconstruction.slices import Refused

MULTI_FRAME_CT = frozenset({"1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"})
"""Enhanced CT and Legacy Converted Enhanced CT Image Storage."""

MAX_FRAMES = 50_000
"""No CT instance holds more; a header that announces more is refused before memory is asked for."""

_SPACE_OR_ORDER = frozenset(
    {
        0x0008002A, 0x00080032, 0x00189074, 0x00189151, 0x00200012, 0x00200013, 0x00200032, 0x00200037, 0x00201041,
        0x00209056, 0x00209057, 0x00209111, 0x00209113, 0x00209116, 0x00209128, 0x00209156,
    }
)  # fmt: skip
"""Dimensions that say where a frame lies or when it was made; any other one tells frames at one place apart."""

_PHASES = ("cardiac_percent", "cardiac_delay_ms")
_OF_HEADER = (
    "image_type", "acquisition_number", "acquisition_time", "temporal_position", "orientation", "pixel_spacing_mm",
    "slice_thickness_mm", "tilt_tag_deg", "rescale_slope", "rescale_intercept", "rescale_type", "kernel", "kvp",
    "body_part",
)  # fmt: skip
_HOUNSFIELD_UNIT = "[hnsf'U]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """The frames of one instance: a Header each, and those refused, with reasons."""

    headers: tuple[Header, ...] = ()
    refused: tuple[Refused, ...] = ()


def is_multi_frame(header: Header) -> bool:
    """Say whether an instance holds frames that are yet to be told apart."""
    return header.frame is None and (header.sop_class_uid in MULTI_FRAME_CT or header.number_of_frames > 1)


def read_frames(path: Path, header: Header) -> Frames:
    """Read the Headers of the frames of a Part-10 file of which ``header`` is the instance's; raises NotDicom."""
    if refusal := _refusal(header):
        return refusal
    try:
        elements = in_file(path, header.transfer_syntax_uid)
    except (OSError, ValueError):
        elements = None  # what is wrong with the file is said by whoever reads it whole
    if elements is None:
        return frames_of(read_dataset(path), header)
    return _frames(elements, header, implicit=header.transfer_syntax_uid == IMPLICIT_LE)


def frames_of(dataset: Dataset, header: Header) -> Frames:
    """Return the Headers of a data set's frames, numbered from 1, of which ``header`` is the instance's.

    What a frame's functional groups state replaces what the instance says, its own groups before the shared ones. A
    frame of which nothing is stated, or whose pixels are distorted in space, is refused alone.
    """
    return _refusal(header) or _frames(encoded(dataset), header, implicit=False)


def together(headers: Sequence[Header]) -> list[Header]:
    """Forget stack or time of a series' frames where these would leave no volume: stated frame by frame, they tell
    frames and not stacks apart."""
    kept = list(headers)
    if _tell_frames([header.stack_id for header in kept]):
        kept = [replace(header, stack_id=None) for header in kept]
    if _tell_frames([header.temporal_position for header in kept]):
        kept = [replace(header, temporal_position=None) for header in kept]
    return kept


def _tell_frames(values: Sequence[object]) -> bool:
    return len(values) >= MINIMUM_SLICES > max(Counter(values).values())


def _refusal(header: Header) -> Frames | None:
    count = header.number_of_frames
    if 1 <= count <= MAX_FRAMES:
        return None
    reason = f"{count} frames announced, but a CT instance holds 1 to {MAX_FRAMES}"
    return Frames(refused=(Refused(headers=(header,), reason=reason),))


def _frames(elements: Mapping[int, bytes], header: Header, *, implicit: bool) -> Frames:
    stated = per_frame(elements, implicit=implicit)[: header.number_of_frames]
    headers: list[Header] = []
    refused: dict[str, list[Header]] = defaultdict(list)
    places = _told_apart(stated, dimensions(elements, implicit=implicit))
    for number in range(1, header.number_of_frames + 1):
        attributes = stated[number - 1] if number <= len(stated) else None
        if attributes is None:
            refused[_undescribed(len(stated), header)].append(replace(header, frame=number, position_mm=None))
        elif attributes.get("volumetric") == "DISTORTED":
            refused["frames distorted in space (a curved reformat)"].append(replace(header, frame=number))
        else:
            headers.append(_header(header, attributes, number, places(attributes)))
    return Frames(
        headers=tuple(headers),
        refused=tuple(Refused(headers=tuple(members), reason=reason) for reason, members in refused.items()),
    )


def _undescribed(described: int, header: Header) -> str:
    if described == header.number_of_frames:
        return "the functional groups of a frame are damaged"
    return f"functional groups describe {described} of {header.number_of_frames} frames"


def _header(header: Header, attributes: Attributes, number: int, stack_id: str | None) -> Header:
    values: dict[str, Any] = {name: attributes[name] for name in _OF_HEADER if name in attributes}
    values["contrast_agent"] = _agent(header, attributes)
    if "rescale_slope" not in attributes and "real_slope" in attributes:
        values |= _real_world(attributes)
    position = attributes.get("position_mm")
    return replace(header, **values, position_mm=position, frame=number, stack_id=stack_id)


def _agent(header: Header, attributes: Attributes) -> str | None:
    """A frame may say that the agent, which the instance names, was not given when it was made."""
    if attributes.get("contrast_given") == "NO":
        return None
    agent: str | None = attributes.get("contrast_agent", header.contrast_agent)
    return agent


def _real_world(attributes: Attributes) -> dict[str, Any]:
    """Take a Real World Value Mapping (PS3.3 C.7.6.16.2.11) where there is no Pixel Value Transformation."""
    unit = attributes.get("real_unit")
    return {
        "rescale_slope": attributes["real_slope"],
        "rescale_intercept": attributes.get("real_intercept"),
        "rescale_type": "HU" if unit == _HOUNSFIELD_UNIT else unit or "not stated",
    }


def _told_apart(stated: Iterable[Attributes | None], pointers: Sequence[int]) -> Callable[[Attributes], str | None]:
    """Return what names a frame's stack: its Stack ID, and whatever else tells frames at one place apart."""
    frames = [attributes for attributes in stated if attributes is not None]
    telling = [read for read in _aspects(pointers) if _differs_at_one_place(frames, read)]

    def name(attributes: Attributes) -> str | None:
        parts = [attributes.get("stack_id"), *(read(attributes) for read in telling)]
        return "/".join("" if part is None else str(part) for part in parts) if any(parts) else None

    return name


def _aspects(pointers: Sequence[int]) -> list[Callable[[Attributes], Any]]:
    """List how frames may differ besides place, time and order: dimensions by their index, and phases of the heart."""
    places = [place for place, pointer in enumerate(pointers) if pointer not in _SPACE_OR_ORDER]
    return [*(_index(place) for place in places), *(_attribute(name) for name in _PHASES)]


def _index(place: int) -> Callable[[Attributes], Any]:
    return lambda attributes: next(iter(attributes.get("indices", ())[place : place + 1]), None)


def _attribute(name: str) -> Callable[[Attributes], Any]:
    return lambda attributes: attributes.get(name)


def _differs_at_one_place(frames: Sequence[Attributes], read: Callable[[Attributes], Any]) -> bool:
    seen: dict[object, Any] = {}
    for attributes in frames:
        place = tuple(
            attributes.get(name)
            for name in ("position_mm", "orientation", "stack_id", "temporal_position", "kernel", "kvp", "image_type")
        )
        if seen.setdefault(place, read(attributes)) != read(attributes):
            return True
    return False
