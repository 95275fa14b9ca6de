"""Pinhole cameras: projection and rays. OpenCV axes (x right, y down, z forward); pixel centres at .5."""

import torch
from jaxtyping import Float
from torch import Tensor

from mononphm_core.types import Intrinsics


def intrinsics_row(k: Intrinsics) -> Float[Tensor, "4"]:
    """(fx, fy, cx, cy) as a tensor."""
    return torch.tensor([k.fx, k.fy, k.cx, k.cy], dtype=torch.float32)


def project(
    x_camera: Float[Tensor, "*batch points 3"], k: Float[Tensor, "*batch 4"]
) -> Float[Tensor, "*batch points 2"]:
    """Pixel positions of points in front of the camera."""
    f, c = k[..., None, :2], k[..., None, 2:]
    return x_camera[..., :2] / x_camera[..., 2:].clamp_min(1e-6) * f + c


def ray_directions(
    pixels: Float[Tensor, "*batch rays 2"], k: Float[Tensor, "*batch 4"]
) -> Float[Tensor, "*batch rays 3"]:
    """Unit directions, camera frame, through pixel positions (a pixel's centre is its index + .5)."""
    f, c = k[..., None, :2], k[..., None, 2:]
    xy = (pixels - c) / f
    return torch.nn.functional.normalize(torch.cat([xy, torch.ones_like(xy[..., :1])], -1), dim=-1)
