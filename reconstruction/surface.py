"""What is the surface of the bone, or of the patient, as a closed mesh of triangles, and is it closed indeed?"""

import json
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from reconstruction.child import why_failed
from reconstruction.errors import NoSurface
from reconstruction.surface_grid import LARGEST, LEVELS_HU, solid
from reconstruction.volume import Volume

Tissue = Literal["bone", "skin"]
Vertices = npt.NDArray[np.float32]
Triangles = npt.NDArray[np.int32]
_RECORD = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_HEADER = 80


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mesh:
    """A surface of triangles: vertices (n, 3) in LPS mm (float32), triangles (m, 3) of vertex numbers (int32).

    Seen from outside, a triangle's corners run anticlockwise. ``voxel_mm`` (k, j, i) is the grid that it was made
    from and ``steps`` what was done to it; both empty where it was not made here.
    """

    vertices_lps_mm: Vertices
    triangles: Triangles
    frame_of_reference_uid: str | None = None
    voxel_mm: tuple[float, ...] = ()
    steps: str = ""

    def __post_init__(self) -> None:
        if self.vertices_lps_mm.dtype != np.float32 or self.triangles.dtype != np.int32:
            raise NoSurface("a mesh holds float32 vertices and int32 triangles")
        for array in (self.vertices_lps_mm, self.triangles):
            if array.ndim != 2 or array.shape[1] != 3:
                raise NoSurface("vertices and triangles come in threes")
            array.flags.writeable = False


def surface(
    volume: Volume, tissue: Tissue, *, triangles: int = 200_000, largest: int = LARGEST, limit_s: float | None = None
) -> Mesh:
    """Make the closed surface of a straight volume's bone (from 200 HU) or skin (the patient's outside), in LPS mm.

    Where the body goes on beyond the image the surface is closed by a flat cap. No more than ``largest``³ voxels are
    used; specks of bone below 1 mL are left out. The mesh is smoothed, and thinned to about ``triangles``, or as few as
    keep it closed and each part of it in its shape (``steps`` says what was done). A skin surface can identify a
    person by the face: it is made only where it is asked for. Runs VTK in a child process. Raises NoSurface where
    nothing is there to be seen, the child fails or takes too long, or the mesh is not closed; NotAVolume for a sheared
    volume.
    """
    if tissue not in LEVELS_HU or triangles < 100:
        raise NoSurface(f"a surface of {tissue!r} with {triangles} triangles: bone or skin, 100 or more can be made")
    grid = solid(volume, tissue, largest=largest)
    limit = 120.0 + grid.hu.size / 2e5 if limit_s is None else limit_s
    with tempfile.TemporaryDirectory(prefix="ctriage-surface-") as name:
        folder = Path(name)
        np.save(folder / "hu.npy", grid.hu)
        order = {"affine": grid.geometry.affine.tolist(), "level_hu": LEVELS_HU[tissue], "triangles": triangles}
        (folder / "job.json").write_text(json.dumps(order), encoding="utf-8")
        reason = why_failed("reconstruction.surface_vtk", folder, limit_s=limit)
        if reason is not None:
            raise NoSurface(f"no surface of the {tissue}: {reason}")
        made = np.load(folder / "mesh.npz")
        mesh = Mesh(
            vertices_lps_mm=made["vertices"],
            triangles=made["triangles"],
            frame_of_reference_uid=volume.geometry.frame_of_reference_uid,
            voxel_mm=grid.geometry.spacing_mm,
            steps=str(made["steps"]),
        )
    problems = watertight(mesh)
    if problems:
        raise NoSurface(f"the surface of the {tissue} is not closed: {'; '.join(problems)}")
    return mesh


