"""What a prior's field gets wrong on heads whose true surface is known. Millimetres at 250 a head unit."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from mononphm_core.model.config import ModelConfig
from mononphm_core.model.head import Conditioned, HeadModel
from mononphm_core.types import MM_PER_UNIT, HeadMesh

CHUNK = 4000


def surface_errors(
    model: HeadModel,
    conditioned: Conditioned,
    x: Float[Tensor, "people points 3"],
    normals: Float[Tensor, "people points 3"],
    posed: bool,
) -> tuple[Float[Tensor, "people points"], Float[Tensor, "people points"]]:
    """(mm from each true surface point to the model's zero set to first order, |sdf| / |grad sdf|; cosine of normals).

    `posed`: the points are in posed space; else canonical, and the deformation field is not asked.
    """
    sdf, gradient = field(model, conditioned, x, posed)
    length = gradient.norm(dim=-1)
    return sdf.abs() / length * MM_PER_UNIT, (gradient * normals).sum(-1) / length


def field(
    model: HeadModel, conditioned: Conditioned, x: Float[Tensor, "people points 3"], posed: bool
) -> tuple[Float[Tensor, "people points"], Float[Tensor, "people points 3"]]:
    """Signed distance and its gradient with respect to the points given."""
    values, gradients = [], []
    for part in x.split(CHUNK, 1):
        part = part.detach().requires_grad_(True)
        inside = (
            model.to_canonical(part, conditioned)
            if posed
            else torch.nn.functional.pad(part, (0, model.config.deformation.ambient))
        )
        sdf, _ = model.identity(inside, conditioned.person, colour=False)
        (gradient,) = torch.autograd.grad(sdf.sum(), part)
        values.append(sdf.detach())
        gradients.append(gradient)
    return torch.cat(values, 1), torch.cat(gradients, 1)


def open_lengths_mm(sdf: Float[Tensor, "people lines samples"], length_mm: float) -> Float[Tensor, "people lines"]:
    """How much of each straight line is air; its samples are evenly spaced over `length_mm`."""
    return (sdf > 0).float().mean(-1) * length_mm


def colour_psnr_db(found: Float[Tensor, "people points 3"], true: Float[Tensor, "people points 3"]) -> float:
    """Of colours in the decoder's range [-1, 1], clipped to it; a peak of 1 after the map to [0, 1]."""
    error = (found.clamp(-1, 1) - true) / 2
    return float(-10 * torch.log10(error.square().mean()))


def large_components(mesh: HeadMesh, least: int = 1) -> int:
    """Connected parts of a mesh with at least so many triangles."""
    edges = np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    count = len(mesh.vertices)
    joined = coo_matrix((np.ones(len(edges), np.int8), edges.T), shape=(count, count))
    _, part = connected_components(joined, directed=False)
    return int((np.bincount(part[mesh.faces[:, 0]]) >= least).sum())


def inverse_deformation(
    model: HeadModel,
    conditioned: Conditioned,
    x_canonical: Float[Tensor, "people points 3"],
    start: Float[Tensor, "people points 3"],
    iterations: int = 30,
    tolerance_mm: float = 0.05,
) -> tuple[Float[Tensor, "people points 3"], Bool[Tensor, "people points"]]:
    """x_posed with x_posed + offset(x_posed) = x_canonical by fixed-point steps from `start`; which arrived."""
    x = start
    with torch.no_grad():
        for _ in range(iterations):
            miss = model.to_canonical(x, conditioned)[..., :3] - x_canonical
            x = x - miss
        miss = model.to_canonical(x, conditioned)[..., :3] - x_canonical
    return x, miss.norm(dim=-1) < tolerance_mm / MM_PER_UNIT


def multiplications(config: ModelConfig, colour: bool) -> int:
    """Multiply-adds of one query (posed point -> distance, and colour) with codes folded into biases."""
    c, d = config.ensemble, config.deformation
    point = 3 + d.ambient
    asked = c.neighbours + int(c.global_node)
    rows = point * c.hidden_geo + (c.layers_geo - 1) * c.hidden_geo**2 + c.hidden_geo
    rows += 9 if c.placement == "linear" else 0
    if colour:
        live = c.bottleneck + (point * (1 + 2 * c.colour_bands) if c.colour_bands else 0)
        rows += c.hidden_geo * c.bottleneck + c.bottleneck**2
        rows += live * c.hidden_app + (c.layers_app - 1) * c.hidden_app**2 + 3 * c.hidden_app
    d_point = 3 * (1 + 2 * d.bands)
    deformation = 2 * d_point * d.hidden + (d.layers - 1) * d.hidden**2 + (3 + d.ambient) * d.hidden
    return asked * rows + deformation


def mean_by_region(
    errors_mm: Float[Tensor, "people points"], regions: dict[str, Bool[np.ndarray, "people points"]]
) -> dict[str, float]:
    """Mean over the points of each region, people weighted by their points."""
    return {name: float(errors_mm[torch.from_numpy(chosen)].mean()) for name, chosen in regions.items()}
