"""One iteration's terms, their weighted sum, and its gradients: the only place where weights and terms meet."""

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mononphm_core.model.config import IdentityConfig
from mononphm_core.model.head import HeadModel
from mononphm_core.quirks import PublishedQuirks
from mononphm_core.tracking.published import blocks, losses
from mononphm_core.tracking.published.configuration import GLOBAL_MODEL_FACTOR, PublishedWeights
from mononphm_core.tracking.published.landmarks import View, landmark_loss, posed_anchors
from mononphm_core.tracking.published.sampling import Batch
from mononphm_core.tracking.published.schedules import WITHOUT_COLOUR
from mononphm_core.tracking.published.variables import Leaves

Terms = dict[str, Float[Tensor, ""]]


@dataclass(frozen=True)
class Moment:
    """What holds at one step, apart from leaves and rays."""

    frame: int
    neighbours: tuple[int, ...]
    """Frames before and after that are optimised too; none in stage 1."""
    weights: PublishedWeights
    expression_weight: float
    landmark_weight: float
    smooth_weights: tuple[float, float]
    sharpness: float


@dataclass(frozen=True)
class Looked:
    """One evaluation. Gradients are in the leaves' `.grad`."""

    terms: Terms
    """Unweighted, detached; `total` among them."""
    rgb: Float[Tensor, "rays 3"]
    """Rendered, colours corrected."""
    opacity: Float[Tensor, "rays"]


def evaluate(
    model: HeadModel,
    leaves: Leaves,
    batch: Batch,
    view: View,
    detected_px: Float[Tensor, "68 2"],
    moment: Moment,
    quirks: PublishedQuirks,
    block_rays: int | None = None,
) -> Looked:
    """All terms of one iteration; adds the gradient of their weighted sum to every leaf that wants one."""
    placement = functools.partial(leaves.placement, moment.frame, view.w2c)
    picture = blocks.render(model, leaves, placement, moment.frame, batch, moment.sharpness, quirks, block_rays)
    rgb = leaves.corrected(picture.rgb)
    noise = batch.noise if quirks.landmark_search_starts_elsewhere else None
    z_exp = leaves.z_exp[moment.frame : moment.frame + 1]
    anchors = posed_anchors(model, leaves.geo(), z_exp, noise, quirks)
    at = placement()
    in_world = (anchors.x - at.translation) / at.scale @ at.rotation
    terms: Terms = {
        "colour": losses.colour(rgb, batch.rgb, batch.labels, batch.inner_mouth),
        "mask": losses.mask(picture.opacity, batch.labels, quirks),
        "landmarks": landmark_loss(anchors, in_world, view, detected_px),
        "expression": losses.squared(z_exp),
        **identity_terms(model, leaves),
        "smooth_expression": losses.smoothness(z_exp[0], [leaves.z_exp[i] for i in moment.neighbours]),
        "smooth_pose": losses.smoothness(leaves.turn[moment.frame], [leaves.turn[i] for i in moment.neighbours])
        + 10 * losses.smoothness(leaves.shift[moment.frame], [leaves.shift[i] for i in moment.neighbours]),
    }
    total = weighted_sum(terms, moment, model)
    if total.requires_grad:
        total.backward()
        picture.backward()
    return Looked({**{k: v.detach() for k, v in terms.items()}, "total": total.detach()}, rgb.detach(), picture.opacity)


def identity_terms(model: HeadModel, leaves: Leaves) -> Terms:
    """Priors of the two identity codes, by part. A model without local codes has its whole code in the global part."""
    c = model.config.identity
    terms: Terms = {}
    for name, code in (("geo", leaves.z_geo), ("app", leaves.z_app)):
        if not isinstance(c, IdentityConfig):
            terms[f"global_{name}"] = losses.squared(code)
            continue
        terms[f"global_{name}"] = losses.squared(code[:, : c.d_global])
        local = code[0, c.d_global :].unflatten(0, (c.nodes, -1))
        terms[f"local_{name}"] = losses.squared(local)
        terms[f"symmetry_{name}"] = losses.symmetry(local, c.symmetric_pairs)
    return terms


def weighted_sum(terms: Terms, moment: Moment, model: HeadModel) -> Float[Tensor, ""]:
    """The loss."""
    w = moment.weights
    whole = 1.0 if isinstance(model.config.identity, IdentityConfig) else GLOBAL_MODEL_FACTOR
    worth = {
        "colour": w.colour,
        "mask": w.mask,
        "landmarks": moment.landmark_weight * (WITHOUT_COLOUR if w.colour <= 0 else 1.0),
        "expression": moment.expression_weight,
        "global_geo": w.global_geo * whole,
        "global_app": w.global_app * whole,
        "local_geo": w.local_geo,
        "local_app": w.local_app,
        "symmetry_geo": w.symmetry_geo,
        "symmetry_app": w.symmetry_app,
        "smooth_expression": moment.smooth_weights[0],
        "smooth_pose": moment.smooth_weights[1],
    }
    return torch.stack([worth[name] * term for name, term in terms.items()]).sum()
