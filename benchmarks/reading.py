"""From files in page cache to a volume in Hounsfield units: ours, others', and the floor that memory sets."""

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import peers
from benchmarks.clock import spent_by, two_core_control
from benchmarks.ct_series import EXPLICIT_LE, HTJ2K, INTERCEPT_HU, JPEG_LS, Anatomy, each_slice, write_series
from benchmarks.figures import Bar
from reconstruction.assemble import assemble, pixel_reader
from reconstruction.decode import codec_of
from reconstruction.errors import NotDicom
from reconstruction.headers import Header, pack, read_headers, unpack
from reconstruction.slices import Stack, stacks_of
from reconstruction.volume import Hu

BARS = {
    "ratio_to_dcm2niix": Bar(">=", 2.0),
    "ratio_to_simpleitk": Bar(">=", 4.0),
    "archived_ratio_to_dcm2niix": Bar(">=", 5.0),
    "archived_times_floor": Bar("<=", 1.6),
    "jpegls_two_core_speedup": Bar(">=", 1.8),
    "htj2k_two_core_speedup": Bar(">=", 1.8),
}
_CONTROLS = ("control_speedup", "decoder_control_speedup")
Figures = dict[str, float]
Rows = list[dict[str, Any]]


class Differs(Exception):
    """A reader's voxels are not those that were written: its time says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Series:
    """A series on disk, and what the archive's index would hold of it."""

    anatomy: Anatomy
    folder: Path
    files: Sequence[Path]
    index: Sequence[str]

    @property
    def headers(self) -> list[Header]:
        """Return its headers as the index gives them back."""
        return [_known(unpack(text)) for text in self.index]


def make_series(anatomy: Anatomy, slices: int, folder: Path, *, transfer_syntax: str = EXPLICIT_LE) -> Series:
    """Write a series and index it as an archive does when instances arrive; its files are in page cache then."""
    files = write_series(anatomy, slices, folder, transfer_syntax=transfer_syntax)
    index = [pack(_readable(header)) for header in read_headers(files)]
    return Series(anatomy=anatomy, folder=folder, files=files, index=index)


def never_seen(files: Sequence[Path]) -> Hu:
    """Read files nobody has seen: headers, stacks, volume."""
    return _volume_of([_readable(header) for header in read_headers(files)], files)


def measure_reading(series: Series, scratch: Path, repetitions: int) -> tuple[Figures, Rows, list[str]]:
    """Time every way, one after the other and all again; medians and ratios. Raises Differs where voxels do."""
    absent = peers.absent()
    ways = _ways(series, scratch, absent)
    for name in ("ours", "archived", "floor"):
        ways[name]()
    rows: Rows = []
    for repetition in range(repetitions):
        row: dict[str, Any] = {"what": "reading", "slices": len(series.files), "repetition": repetition + 1}
        for name, way in ways.items():
            voxels, spent = spent_by(way)
            row[f"{name}_s"], row[f"{name}_processor_s"] = spent.wall_s, spent.processor_s
            _refuse_difference(name, voxels, series, scratch)
            del voxels
        rows.append(row)
    return _figures(rows), rows, list(absent.values())


def measure_codec(name: str, transfer_syntax: str, anatomy: Anatomy, slices: int, folder: Path) -> tuple[Figures, Rows]:
    """Time a compressed series read on two threads against its codec alone on one, frames in memory.

    ``control_speedup`` is what two threads of plain arithmetic gain beside it: less than 1.9 is a busy machine.
    ``decoder_control_speedup`` is what the codec alone gains from two threads: no reader around it can gain more.
    """
    series = make_series(anatomy, slices, folder, transfer_syntax=transfer_syntax)
    frames = [_frame(path, header) for path, header in zip(series.files, series.headers, strict=True)]
    decode = codec_of(transfer_syntax)
    rows: Rows = []
    for repetition in range(5):
        _, one_core = spent_by(lambda: [decode(frame) for frame in frames])
        voxels, ours = spent_by(lambda: _volume_of(series.headers, series.files))
        _refuse_difference("ours", voxels, series, folder)
        _, two_cores = spent_by(lambda: _on_two_threads(decode, frames))
        rows.append(
            {
                "what": name,
                "slices": slices,
                "repetition": repetition + 1,
                "one_core_decoder_s": one_core.wall_s,
                "ours_s": ours.wall_s,
                "speedup": one_core.wall_s / ours.wall_s,
                "control_speedup": two_core_control(),
                "decoder_control_speedup": one_core.wall_s / two_cores.wall_s,
                "one_core_decoder_processor_s": one_core.processor_s,
                "ours_processor_s": ours.processor_s,
            }
        )
    medians = {kind: median([row[kind] for row in rows]) for kind in ("speedup", *_CONTROLS)}
    controls = {f"{name}_{kind}": medians[kind] for kind in _CONTROLS}
    return {f"{name}_two_core_speedup": medians["speedup"], **controls}, rows


def _on_two_threads(decode: Callable[[bytes], Any], frames: Sequence[bytes]) -> list[list[Any]]:
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda some: [decode(frame) for frame in some], (frames[::2], frames[1::2])))


