"""What does one stack look like as a body: surfaces for 3D printing, and renderings that turn round the patient?"""

from PIL import Image

from pacs_bridge.reconstruct import Figures, Job
from pacs_bridge.results.encapsulated_stl import SurfaceModel, build_model
from pacs_bridge.results.multi_frame_capture import TurnCapture, build_turn
from pipeline.brain import brain_of
from pipeline.model import SurfaceTissue, TurnPreset
from pipeline.process import ReadStack, read_stack
from reconstruction.errors import ImpossibleView
from reconstruction.render_3d import render_turn
from reconstruction.surface import area_cm2, surface, to_stl, volume_ml, watertight
from reconstruction.surface_picture import surface_picture

_LARGEST_TURN = 2**30  # bytes: a moving picture is one uncompressed object, held whole while it is written


def make_surface(job: Job, tissue: SurfaceTissue, triangles: int) -> Figures:
    """Make the closed surface of bone or skin: a DICOM object, the STL file inside it by itself, and its picture."""
    read = _read(job)
    with job.folder.busy(f"surface of {tissue}"):
        mesh = surface(read.working, tissue, triangles=triangles)
    stl = to_stl(mesh)
    model = SurfaceModel(tissue=tissue, stl=stl, stack=job.chosen.row)
    name = f"surface_{tissue}"
    job.folder.add_object(name, build_model(job.context, job.report, model, 1), picture=False)
    job.folder.add_file(f"{name}.stl", "surface", lambda path: path.write_bytes(stl))
    with job.folder.busy("drawing"):
        shown = surface_picture(mesh, tissue)
    job.folder.add_file(f"{name}.png", "surface", lambda path: Image.fromarray(shown.rgb).save(path))
    return {
        "tissue": tissue,
        "triangles": len(mesh.triangles),
        "volume_ml": volume_ml(mesh),
        "area_cm2": area_cm2(mesh),
        "watertight": not watertight(mesh),
        "voxel_mm": list(mesh.voxel_mm),
        "pixel_mm": shown.pixel_mm,
        "max_distance_to_slice_mm": read.regularised.max_distance_to_slice_mm if read.regularised else None,
    }


def make_turn(job: Job, preset: TurnPreset, frames: int, size: int) -> Figures:
    """Make renderings that turn round the patient: one moving picture. Raises ImpossibleView where it is too large."""
    if 3 * frames * size * size > _LARGEST_TURN:
        raise ImpossibleView(
            f"{frames} pictures of {size}x{size} pixels are more than {_LARGEST_TURN >> 30} GiB; take fewer"
        )
    read = _read(job)
    with job.folder.busy(f"rendering {frames} pictures"):
        shown = brain_of(read.working) if preset == "brain" else None
        made = render_turn(read.working, preset, frames=frames, size=size, shown=shown)
    turn = TurnCapture(preset=preset, rgb=made.rgb, stack=job.chosen.row)
    job.folder.add_object(f"turn_{preset}", build_turn(job.context, job.report, turn, 1), picture=True)
    return {
        "preset": preset,
        "frames": len(made.rgb),
        "pixel_mm": made.pixel_mm,
        "voxel_mm": list(made.voxel_mm),
        "max_distance_to_slice_mm": read.regularised.max_distance_to_slice_mm if read.regularised else None,
    }


def _read(job: Job) -> ReadStack:
    with job.folder.busy("assembling"):
        return read_stack(job.chosen.stack, job.chosen.paths)
