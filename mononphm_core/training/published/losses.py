"""The losses of the published training. Pure: networks, codes and one batch go in, unweighted terms come out.

Surface (s: face and static front), outer (o: the rest of the head), off-surface (f) and far points (r) go through the
networks together. "Hair" items are scans whose hair is the person's own: there the rest of the head counts as well.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mononphm_core.model.head import HeadModel
from mononphm_core.model.identity import IdentityDecoder
from mononphm_core.training.published.config import Lambdas

CORRESP_FADES, CORRESP_ENDS = 750, 3000
"""Epochs after which correspondences count a quarter, and from which they do not count."""
ZERO_BOX = 1.25
ZERO_POINTS = 50


@dataclass(frozen=True)
class Batch:
    """Some scans. Lengths in head units, colours in [-1, 1]."""

    scan: Int[Tensor, "scans"]
    """Row of the expression codebook."""
    person: Int[Tensor, "scans"]
    """Row of the geometry and appearance codebooks."""
    surface: Float[Tensor, "scans surface 3"]
    surface_normal: Float[Tensor, "scans surface 3"]
    surface_colour: Float[Tensor, "scans surface 3"]
    outer: Float[Tensor, "scans outer 3"]
    outer_normal: Float[Tensor, "scans outer 3"]
    outer_colour: Float[Tensor, "scans outer 3"]
    off: Float[Tensor, "scans off 3"]
    off_colour: Float[Tensor, "scans off 3"]
    far: Float[Tensor, "scans far 3"]
    corresp_neutral: Float[Tensor, "scans corresp 3"]
    corresp_posed: Float[Tensor, "scans corresp 3"]
    has_corresp: Bool[Tensor, "scans"]
    anchors: Float[Tensor, "scans anchors 3"]
    has_anchors: Bool[Tensor, "scans"]
    is_neutral: Bool[Tensor, "scans"]
    hair: Bool[Tensor, "scans"]
    anywhere: Float[Tensor, "scans zero 3"]
    """Uniform in a cube: deformations should vanish far from the face."""

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""
        return Batch(**{name: value.to(device) for name, value in self.__dict__.items()})


@dataclass(frozen=True)
class Codes:
    """The codes of a batch's scans."""

    geo: Float[Tensor, "scans d_geo"]
    app: Float[Tensor, "scans d_app"]
    exp: Float[Tensor, "scans d_exp"]


def losses(model: HeadModel, codes: Codes, batch: Batch, epoch: int) -> dict[str, Tensor]:
    """Every term, by the name of its lambda. Means are over points; an empty selection gives 0."""
    identity = model.identity
    assert isinstance(identity, IdentityDecoder), "the published training is that of the local ensemble"
    conditioned = model.condition(codes.geo, codes.exp, codes.app)
    counts = [batch.surface.shape[1], batch.outer.shape[1], batch.off.shape[1], batch.far.shape[1]]
    x = torch.cat([batch.surface, batch.outer, batch.off, batch.far], 1).requires_grad_(True)
    with torch.enable_grad():
        offset, ambient = model.deformation(x, conditioned.condition)
        sdf, colour = identity(torch.cat([x + offset, ambient], -1), conditioned.person, colour=True)
        (gradient,) = torch.autograd.grad(sdf.sum(), x, create_graph=True)
    assert colour is not None
    sdf_s, sdf_o, _, sdf_r = sdf.split(counts, 1)
    grad_s, grad_o, _, _ = gradient.split(counts, 1)
    colour_s, colour_o, colour_f, _ = colour.split(counts, 1)
    offset_s, offset_o, offset_f, _ = offset.split(counts, 1)
    hyper_s, hyper_o, hyper_f, hyper_r = ambient.split(counts, 1)
    elsewhere = torch.cat([batch.corresp_posed, batch.anywhere], 1)
    offset_e, hyper_e = model.deformation(elsewhere, conditioned.condition)
    corresp, zero = batch.corresp_posed.shape[1], batch.anywhere.shape[1]
    offset_c, offset_z = offset_e.split([corresp, zero], 1)
    hyper_z = hyper_e[:, corresp:]
    hair, neutral = batch.hair, batch.is_neutral

    moved = (batch.corresp_posed + offset_c - batch.corresp_neutral)[batch.has_corresp].square()
    terms = {
        "surf_sdf": mean(sdf_s.abs(), sdf_o.abs() if bool(hair.any()) else sdf_o[:0]),
        "normals": mean(
            (grad_s - batch.surface_normal).norm(dim=-1),
            (grad_o - batch.outer_normal)[hair].norm(dim=-1).clamp_max(0.75) / 4,
        ),
        "eikonal": (gradient.norm(dim=-1) - 1).abs().mean(),
        "space_sdf": torch.exp(-10 * sdf_r.abs()).mean(),
        "color": mean(
            (colour_s - batch.surface_colour).abs(),
            (colour_o - batch.outer_colour).abs(),
            (colour_f - batch.off_colour)[hair].abs() / 5,
        ),
        "anchors": mean((conditioned.person.anchors - batch.anchors)[batch.has_anchors].square()),
        "corresp": mean(moved) * corresp_share(epoch),
        "loss_reg_zero": offset_z.square().mean(),
        "loss_neutral_zero": sdf.new_zeros(()),
        "hyper": mean(hyper_s.abs(), hyper_r.abs(), hyper_z.abs()),
        "reg_shape": codes.geo.square().sum(-1).mean(),
        "reg_expr": codes.exp.square().sum(-1).mean(),
        "reg_app": codes.app.square().sum(-1).mean(),
    }
    if bool(neutral.any()):
        terms["loss_neutral_zero"] = mean(offset_s[neutral].square(), offset_o.square(), offset_f.square())
        terms["hyper"] = terms["hyper"] + 10 * mean(hyper_s[neutral].abs(), hyper_o.abs(), hyper_f.abs())
    for name, z, d_local in (
        ("", codes.geo, identity.config.d_local_geo),
        ("_app", codes.app, identity.config.d_local_app),
    ):
        _, local = identity.split(z, d_local)
        terms[f"symm_dist{name}"], terms[f"middle_dist{name}"] = pair_distances(local, identity.config.symmetric_pairs)
    return terms


def total(terms: dict[str, Tensor], lambdas: Lambdas) -> Tensor:
    """sum_k lambda_k * term_k: the only place where weights and terms meet."""
    return torch.stack([getattr(lambdas, name) * term for name, term in terms.items()]).sum()


def corresp_share(epoch: int) -> float:
    """How much correspondences count in `epoch`."""
    if epoch >= CORRESP_ENDS:
        return 0.0
    return 0.25 if epoch > CORRESP_FADES else 1.0


def pair_distances(
    local: Float[Tensor, "scans nodes d_local"], pairs: int
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Mean |left - right| over the symmetric pairs, and over the pairs (60, 61), (62, 63) that lie on the midline."""
    symmetric = (local[:, 0 : 2 * pairs : 2] - local[:, 1 : 2 * pairs : 2]).norm(dim=-1).mean()
    first = 2 * pairs
    midline = torch.stack([local[:, first] - local[:, first + 1], local[:, first + 2] - local[:, first + 3]])
    return symmetric, midline.norm(dim=-1).mean()


def mean(*parts: Tensor) -> Float[Tensor, ""]:
    """Mean over all numbers of all parts together; 0 when there are none."""
    together = torch.cat([part.reshape(-1) for part in parts])
    return together.mean() if len(together) else together.sum()
