"""A clip's shapes as few: principal components of what the frames add to the neutral head.

x[frame] ~ neutral + sum over shapes k of weight[frame, k] shape[k],     largest error over all vertices <= bound

All weights lie in [0, 1]: programs with a slider a shape cut off what lies outside (Blender does at import).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

BASIS_FRAMES = 160
"""Of a longer clip so many frames, evenly spaced, define the shapes; memory does not grow with the clip."""


@dataclass(frozen=True)
class ClipShapes:
    """A clip as few shapes."""

    shapes: Float[np.ndarray, "shapes vertices 3"]
    weights: Float[np.ndarray, "frames shapes"]
    error: float
    """Largest, of any vertex in any frame."""
    offsets: Float[np.ndarray, "basis vertices 3"]
    """Of the frames that define the shapes."""
    basis_weights: Float[np.ndarray, "basis shapes"]


def clip_shapes(
    frames: int, offset_of: Callable[[int, int], Float[np.ndarray, "vertices 3"]], bound: float
) -> ClipShapes:
    """The fewest shapes of a clip of any length; `bound` holds in the frames that define them.

    `offset_of(frame, done)` is what that frame adds to the neutral head; it is the `done`-th one asked for.
    """
    basis = np.unique(np.linspace(0, frames - 1, min(frames, BASIS_FRAMES)).round().astype(int))
    rest = np.setdiff1d(np.arange(frames), basis)
    offsets = np.stack([offset_of(int(frame), done) for done, frame in enumerate(basis, 1)])
    shapes, of_basis, error = fewest_shapes(offsets, bound)
    weights = np.zeros((frames, len(shapes)), np.float32)
    weights[basis] = of_basis
    if len(rest):
        onto = np.linalg.pinv(shapes.reshape(len(shapes), -1).astype(np.float64))
        for done, frame in enumerate(rest, len(basis) + 1):
            offset = offset_of(int(frame), done)
            weights[frame] = offset.reshape(-1) @ onto
            left = offset - np.tensordot(weights[frame], shapes, 1)
            error = max(error, float(np.linalg.norm(left, axis=-1).max(initial=0.0)))
    shapes, weights = from_zero_to_one(shapes, weights)
    return ClipShapes(shapes, weights, error, offsets, weights[basis])


def from_zero_to_one(
    shapes: Float[np.ndarray, "shapes vertices 3"], weights: Float[np.ndarray, "frames shapes"]
) -> tuple[Float[np.ndarray, "positive vertices 3"], Float[np.ndarray, "frames positive"]]:
    """The same frames with weights in [0, 1], at the price of at most one shape more; 0 stays the neutral head.

    With c_k = max over frames of -w_k, the shape that is added is -sum_k c_k s_k. Its weight w_0 = max_k(-w_k / c_k)
    lets w_k + c_k w_0 >= 0 take the place of w_k. Each shape is scaled so that its largest weight is 1.
    """
    sides = np.where(np.abs(weights.min(0, initial=0.0)) > weights.max(0, initial=0.0), -1.0, 1.0)
    w, s = weights.astype(np.float64) * sides, shapes.astype(np.float64) * sides[:, None, None]
    c = -w.min(0, initial=0.0)
    if (c > 0).any():
        against = (-w[:, c > 0] / c[c > 0]).max(1).clip(0.0)
        w = np.concatenate([w + against[:, None] * c, against[:, None]], 1)
        s = np.concatenate([s, -np.tensordot(c, s, 1)[None]])
    most = w.max(0, initial=1e-30)
    return (s * most[:, None, None]).astype(np.float32), (w / most).clip(0.0, 1.0).astype(np.float32)


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
