"""Models small enough for a loop over everything, in double precision."""

import dataclasses

import torch

from mononphm_core.model.config import DeformationConfig, IdentityConfig, ModelConfig
from mononphm_core.model.head import HeadModel

PUBLISHED = IdentityConfig(
    anchors=13, symmetric_pairs=4, neighbours=10, d_global=3, d_local_geo=2, d_local_app=2, hidden_geo=7, hidden_app=6,
    hidden_anchors=5, bottleneck=4,
)  # fmt: skip
"""The published choices (Gaussian of the 8th distance, a network without position) at toy sizes."""
OURS = IdentityConfig(
    anchors=13, symmetric_pairs=4, neighbours=4, d_global=3, d_local_geo=2, d_local_app=2, hidden_geo=7, hidden_app=6,
    layers_app=3, hidden_anchors=5, bottleneck=4, blend="compact", blend_width=0.25, global_node=False,
    point_scale=3.0, code_scale=0.5, colour_bands=2,
)  # fmt: skip
"""The choices of our first prior."""
LINEAR = dataclasses.replace(OURS, placement="linear", gated=True)
"""Those of our prior since 0.2.0: anchors and their stretch linear in the code, codes that scale hidden layers."""
FIELD = DeformationConfig(d_expression=3, d_identity=2, hidden=9, layers=6, ambient=2)


def tiny_model(identity: IdentityConfig = PUBLISHED, field: DeformationConfig = FIELD, seed: int = 0) -> HeadModel:
    """Random weights, several times larger than at the start of training, so that nothing is nearly linear."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = HeadModel(ModelConfig(identity, field), symmetric_anchors(identity)).double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter *= 1.5
    return model.requires_grad_(False)


def symmetric_anchors(identity: IdentityConfig) -> torch.Tensor:
    """Random places; the members of a pair mirror each other in x, the rest lie on the midline."""
    draw = torch.Generator().manual_seed(7)
    x = torch.rand(identity.anchors, 3, generator=draw) - 0.5
    pairs = 2 * identity.symmetric_pairs
    x[1:pairs:2] = x[0:pairs:2] * torch.tensor([-1.0, 1.0, 1.0])
    x[pairs:, 0] = 0.0
    return x


def codes(model: HeadModel, people: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random z_geo, z_app, z_exp."""
    draw = torch.Generator().manual_seed(seed)
    c = model.config
    sizes = (c.identity.d_geo, c.identity.d_app, c.deformation.d_expression)
    return tuple(torch.randn(people, d, generator=draw, dtype=torch.float64) for d in sizes)  # type: ignore[return-value]


def points(people: int, count: int, d: int = 3, seed: int = 2) -> torch.Tensor:
    """Random points of the box."""
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(people, count, d, generator=draw, dtype=torch.float64) - 0.5
