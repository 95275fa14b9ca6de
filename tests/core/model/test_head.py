"""The composed field: derivatives, sizes, configuration."""

import json

import pytest
import torch

from mononphm_core.model.config import BASE, RELEASE, SMALL, ModelConfig
from mononphm_core.model.head import HeadModel
from tests.core.model.tiny import OURS, PUBLISHED, codes, points, tiny_model


@pytest.mark.parametrize("config", [PUBLISHED, OURS], ids=["published", "ours"])
def test_the_gradient_is_the_slope_of_the_distance(config):
    """Normals are this gradient: central differences in double precision, through deformation, blending and all."""
    model = tiny_model(config)
    z_geo, z_app, z_exp = codes(model, 2)
    conditioned = model.condition(z_geo, z_exp, z_app)
    x = points(2, 20)
    found = model.query(x, conditioned, gradient=True).gradient
    h = 1e-6
    for axis in range(3):
        step = torch.zeros(3, dtype=x.dtype)
        step[axis] = h
        slope = (model.sdf(x + step, conditioned) - model.sdf(x - step, conditioned)) / (2 * h)
        off = (found[..., axis] - slope).abs()
        assert off.median() < 1e-8  # rounding over h
        assert (off < 1e-4).float().mean() > 0.9  # the rest: points within h of a softplus kink or a neighbour switch


def test_the_gradient_can_be_differentiated_once_more():
    """A loss on normals reaches the codes; its slope is that of finite differences in one code entry."""
    model = tiny_model(OURS)
    z_geo, _, z_exp = codes(model, 1)
    x = points(1, 6)

    def steepness(z):
        sample = model.query(x, model.condition(z, z_exp), colour=False, gradient=True, create_graph=True)
        return sample.gradient.square().sum()

    z = z_geo.clone().requires_grad_(True)
    (found,) = torch.autograd.grad(steepness(z), z)
    entry = int(found.abs().argmax())
    h = torch.zeros_like(z_geo)
    h[0, entry] = 1e-6
    slope = (steepness(z_geo + h) - steepness(z_geo - h)).item() / 2e-6
    assert found[0, entry].item() == pytest.approx(slope, rel=1e-4)


def test_distance_alone_and_with_everything_are_the_same_numbers():
    """`sdf` is `query` without colour and gradient."""
    model = tiny_model(OURS)
    z_geo, z_app, z_exp = codes(model, 2)
    conditioned = model.condition(z_geo, z_exp, z_app)
    x = points(2, 10)
    assert torch.equal(model.sdf(x, conditioned), model.query(x, conditioned, gradient=True).sdf)


def test_the_release_has_as_many_parameters_as_the_published_checkpoint():
    """Counted by hand from the published layout: 36 networks of each kind, mean anchors are no parameter."""
    i = RELEASE.identity
    model = HeadModel(RELEASE, torch.zeros(i.anchors, 3))
    geometry = 36 * (101 * 200 + 200 + 3 * (200 * 200 + 200) + 200 + 1)
    colour = 36 * (112 * 200 + 200 + 3 * (200 * 200 + 200) + 3 * 200 + 3)
    feature = 200 * 16 + 16 + 16 * 16 + 16
    anchors = 2 * (64 * 64 + 64) + 64 * 195 + 195
    assert geometry + colour + feature + anchors == 10_284_627
    assert sum(p.numel() for p in model.identity.parameters()) == 10_284_627
    assert sum(p.numel() for p in model.deformation.parameters()) == 937_557
    assert (i.d_geo, i.d_app, i.types, i.nodes) == (2176, 2176, 36, 66)


@pytest.mark.parametrize("config", [RELEASE, SMALL, BASE], ids=["release", "small", "base"])
def test_a_configuration_survives_json(config):
    """It travels in the header of the weight file."""
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_an_unknown_configuration_key_is_refused():
    """A file of a newer version must not be half understood."""
    values = SMALL.to_dict()
    values["identity"]["wings"] = 2
    with pytest.raises(TypeError, match="wings"):
        ModelConfig.from_dict(values)
