"""Where do finished objects go, under which names, and who takes which kinds?"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

from pacs_bridge.ledger import KeptObject
from pacs_bridge.outputs import FolderOutput
from pacs_bridge.png import write_png_beside
from pacs_bridge.send import Peer, SendOptions, SendResult, send_files
from pacs_bridge.settings import Settings
from pacs_bridge.throttle import Throttle
from pacs_bridge.tls import client_context
from pacs_bridge.transcode_apart import Transcoder
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
    associations: int = 2
    throttle_mb_per_s: float = 0.0
    throttle: Throttle | None = field(default=None, compare=False)
    transcoder: Transcoder | None = field(default=None, compare=False)

    def store(self, paths: Sequence[Path]) -> SendResult:
        """Send files to its peer: no faster than the settings say, and transcoded where it takes no other syntax.

        Without a transcoder, what it does not take as it is is refused.
        """
        if self.peer is None:
            raise ValueError(f"{self.name} is a folder; only a peer is sent to")
        throttle = self.throttle.take if self.throttle else _at_once
        options = SendOptions(transcode=self.transcoder, throttle=throttle)
        return send_files(paths, self.peer, calling_ae=self.calling_ae, options=options)

    def close(self) -> None:
        """Let nobody wait for its line any longer, and end the process that transcodes for it."""
        if self.throttle:
            self.throttle.close()
        if self.transcoder:
            self.transcoder.close()


Destinations = Mapping[str, Destination]


def destinations_of(settings: Settings, *, scratch: Path | None = None) -> Destinations:
    """Return every destination by name: the results folder, then the peers of the settings. Raises SettingsError.

    ``scratch``: where to transcode; without it nothing is.
    """
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
            associations=each.associations,
            throttle_mb_per_s=each.throttle_mb_per_s,
            throttle=Throttle(each.throttle_mb_per_s * 2**20) if each.throttle_mb_per_s else None,
            transcoder=Transcoder(scratch) if scratch else None,
        )
        for each in settings.destination
    }
    results = Destination(name=RESULTS, send=get_args(ObjectKind), folder=folder)
    return {RESULTS: results, **peers}


def deliver(
    destination: Destination,
    objects: Sequence[KeptObject],
    paths: Sequence[Path],
    folder: str,
    *,
    partly: Callable[[Sequence[KeptObject]], None] = lambda _: None,
) -> None:
    """Hand objects over; raises Transient or Permanent. Doing it again is harmless.

    ``partly`` is told what a peer took of them where it did not take all.
    """
    if destination.peer is not None:
        result = destination.store(paths)
        if result.failures:
            partly([each for each, path in zip(objects, paths, strict=True) if path in result.sent])
        result.raise_failure()
        return
    places = {path: destination.folder / folder / name for path, name in zip(paths, file_names(objects), strict=True)}
    FolderOutput(name=destination.name, place=places.__getitem__).deliver(paths)
    try:
        for each, path in zip(objects, paths, strict=True):
            if each.kind in PICTURES_AS_PNG:
                write_png_beside(places[path])
    except OSError as refused:
        raise Transient(f"the results folder cannot be written: {refused.strerror}") from refused


def _at_once(_size_bytes: int) -> None:
    """Let bytes go where nothing limits them."""


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
