"""The child process that triangulates, and the only importer of vtk.

Usage: python -m reconstruction.surface_vtk FOLDER

FOLDER holds hu.npy (int16, kji) and job.json as `surface` writes them; mesh.npz is written there: vertices in LPS mm,
triangles, and the steps taken. VTK's filters need no screen and no system library; importing this module is harmless.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reconstruction.child import NO_MEMORY
from reconstruction.geometry import Geometry
from reconstruction.surface import Mesh
from reconstruction.surface_thin import thinned

_SMOOTHING_ROUNDS = 20
_PASS_BAND = 0.1  # of the finest detail a mesh can hold: takes the voxels' steps away and keeps the volume
_OFF_HU, _FAR_HU = 8, 1500  # how far from the surface's level voxels are held at least and at most
_NUDGED_MM = 1e-3


def main(arguments: Sequence[str]) -> int:
    """Make the mesh of the job in a folder; return the process's exit status."""
    folder = Path(arguments[0])
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    try:
        mesh = made(np.load(folder / "hu.npy"), job)
    except MemoryError:
        return NO_MEMORY
    np.savez(folder / "mesh.npz", vertices=mesh.vertices_lps_mm, triangles=mesh.triangles, steps=mesh.steps)
    return 0


def made(hu: npt.NDArray[np.int16], job: Mapping[str, Any]) -> Mesh:
    """Triangulate, smooth and thin; each of the three leaves the surface closed."""
    k, j, i = hu.shape
    geometry = Geometry(affine=np.array(job["affine"]), shape=(k, j, i))
    smooth = _smoothed(_isosurface(_off_level(hu, job["level_hu"]), geometry, job["level_hu"]))
    points, triangles = _arrays(smooth)
    if len(triangles) <= job["triangles"]:
        return _placed(points, triangles, geometry, f"smoothed, {len(triangles)} triangles not thinned")
    fewer, left = thinned(points, triangles, job["triangles"])
    return _placed(fewer, left, geometry, f"smoothed, thinned from {len(triangles)} triangles")


def _off_level(hu: npt.NDArray[np.int16], level_hu: float) -> npt.NDArray[np.int16]:
    """Hold voxels off the level: a surface through a voxel's very middle has corners there that fall together."""
    inside = np.clip(hu, level_hu + _OFF_HU, level_hu + _FAR_HU)
    outside = np.clip(hu, level_hu - _FAR_HU, level_hu - _OFF_HU)
    return np.where(hu > level_hu, inside, outside).astype(np.int16)


def _isosurface(hu: npt.NDArray[np.int16], geometry: Geometry, level_hu: float) -> Any:
    """Triangulate in the grid's own millimetres: x, y, z run along i, j, k."""
    from vtkmodules.util.numpy_support import numpy_to_vtk
    from vtkmodules.vtkCommonDataModel import vtkImageData
    from vtkmodules.vtkFiltersCore import vtkFlyingEdges3D

    image = vtkImageData()
    image.SetDimensions(*hu.shape[::-1])
    image.SetSpacing(*geometry.spacing_mm[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(hu.ravel(), deep=False))
    contour = vtkFlyingEdges3D()
    contour.SetInputData(image)
    contour.SetValue(0, level_hu)
    contour.ComputeNormalsOff()
    contour.ComputeScalarsOff()
    contour.Update()
    return contour.GetOutput()


def _smoothed(surface: Any) -> Any:
    from vtkmodules.vtkFiltersCore import vtkWindowedSincPolyDataFilter

    smooth = vtkWindowedSincPolyDataFilter()
    smooth.SetInputData(surface)
    smooth.SetNumberOfIterations(_SMOOTHING_ROUNDS)
    smooth.SetPassBand(_PASS_BAND)
    smooth.NormalizeCoordinatesOn()
    smooth.BoundarySmoothingOff()
    smooth.FeatureEdgeSmoothingOff()
    smooth.Update()
    return smooth.GetOutput()


def _arrays(surface: Any) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int32]]:
    from vtkmodules.util.numpy_support import vtk_to_numpy

    points = vtk_to_numpy(surface.GetPoints().GetData()).astype(np.float64)
    return points, vtk_to_numpy(surface.GetPolys().GetConnectivityArray()).reshape(-1, 3).astype(np.int32)


def _placed(points: npt.NDArray[np.float64], triangles: npt.NDArray[np.int32], geometry: Geometry, steps: str) -> Mesh:
    """Bring a mesh to LPS mm, outside out."""
    vertices = _apart(geometry.to_mm(points[:, ::-1] / np.array(geometry.spacing_mm)).astype(np.float32))
    if np.linalg.det(geometry.affine[:3, 2::-1]) < 0:
        triangles = triangles[:, ::-1]
    return Mesh(vertices_lps_mm=vertices, triangles=np.ascontiguousarray(triangles), steps=steps)


def _apart(vertices: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Move vertices that fall together by a micrometre each: to a reader of STL they would be one."""
    _, first = np.unique(vertices, axis=0, return_index=True)
    again = np.ones(len(vertices), dtype=np.bool_)
    again[first] = False
    vertices[again, 2] += np.arange(1, np.count_nonzero(again) + 1, dtype=np.float32) * np.float32(_NUDGED_MM)
    return vertices


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
