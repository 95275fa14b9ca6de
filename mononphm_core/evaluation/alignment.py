"""One similarity (7 degrees of freedom) that lays delivered surfaces on true points.

    x_true ~ scale * R @ x + t,    minimising   sum_i w_i [ (n_i . r_i)^2 + share * |r_i|^2 ],   r_i = moved(p_i) - q_i

p_i is the delivered surface's nearest point to the true point q_i, n_i its normal there, w_i Huber's weight; points
whose nearest point is a border of the delivered surface do not pull, for there the surface ends before the truth does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mononphm_core.evaluation.surfaces import Surface

HUBER_MM = (12.0, 6.0, 3.0)
"""Widths, each for `STEPS_A_WIDTH` steps; the last one stays."""
STEPS_A_WIDTH = 4
POINT_SHARE = (0.3, 0.05)
"""Weight of the distance itself beside the one along the normal, in the first steps and after."""
HEAD_MM = 80.0
"""Lever arm that turns an angle into a length for the stopping rule."""
STILL_MM = 4e-3


@dataclass(frozen=True)
class Similarity:
    """x -> scale * R @ x + t."""

    scale: float
    rotation: Float[np.ndarray, "3 3"]
    translation: Float[np.ndarray, "3"]

    def __call__(self, x: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "points 3"]:
        return self.scale * x @ self.rotation.T + self.translation

    def back(self, x: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "points 3"]:
        """The inverse."""
        return (x - self.translation) @ self.rotation / self.scale


def rotation_of(log: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """Rodrigues' formula in double precision."""
    angle = float(np.linalg.norm(log))
    if angle < 1e-15:
        return np.eye(3)
    x, y, z = log / angle
    k = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def angle_deg(rotation: Float[np.ndarray, "3 3"]) -> float:
    """Angle of a rotation, degrees, exact near zero: |R - I| = 2 sqrt(2) sin(angle / 2)."""
    return float(np.degrees(2 * np.arcsin(min(float(np.linalg.norm(rotation - np.eye(3))) / np.sqrt(8), 1.0))))


def align(
    truth: Sequence[Float[np.ndarray, "_ 3"]],
    surfaces: Sequence[Surface],
    start: Similarity,
    steps: int = 40,
    huber_mm: Sequence[float] = HUBER_MM,
) -> Similarity:
    """The similarity of all pairs together, by Gauss-Newton on nearest points, from `start`."""
    pose = start
    for step in range(steps):
        width = huber_mm[min(step // STEPS_A_WIDTH, len(huber_mm) - 1)]
        share = POINT_SHARE[0] if step < STEPS_A_WIDTH else POINT_SHARE[1]
        pose, moved = _step(truth, surfaces, pose, width, share)
        if step >= STEPS_A_WIDTH * (len(huber_mm) - 1) and moved < STILL_MM:
            break
    return pose


def _step(
    truth: Sequence[Float[np.ndarray, "_ 3"]],
    surfaces: Sequence[Surface],
    pose: Similarity,
    width: float,
    share: float,
) -> tuple[Similarity, float]:
    """One Gauss-Newton step and the length it moved a head by."""
    centre = np.mean([points.mean(0) for points in truth], 0)
    hessian, gradient = np.zeros((7, 7)), np.zeros(7)
    for points, surface in zip(truth, surfaces, strict=True):
        near = surface.nearest(pose.back(points), look_again=False)
        moved = pose(near.points)
        normal = surface.normal_at(near.faces, near.barycentric) @ pose.rotation.T
        residual = moved - points
        weight = np.minimum(1.0, width / np.maximum(np.linalg.norm(residual, axis=-1), 1e-9))
        if near.on_border.mean() < 0.7:
            weight = np.where(near.on_border, 0.0, weight)
        jacobian = _jacobian(moved - centre)
        along = np.einsum("qk,qkj->qj", normal, jacobian)
        gap = (normal * residual).sum(-1)
        hessian += (along * weight[:, None]).T @ along
        hessian += share * np.einsum("qki,qkj,q->ij", jacobian, jacobian, weight, optimize=True)
        gradient += (along * weight[:, None]).T @ gap
        gradient += share * np.einsum("qki,qk,q->i", jacobian, residual, weight, optimize=True)
    change = -np.linalg.solve(hessian + np.diag(1e-9 * np.diag(hessian) + 1e-12), gradient)
    turn, shift, grow = change[:3], change[3:6], float(np.clip(change[6], -0.25, 0.25))
    turn = turn * min(1.0, 0.3 / max(float(np.linalg.norm(turn)), 1e-12))
    rotation, scale = rotation_of(turn), float(np.exp(grow))
    translation = scale * rotation @ (pose.translation - centre) + centre + shift
    length = float(np.linalg.norm(turn) * HEAD_MM + np.linalg.norm(shift) + abs(grow) * HEAD_MM)
    return Similarity(pose.scale * scale, rotation @ pose.rotation, translation), length


def _jacobian(x: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "points 3 7"]:
    """Of turn, shift and log-scale about the origin of x."""
    jacobian = np.zeros((len(x), 3, 7))
    jacobian[:, 0, 1], jacobian[:, 0, 2] = x[:, 2], -x[:, 1]
    jacobian[:, 1, 0], jacobian[:, 1, 2] = -x[:, 2], x[:, 0]
    jacobian[:, 2, 0], jacobian[:, 2, 1] = x[:, 1], -x[:, 0]
    jacobian[:, :, 3:6] = np.eye(3)
    jacobian[:, :, 6] = x
    return jacobian
