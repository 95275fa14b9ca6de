"""What a list of triangles says of its points and vertices. Any unit and frame."""

import numpy as np
from jaxtyping import Float, Int


def barycentric_of(
    points: Float[np.ndarray, "points 3"], corners: Float[np.ndarray, "points 3 3"]
) -> Float[np.ndarray, "points 3"]:
    """Of points in the planes of their triangles, not clipped; of a triangle without area, something finite."""
    a, b, c = corners.swapaxes(0, 1)
    across = np.cross(b - a, c - a)
    scale = np.maximum((across * across).sum(-1), 1e-300)
    second = (np.cross(points - a, c - a) * across).sum(-1) / scale
    third = (np.cross(b - a, points - a) * across).sum(-1) / scale
    return np.stack([1 - second - third, second, third], -1)


def vertex_areas(
    x: Float[np.ndarray, "vertices 3"], triangles: Int[np.ndarray, "triangles 3"]
) -> Float[np.ndarray, "vertices"]:
    """A third of the area of each vertex's triangles."""
    corner = x[triangles]
    area = np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1) / 6
    return np.bincount(triangles.reshape(-1), np.repeat(area, 3), minlength=len(x))