def watertight(mesh: Mesh) -> tuple[str, ...]:
    """Say what keeps a mesh from being the closed surface of a body; nothing where it is one.

    Vertices at the same place count as one, as they do to a reader of STL. Looks for numbers that are none, triangles
    without area, edges with a triangle on one side only, on more than two, or on two that turn against each other, and
    for an enclosed volume that is not above zero.
    """
    vertices = mesh.vertices_lps_mm
    if not len(mesh.triangles):
        return ("it has no triangles",)
    if mesh.triangles.min() < 0 or mesh.triangles.max() >= len(vertices):
        return ("triangles name vertices that are not there",)
    if not np.isfinite(vertices).all():
        return ("vertices hold values that are no numbers",)
    _, same = np.unique(vertices, axis=0, return_inverse=True)
    corners = same.reshape(-1)[mesh.triangles].astype(np.int64)
    counts = (
        (_flat_count(vertices, mesh.triangles, corners), "triangles without area"),
        *_edge_counts(corners),
        (int(volume_ml(mesh) <= 0.0), "body turned inside out, or empty"),
    )
    return tuple(f"{count} {what}" for count, what in counts if count)


def volume_ml(mesh: Mesh) -> float:
    """Return the volume a closed mesh encloses (by the divergence theorem), below zero where it is inside out."""
    corners = _corners(mesh.vertices_lps_mm, mesh.triangles)
    corners -= corners.reshape(-1, 3).mean(axis=0)
    return float(np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum()) / 6000.0


def area_cm2(mesh: Mesh) -> float:
    """Return the area of a mesh."""
    return float(np.linalg.norm(_normals(_corners(mesh.vertices_lps_mm, mesh.triangles)), axis=1).sum()) / 200.0


def to_stl(mesh: Mesh) -> bytes:
    """Return a binary STL, its vertices in LPS millimetres; the same mesh gives the same bytes, with no patient data.

    STL itself has no unit and no frame: the header says both.
    """
    corners = mesh.vertices_lps_mm[mesh.triangles]
    normals = _normals(corners.astype(np.float64))
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    records = np.zeros(len(corners), dtype=_RECORD)
    records["normal"], records["corners"] = normals, corners
    header = b"ctriage; mm; DICOM patient axes (LPS); not a medical device, research and triage"
    return header.ljust(_HEADER) + struct.pack("<I", len(records)) + records.tobytes()


def from_stl(data: bytes) -> Mesh:
    """Read a binary STL; vertices at the same place become one. Raises NoSurface for anything else."""
    count = struct.unpack_from("<I", data, _HEADER)[0] if len(data) >= _HEADER + 4 else -1
    if len(data) != _HEADER + 4 + count * _RECORD.itemsize:
        raise NoSurface("these bytes are no binary STL")
    corners = np.frombuffer(data, dtype=_RECORD, offset=_HEADER + 4)["corners"].reshape(-1, 3)
    vertices, same = np.unique(corners, axis=0, return_inverse=True)
    return Mesh(
        vertices_lps_mm=vertices.astype(np.float32), triangles=same.reshape(-1, 3).astype(np.int32), steps="from STL"
    )


def _corners(vertices: Vertices, triangles: Triangles) -> npt.NDArray[np.float64]:
    corners: npt.NDArray[np.float64] = vertices[triangles].astype(np.float64)
    return corners


def _normals(corners: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Twice each triangle's area, outwards."""
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def _flat_count(vertices: Vertices, triangles: Triangles, corners: npt.NDArray[np.int64]) -> int:
    doubled = np.linalg.norm(_normals(_corners(vertices, triangles)), axis=1)
    a, b, c = corners.T
    return int(np.count_nonzero((doubled <= 0.0) | (a == b) | (b == c) | (a == c)))


def _edge_counts(corners: npt.NDArray[np.int64]) -> tuple[tuple[int, str], ...]:
    """Count edges by what is wrong with them: each must be walked once either way."""
    directed = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
    size = int(corners.max()) + 1
    keys = directed.min(axis=1) * size + directed.max(axis=1)
    _, which, uses = np.unique(keys, return_inverse=True, return_counts=True)
    forward = np.bincount(which, weights=directed[:, 0] < directed[:, 1], minlength=len(uses))
    return (
        (int(np.count_nonzero(uses == 1)), "open edges"),
        (int(np.count_nonzero(uses > 2)), "edges of more than two triangles"),
        (int(np.count_nonzero((uses == 2) & (forward != 1))), "edges at which triangles turn against each other"),
    )
