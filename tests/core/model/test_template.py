"""The linear template: linear, and its Jacobian is what autograd says."""

import pytest
import torch

from mononphm_core.model.template import TemplateHead

NODES, D_GLOBAL, D_LOCAL, D_EXP, NEAR = 6, 3, 2, 4, 2


@pytest.fixture
def template():
    """Five points in two groups, random tables; a point's parts belong to different anchors."""
    draw = torch.Generator().manual_seed(5)
    table = TemplateHead(
        mean=torch.randn(5, 3, generator=draw),
        global_basis=torch.randn(5, 3, D_GLOBAL, generator=draw),
        local_basis=torch.randn(5, NEAR, 3, D_LOCAL, generator=draw),
        local_anchor=torch.tensor([[0, 1], [5, 2], [3, 4], [1, 0], [2, 5]]),
        expression_basis=torch.randn(5, 3, D_EXP, generator=draw),
        z_canonical=torch.tensor([0.0, 0.3, 0.0, 0.1]),
        surface_faces=torch.zeros(0, 3, dtype=torch.long),
        landmark_spread_mm=torch.ones(2),
        geo_span=torch.eye(D_GLOBAL + NODES * D_LOCAL, 2),
        app_span=torch.eye(4, 1),
        groups={"first": (0, 2), "second": (2, 5)},
    )
    return table.double()


def codes(seed):
    draw = torch.Generator().manual_seed(seed)
    d_geo = D_GLOBAL + NODES * D_LOCAL
    return torch.randn(1, d_geo, generator=draw, dtype=torch.float64), torch.rand(1, D_EXP, generator=draw).double()


def test_two_codes_add_up(template):
    """Superposition: displacement(a + 2 b) = displacement(a) + 2 displacement(b), in identity and in expression."""
    (za, ea), (zb, eb) = codes(1), codes(2)
    zero = torch.zeros_like(za)
    z_canonical = template.z_canonical[None]

    def moved(z, e):
        return template.posed(z, z_canonical + e, "second") - template.posed(zero, z_canonical, "second")

    torch.testing.assert_close(moved(za + 2 * zb, ea + 2 * eb), moved(za, ea) + 2 * moved(zb, eb), rtol=0, atol=1e-12)


def test_at_its_canonical_expression_the_posed_head_is_the_canonical_one(template):
    """The canonical head has its own, slightly open mouth: there nothing is displaced."""
    z, _ = codes(3)
    posed = template.posed(z, template.z_canonical[None], "first")
    assert torch.equal(posed, template.canonical(z, "first"))
    assert torch.equal(template.canonical(torch.zeros_like(z), "first")[0], template.mean[:2])


@pytest.mark.parametrize("group", ["first", "second"])
def test_the_identity_jacobian_is_that_of_autograd(template, group):
    """Also where a point lists anchors in another order than the code does."""
    z, _ = codes(4)
    expected = torch.autograd.functional.jacobian(lambda v: template.canonical(v[None], group)[0], z[0])
    torch.testing.assert_close(template.identity_jacobian(group, NODES), expected, rtol=0, atol=1e-12)


def test_a_local_code_moves_only_points_that_know_its_anchor(template):
    """Locality is what makes a person's nose her own."""
    z, _ = codes(5)
    other = z.clone()
    other[0, D_GLOBAL + 3 * D_LOCAL] += 1.0  # anchor 3: the first point of `second` alone
    moved = (template.canonical(other, "second") - template.canonical(z, "second")).abs().sum(-1)[0]
    assert (moved > 0).tolist() == [True, False, False]
