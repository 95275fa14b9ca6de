"""The first-order step of the colour search."""

import torch

from mononphm_core.tracking.adam import Adam, half_cosine


def test_a_step_is_that_of_torch() -> None:
    """torch.optim.Adam with its cosine schedule is the slow twin: only its import is slow."""
    generator = torch.Generator().manual_seed(5)
    target = torch.randn(40, generator=generator)
    ours = torch.zeros(40, requires_grad=True)
    theirs = torch.zeros(40, requires_grad=True)
    adam = Adam(ours, betas=(0.9, 0.98))
    twin = torch.optim.Adam([theirs], lr=0.1, betas=(0.9, 0.98))
    slower = torch.optim.lr_scheduler.CosineAnnealingLR(twin, 30, eta_min=0.01)
    for step in range(30):
        for leaf in (ours, theirs):
            ((leaf - target) ** 4).sum().backward()
        adam.step(half_cosine(0.1, 0.01, step, 30))
        twin.step()
        twin.zero_grad()
        slower.step()
    torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=0)  # the order of a few float32 products


def test_the_rate_ends_where_it_was_told() -> None:
    """Closed form at both ends and in the middle."""
    assert [round(half_cosine(1.0, 0.2, n, 10), 12) for n in (0, 5, 10)] == [1.0, 0.6, 0.2]
