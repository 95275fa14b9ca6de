"""The published rendering: closed forms, invariances and derivatives (its golden passes: tests/golden)."""

import pytest
import torch
from torch import Tensor

from mononphm_core.geometry.rotations import so3_exp
from mononphm_core.quirks import PUBLISHED, REPAIRED
from mononphm_core.rendering.light import sh_basis
from mononphm_core.rendering.published.fine import (
    Placement,
    Samples,
    WorldRays,
    place_samples,
    render_lit,
)
from mononphm_core.rendering.published.near_far import near_far
from mononphm_core.rendering.published.sampling import invert_cdf
from mononphm_core.rendering.published.shading import as_irradiance, shading, white_light

RADIUS = 0.4


def sphere(x: Tensor) -> Samples:
    """A grey ball around the origin of posed space; the gradient is exact."""
    return Samples(x.norm(dim=-1) - RADIUS, torch.zeros_like(x), torch.nn.functional.normalize(x, dim=-1))


@pytest.fixture
def rays() -> WorldRays:
    """From (0, 0, 2) past the origin at 0, 0.1, 0.3 and 0.9; the last misses every sphere."""
    miss = torch.tensor([0.0, 0.1, 0.3, 0.9], dtype=torch.float64)
    sine = miss / 2
    direction = torch.stack([sine, torch.zeros_like(sine), -(1 - sine**2).sqrt()], -1)
    return WorldRays(torch.tensor([0.0, 0.0, 2.0], dtype=torch.float64), direction)


def placed(rotation: Tensor | None = None, translation: Tensor | None = None) -> Placement:
    """A camera that looks along the world's -z; the head turned and moved as given."""
    eye = torch.eye(3, dtype=torch.float64)
    return Placement(
        eye if rotation is None else rotation, eye.new_zeros(3) if translation is None else translation,
        eye.new_ones(()), eye,
    )  # fmt: skip


def test_a_sphere_is_seen_where_geometry_says(rays):
    """Rays that hit are opaque and end at D cos(a) - sqrt(r^2 - m^2); the one that misses sees nothing."""
    jitter = torch.full((4, 32), 0.5, dtype=torch.float64)
    z = place_samples(rays, placed(), lambda x: sphere(x).sdf, jitter)
    seen = render_lit(rays, placed(), z, sphere, white_light(z), 1000.0, PUBLISHED)
    miss = torch.tensor([0.0, 0.1, 0.3], dtype=torch.float64)
    expected = (4 - miss**2).sqrt() - (RADIUS**2 - miss**2).sqrt()
    torch.testing.assert_close(seen.depth[:3], expected, atol=0.02, rtol=0)  # 32 samples; z is an interval's start
    torch.testing.assert_close(seen.opacity, torch.tensor([1.0, 1, 1, 0], dtype=torch.float64), atol=1e-3, rtol=0)
    torch.testing.assert_close(seen.rgb, torch.zeros_like(seen.rgb), atol=1e-6, rtol=0)  # grey under white light


def test_rays_that_miss_the_sphere_borrow_the_others_interval(rays):
    """All rays are rendered; one without an interval of its own gets the mean, and nothing lies behind the camera."""
    near, far = near_far(rays.origin, rays.direction)
    torch.testing.assert_close(torch.stack([near[3], far[3]]), torch.stack([near[:3].mean(), far[:3].mean()]))
    away = WorldRays(rays.origin, -rays.direction)
    assert torch.stack(near_far(away.origin, away.direction)).max() == 0
    none = near_far(rays.origin, rays.direction[3:])
    torch.testing.assert_close(torch.stack(none)[:, 0], torch.tensor([1.3, 2.7], dtype=torch.float64))


def test_quantiles_of_a_flat_density_are_evenly_spaced():
    """(k + 1/2) / n of the whole interval, whatever the bins are, as long as each weighs its length."""
    bins = torch.tensor([[0.0, 0.5, 0.6, 2.0]], dtype=torch.float64)
    found = invert_cdf(bins, bins.diff(), 8)
    torch.testing.assert_close(found, 2 * (torch.arange(8, dtype=torch.float64)[None] + 0.5) / 8, atol=1e-6, rtol=0)


def test_the_slope_along_a_ray_knows_the_turned_head_only_when_repaired(rays):
    """Quirk 5: the world's ray direction meets the posed gradient. Turning the head's coordinates of a ball about its
    centre changes nothing there is to see; the repaired pass agrees, the published one does not."""
    turn = placed(so3_exp(torch.tensor([0.0, 0.9, 0.0], dtype=torch.float64)))
    z = place_samples(rays, placed(), lambda x: sphere(x).sdf, torch.full((4, 32), 0.5, dtype=torch.float64))
    light = white_light(z)
    straight = render_lit(rays, placed(), z, sphere, light, 60.0, REPAIRED)
    torch.testing.assert_close(render_lit(rays, turn, z, sphere, light, 60.0, REPAIRED).depth, straight.depth)
    published = render_lit(rays, turn, z, sphere, light, 60.0, PUBLISHED).depth
    assert (published - straight.depth).abs().max() > 1e-2


def test_gradients_reach_pose_and_light(rays):
    """Central differences of the picture against autograd: rotation, translation, scale and light all steer it."""
    z = place_samples(rays, placed(), lambda x: sphere(x).sdf, torch.full((4, 32), 0.5, dtype=torch.float64))

    def picture(leaves: Tensor) -> Tensor:
        placement = Placement(so3_exp(leaves[:3]), leaves[3:6], leaves[6], torch.eye(3, dtype=torch.float64))
        seen = render_lit(rays, placement, z, sphere, leaves[7:].view(9, 3), 30.0, PUBLISHED)
        return (seen.rgb * torch.arange(1, 4)).sum() + 3 * seen.opacity.sum() + seen.depth.sum()

    start = torch.cat([torch.tensor([0.1, -0.2, 0.05, 0.02, 0.01, -0.03, 1.1]), 0.3 * torch.ones(27)]).double()
    assert torch.autograd.gradcheck(picture, (start.requires_grad_(True),), atol=1e-6)


def test_light_in_our_axes_shades_the_same():
    """A normal in OpenGL camera axes under the published light = the same normal in OpenCV axes under ours."""
    draw = torch.Generator().manual_seed(0)
    normal = torch.nn.functional.normalize(torch.randn(20, 3, generator=draw, dtype=torch.float64), dim=-1)
    sh = torch.randn(9, 3, generator=draw, dtype=torch.float64)
    flipped = normal * torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)
    torch.testing.assert_close(sh_basis(flipped) @ as_irradiance(sh), shading(normal, sh))
    torch.testing.assert_close(shading(normal, white_light(sh)), torch.ones(20, 3, dtype=torch.float64))
