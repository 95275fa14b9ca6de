"""The terms of the colour objective: pure functions of what was rendered and what was observed."""

from jaxtyping import Float
from torch import Tensor


def colour(
    rgb: Float[Tensor, "frames rays 3"], target: Float[Tensor, "frames rays 3"], weight: Float[Tensor, "frames rays"]
) -> Float[Tensor, ""]:
    """Mean absolute sRGB difference over the rays that count (MonoNPHM, section 4.2; robust to specks and shadows)."""
    return ((rgb - target).abs().mean(-1) * weight).sum() / weight.sum().clamp_min(1.0)


def code_prior(z: Float[Tensor, "d"]) -> Float[Tensor, ""]:
    """Squared Mahalanobis length of a code: its entries are standard normal by construction."""
    return z.square().sum()
