"""Volume rendering of a sphere: where it is hit is known exactly."""

import pytest
import torch
from torch import Tensor

from mononphm_core.geometry.rotations import so3_exp
from mononphm_core.rendering.volume import Rays, boundaries, composite, neus_alpha, render, render_opacity

RADIUS, CAMERA = 0.4, 2.0


def sphere(x: Tensor) -> Tensor:
    """Signed distance of the sphere around the origin."""
    return x.norm(dim=-1) - RADIUS


def stripes(x: Tensor) -> Tensor:
    """A colour that varies in space."""
    return torch.sin(9 * x)


def outward(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x, dim=-1)


@pytest.fixture
def rays() -> Rays:
    """One camera on the z axis; rays that pass the centre at 0, 0.1, 0.3 and 0.6 (the last one misses)."""
    miss = torch.tensor([0.0, 0.1, 0.3, 0.6], dtype=torch.float64)
    sine = miss / CAMERA
    direction = torch.stack([sine, torch.zeros_like(sine), -(1 - sine**2).sqrt()], -1)[None]
    near = torch.full((1, 4), 1.2, dtype=torch.float64)
    return Rays(torch.tensor([[0.0, 0.0, CAMERA]], dtype=torch.float64), direction, near, near + 1.6)


def test_a_rendered_sphere_is_hit_where_geometry_says(rays):
    """Depth along a ray that passes the centre at distance m is D cos(a) - sqrt(r^2 - m^2): nothing is safer."""
    weights, depth = render_opacity(rays, boundaries(rays, 800), sphere, sharpness=3000.0)
    miss = torch.tensor([0.0, 0.1, 0.3], dtype=torch.float64)
    expected = (CAMERA**2 - miss**2).sqrt() - (RADIUS**2 - miss**2).sqrt()
    torch.testing.assert_close(depth[0, :3], expected, rtol=0, atol=2e-3)  # one interval
    torch.testing.assert_close(weights.sum(-1)[0, :3], torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-6)
    assert weights.sum(-1)[0, 3] < 1e-6


def test_alpha_is_the_published_quotient():
    """max(1 - S(s exit) / S(s entry), 0), where the sigmoids do not underflow; and it is a share."""
    draw = torch.Generator().manual_seed(0)
    entry, leaving = torch.randn(2, 500, generator=draw, dtype=torch.float64) * 0.02
    alpha = neus_alpha(entry, leaving, 200.0)
    direct = (1 - torch.sigmoid(200 * leaving) / torch.sigmoid(200 * entry)).clamp_min(0)
    torch.testing.assert_close(alpha, direct, rtol=0, atol=1e-12)
    assert ((alpha >= 0) & (alpha <= 1)).all()
    assert (alpha[leaving >= entry] == 0).all()  # where the ray comes out again, nothing is seen


def test_alpha_stays_a_number_deep_inside_and_far_outside():
    """The published quotient is 0 / 0 deep inside; logarithms keep value and slope."""
    entry = torch.tensor([-5.0, 5.0, 5.0], requires_grad=True)
    leaving = torch.tensor([-5.1, 4.9, -5.0], requires_grad=True)
    alpha = neus_alpha(entry, leaving, 1000.0)
    assert alpha.tolist() == [1.0, 0.0, 1.0]
    gradients = torch.autograd.grad(alpha.sum(), [entry, leaving])
    assert all(torch.isfinite(g).all() for g in gradients)


