"""The colour objective: the only place where its terms and weights meet."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mononphm_core.errors import Diverged
from mononphm_core.model.head import HeadModel
from mononphm_core.rendering import light
from mononphm_core.rendering.volume import Rendering, boundaries, render
from mononphm_core.tracking import losses
from mononphm_core.tracking.config import RaySampling, Weights
from mononphm_core.tracking.field import PosedHeads
from mononphm_core.tracking.scene import Candidates, Cast, Scene, cast
from mononphm_core.tracking.variables import Variables


@dataclass(frozen=True)
class Setting:
    """What stays the same over the steps of one stage."""

    model: HeadModel
    scene: Scene
    weights: Weights
    sampling: RaySampling


@dataclass(frozen=True)
class Evaluation:
    """One look at the objective."""

    terms: dict[str, Tensor]
    """Unweighted."""
    rendering: Rendering
    cast: Cast
    normal_camera: Float[Tensor, "frames rays 3"]


def evaluate(
    setting: Setting, v: Variables, found: Candidates, frames: Tensor, generator: torch.Generator
) -> Evaluation:
    """Render random rays of these frames and compare. Only the complexion has a gradient: geometry is held still."""
    rays = cast(setting.scene, found, v, frames, setting.sampling, generator)
    heads = PosedHeads.of(setting.model, v.z_geo, v.z_app, v.z_exp[frames])
    jitter = torch.rand(rays.inside.shape, generator=generator).to(rays.inside.device) - 0.5
    cuts = boundaries(rays.rays, setting.sampling.samples, jitter)
    seen = render(
        rays.rays, cuts, heads.distance, heads.colour, heads.normal, setting.sampling.sharpness,
        setting.sampling.coloured,
    )  # fmt: skip
    normal = seen.normal @ v.rotation()[frames].transpose(1, 2)
    rgb = light.lit(seen.albedo, normal, v.light)
    solid = (seen.opacity.detach() > 0.5).float()
    terms = {
        "colour": losses.colour(rgb, rays.rgb, rays.colour_weight * solid),
        "appearance_prior": losses.code_prior(v.u_app),
    }
    return Evaluation(terms, seen, rays, normal)


def weighted_sum(terms: dict[str, Tensor], weights: Weights, step: int) -> Tensor:
    """The loss. Diverged names the first term that is not a number."""
    for name, value in terms.items():
        if not torch.isfinite(value):
            raise Diverged(step, name)
    return torch.stack([getattr(weights, name) * value for name, value in terms.items()]).sum()
