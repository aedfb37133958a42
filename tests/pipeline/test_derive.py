"""Which stacks are pictured, and does what cannot be pictured become a note?"""

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from pipeline.derive import Captured, Remark, StackPlanes, StackSurface, StackTurn, best_stacks, derive, in_cubes
from pipeline.errors import SeriesBrokenOff
from pipeline.model import HEMORRHAGE, ExaminedStack, Finding, PictureOptions, Provenance, Report, Role
from pipeline.phantom.patient import make_patient
from pipeline.phantom.scan import ScanOptions
from pipeline.phantom.series import write_series
from pipeline.process import Source, assemble_report, process_series
from reconstruction.geometry import Geometry
from reconstruction.headers import read_header
from reconstruction.planes import Planes
from reconstruction.surface import from_stl, watertight
from reconstruction.volume import Mask

NOTHING = PictureOptions(mpr=False, mip=False, render=False)
SMALL = PictureOptions(mpr_step_mm=40, mpr_thickness_mm=40, render=False)
PROVENANCE = Provenance(code_version="1", detector_versions={}, settings_hash="")


def geometry(slices: int, step_mm: float, frame: str | None) -> Geometry:
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, :3] = [[0, 0, 1], [0, 1, 0], [step_mm, 0, 0]]
    return Geometry(affine=affine, shape=(slices, 8, 8), frame_of_reference_uid=frame)


def row(
    number: int, *, slices: int = 10, step_mm: float = 5.0, frame: str | None = "1.9", **more: Any
) -> ExaminedStack:
    values: dict[str, Any] = {
        "series_instance_uid": f"1.2.{number}",
        "series_number": number,
        "series_description": "",
        "stack": 1,
        "role": Role.VOLUME,
        "instances": tuple(f"{number}.{n}" for n in range(slices)),
        "reason": None,
        "geometry": geometry(slices, step_mm, frame),
        "nominal_step_mm": step_mm,
    }
    return ExaminedStack(**(values | more))


def finding(of: ExaminedStack) -> Finding:
    assert of.geometry is not None
    bits = np.zeros(of.geometry.shape, dtype=np.bool_)
    bits[1, 2:4, 2:4] = True
    return Finding(
        kind="hemorrhage",
        subtype="",
        code=HEMORRHAGE,
        probability=0.9,
        region=Mask.cropped_from(bits, of.geometry),
        volume_ml=1.0,
        centroid_lps_mm=(0.0, 0.0, 0.0),
        detector="d",
        series_instance_uid=of.series_instance_uid,
        stack=of.stack,
    )


def report(*rows: ExaminedStack, findings: Sequence[Finding] = ()) -> Report:
    made = assemble_report("1.2", [], PROVENANCE)
    return replace(made, examined=rows, findings=tuple(findings), committed_at=datetime(2026, 3, 1, tzinfo=UTC))


def chosen(made: Report) -> list[int | None]:
    return [rows[0].series_number for rows in best_stacks(made)]


# ---- which stacks ---------------------------------------------------------------------------------------------------


def test_of_one_scan_the_finest_slices_are_pictured() -> None:
    assert [2] == chosen(report(row(1), row(2, step_mm=0.625), row(3, step_mm=1.0)))


def test_of_equally_fine_stacks_the_one_with_most_slices() -> None:
    assert [2] == chosen(report(row(1), row(2, slices=20), row(3, slices=15)))


def test_a_stack_with_findings_comes_before_finer_ones() -> None:
    coarse, fine = row(1), row(2, step_mm=0.625)
    assert [1] == chosen(report(coarse, fine, findings=[finding(coarse)]))
    assert [2] == chosen(report(coarse, fine, findings=[finding(coarse), finding(fine), finding(fine)]))


def test_each_frame_of_reference_has_its_own_pictures() -> None:
    assert [1, 3] == chosen(report(row(1), row(2, step_mm=6.0), row(3, frame="1.8")))


def test_series_that_name_no_frame_of_reference_are_scans_of_their_own() -> None:
    assert [1, 2] == chosen(report(row(1, frame=None), row(2, frame=None)))


def test_what_has_no_geometry_has_no_pictures() -> None:
    assert [] == chosen(report(row(1, geometry=None, role=Role.LOCALIZER)))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_order_of_the_rows_does_not_matter(order: tuple[int, int]) -> None:
    rows = (row(1), row(2, step_mm=1.0))
    assert [2] == chosen(report(*(rows[n] for n in order)))


# ---- which pictures -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tilted(shared_data: Path) -> list[Path]:
    """Return the files of a real, tilted scan of four slices."""
    return sorted((shared_data / "geometry_faults" / "gantrytilting").rglob("*.dcm"))


