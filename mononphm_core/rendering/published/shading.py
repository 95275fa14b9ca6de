"""Light of the published program: order-2 spherical harmonics with their constants, in the camera's OpenGL axes."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from mononphm_core.rendering.light import sh_basis

_A = 2 * math.pi / 3 * math.sqrt(3 / (4 * math.pi))
_B = math.pi / 4 * 3 * math.sqrt(5 / (12 * math.pi))
_C = math.pi / 4 * 0.5 * math.sqrt(5 / (4 * math.pi))
FACTORS = (1 / math.sqrt(4 * math.pi), _A, _A, _A, _B, _B, _B, _B / 2, _C)
"""Of the nine polynomials in the order of `sh_basis`: basis normalisation times the clamped cosine's (Ramamoorthi and
Hanrahan 2001)."""


def white_light(like: Tensor) -> Float[Tensor, "9 3"]:
    """Coefficients whose shading is 1 for every normal: where tracking starts."""
    sh = like.new_zeros(9, 3)
    sh[0] = math.sqrt(4 * math.pi)
    return sh


def shading(normal: Float[Tensor, "*batch 3"], sh: Float[Tensor, "9 3"]) -> Float[Tensor, "*batch 3"]:
    """sum_k sh_k FACTORS_k Y_k(normal), per channel. Normals are unit, camera frame: x right, y up, z to the camera."""
    factors = torch.tensor(FACTORS, dtype=sh.dtype, device=sh.device)
    return (sh_basis(normal) * factors) @ sh


def as_irradiance(sh: Float[Tensor, "9 3"]) -> Float[Tensor, "9 3"]:
    """The same light over `sh_basis` without constants and in OpenCV axes (y and z change sign), as the rest of the
    program writes light. It multiplies sRGB, where ours multiplies linear light.
    """
    factors = torch.tensor(FACTORS, dtype=sh.dtype, device=sh.device)
    signs = sh.new_tensor([1, 1, -1, -1, -1, -1, 1, 1, 1])
    return sh * (factors * signs)[:, None]
