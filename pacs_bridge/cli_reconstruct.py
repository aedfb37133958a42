"""``ctriage reconstruct``: one stack of images as isotropic series, planes, views, surfaces, renderings or NIfTI."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, Field, dataclass, fields, replace
from datetime import UTC, datetime
from inspect import Parameter, Signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from pacs_bridge.cli_options import AsJson, Config, ExitStatus, Out, Paths, Set, settings_from

if TYPE_CHECKING:
    from pacs_bridge.reconstruct import Figures, Job, Point
    from pacs_bridge.results.texts import Language
    from pacs_bridge.terminal import ShowProgress
    from reconstruction.render import Window

reconstruct = typer.Typer(
    help="""Rebuild one stack of CT images, offline: DICOM objects, pictures as PNG, volumes as NIfTI.

    Coordinates are the patient's in millimetres as DICOM has them (LPS: x to the left, y to the back, z to the head),
    three numbers with commas between. Exit status: 0 made, 1 not to be had from these images, 2 wrongly asked for.
    """,
    no_args_is_help=True,
)


PlaneName = Literal["axial", "coronal", "sagittal"]
ProjectionName = Literal["mean", "mip", "minip"]
WindowName = Literal["bone", "brain", "lung", "soft"]


def _option(name: str, metavar: str | None, text: str) -> Any:
    return typer.Option(name, metavar=metavar, help=text)


_Where = Annotated[str | None, _option("--centre", "X,Y,Z", "A point in the middle picture; else the volume's centre.")]
_Nifti = Annotated[bool, _option("--nifti", None, "Write the volume as .nii.gz too.")]
_WindowOf = Annotated[
    WindowName | None,
    _option("--window", None, "How pictures (PNG) are windowed; else soft, MIP as bone, MinIP as lung."),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """What every kind asks for: the images, where results go, and which stack is meant."""

    paths: Paths
    out: Out
    series: Annotated[
        str | None, _option("--series", "UID|NUMBER", "The series to rebuild; else the finest stack there is.")
    ] = None
    stack: Annotated[int | None, typer.Option("--stack", metavar="N", min=1, help="Its stack, from 1.")] = None
    as_json: AsJson = False
    config: Config = None
    overrides: Set = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OfIsotropic:
    """How fine, and how shown."""

    spacing: Annotated[
        float | None,
        _option("--spacing", "MM", "Edge of a voxel; else a pixel's or a third of the slices' distance, at most 1."),
    ] = None
    nifti: _Nifti = False
    window: _WindowOf = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OfPlanes:
    """Which planes, how thick, how many."""

    plane: Annotated[PlaneName | None, _option("--plane", None, "A standard orientation; coronal if none.")] = None
    normal: Annotated[str | None, _option("--normal", "X,Y,Z", "A direction to look along instead.")] = None
    centre: _Where = None
    thickness: Annotated[float, _option("--thickness", "MM", "Thickness of a slab; 0: what lies in the plane.")] = 3.0
    step: Annotated[float | None, _option("--step", "MM", "Distance of pictures; else the thickness.")] = None
    count: Annotated[int | None, _option("--count", "N", "Number of pictures; else as many as there is room for.")] = (
        None
    )
    projection: Annotated[ProjectionName, _option("--projection", None, "What of a slab a pixel shows.")] = "mean"
    nifti: _Nifti = False
    window: _WindowOf = None


def isotropic(common: Common, wished: OfIsotropic) -> None:
    """Make an axial series of cubic voxels."""

    def make(job: "Job") -> "Figures":
        from pacs_bridge.reconstruct import make_isotropic

        return make_isotropic(job, wished.spacing, nifti=wished.nifti)

    _run(common, "isotropic", wished, make)


def mpr(common: Common, wished: OfPlanes) -> None:
    """Make parallel planes or slabs of any orientation: MPR, MIP or MinIP."""
    if wished.plane is not None and wished.normal is not None:
        raise typer.BadParameter("--plane and --normal both say where the planes face: give one of them")
    plane = wished.plane or "coronal"
    normal = None if wished.normal is None else point("--normal", wished.normal)
    centre = None if wished.centre is None else point("--centre", wished.centre)

    def make(job: "Job") -> "Figures":
        from pacs_bridge.reconstruct import make_planes
        from reconstruction.planes import Slab

        slab = Slab(
            thickness_mm=wished.thickness, step_mm=wished.step, count=wished.count, projection=wished.projection
        )
        return make_planes(job, normal or plane, centre, slab, nifti=wished.nifti)

    _run(common, "mpr", wished, make)


@dataclass(frozen=True, slots=True, kw_only=True)
class OfCurved:
    """Which path, and how it is laid out."""

    points: Annotated[str, _option("--points", "FILE|X,Y,Z ...", "The path: points in quotes, or a file of them.")]
    unroll: Annotated[
        Literal["straightened", "stretched"],
        _option("--unroll", None, "Rows across the path (vessels), or along one direction (spine)."),
    ] = "straightened"
    across: Annotated[str | None, _option("--across", "X,Y,Z", "Where rows point; else right to left.")] = None
    width: Annotated[float, _option("--width", "MM", "How far rows reach.")] = 80.0
    thickness: Annotated[float, _option("--thickness", "MM", "Thickness of the slab; 0: what lies on the surface.")] = (
        0.0
    )
    projection: Annotated[ProjectionName, _option("--projection", None, "What of a slab a pixel shows.")] = "mean"
    window: _WindowOf = None


def curved(common: Common, wished: OfCurved) -> None:
    """Straighten what is bent: a curved reformat along a path through a spine or a vessel."""
    path = points("--points", wished.points)
    across = None if wished.across is None else point("--across", wished.across)

    def make(job: "Job") -> "Figures":
        from pacs_bridge.reconstruct import make_curved
        from reconstruction.curved import Look

        look = Look(
            unrolling=wished.unroll,
            across=across,
            width_mm=wished.width,
            thickness_mm=wished.thickness,
            projection=wished.projection,
        )
        return make_curved(job, path, look, _view(wished.window or "soft"))

    _run(common, "curved", replace(wished, points=json.dumps(path)), make)


@dataclass(frozen=True, slots=True, kw_only=True)
class OfNeedle:
    """Which path."""

    entry: Annotated[str, _option("--entry", "X,Y,Z", "Where the needle enters.")]
    target: Annotated[str, _option("--target", "X,Y,Z", "Where its tip shall be.")]
    thickness: Annotated[float, _option("--thickness", "MM", "Thickness of the planes; 0: what lies in them.")] = 0.0
    projection: Annotated[ProjectionName, _option("--projection", None, "What of a slab a pixel shows.")] = "mean"
    window: _WindowOf = None


def needle(common: Common, wished: OfNeedle) -> None:
    """Show a needle's path from entry to target in two planes at right angles, with its length and angles."""
    ends = point("--entry", wished.entry), point("--target", wished.target)

    def make(job: "Job") -> "Figures":
        from pacs_bridge.reconstruct import make_needle
        from reconstruction.planes import Slab

        slab = Slab(thickness_mm=wished.thickness, count=1, projection=wished.projection)
        return make_needle(job, ends, slab, _view(wished.window or "soft"))

    _run(common, "needle", wished, make)


