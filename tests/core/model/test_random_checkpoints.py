"""Checkpoints of many sizes: the fast grouped evaluation against the published description, read off line by line.

The twin knows nothing of our modules: it takes the published state dicts and walks point by point, node by node, layer
by layer. Weights are random and larger than trained ones, so that nothing is nearly linear; all in double precision.
"""

import math

import pytest
import torch
import torch.nn.functional as F

from mononphm_core.model.config import DeformationConfig, GlobalIdentityConfig, IdentityConfig, ModelConfig
from mononphm_core.model.published import head_model
from tests.golden.checkpoints import document_of, random_states, small

POINTS = 6


def ensemble(**changes):
    return IdentityConfig(**{**vars(small().identity), **changes})


def field(**changes):
    return DeformationConfig(**{**vars(small().deformation), **changes})


CONFIGURATIONS = {
    "65 anchors, 12 neighbours": ModelConfig(
        ensemble(anchors=65, symmetric_pairs=30, neighbours=12, layers_geo=4, layers_app=4), field(layers=6)
    ),
    "39 anchors, 16 pairs, 8 neighbours": ModelConfig(
        ensemble(anchors=39, symmetric_pairs=16, neighbours=8, d_global=5), field()
    ),
    "every anchor asked": ModelConfig(ensemble(anchors=9, symmetric_pairs=4, neighbours=9), field()),
    "no pairs": ModelConfig(ensemble(anchors=12, symmetric_pairs=0, neighbours=10), field()),
    "pairs alone": ModelConfig(ensemble(anchors=20, symmetric_pairs=10, neighbours=11), field()),
    "wide blend, one hidden layer": ModelConfig(ensemble(blend_std=1.5, layers_geo=1, layers_app=1), field(layers=2)),
    "deep and odd": ModelConfig(ensemble(layers_geo=6, layers_app=5, hidden_geo=17, hidden_app=8), field(layers=7)),
    "no ambient dimensions": ModelConfig(ensemble(), field(ambient=0)),
    "three ambient dimensions": ModelConfig(ensemble(), field(ambient=3)),
    "deformation sees the global code": ModelConfig(ensemble(), field(identity="global", d_identity=0)),
    "deformation sees nobody": ModelConfig(ensemble(), field(identity="none", d_identity=0)),
    "global type": ModelConfig(
        GlobalIdentityConfig(anchors=65, d_geo=14, d_app=9, hidden=16, layers_geo=6, layers_app=6),
        field(identity="global", d_identity=0, layers=6),
    ),
    "global type, odd layers": ModelConfig(
        GlobalIdentityConfig(anchors=11, d_geo=8, d_app=10, hidden=13, layers_geo=5, layers_app=3),
        field(identity="global", d_identity=0, ambient=1, layers=3),
    ),
}


