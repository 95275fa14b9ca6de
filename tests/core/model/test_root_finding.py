"""Where canonical points go: the search against closed forms (the published searches: tests/golden)."""

import pytest
import torch
from torch import Tensor

from mononphm_core.model.root_finding import TOLERANCE, find_roots, implicit_points, jacobian


def bent(x: Tensor) -> Tensor:
    """A mild, smooth displacement whose inverse has no closed form."""
    return x + 0.1 * torch.sin(3 * x.roll(1, -1))


@pytest.fixture
def targets() -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.rand(40, 3, generator=draw, dtype=torch.float64) - 0.5


def test_roots_are_roots(targets):
    """Displacing what was found gives the target, to the tolerance; the residual says how closely."""
    found = find_roots(bent, targets)
    missed = (bent(found.x) - targets).norm(dim=-1)
    assert found.valid.all() and missed.max() < TOLERANCE
    torch.testing.assert_close(found.residual, missed)


def test_an_affine_field_is_solved_by_its_first_step(targets):
    """The start's Jacobian is exact everywhere, so one Newton step ends at A^-1 (target - b)."""
    a = torch.tensor([[1.1, 0.2, 0.0], [-0.1, 0.9, 0.3], [0.0, 0.1, 1.2]], dtype=torch.float64)
    b = torch.tensor([0.1, -0.2, 0.05], dtype=torch.float64)
    found = find_roots(lambda x: x @ a.T + b, targets)
    torch.testing.assert_close(found.x, torch.linalg.solve(a, (targets - b).T).T)
    torch.testing.assert_close(jacobian(lambda x: x @ a.T + b, targets), a.expand(40, 3, 3))


def test_a_point_without_a_root_says_so_and_harms_no_other(targets):
    """Points are solved by themselves: one whose displacement skips its target is invalid, the rest are as before."""

    def torn(x: Tensor) -> Tensor:
        return bent(x) + (x[:, :1] > 0.6) * torch.tensor([0.9, 0.0, 0.0], dtype=x.dtype)

    far = torch.tensor([[1.1, 0.0, 0.0]], dtype=torch.float64)
    found = find_roots(torn, torch.cat([targets, far]))
    assert not found.valid[-1] and found.residual[-1] > TOLERANCE
    torch.testing.assert_close(found.x[:-1], find_roots(bent, targets).x)


def test_the_implicit_derivative_is_that_of_solving_again(targets):
    """Central differences of the solution against the implicit function theorem, for the field and for the target."""
    strength = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    shift = torch.tensor([0.01, 0.02, -0.03], dtype=torch.float64, requires_grad=True)

    def solved(s: Tensor, t: Tensor) -> Tensor:
        def field(x: Tensor) -> Tensor:
            return x + s * torch.sin(3 * x.roll(1, -1))

        x = targets.clone()
        for _ in range(60):  # a contraction: exact to rounding
            x = targets + t.detach() - (field(x) - x).detach()
        return implicit_points(field, x, targets + t)

    assert torch.autograd.gradcheck(solved, (strength, shift), eps=1e-6, atol=1e-6)
