"""From the space of the model to the space of the files."""

from dataclasses import replace

import numpy as np

from mononphm_core.types import MM_PER_UNIT, HeadMesh, HeadPose


def to_world_mm(mesh: HeadMesh, poses: HeadPose, frame: int) -> HeadMesh:
    """A mesh of posed head units, placed in the world of row `frame` of `poses`, in millimetres.

    x_world = R^T (x_posed - t) / scale; a rotation with a positive scale leaves the triangles' orientation as it is.
    """
    rotation = poses.rotation[frame].detach().cpu().numpy().astype(np.float64)
    translation = poses.translation[frame].detach().cpu().numpy().astype(np.float64)
    x_world = (mesh.vertices - translation) @ rotation / float(poses.scale)
    return replace(mesh, vertices=(x_world * MM_PER_UNIT).astype(np.float32))
