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
from reconstruction.surface import Mesh, watertight

_SMOOTHING_ROUNDS = 20
_PASS_BAND = 0.1  # of the finest detail a mesh can hold: takes the voxels' steps away and keeps the volume
_MERGED_MM = 1e-3
_BUDGETS = (1.0, 1.15, 1.4, 1.8, 2.5, np.inf)  # thinning that tears a mesh here does not tear it there


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
    """Return the first closed mesh of ever less thinning; the very last was neither thinned nor smoothed."""
    k, j, i = hu.shape
    geometry = Geometry(affine=np.array(job["affine"]), shape=(k, j, i))
    rough = _isosurface(hu, geometry, job["level_hu"])
    smooth = _smoothed(rough)
    for budget in _BUDGETS:
        thinned, steps = _thinned(smooth, job["triangles"] * budget)
        mesh = _placed(thinned, geometry, f"smoothed, {steps}")
        if not watertight(mesh):
            return mesh
    return _placed(rough, geometry, "neither smoothed nor thinned")


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


def _thinned(surface: Any, triangles: float) -> tuple[Any, str]:
    from vtkmodules.vtkFiltersCore import vtkQuadricDecimation

    count = surface.GetNumberOfCells()
    if count <= triangles:
        return surface, f"{count} triangles not thinned"
    thin = vtkQuadricDecimation()
    thin.SetInputData(surface)
    thin.SetTargetReduction(1.0 - triangles / count)
    thin.Update()
    return thin.GetOutput(), f"thinned from {count} triangles"


def _placed(surface: Any, geometry: Geometry, steps: str) -> Mesh:
    """Bring a mesh to LPS mm, outside out, with vertices nearer than a micrometre made one."""
    from vtkmodules.util.numpy_support import vtk_to_numpy

    points = vtk_to_numpy(surface.GetPoints().GetData()).astype(np.float64)
    triangles = vtk_to_numpy(surface.GetPolys().GetConnectivityArray()).reshape(-1, 3).astype(np.int64)
    kji = points[:, ::-1] / np.array(geometry.spacing_mm)
    vertices, triangles = _merged(geometry.to_mm(kji).astype(np.float32), triangles)
    if np.linalg.det(geometry.affine[:3, 2::-1]) < 0:
        triangles = triangles[:, ::-1]
    return Mesh(vertices_lps_mm=vertices, triangles=np.ascontiguousarray(triangles, dtype=np.int32), steps=steps)


def _merged(vertices: npt.NDArray[np.float32], triangles: npt.NDArray[np.int64]) -> tuple[Any, Any]:
    places = np.rint(vertices.astype(np.float64) / _MERGED_MM).astype(np.int64)
    _, first, same = np.unique(places, axis=0, return_index=True, return_inverse=True)
    corners = same.reshape(-1)[triangles]
    whole = (corners[:, 0] != corners[:, 1]) & (corners[:, 1] != corners[:, 2]) & (corners[:, 0] != corners[:, 2])
    used, numbers = np.unique(corners[whole], return_inverse=True)
    return vertices[first[used]], numbers.reshape(-1, 3)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