@dataclass(frozen=True, slots=True, kw_only=True)
class OfSurface:
    """Of what, and how fine."""

    tissue: Annotated[Literal["bone", "skin"], _option("--tissue", None, "Whose surface.")] = "bone"
    triangles: Annotated[
        int, typer.Option("--triangles", metavar="N", min=100, max=5_000_000, help="About how many triangles.")
    ] = 200_000


def surface(common: Common, wished: OfSurface) -> None:
    """Make the closed surface of bone or skin as a model for 3D printing (STL), and a picture of it from four sides.

    A face may be known by its skin.
    """

    def make(job: "Job") -> "Figures":
        from pacs_bridge.reconstruct_3d import make_surface

        return make_surface(job, wished.tissue, wished.triangles)

    _run(common, "surface", wished, make)


@dataclass(frozen=True, slots=True, kw_only=True)
class OfTurn:
    """What is shown, and how many pictures make a turn."""

    preset: Annotated[Literal["bone", "brain", "vessel"], _option("--preset", None, "What is shown.")] = "bone"
    frames: Annotated[int, typer.Option("--frames", metavar="N", min=1, max=720, help="Pictures of a whole turn.")] = 36
    size: Annotated[int, typer.Option("--size", metavar="N", min=64, max=2048, help="Pixels of a picture's side.")] = (
        512
    )


