"""The field as the published program asks it, in our words: the baseline that speed is compared with.

A loop over the local networks, each with a question to the host whether it has points; codes given again with every
point; colour whether it is wanted or not. The numbers are those of the modules (a test holds them together).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mononphm_core.model.ensemble import StackedMLP, frequency_bands, softplus100
from mononphm_core.model.head import FieldSample, HeadModel
from mononphm_core.model.identity import IdentityDecoder

Codes = tuple[Tensor, Tensor, Tensor]
"""z_geo, z_app, z_exp of one head, each (1, d)."""


def looped_query(
    model: HeadModel, x: Tensor, codes: Codes, gradient: bool = False, create_graph: bool = False
) -> FieldSample:
    """Distance, colour and, if asked, gradient of points (1, points, 3)."""
    if not gradient:
        return FieldSample(*_field(model, x, codes), None)
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        sdf, colour = _field(model, x, codes)
        (slope,) = torch.autograd.grad(sdf.sum(), x, create_graph=create_graph, retain_graph=True)
    return FieldSample(sdf, colour, slope)


def _field(model: HeadModel, x: Tensor, codes: Codes) -> tuple[Tensor, Tensor]:
    z_geo, z_app, z_exp = codes
    identity = model.identity
    assert isinstance(identity, IdentityDecoder)
    anchors, unstretched = identity._placed(z_geo)
    x_canonical = _deformed(model, x, torch.cat([model.deformation.compressed(z_geo, anchors), z_exp], 1))
    near = identity.neighbourhood(x_canonical, anchors, unstretched)
    nodes, offsets = near.nodes.flatten(), near.offsets.flatten(0, 1)
    c = identity.config
    global_geo, local_geo = identity.split(z_geo * c.code_scale, c.d_local_geo)
    global_app, local_app = identity.split(z_app * c.code_scale, c.d_local_app)
    types = identity.node_type[nodes]
    sdf, colour = x.new_zeros(len(nodes)), x.new_zeros(len(nodes), 3)
    for kind in range(c.types):
        mine = types == kind
        if not bool(mine.any()):
            continue
        rows, here = nodes[mine], offsets[mine]
        codes_geo = torch.cat([global_geo.expand(len(rows), -1), local_geo[0, rows]], 1)
        codes_app = torch.cat([global_app.expand(len(rows), -1), local_app[0, rows]], 1)
        gate = 1 + codes_geo @ identity.geo_gate[kind].T if c.gated else None
        hidden = _network(
            identity.geometry, kind, torch.cat([codes_geo, here * c.point_scale], 1), softplus100, gate, last=False
        )
        last = len(identity.geometry) - 1
        out = softplus100(hidden) @ identity.geometry.weights[last][kind].T + identity.geometry.biases[last][kind]
        sdf = sdf.masked_scatter(mine, out[:, 0])
        live = [codes_app, identity.feature[1](F.relu(identity.feature[0](hidden)))]
        if c.colour_bands:
            live.append(frequency_bands(here, c.colour_bands, base=8 * math.pi))
        gate = 1 + codes_app @ identity.app_gate[kind].T if c.gated else None
        seen = _network(identity.colour, kind, torch.cat(live, 1), F.relu, gate, last=True)
        colour = colour.masked_scatter(mine[:, None].expand(-1, 3), seen)
    points = x.shape[1]
    neighbours = near.nodes.shape[1]
    blended = (colour.view(points, neighbours, 3) * near.weights[..., None]).sum(1)
    return (sdf.view(points, neighbours) * near.weights).sum(1)[None], blended[None]


def _deformed(model: HeadModel, x: Tensor, constant: Tensor) -> Tensor:
    """The deformation with its constants beside every point."""
    field = model.deformation
    point = frequency_bands(x, field.config.bands, base=math.pi)
    given = torch.cat([point, constant[:, None].expand(-1, x.shape[1], -1)], -1)
    hidden = given
    for i, layer in enumerate(field.layers):
        if i == field.skip:
            hidden = torch.cat([hidden, given], -1) / math.sqrt(2)
        hidden = layer(hidden)
        if i < len(field.layers) - 1:
            hidden = softplus100(hidden)
    return torch.cat([x + hidden[..., :3], hidden[..., 3:]], -1)


def _network(mlp: StackedMLP, kind: int, x: Tensor, activation, gate: Tensor | None, last: bool) -> Tensor:  # type: ignore[no-untyped-def]
    """One local network; without its last layer unless that is wanted."""
    for layer in range(len(mlp) - (0 if last else 1)):
        x = (activation(x) if layer else x) @ mlp.weights[layer][kind].T + mlp.biases[layer][kind]
        x = x * gate if gate is not None and layer == 1 else x
    return x
