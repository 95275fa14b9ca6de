"""The backward deformation field: a posed point goes to its place on the canonical head (MonoNPHM, section 3.2)."""

import math
from typing import cast

import torch
import torch.nn as nn
from jaxtyping import Float
from torch import Tensor

from mononphm_core.model.config import DeformationConfig
from mononphm_core.model.ensemble import frequency_bands, softplus100


class DeformationField(nn.Module):
    """x_posed, identity, anchors, expression -> canonical offset and ambient coordinates.

    Input of the first and of the middle layer: [point, compressed identity, z_exp]; only the point changes within a
    frame, so the rest becomes a bias once (`condition`).
    """

    def __init__(self, config: DeformationConfig, d_geo: int, anchors: int) -> None:
        super().__init__()
        self.config = c = config
        self.compressor = nn.Linear(d_geo + 3 * anchors, c.d_identity)
        self.d_point = 3 * (1 + 2 * c.bands)
        d_in = self.d_point + c.d_identity + c.d_expression
        self.skip = c.layers // 2
        widths = [d_in, *[c.hidden] * c.layers, 3 + c.ambient]
        self.layers = nn.ModuleList(
            nn.Linear(a + (d_in if i == self.skip else 0), b)
            for i, (a, b) in enumerate(zip(widths[:-1], widths[1:], strict=True))
        )

    def _linear(self, i: int) -> nn.Linear:
        return cast(nn.Linear, self.layers[i])

    def condition(
        self,
        z_geo: Float[Tensor, "frames d_geo"],
        anchors: Float[Tensor, "frames anchors 3"],
        z_exp: Float[Tensor, "frames d_exp"],
    ) -> tuple[Float[Tensor, "frames hidden"], Float[Tensor, "frames hidden"]]:
        """Biases of the first and of the middle layer: all that does not depend on the point."""
        compressed = self.compressor(torch.cat([z_geo, anchors.flatten(1)], 1))
        constant = torch.cat([compressed, z_exp], 1)
        first, middle = self._linear(0), self._linear(self.skip)
        d = constant.shape[1]
        return (
            nn.functional.linear(constant, first.weight[:, -d:], first.bias),
            nn.functional.linear(constant / math.sqrt(2), middle.weight[:, -d:], middle.bias),
        )

    def forward(
        self,
        x_posed: Float[Tensor, "frames points 3"],
        condition: tuple[Float[Tensor, "frames hidden"], Float[Tensor, "frames hidden"]],
    ) -> tuple[Float[Tensor, "frames points 3"], Float[Tensor, "frames points ambient"]]:
        """Offset such that x_canonical = x_posed + offset, and the ambient coordinates."""
        point = frequency_bands(x_posed, self.config.bands, base=math.pi)
        first, middle = condition
        hidden = point @ self._linear(0).weight[:, : self.d_point].T + first[:, None]
        for i in range(1, len(self.layers)):
            layer, hidden = self._linear(i), softplus100(hidden)
            if i == self.skip:
                live = torch.cat([hidden, point], -1) / math.sqrt(2)
                hidden = live @ layer.weight[:, : live.shape[-1]].T + middle[:, None]
            else:
                hidden = layer(hidden)
        return hidden[..., :3], hidden[..., 3:]
