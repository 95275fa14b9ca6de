"""The terms of the objective: pure functions of what was rendered or projected and what was observed."""

import torch
from jaxtyping import Float
from torch import Tensor


def colour(
    rgb: Float[Tensor, "frames rays 3"], target: Float[Tensor, "frames rays 3"], weight: Float[Tensor, "frames rays"]
) -> Float[Tensor, ""]:
    """Mean absolute sRGB difference over the rays that count (MonoNPHM, section 4.2; robust to specks and shadows)."""
    return ((rgb - target).abs().mean(-1) * weight).sum() / weight.sum().clamp_min(1.0)


def mask(
    opacity: Float[Tensor, "frames rays"], inside: Float[Tensor, "frames rays"], weight: Float[Tensor, "frames rays"]
) -> Float[Tensor, ""]:
    """Mean absolute difference of opacity and mask where the mask is sure: hair and clothes are in neither class."""
    return ((opacity - inside).abs() * weight).sum() / weight.sum().clamp_min(1.0)


def landmarks(
    projected_px: Float[Tensor, "frames points 2"],
    target_px: Float[Tensor, "frames points 2"],
    sigma_px: Float[Tensor, "frames points"],
    confidence: Float[Tensor, "frames points"],
    huber: float,
) -> Float[Tensor, ""]:
    """Mean Huber cost of the distances in standard deviations, weighted by confidence."""
    distance = ((projected_px - target_px).square().sum(-1) + 1e-12).sqrt() / sigma_px
    rho = torch.where(distance < huber, distance.square(), 2 * huber * distance - huber**2)
    return (rho * confidence).sum() / confidence.sum().clamp_min(1e-6)


def code_prior(z: Float[Tensor, "d"]) -> Float[Tensor, ""]:
    """Squared Mahalanobis length of a code: its entries are standard normal by construction."""
    return z.square().sum()


def expression_prior(z_exp: Float[Tensor, "frames d_exp"], sigma: float) -> Float[Tensor, ""]:
    """Mean over frames of the squared length in standard deviations around the neutral face."""
    return (z_exp / sigma).square().sum(-1).mean()


def outside_unit(z_exp: Float[Tensor, "frames d_exp"]) -> Float[Tensor, ""]:
    """Mean over frames of the squared excess of blendshape weights over [0, 1]."""
    return ((-z_exp).clamp_min(0).square() + (z_exp - 1).clamp_min(0).square()).sum(-1).mean()


def asymmetry(z_exp: Float[Tensor, "frames d_exp"], left: Tensor, right: Tensor, sigma: float) -> Float[Tensor, ""]:
    """Mean over frames of the squared left-right differences in standard deviations."""
    return ((z_exp[:, left] - z_exp[:, right]) / sigma).square().sum(-1).mean()


def roughness(
    values: Float[Tensor, "frames d"], times: Float[Tensor, "frames"], sigma_per_s: Float[Tensor, "d"]
) -> Float[Tensor, ""]:
    """Mean squared velocity of a random walk over neighbouring frames: (change / sigma)^2 / seconds between them."""
    if len(values) < 2:
        return values.new_zeros(())
    change = (values[1:] - values[:-1]) / sigma_per_s
    return (change.square().sum(-1) / (times[1:] - times[:-1]).clamp_min(1e-3)).mean()
