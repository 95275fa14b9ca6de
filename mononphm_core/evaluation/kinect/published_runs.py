"""Results of the published program: `stage2/<seq>/%05d/mesh.ply` in NPHM space, the head pose in arrays beside it."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from mononphm_core.errors import InputError
from mononphm_core.io.mesh_files import read_mesh
from mononphm_core.types import HeadMesh

FLAME_SCALE = 4.0


def frames_of(run: Path) -> dict[int, Path]:
    """Folder of every frame with a mesh."""
    return {int(p.parent.name): p.parent for p in sorted(run.glob("*/mesh.ply")) if p.parent.name.isdecimal()}


def before_camera(folder: Path, cameras: Path, t: int) -> HeadMesh:
    """Frame t's mesh in the OpenCV camera, metres: ((v - trans) / scale) R, / 4, then the tracker's pose of t - 1."""
    mesh = read_mesh(folder / "mesh.ply")
    r, shift, scale = (_array(folder / name) for name in ("rot.npy", "trans.npy", "scale.npy"))
    v = (mesh.vertices.astype(np.float64) - shift.reshape(-1, 3)[0]) / scale.reshape(-1)[0] @ r.reshape(-1, 3, 3)[0]
    path = cameras / f"{max(t - 1, 0):05d}_cam_params_opencv.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            rotation, translation = file["R"].reshape(3, 3), file["t"].reshape(3)
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"frame {t}: {path} is missing or no camera file: {error}") from error
    return HeadMesh(v / FLAME_SCALE @ rotation.T.astype(np.float64) + translation, mesh.faces)


def _array(path: Path) -> Float[np.ndarray, "..."]:
    try:
        return np.asarray(np.load(path, allow_pickle=False), np.float64)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is missing or no array: {error}") from error
