"""The canonical ensemble against a loop over points and nodes, and against what symmetry and blending promise."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from mononphm_core.model import identity
from mononphm_core.model.identity import IdentityDecoder
from tests.core.model.tiny import LINEAR, OURS, PUBLISHED, codes, points, tiny_model


def mlp(stack, t, x, activation):
    """Network t of a stack, layer by layer: (output, last hidden layer before its activation)."""
    before = x
    for i in range(len(stack)):
        x = stack.weights[i][t] @ x + stack.biases[i][t]
        if i < len(stack) - 1:
            before, x = x, activation(x)
    return x, before


def slow_decoder(decoder: IdentityDecoder, x, z_geo, z_app):
    """One point of the published decoder, explicit loops and concatenated inputs; (sdf, colour)."""
    c = decoder.config
    g = c.d_global
    hidden = z_geo[:g]
    for layer in decoder.anchor_head:
        hidden = layer(hidden)
    anchors = decoder.mean_anchors + hidden.view(-1, 3)
    place = [*anchors, torch.zeros(3, dtype=x.dtype)]
    nearest = sorted(range(c.anchors), key=lambda a: float((x[:3] - place[a]).norm()))[: c.neighbours]
    eighth = max(float((x[:3] - place[a]).norm()) for a in nearest[:8])
    sigma = eighth / 3.75
    sdf, colour, total = torch.tensor(0.0, dtype=x.dtype), torch.zeros(3, dtype=x.dtype), 1e-8
    for node in [*nearest, c.anchors]:
        distance = 0.75 if node == c.anchors else float((x[:3] - place[node]).norm())
        weight = math.exp(-0.5 * (distance / sigma) ** 2)
        pairs = 2 * c.symmetric_pairs
        t = node // 2 if node < pairs else node - c.symmetric_pairs
        offset = x - torch.cat([place[node], torch.zeros(2, dtype=x.dtype)])
        if node < pairs and node % 2 == 1:
            offset[0] = -offset[0]
        local_geo = z_geo[g + node * c.d_local_geo : g + (node + 1) * c.d_local_geo]
        local_app = z_app[g + node * c.d_local_app : g + (node + 1) * c.d_local_app]
        s, feature = mlp(decoder.geometry, t, torch.cat([z_geo[:g], local_geo, offset]), lambda v: F.softplus(v, 100))
        passed = decoder.feature[1](F.relu(decoder.feature[0](feature)))
        rgb, _ = mlp(decoder.colour, t, torch.cat([z_app[:g], local_app, passed]), F.relu)
        sdf, colour, total = sdf + weight * s[0], colour + weight * rgb, total + weight
    return sdf / total, colour / total


@pytest.fixture(scope="module")
def published():
    return tiny_model(PUBLISHED).identity


@pytest.fixture(scope="module")
def ours():
    return tiny_model(OURS).identity


def test_the_published_decoder_is_the_loop_over_nodes(published):
    """Neighbours, mirroring, blend weights, folded codes the colour's feature, against their plain description."""
    z_geo, z_app, _ = codes(tiny_model(), 1)
    x = points(1, 25, 5)
    sdf, colour = published(x, published.person(z_geo, z_app), colour=True)
    for i in range(25):
        slow_sdf, slow_colour = slow_decoder(published, x[0, i], z_geo[0], z_app[0])
        torch.testing.assert_close(sdf[0, i], slow_sdf, rtol=0, atol=1e-12)
        torch.testing.assert_close(colour[0, i], slow_colour, rtol=0, atol=1e-12)


def slow_offset(decoder, x, z_geo, node):
    """(1 + G z)^-1 (x - anchor) of one node, mirrored for the right members of pairs: linear placement in words."""
    placed = (decoder.anchor_head.weight @ z_geo).view(decoder.config.anchors, 4, 3)
    offset = torch.linalg.solve(
        torch.eye(3, dtype=x.dtype) + placed[node, 1:], x[:3] - decoder.mean_anchors[node] - placed[node, 0]
    )
    offset = torch.cat([offset, x[3:]])
    if node < 2 * decoder.config.symmetric_pairs and node % 2 == 1:
        offset[0] = -offset[0]
    return offset


