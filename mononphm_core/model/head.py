"""The head model: deformation field and canonical ensemble as one field over posed space (MonoNPHM, Eq. 1-4)."""

from dataclasses import dataclass

import torch
import torch.nn as nn
from jaxtyping import Float
from torch import Tensor

from mononphm_core.model.config import GlobalIdentityConfig, ModelConfig
from mononphm_core.model.deformation import DeformationField
from mononphm_core.model.fast import FastField, fast_field, wants_no_graph
from mononphm_core.model.global_identity import GlobalIdentity, GlobalPerson
from mononphm_core.model.identity import IdentityDecoder, Person
from mononphm_core.model.skip_mlp import Biases
from mononphm_core.model.template import TemplateHead


@dataclass(frozen=True)
class Conditioned:
    """A person with an expression, ready to be asked: everything that is constant over points is worked out."""

    person: Person | GlobalPerson
    condition: Biases


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
        identity, deformation = config.identity, config.deformation
        self.identity: IdentityDecoder | GlobalIdentity
        if isinstance(identity, GlobalIdentityConfig):
            self.identity = GlobalIdentity(identity, deformation.ambient, deformation.d_expression, mean_anchors)
        else:
            self.identity = IdentityDecoder(identity, deformation.ambient, mean_anchors)
        self.deformation = DeformationField(deformation, identity.d_geo, identity.anchors, identity.d_global)
        self.template = template
        self.fast: FastField | None = None

    def compiled(self) -> "HeadModel":
        """This frozen model, answering by the compiled field wherever nothing wants a graph (`fast.py`)."""
        self.fast = fast_field(self)
        return self

    def ready(self) -> None:
        """Ask once, so that the first question of a user does not wait for machine code."""
        like = self.identity.mean_anchors
        codes = (self.config.identity.d_geo, self.config.deformation.d_expression, self.config.identity.d_app)
        with torch.no_grad():
            conditioned = self.condition(*(like.new_zeros(1, d) for d in codes))
            self.query(like.new_zeros(1, 1, 3), conditioned, gradient=True)

    def condition(
        self,
        z_geo: Float[Tensor, "people d_geo"],
        z_exp: Float[Tensor, "frames d_exp"],
        z_app: Float[Tensor, "people d_app"] | None = None,
    ) -> Conditioned:
        """Work out all that does not depend on points: once per frame (or per change of the codes).

        `people` is the number of frames, or 1: one person in every frame, whose networks are folded once.
        """
        frames = len(z_exp)
        everywhere = z_geo.expand(frames, -1)
        person: Person | GlobalPerson
        if isinstance(self.identity, GlobalIdentity):
            person = self.identity.person(everywhere, None if z_app is None else z_app.expand(frames, -1), z_exp)
        else:
            person = self.identity.person(z_geo, z_app)
            if len(z_geo) < frames:
                person = person.repeated(frames)
        return Conditioned(person, self.deformation.condition(everywhere, person.anchors, z_exp))

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
        if self.fast is not None and wants_no_graph(x_posed, conditioned, colour=False):
            return self.fast(x_posed, conditioned, (False, False))[0]
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
        if self.fast is not None and not create_graph and wants_no_graph(x_posed, conditioned, colour):
            return FieldSample(*self.fast(x_posed, conditioned, (colour, gradient)))
        if not gradient:
            distance, c = self.identity(self.to_canonical(x_posed, conditioned), conditioned.person, colour)
            return FieldSample(distance, c, None)
        with torch.enable_grad():
            x = x_posed if x_posed.requires_grad else x_posed.detach().requires_grad_(True)
            distance, c = self.identity(self.to_canonical(x, conditioned), conditioned.person, colour)
            (g,) = torch.autograd.grad(distance.sum(), x, create_graph=create_graph, retain_graph=True)
        return FieldSample(distance, c, g)
