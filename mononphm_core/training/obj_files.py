"""Polygons of a Wavefront OBJ file with their texture corners and materials, in the file's own order.

Mesh libraries join, reorder or triangulate what they read; tables of a published model count its vertices and polygons.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from mononphm_core.errors import AssetError


@dataclass(frozen=True)
class Polygons:
    """One OBJ file."""

    x: Float[np.ndarray, "vertices 3"]
    uv: Float[np.ndarray, "texture_points 2"]
    sizes: Int[np.ndarray, "polygons"]
    """Corners of each polygon."""
    corners: Int[np.ndarray, "corners"]
    """Vertices of all polygons, one after the other."""
    uv_corners: Int[np.ndarray, "corners"]
    materials: tuple[str, ...]
    """In the order of first use."""
    material: Int[np.ndarray, "polygons"]


def read_points(path: Path) -> Float[np.ndarray, "vertices 3"]:
    """Vertex positions alone: all that a shape of a known topology says."""
    rows = [line.split()[1:4] for line in _lines(path) if line.startswith("v ")]
    return _floats(path, rows, 3)


def read_polygons(path: Path) -> Polygons:
    """The whole file. Raises AssetError for one that is missing or no OBJ of this kind."""
    points: list[list[str]] = []
    texture: list[list[str]] = []
    sizes: list[int] = []
    corners: list[int] = []
    uv_corners: list[int] = []
    names: dict[str, int] = {}
    material: list[int] = []
    current = -1
    try:
        for line in _lines(path):
            word, _, rest = line.partition(" ")
            if word == "v":
                points.append(rest.split()[:3])
            elif word == "vt":
                texture.append(rest.split()[:2])
            elif word == "usemtl":
                current = names.setdefault(rest.strip(), len(names))
            elif word == "f":
                parts = [corner.split("/") for corner in rest.split()]
                sizes.append(len(parts))
                corners += [int(part[0]) - 1 for part in parts]
                uv_corners += [int(part[1]) - 1 if len(part) > 1 and part[1] else -1 for part in parts]
                material.append(current)
    except ValueError as error:
        raise AssetError(f"{path.name} is no OBJ file that can be read: {error}") from error
    x, uv = _floats(path, points, 3), _floats(path, texture, 2)
    found = Polygons(
        x, uv, np.array(sizes, np.int64), np.array(corners, np.int64), np.array(uv_corners, np.int64),
        tuple(names), np.array(material, np.int64),
    )  # fmt: skip
    if not len(x) or not sizes or found.corners.min() < 0 or found.corners.max() >= len(x):
        raise AssetError(f"{path.name} has no polygons, or some that point at no vertex")
    return found


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise AssetError(f"{path} can't be read: {error.strerror}") from error


def _floats(path: Path, rows: list[list[str]], width: int) -> np.ndarray:
    try:
        return np.array(rows, np.float64).reshape(len(rows), width)
    except ValueError as error:
        raise AssetError(f"{path.name} has coordinates that are no numbers: {error}") from error