def test_linear_placement_and_gates_are_the_loop_over_nodes():
    """Frames, mirroring, and codes that scale the second hidden layer, against their plain description."""
    model = linear_model()
    decoder, c = model.identity, LINEAR
    z_geo, z_app, _ = codes(model, 2)
    person = decoder.person(z_geo, z_app)
    x = points(2, 15, 5)
    sdf, _ = decoder(x, person, colour=True)
    for p in range(2):
        near = decoder.neighbourhood(x[p : p + 1], person.anchors[p : p + 1])
        for i in range(15):
            expected = torch.tensor(0.0, dtype=x.dtype)
            for node, weight in zip(near.nodes[i].tolist(), near.weights[i], strict=True):
                t = int(decoder.node_type[node])
                local = z_geo[p, c.d_global + node * c.d_local_geo :][: c.d_local_geo]
                code = c.code_scale * torch.cat([z_geo[p, : c.d_global], local])
                h = torch.cat([code, c.point_scale * slow_offset(decoder, x[p, i], z_geo[p], node)])
                for layer in range(len(decoder.geometry)):
                    h = decoder.geometry.weights[layer][t] @ h + decoder.geometry.biases[layer][t]
                    h = h * (1 + decoder.geo_gate[t] @ code) if layer == 1 else h
                    h = F.softplus(h, 100) if layer < len(decoder.geometry) - 1 else h
                expected = expected + weight * h[0]
            torch.testing.assert_close(sdf[p, i], expected, rtol=0, atol=1e-12)


def linear_model():
    """Stretches of about a tenth, gates of about a fifth."""
    model = tiny_model(LINEAR)
    draw = torch.Generator().manual_seed(4)
    for weight, size in ((model.identity.anchor_head.weight, 0.03), (model.identity.geo_gate, 0.2)):
        weight.copy_(size * torch.randn(weight.shape, generator=draw, dtype=weight.dtype))
    model.identity.app_gate.copy_(0.2 * torch.randn(model.identity.app_gate.shape, generator=draw, dtype=torch.float64))
    return model


def test_a_repeated_person_is_the_person_in_every_row():
    """The frames of a clip share an identity: anchors, frames and gates alike."""
    model = linear_model()
    z_geo, z_app, _ = codes(model, 1)
    one = model.identity.person(z_geo, z_app)
    x = points(3, 9, 5)
    sdf, colour = model.identity(x, one.repeated(3), colour=True)
    for row in range(3):
        alone = model.identity(x[row : row + 1], one, colour=True)
        torch.testing.assert_close(sdf[row : row + 1], alone[0], rtol=0, atol=1e-13)
        torch.testing.assert_close(colour[row : row + 1], alone[1], rtol=0, atol=1e-13)


@pytest.mark.parametrize("config", [PUBLISHED, OURS, LINEAR], ids=["published", "ours", "linear"])
def test_a_batch_of_people_is_each_person_alone(config):
    """No code of one person reaches another's points."""
    model = tiny_model(config)
    decoder = model.identity
    z_geo, z_app, _ = codes(model, 3)
    x = points(3, 11, decoder.d_point)
    sdf, colour = decoder(x, decoder.person(z_geo, z_app), colour=True)
    for p in range(3):
        alone = decoder(x[p : p + 1], decoder.person(z_geo[p : p + 1], z_app[p : p + 1]), colour=True)
        torch.testing.assert_close(sdf[p : p + 1], alone[0], rtol=0, atol=1e-13)
        torch.testing.assert_close(colour[p : p + 1], alone[1], rtol=0, atol=1e-13)


