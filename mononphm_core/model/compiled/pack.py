"""A model and its conditioned heads as plain arrays for the kernel."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mononphm_core.model.compiled.field import Head, Net
from mononphm_core.model.config import IdentityConfig
from mononphm_core.model.deformation import DeformationField
from mononphm_core.model.identity import GLOBAL_NODE_DISTANCE, IdentityDecoder, Person
from mononphm_core.model.skip_mlp import Biases


def supported(config: object) -> bool:
    """Whether the kernel knows this kind of ensemble: local networks of two hidden layers and more."""
    if not isinstance(config, IdentityConfig) or min(config.layers_geo, config.layers_app) < 2:
        return False
    if config.blend == "compact":
        return not config.global_node and config.neighbours < config.anchors
    return 8 <= config.neighbours <= config.anchors


def pack_net(identity: IdentityDecoder, deformation: DeformationField) -> Net:
    """All that does not depend on codes. Copies, transposed."""
    c, d = identity.config, deformation.config
    layers = [deformation._linear(i) for i in range(len(deformation.layers))]
    width, point, skip = d.hidden, deformation.d_point, deformation.skip
    middle = []
    again = torch.zeros(point, width)
    for i in range(1, d.layers):
        weight = layers[i].weight
        if i == skip:
            middle.append(weight[:, :width].T / math.sqrt(2))
            again = weight[:, width : width + point].T / math.sqrt(2)
        else:
            middle.append(weight.T)
    inward = torch.stack(middle) if middle else torch.zeros(0, width, width)
    enter = layers[0].weight[:, :point].T
    geo, app = identity.geometry, identity.colour
    geo_middle = torch.stack([w.transpose(1, 2) for w in list(geo.weights)[1:-1]], 1)
    app_middle = torch.stack([w.transpose(1, 2) for w in list(app.weights)[1:-1]], 1)
    first, second = (identity.feature[i] for i in (0, 1))
    assert isinstance(first, torch.nn.Linear) and isinstance(second, torch.nn.Linear)
    live = c.bottleneck + (identity.d_point * (1 + 2 * c.colour_bands) if c.colour_bands else 0)
    a = _array
    return Net(
        bands=d.bands, skip=skip, enter=a(enter), middle=a(inward), again=a(again), leave=a(layers[-1].weight),
        leave_bias=a(layers[-1].bias), enter_back=a(enter.T), middle_back=a(inward.transpose(1, 2)),
        again_back=a(again.T),
        geo_enter=a(geo.weights[0][:, :, -identity.d_point :].transpose(1, 2) * c.point_scale),
        geo_middle=a(geo_middle), geo_bias=a(torch.stack(list(geo.biases)[1:-1], 1)),
        geo_leave=a(geo.weights[-1][:, 0]),
        geo_leave_bias=a(geo.biases[-1][:, 0]), geo_middle_back=a(geo_middle.transpose(2, 3)),
        feature_0=a(first.weight.T), feature_0_bias=a(first.bias), feature_1=a(second.weight.T),
        feature_1_bias=a(second.bias), app_bands=c.colour_bands,
        app_enter=a(app.weights[0][:, :, -live:].transpose(1, 2)), app_middle=a(app_middle),
        app_bias=a(torch.stack(list(app.biases)[1:-1], 1)), app_leave=a(app.weights[-1]),
        app_leave_bias=a(app.biases[-1]), node_type=a(identity.node_type), node_mirrored=a(identity.node_mirrored),
        neighbours=c.neighbours, global_node=c.global_node, compact=c.blend == "compact",
        blend=c.blend_width if c.blend == "compact" else c.blend_std, global_squared=GLOBAL_NODE_DISTANCE**2,
    )  # fmt: skip


def pack_head(deformation: DeformationField, person: Person, condition: Biases, frame: int, nodes: int) -> Head:
    """One row of the conditioned heads."""
    first, at_skip = condition
    middle = [deformation._linear(i).bias for i in range(1, deformation.config.layers)]
    biases = [at_skip[frame] if i == deformation.skip else bias for i, bias in enumerate(middle, 1)]
    mine = slice(frame * nodes, (frame + 1) * nodes)

    def rows(value: Tensor | None, *empty: int) -> Any:
        return np.zeros((0, *empty), np.float32) if value is None else _array(value[mine])

    return Head(
        anchors=_array(person.anchors[frame]),
        enter_bias=_array(first[frame]),
        middle_bias=_array(torch.stack(biases)) if biases else np.zeros((0, first.shape[1]), np.float32),
        geo_bias=rows(person.geo_bias),
        geo_gate=rows(person.geo_gate, 1),
        app_bias=rows(person.app_bias),
        app_gate=rows(person.app_gate, 1),
        unstretched=rows(person.unstretched, 3, 3),
    )


def _array(value: Tensor) -> Any:
    return np.ascontiguousarray(value.detach().cpu().numpy())
