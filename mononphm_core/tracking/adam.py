"""Adam over one tensor. torch.optim would do the same; its first use imports a compiler, which costs a still 4 s."""

import math

import torch
from torch import Tensor


class Adam:
    """Kingma and Ba 2015 without weight decay, in place; equal to torch.optim.Adam (a test holds them together)."""

    def __init__(self, leaf: Tensor, betas: tuple[float, float], epsilon: float = 1e-8) -> None:
        self.leaf, self.betas, self.epsilon = leaf, betas, epsilon
        self.steps = 0
        self.mean, self.square = torch.zeros_like(leaf), torch.zeros_like(leaf)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Follow the leaf's gradient, and forget it."""
        assert self.leaf.grad is not None
        (first, second), gradient = self.betas, self.leaf.grad
        self.steps += 1
        self.mean.lerp_(gradient, 1 - first)
        self.square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        width = self.square.sqrt().div_(math.sqrt(1 - second**self.steps)).add_(self.epsilon)
        self.leaf.addcdiv_(self.mean, width, value=-rate / (1 - first**self.steps))
        self.leaf.grad = None


def half_cosine(rate: float, least: float, step: int, steps: int) -> float:
    """From `rate` at step 0 to `least` at `steps` (Loshchilov and Hutter 2017, Eq. 5)."""
    return least + (rate - least) * (1 + math.cos(math.pi * step / steps)) / 2
