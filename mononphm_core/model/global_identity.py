"""The canonical head without local networks: one distance and one colour network for the whole head.

The published alternative (model type `global`). Codes enter as they are; colour sees the expression, and position
directly instead of a geometry feature. Softplus with beta 100 in the distance network, ReLU in the colour network.
"""

from dataclasses import dataclass

import torch
import torch.nn as nn
from jaxtyping import Float
from torch import Tensor

from mononphm_core.model.config import GlobalIdentityConfig
from mononphm_core.model.ensemble import softplus100
from mononphm_core.model.skip_mlp import Biases, SkipMLP


@dataclass(frozen=True)
class GlobalPerson:
    """Codes with all that does not depend on points worked out; one row per frame, since colour sees the expression."""

    anchors: Float[Tensor, "frames anchors 3"]
    geo: Biases
    app: Biases | None
    """None where colour was not asked for."""


class GlobalIdentity(nn.Module):
    """Signed distance and colour of canonical points for identity codes."""

    mean_anchors: Tensor

    def __init__(
        self, config: GlobalIdentityConfig, ambient: int, d_expression: int, mean_anchors: Float[Tensor, "anchors 3"]
    ) -> None:
        super().__init__()
        self.config = c = config
        self.register_buffer("mean_anchors", mean_anchors.float())
        self.geometry = SkipMLP(3 + ambient, c.d_geo, c.hidden, c.layers_geo, 1, softplus100)
        self.colour = SkipMLP(3 + ambient, c.d_app + d_expression, c.hidden, c.layers_app, 3, torch.relu)
        self.anchor_head = nn.Sequential(
            nn.Linear(c.d_geo, c.hidden_anchors),
            nn.ReLU(),
            nn.Linear(c.hidden_anchors, c.hidden_anchors),
            nn.ReLU(),
            nn.Linear(c.hidden_anchors, c.anchors * 3),
        )

    def anchors(self, z_geo: Float[Tensor, "people d_geo"]) -> Float[Tensor, "people anchors 3"]:
        """Canonical anchors of each person: here landmarks only, the field does not use them."""
        offsets: Tensor = self.anchor_head(z_geo)
        return self.mean_anchors + offsets.unflatten(1, (self.config.anchors, 3))

    def person(
        self,
        z_geo: Float[Tensor, "frames d_geo"],
        z_app: Float[Tensor, "frames d_app"] | None = None,
        z_exp: Float[Tensor, "frames d_exp"] | None = None,
    ) -> GlobalPerson:
        """Work out all that does not depend on points. Colours need `z_app` and `z_exp`."""
        app = None
        if z_app is not None and z_exp is not None:
            app = self.colour.folded(torch.cat([z_app, z_exp], 1))
        return GlobalPerson(self.anchors(z_geo), self.geometry.folded(z_geo), app)

    def forward(
        self, x_canonical: Float[Tensor, "frames points d_point"], person: GlobalPerson, colour: bool
    ) -> tuple[Float[Tensor, "frames points"], Float[Tensor, "frames points 3"] | None]:
        """Signed distance (negative inside) and, if asked, colour: -1 black, 1 white, unbounded."""
        sdf = self.geometry(x_canonical, person.geo)[..., 0]
        if not colour:
            return sdf, None
        assert person.app is not None, "colour was asked of a person without z_app"
        return sdf, self.colour(x_canonical, person.app)