def examined(files: Sequence[Path]) -> tuple[Report, dict[str, Source]]:
    """Return the Report of files of one or more series without any detector, and its sources by UID."""
    sources = [Source(header=read_header(path), path=path) for path in files]
    series = sorted({s.header.series_instance_uid for s in sources})
    results = [process_series([s for s in sources if s.header.series_instance_uid == uid], []) for uid in series]
    made = assemble_report("1.2", results, PROVENANCE)
    return replace(made, committed_at=datetime(2026, 3, 1, tzinfo=UTC)), {s.header.sop_instance_uid: s for s in sources}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pictures:
    """All products of one Report."""

    planes: tuple[StackPlanes, ...]
    captures: tuple[Captured, ...]
    notes: tuple[str, ...]


def derived(made: Report, sources: dict[str, Source], options: PictureOptions = SMALL) -> Pictures:
    products = list(derive(made, sources, options, language="en", study_key="0123456789ab"))
    assert ["summary"] == [each.kind for each in products[-1:] if isinstance(each, Captured)]
    return Pictures(
        planes=tuple(each for each in products if isinstance(each, StackPlanes)),
        captures=tuple(each for each in products if isinstance(each, Captured)),
        notes=tuple(each.text for each in products if isinstance(each, Remark)),
    )


def kinds(pictures: Pictures) -> set[tuple[str, str]]:
    return {(each.planes.kind, each.planes.orientation) for each in pictures.planes}


def test_a_real_tilted_stack_gets_its_planes_and_the_page(tilted: list[Path]) -> None:
    pictures = derived(*examined(tilted))
    assert {("mpr", "coronal"), ("mpr", "sagittal")} < kinds(pictures)
    assert {"mip", "mpr"} == {kind for kind, _ in kinds(pictures)}
    assert (["summary"], ()) == ([each.kind for each in pictures.captures], pictures.notes)


def test_what_is_switched_off_is_not_made_and_the_page_stays(tilted: list[Path]) -> None:
    made, sources = examined(tilted)
    assert {"mip"} == {kind for kind, _ in kinds(derived(made, sources, replace(SMALL, mpr=False)))}
    assert {"mpr"} == {kind for kind, _ in kinds(derived(made, sources, replace(SMALL, mip=False)))}
    nothing = derived(made, sources, NOTHING)
    assert ((), ["summary"]) == (nothing.planes, [each.kind for each in nothing.captures])


def test_where_there_is_no_bone_its_rendering_is_a_note(tilted: list[Path]) -> None:
    made, sources = examined(tilted)
    pictures = derived(made, sources, replace(NOTHING, render=True))
    rendered = any(each.kind == "render" for each in pictures.captures)
    noted = any("no 3D rendering: no bone in the image" in note for note in pictures.notes)
    assert (rendered, noted) == (False, True)  # the pixels of this series are scrubbed


def copied(files: Sequence[Path], folder: Path, change: Any = None) -> list[Path]:
    """Copy files as a series of their own, each changed."""
    folder.mkdir()
    copies = []
    for n, path in enumerate(files):
        dataset = pydicom.dcmread(path)
        dataset.SeriesInstanceUID = generate_uid(prefix="2.25.", entropy_srcs=[folder.name])
        dataset.SOPInstanceUID = generate_uid(prefix="2.25.", entropy_srcs=[folder.name, str(n)])
        if change:
            change(dataset, n)
        dataset.save_as(folder / path.name)
        copies.append(folder / path.name)
    return copies


def cut_pixels(dataset: pydicom.Dataset, n: int) -> None:
    dataset.PixelData = dataset.PixelData[:100]


def one_frame(dataset: pydicom.Dataset, n: int) -> None:
    dataset.FrameOfReferenceUID = "1.2.3.9"


def one_frame_cut(dataset: pydicom.Dataset, n: int) -> None:
    one_frame(dataset, n)
    cut_pixels(dataset, n)


def test_a_stack_that_cannot_be_read_is_a_note_and_the_page_is_made(tilted: list[Path], tmp_path: Path) -> None:
    pictures = derived(*examined(copied(tilted, tmp_path / "cut", cut_pixels)))
    (note,) = pictures.notes
    assert ((), ["summary"], True) == (
        pictures.planes,
        [each.kind for each in pictures.captures],
        "no pictures: slice" in note,
    )


def test_where_the_best_stack_cannot_be_read_the_next_of_its_scan_is_pictured(
    tilted: list[Path], tmp_path: Path
) -> None:
    good, bad = copied(tilted, tmp_path / "whole", one_frame), copied(tilted, tmp_path / "cut", one_frame_cut)
    made, sources = examined([*good, *bad])
    whole = next(each for each in made.examined if sources[each.instances[0]].path.parent.name == "whole")
    cut = next(each for each in made.examined if each is not whole)
    # The broken one would be preferred: it claims finer slices.
    made = replace(made, examined=(replace(cut, nominal_step_mm=0.1), whole))
    pictures = derived(made, sources)
    assert {whole.series_instance_uid} == {each.stack.series_instance_uid for each in pictures.planes}
    assert any("no pictures: slice" in note for note in pictures.notes)