def turn(common: Common, wished: OfTurn) -> None:
    """Render bone, brain or vessels while turning round the patient."""

    def make(job: "Job") -> "Figures":
        from pacs_bridge.reconstruct_3d import make_turn

        return make_turn(job, wished.preset, wished.frames, wished.size)

    _run(common, "turn", wished, make)


@dataclass(frozen=True, slots=True, kw_only=True)
class OfNifti:
    """Nothing besides what is common."""


def nifti(common: Common, wished: OfNifti) -> None:
    """Write the volume in Hounsfield units as NIfTI, with a tilted gantry's shear; uneven slices are evened out."""

    def make(job: "Job") -> "Figures":
        from pacs_bridge.reconstruct import make_nifti

        return make_nifti(job)

    _run(common, "nifti", wished, make)


def point(option: str, text: str) -> "Point":
    """Read X,Y,Z in millimetres; three finite numbers."""
    try:
        x, y, z = (float(part) for part in text.replace(",", " ").split())
    except ValueError:
        x = y = z = math.nan
    if not all(math.isfinite(value) for value in (x, y, z)):
        raise typer.BadParameter(f"{option} {text}: write it as three numbers, such as -12.5,30,104")
    return x, y, z


def points(option: str, text: str) -> list["Point"]:
    """Read points X,Y,Z with spaces between, or a file of one to a line (# begins a remark)."""
    file = Path(text)
    if not file.is_file():
        if not any(mark in text for mark in ", "):
            raise typer.BadParameter(f"{option} {text}: there is no such file, and no point is written so")
        return [point(option, each) for each in text.split()]
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as unreadable:
        raise typer.BadParameter(f"{option} {text}: this file cannot be read as text") from unreadable
    return [point(option, bare) for line in lines if (bare := line.partition("#")[0].strip())]


def taking(run: Callable[[Common, Any], None], wished: type[Any]) -> Callable[..., None]:
    """Return a command whose options are the fields of ``Common`` and ``wished``; ``run`` gets one value of each."""
    groups: tuple[type[Any], ...] = (Common, wished)

    def command(**given: Any) -> None:
        run(*(group(**{each.name: given[each.name] for each in fields(group)}) for group in groups))

    command.__name__, command.__doc__ = run.__name__, run.__doc__
    signature = Signature([_parameter(group, each) for group in groups for each in fields(group)])
    setattr(command, "__signature__", signature)  # noqa: B010 -- functions have no such attribute until they are given one
    return command


def _parameter(group: type[Any], option: Field[Any]) -> Parameter:
    default = Parameter.empty if option.default is MISSING else option.default
    hint = get_type_hints(group, include_extras=True)[option.name]
    return Parameter(option.name, Parameter.KEYWORD_ONLY, default=default, annotation=hint)


def _run(common: Common, kind: str, wished: Any, make: Callable[["Job"], "Figures"]) -> None:
    """Reconstruct and print what came of it; mistakes become messages and exit statuses."""
    from pacs_bridge import logs
    from pacs_bridge.reconstruct_output import can_be_written
    from pacs_bridge.terminal import complain, progress_bar

    logs.configure(level="WARNING")
    if refused := can_be_written(common.out):
        complain(refused)
        raise typer.Exit(ExitStatus.USAGE)
    settings = settings_from(common.config, common.overrides)
    options = {"kind": kind, **{each.name: getattr(wished, each.name) for each in fields(wished)}}
    with _told(), progress_bar() as progress:
        job = _job(common, options, settings.language, progress)
        figures = make(job)
    _print(job, figures, as_json=common.as_json)


