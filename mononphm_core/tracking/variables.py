"""The leaves that the optimiser moves, and what they mean."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mononphm_core.geometry.rotations import so3_exp
from mononphm_core.tracking.landmark_fit import LandmarkFit
from mononphm_core.types import HeadPose, IdentityCode


@dataclass
class Variables:
    """State of the optimisation. Poses map posed head points to the camera: x_camera = exp(turn) base x_posed + shift."""

    z_geo: Float[Tensor, "d_geo"]
    z_app: Float[Tensor, "d_app"]
    z_exp: Float[Tensor, "frames d_exp"]
    base: Float[Tensor, "frames 3 3"]
    """Rotations that `turn` is measured from; fixed."""
    turn: Float[Tensor, "frames 3"]
    """so(3), radians."""
    shift: Float[Tensor, "frames 3"]
    """Head units."""
    light: Float[Tensor, "9 3"]
    """Irradiance of the clip, camera frame; found in closed form, not by steps."""

    @staticmethod
    def start(fit: LandmarkFit, d_app: int, device: torch.device) -> "Variables":
        """From the landmark fit; mean complexion, white light from in front."""

        def leaf(values: object) -> Tensor:
            return torch.as_tensor(values, dtype=torch.float32, device=device)

        light = torch.zeros(9, 3, device=device)
        light[0] = 1.0
        frames = len(fit.rotation)
        return Variables(
            leaf(fit.z_geo), torch.zeros(d_app, device=device), leaf(fit.z_exp), leaf(fit.rotation),
            torch.zeros(frames, 3, device=device), leaf(fit.translation), light,
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
