"""Rotations by their logarithm, against the matrix exponential."""

import math

import pytest
import torch

from mononphm_core.geometry.rotations import angle_between_deg, skew, so3_exp, so3_log


def logs(angle: float, count: int = 20) -> torch.Tensor:
    """Random axes times one angle."""
    axes = torch.randn(count, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return angle * axes / axes.norm(dim=-1, keepdim=True)


ANGLES = [0.0, 1e-12, 1e-5, 1e-3 - 1e-9, 1e-3 + 1e-9, 0.1, 1.0, 3.0]
"""Including both sides of the series' border."""


@pytest.mark.parametrize("angle", ANGLES)
def test_the_exponential_is_the_matrix_exponential_and_a_rotation(angle):
    """Rodrigues' formula is the series in closed form; its result is orthonormal and keeps handedness."""
    r = so3_exp(logs(angle))
    torch.testing.assert_close(r, torch.linalg.matrix_exp(skew(logs(angle))), rtol=0, atol=1e-13)
    torch.testing.assert_close(r @ r.mT, torch.eye(3, dtype=r.dtype).expand_as(r), rtol=0, atol=1e-13)
    assert torch.allclose(torch.linalg.det(r), torch.ones(20, dtype=r.dtype))


@pytest.mark.parametrize("angle", ANGLES)
def test_the_logarithm_undoes_the_exponential(angle):
    """Below pi, near zero included."""
    torch.testing.assert_close(so3_log(so3_exp(logs(angle))), logs(angle), rtol=0, atol=2e-12)


def test_the_exponential_is_smooth_at_zero():
    """Tracking starts at turn = 0: the gradient there is the generators', not NaN."""
    j = torch.autograd.functional.jacobian(so3_exp, torch.zeros(3, dtype=torch.float64))
    for axis in range(3):
        torch.testing.assert_close(j[..., axis], skew(torch.eye(3, dtype=torch.float64)[axis]))


def test_skew_is_the_cross_product():
    """[v]x u = v x u."""
    v, u = torch.tensor([0.3, -2.0, 1.0]), torch.tensor([1.0, 0.5, -4.0])
    torch.testing.assert_close(skew(v) @ u, torch.linalg.cross(v, u))


def test_the_angle_between_rotations_does_not_care_where_both_were_turned():
    """A distance of rotations: the turn from a to b, in degrees, unchanged by a common turn."""
    a, common = so3_exp(logs(0.7)), so3_exp(logs(1.9).flip(0))
    b = a @ so3_exp(logs(math.radians(25.0)).roll(1, 0))
    torch.testing.assert_close(angle_between_deg(a, b), torch.full((20,), 25.0, dtype=a.dtype))
    torch.testing.assert_close(angle_between_deg(common @ a, common @ b), angle_between_deg(a, b))
