"""The child process that renders, and the only importer of vtk.

Usage: python -m reconstruction.render_vtk FOLDER WINDOW LIBRARY...

FOLDER holds hu.npy (int16, kji) and job.json as `render_3d` writes them; rgb.npy is written there. WINDOW is VTK's
render window class. One of LIBRARY must load before vtk is touched: without it vtk ends by SIGSEGV.
VTK is imported inside functions, after that check; importing this module is harmless.
"""

import ctypes
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

NO_LIBRARY = 3  # exit status where none of the libraries is there
THREADS = 2
# Hounsfield units -> opacity for a voxel's length, and colour: thin bone shows, soft tissue and calcium do not.
OPACITY = ((-1024, 0.0), (150, 0.0), (350, 0.4), (700, 0.9), (3071, 1.0))
COLOUR = ((150, (0.75, 0.50, 0.38)), (400, (0.93, 0.85, 0.72)), (1500, (1.0, 1.0, 0.95)))


def main(arguments: Sequence[str]) -> int:
    """Render the job in a folder; return the process's exit status."""
    folder, window, *libraries = arguments
    if not any(_loads(name) for name in libraries):
        return NO_LIBRARY
    os.environ["VTK_DEFAULT_OPENGL_WINDOW"] = window
    job = json.loads((Path(folder) / "job.json").read_text(encoding="utf-8"))
    hu = np.load(Path(folder) / "hu.npy")
    frames = render(hu, job)
    np.save(Path(folder) / "rgb.npy", frames)
    return 0


def render(hu: npt.NDArray[np.int16], job: dict[str, Any]) -> npt.NDArray[np.uint8]:
    """Return one RGB picture (view, rows, columns, 3) for each of the job's views."""
    import vtkmodules.vtkRenderingOpenGL2  # registers windows and renderers: before any of them is made
    import vtkmodules.vtkRenderingVolumeOpenGL2  # noqa: F401  registers how the cast image is shown
    from vtkmodules.vtkRenderingCore import vtkRenderer, vtkRenderWindow

    affine = np.array(job["affine"])
    renderer = vtkRenderer()
    renderer.SetBackground(0.0, 0.0, 0.0)
    renderer.AddVolume(_bone(_image(hu, affine), min(np.linalg.norm(affine[:3, :3], axis=0))))
    screen = vtkRenderWindow()
    screen.SetOffScreenRendering(1)
    screen.SetMultiSamples(0)
    screen.SetSize(job["size"], job["size"])
    screen.AddRenderer(renderer)
    centre = affine[:3, :3] @ ((np.array(hu.shape) - 1) / 2.0) + affine[:3, 3]
    return np.stack([_seen(screen, renderer, centre, view, job["reach_mm"]) for view in job["views"]])


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _image(hu: npt.NDArray[np.int16], affine: npt.NDArray[np.float64]) -> Any:
    """Place kji voxels in VTK's world, which is LPS mm here."""
    from vtkmodules.util.numpy_support import numpy_to_vtk
    from vtkmodules.vtkCommonDataModel import vtkImageData

    image = vtkImageData()
    image.SetDimensions(*hu.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(hu.ravel(), deep=True))
    axes = affine[:3, 2::-1]
    spacing = np.linalg.norm(axes, axis=0)
    image.SetSpacing(*spacing)
    image.SetOrigin(*affine[:3, 3])
    image.SetDirectionMatrix(*(axes / spacing).ravel())
    return image


def _bone(image: Any, voxel_mm: float) -> Any:
    """A volume cast by VTK's fixed-point CPU mapper, two samples a voxel, never coarsened."""
    from vtkmodules.vtkRenderingCore import vtkVolume
    from vtkmodules.vtkRenderingVolume import vtkFixedPointVolumeRayCastMapper

    mapper = vtkFixedPointVolumeRayCastMapper()
    mapper.SetInputData(image)
    mapper.SetNumberOfThreads(THREADS)
    mapper.SetAutoAdjustSampleDistances(0)
    mapper.LockSampleDistanceToInputSpacingOff()
    mapper.SetSampleDistance(voxel_mm / 2.0)
    mapper.SetImageSampleDistance(1.0)
    volume = vtkVolume()
    volume.SetMapper(mapper)
    volume.SetProperty(_looks(voxel_mm))
    return volume


def _looks(voxel_mm: float) -> Any:
    from vtkmodules.vtkCommonDataModel import vtkPiecewiseFunction
    from vtkmodules.vtkRenderingCore import vtkColorTransferFunction, vtkVolumeProperty

    opacity, colour, looks = vtkPiecewiseFunction(), vtkColorTransferFunction(), vtkVolumeProperty()
    for hu, value in OPACITY:
        opacity.AddPoint(hu, value)
    for hu, rgb in COLOUR:
        colour.AddRGBPoint(hu, *rgb)
    looks.SetScalarOpacity(opacity)
    looks.SetScalarOpacityUnitDistance(voxel_mm)
    looks.SetColor(colour)
    looks.SetInterpolationTypeToLinear()
    looks.ShadeOn()
    looks.SetAmbient(0.2)
    looks.SetDiffuse(0.8)
    looks.SetSpecular(0.2)
    return looks


def _seen(
    screen: Any, renderer: Any, centre: npt.NDArray[np.float64], view: dict[str, Any], reach_mm: float
) -> npt.NDArray[np.uint8]:
    """Look at the centre in parallel projection: letters and scale hold all over the picture."""
    from vtkmodules.util.numpy_support import vtk_to_numpy
    from vtkmodules.vtkRenderingCore import vtkWindowToImageFilter

    camera = renderer.GetActiveCamera()
    camera.ParallelProjectionOn()
    camera.SetParallelScale(reach_mm / 2.0)
    camera.SetFocalPoint(*centre)
    camera.SetPosition(*(centre + 2.0 * reach_mm * np.array(view["from_lps"])))
    camera.SetViewUp(*view["up_lps"])
    renderer.ResetCameraClippingRange()
    screen.Render()
    grab = vtkWindowToImageFilter()
    grab.SetInput(screen)
    grab.ReadFrontBufferOff()
    grab.Update()
    columns, rows, _ = grab.GetOutput().GetDimensions()
    pixels = vtk_to_numpy(grab.GetOutput().GetPointData().GetScalars())
    picture: npt.NDArray[np.uint8] = pixels.reshape(rows, columns, 3)[::-1].copy()
    return picture


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
