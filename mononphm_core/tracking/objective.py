"""The only place where terms and weights meet."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mononphm_core.errors import Diverged
from mononphm_core.geometry.cameras import project
from mononphm_core.model.head import HeadModel
from mononphm_core.rendering import light
from mononphm_core.rendering.volume import Rendering, boundaries, render
from mononphm_core.tracking import losses
from mononphm_core.tracking.config import LandmarkFitConfig, RaySampling, Weights
from mononphm_core.tracking.field import PosedHeads
from mononphm_core.tracking.scene import Candidates, Cast, Scene, cast
from mononphm_core.tracking.variables import Variables

ROTATION_PER_S = 1.2
"""How fast a head turns: standard deviation after one second, radians."""
TRANSLATION_PER_S = 0.25
"""How fast a head moves, head units after one second."""
EXPRESSION_PER_S = 2.5
"""How fast a blendshape weight moves after one second: a blink takes a tenth."""


@dataclass(frozen=True)
class Setting:
    """What stays the same over the steps of one stage."""

    model: HeadModel
    scene: Scene
    weights: Weights
    sampling: RaySampling
    prior: LandmarkFitConfig
    pairs: tuple[Tensor, Tensor]
    """Left and right blendshape indices."""


@dataclass(frozen=True)
class Evaluation:
    """One look at the objective."""

    terms: dict[str, Tensor]
    """Unweighted."""
    rendering: Rendering
    cast: Cast
    normal_camera: Float[Tensor, "frames rays 3"]


def evaluate(
    setting: Setting,
    v: Variables,
    found: Candidates,
    frames: Tensor,
    band: float,
    sharpness: float,
    generator: torch.Generator,
) -> Evaluation:
    """Render random rays of these frames and compare; project the landmarks and compare."""
    scene, sampling = setting.scene, setting.sampling
    rays = cast(scene, found, v, frames, sampling, band, generator)
    heads = PosedHeads.of(setting.model, v.z_geo, v.z_app, v.z_exp[frames])
    jitter = torch.rand(rays.inside.shape, generator=generator).to(rays.inside.device) - 0.5
    cuts = boundaries(rays.rays, sampling.samples, jitter)
    seen = render(rays.rays, cuts, heads.distance, heads.colour, heads.normal, sharpness, sampling.coloured)
    rotation = v.rotation()
    normal = seen.normal @ rotation[frames].transpose(1, 2)
    rgb = light.lit(seen.albedo, normal, v.light)
    solid = (seen.opacity.detach() > 0.5).float()
    terms = {
        "colour": losses.colour(rgb, rays.rgb, rays.colour_weight * solid),
        "mask": losses.mask(seen.opacity, rays.inside, rays.mask_weight),
        "landmarks": landmark_term(setting, v, frames),
        "identity_prior": losses.code_prior(v.u_geo),
        "appearance_prior": losses.code_prior(v.u_app),
        "expression_prior": losses.expression_prior(v.z_exp[frames], setting.prior.expression_sigma),
        "expression_bounds": losses.outside_unit(v.z_exp[frames]),
        "symmetry_prior": losses.asymmetry(v.z_exp[frames], *setting.pairs, setting.prior.symmetry_sigma),
    }
    if setting.weights.smooth_pose or setting.weights.smooth_expression:
        terms |= smoothness(setting, v, frames)
    return Evaluation(terms, seen, rays, normal)


def landmark_term(setting: Setting, v: Variables, frames: Tensor) -> Float[Tensor, ""]:
    """Dense landmarks of the template against the detected ones."""
    template = setting.model.template
    assert template is not None
    posed = template.posed(v.z_geo.expand(len(frames), -1), v.z_exp[frames], "mediapipe478")
    camera = posed @ v.rotation()[frames].transpose(1, 2) + v.shift[frames][:, None]
    s = setting.scene
    projected = project(camera, s.k[frames])
    return losses.landmarks(
        projected, s.landmarks_px[frames], s.sigma_px[frames], s.confidence[frames], setting.prior.huber
    )


def smoothness(setting: Setting, v: Variables, frames: Tensor) -> dict[str, Tensor]:
    """Random-walk priors between neighbouring frames; `frames` must be consecutive."""
    times = setting.scene.times[frames]
    relative = v.rotation()[frames]
    steps = relative[1:] @ relative[:-1].transpose(1, 2)
    axis = torch.stack(
        [steps[:, 2, 1] - steps[:, 1, 2], steps[:, 0, 2] - steps[:, 2, 0], steps[:, 1, 0] - steps[:, 0, 1]], 1
    )
    turned = torch.cat([axis.new_zeros(1, 3), torch.cumsum(axis / 2, 0)])
    pose = torch.cat([turned / ROTATION_PER_S, v.shift[frames] / TRANSLATION_PER_S], 1)
    return {
        "smooth_pose": losses.roughness(pose, times, torch.ones_like(pose[0])),
        "smooth_expression": losses.roughness(v.z_exp[frames] / EXPRESSION_PER_S, times, torch.ones_like(v.z_exp[0])),
    }


def weighted_sum(terms: dict[str, Tensor], weights: Weights, step: int) -> Tensor:
    """The loss. Diverged names the first term that is not a number."""
    for name, value in terms.items():
        if not torch.isfinite(value):
            raise Diverged(step, name)
    return torch.stack([getattr(weights, name) * value for name, value in terms.items()]).sum()
