"""Many small networks of one shape as stacked tensors, evaluated in grouped matrix products.

A row of the input belongs to one network ("type"). Rows are sorted by type once; each layer is then one product per
group of rows, and every elementwise operation is a single call over all rows.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Grouping:
    """Rows sorted by the network that they belong to."""

    order: Int[Tensor, "rows"]
    """Sorted position -> original row."""
    inverse: Int[Tensor, "rows"]
    """Original row -> sorted position."""
    bounds: tuple[int, ...]
    """Network t owns sorted rows bounds[t] .. bounds[t + 1] - 1."""

    @staticmethod
    def of(types: Int[Tensor, "rows"], count: int) -> "Grouping":
        """Sort rows by their network. One host synchronisation on an accelerator: the group sizes."""
        order = torch.argsort(types.to(torch.int16) if count < 32768 else types, stable=True)
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(len(order), device=order.device)
        sizes = torch.bincount(types, minlength=count)
        return Grouping(order, inverse, (0, *torch.cumsum(sizes, 0).tolist()))


class _GroupedProduct(torch.autograd.Function):
    """y[rows of t] = x[rows of t] @ weight[t].T (+ bias[t]), differentiable any number of times in all three."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, bounds: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.bounds = bounds
        y = x.new_empty(x.shape[0], weight.shape[1])
        for t, (start, stop) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
            if stop == start:
                continue
            if bias is None:
                torch.mm(x[start:stop], weight[t].T, out=y[start:stop])
            else:
                torch.addmm(bias[t], x[start:stop], weight[t].T, out=y[start:stop])
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = _GroupedProduct.apply(grad, weight.transpose(1, 2), None, ctx.bounds)  # type: ignore[no-untyped-call]
        if ctx.needs_input_grad[1]:
            grad_weight = _GroupedOuter.apply(grad, x, ctx.bounds)  # type: ignore[no-untyped-call]
        if ctx.needs_input_grad[2]:
            sizes = torch.tensor(ctx.bounds, device=grad.device).diff()
            owner = torch.repeat_interleave(torch.arange(len(sizes), device=grad.device), sizes)
            grad_bias = grad.new_zeros(len(sizes), grad.shape[1]).index_add(0, owner, grad)
        return grad_x, grad_weight, grad_bias, None


class _GroupedOuter(torch.autograd.Function):
    """w[t] = a[rows of t].T @ b[rows of t]: the weight gradient of a grouped product."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, bounds: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.bounds = bounds
        w = a.new_zeros(len(bounds) - 1, a.shape[1], b.shape[1])
        for t, (start, stop) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
            if stop > start:
                torch.mm(a[start:stop].T, b[start:stop], out=w[t])
        return w

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (grad,) = grads
        a, b = ctx.saved_tensors
        grad_a = grad_b = None
        if ctx.needs_input_grad[0]:
            grad_a = _GroupedProduct.apply(b, grad, None, ctx.bounds)  # type: ignore[no-untyped-call]
        if ctx.needs_input_grad[1]:
            grad_b = _GroupedProduct.apply(a, grad.transpose(1, 2), None, ctx.bounds)  # type: ignore[no-untyped-call]
        return grad_a, grad_b, None


def grouped_product(
    x: Float[Tensor, "rows d_in"],
    weight: Float[Tensor, "types d_out d_in"],
    bounds: tuple[int, ...],
    bias: Float[Tensor, "types d_out"] | None = None,
) -> Float[Tensor, "rows d_out"]:
    """Each sorted row through the affine map of its own network: one matrix product per group."""
    result: Tensor = _GroupedProduct.apply(x, weight, bias, bounds)  # type: ignore[no-untyped-call]
    return result


def grouped_product_by_gather(
    x: Float[Tensor, "rows d_in"],
    weight: Float[Tensor, "types d_out d_in"],
    bounds: tuple[int, ...],
    bias: Float[Tensor, "types d_out"] | None = None,
) -> Float[Tensor, "rows d_out"]:
    """The slow readable twin of `grouped_product`: copies a whole matrix to every row."""
    sizes = torch.tensor(bounds[1:]) - torch.tensor(bounds[:-1])
    types = torch.repeat_interleave(torch.arange(len(sizes)), sizes).to(x.device)
    y = torch.einsum("ri,roi->ro", x, weight[types])
    return y if bias is None else y + bias[types]


class StackedMLP(nn.Module):
    """`types` multilayer perceptrons of one shape. Layer l holds weight (types, out, in) and bias (types, out)."""

    def __init__(self, types: int, widths: list[int]) -> None:
        super().__init__()
        self.types = types
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for d_in, d_out in zip(widths[:-1], widths[1:], strict=True):
            bound = d_in**-0.5  # torch's own default for nn.Linear
            self.weights.append(nn.Parameter(torch.empty(types, d_out, d_in).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.empty(types, d_out).uniform_(-bound, bound)))

    def __len__(self) -> int:
        return len(self.weights)


def softplus100(x: Tensor) -> Tensor:
    """softplus with beta = 100 and torch's linear threshold of 20 (MonoNPHM)."""
    return F.softplus(x, beta=100.0)


def frequency_bands(x: Float[Tensor, "*batch d"], bands: int, base: float) -> Float[Tensor, "*batch d_encoded"]:
    """[x, sin(base * 2^k * x), cos(...)] for k < bands (NeRF, Mildenhall et al. 2020, Eq. 4); x alone for 0 bands."""
    if bands == 0:
        return x
    frequency = base * 2.0 ** torch.arange(bands, device=x.device, dtype=x.dtype)
    scaled = (x.unsqueeze(-2) * frequency[:, None]).flatten(-2)
    return torch.cat([x, scaled.sin(), scaled.cos()], -1)