@pytest.mark.parametrize("config", [PUBLISHED, OURS], ids=["published", "ours"])
def test_a_mirrored_point_of_the_person_with_swapped_codes_is_as_far_from_the_skin(config):
    """The right half is the left one's mirror image, exactly where pairs alone are asked.

    Midline networks and the one without a position see the unmirrored offset, so here there are none; the anchors
    are the symmetric mean.
    """
    paired = dataclasses.replace(config, anchors=14, symmetric_pairs=7, global_node=False)
    model = tiny_model(paired)
    decoder = model.identity
    decoder.anchor_head[-1].weight.zero_()
    decoder.anchor_head[-1].bias.zero_()
    z_geo, z_app, _ = codes(model, 1)
    x = points(1, 40, decoder.d_point)

    def swapped(z, d_local):
        head, local = decoder.split(z, d_local)
        return torch.cat([head, local.unflatten(1, (-1, 2)).flip(2).flatten(1)], 1)

    mirrored = x * torch.tensor([-1.0] + [1.0] * (decoder.d_point - 1), dtype=x.dtype)
    here = decoder(x, decoder.person(z_geo, z_app), colour=True)
    other = decoder.person(swapped(z_geo, paired.d_local_geo), swapped(z_app, paired.d_local_app))
    there = decoder(mirrored, other, colour=True)
    torch.testing.assert_close(here[0], there[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(here[1], there[1], rtol=0, atol=1e-12)
    unswapped, _ = decoder(mirrored, decoder.person(z_geo, z_app), colour=False)
    assert (unswapped - here[0]).abs().max() > 1e-3


@pytest.mark.parametrize(("config", "atol"), [(PUBLISHED, 1e-4), (OURS, 1e-9)], ids=["published", "ours"])
def test_blend_weights_sum_to_one(config, atol):
    """An average of local opinions; the published 1e-8 in the denominator costs its share where all are small."""
    decoder = tiny_model(config).identity
    near = decoder.neighbourhood(points(1, 200, decoder.d_point), decoder.mean_anchors[None])
    assert (near.weights >= 0).all()
    torch.testing.assert_close(near.weights.sum(1), torch.ones(200, dtype=torch.float64), rtol=0, atol=atol)


def switches(decoder, anchors, count):
    """Pairs of points 2e-9 apart between which the set of neighbours changes."""
    found = []
    start, stop = points(1, 60, 5, seed=8)[0], points(1, 60, 5, seed=9)[0]

    def members(x):
        return frozenset(decoder.neighbourhood(x[None, None], anchors).nodes[0].tolist())

    for a, b in zip(start, stop, strict=True):
        if members(a) == members(b):
            continue
        while (a - b).norm() > 2e-9:
            middle = (a + b) / 2
            a, b = (middle, b) if members(middle) == members(a) else (a, middle)
        found.append((a, b))
    assert len(found) >= count
    return found[:count]


def test_nothing_jumps_where_the_set_of_neighbours_changes(ours, monkeypatch):
    """A compact weight and its slope vanish at the first neighbour left out; a hard cut of the same Gaussian jumps."""
    z_geo, _, _ = codes(tiny_model(OURS), 1)
    person = ours.person(z_geo)
    pairs = torch.stack([torch.stack(p) for p in switches(ours, person.anchors, 20)])

    def jumps():
        sdf, _ = ours(pairs.flatten(0, 1)[None], person, colour=False)
        return (sdf[0, 0::2] - sdf[0, 1::2]).abs()

    assert jumps().max() < 1e-7  # 2e-9 times a slope, no step

    def hard_cut(squared, width):
        raw = torch.exp(-0.5 * (squared[..., :-1] - squared[..., :1]) / width**2)
        return raw / raw.sum(-1, keepdim=True)

    monkeypatch.setattr(identity, "_compact_weights", hard_cut)
    assert jumps().median() > 5e-6


def test_a_person_repeated_over_frames_is_the_same_in_each(ours):
    """`repeated` is a copy per frame: what tracking asks for one identity in many expressions."""
    z_geo, z_app, _ = codes(tiny_model(OURS), 1)
    person = ours.person(z_geo, z_app)
    x = points(1, 9, ours.d_point)
    alone = ours(x, person, colour=True)
    many = ours(x.expand(3, -1, -1), person.repeated(3), colour=True)
    for frame in range(3):
        torch.testing.assert_close(many[0][frame], alone[0][0], rtol=0, atol=1e-13)
        torch.testing.assert_close(many[1][frame], alone[1][0], rtol=0, atol=1e-13)


def test_asking_for_colour_does_not_change_the_distance(published):
    """The coarse pass and the mesh grid leave colour out."""
    z_geo, z_app, _ = codes(tiny_model(), 1)
    x = points(1, 12, 5)
    without, nothing = published(x, published.person(z_geo), colour=False)
    with_colour, _ = published(x, published.person(z_geo, z_app), colour=True)
    assert nothing is None
    assert torch.equal(without, with_colour)
