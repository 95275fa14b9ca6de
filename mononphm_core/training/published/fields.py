"""Surface samples of one textured scan, sorted into regions by the distance to the registered face.

Everything is in NPHM space (head units). Distances are not stored: points of the surface have distance 0, points off it
carry only the normal and colour of the nearest surface point.
"""

from dataclasses import dataclass

import igl
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree

from mononphm_core.errors import InputError
from mononphm_core.geometry.triangles import barycentric_of
from mononphm_core.meshing.clean import face_areas, in_largest_component, vertex_normals
from mononphm_core.training.published.textured import TexturedScan
from mononphm_core.types import HeadMesh

FACE_WITHIN, FRONT_WITHIN = 0.01, 0.2
"""Distances to the registered face: nearer is face, nearer than the second is its static front ("def_region")."""
OFF_STD = 0.05
THROAT = (3276, 3207, 3310)
"""FLAME vertices of the plane below which nothing is taught."""
TOO_LARGE = 2.5
"""Times the mean: faces and edges beyond are bridges of the scanner."""


@dataclass(frozen=True)
class FieldCounts:
    """How much is sampled of a scan; the release's numbers."""

    surface: int = 25_000_000
    non_face: int = 1_000_000
    off: int = 1_000_000
    files: int = 200


def cleaned(scan: TexturedScan) -> TexturedScan:
    """Without overlarge triangles and without loose parts. InputError when nothing is left."""
    corners = scan.mesh.vertices[scan.mesh.faces].astype(np.float64)
    edges = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=-1)
    areas = face_areas(scan.mesh)
    good = (areas <= TOO_LARGE * areas.mean()) & (edges <= TOO_LARGE * edges.mean()).all(-1)
    if not good.any():
        raise InputError("the scan has no triangle of ordinary size")
    ordinary = scan.kept(good)
    return ordinary.kept(in_largest_component(ordinary.mesh))


def above_throat(
    points: Float[np.ndarray, "points 3"], flame: Float[np.ndarray, "vertices 3"]
) -> Bool[np.ndarray, "points"]:
    """n . (p - v1) > 0 with n = (v2 - v1) x (v3 - v1) of the FLAME mesh of the scan."""
    if len(flame) <= max(THROAT):
        raise InputError(f"flame.ply has {len(flame)} vertices; FLAME has 5023")
    v1, v2, v3 = (flame[i].astype(np.float64) for i in THROAT)
    return (points - v1) @ np.cross(v2 - v1, v3 - v1) > 0


def sample_fields(
    scan: TexturedScan,
    face_vertices: Float[np.ndarray, "face 3"],
    flame: Float[np.ndarray, "vertices 3"] | None,
    counts: FieldCounts,
    random: np.random.Generator,
) -> dict[str, Float[np.ndarray, "points 9"]]:
    """Rows of xyz, normal, RGB (0..255) by region: face, def_region, non_face, off.

    `face_vertices`: the registration's vertices inside the face mask. Without `flame` nothing is cut at the throat.
    """
    if scan.texture is None and scan.mesh.colours is None:
        raise InputError("the scan has neither vertex colours nor a texture")
    scan = cleaned(scan)
    faces, barycentric = on_surface(scan.mesh, counts.surface, random)
    rows = _rows(scan, faces, barycentric)
    if flame is not None:
        rows = rows[above_throat(rows[:, :3], flame)]
    distance, _ = cKDTree(face_vertices).query(rows[:, :3])
    face, rest = distance < FACE_WITHIN, np.flatnonzero(distance >= FACE_WITHIN)
    front = (distance >= FACE_WITHIN) & (distance < FRONT_WITHIN)
    for name, chosen in (("face", face), ("static front", front)):
        if not chosen.any():
            raise InputError(f"no sample of the scan lies in the region {name}: scan and registration are apart")
    start = rows[random.integers(len(rows), size=counts.off), :3]
    off = start + random.normal(0, OFF_STD, start.shape)
    return {
        "face": rows[face].astype(np.float32),
        "def_region": rows[front].astype(np.float32),
        "non_face": rows[random.choice(rest, min(counts.non_face, len(rest)), replace=False)].astype(np.float32),
        "off": _off_rows(scan, off).astype(np.float32),
    }


def on_surface(
    mesh: HeadMesh, count: int, random: np.random.Generator
) -> tuple[Int[np.ndarray, "points"], Float[np.ndarray, "points 3"]]:
    """Triangles by area and uniform barycentrics."""
    areas = face_areas(mesh)
    return random.choice(len(areas), count, p=areas / areas.sum()), random.dirichlet([1.0, 1.0, 1.0], count)


def _rows(
    scan: TexturedScan, faces: Int[np.ndarray, "points"], barycentric: Float[np.ndarray, "points 3"]
) -> Float[np.ndarray, "points 9"]:
    mesh = scan.mesh
    corners = mesh.faces[faces]
    normals = np.einsum("pk,pkc->pc", barycentric, vertex_normals(mesh)[corners])
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    points = np.einsum("pk,pkc->pc", barycentric, mesh.vertices[corners].astype(np.float64))
    return np.concatenate([points, normals, scan.colours(faces, barycentric)], -1)


def _off_rows(scan: TexturedScan, points: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "points 9"]:
    """The points themselves with normal and colour of the nearest surface point."""
    mesh = scan.mesh
    vertices, faces = mesh.vertices.astype(np.float64), mesh.faces.astype(np.int64)
    _, face, foot = igl.point_mesh_squared_distance(np.ascontiguousarray(points), vertices, faces)
    face = np.asarray(face, np.int64)
    share = np.clip(barycentric_of(foot, vertices[faces[face]]), 0, 1)
    share /= share.sum(-1, keepdims=True)
    rows = _rows(scan, face, share)
    return np.concatenate([points, rows[:, 3:]], -1)
