"""The leaves that the published optimisers move, and the optimisers: Adam, and sparse Adam for what a frame owns."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mononphm_core.geometry.rotations import so3_exp_clamped
from mononphm_core.model.head import HeadModel
from mononphm_core.rendering.published.fine import Placement
from mononphm_core.rendering.published.shading import white_light
from mononphm_core.tracking.published.configuration import GRADIENT_LIMIT
from mononphm_core.tracking.published.schedules import Rates

SHARED = ("z_geo", "z_app", "sh", "colour_matrix", "colour_offset")
OWNED = ("z_exp", "turn", "shift")
"""Tables with a row a frame."""
RATE = {
    "z_geo": "codes", "z_app": "codes", "colour_matrix": "codes", "colour_offset": "codes", "sh": "light",
    "z_exp": "expression", "turn": "rotation", "shift": "translation",
}  # fmt: skip
"""Which rate moves which leaf."""


@dataclass
class Leaves:
    """State of the optimisation. The head's size (`scale`) never gets a gradient there (quirk 10): it is 1."""

    z_geo: Float[Tensor, "1 d_geo"]
    z_app: Float[Tensor, "1 d_app"]
    z_exp: Float[Tensor, "frames d_exp"]
    turn: Float[Tensor, "frames 3"]
    """so(3) of the residual pose: tracking world -> posed head space."""
    shift: Float[Tensor, "frames 3"]
    sh: Float[Tensor, "9 3"]
    """Light, with the constants of rendering/published/shading.py."""
    colour_matrix: Float[Tensor, "3 3"]
    colour_offset: Float[Tensor, "1 3"]
    """The camera's colours: rgb @ matrix + offset, rows."""
    unit: float = 1.0
    """What z_geo and z_app are multiplied by before the model sees them; see `code_unit`."""

    @staticmethod
    def start(model: HeadModel, frames: int) -> "Leaves":
        """The mean head without expression in the first pose, under white light."""
        like = model.identity.mean_anchors
        c = model.config
        return Leaves(
            like.new_zeros(1, c.identity.d_geo), like.new_zeros(1, c.identity.d_app),
            like.new_zeros(frames, c.deformation.d_expression), like.new_zeros(frames, 3), like.new_zeros(frames, 3),
            white_light(like), torch.eye(3, dtype=like.dtype, device=like.device), like.new_zeros(1, 3),
            code_unit(model),
        )  # fmt: skip

    def geo(self) -> Float[Tensor, "1 d_geo"]:
        """The geometry code in the model's own units."""
        return self.unit * self.z_geo

    def app(self) -> Float[Tensor, "1 d_app"]:
        """The appearance code in the model's own units."""
        return self.unit * self.z_app

    def placement(self, frame: int, w2c: Float[Tensor, "4 4"]) -> Placement:
        """The residual pose of a frame, differentiable."""
        return Placement(so3_exp_clamped(self.turn[frame]), self.shift[frame], self.shift.new_ones(()), w2c[:3, :3])

    def corrected(self, rgb: Float[Tensor, "rays 3"]) -> Float[Tensor, "rays 3"]:
        """Rendered colours as this camera shows them."""
        return rgb @ self.colour_matrix + self.colour_offset


def code_unit(model: HeadModel) -> float:
    """The published rates and priors are made for codes of at most norm 1. Codes of a prior with a template have unit
    variance instead, so norm sqrt(d): either way a typical person gets norm 1 in the optimiser's units.
    """
    return 1.0 if model.template is None else math.sqrt(model.config.identity.d_geo)


class Optimiser:
    """One optimisation over some leaves, in place."""

    def __init__(self, leaves: Leaves, moving: tuple[str, ...], rates: Rates) -> None:
        self.leaves, self.moving = leaves, moving
        self.dense: dict[str, torch.optim.Adam] = {}
        self.sparse: dict[str, torch.optim.SparseAdam] = {}
        for name in moving:
            leaf = getattr(leaves, name).detach().clone().requires_grad_(True)
            setattr(leaves, name, leaf)
            rate = getattr(rates, RATE[name])
            if name in OWNED:
                self.sparse[name] = torch.optim.SparseAdam([leaf], lr=rate)
            else:
                self.dense[name] = torch.optim.Adam([leaf], lr=rate)

    def step(self, rows: tuple[int, ...], rates: Rates) -> None:
        """Clip, and take one step with the gradients in `.grad`. Only `rows` of the tables move, and their state."""
        for name in ("z_geo", "z_app"):
            if name in self.dense:
                torch.nn.utils.clip_grad_norm_([getattr(self.leaves, name)], GRADIENT_LIMIT)
        for name, optimiser in (*self.dense.items(), *self.sparse.items()):
            leaf: Tensor = getattr(self.leaves, name)
            if name in self.sparse and leaf.grad is not None:
                index = torch.tensor([sorted(rows)], device=leaf.device)
                leaf.grad = torch.sparse_coo_tensor(
                    index, leaf.grad[index[0]], leaf.shape, is_coalesced=True, check_invariants=False
                )
            optimiser.param_groups[0]["lr"] = getattr(rates, RATE[name])
            optimiser.step()
            leaf.grad = None

    def finite(self) -> bool:
        """Whether every leaf still holds numbers."""
        return all(math.isfinite(float(getattr(self.leaves, name).detach().sum())) for name in self.moving)

    def freeze(self) -> None:
        """End of the optimisation: leaves become plain values."""
        for name in self.moving:
            setattr(self.leaves, name, getattr(self.leaves, name).detach())
