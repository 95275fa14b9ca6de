"""The backward deformation field: a posed point goes to its place on the canonical head (MonoNPHM, section 3.2)."""

import math

import torch
import torch.nn as nn
from jaxtyping import Float
from torch import Tensor

from mononphm_core.model.config import DeformationConfig
from mononphm_core.model.ensemble import frequency_bands, softplus100
from mononphm_core.model.skip_mlp import Biases, SkipMLP


class DeformationField(SkipMLP):
    """x_posed, identity, anchors, expression -> canonical offset and ambient coordinates.

    The constant part of the input is [what the field sees of the identity, z_exp]; see `DeformationConfig.identity`.
    """

    def __init__(self, config: DeformationConfig, d_geo: int, anchors: int, d_global: int = 0) -> None:
        c = config
        d_identity = {"compressed": c.d_identity, "global": d_global, "none": 0}[c.identity]
        super().__init__(
            3 * (1 + 2 * c.bands), d_identity + c.d_expression, c.hidden, c.layers, 3 + c.ambient, softplus100
        )
        self.config = config
        self.d_global = d_global
        if c.identity == "compressed":
            self.compressor = nn.Linear(d_geo + 3 * anchors, c.d_identity)

    def compressed(
        self, z_geo: Float[Tensor, "frames d_geo"], anchors: Float[Tensor, "frames anchors 3"]
    ) -> Float[Tensor, "frames d_identity"]:
        """What the field sees of the person."""
        if self.config.identity == "compressed":
            seen: Tensor = self.compressor(torch.cat([z_geo, anchors.flatten(1)], 1))
            return seen
        return z_geo[:, : self.d_global if self.config.identity == "global" else 0]

    def condition(
        self,
        z_geo: Float[Tensor, "frames d_geo"],
        anchors: Float[Tensor, "frames anchors 3"],
        z_exp: Float[Tensor, "frames d_exp"],
    ) -> Biases:
        """Biases of the first and of the middle layer: all that does not depend on the point."""
        return self.folded(torch.cat([self.compressed(z_geo, anchors), z_exp], 1))

    def forward(  # type: ignore[override]
        self, x_posed: Float[Tensor, "frames points 3"], condition: Biases
    ) -> tuple[Float[Tensor, "frames points 3"], Float[Tensor, "frames points ambient"]]:
        """Offset such that x_canonical = x_posed + offset, and the ambient coordinates."""
        out = super().forward(frequency_bands(x_posed, self.config.bands, base=math.pi), condition)
        return out[..., :3], out[..., 3:]
