"""MakeHuman's base mesh and its targets, as github.com/makehumancommunity publishes them (makehuman, mpfb2): CC0.

A target is a text file, gzipped or not, of lines `vertex dx dy dz`: how far it moves the vertices of base.obj (`hm08`)
at full weight. Units are decimetres, y points up and the face looks to +z.
"""

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from mononphm_core.errors import AssetError
from mononphm_core.training.obj_files import Polygons, read_polygons

ADVICE = "give a checkout of github.com/makehumancommunity/makehuman with --makehuman"
POINTER = b"version https://git-lfs"
"""How a file begins whose bytes git has not fetched."""


@dataclass(frozen=True)
class MakeHumanFiles:
    """What a folder holds."""

    base: Polygons
    targets: dict[str, Path]
    """By file name without `.target`."""

    def target(self, name: str) -> Float[np.ndarray, "vertices 3"]:
        """Displacements of the base mesh, decimetres. AssetError if the file is missing or no target."""
        path = self.targets.get(name)
        if path is None:
            raise AssetError(f"{name}.target is not among the {len(self.targets)} targets found; {ADVICE}")
        try:
            content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            lines = [line for line in content.decode("utf-8").splitlines() if line and not line.startswith("#")]
            rows = np.array(" ".join(lines).split(), np.float64).reshape(len(lines), 4)
        except (OSError, ValueError, EOFError) as error:
            raise AssetError(f"{path} is no target that can be read: {unfetched(path) or error}") from error
        found = np.zeros(self.base.x.shape)
        at = rows[:, 0].astype(np.int64)
        if len(rows) and (at.min() < 0 or at.max() >= len(found)):
            raise AssetError(f"{path} moves vertex {at.max()}; the base mesh has {len(found)} vertices")
        found[at] = rows[:, 1:]
        return found


def find(folder: Path, polygons_sha256: str, body_vertices: int) -> MakeHumanFiles:
    """Base mesh and targets anywhere under `folder`. AssetError if there is none, or the mesh is not `hm08`."""
    meshes = sorted(path for path in folder.rglob("base.obj") if path.parent.name == "3dobjs")
    if not meshes:
        raise AssetError(f"{folder} holds no 3dobjs/base.obj; {ADVICE}")
    base = read_polygons(meshes[0])
    found = body_sha256(base, body_vertices)
    if found != polygons_sha256:
        raise AssetError(
            f"{meshes[0]}: the polygons of the body are not those of MakeHuman's hm08 mesh "
            f"(sha256 {found[:12]}, not {polygons_sha256[:12]}); {ADVICE}"
        )
    targets = {
        path.name.split(".target")[0]: path
        for pattern in ("*.target", "*.target.gz")
        for path in sorted(folder.rglob(pattern))
        if "data/targets/" in path.as_posix()
    }
    return MakeHumanFiles(base, targets)


def body_quads(mesh: Polygons, body_vertices: int) -> tuple[Int[np.ndarray, "quads 4"], Int[np.ndarray, "quads 4"]]:
    """Vertices and texture corners of the polygons among the first vertices: the body, without clothes and joints."""
    start = np.concatenate([[0], np.cumsum(mesh.sizes)[:-1]])
    at = start[mesh.sizes == 4][:, None] + np.arange(4)
    at = at[(mesh.corners[at] < body_vertices).all(1)]
    return mesh.corners[at], mesh.uv_corners[at]


def body_sha256(mesh: Polygons, body_vertices: int) -> str:
    """Of the body's polygons with their texture corners, however the file orders them."""
    vertex, texture = body_quads(mesh, body_vertices)
    first = vertex.argmin(1) if len(vertex) else np.zeros(0, np.int64)
    turn = (first[:, None] + np.arange(4)) % 4
    both = np.concatenate([np.take_along_axis(vertex, turn, 1), np.take_along_axis(texture, turn, 1)], 1)
    return hashlib.sha256(both[np.lexsort(both.T[::-1])].astype("<i4").tobytes()).hexdigest()


def unfetched(path: Path) -> str | None:
    """What to do about a file that is only a pointer of git's large-file storage; nothing if it is not."""
    with path.open("rb") as file:
        pointer = file.read(len(POINTER)) == POINTER
    return "git has not fetched it: run `git lfs pull` in that checkout" if pointer else None
