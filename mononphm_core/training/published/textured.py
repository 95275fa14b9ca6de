"""One textured scan: its surface and what colour every place of it has. NPHM space (head units)."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from jaxtyping import Bool, Float, Int, UInt8

from mononphm_core.errors import InputError
from mononphm_core.meshing.clean import keep_faces
from mononphm_core.types import HeadMesh


@dataclass(frozen=True)
class Texture:
    """A picture and where the corners of the triangles lie in it."""

    uv: Float[np.ndarray, "faces 3 2"]
    """v counts from the bottom; outside [0, 1] the picture repeats."""
    texels: UInt8[np.ndarray, "height width 3"]
    """sRGB, first row on top."""


@dataclass(frozen=True)
class TexturedScan:
    """A surface without seams: corners at one place are one vertex, though a texture may have torn them apart."""

    mesh: HeadMesh
    texture: Texture | None = None
    """None: the colours are those of the mesh's vertices."""

    def kept(self, keep: Bool[np.ndarray, "faces"]) -> "TexturedScan":
        """Only these triangles."""
        texture = None if self.texture is None else replace(self.texture, uv=self.texture.uv[keep])
        return TexturedScan(keep_faces(self.mesh, keep), texture)

    def colours(
        self, faces: Int[np.ndarray, "points"], barycentric: Float[np.ndarray, "points 3"]
    ) -> Float[np.ndarray, "points 3"]:
        """RGB, 0..255: of the nearest texel, else interpolated between the vertices."""
        if self.texture is not None:
            uv = np.einsum("pk,pkc->pc", barycentric, self.texture.uv[faces])
            return nearest_texel(self.texture.texels, uv).astype(np.float64)
        assert self.mesh.colours is not None
        return np.einsum("pk,pkc->pc", barycentric, self.mesh.colours[self.mesh.faces[faces]].astype(np.float64))


def nearest_texel(
    texels: UInt8[np.ndarray, "height width 3"], uv: Float[np.ndarray, "points 2"]
) -> UInt8[np.ndarray, "points 3"]:
    """The texel that a place lies in: column floor(u W), row floor((1 - v) H); both repeat.

    u = 1 and v = 0 are the last column and row, not the first ones again.
    """
    height, width = texels.shape[:2]
    across, down = uv[:, 0], 1 - uv[:, 1]
    column, row = (
        np.where(share == 1, size - 1, np.floor(share * size)).astype(np.int64) % size
        for share, size in ((across, width), (down, height))
    )
    return texels[row, column]


def read_textured(path: Path) -> TexturedScan:
    """A PLY or OBJ with a texture beside it, else with vertex colours. InputError names what cannot be read."""
    mesh, visual = load(path)
    if visual.kind != "texture" or visual.uv is None:
        return TexturedScan(HeadMesh(mesh.vertices, mesh.faces, vertex_colours(visual)))
    picture = getattr(visual.material, "image", None) or getattr(visual.material, "baseColorTexture", None)
    if picture is None:
        raise InputError(f"{path} has texture coordinates, but its picture is not there")
    uv = np.asarray(visual.uv, np.float64)[mesh.faces]
    places, whole = np.unique(mesh.vertices, axis=0, return_inverse=True)
    joined = HeadMesh(places, whole.reshape(-1)[mesh.faces])
    try:
        texels = np.asarray(picture.convert("RGB"), np.uint8)
    except OSError as error:
        raise InputError(f"{path}: its picture is damaged ({error})") from error
    return TexturedScan(joined, Texture(uv, texels))


def read_scan(path: Path) -> HeadMesh:
    """A mesh with its vertices in the file's order, and their colours where it has any."""
    mesh, visual = load(path)
    return HeadMesh(mesh.vertices, mesh.faces, vertex_colours(visual))


def load(path: Path) -> tuple[HeadMesh, Any]:
    """Vertices and triangles as they are in the file, and what trimesh knows of their look."""
    if not path.is_file():
        raise InputError(f"{path} is missing")
    try:
        loaded: Any = trimesh.load_mesh(path, process=False, maintain_order=True)
        mesh = HeadMesh(np.asarray(loaded.vertices, np.float32), np.asarray(loaded.faces, np.int64))
    except Exception as error:
        raise InputError(f"{path} cannot be read as a mesh: {error}") from error
    return mesh, loaded.visual


def vertex_colours(visual: Any) -> UInt8[np.ndarray, "vertices 3"] | None:
    """Of a mesh that has colours at its vertices."""
    return np.asarray(visual.vertex_colors, np.uint8)[:, :3] if visual.kind == "vertex" else None
