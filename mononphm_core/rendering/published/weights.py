"""Opacity of intervals as the published program writes it, with its epsilons (ours, without: rendering/volume.py)."""

import torch
from jaxtyping import Float
from torch import Tensor


def section_slope(
    z: Float[Tensor, "rays samples"], sdf: Float[Tensor, "rays samples"]
) -> Float[Tensor, "rays intervals"]:
    """Change of the distance over each interval, per unit length: the cosine between ray and normal, for a true sdf."""
    return (sdf[:, 1:] - sdf[:, :-1] + 1e-8) / (z[:, 1:] - z[:, :-1] + 1e-8)


def logistic_alpha(
    sdf_entry: Float[Tensor, "rays intervals"],
    sdf_exit: Float[Tensor, "rays intervals"],
    sharpness: float,
    epsilon: float,
) -> Float[Tensor, "rays intervals"]:
    """(P - N + epsilon) / (P + epsilon), P and N the sigmoids of sharpness * sdf at entry and exit; not clipped."""
    entering, leaving = torch.sigmoid(sharpness * sdf_entry), torch.sigmoid(sharpness * sdf_exit)
    return (entering - leaving + epsilon) / (entering + epsilon)


def transmitted(alpha: Float[Tensor, "rays intervals"]) -> Float[Tensor, "rays intervals"]:
    """Light that reaches each interval: the product of (1 - alpha + 1e-7) over those in front of it."""
    through = torch.cumprod(1.0 - alpha + 1e-7, -1)
    return torch.cat([torch.ones_like(through[:, :1]), through[:, :-1]], -1)
