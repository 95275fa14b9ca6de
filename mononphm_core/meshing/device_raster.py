"""The rasteriser on a GPU by pytorch3d, where both are; the twin of `raster.py`, which answers everywhere else.

Clipping and projection are ours, so lens distortion and the near plane mean the same. pytorch3d's own screen has x to
the left and y up, and its shorter side spans [-1, 1] (its documentation: "NDC for non-square images"):

    x_ndc = (width / 2 - u) * 2 / min(width, height),    y_ndc = (height / 2 - v) * 2 / min(width, height)

Single precision there: a pixel centre that lies on an edge to a millionth may go to the other neighbour, or to none.
"""

import numpy as np
import torch
from jaxtyping import Float, Int

from mononphm_core.meshing.raster import NEAR, Raster, clip_near, project, rasterise
from mononphm_core.numerics import pytorch3d_device
from mononphm_core.types import Intrinsics


def draw(
    vertices_camera: Float[np.ndarray, "vertices 3"], faces: Int[np.ndarray, "faces 3"], intrinsics: Intrinsics
) -> Raster:
    """What each pixel sees, by the fastest rasteriser that is here: for pictures, not for solvers."""
    device = pytorch3d_device()
    if device is None:
        return rasterise(vertices_camera, faces, intrinsics)
    return rasterise_on(device, vertices_camera, faces, intrinsics)


def rasterise_on(
    device: torch.device,
    vertices_camera: Float[np.ndarray, "vertices 3"],
    faces: Int[np.ndarray, "faces 3"],
    intrinsics: Intrinsics,
    near: float = NEAR,
) -> Raster:
    """`raster.rasterise` by pytorch3d on `device`. ImportError where it is not installed."""
    from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
    from pytorch3d.structures import Meshes

    corners, owner, mix = clip_near(vertices_camera.astype(np.float64)[faces], near)
    width, height = intrinsics.width, intrinsics.height
    if len(corners) == 0:
        empty = np.full((height, width), -1, np.int64)
        return Raster(np.full((height, width), np.inf), empty, np.zeros((height, width, 3)))
    screen = project(corners.reshape(-1, 3), intrinsics)
    ndc = (np.array([width, height]) / 2 - screen) * 2 / min(width, height)
    points = torch.from_numpy(np.column_stack([ndc, corners[..., 2].ravel()])).float().to(device)
    pieces = torch.arange(len(points), device=device).view(-1, 3)
    found, _, barycentric, _ = rasterize_meshes(
        Meshes([points], [pieces]), image_size=(height, width), blur_radius=0.0, faces_per_pixel=1,
        perspective_correct=True, max_faces_per_bin=len(pieces),
    )  # fmt: skip
    piece = found[0, ..., 0].cpu().numpy()
    seen = piece >= 0
    b = np.zeros((height, width, 3))
    inside = barycentric[0, ..., 0, :].double().cpu().numpy()[seen]
    b[seen] = np.einsum("pk,pkc->pc", inside, mix[piece[seen]])
    depth = np.full((height, width), np.inf)
    depth[seen] = (inside * corners[piece[seen]][..., 2]).sum(-1)
    return Raster(depth, np.where(seen, owner[np.maximum(piece, 0)], -1), b)
