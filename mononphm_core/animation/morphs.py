"""A clip's shapes as few: principal components of what the frames add to the neutral head.

x[frame] ~ neutral + sum over shapes k of weight[frame, k] shape[k],     largest error over all vertices <= bound
"""

import numpy as np
from jaxtyping import Float


def fewest_shapes(
    offsets: Float[np.ndarray, "frames vertices 3"], bound: float
) -> tuple[Float[np.ndarray, "shapes vertices 3"], Float[np.ndarray, "frames shapes"], float]:
    """Shapes, weights and the largest error that remains, in the unit of `offsets`.

    As many principal components (about 0, not about the mean: weight 0 is the neutral head) as keep every vertex of
    every frame within `bound`. Each shape is scaled so that its largest weight in the clip is 1. No shape at all where
    nothing moves.
    """
    flat = offsets.reshape(len(offsets), -1).astype(np.float64)
    values, vectors = np.linalg.eigh(flat @ flat.T)  # frames x frames: there are far fewer frames than coordinates
    order = np.argsort(values)[::-1]
    order = order[values[order] > 1e-12 * max(values.max(initial=0.0), 1e-30)]
    left = vectors[:, order]
    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        if _largest_error(flat, left[:, :middle]) <= bound:
            high = middle
        else:
            low = middle + 1
    left = left[:, :low]
    size = np.abs(left).max(0, initial=1e-30)
    weights = left / size
    shapes = (left * size).T @ flat
    shapes = shapes.reshape(low, *offsets.shape[1:]).astype(np.float32)
    return shapes, weights.astype(np.float32), _largest_error(flat, left)


def carried(
    values: Float[np.ndarray, "frames vertices 3"], weights: Float[np.ndarray, "frames shapes"]
) -> Float[np.ndarray, "shapes vertices 3"]:
    """What the same weights make of other values of the frames (normals): least squares."""
    flat = values.reshape(len(values), -1)
    return (np.linalg.pinv(weights.astype(np.float64)) @ flat).reshape(weights.shape[1], *values.shape[1:])


def _largest_error(flat: Float[np.ndarray, "frames coordinates"], left: Float[np.ndarray, "frames shapes"]) -> float:
    """Longest remaining displacement of any vertex in any frame."""
    rest = flat - left @ (left.T @ flat)
    return float(np.sqrt(np.square(rest).reshape(len(flat), -1, 3).sum(-1).max(initial=0.0)))