def measure_codecs(anatomy: Anatomy, slices: int, folder: Path) -> tuple[Figures, Rows]:
    """Time JPEG-LS and HTJ2K."""
    figures, rows = measure_codec("jpegls", JPEG_LS, anatomy, slices, folder / "jpegls")
    more_figures, more_rows = measure_codec("htj2k", HTJ2K, anatomy, slices, folder / "htj2k")
    return {**figures, **more_figures}, [*rows, *more_rows]


def _ways(series: Series, scratch: Path, absent: Mapping[str, str]) -> dict[str, Callable[[], Any]]:
    places = [(_known(header.pixels_at), header.rows) for header in series.headers]
    ways: dict[str, Callable[[], Any]] = {
        "ours": lambda: never_seen(series.files),
        "archived": lambda: _volume_of(series.headers, series.files),
        "floor": lambda: _floor(series.files, places),
        "cold_command": lambda: _cold_command(series.folder, scratch / "cold.raw"),
    }
    if "dcm2niix" not in absent:
        ways["dcm2niix"] = lambda: peers.run_dcm2niix(series.folder, scratch / "dcm2niix")
    for name, read in peers.READERS.items():
        if name not in absent:
            ways[name] = lambda read=read: read(series.folder)  # type: ignore[misc]
    return ways


def _figures(rows: Rows) -> Figures:
    times = {key: median([row[key] for row in rows]) for key in rows[0] if key.endswith("_s")}
    ours, archived = times["ours_s"], times["archived_s"]
    figures = {f"read_{key}": value for key, value in times.items() if not key.endswith("_processor_s")}
    for peer in ("dcm2niix", "simpleitk", "dicomsdl", "pydicom"):
        if f"{peer}_s" in times:
            figures[f"ratio_to_{peer}"] = times[f"{peer}_s"] / ours
            figures[f"archived_ratio_to_{peer}"] = times[f"{peer}_s"] / archived
    if "dcm2niix_s" in times:
        figures["processor_ratio_to_dcm2niix"] = times["dcm2niix_processor_s"] / times["ours_processor_s"]
        figures["cold_command_ratio_to_dcm2niix"] = times["dcm2niix_s"] / times["cold_command_s"]
    figures["archived_times_floor"] = archived / times["floor_s"]
    return figures


def _volume_of(headers: Sequence[Header], files: Sequence[Path]) -> Hu:
    paths = {header.sop_instance_uid: path for header, path in zip(headers, files, strict=True)}
    (stack,) = stacks_of(headers)
    if not isinstance(stack, Stack):
        raise Differs(f"the series is refused: {stack.reason}")
    return assemble(stack, pixel_reader(paths)).volume.hu


def _floor(files: Sequence[Path], places: Sequence[tuple[int, int]]) -> Hu:
    """Read the pixels' bytes into a fresh array with two threads and add a constant: nothing can be faster."""
    rows = places[0][1]
    hu = np.empty((len(files), rows, rows), dtype=np.int16)

    def fill(span: range) -> None:
        for k in span:
            with files[k].open("rb", buffering=0) as file:
                file.seek(places[k][0])
                file.readinto(memoryview(hu[k]).cast("B"))
            np.add(hu[k], np.int16(INTERCEPT_HU), out=hu[k])

    middle = len(files) // 2
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(fill, (range(middle), range(middle, len(files)))))
    return hu


def _cold_command(folder: Path, out: Path) -> None:
    """Start a fresh interpreter that reads the folder and writes the volume into memory, as dcm2niix does."""
    subprocess.run([sys.executable, "-m", "benchmarks.one_series", "write", str(folder), str(out)], check=True)


def _refuse_difference(name: str, voxels: Any, series: Series, scratch: Path) -> None:
    """Compare a reader's voxels with what was written, up to flips; files that a command wrote are read for that."""
    side = series.anatomy.painted.shape[1]
    if name == "dcm2niix":
        (path,) = (scratch / "dcm2niix").glob("*.nii")
        voxels = peers.read_nifti(path)
    elif name == "cold_command":
        voxels = np.fromfile(scratch / "cold.raw", dtype=np.int16).reshape(-1, side, side)
    voxels = peers.voxels_of(voxels)
    expected = each_slice(series.anatomy, len(series.files))
    flips = ((1, 1), (-1, 1), (1, -1), (-1, -1)) if name in peers.READERS or name == "dcm2niix" else ((1, 1),)
    candidates = [voxels[::k, ::j] for k, j in flips]
    for n, slice_hu in enumerate(expected):
        candidates = [each for each in candidates if len(each) == len(series.files) and _same(each[n], slice_hu)]
    if not candidates:
        raise Differs(f"{name}: its voxels are not those that were written")


def _same(one: npt.NDArray[Any], other: Hu) -> bool:
    return bool(np.array_equal(one, other))


def _frame(path: Path, header: Header) -> bytes:
    """Return the one frame of an encapsulated image: after the empty offset table and the item's tag and length."""
    content = path.read_bytes()
    start = _known(header.pixels_at) + 16
    return content[start : start + int.from_bytes(content[start - 4 : start], "little")]


def _readable(header: Header | NotDicom) -> Header:
    if isinstance(header, NotDicom):
        raise header
    return header


def _known(value: Any) -> Any:
    if value is None:
        raise Differs("the index does not hold what assembling needs")
    return value
