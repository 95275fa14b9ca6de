"""Sizes of one architecture: each can be built and trained on a processor; the large one only slowly."""

import pytest
import torch

from mononphm_core.evaluation.prior_figures import multiplications
from mononphm_core.model.config import BASE, RELEASE, SIZES
from mononphm_core.model.head import HeadModel
from mononphm_core.training.batches import Batch
from mononphm_core.training.loop import losses

BOTH = ("identity", "deformation")


@pytest.mark.parametrize("size", SIZES)
def test_every_size_takes_a_training_step_that_lowers_its_losses(size):
    """Both halves get gradients in every weight that learns, and a small step against them helps on the same batch."""
    config = SIZES[size]
    draw = torch.Generator().manual_seed(0)

    def random(*shape, scale=1.0):
        return scale * torch.randn(*shape, generator=draw)

    torch.manual_seed(0)
    anchors = random(65, 3, scale=0.2)
    model = HeadModel(config, anchors)
    model.identity.anchor_head.requires_grad_(False).weight.zero_()
    x = random(2, 40, 3, scale=0.2)
    batch = Batch(
        random(2, config.identity.d_geo), random(2, config.identity.d_app), torch.rand(2, 53, generator=draw),
        x, x.norm(dim=-1) - 0.3, x, x + 0.02, x[:, :9], x[:, :9].sin(), anchors.expand(2, -1, -1),
    )  # fmt: skip
    before = sum(losses(model, batch, BOTH).values())
    before.backward()
    learning = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for _, p in learning)
    length = torch.stack([p.grad.norm() for _, p in learning]).norm()
    with torch.no_grad():
        for _, p in learning:
            p -= 0.02 * p.grad / length
        assert sum(losses(model, batch, BOTH).values()) < before


def test_base_costs_a_fifth_of_the_release():
    """The figure of the model card."""
    assert 5 < multiplications(RELEASE, colour=True) / multiplications(BASE, colour=True) < 5.5
