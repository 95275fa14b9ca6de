"""A depth picture as points with normals. OpenCV camera axes, metres."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Real

NEAR_M, FAR_M = 0.01, 0.8
FACING = 0.2
"""Least cosine between viewing direction and normal."""
SOBEL = 11


@dataclass(frozen=True)
class ScanPoints:
    """What is compared: points of the evaluated region, with normals that point away from the camera."""

    points: Float[np.ndarray, "points 3"]
    normals: Float[np.ndarray, "points 3"]


def backproject(depth: Real[np.ndarray, "height width"], k: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "h w 3"]:
    """X = K^-1 (u, v, 1) * depth / 1000, with whole pixel numbers as in the published program."""
    v, u = np.mgrid[: depth.shape[0], : depth.shape[1]]
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(k).T
    x: Float[np.ndarray, "h w 3"] = rays * (depth[..., None] / 1000.0)
    return x


def normals_of(x: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 3"]:
    """n ~ (-dz/dx, -dz/dy, 1), each derivative a quotient of Sobel responses; zero where it is not defined."""
    with np.errstate(divide="ignore", invalid="ignore"):
        across = _sobel(x[..., 2], 1, 0) / _sobel(x[..., 0], 1, 0)
        down = _sobel(x[..., 2], 0, 1) / _sobel(x[..., 1], 0, 1)
    normal = np.stack([-across, -down, np.ones_like(across)], -1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    return np.where(np.isfinite(normal).all(-1, keepdims=True), normal, 0.0)


def _sobel(values: Float[np.ndarray, "h w"], dx: int, dy: int) -> Float[np.ndarray, "h w"]:
    return np.asarray(cv2.Sobel(values, cv2.CV_64F, dx, dy, ksize=SOBEL))


def scan_points(
    depth: Real[np.ndarray, "height width"], k: Float[np.ndarray, "3 3"], region: Bool[np.ndarray, "height width"]
) -> ScanPoints:
    """Points of `region` at a depth between 0.01 and 0.8 m whose surface does not turn away."""
    x = backproject(depth, k)
    normal = normals_of(x)
    distance = np.linalg.norm(x, axis=-1)
    facing = (x * normal).sum(-1) / np.maximum(distance, 1e-12)
    kept = region & (x[..., 2] > NEAR_M) & (x[..., 2] < FAR_M) & (facing > FACING)
    return ScanPoints(x[kept], normal[kept])
