"""The published alignment of a mesh with a scan: 250 steps of Adam on a similarity, nearest points anew in each.

    v' = s v R^T + t,   R from Euler angles about x, y, z
    loss = share / |vertices| * sum over valid vertices of 0.9 |n . (v' - q)| + 0.1 |v' - q|_1

q is the scan point nearest to v', n its normal. Valid: at most 10 mm away and vertex normal . -n >= 0.2, where vertex
normals stay those of the mesh as it came. share is 1 for the first 100 steps, then 20; the rate of 1e-3 is halved after
50 steps and divided by 5 after 200. Not differentiable through the choice of q.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mononphm_core.evaluation.kinect.scan import ScanPoints
from mononphm_core.geometry.neighbours import neighbours
from mononphm_core.meshing.clean import vertex_normals
from mononphm_core.types import HeadMesh

STEPS, RATE = 250, 1e-3
SLOWER = {50: 2.0, 200: 5.0}
"""After so many steps the rate is divided by so much."""
LOUDER_AFTER, LOUDER = 100, 20.0
NEAR_M, FACING = 0.01, 0.2
PLANE_SHARE = 0.9


def aligned(mesh: HeadMesh, scan: ScanPoints, steps: int = STEPS) -> HeadMesh:
    """The mesh after the published descent; metres, camera frame."""
    vertices = torch.from_numpy(np.asarray(mesh.vertices, np.float64))
    outward = vertex_normals(mesh)
    tree = neighbours(scan.points)
    points, normals = torch.from_numpy(scan.points), torch.from_numpy(scan.normals)
    angles, shift, scale = torch.zeros(3).double(), torch.zeros(3).double(), torch.ones(1).double()
    leaves = [leaf.requires_grad_(True) for leaf in (angles, shift, scale)]
    optimiser = torch.optim.Adam(leaves, lr=RATE)
    for step in range(steps):
        if step in SLOWER:
            optimiser.param_groups[0]["lr"] /= SLOWER[step]
        moved = scale * vertices @ euler_xyz(angles).T + shift
        distance, nearest = tree.query(moved.detach().numpy())
        valid = (distance <= NEAR_M) & ((outward * -scan.normals[nearest]).sum(-1) >= FACING)
        if not valid.any():
            break
        rows = torch.from_numpy(nearest[valid])
        gap = moved[torch.from_numpy(valid)] - points[rows]
        along = (gap * normals[rows]).sum(-1).abs()
        residual = PLANE_SHARE * along + (1 - PLANE_SHARE) * gap.abs().sum(-1)
        loss = (LOUDER if step >= LOUDER_AFTER else 1.0) * residual.sum() / len(vertices)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        moved = scale * vertices @ euler_xyz(angles).T + shift
    return HeadMesh(moved.numpy(), mesh.faces)


def euler_xyz(angles: Float[Tensor, "3"]) -> Float[Tensor, "3 3"]:
    """R_x R_y R_z."""
    (cx, cy, cz), (sx, sy, sz) = angles.cos().unbind(), angles.sin().unbind()
    o, one = torch.zeros_like(cx), torch.ones_like(cx)
    x = torch.stack([one, o, o, o, cx, -sx, o, sx, cx]).view(3, 3)
    y = torch.stack([cy, o, sy, o, one, o, -sy, o, cy]).view(3, 3)
    z = torch.stack([cz, -sz, o, sz, cz, o, o, o, one]).view(3, 3)
    return x @ y @ z