def test_a_file_that_vanished_is_a_note(tilted: list[Path], tmp_path: Path) -> None:
    copies = copied(tilted, tmp_path / "copy")
    made, sources = examined(copies)
    copies[0].unlink()
    assert ["summary"] == [each.kind for each in derived(made, sources).captures]
    assert any("cannot be opened" in note for note in derived(made, sources).notes)


def a_frame_of_its_own(dataset: pydicom.Dataset, n: int) -> None:
    dataset.FrameOfReferenceUID = f"1.2.3.{n}"


def test_slices_that_each_name_a_frame_of_reference_are_pictured_as_they_were_examined(
    tilted: list[Path], tmp_path: Path
) -> None:
    made, sources = examined(copied(tilted, tmp_path / "scrambled", a_frame_of_its_own))
    pictures = derived(made, sources)
    assert () == pictures.notes
    assert {"mip", "mpr"} == {kind for kind, _ in kinds(pictures)}


def test_no_two_pictures_stand_in_memory_for_one_that_lets_them_go(tilted: list[Path]) -> None:
    made, sources = examined(tilted)
    alive: list[weakref.ref[np.ndarray[Any, Any]]] = []
    for product in derive(made, sources, SMALL, language="en", study_key="0123456789ab"):
        assert [] == [each for each in alive if each() is not None]
        if isinstance(product, StackPlanes):
            alive.append(weakref.ref(product.planes.hu))
        del product
    assert 5 == len(alive)


# ---- what is made where it is asked for ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    options = ScanOptions(rows=96, columns=96, slice_count=24, tilt_deg=12.0, detail_mm=2.0)
    patient = make_patient("head", seed=3, options=options)
    return list(write_series(patient, tmp_path_factory.mktemp("head")).files)


def test_an_isotropic_series_comes_in_batches_that_count_on_and_lies_where_the_head_does(head: list[Path]) -> None:
    made, sources = examined(head)
    batches = derived(made, sources, replace(NOTHING, isotropic=True, isotropic_mm=2.0)).planes
    counts = [len(each.planes.hu) for each in batches]
    assert {("isotropic", "axial")} == {(each.planes.kind, each.planes.orientation) for each in batches}
    assert [sum(counts[:n]) for n in range(len(counts))] == [each.images_before for each in batches]
    assert {(2.0, 2.0)} == {each.planes.pixel_spacing_mm for each in batches}
    geometry = made.examined[0].geometry
    assert geometry is not None
    middle = geometry.to_mm((np.array(geometry.shape) - 1) / 2.0)
    heights = np.concatenate([each.planes.origins_lps_mm[:, 2] for each in batches])
    assert heights.min() < middle[2] < heights.max()


def test_turning_renderings_and_surfaces_are_made_where_they_are_asked_for(head: list[Path]) -> None:
    made, sources = examined(head)
    options = replace(NOTHING, turn=("brain",), turn_frames=4, surfaces=("bone",))
    products = list(derive(made, sources, options, language="en", study_key="0123456789ab"))
    turns = [each for each in products if isinstance(each, StackTurn)]
    models = [each for each in products if isinstance(each, StackSurface)]
    assert ["brain"] == [each.preset for each in turns]
    assert all(int(np.ptp(each.rgb.astype(np.int16), axis=0).max()) > 100 for each in turns)  # it turns
    assert ["bone"] == [each.tissue for each in models]
    assert () == watertight(from_stl(models[0].stl))


def test_a_view_in_space_that_cannot_be_made_is_a_note_and_the_others_are_made(tilted: list[Path]) -> None:
    made, sources = examined(tilted)  # the pixels of this series are scrubbed
    pictures = derived(made, sources, replace(SMALL, turn=("brain", "vessel"), surfaces=("bone", "skin")))
    named = ("turning rendering (brain)", "turning rendering (vessel)", "surface (bone)", "surface (skin)")
    assert [True] * 4 == [any(f"no {name}: " in note for note in pictures.notes) for name in named]
    assert {("mpr", "coronal"), ("mpr", "sagittal")} < kinds(pictures)


def test_half_an_isotropic_series_is_never_taken_for_a_whole_one(tilted: list[Path]) -> None:
    made, _ = examined(tilted)

    class Failing:
        """Slabs of which the second does not fit into memory, or is not to be had at all."""

        def __init__(self, batches: int) -> None:
            self.batches = batches

        def slabs(self) -> Iterator[Planes]:
            for _ in range(self.batches):
                yield planes
            raise MemoryError

    planes = next(iter(derived(*examined(tilted)).planes)).planes
    with pytest.raises(SeriesBrokenOff, match=f"after {len(planes.hu)} images"):
        list(in_cubes(Failing(1), made.examined[0]))
    with pytest.raises(MemoryError):
        list(in_cubes(Failing(0), made.examined[0]))
