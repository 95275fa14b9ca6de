"""The canonical head: an ensemble of local signed-distance and colour networks around anchors (MonoNPHM, section 3).

Each local network sees a point relative to its anchor, the person's global code and the anchor's own code; the nearest
few are blended by distance. Left and right members of a pair share one network: the right one sees a mirrored offset.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from mononphm_core.model.config import IdentityConfig
from mononphm_core.model.ensemble import Grouping, StackedMLP, frequency_bands, grouped_product, softplus100

GLOBAL_NODE_DISTANCE = 0.75
"""Distance that the network without a position takes part with, head units (published constant)."""


@dataclass(frozen=True)
class Person:
    """Identity codes with all that depends on nothing else worked out: anchors and the latent part of the first layers.

    A linear layer of [code, point] is a layer of the point with a code-dependent bias: folded once, not multiplied
    again for every point. One row per (person, node).
    """

    anchors: Float[Tensor, "people anchors 3"]
    geo_bias: Float[Tensor, "people_nodes hidden_geo"]
    app_bias: Float[Tensor, "people_nodes hidden_app"]
    unstretched: Float[Tensor, "people_nodes 3 3"] | None = None
    """Offsets from an anchor -> the same offsets on the mean person; only of models with linear placement."""
    geo_gate: Float[Tensor, "people_nodes hidden_geo"] | None = None
    """Factor on the second hidden layer; only of gated models. Likewise `app_gate`."""
    app_gate: Float[Tensor, "people_nodes hidden_app"] | None = None

    def repeated(self, times: int) -> "Person":
        """One person as so many rows: the frames of a clip share an identity."""
        return Person(
            self.anchors.expand(times, -1, -1),
            self.geo_bias.repeat(times, 1),
            self.app_bias.repeat(times, 1),
            *(
                None if shared is None else shared.repeat(times, *[1] * (shared.dim() - 1))
                for shared in (self.unstretched, self.geo_gate, self.app_gate)
            ),
        )


@dataclass(frozen=True)
class Neighbourhood:
    """Which local networks a point asks, with which weight, and where the point lies for each of them."""

    nodes: Int[Tensor, "points neighbours"]
    weights: Float[Tensor, "points neighbours"]
    offsets: Float[Tensor, "points neighbours d_point"]
    """x_canonical - anchor (as on the mean person, with linear placement), mirrored in x for right members of pairs;
    ambient coordinates follow unchanged."""


class IdentityDecoder(nn.Module):
    """Signed distance and colour of canonical points for identity codes."""

    mean_anchors: Tensor
    node_type: Tensor
    node_mirrored: Tensor

    def __init__(self, config: IdentityConfig, ambient: int, mean_anchors: Float[Tensor, "anchors 3"]) -> None:
        super().__init__()
        self.config = c = config
        self.d_point = 3 + ambient
        self.register_buffer("mean_anchors", mean_anchors.float())
        self.geometry = StackedMLP(
            c.types, [c.d_global + c.d_local_geo + self.d_point, *[c.hidden_geo] * c.layers_geo, 1]
        )
        d_colour_point = self.d_point * (1 + 2 * c.colour_bands) if c.colour_bands else 0
        self.feature = nn.ModuleList([nn.Linear(c.hidden_geo, c.bottleneck), nn.Linear(c.bottleneck, c.bottleneck)])
        self.colour = StackedMLP(
            c.types, [c.d_global + c.d_local_app + c.bottleneck + d_colour_point, *[c.hidden_app] * c.layers_app, 3]
        )
        if c.gated:
            self.geo_gate = nn.Parameter(torch.zeros(c.types, c.hidden_geo, c.d_global + c.d_local_geo))
            self.app_gate = nn.Parameter(torch.zeros(c.types, c.hidden_app, c.d_global + c.d_local_app))
        self.anchor_head: nn.Module
        if c.placement == "linear":
            self.anchor_head = nn.Linear(c.d_geo, c.anchors * 12, bias=False)
        else:
            self.anchor_head = nn.Sequential(
                nn.Linear(c.d_global, c.hidden_anchors),
                nn.ReLU(),
                nn.Linear(c.hidden_anchors, c.hidden_anchors),
                nn.ReLU(),
                nn.Linear(c.hidden_anchors, c.anchors * 3),
            )
        nodes = torch.arange(c.nodes)
        pairs = 2 * c.symmetric_pairs
        self.register_buffer(
            "node_type", torch.where(nodes < pairs, nodes // 2, nodes - c.symmetric_pairs), persistent=False
        )
        self.register_buffer("node_mirrored", (nodes < pairs) & (nodes % 2 == 1), persistent=False)

    def split(
        self, z: Float[Tensor, "people d"], d_local: int
    ) -> tuple[Float[Tensor, "people d_global"], Float[Tensor, "people nodes d_local"]]:
        """A flat code as its global part and one local part per node."""
        return z[:, : self.config.d_global], z[:, self.config.d_global :].unflatten(1, (self.config.nodes, d_local))

    def anchors(self, z_geo: Float[Tensor, "people d_geo"]) -> Float[Tensor, "people anchors 3"]:
        """Canonical anchors of each person."""
        return self._placed(z_geo)[0]

    def _placed(
        self, z_geo: Float[Tensor, "people d_geo"]
    ) -> tuple[Float[Tensor, "people anchors 3"], Float[Tensor, "people_nodes 3 3"] | None]:
        """Anchors, and the inverse of each anchor's affine map (mean person -> this person) where the model has one."""
        c = self.config
        if c.placement == "network":
            offsets: Tensor = self.anchor_head(z_geo[:, : c.d_global])
            return self.mean_anchors + offsets.unflatten(1, (c.anchors, 3)), None
        placed = self.anchor_head(z_geo).unflatten(1, (c.anchors, 4, 3))
        identity = torch.eye(3, dtype=placed.dtype, device=placed.device)
        unstretched = torch.linalg.inv(identity + placed[:, :, 1:])
        if c.global_node:
            unstretched = torch.cat([unstretched, identity.expand(len(placed), 1, 3, 3)], 1)
        return self.mean_anchors + placed[:, :, 0], unstretched.flatten(0, 1)

    def person(
        self, z_geo: Float[Tensor, "people d_geo"], z_app: Float[Tensor, "people d_app"] | None = None
    ) -> Person:
        """Work out all that does not depend on points. Without `z_app` colours cannot be asked."""
        geo = self._folded(self.geometry.weights[0], z_geo, self.geometry.biases[0])
        app = geo[:, :0]
        geo_gate = app_gate = None
        if z_app is not None:
            app = self._folded(self.colour.weights[0], z_app, self.colour.biases[0])
        if self.config.gated:
            geo_gate = self._folded(self.geo_gate, z_geo, self.geo_gate.new_ones(1, 1))
            if z_app is not None:
                app_gate = self._folded(self.app_gate, z_app, self.app_gate.new_ones(1, 1))
        anchors, unstretched = self._placed(z_geo)
        return Person(anchors, geo, app, unstretched, geo_gate, app_gate)

    def _folded(
        self,
        weight: Float[Tensor, "types hidden d_in"],
        z: Float[Tensor, "people d"],
        bias: Float[Tensor, "#types #hidden"],
    ) -> Float[Tensor, "people_nodes hidden"]:
        """What the first inputs of `weight`, a node's codes, come to; one row per (person, node)."""
        d_global, nodes = self.config.d_global, self.config.nodes
        d_local = (z.shape[1] - d_global) // nodes
        z_global, z_local = self.split(z * self.config.code_scale, d_local)
        per_type = torch.einsum("pg,thg->pth", z_global, weight[:, :, :d_global]) + bias
        per_node = torch.einsum("pnl,nhl->pnh", z_local, weight[:, :, d_global : d_global + d_local][self.node_type])
        return (per_type[:, self.node_type] + per_node).flatten(0, 1)

    def neighbourhood(
        self,
        x_canonical: Float[Tensor, "people points d_point"],
        anchors: Float[Tensor, "people anchors 3"],
        unstretched: Float[Tensor, "people_nodes 3 3"] | None = None,
    ) -> Neighbourhood:
        """The nearest anchors of every point, flattened over people; node indices count through all people."""
        c = self.config
        people = x_canonical.shape[0]
        spatial = x_canonical[..., :3]
        with torch.no_grad():
            ask = c.neighbours + (1 if c.blend == "compact" else 0)
            nearest = torch.cdist(spatial, anchors, compute_mode="donot_use_mm_for_euclid_dist").topk(
                ask, dim=-1, largest=False
            )[1]
        person = torch.arange(people, device=x_canonical.device)[:, None, None]
        padded = F.pad(anchors, (0, self.d_point - 3))
        chosen = padded.flatten(0, 1).index_select(0, (nearest + person * c.anchors).flatten())
        delta = x_canonical[:, :, None] - chosen.view(*nearest.shape, self.d_point)
        squared = delta[..., :3].square().sum(-1)
        if c.blend == "compact":
            weights = _compact_weights(squared, c.blend_width)
            nearest, delta = nearest[..., : c.neighbours], delta[..., : c.neighbours, :]
        else:
            weights = _published_weights(squared, c.blend_std, c.global_node)
        if c.global_node:
            nearest = F.pad(nearest, (0, 1), value=c.anchors)
            delta = torch.cat([delta, x_canonical[:, :, None]], 2)
        index = nearest + person * c.nodes
        if unstretched is not None:
            frame = unstretched.index_select(0, index.flatten()).view(*index.shape, 3, 3)
            delta = torch.cat([(frame * delta[..., None, :3]).sum(-1), delta[..., 3:]], -1)
        sign = torch.ones_like(delta[..., :1])
        sign[self.node_mirrored[nearest]] = -1.0
        delta = torch.cat([delta[..., :1] * sign, delta[..., 1:]], -1)
        return Neighbourhood(index.flatten(0, 1), weights.flatten(0, 1), delta.flatten(0, 1))

    def forward(
        self, x_canonical: Float[Tensor, "people points d_point"], person: Person, colour: bool
    ) -> tuple[Float[Tensor, "people points"], Float[Tensor, "people points 3"] | None]:
        """Signed distance (negative inside) and, if asked, colour: -1 black, 1 white, unbounded."""
        people, points = x_canonical.shape[:2]
        near = self.neighbourhood(x_canonical, person.anchors, person.unstretched)
        neighbours = near.nodes.shape[1]
        rows = near.nodes.flatten()
        group = Grouping.of(self.node_type[rows % self.config.nodes], self.config.types)
        rows = rows[group.order]
        offsets = near.offsets.flatten(0, 1).index_select(0, group.order)

        hidden, feature = self._geometry(
            offsets, person.geo_bias.index_select(0, rows), _rows_of(person.geo_gate, rows), group
        )
        sdf = (hidden.index_select(0, group.inverse).view(-1, neighbours) * near.weights).sum(1).view(people, points)
        if not colour:
            return sdf, None
        c_local = self._colour(
            feature, offsets, person.app_bias.index_select(0, rows), _rows_of(person.app_gate, rows), group
        )
        blended = (c_local.index_select(0, group.inverse).view(-1, neighbours, 3) * near.weights[..., None]).sum(1)
        return sdf, blended.view(people, points, 3)

    def _geometry(self, offsets: Tensor, bias: Tensor, gate: Tensor | None, group: Grouping) -> tuple[Tensor, Tensor]:
        """Local distances, and the pre-activation of the last hidden layer, which the colour networks see."""
        mlp = self.geometry
        scaled = offsets * self.config.point_scale
        pre = grouped_product(scaled, mlp.weights[0][:, :, -self.d_point :], group.bounds) + bias
        for layer in range(1, len(mlp) - 1):
            pre = grouped_product(softplus100(pre), mlp.weights[layer], group.bounds, mlp.biases[layer])
            pre = pre * gate if gate is not None and layer == 1 else pre
        return grouped_product(softplus100(pre), mlp.weights[-1], group.bounds, mlp.biases[-1]), pre

    def _colour(self, feature: Tensor, offsets: Tensor, bias: Tensor, gate: Tensor | None, group: Grouping) -> Tensor:
        mlp = self.colour
        live = self.feature[1](F.relu(self.feature[0](feature)))
        if self.config.colour_bands:
            live = torch.cat([live, frequency_bands(offsets, self.config.colour_bands, base=8 * math.pi)], -1)
        pre = grouped_product(live, mlp.weights[0][:, :, -live.shape[1] :], group.bounds) + bias
        for layer in range(1, len(mlp)):
            pre = grouped_product(F.relu(pre), mlp.weights[layer], group.bounds, mlp.biases[layer])
            pre = pre * gate if gate is not None and layer == 1 else pre
        return pre


