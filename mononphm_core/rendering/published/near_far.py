"""Where along a ray the head may be: a sphere around the world's origin, which is the head's centre at the start."""

import torch
from jaxtyping import Float
from torch import Tensor

RADIUS = 0.7
"""Of the bounding sphere, head units."""


def near_far(
    origin: Float[Tensor, "3"], direction: Float[Tensor, "rays 3"], radius: float = RADIUS
) -> tuple[Float[Tensor, "rays"], Float[Tensor, "rays"]]:
    """Distances at which unit rays enter and leave the sphere |x| = radius.

    t = -b -+ sqrt(b^2 - (|o|^2 - radius^2)),   b = d . o

    A ray that misses gets the mean of those that hit (all rays are rendered), or the ball's own extent if none does;
    nothing lies behind the camera.
    """
    b = (direction * origin).sum(-1)
    under_root = b.square() - (origin.square().sum() - radius**2)
    hit = under_root > 0
    half = under_root.clamp_min(0).sqrt()
    ends = torch.stack([-b - half, -b + half], -1)
    if not hit.any():
        distance = origin.norm()
        instead = torch.stack([distance - radius, distance + radius])
    else:
        instead = ends[hit].mean(0)
    near, far = torch.where(hit[:, None], ends, instead).clamp_min(0).unbind(-1)
    return near, far
