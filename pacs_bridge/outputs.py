"""How do result objects get into a folder, each whole or not at all?"""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pacs_bridge.files import sync_folder
from scheduler.errors import Permanent, Transient


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderOutput:
    """Delivers by copying files to where ``place`` says, below ``state_dir/results`` by study key and version."""

    name: str
    place: Callable[[Path], Path]

    def deliver(self, objects: Sequence[Path]) -> None:
        """See pipeline.ports.Output; each file appears whole or not at all."""
        for source in objects:
            if not source.is_file():
                raise Permanent(f"a result file is gone: {source.name}")
            try:
                copy_whole(source, self.place(source))
            except OSError as refused:
                raise Transient(f"the results folder cannot be written: {refused.strerror}") from refused


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file so that it appears under its name complete and durable, over whatever was there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with source.open("rb") as reading, aside.open("wb") as writing:
            shutil.copyfileobj(reading, writing, 1 << 20)
            writing.flush()
            os.fsync(writing.fileno())
        aside.replace(target)
        sync_folder(target.parent)
    finally:
        aside.unlink(missing_ok=True)
