"""Where do finished objects go, under which names, and who takes which kinds?"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

from pacs_bridge.ledger import KeptObject
from pacs_bridge.outputs import FolderOutput, StoreOutput
from pacs_bridge.png import write_png_beside
from pacs_bridge.send import Peer
from pacs_bridge.settings import Settings
from pacs_bridge.tls import client_context
from pipeline.model import ObjectKind
from scheduler.errors import Transient

RESULTS = "results"
"""The folder below state_dir that always gets everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """One place that results go to: a peer, or a folder where ``peer`` is None."""

    name: str
    send: tuple[ObjectKind, ...]
    folder: Path
    peer: Peer | None = None
    calling_ae: str = "CTRIAGE"


Destinations = Mapping[str, Destination]


def destinations_of(settings: Settings) -> Destinations:
    """Return every destination by name: the results folder, then the peers of the settings. Raises SettingsError."""
    folder = settings.state_dir / RESULTS
    secure = any(each.tls for each in settings.destination)
    context = client_context(settings.tls, now=datetime.now(UTC)) if secure else None
    peers = {
        each.name: Destination(
            name=each.name,
            send=each.send,
            folder=folder,
            peer=Peer(ae_title=each.ae_title, host=each.host, port=each.port, tls=context if each.tls else None),
            calling_ae=settings.listener.ae_title,
        )
        for each in settings.destination
    }
    return {RESULTS: Destination(name=RESULTS, send=get_args(ObjectKind), folder=folder), **peers}


def deliver(destination: Destination, objects: Sequence[KeptObject], paths: Sequence[Path], folder: str) -> None:
    """Hand objects over; raises Transient or Permanent. Doing it again is harmless."""
    if destination.peer is not None:
        StoreOutput(name=destination.name, peer=destination.peer, calling_ae=destination.calling_ae).deliver(paths)
        return
    places = {path: destination.folder / folder / name for path, name in zip(paths, file_names(objects), strict=True)}
    FolderOutput(name=destination.name, place=places.__getitem__).deliver(paths)
    try:
        for each, path in zip(objects, paths, strict=True):
            if each.kind in PICTURES_AS_PNG:
                write_png_beside(places[path])
    except OSError as refused:
        raise Transient(f"the results folder cannot be written: {refused.strerror}") from refused


PICTURES_AS_PNG: tuple[ObjectKind, ...] = ("mip", "minip", "curved", "needle", "render", "summary")
"""Kinds of which each image is a picture by itself; of the hundreds of an MPR or isotropic series none is made."""


def file_names(objects: Sequence[KeptObject]) -> list[str]:
    """Name the file of each object: its kind, and numbers where a kind has several series or images."""
    series: dict[str, list[str]] = {}
    for each in objects:
        of_kind = series.setdefault(each.kind, [])
        if each.series_instance_uid not in of_kind:
            of_kind.append(each.series_instance_uid)
    images = Counter(each.series_instance_uid for each in objects)
    seen: Counter[str] = Counter()
    names = []
    for each in objects:
        seen[each.series_instance_uid] += 1
        name = each.kind if len(series[each.kind]) == 1 else _numbered(each, series[each.kind])
        many = images[each.series_instance_uid] > 1
        names.append(f"{name}/{seen[each.series_instance_uid]:04d}.dcm" if many else f"{name}.dcm")
    return names


def _numbered(each: KeptObject, series: Sequence[str]) -> str:
    return f"{each.kind}_{series.index(each.series_instance_uid) + 1}"
