"""Overlap of two silhouettes in the pictures of their own cameras, above the neck."""

import cv2
import numpy as np
from jaxtyping import Bool, Float

from mononphm_core.types import HeadMesh

FINER = 2
"""Silhouettes are drawn this many times larger than the picture."""
NECK_Z_MM = 30.0
"""Depth in head space of the line that ends the comparison, so that it passes through the middle of the neck."""


def silhouette(mesh: HeadMesh, k: Float[np.ndarray, "3 3"], size: tuple[int, int]) -> Bool[np.ndarray, "height width"]:
    """Where the picture of `size` (width, height) shows the mesh, `FINER` times as fine. Pixel centres at .5."""
    vertices = np.asarray(mesh.vertices, np.float64)
    seen = np.isfinite(vertices).all(-1) & (vertices[:, 2] > 1e-6 * np.nanmax(np.abs(vertices[:, 2])))
    depth = np.where(seen, vertices[:, 2], 1.0)
    pixels = np.where(seen[:, None], (vertices @ k.T)[:, :2] / depth[:, None], 0.0)
    longest = max(size)
    pixels = np.clip(pixels, -4 * longest, 5 * longest) * FINER - 0.5  # OpenCV draws centres at whole numbers
    corners = np.round(pixels * 16).astype(np.int32)[mesh.faces[seen[mesh.faces].all(-1)]]
    picture = np.zeros((size[1] * FINER, size[0] * FINER), np.uint8)
    for corner in corners[_area(corners) != 0]:
        cv2.fillConvexPoly(picture, corner, (255,), shift=4)
    return picture > 0


def above_neck(
    head_to_camera: Float[np.ndarray, "4 4"], k: Float[np.ndarray, "3 3"], size: tuple[int, int], neck_mm: float
) -> Bool[np.ndarray, "height width"]:
    """Pixels above the picture of the line y = `neck_mm`, z = 30 mm of head space."""
    ends = np.array([[-200.0, neck_mm, NECK_Z_MM], [200.0, neck_mm, NECK_Z_MM]])
    camera = ends @ head_to_camera[:3, :3].T + head_to_camera[:3, 3]
    (x0, y0), (x1, y1) = (camera @ k.T)[:, :2] / camera[:, 2:]
    width, height = size[0] * FINER, size[1] * FINER
    x, y = (np.arange(width) + 0.5) / FINER, (np.arange(height) + 0.5) / FINER
    return y[:, None] < (y0 + (x - x0) * (y1 - y0) / (x1 - x0))[None]


def overlap(a: Bool[np.ndarray, "height width"], b: Bool[np.ndarray, "height width"]) -> float:
    """Intersection over union; 0 when both are empty."""
    return float((a & b).sum() / max(int((a | b).sum()), 1))


def _area(corners: np.ndarray) -> np.ndarray:
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return a[:, 0].astype(np.int64) * b[:, 1] - a[:, 1].astype(np.int64) * b[:, 0]
