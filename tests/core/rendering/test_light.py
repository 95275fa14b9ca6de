"""Light by spherical harmonics: what must be so for constant light, white light and a light that is known."""

import torch

from mononphm_core.rendering.light import GAMMA, fit_light, irradiance, lit, sh_basis, to_linear


def directions(count: int) -> torch.Tensor:
    """Unit vectors, spread evenly over the sphere (Fibonacci)."""
    i = torch.arange(count, dtype=torch.float64) + 0.5
    z, turn = 1 - 2 * i / count, i * torch.pi * (1 + 5**0.5)
    r = (1 - z**2).sqrt()
    return torch.stack([r * turn.cos(), r * turn.sin(), z], -1)


def constant(level: float) -> torch.Tensor:
    light = torch.zeros(9, 3, dtype=torch.float64)
    light[0] = level
    return light


def test_constant_light_is_the_same_from_everywhere():
    """Only the first coefficient: no direction is special."""
    assert torch.equal(irradiance(directions(50), constant(0.7)), torch.full((50, 3), 0.7, dtype=torch.float64))


def test_the_nine_functions_are_orthogonal_on_the_sphere():
    """What makes them a basis: mean products vanish off the diagonal (an even grid of 20,000 directions)."""
    basis = sh_basis(directions(20_000))
    gram = basis.T @ basis / len(basis)
    off = gram - torch.diag(gram.diagonal())
    assert off.abs().max() < 1e-3
    assert (gram.diagonal() > 0.05).all()


def test_white_light_shows_the_albedo():
    """Irradiance 1: the picture is the decoder's colour moved from [-1, 1] to [0, 1]."""
    albedo = torch.rand(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 1.8 - 0.9
    torch.testing.assert_close(lit(albedo, directions(40), constant(1.0)), (albedo + 1) / 2)


def test_doubling_the_light_doubles_the_linear_colour():
    """Light is linear; sRGB is not."""
    albedo, n = torch.zeros(30, 3, dtype=torch.float64), directions(30)
    light = constant(0.4)
    light[3] = 0.1
    ratio = (lit(albedo, n, 2 * light) / lit(albedo, n, light)) ** GAMMA
    torch.testing.assert_close(ratio, torch.full_like(ratio, 2.0))


def test_a_known_light_is_found_again_from_a_lit_sphere():
    """Linear least squares on exact data is exact, up to the stated damping (here: almost none)."""
    draw = torch.Generator().manual_seed(4)
    truth = constant(0.8) + 0.1 * torch.randn(9, 3, generator=draw, dtype=torch.float64)
    n = directions(400)
    albedo = torch.rand(400, 3, generator=draw, dtype=torch.float64) - 0.3
    assert (irradiance(n, truth) > 0.02).all()  # nowhere in the clamp
    picture, weight = lit(albedo, n, truth), torch.ones(400, dtype=torch.float64)
    found = fit_light(albedo, n, picture, weight, damping=1e-9)
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-6)
    spoilt = picture.clone()
    spoilt[::2] = 0.9
    ignoring = fit_light(albedo, n, spoilt, (torch.arange(400) % 2).double(), damping=1e-9)
    torch.testing.assert_close(ignoring, truth, rtol=0, atol=1e-6)  # weight 0 means unseen


def test_damping_makes_light_more_even_never_wilder():
    """With one view of a face the directional part is badly known: damping shrinks it."""
    truth = constant(0.8)
    truth[1] = 0.4
    n = directions(400)
    n = n[n[:, 2] > 0.3]  # seen from one side
    albedo = torch.zeros(len(n), 3, dtype=torch.float64)
    picture = lit(albedo, n, truth)
    strength = [
        fit_light(albedo, n, picture, torch.ones(len(n), dtype=torch.float64), d)[1:].norm().item()
        for d in (1e-6, 0.03, 1.0)
    ]
    assert strength == sorted(strength, reverse=True)
    assert strength[2] < 0.5 * strength[0]


def test_shadow_keeps_a_gradient():
    """Where harmonics become negative the irradiance rests at a fiftieth; black albedo keeps a finite slope."""
    dark = constant(-1.0)
    assert (irradiance(directions(5), dark) == 0.02).all()
    albedo = torch.full((5, 3), -1.0, dtype=torch.float64, requires_grad=True)
    lit(albedo, directions(5), constant(1.0)).sum().backward()
    assert torch.isfinite(albedo.grad).all()
    assert (to_linear(torch.tensor([[-5.0, 0.0, 9.0]])) > 0).all()
