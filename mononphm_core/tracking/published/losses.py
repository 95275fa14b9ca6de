"""The published terms, each a pure function, each unweighted. `labels` are the face parser's, of the rays."""

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from mononphm_core.preprocessing.published.observation import BACKGROUND, CLOTH, HAIR
from mononphm_core.quirks import PublishedQuirks

MOUTH_SHARE = 1 / 25
"""What a ray into the open mouth counts in the colour term: the model has no teeth."""
JACCARD = 5.0
"""Smoothing and factor of the mask term."""
HAIR_SHARE = 1 / 5
"""What the outline of hair counts in the mask term: the model has short hair at most."""


def is_head(labels: UInt8[Tensor, "*rays"]) -> Bool[Tensor, "*rays"]:
    """Neither background nor clothes; the neck is part of the head here."""
    return (labels != BACKGROUND) & (labels != CLOTH)


def colour(
    rgb: Float[Tensor, "rays 3"],
    seen: Float[Tensor, "rays 3"],
    labels: UInt8[Tensor, "rays"],
    inner_mouth: Bool[Tensor, "rays"],
) -> Float[Tensor, ""]:
    """Sum of absolute differences of rays on the head, a 25th inside the mouth, over the number of *all* rays."""
    counted = torch.where(inner_mouth, MOUTH_SHARE, 1.0).to(rgb.dtype) * is_head(labels)
    return ((rgb - seen).abs().sum(-1) * counted).sum() / len(rgb)


def mask(opacity: Float[Tensor, "rays"], labels: UInt8[Tensor, "rays"], quirks: PublishedQuirks) -> Float[Tensor, ""]:
    """Jaccard distance of opacity and head over all rays, and over the hair's, a fifth, in one mean.

    Published (quirk 6): (hairs * all + [others?] * hair / 5) / ([others?] + hairs), where [others?] is 1 or 0: without
    hair there is no mask term. Mended: each part counts with its own rays.
    """
    hair = labels == HAIR
    hairs, others = hair.sum(), (~hair).sum()
    nothing = opacity.new_zeros(())
    whole = _jaccard(opacity, labels) if others else nothing
    part = _jaccard(opacity[hair], labels[hair]) if hairs else nothing
    if not quirks.mask_counts_other_rays_as_one:
        return (others * whole + hairs * part * HAIR_SHARE) / len(labels)
    any_other = others.clamp_max(1)
    return (hairs * whole + any_other * part * HAIR_SHARE) / (any_other + hairs)


def _jaccard(opacity: Tensor, labels: Tensor) -> Tensor:
    """5 (1 - (sum y p + 5) / (sum y + sum p - sum y p + 5)), p the opacity in [0, 1], y the head."""
    y, p = is_head(labels).to(opacity.dtype), opacity.clamp(0, 1)
    both = (y * p).sum()
    return JACCARD * (1 - (both + JACCARD) / (y.sum() + p.sum() - both + JACCARD))


def symmetry(z_local: Float[Tensor, "nodes d_local"], pairs: int) -> Float[Tensor, ""]:
    """Mean distance between the codes of left and right nodes. Its gradient at equal codes is 0."""
    left, right = z_local[0 : 2 * pairs : 2], z_local[1 : 2 * pairs : 2]
    return (left - right).norm(dim=-1).mean()


def squared(code: Tensor) -> Float[Tensor, ""]:
    """|code|^2: every prior of the published tracker but the symmetric one."""
    return code.square().sum()


def smoothness(own: Float[Tensor, "d"], neighbours: list[Float[Tensor, "d"]]) -> Float[Tensor, ""]:
    """Mean squared difference to the frames before and after, as far as they are optimised too."""
    if not neighbours:
        return own.new_zeros(())
    return torch.stack([(own - other).square().sum() for other in neighbours]).mean()