def test_the_weights_add_up_to_what_is_not_let_through():
    """sum w = 1 - prod (1 - alpha), and each is alpha times what the ones before let through."""
    alpha = torch.rand(3, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights = composite(alpha)
    torch.testing.assert_close(weights.sum(-1), 1 - (1 - alpha).prod(-1), rtol=0, atol=1e-14)
    slow = [alpha[1, i] * torch.stack([1 - a for a in alpha[1, :i]] or [alpha.new_ones(())]).prod() for i in range(7)]
    torch.testing.assert_close(weights[1], torch.stack(slow), rtol=0, atol=1e-14)


def test_the_cuts_divide_the_ray_evenly_and_jitter_shifts_them_by_its_share(rays):
    """near and far are cuts; a jitter of one half is half an interval."""
    cuts = boundaries(rays, 8)
    torch.testing.assert_close(cuts[..., 0], rays.near)
    torch.testing.assert_close(cuts[..., -1], rays.far)
    torch.testing.assert_close(cuts.diff(dim=-1), torch.full((1, 4, 8), 0.2, dtype=torch.float64))
    shifted = boundaries(rays, 8, torch.full((1, 4), 0.5, dtype=torch.float64))
    torch.testing.assert_close(shifted - cuts, torch.full((1, 4, 9), 0.1, dtype=torch.float64))


def test_asking_every_interval_for_colour_is_the_whole_quadrature(rays):
    """The slow twin of `coloured`: sum of weight times colour at every midpoint, over the sum of weights."""
    cuts = boundaries(rays, 40)
    seen = render(rays, cuts, sphere, stripes, outward, 80.0, coloured=40)
    weights, _ = render_opacity(rays, cuts, sphere, 80.0)
    middle = rays.at((cuts[..., 1:] + cuts[..., :-1]) / 2)
    full = (weights[..., None] * stripes(middle)).sum(-2) / weights.sum(-1, keepdim=True).clamp_min(1e-4)
    torch.testing.assert_close(seen.albedo, full, rtol=0, atol=1e-12)
    few = render(rays, cuts, sphere, stripes, outward, 80.0, coloured=12)
    assert (few.albedo - full)[0, :3].abs().max() < 0.03  # the intervals left out weigh little
    torch.testing.assert_close(few.opacity, seen.opacity)


def test_a_sphere_shows_its_outward_normal(rays):
    """At the hit, the normal is the hit's own direction from the centre, towards the camera."""
    seen = render(rays, boundaries(rays, 400), sphere, stripes, outward, 2000.0, coloured=2)
    hit = rays.at(seen.depth[..., None]).squeeze(2)[0, :3]
    torch.testing.assert_close(seen.normal[0, :3], hit / hit.norm(dim=-1, keepdim=True), rtol=0, atol=1e-12)
    assert (seen.normal[0, :3, 2] > 0).all()


def test_moving_head_and_camera_together_leaves_the_picture_alone(rays):
    """Depth and opacity are relations between camera and head; where both are in the world does not matter."""
    turn = so3_exp(torch.tensor([0.4, -1.1, 0.2], dtype=torch.float64))
    shift = torch.tensor([3.0, -1.0, 0.5], dtype=torch.float64)
    moved = Rays(rays.origin @ turn.T + shift, rays.direction @ turn.T, rays.near, rays.far)

    def elsewhere(x: Tensor) -> Tensor:
        return sphere((x - shift) @ turn)

    cuts = boundaries(rays, 30)
    here, there = render_opacity(rays, cuts, sphere, 100.0), render_opacity(moved, cuts, elsewhere, 100.0)
    torch.testing.assert_close(here[0], there[0], rtol=0, atol=1e-10)
    torch.testing.assert_close(here[1], there[1], rtol=0, atol=1e-9)


def test_opacity_teaches_the_surface_to_come_nearer():
    """A ray that just misses: growing the sphere raises its opacity, by the slope that differences give."""

    def opacity(radius: Tensor) -> Tensor:
        ray = Rays(torch.tensor([[0.0, 0.0, 2.0]]).double(), torch.tensor([[[0.21, 0.0, -0.9777]]]).double(),
                   torch.tensor([[1.0]]).double(), torch.tensor([[3.0]]).double())  # fmt: skip
        return render_opacity(ray, boundaries(ray, 60), lambda x: x.norm(dim=-1) - radius, 50.0)[0].sum()

    radius = torch.tensor(RADIUS, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(opacity(radius), radius)
    h = 1e-6
    with torch.no_grad():
        differences = (opacity(radius + h) - opacity(radius - h)) / (2 * h)
    assert slope > 0
    assert slope.item() == pytest.approx(differences.item(), rel=1e-5)
