"""The head model: deformation field and canonical ensemble as one field over posed space (MonoNPHM, Eq. 1-4)."""

from dataclasses import dataclass

import torch
import torch.nn as nn
from jaxtyping import Float
from torch import Tensor

from mononphm_core.model.config import ModelConfig
from mononphm_core.model.deformation import DeformationField
from mononphm_core.model.identity import IdentityDecoder, Person
from mononphm_core.model.template import TemplateHead


@dataclass(frozen=True)
class Conditioned:
    """A person with an expression, ready to be asked: everything that is constant over points is worked out."""

    person: Person
    condition: tuple[Float[Tensor, "frames hidden"], Float[Tensor, "frames hidden"]]


@dataclass(frozen=True)
class FieldSample:
    """What the field says at points of posed space. All lengths in head units."""

    sdf: Float[Tensor, "frames points"]
    """Negative inside."""
    colour: Float[Tensor, "frames points 3"] | None
    """Albedo in the decoder's range: -1 black, 1 white."""
    gradient: Float[Tensor, "frames points 3"] | None
    """d sdf / d x_posed, not normalised; points outwards."""


class HeadModel(nn.Module):
    """A neural parametric head. `template` is the linear part of the prior that knows where named skin points are."""

    def __init__(
        self, config: ModelConfig, mean_anchors: Float[Tensor, "anchors 3"], template: TemplateHead | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.identity = IdentityDecoder(config.identity, config.deformation.ambient, mean_anchors)
        self.deformation = DeformationField(config.deformation, config.identity.d_geo, config.identity.anchors)
        self.template = template

    def condition(
        self,
        z_geo: Float[Tensor, "frames d_geo"],
        z_exp: Float[Tensor, "frames d_exp"],
        z_app: Float[Tensor, "frames d_app"] | None = None,
    ) -> Conditioned:
        """Work out all that does not depend on points: once per frame (or per change of the codes)."""
        person = self.identity.person(z_geo, z_app)
        return Conditioned(person, self.deformation.condition(z_geo, person.anchors, z_exp))

    def to_canonical(
        self, x_posed: Float[Tensor, "frames points 3"], conditioned: Conditioned
    ) -> Float[Tensor, "frames points d_point"]:
        """Where posed points lie on the canonical head, ambient coordinates after the three spatial ones."""
        offset, ambient = self.deformation(x_posed, conditioned.condition)
        return torch.cat([x_posed + offset, ambient], -1)

    def sdf(
        self, x_posed: Float[Tensor, "frames points 3"], conditioned: Conditioned
    ) -> Float[Tensor, "frames points"]:
        """Signed distance alone."""
        distance, _ = self.identity(self.to_canonical(x_posed, conditioned), conditioned.person, colour=False)
        return distance

    def query(
        self,
        x_posed: Float[Tensor, "frames points 3"],
        conditioned: Conditioned,
        colour: bool = True,
        gradient: bool = False,
        create_graph: bool = False,
    ) -> FieldSample:
        """Signed distance, colour and spatial gradient.

        `create_graph` keeps the gradient differentiable in codes and points (second order).
        """
        if not gradient:
            distance, c = self.identity(self.to_canonical(x_posed, conditioned), conditioned.person, colour)
            return FieldSample(distance, c, None)
        with torch.enable_grad():
            x = x_posed if x_posed.requires_grad else x_posed.detach().requires_grad_(True)
            distance, c = self.identity(self.to_canonical(x, conditioned), conditioned.person, colour)
            (g,) = torch.autograd.grad(distance.sum(), x, create_graph=create_graph, retain_graph=True)
        return FieldSample(distance, c, g)
