"""A delivered run, read back by the names of its artifacts: meshes/, cameras.json, expressions.npz."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float

from mononphm_core.errors import InputError
from mononphm_core.io.mesh_files import read_mesh
from mononphm_core.types import HeadMesh


@dataclass(frozen=True)
class Delivery:
    """The surfaces of a run, each in the frame of its own camera (OpenCV axes), in the run's own unit."""

    files: dict[int, Path]
    w2c: dict[int, Float[np.ndarray, "4 4"]]
    intrinsics: Float[np.ndarray, "3 3"] | None
    size: tuple[int, int] | None
    world_to_head: dict[int, Float[np.ndarray, "4 4"]]
    """Head poses by frame, scale left out; empty when there is no expressions.npz."""

    @property
    def frames(self) -> tuple[int, ...]:
        """`frame_index` of every mesh, in order."""
        return tuple(sorted(self.files))

    def mesh(self, index: int) -> HeadMesh:
        """One surface before its camera. InputError when the file cannot be read or is empty."""
        path = self.files[index]
        try:
            read = read_mesh(path)
        except Exception as error:
            raise InputError(f"{path.name} cannot be read: {error}") from error
        if len(read.faces) == 0 or not np.isfinite(read.vertices).any():
            raise InputError(f"{path.name} holds no surface")
        e = self.w2c[index]
        return HeadMesh(read.vertices.astype(np.float64) @ e[:3, :3].T + e[:3, 3], read.faces)

    def head_to_camera(self, index: int) -> Float[np.ndarray, "4 4"] | None:
        """How the head stands before the camera, where the run reports a pose."""
        if index not in self.world_to_head:
            return None
        found: Float[np.ndarray, "4 4"] = self.w2c[index] @ np.linalg.inv(self.world_to_head[index])
        return found


def read_delivery(folder: Path) -> Delivery:
    """What `mononphm reconstruct -o FOLDER` wrote. InputError when there is no mesh or no camera."""
    files: dict[int, Path] = {}
    for path in sorted((folder / "meshes").glob("*")):
        number = re.fullmatch(r".*?(\d+)", path.stem)
        if path.suffix in (".ply", ".obj", ".glb") and number:
            files.setdefault(int(number[1]), path)
    if not files:
        raise InputError(f"{folder} holds no meshes/frame_00000.ply (or obj, glb)")
    cameras = _json(folder / "cameras.json")
    try:
        w2c = {int(row["frame_index"]): np.array(row["w2c"], float).reshape(4, 4) for row in cameras["frames"]}
        k = np.array([[cameras["fx"], 0, cameras["cx"]], [0, cameras["fy"], cameras["cy"]], [0, 0, 1]], float)
        size = int(cameras["width"]), int(cameras["height"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"cameras.json of {folder} is not as the contract says: {error!r}") from error
    missing = sorted(files.keys() - w2c.keys())
    if missing:
        raise InputError(f"cameras.json has no w2c for frame {missing[0]}, which has a mesh")
    return Delivery(files, w2c, k, size, _poses(folder / "expressions.npz"))


def _poses(path: Path) -> dict[int, Float[np.ndarray, "4 4"]]:
    """x_head / scale = R @ x_world + translation / scale, as matrices."""
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            index, rotation = file["frame_index"].astype(int), file["rotation"].astype(np.float64)
            shift = file["translation"].astype(np.float64) / file["scale"].astype(np.float64)[:, None]
        poses = np.tile(np.eye(4), (len(index), 1, 1))
        poses[:, :3, :3], poses[:, :3, 3] = rotation, shift
        return dict(zip(index.tolist(), poses, strict=True))
    except (OSError, KeyError, ValueError, BadZipFile) as error:
        raise InputError(f"{path.name} is not as the contract says: {error}") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path.name} is missing or no JSON: {error}") from error
    if not isinstance(document, dict):
        raise InputError(f"{path.name} holds no object")
    return document
