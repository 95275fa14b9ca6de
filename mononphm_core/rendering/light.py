"""Order-2 spherical harmonics of the irradiance (Ramamoorthi and Hanrahan 2001), and albedos lit in linear light."""

import torch
from jaxtyping import Float
from torch import Tensor

GAMMA = 2.2
"""sRGB is treated as a pure power; the difference to the exact curve is below the noise of a photograph."""


def sh_basis(normal: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 9"]:
    """(1, x, y, z, xy, xz, yz, x^2 - y^2, 3z^2 - 1) of unit normals: the published order, without its constants."""
    x, y, z = normal.unbind(-1)
    return torch.stack([torch.ones_like(x), x, y, z, x * y, x * z, y * z, x * x - y * y, 3 * z * z - 1], -1)


def irradiance(normal: Float[Tensor, "*batch 3"], light: Float[Tensor, "9 3"]) -> Float[Tensor, "*batch 3"]:
    """Light arriving at a surface of this orientation, per channel; at least a fiftieth: shadow keeps a gradient."""
    return (sh_basis(normal) @ light).clamp_min(0.02)


def to_linear(albedo: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """From the decoder's [-1, 1] to linear reflectance [0, 1.5]."""
    return ((albedo + 1) / 2).clamp(1e-3, 1.2) ** GAMMA


def lit(
    albedo: Float[Tensor, "*batch 3"], normal: Float[Tensor, "*batch 3"], light: Float[Tensor, "9 3"]
) -> Float[Tensor, "*batch 3"]:
    """sRGB in [0, ~1] of a diffuse surface. Normal and light in the same frame."""
    return (to_linear(albedo) * irradiance(normal, light)).clamp_min(1e-4) ** (1 / GAMMA)


def fit_light(
    albedo: Float[Tensor, "points 3"],
    normal: Float[Tensor, "points 3"],
    srgb: Float[Tensor, "points 3"],
    weight: Float[Tensor, "points"],
    damping: float = 0.03,
) -> Float[Tensor, "9 3"]:
    """Light that best explains the colours (weighted linear least squares in linear light, per channel).

    `damping` pulls the directional coefficients towards zero, relative to the strength of the data.
    """
    basis = sh_basis(normal)
    target = srgb.clamp_min(1e-3) ** GAMMA
    reflect = to_linear(albedo)
    columns = []
    for channel in range(3):
        a = basis * reflect[:, channel : channel + 1]
        gram = (a * weight[:, None]).T @ a
        ridge = torch.diag(torch.tensor([0.01] + [1.0] * 8, dtype=a.dtype, device=a.device)) * damping * gram[0, 0]
        columns.append(torch.linalg.solve(gram + ridge, (a * weight[:, None]).T @ target[:, channel]))
    return torch.stack(columns, -1)
