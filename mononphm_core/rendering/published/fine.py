"""One volume-rendering pass of the published program over the rays of one frame."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mononphm_core.quirks import PublishedQuirks
from mononphm_core.rendering.published.near_far import near_far
from mononphm_core.rendering.published.sampling import coarse_distances, importance_distances
from mononphm_core.rendering.published.shading import shading
from mononphm_core.rendering.published.weights import logistic_alpha, section_slope, transmitted


@dataclass(frozen=True)
class WorldRays:
    """Rays of one frame in the tracking world: head units, the head's first pose as the origin and axes."""

    origin: Float[Tensor, "3"]
    direction: Float[Tensor, "rays 3"]
    """Unit length."""

    def at(self, z: Float[Tensor, "rays samples"]) -> Float[Tensor, "rays samples 3"]:
        """Points along the rays."""
        return self.origin + z[..., None] * self.direction[:, None]

    def part(self, rows: slice) -> "WorldRays":
        """Some of the rays."""
        return WorldRays(self.origin, self.direction[rows])


@dataclass(frozen=True)
class Placement:
    """The residual pose x_posed = scale * R x_world + t, and how the camera is turned. One frame; differentiable."""

    rotation: Float[Tensor, "3 3"]
    translation: Float[Tensor, "3"]
    scale: Float[Tensor, ""]
    camera_rotation: Float[Tensor, "3 3"]
    """World -> camera (OpenGL axes), fixed."""

    def to_posed(self, x_world: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """World points in posed head space."""
        return (self.scale * x_world) @ self.rotation.T + self.translation


@dataclass(frozen=True)
class Samples:
    """What the field says at points of posed space."""

    sdf: Float[Tensor, "points"]
    colour: Float[Tensor, "points 3"]
    """The decoder's range: -1 black, 1 white."""
    gradient: Float[Tensor, "points 3"] | None
    """d sdf / d x_posed, not normalised."""


@dataclass(frozen=True)
class PublishedRendering:
    """What the rays saw."""

    rgb: Float[Tensor, "rays 3"]
    """The decoder's range; empty space is 0, mid grey."""
    opacity: Float[Tensor, "rays"]
    """Sum of the weights; may pass 1 by an epsilon."""
    depth: Float[Tensor, "rays"]
    """Sum of weight times distance: not divided by the opacity."""


Distance = Callable[[Float[Tensor, "points 3"]], Float[Tensor, "points"]]
Field = Callable[[Float[Tensor, "points 3"]], Samples]


@torch.no_grad()
def place_samples(
    rays: WorldRays, placement: Placement, distance: Distance, jitter: Float[Tensor, "rays samples"]
) -> Float[Tensor, "rays samples"]:
    """Distances at which the fine pass looks: a coarse pass over the bounding sphere, then importance sampling."""
    near, far = near_far(rays.origin, rays.direction)
    z = coarse_distances(near, far, jitter)
    x = rays.at(z)
    sdf = distance(placement.to_posed(x).flatten(0, 1)).view_as(z)
    return importance_distances(z, sdf, x.norm(dim=-1))


def render_lit(
    rays: WorldRays,
    placement: Placement,
    z: Float[Tensor, "rays samples"],
    field: Field,
    sh: Float[Tensor, "9 3"],
    sharpness: float,
    quirks: PublishedQuirks,
) -> PublishedRendering:
    """Shaded colour, opacity and depth from samples at the middles of the intervals (the branch that tracking uses).

    The distance at an interval's ends is extrapolated from its middle by the slope along the ray, direction . gradient.
    Gradients flow to field, placement and light, not to `z`. The last interval is as long as the one before it.
    """
    step = z[:, 1:] - z[:, :-1]
    step = torch.cat([step, step[:, -1:]], -1)
    x = placement.to_posed(rays.at(z + step * 0.5))
    seen = field(x.flatten(0, 1))
    assert seen.gradient is not None, "lit rendering needs the field's gradient"
    sdf, gradient = seen.sdf.view_as(z), seen.gradient.view(*z.shape, 3)
    direction = rays.direction
    if not quirks.cosine_ignores_head_rotation:
        direction = direction @ placement.rotation.T
    half = (direction[:, None] * gradient).sum(-1) * step * 0.5
    alpha = logistic_alpha(sdf - half, sdf + half, sharpness, epsilon=1e-5).clip(0, 1)
    weights = alpha * transmitted(alpha)
    normal = gradient / gradient.norm(dim=-1, keepdim=True)
    light = shading(normal @ placement.rotation @ placement.camera_rotation.T, sh)
    lit = 2 * (light * (seen.colour.view(*z.shape, 3) + 1) / 2 - 0.5)
    return PublishedRendering((weights[..., None] * lit).sum(1), weights.sum(-1), (weights * z).sum(-1))


@torch.no_grad()
def render_unlit(
    rays: WorldRays, placement: Placement, z: Float[Tensor, "rays samples"], field: Field, sharpness: float
) -> PublishedRendering:
    """Albedo, opacity and depth from samples at `z` itself; an interval counts with what lies at its start."""
    seen = field(placement.to_posed(rays.at(z)).flatten(0, 1))
    sdf = seen.sdf.view_as(z)
    middle = 0.5 * (sdf[:, 1:] + sdf[:, :-1])
    half = section_slope(z, sdf).clamp(-1e3, 0.0) * (z[:, 1:] - z[:, :-1]) * 0.5
    alpha = logistic_alpha(middle - half, middle + half, sharpness, epsilon=1e-8).clip(0, 1)
    weights = alpha * transmitted(alpha)
    colour = seen.colour.view(*z.shape, 3)[:, :-1]
    return PublishedRendering((weights[..., None] * colour).sum(1), weights.sum(-1), (weights * z[:, :-1]).sum(-1))