def _job(common: Common, options: Mapping[str, Any], language: "Language", progress: "ShowProgress") -> "Job":
    from pacs_bridge.reconstruct import Job
    from pacs_bridge.reconstruct_output import ResultFolder
    from pacs_bridge.reconstruct_source import Choice, choose, describe
    from pacs_bridge.terminal import complain

    chosen = choose(common.paths, Choice(series=common.series, stack=common.stack), progress)
    among = f" (the finest of {chosen.others + 1}: --series and --stack choose another)" if chosen.others else ""
    complain(f"{chosen.title}{among}")
    context, report = describe(chosen, options, language=language, at=datetime.now(UTC).astimezone())
    folder = ResultFolder(common.out, progress, _window_for(options))
    return Job(chosen=chosen, context=context, report=report, folder=folder)


def _window_for(options: Mapping[str, Any]) -> "Window | None":
    """Return the window asked for; without a wish soft tissue, None for extremes: their kind has one of its own."""
    extreme = options.get("projection", "mean") != "mean"
    window: WindowName | None = options.get("window") or (None if extreme else "soft")
    return None if window is None else _view(window)


def _view(name: WindowName) -> "Window":
    from reconstruction import render

    return {"bone": render.BONE, "brain": render.BRAIN, "lung": render.LUNG, "soft": render.SOFT_TISSUE}[name]


@contextmanager
def _told() -> Iterator[None]:
    """Turn what goes wrong on purpose into a sentence and an exit status: 2 where another request would do."""
    from pacs_bridge.errors import BridgeError
    from pacs_bridge.reconstruct_source import NoSuchChoice
    from pacs_bridge.results.errors import ResultsError
    from pacs_bridge.terminal import complain
    from reconstruction.errors import ImpossibleView, ReconstructionError

    try:
        yield
    except (BridgeError, ReconstructionError, ResultsError) as told:
        complain(str(told))
        asked_wrongly = isinstance(told, NoSuchChoice | ImpossibleView)
        raise typer.Exit(ExitStatus.USAGE if asked_wrongly else ExitStatus.FAILED) from told
    except MemoryError as full:
        complain("this does not fit into memory: ask for fewer, thicker or coarser pictures")
        raise typer.Exit(ExitStatus.FAILED) from full
    except OSError as refused:
        complain(f"a file cannot be read or written: {refused.strerror or refused}")
        raise typer.Exit(ExitStatus.FAILED) from refused


def _print(job: "Job", figures: "Figures", *, as_json: bool) -> None:
    from pacs_bridge.terminal import print_json

    row = job.chosen.row
    if as_json:
        named = {"series_instance_uid": row.series_instance_uid, "stack": row.stack}
        print_json({**named, **figures, "notes": list(job.chosen.stack.notes), "outputs": job.folder.outputs})
        return
    for name, value in figures.items():
        typer.echo(f"{name}: {_shown(value)}")
    for note in job.chosen.stack.notes:
        typer.echo(f"note: {note}")
    typer.echo(f"{len(job.folder.outputs)} files in {job.folder.out}")


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{round(value, 2) + 0.0:.2f}"  # never -0.00
    if isinstance(value, list):
        return ", ".join(_shown(each) for each in value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(each)}" for name, each in value.items())
    return "-" if value is None else str(value)


for command, its in (
    (isotropic, OfIsotropic),
    (mpr, OfPlanes),
    (curved, OfCurved),
    (needle, OfNeedle),
    (surface, OfSurface),
    (turn, OfTurn),
    (nifti, OfNifti),
):
    reconstruct.command()(taking(command, its))
