"""`ict_facekit.npz`, as training reads it, from the public ICT-FaceKit (github.com/ICT-VGL/ICT-FaceKit, FaceXModel).

The published OBJ files hold positions; what else training knows of the topology is worked out (triangles, the mirrored
vertex) or stands in a table of ours (parts, landmarks, anchors). Units stay the file's: centimetres.
"""

import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Integer, UInt8
from scipy.spatial import cKDTree

from mononphm_core.errors import AssetError
from mononphm_core.training.obj_files import Polygons, read_points, read_polygons

NEUTRAL = "generic_neutral_mesh.obj"
IDENTITIES = 100
SIDES = {3: 4, 7: 8, 9: 10, 11: 12, 13: 14, 15: 16}
"""Parts of the left side -> of the right."""
SYMMETRIC_CM = 0.03
"""Largest distance of a vertex to its partner in the mirror."""


def tables() -> dict[str, Any]:
    """Names and index tables that the OBJ files do not hold, and the checksums of the published topology."""
    file = resources.files("mononphm_core") / "assets" / "training" / "ict_facekit.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def rebuild(folder: Path, target: Path, known: dict[str, Any] | None = None) -> Path:
    """Write `target`/ict_facekit.npz from the OBJ files in `folder`, compared with `known` (by default `tables()`).

    Raises AssetError when a file is missing, is of another topology, or the mesh has no mirror image.
    """
    known = known or tables()
    mesh = read_polygons(folder / NEUTRAL)
    triangles, corner = triangulate(mesh)
    _same(sha256(triangles), known["triangles_sha256"], f"{NEUTRAL}: the triangles")
    texture = mesh.uv_corners[corner].astype(np.int32)
    _same(sha256(texture), known["texture_sha256"], f"{NEUTRAL}: the texture corners")
    polygon = np.searchsorted(np.cumsum(mesh.sizes), corner[:, 0], side="right").astype(np.int32)
    part = _numbers(known["part_vertices"], len(mesh.x))
    arrays = {
        "neutral": mesh.x.astype(np.float32),
        "identity": _shapes(folder, [f"identity{i:03d}" for i in range(known["identities"])], mesh),
        "expression": _shapes(folder, known["expression_names"], mesh),
        "expression_names": np.array(known["expression_names"]),
        "tri": triangles,
        "uv": mesh.uv.astype(np.float32),
        "tri_uv": texture,
        "tri_part": _numbers(known["part_polygons"], len(mesh.sizes))[polygon],
        "tri_material": mesh.material[polygon].astype(np.uint8),
        "material_names": np.array(mesh.materials),
        "tri_quad": polygon,
        "vert_part": part,
        "part_names": np.array(known["part_names"]),
        "sym": mirror(mesh.x, part),
        **{name: np.array(known[name], np.int64) for name in ("ibug68", "ibug68_jaw_alt", "anchors65")},
        **{name: np.float32(known[name]) for name in ("canon_scale", "canon_translation", "canon_jaw_open")},
        "canon_y_cut": np.float32(known["canon_y_cut"]),
    }
    target.mkdir(parents=True, exist_ok=True)
    path = target / "ict_facekit.npz"
    temporary = target / ".ict_facekit.npz"
    np.savez_compressed(temporary, **arrays)
    temporary.replace(path)
    return path


def landmark_table(target: Path, known: dict[str, Any] | None = None) -> Path:
    """Write `target`/mediapipe478_on_ict.npz: where the 478 detector points lie on the triangles of ict_facekit.npz."""
    measured = (known or tables())["detector478"]
    first = np.array(measured["share"])
    shares = np.column_stack([first, 1.0 - first.sum(1)]).astype(np.float32)
    corners = np.load(target / "ict_facekit.npz")["tri"][np.array(measured["triangle"])]
    path = target / "mediapipe478_on_ict.npz"
    np.savez_compressed(path, vertex_index=corners, bary=shares, spread_mm=np.float32(measured["spread_mm"]))
    return path


def triangulate(mesh: Polygons) -> tuple[Int[np.ndarray, "triangles 3"], Int[np.ndarray, "triangles 3"]]:
    """Vertices of the triangles, quads cut along their shorter diagonal; and where in the file their corners are."""
    start = np.concatenate([[0], np.cumsum(mesh.sizes)[:-1]])
    if not np.isin(mesh.sizes, (3, 4)).all():
        raise AssetError("the mesh has polygons of more than four corners; the published one has none")
    four = mesh.sizes == 4
    at = start[:, None] + np.arange(4)
    at[~four, 3] = at[~four, 2]
    x = mesh.x[mesh.corners[at]]
    first = np.linalg.norm(x[:, 0] - x[:, 2], axis=1) <= np.linalg.norm(x[:, 1] - x[:, 3], axis=1)
    along = np.where(first[:, None, None], [[0, 1, 2], [0, 2, 3]], [[0, 1, 3], [1, 2, 3]])
    along[~four] = [[0, 1, 2], [0, 1, 2]]
    both = np.take_along_axis(at[:, None], along, 2)
    keep = np.stack([np.ones(len(four), bool), four], 1)
    corner = both[keep]
    return mesh.corners[corner].astype(np.int32), corner


def mirror(x: Float[np.ndarray, "vertices 3"], part: Integer[np.ndarray, "vertices"]) -> Int[np.ndarray, "vertices"]:
    """The vertex of the opposite part that lies nearest to each one's mirror image in x = 0."""
    opposite = SIDES | {right: left for left, right in SIDES.items()}
    found = np.zeros(len(x), np.int32)
    for number in np.unique(part):
        mine, other = np.flatnonzero(part == number), np.flatnonzero(part == opposite.get(int(number), int(number)))
        if not len(other):
            raise AssetError(f"part {number} of the head has no other side")
        distance, nearest = cKDTree(x[other]).query(x[mine] * [-1, 1, 1])
        if distance.max() > SYMMETRIC_CM:
            raise AssetError(f"part {number} of the head is not symmetric: {distance.max():.3f} cm")
        found[mine] = other[nearest]
    return found


def sha256(indices: Int[np.ndarray, "triangles 3"]) -> str:
    """Of the indices as little-endian 32-bit integers, row by row."""
    return hashlib.sha256(np.ascontiguousarray(indices, "<i4").tobytes()).hexdigest()


def _shapes(folder: Path, names: list[str], mesh: Polygons) -> Float[np.ndarray, "shapes vertices 3"]:
    """Displacements of named shapes from the neutral one; half precision errs by 0.02 mm at most."""
    out = np.zeros((len(names), len(mesh.x), 3), np.float16)
    for row, name in enumerate(names):
        x = read_points(folder / f"{name}.obj")
        if x.shape != mesh.x.shape:
            raise AssetError(f"{name}.obj has {len(x)} vertices; {NEUTRAL} has {len(mesh.x)}")
        out[row] = x - mesh.x
    return out


def _numbers(starts: list[int], count: int) -> UInt8[np.ndarray, "count"]:
    """0 from the first start, 1 from the second, ..."""
    return np.repeat(np.arange(len(starts)), np.diff([*starts, count])).astype(np.uint8)


def _same(found: str, expected: str, what: str) -> None:
    if found != expected:
        raise AssetError(
            f"{what} are not those of the published ICT-FaceKit Light (sha256 {found[:12]}, not {expected[:12]})"
        )
