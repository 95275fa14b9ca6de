"""The leaves that the optimiser moves, and what they mean."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mononphm_core.geometry.rotations import so3_exp
from mononphm_core.model.template import TemplateHead
from mononphm_core.tracking.landmark_fit import LandmarkFit
from mononphm_core.types import HeadPose, IdentityCode


@dataclass
class Variables:
    """State of the optimisation. Poses map the head to the camera: x_camera = exp(turn) base x_posed + shift."""

    geo_span: Float[Tensor, "d_geo directions_geo"]
    app_span: Float[Tensor, "d_app directions_app"]
    """Codes of plausible people and complexions (see TemplateHead); fixed."""
    u_geo: Float[Tensor, "directions_geo"]
    u_app: Float[Tensor, "directions_app"]
    """Identity in those directions: standard normal a priori."""
    z_exp: Float[Tensor, "frames d_exp"]
    base: Float[Tensor, "frames 3 3"]
    """Rotations that `turn` is measured from; fixed."""
    turn: Float[Tensor, "frames 3"]
    """so(3), radians."""
    shift: Float[Tensor, "frames 3"]
    """Head units."""
    light: Float[Tensor, "9 3"]
    """Irradiance of the clip, camera frame; found in closed form, not by steps."""

    @property
    def z_geo(self) -> Float[Tensor, "d_geo"]:
        """The geometry code."""
        return self.geo_span @ self.u_geo

    @property
    def z_app(self) -> Float[Tensor, "d_app"]:
        """The appearance code."""
        return self.app_span @ self.u_app

    @staticmethod
    def start(fit: LandmarkFit, template: TemplateHead) -> "Variables":
        """From the landmark fit; mean complexion, white light from in front."""
        span = template.geo_span

        def leaf(values: object) -> Tensor:
            return torch.as_tensor(values, dtype=torch.float32, device=span.device)

        light = span.new_zeros(9, 3)
        light[0] = 1.0
        return Variables(
            span, template.app_span, coordinates(span, leaf(fit.z_geo)), span.new_zeros(template.app_span.shape[1]),
            leaf(fit.z_exp), leaf(fit.rotation), span.new_zeros(len(fit.rotation), 3), leaf(fit.translation), light,
        )  # fmt: skip

    def rotation(self) -> Float[Tensor, "frames 3 3"]:
        """Posed head space -> camera."""
        return so3_exp(self.turn) @ self.base

    def poses(self) -> HeadPose:
        """World (= camera) -> posed head space, as the rest of the program says it."""
        with torch.no_grad():
            inverse = self.rotation().transpose(1, 2)
            return HeadPose(inverse, -(inverse @ self.shift[..., None])[..., 0], self.shift.new_ones(()))

    def identity(self) -> IdentityCode:
        """The person, frozen."""
        return IdentityCode(self.z_geo.detach().clone(), self.z_app.detach().clone())


def coordinates(span: Float[Tensor, "d directions"], z: Float[Tensor, "d"]) -> Float[Tensor, "directions"]:
    """u with span @ u nearest to z (least squares); exact for a z that came from the span."""
    return torch.linalg.lstsq(span.double(), z.double()[:, None]).solution[:, 0].float()
