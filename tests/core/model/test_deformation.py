"""The backward deformation field against explicit concatenation."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from mononphm_core.model.config import RELEASE
from mononphm_core.model.deformation import DeformationField
from mononphm_core.model.ensemble import frequency_bands
from tests.core.model.tiny import FIELD, codes, points, tiny_model


def slow_field(field: DeformationField, x, z_geo, anchors, z_exp):
    """One point: v = [x, compressed, z_exp] enters first and, with the activations, in the middle, over sqrt 2."""
    compressed = field.compressor(torch.cat([z_geo, anchors.flatten()]))
    v = torch.cat([frequency_bands(x[None], field.config.bands, math.pi)[0], compressed, z_exp])
    out = field.layers[0](v)
    for i in range(1, len(field.layers)):
        hidden = F.softplus(out, beta=100)
        out = field.layers[i](torch.cat([hidden, v]) / math.sqrt(2) if i == field.skip else hidden)
    return out[:3], out[3:]


@pytest.mark.parametrize(
    "config",
    [FIELD, dataclasses.replace(FIELD, bands=3, ambient=0, layers=5)],
    ids=["published layout", "with bands, without ambient"],
)
def test_folded_conditions_are_the_concatenated_input(config):
    """What does not depend on the point is multiplied once, and nothing else changes."""
    model = tiny_model(field=config)
    z_geo, _, z_exp = codes(model, 2)
    x = points(2, 8)
    anchors = model.identity.anchors(z_geo)
    offset, ambient = model.deformation(x, model.deformation.condition(z_geo, anchors, z_exp))
    assert ambient.shape == (2, 8, config.ambient)
    for person in range(2):
        for i in range(8):
            slow = slow_field(model.deformation, x[person, i], z_geo[person], anchors[person], z_exp[person])
            torch.testing.assert_close(offset[person, i], slow[0], rtol=0, atol=1e-12)
            torch.testing.assert_close(ambient[person, i], slow[1], rtol=0, atol=1e-12)


def test_without_bands_the_layers_have_the_published_shapes():
    """119 -> 400 -> 400 -> 400 -> (400 + 119) -> 400 -> 400 -> 5: what a published checkpoint holds."""
    config = RELEASE.deformation
    field = DeformationField(config, RELEASE.identity.d_geo, RELEASE.identity.anchors)
    shapes = [tuple(layer.weight.shape) for layer in field.layers]
    assert shapes == [(400, 119), (400, 400), (400, 400), (400, 519), (400, 400), (400, 400), (5, 400)]
    assert tuple(field.compressor.weight.shape) == (16, 2176 + 195)
