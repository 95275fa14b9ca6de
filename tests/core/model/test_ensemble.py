"""Stacked networks against networks one by one."""

import pytest
import torch
import torch.nn as nn

from mononphm_core.model.ensemble import (
    Grouping,
    StackedMLP,
    frequency_bands,
    grouped_product,
    grouped_product_by_gather,
    softplus100,
)

BOUNDS = (0, 2, 2, 5, 5)
"""Four networks over five rows; the second and the last have none."""


@pytest.fixture
def operands():
    """x (5 rows of 3), weights (4 networks, 2 x 3), biases; double precision, asked for gradients."""
    draw = torch.Generator().manual_seed(3)
    shapes = ((5, 3), (4, 2, 3), (4, 2))
    return tuple(torch.randn(s, generator=draw, dtype=torch.float64).requires_grad_(True) for s in shapes)


@pytest.mark.parametrize("with_bias", [True, False])
def test_the_grouped_product_is_the_slow_twin_also_for_networks_without_rows(operands, with_bias):
    """One matrix product a group, or one matrix a row: the same sums."""
    x, weight, bias = operands
    b = bias if with_bias else None
    fast, slow = grouped_product(x, weight, BOUNDS, b), grouped_product_by_gather(x, weight, BOUNDS, b)
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-14)


def test_first_derivatives_are_those_of_the_twin(operands):
    """Codes, points and (in training) weights move by them; a network without rows gets exactly zero."""
    through = torch.arange(10.0, dtype=torch.float64).view(5, 2)
    fast = torch.autograd.grad((grouped_product(*operands[:2], BOUNDS, operands[2]) * through).sum(), operands)
    slow = torch.autograd.grad(
        (grouped_product_by_gather(*operands[:2], BOUNDS, operands[2]) * through).sum(), operands
    )
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-13)
    assert (fast[1][[1, 3]] == 0).all()


def test_second_derivatives_agree_with_finite_differences(operands):
    """Losses on normals differentiate the spatial gradient once more."""

    def product(x, weight, bias):
        return grouped_product(x, weight, BOUNDS, bias).tanh()  # bent, so that second derivatives are not zero

    assert torch.autograd.gradcheck(product, operands)
    assert torch.autograd.gradgradcheck(product, operands)


def test_sorting_rows_and_sorting_back_changes_nothing():
    """`inverse` undoes `order`, and the bounds cut the sorted rows into their networks."""
    types = torch.tensor([3, 0, 3, 1, 0, 3])
    group = Grouping.of(types, 5)
    rows = torch.arange(6)
    assert torch.equal(rows[group.order][group.inverse], rows)
    assert group.bounds == (0, 2, 3, 3, 6, 6)
    assert types[group.order].tolist() == sorted(types.tolist())


def test_a_stack_equals_separate_networks_with_the_same_weights():
    """The published ensemble is a list of small networks; ours is the same list, stacked."""
    torch.manual_seed(0)
    stack = StackedMLP(3, [4, 6, 6, 2]).double()
    separate = []
    for t in range(3):
        layers: list[nn.Module] = []
        for weight, bias in zip(stack.weights, stack.biases, strict=True):
            linear = nn.Linear(weight.shape[2], weight.shape[1]).double()
            linear.weight.data, linear.bias.data = weight[t].detach(), bias[t].detach()
            layers += [linear, nn.Softplus(beta=100)]
        separate.append(nn.Sequential(*layers[:-1]))
    types = torch.tensor([2, 0, 1, 1, 2, 0, 0])
    x = torch.randn(7, 4, dtype=torch.float64)
    group = Grouping.of(types, 3)
    h = grouped_product(x[group.order], stack.weights[0], group.bounds, stack.biases[0])
    for layer in range(1, len(stack)):
        h = grouped_product(softplus100(h), stack.weights[layer], group.bounds, stack.biases[layer])
    expected = torch.stack([separate[int(t)](row) for t, row in zip(types, x, strict=True)])
    torch.testing.assert_close(h[group.inverse], expected, rtol=0, atol=1e-13)


def test_frequency_bands_are_the_sines_and_cosines_of_the_paper():
    """[x, sin(b x), sin(2 b x), cos(b x), cos(2 b x)] per coordinate; no band is the point itself."""
    x = torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    b = 0.7 * x[0]
    expected = torch.stack([x[0, 0], x[0, 1], *(f(k * v) for f in (torch.sin, torch.cos) for k in (1, 2) for v in b)])
    assert torch.equal(frequency_bands(x, 0, 0.7), x)
    found = frequency_bands(x, 2, 0.7)[0]
    assert found.shape == (10,)
    torch.testing.assert_close(found.sort().values, expected.sort().values, rtol=0, atol=1e-15)
