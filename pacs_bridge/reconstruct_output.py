"""Where do the results of one reconstruction lie: DICOM objects, and beside them what other programs open?"""

import re
import shutil
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path

import pydicom

from pacs_bridge.offline import ShowProgress
from pacs_bridge.png import write_png
from pipeline.model import ObjectKind, ResultObject
from reconstruction.render import Window

_OF_A_SERIES = re.compile(r"\d{4,}\.(dcm|png)")

ShowsPicture = Callable[[int], bool]


class ResultFolder:
    """A folder that results are written into; it keeps the list of what lies there.

    A series replaces the one of its name from an earlier run, whatever its length. Raises OSError.
    """

    def __init__(self, out: Path, progress: ShowProgress, view: Window | None = None) -> None:
        """Make the folder; ``view`` is the window in which CT is drawn as PNG (None: one for its kind)."""
        out.mkdir(parents=True, exist_ok=True)
        self.outputs: list[dict[str, str]] = []
        self.out, self._progress, self._view = out, progress, view

    def begin_series(self, name: str) -> None:
        """Clear the folder of a series of what an earlier run left there; files of other names stay."""
        folder = self.out / name
        folder.mkdir(exist_ok=True)
        for old in folder.iterdir():
            if _OF_A_SERIES.fullmatch(old.name):
                old.unlink()

    def add_images(self, name: str, images: Iterable[ResultObject], total: int, shown: ShowsPicture) -> None:
        """Write images of a series by their numbers, and a PNG of those whose number is ``shown``."""
        for each in images:
            path = self.out / name / f"{each.index:04d}.dcm"
            self._write(path, each)
            if shown(each.index):
                self._draw(path, each)
            self._progress(name, each.index, total)

    def add_object(self, name: str, built: ResultObject, *, picture: bool) -> None:
        """Write a single object as ``name``.dcm, as a picture also as PNG."""
        path = self.out / f"{name}.dcm"
        self._write(path, built)
        if picture:
            self._draw(path, built)

    def add_file(self, name: str, kind: ObjectKind | str, write: Callable[[Path], object]) -> None:
        """Let ``write`` make a file of another format, and list it."""
        path = self.out / name
        write(path)
        self._list(path, kind)

    def _write(self, path: Path, built: ResultObject) -> None:
        path.write_bytes(built.part10)
        self._list(path, built.kind)

    def _draw(self, path: Path, built: ResultObject) -> None:
        self._list(write_png(pydicom.dcmread(BytesIO(built.part10)), path.with_suffix(".png"), self._view), built.kind)

    def _list(self, path: Path, kind: str) -> None:
        self.outputs.append({"path": str(path), "kind": kind})


def can_be_written(out: Path) -> str | None:
    """Say why nothing can be written below ``out``, None where it can; leaves nothing behind that was not there."""
    existing = next(each for each in (out, *out.absolute().parents) if each.exists())
    probe = existing / ".ctriage-probe"
    try:
        probe.mkdir()
    except OSError as refused:
        return f"{out} cannot be written: {refused.strerror}"
    shutil.rmtree(probe, ignore_errors=True)
    return None
