"""A run that begins from an earlier prior: signs of components, and networks that still mean the same."""

import dataclasses

import numpy as np
import pytest
import torch

from mononphm_core.errors import ConfigError
from mononphm_core.model.config import SMALL, ModelConfig
from mononphm_core.model.head import HeadModel
from mononphm_core.training.start import begin_from, flipped, signs_between


def test_flipped_codes_say_the_same_heads_with_other_signs(coded):
    """A component's sign is arbitrary: analysis and synthesis turn together."""
    codes = coded.geometry
    sign = np.where(np.random.default_rng(0).random(codes.d) < 0.5, -1.0, 1.0)
    other = flipped(codes, sign)
    z = codes.encode(coded.shapes[:3])
    np.testing.assert_allclose(other.encode(coded.shapes[:3]), z * sign, atol=1e-6)
    np.testing.assert_allclose(other.decode(z * sign), codes.decode(z), atol=1e-5)
    vertices = np.array([3, 9])
    np.testing.assert_allclose(other.jacobian(vertices), codes.jacobian(vertices) * sign, atol=1e-6)


def test_signs_of_rows_are_found_whatever_the_signs_of_columns():
    """Two spans of the same codes differ by both; only the rows' are wanted, up to one common sign."""
    rng = np.random.default_rng(1)
    span = rng.standard_normal((30, 6))
    s, t = np.where(rng.random(30) < 0.5, -1.0, 1.0), np.where(rng.random(6) < 0.5, -1.0, 1.0)
    found = signs_between(s[:, None] * span * t, span)
    assert np.array_equal(found, s) or np.array_equal(found, -s)


def test_the_mean_person_is_the_earlier_mean_person():
    """At the zero code all frames are the identity: the same distances, colours and displacements as before."""
    identity = dataclasses.replace(
        SMALL.identity, anchors=9, symmetric_pairs=3, neighbours=4, d_global=4, d_local_geo=3, d_local_app=2,
        hidden_geo=12, hidden_app=8, hidden_anchors=6,
    )  # fmt: skip
    deformation = dataclasses.replace(SMALL.deformation, hidden=16, d_expression=5)
    then = dataclasses.replace(identity, placement="network", gated=False, colour_bands=3)
    places = torch.randn(9, 3, generator=torch.Generator().manual_seed(0)) * 0.3
    torch.manual_seed(0)
    earlier, model = (HeadModel(ModelConfig(i, deformation), places) for i in (then, identity))
    with torch.no_grad():
        model.identity.anchor_head.weight.zero_()
        for layer in earlier.identity.anchor_head:
            for parameter in layer.parameters():
                parameter.zero_()
    begin_from(model, earlier)
    zero, z_app = torch.zeros(1, identity.d_geo), torch.randn(1, identity.d_app)
    z_exp = torch.rand(1, 5)
    x = torch.rand(1, 50, 3) - 0.5
    with torch.no_grad():
        before, after = (m.query(x, m.condition(zero, z_exp, z_app)) for m in (earlier, model))
    torch.testing.assert_close(after.sdf, before.sdf, rtol=0, atol=1e-5)
    torch.testing.assert_close(after.colour, before.colour, rtol=0, atol=1e-5)


def test_a_model_of_other_sizes_is_refused():
    """Tensors that happen to fit would be nonsense."""
    places = torch.zeros(65, 3)
    wide = dataclasses.replace(SMALL, identity=dataclasses.replace(SMALL.identity, hidden_geo=32))
    with pytest.raises(ConfigError, match="same sizes"):
        begin_from(HeadModel(SMALL, places), HeadModel(wide, places))
