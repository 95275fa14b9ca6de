"""Results in the published folder layout, so that the published program's own tools can read them.

stage1/<sequence>/00000/{z_geo,z_app,z_exp,rot,trans,scale,sh_coeffs,colorA,colorb}.npy, mesh.ply
stage2/<sequence>/{z_geo,z_app,sh_coeffs,colorA,colorb}.npy and, a frame, 00000/{z_exp,rot,trans,scale}.npy, mesh.ply
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor

from mononphm_core.geometry.rotations import so3_exp_clamped
from mononphm_core.io.mesh_files import write_mesh
from mononphm_core.tracking.published.track import PublishedTrack
from mononphm_core.types import HeadMesh


def write_published(
    root: Path, sequence: str, track: PublishedTrack, mesh_of: Callable[[int], HeadMesh | None] = lambda row: None
) -> Path:
    """Write one stage below `root` (the published `$MONONPHM_TRACKING_OUTPUT/<exp_name>`); returns the stage's folder.

    `mesh_of` gives a frame's mesh in posed head units, without the head's pose, or None for no file. Codes are in the
    model's own units. As published, every frame's `z_exp.npy` of stage 2 holds the expressions of all frames.
    """
    leaves, joint = track.leaves, track.kind == "stage2"
    folder = root / ("stage2" if joint else "stage1") / sequence
    person = {
        "z_geo": leaves.geo()[None],
        "z_app": leaves.app()[None],
        "sh_coeffs": leaves.sh[None],
        "colorA": leaves.colour_matrix,
        "colorb": leaves.colour_offset,
    }
    if joint:
        _save(folder, person)
    for row in range(len(leaves.z_exp)):
        own = {
            "z_exp": leaves.z_exp if joint else leaves.z_exp[row : row + 1],
            "rot": so3_exp_clamped(leaves.turn[row : row + 1]),
            "trans": leaves.shift[row : row + 1],
            "scale": leaves.shift.new_ones(1),
        }
        place = folder / f"{row:05d}"
        _save(place, own if joint else person | own)
        if (mesh := mesh_of(row)) is not None:
            write_mesh(place / "mesh.ply", mesh)
    return folder


def _save(folder: Path, arrays: dict[str, Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in arrays.items():
        np.save(folder / f"{name}.npy", value.detach().cpu().numpy())