def _rows_of(gate: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if gate is None else gate.index_select(0, rows)


def _published_weights(squared: Tensor, blend_std: float, global_node: bool) -> Tensor:
    """exp(-(d / sigma)^2 / 2), normalised; sigma is the distance of the 8th nearest anchor over `blend_std`."""
    width = squared[..., 7:8].sqrt() / blend_std
    if global_node:
        squared = torch.cat([squared, torch.full_like(squared[..., :1], GLOBAL_NODE_DISTANCE**2)], -1)
    raw = torch.exp(-0.5 * squared / width.square())
    return raw / (raw.sum(-1, keepdim=True) + 1e-8)


def _compact_weights(squared: Tensor, width: float) -> Tensor:
    """exp(-d^2 / 2 width^2) * (1 - d / d_out)^2, normalised; d_out is the distance of the first neighbour left out.

    Relative to the nearest, so that far points do not underflow. The weight and its slope vanish at d_out.
    """
    distance = (squared + 1e-12).sqrt()
    inner, outer = distance[..., :-1], distance[..., -1:]
    exponent = -0.5 * (squared[..., :-1] - squared[..., :1]) / width**2
    raw = exponent.exp() * (1.0 - inner / (outer + 1e-9)).square()
    return raw / (raw.sum(-1, keepdim=True) + 1e-12)
