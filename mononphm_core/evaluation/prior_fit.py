"""Codes of a head from points on its surface: how a prior is asked what it can express.

Two steps each: landmarks through the model's linear template (ridge regression), then Adam on the codes against the
field itself, with signed distances known on the surface and a little off it along the normals. Weights never move.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mononphm_core.model.head import HeadModel
from mononphm_core.types import MM_PER_UNIT

OFFSET_MM = 0.8
"""Largest displacement of a point off the surface."""
PRIOR = 3e-5
"""Of the mean square of the codes against the mean absolute distance in head units."""
LANDMARK_NOISE_MM = 1.0


@dataclass(frozen=True)
class SurfacePoints:
    """Points of several scans, head units; canonical or posed as the caller says."""

    x: Float[Tensor, "people points 3"]
    normals: Float[Tensor, "people points 3"]
    """Unit, outwards."""
    landmarks: Float[Tensor, "people 68 3"]
    """iBUG-68 with the 3-D jaw line."""


def identity_from_landmarks(model: HeadModel, landmarks: Float[Tensor, "people 68 3"]) -> Float[Tensor, "people d_geo"]:
    """argmin_z |J z - (landmarks - mean)|^2 / noise^2 + |z|^2, canonical frame."""
    template = model.template
    assert template is not None
    jacobian = template.identity_jacobian("ibug68", model.config.ensemble.nodes).flatten(0, 1)
    return _ridge(jacobian, (landmarks - template.mean[template.rows("ibug68")]).flatten(1), 1.0)


def expression_from_landmarks(
    model: HeadModel, z_geo: Float[Tensor, "people d_geo"], landmarks_posed: Float[Tensor, "people 68 3"]
) -> Float[Tensor, "people d_exp"]:
    """The same for z_exp with the identity known; weights are small and rarely negative."""
    template = model.template
    assert template is not None
    rows = template.rows("ibug68")
    still = template.posed(z_geo, z_geo.new_zeros(len(z_geo), template.expression_basis.shape[-1]), "ibug68")
    jacobian = template.expression_basis[rows].flatten(0, 1)
    return _ridge(jacobian, (landmarks_posed - still).flatten(1), 0.2).clamp(0.0, 1.0)


def fit_identity(model: HeadModel, scan: SurfacePoints, steps: int, points: int = 800) -> Float[Tensor, "people d_geo"]:
    """Codes of canonical scans. All parts of the code are free."""
    z = identity_from_landmarks(model, scan.landmarks).requires_grad_(True)

    def loss(x: Tensor, sdf: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(x, (0, model.config.deformation.ambient))
        found, _ = model.identity(padded, model.identity.person(z), colour=False)
        return (found - sdf).abs().mean() + PRIOR * z.square().mean()

    _descend(z, scan, loss, steps, points, lr=0.08)
    return z.detach()


def fit_expression(
    model: HeadModel, z_geo: Float[Tensor, "people d_geo"], scan_posed: SurfacePoints, steps: int, points: int = 800
) -> Float[Tensor, "people d_exp"]:
    """Expression weights of posed scans of known people, each in [0, 1]."""
    z = expression_from_landmarks(model, z_geo, scan_posed.landmarks).requires_grad_(True)

    def loss(x: Tensor, sdf: Tensor) -> Tensor:
        found = model.sdf(x, model.condition(z_geo, z))
        return (found - sdf).abs().mean() + PRIOR * z.abs().mean()

    _descend(z, scan_posed, loss, steps, points, lr=0.03, low=0.0, high=1.0)
    return z.detach()


def fit_appearance(
    model: HeadModel,
    z_geo: Float[Tensor, "people d_geo"],
    x_canonical: Float[Tensor, "people points 3"],
    colour: Float[Tensor, "people points 3"],
    steps: int,
    points: int = 500,
) -> Float[Tensor, "people d_app"]:
    """Colour codes of known heads from coloured surface points (decoder's range [-1, 1])."""
    z = z_geo.new_zeros(len(z_geo), model.config.identity.d_app).requires_grad_(True)
    draw = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam([z], lr=0.1)
    for step in range(steps):
        _anneal(optimiser, 0.1, step, steps)
        rows = torch.randint(x_canonical.shape[1], (points,), generator=draw)
        padded = torch.nn.functional.pad(x_canonical[:, rows], (0, model.config.deformation.ambient))
        _, found = model.identity(padded, model.identity.person(z_geo, z), colour=True)
        assert found is not None
        value = (found - colour[:, rows]).abs().mean() + 30 * PRIOR * z.square().mean()
        (z.grad,) = torch.autograd.grad(value, z)
        optimiser.step()
    return z.detach()


def _descend(
    z: Tensor,
    scan: SurfacePoints,
    loss: Callable[[Tensor, Tensor], Tensor],
    steps: int,
    points: int,
    lr: float,
    low: float = -math.inf,
    high: float = math.inf,
) -> None:
    """Adam with a cosine schedule; half of the points on the surface, half off it."""
    draw = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam([z], lr=lr)
    for step in range(steps):
        _anneal(optimiser, lr, step, steps)
        rows = torch.randint(scan.x.shape[1], (points,), generator=draw)
        off = (2 * torch.rand(points, generator=draw) - 1) * OFFSET_MM / MM_PER_UNIT
        off[::2] = 0.0
        x = scan.x[:, rows] + off[:, None] * scan.normals[:, rows]
        (z.grad,) = torch.autograd.grad(loss(x, off.expand(len(x), -1)), z)
        optimiser.step()
        with torch.no_grad():
            z.clamp_(low, high)


def _anneal(optimiser: torch.optim.Optimizer, lr: float, step: int, steps: int) -> None:
    for group in optimiser.param_groups:
        group["lr"] = 0.02 * lr + 0.98 * lr * 0.5 * (1 + math.cos(math.pi * step / steps))


def _ridge(
    jacobian: Float[Tensor, "values d"], target: Float[Tensor, "people values"], deviation: float
) -> Float[Tensor, "people d"]:
    """Most probable codes of standard deviation `deviation` for landmarks with `LANDMARK_NOISE_MM`."""
    noise = (LANDMARK_NOISE_MM / MM_PER_UNIT / deviation) ** 2
    small = jacobian @ jacobian.T + noise * torch.eye(len(jacobian), dtype=jacobian.dtype)
    return torch.linalg.solve(small, target.T).T @ jacobian
