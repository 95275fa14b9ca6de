"""Forward warp by root finding: the posed point whose canonical place is given (Broyden 1965; SNARF, Chen et al. 2021).

The deformation field is backward, posed -> canonical. To know where a canonical anchor went we solve

g(x) = x + offset(x) - target = 0

for every target by itself, with a secant update of the inverse Jacobian. The iteration is the published one, so that
its numbers can be repeated; the tolerance says how far two correct solvers may differ.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

TOLERANCE = 5e-5
"""Residual below which a point is found, head units."""
DIVERGED = 0.1
"""Residual beyond which a point is given up."""
MOST_STEPS = 30
EPSILON = 1e-6
"""Keeps the secant update's denominator away from zero."""

Displaced = Callable[[Float[Tensor, "points 3"]], Float[Tensor, "points 3"]]
"""x -> x + offset(x), of one person and expression."""


@dataclass(frozen=True)
class Roots:
    """Where the search ended. No gradient; see `implicit_points`."""

    x: Float[Tensor, "points 3"]
    """Last iterate of each point."""
    residual: Float[Tensor, "points"]
    """Smallest |g| seen, head units."""
    valid: Bool[Tensor, "points"]
    """Residual below the tolerance."""


def jacobian(displaced: Displaced, x: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3 3"]:
    """d (x + offset(x)) / d x of every point, row = component of the result. No graph."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        y = displaced(x)
        rows = [torch.autograd.grad(y[:, i].sum(), x, retain_graph=i < 2)[0] for i in range(3)]
    return torch.stack(rows, 1)


@torch.no_grad()
def find_roots(
    displaced: Displaced, target: Float[Tensor, "points 3"], start: Float[Tensor, "points 3"] | None = None
) -> Roots:
    """Solve displaced(x) = target from `start` (the targets themselves without one).

    A point takes part until it is found or lost. The first step is always taken, even from a root.
    """
    x = (target if start is None else start).detach().clone()
    target = target.detach()
    inverse = torch.linalg.inv(jacobian(displaced, x))
    g = displaced(x) - target
    best = g.norm(dim=-1)
    active = torch.arange(len(x), device=x.device)
    dx = -_times(inverse, g)
    for _ in range(MOST_STEPS):
        x[active] += dx
        after = displaced(x[active]) - target[active]
        dg = after - g
        size = after.norm(dim=-1)
        best[active] = torch.minimum(best[active], size)
        going = (best[active] > TOLERANCE) & (size < DIVERGED)
        if not going.any():
            break
        active, g, inverse = active[going], after[going], inverse[going]
        inverse = _broyden_update(inverse, dx[going], dg[going])
        dx = -_times(inverse, g)
    return Roots(x, best, best < TOLERANCE)


def implicit_points(
    displaced: Displaced, roots: Float[Tensor, "points 3"], target: Float[Tensor, "points 3"] | None = None
) -> Float[Tensor, "points 3"]:
    """The roots with their gradient, by the implicit function theorem: dx = -J^-1 d(x + offset(x) - target).

    The value is `roots`; the gradient reaches whatever `displaced` (and `target`, if given) depends on.
    """
    inverse = torch.linalg.inv(jacobian(displaced, roots))
    y = displaced(roots)
    if target is not None:
        y = y - target
    return roots - _times(inverse, y - y.detach())


def _broyden_update(inverse: Tensor, dx: Tensor, dg: Tensor) -> Tensor:
    """Good Broyden: the rank-one change of J^-1 that maps dg to dx."""
    v = (dx[:, None] @ inverse)[:, 0]
    a = dx - _times(inverse, dg)
    b = (v * dg).sum(-1)
    b = b + torch.where(b >= 0, EPSILON, -EPSILON)
    return inverse + (a / b[:, None])[:, :, None] * v[:, None]


def _times(matrix: Float[Tensor, "points 3 3"], vector: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
    return (matrix @ vector[..., None])[..., 0]
