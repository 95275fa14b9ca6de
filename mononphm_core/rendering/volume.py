"""Volume rendering of a signed distance (NeuS, Wang et al. 2021): distances, alpha, weights, opacity and colour."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Rays:
    """Rays of several frames in that frame's posed head space; a point is origin + distance * direction."""

    origin: Float[Tensor, "frames 3"]
    direction: Float[Tensor, "frames rays 3"]
    """Unit length as seen from the camera (times the pose's scale)."""
    near: Float[Tensor, "frames rays"]
    far: Float[Tensor, "frames rays"]
    """Distances between which the surface may lie."""

    def at(self, distance: Float[Tensor, "frames rays samples"]) -> Float[Tensor, "frames rays samples 3"]:
        """Points along the rays."""
        return self.origin[:, None, None] + distance[..., None] * self.direction[:, :, None]


@dataclass(frozen=True)
class Rendering:
    """What the rays saw."""

    opacity: Float[Tensor, "frames rays"]
    """Sum of the weights, 0 .. 1."""
    depth: Float[Tensor, "frames rays"]
    """Expected distance of what was hit; meaningless where opacity is near 0."""
    albedo: Float[Tensor, "frames rays 3"]
    """Weighted mean over the samples that count; the decoder's range [-1, 1]."""
    normal: Float[Tensor, "frames rays 3"]
    """Unit outward normal at the expected surface, posed space."""


Distance = Callable[[Float[Tensor, "frames points 3"]], Float[Tensor, "frames points"]]
Colour = Callable[[Float[Tensor, "frames points 3"]], Float[Tensor, "frames points 3"]]
Normal = Callable[[Float[Tensor, "frames points 3"]], Float[Tensor, "frames points 3"]]


def neus_alpha(
    sdf_entry: Float[Tensor, "*batch samples"], sdf_exit: Float[Tensor, "*batch samples"], sharpness: float
) -> Float[Tensor, "*batch samples"]:
    """Opacity of each ray interval from the distances at its two ends (NeuS, Wang et al. 2021, Eq. 13).

    alpha = max(1 - S(sharpness * sdf_exit) / S(sharpness * sdf_entry), 0),   S = sigmoid

    In logarithms, so no epsilon. Where the ray leaves the surface it is 0: back faces do not occlude. `sharpness` is
    1/length in head units, scheduled and not learned. Differentiable in both distances.
    """
    log_ratio = F.logsigmoid(sharpness * sdf_exit) - F.logsigmoid(sharpness * sdf_entry)
    return (-torch.expm1(log_ratio)).clamp_min(0.0)


def composite(alpha: Float[Tensor, "*batch samples"]) -> Float[Tensor, "*batch samples"]:
    """Weights of the intervals, front to back: w_i = alpha_i * prod_{j < i} (1 - alpha_j). Their sum is at most 1."""
    through = torch.cumprod(1.0 - alpha, -1)
    return alpha * torch.cat([torch.ones_like(through[..., :1]), through[..., :-1]], -1)


def boundaries(
    rays: Rays, samples: int, jitter: Float[Tensor, "frames rays"] | None = None
) -> Float[Tensor, "frames rays samples_1"]:
    """samples + 1 distances that cut [near, far] into equal intervals; `jitter` in [-.5, .5) shifts a ray's cuts by
    that share of an interval."""
    steps = torch.linspace(0, 1, samples + 1, device=rays.near.device, dtype=rays.near.dtype)
    if jitter is not None:
        steps = steps + jitter[..., None] / samples
    return rays.near[..., None] + (rays.far - rays.near)[..., None] * steps


def render_opacity(
    rays: Rays, cuts: Float[Tensor, "frames rays samples_1"], distance: Distance, sharpness: float
) -> tuple[Float[Tensor, "frames rays samples"], Float[Tensor, "frames rays"]]:
    """Weights of the intervals and expected depth; asks the field for distances alone."""
    frames, count = cuts.shape[:2]
    sdf = distance(rays.at(cuts).flatten(1, 2)).view(frames, count, -1)
    weights = composite(neus_alpha(sdf[..., :-1], sdf[..., 1:], sharpness))
    middle = 0.5 * (cuts[..., 1:] + cuts[..., :-1])
    depth = (weights * middle).sum(-1) / weights.sum(-1).clamp_min(1e-6)
    return weights, depth


def render(
    rays: Rays,
    cuts: Float[Tensor, "frames rays samples_1"],
    distance: Distance,
    colour: Colour,
    normal: Normal,
    sharpness: float,
    coloured: int,
) -> Rendering:
    """Opacity over all intervals; colour only at the `coloured` intervals of largest weight; one normal a ray.

    With `coloured` equal to the number of intervals the colour is the full quadrature of the published code (its slow
    twin in the tests). The intervals are chosen without gradient; their weights keep theirs.
    """
    weights, depth = render_opacity(rays, cuts, distance, sharpness)
    middle = 0.5 * (cuts[..., 1:] + cuts[..., :-1])
    chosen = weights.detach().topk(min(coloured, weights.shape[-1]), -1).indices
    w = weights.gather(-1, chosen)
    frames, count = w.shape[:2]
    c = colour(rays.at(middle.gather(-1, chosen)).flatten(1, 2)).view(frames, count, -1, 3)
    albedo = (w[..., None] * c).sum(-2) / w.sum(-1, keepdim=True).clamp_min(1e-4)
    n = normal(rays.at(depth.detach()[..., None]).squeeze(2))
    return Rendering(weights.sum(-1), depth, albedo, n)
