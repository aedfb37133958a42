"""Where do the results of one reconstruction lie: DICOM objects, and beside them what other programs open?"""

import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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

    Whatever stands there under its name is whole: series and files are made aside, and put in their place once they
    are complete. A series replaces the one of its name from an earlier run, whatever its length. Raises OSError.
    """

    def __init__(self, out: Path, progress: ShowProgress, view: Window | None = None) -> None:
        """Make the folder; ``view`` is the window in which CT is drawn as PNG (None: one for its kind)."""
        out.mkdir(parents=True, exist_ok=True)
        self.outputs: list[dict[str, str]] = []
        self.out, self._progress, self._view = out, progress, view

    @contextmanager
    def series(self, name: str) -> Iterator[None]:
        """Let images be added to a series; it is put in its place when all went well, and dropped when not.

        Only what an earlier run left of this series goes; files of other names stay.
        """
        aside = self._aside(name)
        shutil.rmtree(aside, ignore_errors=True)  # of a run that was killed
        aside.mkdir()
        try:
            yield
            _replace_series(aside, self.out / name)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def add_images(self, name: str, images: Iterable[ResultObject], total: int, shown: ShowsPicture) -> None:
        """Write images of a begun series by their numbers, and a PNG of those whose number is ``shown``."""
        for each in images:
            path = self._aside(name) / f"{each.index:04d}.dcm"
            path.write_bytes(each.part10)
            self._list(self.out / name / path.name, each.kind)
            if shown(each.index):
                self._list(self.out / name / self._drawn(path, each).name, each.kind)
            self._progress(name, each.index, total)

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """Show on the terminal that something goes on that has no steps to count."""
        self._progress(what, 0, 1)
        yield
        self._progress(what, 1, 1)

    def add_object(self, name: str, built: ResultObject, *, picture: bool) -> None:
        """Write a single object as ``name``.dcm, as a picture also as PNG."""
        self.add_file(f"{name}.dcm", built.kind, lambda path: path.write_bytes(built.part10))
        if picture:
            self._list(self._drawn(self.out / f"{name}.dcm", built), built.kind)

    def add_file(self, name: str, kind: ObjectKind | str, write: Callable[[Path], object]) -> None:
        """Let ``write`` make a file of another format, and list it."""
        aside = self.out / f".part-{name}"  # its end says which format it is
        try:
            write(aside)
            aside.replace(self.out / name)
        finally:
            aside.unlink(missing_ok=True)
        self._list(self.out / name, kind)

    def _aside(self, name: str) -> Path:
        return self.out / f".{name}.part"

    def _drawn(self, path: Path, built: ResultObject) -> Path:
        return write_png(pydicom.dcmread(BytesIO(built.part10)), path.with_suffix(".png"), self._view)

    def _list(self, path: Path, kind: str) -> None:
        self.outputs.append({"path": str(path), "kind": kind})


def _replace_series(made: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        if _OF_A_SERIES.fullmatch(old.name):
            old.unlink()
    for each in sorted(made.iterdir()):
        each.replace(folder / each.name)


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