class Twin:
    """The published model from its state dicts and its `configs.yaml`, one point at a time."""

    def __init__(self, document, states, mean_anchors):
        self.ident, self.ex = document["decoder"]["id"], document["decoder"]["ex"]
        self.w = {name: value.double() for state in states.values() for name, value in state.items()}
        self.mean = mean_anchors.float().double()

    def linear(self, name, x):
        return self.w[f"{name}.weight"] @ x + self.w[f"{name}.bias"]

    def anchors(self, geo):
        glob = geo[: self.ident.get("lat_dim_glob", len(geo))]
        hidden = F.relu(self.linear("mlp_pos.0", glob))
        hidden = F.relu(self.linear("mlp_pos.2", hidden))
        return self.mean + self.linear("mlp_pos.4", hidden).reshape(-1, 3)

    def skipping(self, name, layers, v, activation):
        """layers + 1 linear maps; the input joins the middle one, over sqrt 2."""
        x = v
        for i in range(layers + 1):
            if i == layers // 2:
                x = torch.cat([x, v]) / math.sqrt(2)
            x = self.linear(f"{name}{i}", x)
            if i < layers:
                x = activation(x)
        return x

    def canonical(self, x, geo, exp, anchors):
        mode = self.ex["mode"]
        if mode == "compress":
            seen = self.linear("compressor.0", torch.cat([geo, anchors.reshape(-1)]))
        elif mode == "glob_only":
            seen = geo[: self.ident.get("lat_dim_glob", len(geo))]
        else:
            seen = geo[:0]
        out = self.skipping("defDeepSDF.lin", self.ex["nlayers"], torch.cat([x, seen, exp]), softplus)
        return torch.cat([x + out[:3], out[3:]])

    def __call__(self, x, geo, app, exp):
        """(sdf, colour, canonical point)."""
        anchors = self.anchors(geo)
        y = self.canonical(x, geo, exp, anchors)
        if "lat_dim" in self.ident:
            sdf = self.skipping("geo_mlp.lin", self.ident["nlayers"], torch.cat([y, geo]), softplus)
            colour = self.skipping("color_mlp.lin", self.ident["nlayers_color"], torch.cat([y, app, exp]), F.relu)
            return sdf[0], colour, y
        sdf, colour = self.blended(y, geo, app, anchors)
        return sdf, colour, y

    def blended(self, y, geo, app, anchors):
        d = self.ident
        g, pairs, count = d["lat_dim_glob"], d["nsymm_pairs"], d["nloc"]
        distance = [(y[:3] - a).norm() for a in anchors]
        nearest = sorted(range(count), key=lambda a: float(distance[a].detach()))[: d["nneigh"]]
        sigma = torch.stack([distance[a] for a in nearest[:8]]).max() / d["blend_std"]
        total, sdf, colour = 1e-8, 0.0, 0.0
        for node in [*nearest, count]:
            far = torch.tensor(0.75, dtype=y.dtype) if node == count else distance[node]
            weight = torch.exp(-0.5 * (far / sigma) ** 2)
            offset = y.clone()
            if node < count:
                offset = torch.cat([y[:3] - anchors[node], y[3:]])
            if node < 2 * pairs and node % 2 == 1:
                offset = torch.cat([-offset[:1], offset[1:]])
            t = node // 2 if node < 2 * pairs else node - pairs
            s, c = self.local(t, node, offset, geo, app, g)
            total, sdf, colour = total + weight, sdf + weight * s, colour + weight * c
        return sdf / total, colour / total

    def local(self, t, node, offset, geo, app, g):
        d = self.ident
        size = d["lat_dim_loc_geo"]
        x = torch.cat([geo[:g], geo[g + node * size : g + (node + 1) * size], offset])
        layers = d["gnn"]["nlayers_geo"]
        for i in range(layers):
            before = self.linear(f"deepSDFensemble.layers.{t}.layers.{2 * i}", x)
            x = softplus(before)
        s = self.linear(f"deepSDFensemble.layers.{t}.layers.{2 * layers}", x)[0]
        feature = self.linear("communcation_bottleneck2", F.relu(self.linear("communcation_bottleneck1", before)))
        size = d["lat_dim_loc_app"]
        x = torch.cat([app[:g], app[g + node * size : g + (node + 1) * size], feature])
        layers = d["gnn"]["nlayers_app"]
        for i in range(layers):
            x = F.relu(self.linear(f"aggr_app.layers.{t}.layers.{2 * i}", x))
        return s, self.linear(f"aggr_app.layers.{t}.layers.{2 * layers}", x)


def softplus(v):
    return torch.where(100 * v > 20, v, torch.log1p(torch.exp(100 * v.clamp(max=0.3))) / 100)


def outcome(evaluate, x, codes, cotangents):
    """Values, then first and second order products, of any implementation."""
    x = x.clone().requires_grad_(True)
    codes = [z.clone().requires_grad_(True) for z in codes]
    sdf, colour, canonical = evaluate(x, *codes)
    (gradient,) = torch.autograd.grad(sdf.sum(), x, create_graph=True)
    loss = (sdf * cotangents[:, 0]).sum() + (colour * cotangents[:, 1:4]).sum()
    first = torch.autograd.grad(loss, [x, *codes], retain_graph=True, allow_unused=True, materialize_grads=True)
    second = torch.autograd.grad(
        (gradient * cotangents[:, 4:]).sum(), [x, codes[0], codes[2]], allow_unused=True, materialize_grads=True
    )
    names = ("first x", "first geo", "first app", "first exp", "second x", "second geo", "second exp")
    return {
        "sdf": sdf, "colour": colour, "canonical": canonical, "gradient": gradient,
        **dict(zip(names, (*first, *second), strict=True)),
    }  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_any_checkpoint_gives_what_its_description_says(name, seed):
    """Values, gradient, and products of both orders with respect to points and codes, to ten digits."""
    config = CONFIGURATIONS[name]
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    states = random_states(config, seed)
    anchors = 0.3 * normal(config.identity.anchors, 3)
    model = head_model(config, states, anchors).double()
    twin = Twin(document_of(config), states, anchors)
    x, cotangents = 0.3 * normal(POINTS, 3), normal(POINTS, 7)
    codes = [0.5 * normal(d) for d in (config.identity.d_geo, config.identity.d_app, config.deformation.d_expression)]

    def ours(x, geo, app, exp):
        conditioned = model.condition(geo[None], exp[None], app[None])
        sample = model.query(x[None], conditioned)
        return sample.sdf[0], sample.colour[0], model.to_canonical(x[None], conditioned)[0]

    def theirs(x, geo, app, exp):
        return (torch.stack(values) for values in zip(*(twin(p, geo, app, exp) for p in x), strict=True))

    found, expected = outcome(ours, x, codes, cotangents), outcome(theirs, x, codes, cotangents)
    for quantity, value in expected.items():
        scale = float(value.detach().abs().max())
        torch.testing.assert_close(
            found[quantity], value, rtol=1e-10, atol=1e-10 * scale, msg=lambda m, q=quantity: f"{q}: {m}"
        )
