"""Points seen by a camera, with the derivatives that Gauss-Newton needs, all as little 3-vectors per point.

A parameter moves a point of the posed head by v in head space (identity, expression) or in camera space (turn, shift;
the focal length acts like a sideways move). An error e in pixels with inverse variance w then gives, with
P = d pixel / d x_camera,

    M = P^T w P (camera space),    b = P^T w e,    H += v^T M v',    g += v^T b.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mononphm_core.tracking.arrow import Arrow
from mononphm_core.tracking.template_points import Points

NEAREST = 0.05
"""Head units; points are never taken to be closer to the camera."""
POSE = 6
"""Own parameters of a frame before its expression: turn (so(3), camera frame), shift."""


def projected(x_camera: Float[np.ndarray, "*batch 3"], k: Float[np.ndarray, "4"]) -> Float[np.ndarray, "*batch 2"]:
    """Pixels; k = fx, fy, cx, cy."""
    pixels: np.ndarray = x_camera[..., :2] / np.maximum(x_camera[..., 2:], NEAREST) * k[:2] + k[2:]
    return pixels


def projection_slope(
    x_camera: Float[np.ndarray, "*batch 3"], k: Float[np.ndarray, "4"]
) -> Float[np.ndarray, "*batch 2 3"]:
    """P = d pixel / d x_camera."""
    x, y, z = np.moveaxis(x_camera, -1, 0)
    z = np.maximum(z, NEAREST)
    p = np.zeros((*x.shape, 2, 3))
    p[..., 0, 0], p[..., 0, 2] = k[0] / z, -k[0] * x / z**2
    p[..., 1, 1], p[..., 1, 2] = k[1] / z, -k[1] * y / z**2
    return p


@dataclass(frozen=True)
class Seen:
    """Points of one frame and how strongly their errors pull, camera frame."""

    points: Points
    x_camera: Float[np.ndarray, "points 3"]
    metric: Float[np.ndarray, "points 3 3"]
    """M above."""
    pull: Float[np.ndarray, "points 3"]
    """b above."""
    shifts: float = 1.0
    """1 for places; 0 for differences of places, which a shift of the head leaves alone (but for a share of shift over
    distance, which is neglected)."""


def add_frame(
    to: Arrow, frame: int, seen: Seen, r: Float[np.ndarray, "3 3"], t: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "points 3 3"]:
    """Add these points' errors to the equations of one frame, all blocks but the identity's own; shared: s, log f.

    Returns the metric in head space, from which `add_identity` makes that block: where frames share their points, once
    for all of them.
    """
    points, x = seen.points, seen.x_camera
    n, _, s = points.identity.shape
    rotated = x - seen.shifts * t
    small = np.zeros((n, 3, POSE + 1))  # turn, shift, log focal; camera frame
    small[:, 0, 1], small[:, 0, 2] = rotated[:, 2], -rotated[:, 1]
    small[:, 1, 0], small[:, 1, 2] = -rotated[:, 2], rotated[:, 0]
    small[:, 2, 0], small[:, 2, 1] = rotated[:, 1], -rotated[:, 0]
    small[:, [0, 1, 2], [3, 4, 5]] = seen.shifts
    small[:, 0, 6], small[:, 1, 6] = x[:, 0], x[:, 1]
    metric = r.T @ seen.metric @ r  # from here on in head space
    pull = seen.pull @ r
    small = r.T @ small
    d_exp = points.expression.shape[2]
    identity = points.identity.reshape(3 * n, s)
    own = np.concatenate([small[..., :POSE], points.expression], -1)
    weighted = (metric @ np.concatenate([own, small[..., POSE:]], -1)).reshape(3 * n, -1)
    own = own.reshape(3 * n, POSE + d_exp)
    to.own[frame] += own.T @ weighted[:, :-1]
    to.cross[frame, :s] += identity.T @ weighted[:, :-1]
    to.cross[frame, s] += weighted[:, -1] @ own
    focal = identity.T @ weighted[:, -1]
    to.shared[:s, s] += focal
    to.shared[s, :s] += focal
    to.shared[s, s] += weighted[:, -1] @ small[..., POSE].reshape(-1)
    flat = pull.reshape(-1)
    to.g_own[frame] += own.T @ flat
    to.g_shared[:s] += identity.T @ flat
    to.g_shared[s] += small[..., POSE].reshape(-1) @ flat
    return metric


def add_identity(to: Arrow, points: Points, metric: Float[np.ndarray, "points 3 3"]) -> None:
    """The identity's own block for points with this metric, head space."""
    n, _, s = points.identity.shape
    to.shared[:s, :s] += points.identity.reshape(3 * n, s).T @ (metric @ points.identity).reshape(3 * n, s)
