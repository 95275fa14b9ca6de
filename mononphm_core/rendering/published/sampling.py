"""Samples along a ray: a jittered coarse pass, then as many where the surface is (NeuS, Wang et al. 2021, 4.1)."""

import torch
from jaxtyping import Float
from torch import Tensor

from mononphm_core.rendering.published.weights import logistic_alpha, section_slope, transmitted

COARSE_SHARPNESS = 20.085536923187668
"""e^3: of the sigmoid that turns the coarse distances into a density, 1/head unit."""
INSIDE = 1.0
"""World radius beyond which a sample is not looked at; not the bounding sphere's."""


def coarse_distances(
    near: Float[Tensor, "rays"], far: Float[Tensor, "rays"], jitter: Float[Tensor, "rays samples"]
) -> Float[Tensor, "rays samples"]:
    """near .. far in equal steps, both ends included, each moved by (jitter - 1/2) of the range over their number.

    `jitter` is uniform in [0, 1): the only randomness of a rendering.
    """
    samples = jitter.shape[1]
    steps = torch.linspace(0, 1, samples, dtype=near.dtype, device=near.device)
    span = (far - near)[:, None]
    return near[:, None] + span * steps + (jitter - 0.5) * span / samples


@torch.no_grad()
def importance_distances(
    z: Float[Tensor, "rays samples"],
    sdf: Float[Tensor, "rays samples"],
    radius: Float[Tensor, "rays samples"],
    sharpness: float = COARSE_SHARPNESS,
) -> Float[Tensor, "rays samples"]:
    """As many new distances, distributed like the weights of the coarse intervals. No gradient; they replace `z`.

    `radius` is each coarse sample's distance from the world's origin. The slope of an interval is the smaller of its
    own and its predecessor's: near a surface seen at a grazing angle the density is spread rather than missed.
    """
    step = z[:, 1:] - z[:, :-1]
    middle = 0.5 * (sdf[:, 1:] + sdf[:, :-1])
    slope = section_slope(z, sdf)
    before = torch.cat([torch.zeros_like(slope[:, :1]), slope[:, :-1]], -1)
    slope = torch.minimum(slope, before).clamp(-1e3, 0.0)
    slope = slope * ((radius[:, :-1] < INSIDE) | (radius[:, 1:] < INSIDE))
    half = slope * step * 0.5
    alpha = logistic_alpha(middle - half, middle + half, sharpness, epsilon=1e-8)
    return invert_cdf(z, alpha * transmitted(alpha), z.shape[1])


def invert_cdf(
    bins: Float[Tensor, "rays samples"], weights: Float[Tensor, "rays intervals"], count: int
) -> Float[Tensor, "rays count"]:
    """Distances at the quantiles (k + 1/2) / count of a piecewise constant density over the intervals of `bins`.

    Ill-conditioned where the density is nearly flat: rays that hardly hit anything.
    """
    pdf = (weights + 1e-8) / (weights + 1e-8).sum(-1, keepdim=True)
    cdf = torch.cat([torch.zeros_like(pdf[:, :1]), pdf.cumsum(-1)], -1)
    u = torch.linspace(0.5 / count, 1 - 0.5 / count, count, dtype=bins.dtype, device=bins.device)
    u = u.expand(len(bins), count).contiguous()
    above = torch.searchsorted(cdf, u, right=True)
    below = (above - 1).clamp_min(0)
    above = above.clamp_max(cdf.shape[1] - 1)
    share = cdf.gather(1, above) - cdf.gather(1, below)
    share = torch.where(share < 1e-8, torch.ones_like(share), share)
    start, end = bins.gather(1, below), bins.gather(1, above)
    return start + (u - cdf.gather(1, below)) / share * (end - start)
