"""A checkpoint of the published type `global` that has a surface: a ball, taught here in two seconds."""

from pathlib import Path

import torch

from mononphm_core.model.config import DeformationConfig, GlobalIdentityConfig, ModelConfig
from mononphm_core.model.published import head_model, published_states
from tests.golden.checkpoints import anchors, document_of, random_states, write_experiment

RADIUS = 0.35
"""Head units, for every person and expression near the mean; to about a tenth."""
CONFIG = ModelConfig(
    GlobalIdentityConfig(d_geo=16, d_app=16, hidden=32, layers_geo=4, layers_app=4),
    DeformationConfig(d_expression=12, identity="global", hidden=24, layers=4),
)


def write_ball(folder: Path) -> Path:
    """The experiment's folder, as the published training would have left it."""
    model = head_model(CONFIG, random_states(CONFIG, 1), anchors())
    draw = torch.Generator().manual_seed(0)
    learned = [p for name, p in model.named_parameters() if name.startswith("identity.geometry")]
    for parameter in learned:
        parameter.requires_grad_(True)
    optimiser = torch.optim.Adam(learned, 5e-3)
    for step in range(400):
        optimiser.param_groups[0]["lr"] = 5e-3 * (1 - step / 400)
        z, z_exp = (scale * torch.randn(4, width, generator=draw) for scale, width in ((0.2, 16), (0.1, 12)))
        x = (torch.rand(4, 256, 3, generator=draw) - 0.5) * torch.tensor([1.1, 1.4, 1.9])
        wrong = model.sdf(x, model.condition(z, z_exp, z)) - (x.norm(dim=-1) - RADIUS)
        optimiser.zero_grad()
        wrong.abs().mean().backward()
        optimiser.step()
    return write_experiment(folder, document_of(CONFIG), published_states(model), anchors())
