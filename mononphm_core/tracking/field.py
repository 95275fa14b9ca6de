"""The head model with codes filled in, as the three functions that rendering asks: distance, colour, normal."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mononphm_core.model.head import Conditioned, HeadModel


@dataclass(frozen=True)
class PosedHeads:
    """One person in several expressions. All points are in each frame's posed head space."""

    model: HeadModel
    conditioned: Conditioned

    @staticmethod
    def of(
        model: HeadModel,
        z_geo: Float[Tensor, "d_geo"],
        z_app: Float[Tensor, "d_app"],
        z_exp: Float[Tensor, "frames d_exp"],
    ) -> "PosedHeads":
        """Work out everything that is constant over points, once."""
        return PosedHeads(model, model.condition(z_geo[None], z_exp, z_app[None]))

    def distance(self, x: Float[Tensor, "frames points 3"]) -> Float[Tensor, "frames points"]:
        """Signed distance."""
        return self.model.sdf(x, self.conditioned)

    def colour(self, x: Float[Tensor, "frames points 3"]) -> Float[Tensor, "frames points 3"]:
        """Albedo in the decoder's range."""
        sample = self.model.query(x, self.conditioned, colour=True)
        assert sample.colour is not None
        return sample.colour

    def normal(self, x: Float[Tensor, "frames points 3"]) -> Float[Tensor, "frames points 3"]:
        """Unit outward normals, without gradient."""
        with torch.no_grad():
            gradient = self.model.query(x, self.conditioned, colour=False, gradient=True).gradient
        assert gradient is not None
        return torch.nn.functional.normalize(gradient, dim=-1, eps=1e-8)
