"""Rotations by their logarithm (so(3) vectors, radians)."""

import torch
from jaxtyping import Float
from torch import Tensor


def skew(v: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """[v]x, such that [v]x u = v x u."""
    x, y, z = v.unbind(-1)
    o = torch.zeros_like(x)
    return torch.stack([o, -z, y, z, o, -x, -y, x, o], -1).unflatten(-1, (3, 3))


def so3_exp(log: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """R = I + sin(a)/a [v]x + (1 - cos(a))/a^2 [v]x^2, a = |v| (Rodrigues). Smooth and exact at 0."""
    squared = log.square().sum(-1)
    small = squared < 1e-6
    angle = torch.where(small, torch.ones_like(squared), squared).sqrt()
    first = torch.where(small, 1 - squared / 6, angle.sin() / angle)
    second = torch.where(small, 0.5 - squared / 24, (1 - angle.cos()) / angle.square())
    k = skew(log)
    identity = torch.eye(3, dtype=log.dtype, device=log.device)
    return identity + first[..., None, None] * k + second[..., None, None] * (k @ k)


def so3_exp_clamped(log: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rodrigues as the published program has it: the angle in the two factors is at least 0.01 rad (|v|^2 >= 1e-4).

    Below that the result is no exact rotation (by 1e-9) and its gradient differs by 2e-5: for numbers that must agree.
    """
    squared = log.square().sum(-1).clamp_min(1e-4)
    angle = squared.sqrt()
    first, second = angle.sin() / angle, (1 - angle.cos()) / squared
    k = skew(log)
    identity = torch.eye(3, dtype=log.dtype, device=log.device)
    return identity + first[..., None, None] * k + second[..., None, None] * (k @ k)


def so3_log(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """The inverse of `so3_exp` for angles below pi. No gradient at pi."""
    cos = ((rotation.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(-1, 1)
    axis = torch.stack(
        [
            rotation[..., 2, 1] - rotation[..., 1, 2],
            rotation[..., 0, 2] - rotation[..., 2, 0],
            rotation[..., 1, 0] - rotation[..., 0, 1],
        ],
        -1,
    )
    sin = 0.5 * axis.norm(dim=-1)
    angle = torch.atan2(sin, cos)
    factor = torch.where(sin < 1e-4, 0.5 + angle.square() / 12, angle / (2 * sin).clamp_min(1e-12))
    return factor[..., None] * axis


def angle_between_deg(a: Float[Tensor, "*batch 3 3"], b: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch"]:
    """Angle of the rotation from a to b, degrees."""
    return torch.rad2deg(so3_log(a.transpose(-1, -2) @ b).norm(dim=-1))
